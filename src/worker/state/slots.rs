//! How many handlers run at once: `worker.concurrency`.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The right to run one handler.
pub(crate) type Permit = OwnedSemaphorePermit;

/// One permit for each handler that may run.
pub(crate) struct Slots {
    all: usize,
    permits: Arc<Semaphore>,
}

impl Slots {
    pub fn new(all: usize) -> Self {
        Slots {
            all,
            permits: Arc::new(Semaphore::new(all)),
        }
    }

    /// A slot, if one is free.
    #[inline]
    pub fn try_take(&self) -> Option<Permit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// A slot, once one is free.
    pub async fn take(&self) -> Option<Permit> {
        self.permits.clone().acquire_owned().await.ok()
    }

    pub fn all(&self) -> usize {
        self.all
    }

    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }

    /// How many are taken.
    pub fn running(&self) -> usize {
        self.all.saturating_sub(self.free())
    }
}
