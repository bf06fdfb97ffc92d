//! The watch: one thread works, another sleeps, looks in now and then, and takes over where the first is held up.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// How often the second thread looks. Who works on the same thing for so long is held up.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
/// After so many looks at nothing new it sleeps until there is something to look at.
const QUIET: u32 = 50;

/// What the two threads know of each other.
#[derive(Default)]
pub(crate) struct Watchdog {
    /// Counts beginnings and ends: odd while something is worked on.
    count: AtomicU64,
    /// Somebody stands by.
    is_kept: AtomicBool,
    /// Whoever stands by sleeps until it is woken.
    is_asleep: AtomicBool,
    has_ended: AtomicBool,
    standby: Mutex<Option<Thread>>,
}

/// What one thread works on while another one watches.
pub(crate) struct Work(u64);

impl Watchdog {
    /// The calling thread begins with something; None where nobody would notice if it were held up.
    pub fn begin(&self) -> Option<Work> {
        if !self.is_kept.load(Ordering::SeqCst) {
            return None;
        }
        let work = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if self.is_asleep.load(Ordering::SeqCst) && self.is_asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        Some(Work(work))
    }

    /// The end of it. Answers whether the calling thread still has everything else to do, too.
    pub fn end(&self, Work(work): Work) -> bool {
        self.move_on(work)
    }

    /// Everything is over: whoever stands by is let go.
    pub fn close(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Stands by. Answers true where the calling thread is to take over: until somebody stands by again, nothing
    /// begins that could be held up; and false where all is over.
    pub fn stand_by(&self) -> bool {
        *self.standby() = Some(std::thread::current());
        let mut seen = self.count.load(Ordering::SeqCst);
        let (mut since, mut quiet) = (Instant::now(), 0);
        self.is_kept.store(true, Ordering::SeqCst);
        while !self.has_ended.load(Ordering::SeqCst) {
            if quiet < QUIET {
                std::thread::park_timeout(LOOK);
            } else {
                self.is_asleep.store(true, Ordering::SeqCst);
                // Whoever begins after this look sees that it has to wake us.
                if self.count.load(Ordering::SeqCst) == seen {
                    std::thread::park();
                }
                self.is_asleep.store(false, Ordering::SeqCst);
            }
            let now = self.count.load(Ordering::SeqCst);
            if now != seen {
                (seen, since, quiet) = (now, Instant::now(), 0);
            } else if now.is_multiple_of(2) {
                quiet = (quiet + 1).min(QUIET);
            } else if since.elapsed() >= LOOK {
                // Before the other one can know, who stands by from then on.
                self.is_kept.store(false, Ordering::SeqCst);
                if self.move_on(now) {
                    return true;
                }
                self.is_kept.store(true, Ordering::SeqCst);
            }
        }
        false
    }

    /// From this count to the next one, unless somebody else has done so.
    fn move_on(&self, from: u64) -> bool {
        let moved = self
            .count
            .compare_exchange(from, from + 1, Ordering::SeqCst, Ordering::SeqCst);
        moved.is_ok()
    }

    fn wake(&self) {
        if let Some(standby) = &*self.standby() {
            standby.unpark();
        }
    }

    fn standby(&self) -> std::sync::MutexGuard<'_, Option<Thread>> {
        lock(&self.standby)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Waits until somebody stands by.
    fn is_kept(watch: &Watchdog) {
        let since = Instant::now();
        while !watch.is_kept.load(Ordering::SeqCst) {
            assert!(since.elapsed() < PATIENCE, "nobody stands by");
            std::thread::yield_now();
        }
    }

    /// Somebody who stands by once. What that came to.
    fn standby(watch: &Arc<Watchdog>) -> Receiver<bool> {
        let (tell, told) = channel();
        let theirs = watch.clone();
        std::thread::spawn(move || tell.send(theirs.stand_by()));
        is_kept(watch);
        told
    }

    #[test]
    fn who_is_held_up_is_relieved_and_told() {
        let watch = Arc::new(Watchdog::default());
        assert!(watch.begin().is_none(), "nobody would notice");
        let relieved = standby(&watch);
        let since = Instant::now();
        let work = watch.begin().expect("somebody stands by");
        assert_eq!(relieved.recv_timeout(PATIENCE), Ok(true));
        assert!(since.elapsed() >= LOOK);
        assert!(watch.begin().is_none(), "nobody stands by now");
        assert!(!watch.end(work), "the rest is somebody else's");
        standby(&watch);
        let work = watch.begin().expect("somebody stands by again");
        assert!(watch.end(work));
    }

    #[test]
    fn who_works_on_one_thing_after_the_other_is_not() {
        let watch = Arc::new(Watchdog::default());
        let relieved = standby(&watch);
        let since = Instant::now();
        let mut longest = Duration::ZERO;
        while since.elapsed() < 10 * LOOK {
            let began = Instant::now();
            let work = watch.begin().expect("somebody stands by");
            std::thread::sleep(LOOK / 20);
            let ended = watch.end(work);
            longest = longest.max(began.elapsed());
            assert!(ended || longest >= LOOK);
            if !ended {
                // This thread itself was not run for so long.
                return;
            }
        }
        watch.close();
        assert_eq!(relieved.recv_timeout(PATIENCE), Ok(false));
    }

    #[test]
    fn who_sleeps_for_want_of_work_is_woken_by_it() {
        let watch = Arc::new(Watchdog::default());
        let relieved = standby(&watch);
        let since = Instant::now();
        while !watch.is_asleep.load(Ordering::SeqCst) {
            assert!(since.elapsed() < PATIENCE, "nothing to do, and awake");
            std::thread::sleep(LOOK);
        }
        let work = watch.begin().expect("somebody stands by");
        assert_eq!(relieved.recv_timeout(PATIENCE), Ok(true));
        assert!(!watch.end(work));
    }

    #[test]
    fn the_end_lets_go_who_stands_by_awake_or_asleep() {
        for naps in [0, 2 * QUIET] {
            let watch = Arc::new(Watchdog::default());
            let relieved = standby(&watch);
            std::thread::sleep(naps * LOOK);
            watch.close();
            assert_eq!(relieved.recv_timeout(PATIENCE), Ok(false));
        }
        let watch = Watchdog::default();
        watch.close();
        assert!(!watch.stand_by());
    }
}
