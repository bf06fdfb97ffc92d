//! How many handlers run at once: `worker.concurrency`, or what an operator asks for in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The right to run one handler.
pub(crate) type Permit = OwnedSemaphorePermit;

/// One permit for each handler that may run.
pub(crate) struct Slots {
    /// How many there are to be,
    all: AtomicUsize,
    /// and how many permits there are, taken ones among them: more for a while where it was lowered.
    there: AtomicUsize,
    permits: Arc<Semaphore>,
    lowered: Notify,
    /// How many wait for one.
    waiting: AtomicUsize,
    /// Several shards share them.
    shared: AtomicBool,
    /// Batches wait for some.
    for_batches: AtomicBool,
}

impl Slots {
    /// Several shards share them from now on.
    pub fn share(&self) {
        self.shared.store(true, Ordering::SeqCst);
    }

    /// Batches wait for some from now on.
    pub fn batch(&self) {
        self.for_batches.store(true, Ordering::SeqCst);
    }

    pub fn new(all: usize) -> Self {
        Slots {
            waiting: AtomicUsize::new(0),
            shared: AtomicBool::new(false),
            for_batches: AtomicBool::new(false),
            all: AtomicUsize::new(all),
            there: AtomicUsize::new(all),
            permits: Arc::new(Semaphore::new(all)),
            lowered: Notify::new(),
        }
    }

    /// A slot, if one is free.
    #[inline]
    pub fn try_take(&self) -> Option<Permit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// A slot, once one is free.
    pub async fn take(&self) -> Option<Permit> {
        let waits = Waits::new(&self.waiting);
        let permit = self.permits.clone().acquire_owned().await.ok();
        drop(waits);
        permit
    }

    /// Whether one that is kept from one handler to the next is to be left, because another shard, or a batch, may be
    /// waiting for it.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        let may_be = self.is_shared() || self.for_batches.load(Ordering::Relaxed);
        may_be && self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether several shards share them.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    pub fn all(&self) -> usize {
        self.all.load(Ordering::SeqCst)
    }

    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }

    /// How many are taken.
    pub fn running(&self) -> usize {
        let there = self.there.load(Ordering::SeqCst);
        there.saturating_sub(self.free())
    }

    /// There are to be so many from now on. What runs runs on: where it is lowered, [`tend`](Self::tend) takes slots out as
    /// they become free. One alone may call this at a time.
    pub fn set(&self, all: usize) {
        self.all.store(all, Ordering::SeqCst);
        let there = self.there.load(Ordering::SeqCst);
        if all > there {
            self.there.store(all, Ordering::SeqCst);
            self.permits.add_permits(all - there);
        } else {
            let gone = self.permits.forget_permits(there - all);
            self.there.fetch_sub(gone, Ordering::SeqCst);
            self.lowered.notify_one();
        }
    }

    /// Takes out what is too many, until it is dropped.
    pub async fn tend(&self) {
        loop {
            while self.there.load(Ordering::SeqCst) > self.all() {
                let Ok(permit) = self.permits.acquire().await else {
                    return;
                };
                permit.forget();
                self.there.fetch_sub(1, Ordering::SeqCst);
            }
            self.lowered.notified().await;
        }
    }
}

/// One waits as long as this is there.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Waits(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lowered_below_what_runs_it_gives_no_slot_before_enough_have_ended() {
        let slots = Slots::new(3);
        let mut taken: Vec<Permit> = (0..3).filter_map(|_| slots.try_take()).collect();
        slots.set(1);
        assert_eq!((slots.all(), slots.running(), slots.free()), (1, 3, 0));
        let tending = slots.tend();
        tokio::pin!(tending);
        for left in [2, 1] {
            taken.pop();
            assert!(futures_util::poll!(&mut tending).is_pending());
            assert_eq!((slots.running(), slots.free()), (left, 0));
            assert!(slots.try_take().is_none());
        }
        taken.pop();
        assert!(futures_util::poll!(&mut tending).is_pending());
        assert_eq!((slots.running(), slots.free()), (0, 1));
        slots.set(4);
        assert_eq!((slots.all(), slots.free()), (4, 4));
        slots.set(2);
        assert_eq!((slots.all(), slots.free(), slots.running()), (2, 2, 0));
    }

    #[tokio::test]
    async fn raised_again_before_enough_have_ended_nothing_more_is_taken_out() {
        let slots = Slots::new(2);
        let taken: Vec<Permit> = (0..2).filter_map(|_| slots.try_take()).collect();
        slots.set(1);
        slots.set(2);
        drop(taken);
        {
            let tending = slots.tend();
            tokio::pin!(tending);
            assert!(futures_util::poll!(&mut tending).is_pending());
        }
        assert_eq!((slots.all(), slots.free()), (2, 2));
    }
}
