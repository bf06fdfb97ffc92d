//! Who reads which streams of a large fleet on a cluster. If every worker of a thousand read every partition of a thousand,
//! their idle looks alone would be some millions of requests a second, and their connections a million.
//!
//! So a worker reads a stream only if few of those that read it rank before it there, by a hash of both names that is the
//! same for all (rendezvous hashing). Nothing is agreed on: the stream's own list of consumers tells who reads it. Who does
//! not read it looks at that list now and then, the less often the more they are, and begins to read if too few do. A few
//! streams, those that it ranks highest, a worker reads in any case, so that none has nothing to do.
//!
//! Whoever differs from others in what it knows only reads where it need not, or, until a visit later, does not where it
//! might. What is delivered, renewed and taken over is the same for all who read.

use std::time::Duration;

/// So many workers read a stream at least, if there are as many.
pub const READERS: usize = 16;
/// So many streams a worker reads whoever else does.
const OWN: usize = 8;
/// Who has not asked for entries for so long does not read, or has no room.
pub const FRESH: Duration = Duration::from_secs(3);
/// So often in a row a worker sees that it is not needed before it goes off duty.
const PATIENCE: u32 = 2;
/// If a worker has more streams than this it visits them before it reads them, so many of them a second.
const AT_ONCE: (usize, u32) = (64, 100);
/// How often somebody off duty visits a stream.
const VISITED: Duration = Duration::from_secs(1);
/// The least and the most time between two visits of one worker.
const VISITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));

/// Whether one worker reads one stream.
#[derive(Debug)]
pub struct Duty {
    /// It is one of those that the worker reads in any case.
    is_own: bool,
    is_on: bool,
    not_needed: u32,
}

/// Where a worker stands among those that read a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many read it, beside this one.
    pub readers: usize,
    /// How many of those rank before it.
    pub before: usize,
}

impl Duty {
    /// Of a stream that the worker reads in any case, or not; which it reads as it begins, or visits first.
    pub fn new(is_own: bool, begins_on: bool) -> Self {
        Duty {
            is_own,
            is_on: is_own || begins_on,
            not_needed: 0,
        }
    }

    /// Whether it reads the stream.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// It has looked who reads the stream. Returns whether it should not read it any more: once it holds nothing of it, it
    /// [`leaves`](Self::leaves).
    pub fn sees(&mut self, standing: Standing) -> bool {
        let is_needed = self.is_own || standing.before < READERS;
        if is_needed {
            self.is_on = true;
            self.not_needed = 0;
        } else {
            self.not_needed = self.not_needed.saturating_add(1);
        }
        self.may_leave()
    }

    /// Whether others do without it.
    pub fn may_leave(&self) -> bool {
        self.is_on && self.not_needed >= PATIENCE
    }

    /// It does not read it any more.
    pub fn leaves(&mut self) {
        self.is_on = false;
        self.not_needed = 0;
    }

    /// It reads it, whoever else does.
    pub fn begins(&mut self) {
        self.is_on = true;
        self.not_needed = 0;
    }
}

/// How long ago a worker has shown that it reads a stream, or would: of what is not read yet, or not any more, because its
/// topic has grown, those on duty renew their leases and ask for nothing.
pub fn seen(idle: Duration, lease: Duration, is_read: bool) -> Duration {
    match is_read || idle >= lease {
        true => idle,
        false => Duration::ZERO,
    }
}

/// Where `me` stands, if those were seen to ask for entries so long ago.
pub fn standing<'a>(
    stream: &str,
    me: &str,
    others: impl IntoIterator<Item = (&'a str, Duration)>,
) -> Standing {
    let mine = rank(stream, me);
    let fresh = others.into_iter().filter(|(_, seen)| *seen < FRESH);
    let ranks = fresh.map(|(other, _)| rank(stream, other));
    ranks.fold(
        Standing {
            readers: 0,
            before: 0,
        },
        |all, rank| Standing {
            readers: all.readers + 1,
            before: all.before + usize::from(rank > mine),
        },
    )
}

/// Where `me` stands among `crew`: those that are there to have a stream whose events have an order.
pub fn among<'a>(
    stream: &str,
    me: &str,
    crew: impl IntoIterator<Item = &'a (impl AsRef<str> + 'a)>,
) -> Standing {
    let others = crew.into_iter().map(AsRef::as_ref);
    let others = others.filter(|other| *other != me);
    standing(stream, me, others.map(|other| (other, Duration::ZERO)))
}

/// Which of `streams` the worker reads in any case: those that it ranks highest.
pub fn own(streams: &[&str], me: &str) -> Vec<bool> {
    highest(streams, me, OWN)
}

/// Which are the `most` that the worker ranks highest.
pub fn highest(streams: &[&str], me: &str, most: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..streams.len()).collect();
    order.sort_by_cached_key(|at| std::cmp::Reverse(rank(streams[*at], me)));
    let mut highest = vec![false; streams.len()];
    order.iter().take(most).for_each(|at| highest[*at] = true);
    highest
}

/// Whether a worker of so many streams reads all of them as it begins, and finds out who else does while it reads.
pub fn begins_with_all(streams: usize) -> bool {
    streams <= AT_ONCE.0
}

/// How many of `more` streams a worker reads as they come, those that it ranks highest, if it is on duty at `on` of `all`
/// that it knows: as large a share. That is what it comes to in the end, so that some sixteen workers begin at once with each,
/// and nobody has to agree on that either. From so few that it would read them in any case it learns nothing.
pub fn begins_with(more: usize, on: usize, all: usize) -> usize {
    let most = match all {
        0..=OWN if begins_with_all(more) => more,
        _ if on <= OWN => OWN,
        all => (more * on).div_ceil(all).max(OWN),
    };
    most.min(more)
}

