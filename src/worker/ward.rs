//! The ward: where an entry that may have killed its workers runs, one at a time and with nothing else starting
//! beside it, so that a worker that dies now names its culprit.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a suspect waits for running handlers to end before it is left to a later try.
const QUIET_WAIT: Duration = Duration::from_millis(500);

/// After so many tries that found no quiet the suspect runs beside handlers that have been running all the while.
const TRIES: usize = 3;

#[derive(Default)]
pub(super) struct Ward {
    closed: AtomicBool,
    occupied: AtomicBool,
    tries: AtomicUsize,
    /// Signalled when others may start again.
    opened: Notify,
}

impl Ward {
    /// Whether a suspect is in it.
    pub fn is_occupied(&self) -> bool {
        self.occupied.load(Ordering::SeqCst)
    }

    /// Waits until other handlers may start. Costs one load where nothing is in the way.
    pub async fn pass(&self) {
        while self.closed.load(Ordering::SeqCst) {
            let opened = self.opened.notified();
            if !self.closed.load(Ordering::SeqCst) {
                return;
            }
            opened.await;
        }
    }

    /// Whether other handlers may start now.
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::SeqCst)
    }

    /// Lets nothing else start and waits a while for `running` to become zero. Answers whether a suspect may come.
    pub async fn quiet(&self, running: impl Fn() -> usize) -> bool {
        self.closed.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + QUIET_WAIT;
        while running() > 0 {
            if Instant::now() >= deadline {
                if self.tries.fetch_add(1, Ordering::SeqCst) + 1 >= TRIES {
                    break;
                }
                self.open();
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.tries.store(0, Ordering::SeqCst);
        true
    }

    /// A suspect has come in.
    pub fn enter(&self) {
        self.occupied.store(true, Ordering::SeqCst);
    }

    /// The suspect is settled, or none came.
    pub fn leave(&self) {
        self.occupied.store(false, Ordering::SeqCst);
        self.open();
    }

    /// Others may start again, though a suspect may still be running: it has outlived its first lease.
    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }
}
