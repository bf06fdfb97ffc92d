//! Who is there: every worker of a group by its last pulse, and whether it is alive, draining or gone.

use std::collections::BTreeMap;

use super::message::Pulse;
use super::slot::{Came, Length};
use super::wire::Unreadable;
use crate::error::Result;
use crate::stream::{Pool, PulseKeys};

/// For how long a worker that is gone is remembered.
const REMEMBERED_MS: u64 = 24 * 3_600_000;
/// And most workers that are.
const MOST: usize = 1000;
/// A pulse may be late by as much as it is apart from the next one, and this.
const SLACK_MS: u64 = 5_000;

/// What is there to know of a worker's being there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Alive,
    /// It takes up nothing new until it is told to go on.
    Quiet,
    /// It stops once what it runs has ended.
    Draining,
    /// It has said so, or not pulsed for too long.
    Gone,
}

/// A worker by its last pulse.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub name: String,
    /// When its last pulse came, by the server's clock.
    pub seen_ms: u64,
    pub pulse: Pulse,
}

/// Workers by their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fleet(BTreeMap<String, Member>);

/// A worker as merging leaves it in Redis.
pub(super) struct Remembered {
    pub seen_ms: u64,
    pub pulse: Pulse,
}

impl Member {
    /// What it is at a time, by the server's clock.
    pub fn state(&self, now_ms: u64) -> State {
        let now = &self.pulse.now;
        let silent = now_ms.saturating_sub(self.seen_ms) > 2 * self.pulse.every_ms + SLACK_MS;
        if now.has_left || silent {
            State::Gone
        } else if now.is_draining {
            State::Draining
        } else if now.is_quiet {
            State::Quiet
        } else {
            State::Alive
        }
    }

    /// Whether it reads any of these streams.
    pub fn reads(&self, streams: &[String]) -> bool {
        let reads = &self.pulse.who.streams;
        reads.iter().any(|stream| streams.contains(stream))
    }
}

impl Fleet {
    /// Everybody that Redis knows of.
    pub async fn read(pool: &Pool, keys: &PulseKeys) -> Result<Self> {
        let mut fleet = Fleet::default();
        for (name, packed) in pool.remembered(&keys.workers).await? {
            if let Ok(Remembered { seen_ms, pulse }) = Remembered::unpack(&packed) {
                fleet.0.insert(
                    name.clone(),
                    Member {
                        name,
                        seen_ms,
                        pulse,
                    },
                );
            }
        }
        let merged = pool.last_slot_of(&keys.minutes).await?;
        let from = merged.map_or(0, |at| at + Length::Minute.ms());
        for raw in pool.pulses_since(keys, from).await? {
            fleet.heard(&Came::of(&raw));
        }
        Ok(fleet)
    }

    /// A pulse came.
    pub fn heard(&mut self, came: &Came) {
        let Ok(pulse) = &came.pulse else { return };
        let known = self.0.get(&came.worker);
        if known.is_some_and(|known| known.seen_ms > came.ms) {
            return;
        }
        let mut pulse = pulse.clone();
        pulse.counted = Default::default();
        let member = Member {
            name: came.worker.clone(),
            seen_ms: came.ms,
            pulse,
        };
        self.0.insert(came.worker.clone(), member);
    }

    /// All of them, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }
}

impl Remembered {
    pub fn pack(&self) -> Vec<u8> {
        [&self.seen_ms.to_le_bytes()[..], &self.pulse.pack_who()].concat()
    }

    pub fn unpack(bytes: &[u8]) -> std::result::Result<Self, Unreadable> {
        let (seen, packed) = bytes.split_first_chunk().ok_or(Unreadable::Garbled)?;
        Ok(Remembered {
            seen_ms: u64::from_le_bytes(*seen),
            pulse: Pulse::unpack(packed)?,
        })
    }

    /// Which of these workers, each with when it was last heard of, need not be remembered any more.
    pub fn to_forget(mut all: Vec<(String, u64)>, now_ms: u64) -> Vec<String> {
        all.sort_by_key(|(_, seen)| std::cmp::Reverse(*seen));
        let is_old = |seen: u64| now_ms.saturating_sub(seen) > REMEMBERED_MS;
        let mut at = 0;
        all.retain(|(_, seen)| {
            at += 1;
            at > MOST || is_old(*seen)
        });
        all.into_iter().map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(ms: u64, worker: &str, pulse: &Pulse) -> Came {
        Came {
            ms,
            worker: worker.to_owned(),
            number: 1,
            pulse: Ok(pulse.clone()),
        }
    }

    #[test]
    fn a_worker_is_what_its_last_pulse_says_until_it_is_silent_for_too_long() {
        let mut pulse = Pulse {
            every_ms: 30_000,
            ..Pulse::default()
        };
        let mut fleet = Fleet::default();
        fleet.heard(&came(100_000, "a", &pulse));
        let state = |fleet: &Fleet, now| fleet.members().next().unwrap().state(now);
        assert_eq!(state(&fleet, 164_000), State::Alive);
        assert_eq!(state(&fleet, 166_000), State::Gone);
        pulse.now.is_draining = true;
        fleet.heard(&came(130_000, "a", &pulse));
        assert_eq!(state(&fleet, 166_000), State::Draining);
        // What was read before it came.
        fleet.heard(&came(120_000, "a", &Pulse::default()));
        assert_eq!(state(&fleet, 166_000), State::Draining);
        pulse.now.has_left = true;
        fleet.heard(&came(131_000, "a", &pulse));
        assert_eq!(state(&fleet, 131_000), State::Gone);
    }

    #[test]
    fn the_oldest_of_too_many_are_forgotten_and_all_that_are_old() {
        let all = (0..1005)
            .map(|n| (n.to_string(), 200_000_000 + n))
            .collect();
        let mut forgotten = Remembered::to_forget(all, 200_001_000);
        forgotten.sort();
        assert_eq!(forgotten, ["0", "1", "2", "3", "4"]);
        let all = vec![("old".to_owned(), 1), ("new".to_owned(), 199_000_000)];
        assert_eq!(Remembered::to_forget(all, 200_000_000), ["old"]);
    }
}
