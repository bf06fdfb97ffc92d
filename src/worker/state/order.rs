//! Whose a stream is whose events have an order, as this worker knows it, and until when.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::event::EntryId;
use crate::metrics::entries::Outcome;

/// The order of one stream's events; the same for its replayed ones.
pub(crate) struct Order {
    /// A dead letter holds its subject.
    pub holds: bool,
    /// What orders them.
    hears: OnceLock<Arc<dyn Hears>>,
    /// The number of this worker's lease; zero if it has none.
    epoch: AtomicU64,
    /// It is to read, and to hand out what comes.
    reads: AtomicBool,
    /// Nothing is being read of it: set by the fetcher between its reads, and looked at when it is released.
    is_still: AtomicBool,
    began: Instant,
    /// When it was taken under this number: nanoseconds since `began`.
    taken: AtomicU64,
    /// Until when it is surely this worker's: nanoseconds since `began`.
    until: AtomicU64,
}

/// Who is told what has become of entries.
pub(crate) trait Hears: Send + Sync {
    fn settled(&self, entries: Settled<'_>);
}

/// Entries of a stream that have been settled, or are no longer this worker's to settle.
#[derive(Clone, Copy)]
pub(crate) struct Settled<'a> {
    pub stream: &'a str,
    /// They are of the stream itself, and not replayed ones of it.
    pub is_new: bool,
    /// A dead letter holds its subject.
    pub holds: bool,
    pub ids: &'a [EntryId],
    pub outcome: Outcome,
}

impl Order {
    pub fn new(holds: bool) -> Self {
        Order {
            holds,
            hears: OnceLock::new(),
            epoch: AtomicU64::new(0),
            reads: AtomicBool::new(false),
            is_still: AtomicBool::new(true),
            began: Instant::now(),
            taken: AtomicU64::new(0),
            until: AtomicU64::new(0),
        }
    }

    pub fn heard_by(&self, hears: Arc<dyn Hears>) {
        let _ = self.hears.set(hears);
    }

    pub fn settled(&self, entries: Settled<'_>) {
        if let Some(hears) = self.hears.get() {
            hears.settled(entries);
        }
    }

    /// The number of this worker's lease, if it has one.
    pub fn epoch(&self) -> Option<u64> {
        Some(self.epoch.load(Ordering::SeqCst)).filter(|epoch| *epoch > 0)
    }

    /// It is this worker's, by a request sent at `sent`, for so long.
    pub fn is_mine(&self, epoch: u64, sent: Instant, lease: Duration) {
        let until = sent.saturating_duration_since(self.began) + lease;
        self.until
            .fetch_max(until.as_nanos() as u64, Ordering::SeqCst);
        if self.epoch.load(Ordering::SeqCst) != epoch {
            let taken = self.began.elapsed().as_nanos() as u64;
            self.taken.store(taken, Ordering::SeqCst);
            self.epoch.store(epoch, Ordering::SeqCst);
        }
    }

    /// Whether what was asked for at `since` was asked for under the lease that this worker has. If it had the stream before,
    /// lost it and has it again, what comes late may be done with by now.
    pub fn was_mine(&self, since: Instant) -> bool {
        let since = since.saturating_duration_since(self.began).as_nanos() as u64;
        self.epoch().is_some() && since >= self.taken.load(Ordering::SeqCst)
    }

    /// It may be another's: nothing that is held of it starts before it is known.
    pub fn is_doubtful(&self) {
        self.reads.store(false, Ordering::SeqCst);
        self.until.store(0, Ordering::SeqCst);
    }

    /// It is not any more.
    pub fn is_lost(&self) {
        self.reads.store(false, Ordering::SeqCst);
        self.epoch.store(0, Ordering::SeqCst);
        self.until.store(0, Ordering::SeqCst);
    }

    /// Whether its entries are fetched.
    pub fn reads(&self) -> bool {
        self.reads.load(Ordering::SeqCst)
    }

    pub fn set_reads(&self, reads: bool) {
        if reads {
            self.is_still.store(false, Ordering::SeqCst);
        }
        self.reads.store(reads, Ordering::SeqCst);
    }

    /// The fetcher has nothing of it under way.
    pub fn stands_still(&self) {
        if !self.reads() {
            self.is_still.store(true, Ordering::SeqCst);
        }
    }

    pub fn is_still(&self) -> bool {
        self.is_still.load(Ordering::SeqCst)
    }

    /// What of `lease`, begun at `since`, this worker's lease of the stream covers: no entry is held for longer.
    pub fn covers(&self, since: Instant, lease: Duration) -> Duration {
        if self.epoch().is_none() {
            // What is held of it is marked as another's.
            return lease;
        }
        let until = Duration::from_nanos(self.until.load(Ordering::SeqCst));
        let since = since.saturating_duration_since(self.began);
        lease.min(until.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_entry_is_held_beyond_the_lease_of_its_stream() {
        let order = Order::new(true);
        let (lease, sent) = (Duration::from_secs(30), Instant::now());
        order.is_mine(3, sent, lease);
        let later = sent + Duration::from_secs(20);
        assert_eq!(order.covers(later, lease), Duration::from_secs(10));
        assert_eq!(order.covers(sent + 2 * lease, lease), Duration::ZERO);
        let asked = Instant::now();
        assert!(order.was_mine(asked));
        std::thread::sleep(Duration::from_millis(1));
        order.is_mine(3, asked, lease);
        assert!(order.was_mine(asked));
        order.is_mine(4, asked, lease);
        assert!(!order.was_mine(asked) && order.was_mine(Instant::now()));
        order.is_lost();
        assert_eq!(order.epoch(), None);
    }

    #[test]
    fn it_stands_still_once_the_fetcher_has_seen_that_it_is_not_read() {
        let order = Order::new(true);
        order.set_reads(true);
        order.stands_still();
        assert!(!order.is_still());
        order.set_reads(false);
        assert!(!order.is_still());
        order.stands_still();
        assert!(order.is_still());
    }
}
