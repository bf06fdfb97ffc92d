//! How to read, going by how entries have come of late: how many reads are on their way, after what wait, and whether they
//! wait for entries. See [`super::read_new`].

use std::time::{Duration, Instant};

use super::fleet_shift::{FleetShift, Role};
use super::stream_rotation::{Share, StreamRotation};
use crate::event::Entry;
use crate::worker::state::throughput::{SPAN, Throughput};

/// Reads on their way if there is a backlog: while one answer is received, Redis works on the next.
const AHEAD: usize = 2;
/// Most reads on their way if entries come one by one, and the part of the pace's span they are to last for.
pub(crate) const DEPTH: (usize, usize) = (32, 20);
/// With so many reads on their way the thread is let sleep for a little between answers: Redis, which would have to wake
/// it for every entry, then does not, and several are handed over at once.
pub(crate) const OFTEN: usize = 16;
pub(crate) const NAP: Duration = Duration::from_micros(80);
/// A read of many streams costs Redis about a third of a microsecond for each, more if it blocks. So if that many
/// entries come meanwhile there is one read at a time, and a wait before each of this for every stream, but no longer.
const GATHERED: usize = 2;
const GATHERING: (Duration, Duration) = (Duration::from_micros(40), Duration::from_millis(1));
/// A stream that gives more entries than this may have a backlog, and so may one that gives all that was asked of it
/// more often than this in a row.
const FEW: usize = 8;

/// How entries have come of late.
pub(crate) struct Flow {
    throughput: Throughput,
    came: u64,
    /// So many are coming in the pace's span, as it was when that was last asked.
    pub coming: usize,
    /// Redis has more than was asked for, as far as the last answers told.
    pub is_backlog: bool,
    /// No more than this come at once if there is no backlog.
    few: usize,
    streaks: Streaks,
    pub rotation: StreamRotation,
    /// Of those that were handled where they were read.
    quick: Throughput,
    pub fleet_shift: FleetShift,
}

/// How often in a row streams gave all that was asked of them. Where little is asked of many one does now and then.
#[derive(Default)]
struct Streaks {
    answers: u64,
    /// By the streams' places: the last of them, and how many there were.
    of: Vec<(u64, usize)>,
}

/// How new entries are to be read.
#[derive(Debug, PartialEq)]
pub(crate) struct ReadPlan {
    /// Most reads on their way.
    pub depth: usize,
    /// How long to wait before the first of them.
    pub wait: Duration,
    /// Whether they wait for entries.
    pub blocks: bool,
}

/// What taking turns with other workers goes by.
pub(crate) struct Shift {
    /// How many runs this one has handled where they were read.
    pub quick: u64,
    pub server_ms: u64,
}

impl Flow {
    pub fn new() -> Self {
        Flow {
            throughput: Throughput::new(Instant::now()),
            came: 0,
            coming: 0,
            is_backlog: false,
            few: FEW,
            streaks: Streaks::default(),
            rotation: StreamRotation::default(),
            quick: Throughput::new(Instant::now()),
            fleet_shift: FleetShift::default(),
        }
    }

    /// Takes note of the answer to a read of these streams, for `count` entries of each. Returns how many came.
    pub fn came(&mut self, of: &Share, count: usize, delivered: &[(usize, Vec<Entry>)]) -> usize {
        let came: usize = delivered.iter().map(|(_, entries)| entries.len()).sum();
        self.came += came as u64;
        self.streaks.answers += 1;
        let mut is_backlog = false;
        for (at, entries) in delivered {
            let of_it = entries.len();
            let is_full = of_it >= count;
            let in_a_row = if is_full { self.streaks.full(*at) } else { 0 };
            is_backlog |= in_a_row > FEW || (of_it > self.few && of_it >= count.div_ceil(2));
        }
        if is_backlog || self.rotation.is_needed() {
            let once_counts = *of != Share::All || count > self.few;
            let enough = if once_counts { 0 } else { FEW };
            let is_busy = |at| self.streaks.in_a_row(at) > enough;
            self.rotation.learn(of, is_busy);
        }
        self.is_backlog = is_backlog || self.rotation.is_needed();
        came
    }

