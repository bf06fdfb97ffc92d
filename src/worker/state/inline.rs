//! Whether runs are handled on the thread that reads them, and when.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Most entries that wait at once to be handled on the thread that read them.
const FEW: usize = 8;
/// Handlers that took longer than this were not quick: nothing is handled there for so many times as long as they took,
/// or as it took to notice, so that no more than a hundredth of the time is lost to them.
const QUICK: Duration = Duration::from_micros(100);
const REST: u32 = 100;

/// Whether runs may be handled on the thread that read them.
pub(crate) struct Inline {
    began: Instant,
    is_open: AtomicBool,
    /// Entries on their way to that thread's own hands.
    waiting: AtomicUsize,
    /// Runs that are with lanes, or on their way to them.
    elsewhere: AtomicUsize,
    handled: AtomicU64,
    /// After so long it is noticed that a handler takes long.
    noticed: Duration,
    /// Nothing is handled there before, in ns since it began.
    not_before: AtomicU64,
}

/// As long as there is one, runs may be handled where they were read.
pub(crate) struct Opened<'a>(&'a Inline);

impl Inline {
    /// A handler that takes long is noticed after `noticed`.
    pub fn new(noticed: Duration) -> Self {
        Inline {
            noticed,
            began: Instant::now(),
            is_open: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            elsewhere: AtomicUsize::new(0),
            handled: AtomicU64::new(0),
            not_before: AtomicU64::new(0),
        }
    }

    /// From now on until what this answers is dropped.
    pub fn open(&self) -> Opened<'_> {
        self.is_open.store(true, Ordering::SeqCst);
        Opened(self)
    }

    /// Whether so many entries may go that way; if so, they do.
    pub fn admits(&self, entries: usize) -> bool {
        let waiting = self.waiting.load(Ordering::Relaxed);
        let admits = waiting + entries <= FEW && self.may_run() && {
            let now = self.began.elapsed().as_nanos() as u64;
            now >= self.not_before.load(Ordering::Relaxed)
        };
        if admits {
            self.waiting.fetch_add(entries, Ordering::Relaxed);
        }
        admits
    }

    /// Whether somebody is there to do it, and no lane has anything: with one handler at a time, entries that are new
    /// are to be handled in their order.
    pub fn may_run(&self) -> bool {
        self.elsewhere.load(Ordering::SeqCst) == 0 && self.is_open.load(Ordering::SeqCst)
    }

    /// How many runs have been handled there.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// One has, wholly.
    pub fn handled_one(&self) {
        self.handled.fetch_add(1, Ordering::Relaxed);
    }

    /// So many entries have been handled there, or have gone to a lane after all.
    pub fn took(&self, entries: usize, time: Duration) {
        self.waiting.fetch_sub(entries, Ordering::Relaxed);
        if time > QUICK {
            let until = self.began.elapsed() + time.min(self.noticed) * REST;
            self.not_before
                .store(until.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    /// A run goes to a lane.
    pub fn left(&self) {
        self.elsewhere.fetch_add(1, Ordering::SeqCst);
    }

    /// A lane is done with one.
    pub fn came_back(&self) {
        self.elsewhere.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.is_open.store(false, Ordering::SeqCst);
    }
}

/// Lets what waits to be handled here go first. Of use only to the fetcher, which is polled anew after it.
pub(crate) async fn handle_now() {
    let mut is_over = false;
    poll_fn(|_| match std::mem::replace(&mut is_over, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICED: Duration = Duration::from_millis(40);

    #[test]
    fn few_are_admitted_while_lanes_have_nothing_and_handlers_are_quick() {
        let inline = Inline::new(NOTICED);
        assert!(!inline.admits(1), "nobody is there");
        let opened = inline.open();
        assert!(!inline.admits(FEW + 1));
        assert!(inline.admits(1) && inline.admits(FEW - 1));
        assert!(!inline.admits(1), "enough wait");
        inline.took(FEW, QUICK);
        inline.left();
        assert!(!inline.admits(1), "a lane is ahead");
        inline.came_back();
        assert!(inline.admits(2));
        let took = 10 * QUICK;
        inline.took(2, took);
        let since = Instant::now();
        assert!(!inline.admits(1), "the last one took long");
        while !inline.admits(1) {
            assert!(since.elapsed() < Duration::from_secs(10));
        }
        assert!(since.elapsed() > took * 90);
        drop(opened);
        assert!(!inline.admits(1));
    }
}