/// How long it is until a worker of many streams visits the first time the one that is at this place among those it visits.
pub fn first_visit_in(place: usize) -> Duration {
    let each = Duration::from_secs(1) / AT_ONCE.1;
    each.mul_f64(place as f64 + fastrand::f64())
}

/// How long it is until the next visit of a worker that is on duty at `on` streams and off at `off`, if `readers` read the
/// one it visited. From its own share it knows how large the fleet is: all of them together visit a stream about once a
/// second.
pub fn visit_in(readers: usize, on: usize, off: usize) -> Duration {
    let idle = readers as f64 * off as f64 / on.max(1) as f64;
    let wait = VISITED.mul_f64(idle.clamp(1.0, 1000.0));
    let wait = wait.clamp(VISITS.0, VISITS.1);
    wait.mul_f64(0.75 + 0.5 * fastrand::f64())
}

/// Where a worker ranks for a stream, the same in every build: FNV-1a over both, mixed.
pub fn rank(stream: &str, worker: &str) -> u64 {
    let bytes = stream.bytes().chain([0]).chain(worker.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(before: usize) -> Standing {
        Standing {
            readers: 40,
            before,
        }
    }

    #[test]
    fn it_leaves_when_it_has_seen_twice_that_enough_rank_before_it() {
        let mut duty = Duty::new(false, true);
        assert!(!duty.sees(at(READERS)));
        assert!(!duty.sees(at(READERS - 1)), "one is missing again");
        assert!(!duty.sees(at(READERS)));
        assert!(duty.sees(at(READERS)) && duty.is_on());
        duty.leaves();
        assert!(!duty.is_on() && !duty.sees(at(READERS)) && !duty.is_on());
        assert!(!duty.sees(at(READERS - 1)) && duty.is_on());
    }

    #[test]
    fn its_own_streams_it_reads_in_any_case() {
        let mut duty = Duty::new(true, false);
        assert!(duty.is_on());
        assert!((0..9).all(|_| !duty.sees(at(100))));
        let names: Vec<String> = (0..100).map(|n| format!("{{orders:{n}}}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let count = |of: Vec<bool>| of.into_iter().filter(|own| *own).count();
        assert_eq!(count(own(&names, "sh2-30000-a-1-x")), OWN);
        assert_eq!(count(own(&names[..3], "sh2-30000-a-1-x")), 3);
    }

    #[test]
    fn who_has_not_asked_for_long_does_not_count() {
        let seconds = Duration::from_secs;
        let others = ["a", "b", "c", "d"].map(|other| (other, seconds(1)));
        let all = standing("orders", "me", others);
        assert_eq!(all.readers, 4);
        let before = others
            .iter()
            .filter(|(other, _)| rank("orders", other) > rank("orders", "me"));
        assert_eq!(all.before, before.count());
        let late = standing("orders", "me", others.map(|(other, _)| (other, FRESH)));
        assert_eq!((late.readers, late.before), (0, 0));
    }

    #[test]
    fn who_would_read_what_is_not_read_counts_as_long_as_it_renews_its_lease() {
        let (idle, lease) = (Duration::from_secs(10), Duration::from_secs(30));
        let readers = |is_read, idle| {
            let others = [("a", seen(idle, lease, is_read))];
            standing("{orders:0}", "me", others).readers
        };
        assert_eq!((readers(true, idle), readers(false, idle)), (0, 1));
        assert_eq!(readers(false, lease), 0);
    }

    #[test]
    fn of_what_comes_later_it_reads_as_large_a_share_as_of_what_it_knows() {
        assert_eq!((begins_with(64, 0, 0), begins_with(65, 0, 0)), (64, OWN));
        assert_eq!(begins_with(2000, 100, 100), 2000, "a small fleet reads all");
        assert_eq!(begins_with(2000, 16, 1000), 32);
        assert_eq!(begins_with(2000, 2, 2), OWN, "those it reads in any case");
        assert_eq!(
            (begins_with(200, 8, 1000), begins_with(3, 8, 1000)),
            (OWN, 3)
        );
        // However many workers there are, somebody begins with each stream at once.
        let names: Vec<String> = (0..400).map(|n| format!("{{orders:2.{n}}}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for workers in [1, 5, 40, 200] {
            let mut readers = vec![0; names.len()];
            for worker in 0..workers {
                let on = (200 * READERS).div_ceil(workers.max(READERS));
                let most = begins_with(names.len(), on, 200);
                let reads = highest(&names, &format!("sh2-30000-host-{worker}-x"), most);
                readers
                    .iter_mut()
                    .zip(reads)
                    .for_each(|(all, reads)| *all += usize::from(reads));
            }
            let least = readers.iter().min().unwrap();
            assert!(*least >= workers.min(2), "{least} of {workers}");
        }
    }

    #[test]
    fn the_more_there_are_the_less_often_each_visits() {
        let within = |wait: Duration, about: u64| {
            let about = Duration::from_secs(about);
            assert!(
                wait >= about.mul_f64(0.74) && wait <= about.mul_f64(1.26),
                "{wait:?}"
            );
        };
        within(visit_in(16, 100, 6), 1);
        within(visit_in(16, 100, 300), 48);
        within(visit_in(16, 16, 984), 120);
        within(visit_in(0, 0, 1000), 1);
    }
}