    /// How to read so many streams.
    pub fn read_plan(&mut self, streams: usize, shift: Option<Shift>, now: Instant) -> ReadPlan {
        let steps = |depth, wait| ReadPlan {
            depth,
            wait,
            blocks: true,
        };
        self.few = FEW;
        if self.is_backlog {
            return steps(AHEAD, Duration::ZERO);
        }
        self.coming = self.throughput.ahead(now, self.came);
        let mut coming = self.coming;
        if let Some(Shift { quick, server_ms }) = shift {
            let quick = self.quick.ahead(now, quick);
            match self
                .fleet_shift
                .role(quick, OFTEN * DEPTH.1, server_ms, now)
            {
                Role::Everyone => {}
                Role::OnDuty(seen) => coming = coming.max(seen),
                Role::OffDuty(wait) => {
                    return ReadPlan {
                        blocks: false,
                        ..steps(1, wait)
                    };
                }
            }
        }
        let gathering = (GATHERING.0 * streams as u32).min(GATHERING.1);
        let expected = (coming as u128 * gathering.as_nanos() / SPAN.as_nanos()) as usize;
        if streams > 1 && expected >= GATHERED {
            self.few = FEW.max(2 * expected);
            return steps(1, gathering);
        }
        let depth = (coming / DEPTH.1).clamp(1, DEPTH.0);
        steps(depth, Duration::ZERO)
    }
}

impl Streaks {
    /// This one gave all that was asked in the current answer. Returns how often in a row it has.
    fn full(&mut self, at: usize) -> usize {
        if at >= self.of.len() {
            self.of.resize(at + 1, (0, 0));
        }
        let (last, times) = &mut self.of[at];
        *times = if *last + 1 == self.answers {
            *times + 1
        } else {
            1
        };
        *last = self.answers;
        *times
    }

    /// How often in a row it has, with the current answer; 0 if it has not there.
    fn in_a_row(&self, at: usize) -> usize {
        match self.of.get(at) {
            Some((last, times)) if *last == self.answers => *times,
            _ => 0,
        }
    }
}

impl ReadPlan {
    pub const ONE: ReadPlan = ReadPlan {
        depth: 1,
        wait: Duration::ZERO,
        blocks: true,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntryId, Fields};

    /// What is done if so many entries have come each millisecond.
    fn plan_at(each_ms: u64, streams: usize) -> (usize, u128) {
        let (mut flow, start) = (Flow::new(), Instant::now());
        let mut plan = ReadPlan::ONE;
        for ms in 1..=200 {
            flow.came += each_ms;
            plan = flow.read_plan(streams, None, start + ms * Duration::from_millis(1));
        }
        (plan.depth, plan.wait.as_micros())
    }

    #[test]
    fn of_one_stream_several_reads_are_on_their_way_and_of_many_one_that_gathers() {
        assert_eq!([1, 10].map(|streams| plan_at(0, streams)), [(1, 0); 2]);
        assert_eq!([1, 10].map(|streams| plan_at(2, streams)), [(10, 0); 2]);
        let often = [1, 2, 10, 100].map(|streams| plan_at(10, streams));
        assert_eq!(often, [(32, 0), (32, 0), (1, 400), (1, 1000)]);
        assert_eq!(plan_at(50, 2), (1, 80));
    }

    /// Takes note of a read of all streams for one entry of each, that brought one of each of these.
    fn one_of_each(flow: &mut Flow, places: &[usize]) {
        let entry = || Entry {
            id: EntryId::default(),
            fields: Fields::new(),
        };
        let delivered: Vec<_> = places.iter().map(|at| (*at, vec![entry()])).collect();
        flow.came(&Share::All, 1, &delivered);
    }

    #[test]
    fn a_stream_has_a_backlog_if_it_gives_all_that_was_asked_again_and_again() {
        let mut flow = Flow::new();
        flow.rotation.next(100, 0);
        for n in 0..10 * FEW {
            let at = |n: usize| n * 5 % 100;
            let places: Vec<usize> = (at(n)..at(n) + 5).collect();
            one_of_each(&mut flow, &places);
            assert!(!flow.is_backlog, "one of each now and then, read {n}");
        }
        for n in 1..=FEW + 1 {
            one_of_each(&mut flow, &[7, n + 50]);
            assert_eq!(flow.is_backlog, n > FEW, "the same one, read {n}");
        }
        assert!(flow.rotation.is_needed());
        assert_eq!(flow.rotation.next(100, 0), Share::Some(vec![7]));
    }
}
