//! Whose turn it is to wait for entries. If many workers block on a stream, Redis wakes another one for every entry,
//! which costs it more than the entry does, and one of them would do if handlers are quick. So if entries come
//! often the workers are on duty in turns, by Redis' clock and in the order of their names. The others only look now and
//! then whether something has been left: then those on duty do not cope, and who has found that waits like everyone.

use std::time::{Duration, Instant};

use crate::stream::{Link, Trouble};
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::identity::Identity;
use crate::worker::state::source::Source;

/// How long a worker is on duty.
const TURN: Duration = Duration::from_millis(500);
/// Those that are not look in so often, all of them together.
const LOOKS: Duration = Duration::from_millis(6);
/// If one of them finds, twice in a row, that more were left than this, and than come in this part of the pace's span, it
/// waits like everyone for a while. That the one on duty was not run for a few milliseconds is no reason to: on a busy
/// machine it happens all the time, and a second of two that wait costs Redis a third more.
const LEFT: (usize, usize) = (8, 25);
const REST: Duration = Duration::from_secs(1);

/// If so many entries come to a worker in the pace's span, it looks who else there is: again after so long, which
/// grows from look to look, for those of a fleet are often started together, up to so long.
const WORTH_A_LOOK: usize = 5;
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// The workers of a group that are alive, as one of them sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Crew {
    others: usize,
    /// How many of them come before it by their names.
    before: usize,
}

/// What a worker is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    /// It waits for entries, as all do.
    Everyone,
    /// It waits for them alone; at least so many are coming in the pace's span, as far as is known.
    OnDuty(usize),
    /// It waits so long, and looks.
    OffDuty(Duration),
}

/// Who is on duty, as one worker has it.
#[derive(Default)]
pub(crate) struct FleetShift {
    crew: Crew,
    /// How often it has looked who there is, and when it is to look again.
    looks: u32,
    look_at: Option<Instant>,
    /// They take turns until then, if no new reason for it is seen, and so many entries come.
    turns: Option<(Instant, usize)>,
    /// Much was left when it last looked, in this while off duty.
    was_left: bool,
    /// They do not before.
    not_before: Option<Instant>,
}

impl FleetShift {
    /// What to do `now`, which is `server_ms` by Redis' clock, if `coming` entries of late have come to this worker in
    /// the pace's span, and `often` are enough to take turns.
    pub fn role(&mut self, coming: usize, often: usize, server_ms: u64, now: Instant) -> Role {
        let Crew { others, before } = self.crew;
        let all = others + 1;
        if all == 1 || self.not_before.is_some_and(|at| now < at) {
            self.turns = None;
            return Role::Everyone;
        }
        let turn_ms = TURN.as_millis() as u64;
        let (turn, into) = (server_ms / turn_ms, server_ms % turn_ms);
        let left = Duration::from_millis(turn_ms - into);
        let turns_to_wait = (before as u64 + all as u64 - turn % all as u64) % all as u64;
        let is_mine = turns_to_wait == 0;
        // Seen by one that has been on duty for a while, or by one of those that all wait.
        let seen = match self.turns {
            None => Some(coming * all),
            Some(_) if is_mine && left < TURN / 2 => Some(coming),
            Some((until, _)) if now >= until => Some(0),
            Some(_) => None,
        };
        match seen {
            Some(seen) if seen >= often => self.turns = Some((now + TURN * (all as u32 + 1), seen)),
            Some(_) => self.turns = None,
            None => {}
        }
        if self.turns.is_some() && !is_mine {
            let mine = left + TURN * (turns_to_wait as u32 - 1);
            return Role::OffDuty(mine.min(LOOKS * all as u32));
        }
        self.was_left = false;
        match self.turns {
            None => Role::Everyone,
            Some((_, seen)) => Role::OnDuty(if left < TURN / 2 { 0 } else { seen }),
        }
    }

    /// Whether it is time to look who there is, if so many entries come in the pace's span.
    pub fn wants_to_look(&self, coming: usize, now: Instant) -> bool {
        coming >= WORTH_A_LOOK && self.look_at.is_none_or(|at| at <= now)
    }

    /// It has looked who there is.
    pub fn looked(&mut self, crew: Crew, now: Instant) {
        self.crew = crew;
        self.looks = self.looks.saturating_add(1);
        let wait = AGAIN.0.saturating_mul(self.looks).min(AGAIN.1);
        self.look_at = Some(now + wait);
    }

    /// So many had been left when it looked.
    pub fn found(&mut self, left: usize, now: Instant) {
        let seen = self.turns.map_or(0, |(_, seen)| seen);
        let is_much = left > LEFT.0.max(seen / LEFT.1);
        let again = is_much && self.was_left;
        if again {
            self.not_before = Some(now + REST);
        }
        self.was_left = is_much && !again;
    }
}

/// Looks who else reads a stream. If nobody may be known, this worker waits for entries by itself.
pub(crate) async fn crew(
    source: &Source,
    identity: &Identity,
    link: &mut Link,
    refusals: &mut Refusals,
) -> Result<Crew, Trouble> {
    let (group, stream) = (&source.surroundings.group, &source.keys.stream);
    let workers = link.consumers(&source.keys, group).await;
    let workers = refusals.heard(Chore::Crew, stream, workers)?;
    let mut crew = Crew::default();
    for worker in workers.unwrap_or_default() {
        let is_alive = worker
            .lease_ms()
            .is_some_and(|lease| worker.idle_ms < lease);
        if is_alive && !worker.is_alone() && !identity.is_me(&worker.name) {
            crew.others += 1;
            crew.before += usize::from(worker.name < identity.name);
        }
    }
    Ok(crew)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFTEN: usize = 100;

    /// A crew whose members each come to know how many entries come to them.
    struct Fleet {
        start: Instant,
        shifts: Vec<FleetShift>,
    }

    impl Fleet {
        fn of(workers: usize) -> Self {
            Fleet {
                start: Instant::now(),
                shifts: (0..workers).map(|_| FleetShift::default()).collect(),
            }
        }

        /// What each does, if so many entries come in all.
        fn at(&mut self, ms: u64, coming: usize) -> Vec<Role> {
            let (all, now) = (self.shifts.len(), self.start + Duration::from_millis(ms));
            let waits = |shift: &FleetShift| shift.turns.is_none();
            let share = coming
                / self
                    .shifts
                    .iter()
                    .filter(|shift| waits(shift))
                    .count()
                    .max(1);
            let each = self.shifts.iter_mut().enumerate().map(|(before, shift)| {
                shift.crew = Crew {
                    others: all - 1,
                    before,
                };
                let is_mine = ms / 500 % all as u64 == before as u64;
                let mine = if shift.turns.is_none() {
                    share
                } else if is_mine {
                    coming
                } else {
                    0
                };
                shift.role(mine, OFTEN, ms, now)
            });
            each.collect()
        }
    }

    #[test]
    fn they_take_equal_turns_if_entries_come_often() {
        let mut fleet = Fleet::of(4);
        let mut turns = [0; 4];
        for ms in 0..4_000 {
            let roles = fleet.at(ms, 4 * OFTEN);
            let mine: Vec<usize> = (0..4)
                .filter(|at| matches!(roles[*at], Role::OnDuty(_)))
                .collect();
            assert_eq!(mine.len(), 1, "{roles:?} at {ms}");
            assert!(!roles.contains(&Role::Everyone));
            turns[mine[0]] += 1;
        }
        assert_eq!(turns, [1_000; 4]);
    }

    #[test]
    fn who_looks_in_is_there_when_its_turn_begins() {
        let mut fleet = Fleet::of(4);
        let roles = fleet.at(497, 4 * OFTEN);
        let ms = Duration::from_millis;
        assert_eq!(
            roles,
            [
                Role::OnDuty(0),
                Role::OffDuty(ms(3)),
                Role::OffDuty(ms(24)),
                Role::OffDuty(ms(24))
            ]
        );
        assert_eq!(fleet.at(500, 4 * OFTEN)[1], Role::OnDuty(4 * OFTEN));
    }

    #[test]
    fn all_wait_if_few_come_or_one_is_alone_or_some_were_left() {
        assert_eq!(Fleet::of(4).at(0, OFTEN / 2), [Role::Everyone; 4]);
        assert_eq!(Fleet::of(1).at(0, 100 * OFTEN), [Role::Everyone]);
        let mut fleet = Fleet::of(4);
        fleet.at(0, 4 * OFTEN);
        // Fewer come now, which each finds out when it has been on duty, or by then should have been.
        for ms in 0..3_000 {
            fleet.at(ms, 0);
        }
        assert_eq!(fleet.at(3_000, 0), [Role::Everyone; 4]);
        let mut fleet = Fleet::of(2);
        fleet.at(0, 4 * OFTEN);
        let (start, few) = (fleet.start, LEFT.0.max(4 * OFTEN / LEFT.1));
        for left in [few, few + 1, few, few + 1] {
            fleet.shifts[1].found(left, start);
            assert_ne!(fleet.at(1, 4 * OFTEN)[1], Role::Everyone);
        }
        fleet.shifts[1].found(few + 1, start);
        assert_eq!(fleet.at(2, 4 * OFTEN)[1], Role::Everyone);
        // What was found before that does not count any more, nor what was before a turn of its own.
        for ms in [1_001, 2_001] {
            assert_ne!(fleet.at(ms, 4 * OFTEN)[1], Role::Everyone);
            fleet.shifts[1].found(10 * few, start + Duration::from_millis(ms));
            assert_ne!(fleet.at(ms + 1, 4 * OFTEN)[1], Role::Everyone);
            // In the second half of its turn it sees that as many come as before.
            for into in [500, 800] {
                let turn = fleet.at(ms + into, 4 * OFTEN)[1];
                assert!(matches!(turn, Role::OnDuty(_)), "{turn:?}");
            }
        }
    }
}
