//! A slot of the history: what all workers of a group counted in a minute, ten minutes or an hour. Slots are merged
//! without loss: counters and the buckets of histograms add up, and what is a level (workers, slots, running) keeps its sum
//! and of how many minutes that is.
//!
//! A pulse belongs to the slot in which it came, by the server's clock, for the id that Redis gave it is what says when.
//! So none can come late to a slot that is over. One that tells of a longer time, because Redis was away or it did not
//! get there, is counted as late.

use std::collections::{BTreeMap, HashMap};

use super::message::Pulse;
use super::series;
use super::wire::{Packed, Packer, Unreadable};
use crate::metrics::snapshot::Snapshot;
use crate::stream::RawPulse;

/// How long a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Length {
    Minute,
    Ten,
    Hour,
}

impl Length {
    pub const fn ms(self) -> u64 {
        match self {
            Length::Minute => 60_000,
            Length::Ten => 600_000,
            Length::Hour => 3_600_000,
        }
    }

    /// For how long they are kept.
    pub const fn kept_ms(self) -> u64 {
        const DAY: u64 = 24 * 3_600_000;
        match self {
            Length::Minute => DAY,
            Length::Ten => 7 * DAY,
            Length::Hour => 90 * DAY,
        }
    }

    /// The beginning of the slot that a time belongs to.
    pub const fn of(self, ms: u64) -> u64 {
        ms - ms % self.ms()
    }
}

/// Late is a pulse that tells of more than it would at rest, and this.
const GRACE_MS: u64 = 30_000;

const HEAD: u8 = 1;
const LEVELS: u8 = 2;
const DEPLOYS: u8 = 3;
const SERIES: u8 = 7;

/// Most deploys that a slot names.
const MOST_DEPLOYS: usize = 100;

/// What a group's workers came to in a slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Slot {
    /// When it begins, in milliseconds since 1970 by the server's clock.
    pub at_ms: u64,
    pub counted: Snapshot,
    /// How many pulses it is made of, how many of them were late, and how many could not be read.
    pub pulses: u64,
    pub late: u64,
    pub unread: u64,
    pub levels: Levels,
    /// Versions and configurations at work, and the most workers that had each at once.
    pub deploys: BTreeMap<(String, u64), u64>,
}

/// What is not counted but is there, summed up over minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Of how many minutes the sums are.
    pub minutes: u64,
    pub workers: u64,
    pub slots: u64,
    pub running: u64,
    pub held: u64,
    pub memory_kib: u64,
    /// Thousandths of a CPU.
    pub cpu: u64,
}

impl Levels {
    fn merge(&mut self, other: &Levels) {
        self.minutes += other.minutes;
        self.workers += other.workers;
        self.slots += other.slots;
        self.running += other.running;
        self.held += other.held;
        self.memory_kib += other.memory_kib;
        self.cpu += other.cpu;
    }
}

impl Slot {
    pub fn pack(&self) -> Vec<u8> {
        let mut packer = Packer::default();
        packer.section(HEAD, |head| {
            head.number(self.pulses)
                .number(self.late)
                .number(self.unread);
        });
        packer.section(LEVELS, |section| {
            let levels = &self.levels;
            section.number(levels.minutes).number(levels.workers);
            section.number(levels.slots).number(levels.running);
            section.number(levels.held).number(levels.memory_kib);
            section.number(levels.cpu);
        });
        packer.section(DEPLOYS, |section| {
            for ((version, configuration), workers) in self.deploys.iter().take(MOST_DEPLOYS) {
                section.text(version).fixed(*configuration).number(*workers);
            }
        });
        packer.section(SERIES, |section| series::pack(&self.counted, section));
        packer.finish()
    }

    pub fn unpack(at_ms: u64, bytes: &[u8]) -> Result<Self, Unreadable> {
        let packed = Packed::open(bytes)?;
        let mut head = packed.section(HEAD);
        let (pulses, late, unread) = (head.number()?, head.number()?, head.number()?);
        let mut of = packed.section(LEVELS);
        let levels = Levels {
            minutes: of.number()?,
            workers: of.number()?,
            slots: of.number()?,
            running: of.number()?,
            held: of.number()?,
            memory_kib: of.number()?,
            cpu: of.number()?,
        };
        let (mut of, mut deploys) = (packed.section(DEPLOYS), BTreeMap::new());
        while !of.is_empty() {
            let deploy = (packed.text(&mut of)?.to_owned(), of.fixed()?);
            deploys.insert(deploy, of.number()?);
        }
        let counted = series::unpack(&packed, packed.section(SERIES))?;
        Ok(Slot {
            at_ms,
            counted,
            pulses,
            late,
            unread,
            levels,
            deploys,
        })
    }

    /// Adds another slot to it, of the same longer one.
    pub fn merge(&mut self, other: &Slot) {
        self.counted.merge(&other.counted);
        self.pulses += other.pulses;
        self.late += other.late;
        self.unread += other.unread;
        self.levels.merge(&other.levels);
        for (deploy, workers) in &other.deploys {
            let most = self.deploys.entry(deploy.clone()).or_default();
            *most = (*most).max(*workers);
        }
    }
}

/// Slots of this length, made of shorter ones that come in their order.
pub(crate) fn longer(slots: impl IntoIterator<Item = Slot>, length: Length) -> Vec<Slot> {
    let mut longer: Vec<Slot> = Vec::new();
    for slot in slots {
        let at_ms = length.of(slot.at_ms);
        match longer.last_mut() {
            Some(last) if last.at_ms == at_ms => last.merge(&slot),
            _ => longer.push(Slot { at_ms, ..slot }),
        }
    }
    longer
}

/// A pulse that came.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    /// When, by the server's clock.
    pub ms: u64,
    pub worker: String,
    pub number: u64,
    pub pulse: Result<Pulse, Unreadable>,
}

impl Came {
    pub fn of(raw: &RawPulse) -> Self {
        Came {
            ms: raw.id.ms,
            worker: raw.worker.clone(),
            number: raw.number,
            pulse: Pulse::unpack(&raw.packed),
        }
    }
}

/// Makes minutes of pulses that come in their order.
#[derive(Default)]
pub(crate) struct Gather {
    /// The minute that is being made.
    open: Option<Minute>,
    /// The highest number of each worker: what comes with no higher one is a repeat.
    numbers: HashMap<String, u64>,
}

/// A minute, the last pulse of each worker in it, and when each version and configuration was first heard of in it.
pub(crate) struct Minute {
    pub slot: Slot,
    pub last: BTreeMap<String, (u64, Pulse)>,
    pub deploys: BTreeMap<(String, u64), u64>,
}

impl Gather {
    /// Takes in one that belongs to an earlier minute, which is merged already: so that a repeat of it is known.
    pub fn before(&mut self, came: &Came) {
        self.is_repeat(came);
    }

    /// Takes in a pulse. Returns the minute that is over with it, if one is.
    pub fn take(&mut self, came: Came) -> Option<Minute> {
        let at_ms = Length::Minute.of(came.ms);
        let over = match &self.open {
            Some(open) if open.slot.at_ms != at_ms => self.end(),
            _ => None,
        };
        if self.is_repeat(&came) {
            return over;
        }
        let open = self.open.get_or_insert_with(|| Minute {
            slot: Slot {
                at_ms,
                ..Slot::default()
            },
            last: BTreeMap::new(),
            deploys: BTreeMap::new(),
        });
        open.slot.pulses += 1;
        match came.pulse {
            Err(_) => open.slot.unread += 1,
            Ok(mut pulse) => {
                if pulse.span_ms > pulse.every_ms.max(30_000) + GRACE_MS {
                    open.slot.late += 1;
                }
                open.slot.counted.merge(&std::mem::take(&mut pulse.counted));
                let deploy = (pulse.who.version.clone(), pulse.who.configuration);
                open.deploys.entry(deploy).or_insert(came.ms);
                open.last.insert(came.worker, (came.ms, pulse));
            }
        }
        over
    }

    /// The minute that is being made, as far as it is.
    pub fn end(&mut self) -> Option<Minute> {
        let mut minute = self.open.take()?;
        let Minute { slot, last, .. } = &mut minute;
        slot.levels.minutes = 1;
        for (_, pulse) in last.values() {
            let (who, now) = (&pulse.who, &pulse.now);
            slot.levels.merge(&Levels {
                minutes: 0,
                workers: 1,
                slots: now.slots,
                running: now.running,
                held: now.held,
                memory_kib: now.memory >> 10,
                cpu: now.cpu,
            });
            let deploy = (who.version.clone(), who.configuration);
            *slot.deploys.entry(deploy).or_default() += 1;
        }
        Some(minute)
    }

    fn is_repeat(&mut self, came: &Came) -> bool {
        let last = self.numbers.get_mut(&came.worker);
        match last {
            Some(last) if came.number <= *last => return true,
            Some(last) => *last = came.number,
            None => drop(self.numbers.insert(came.worker.clone(), came.number)),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::tests::pulses;
    use super::super::series::tests::assert_same;
    use super::*;

    /// Minutes of pulses that came at these times.
    fn minutes(all: &[Came]) -> Vec<Minute> {
        let mut gather = Gather::default();
        let mut minutes: Vec<Minute> = all
            .iter()
            .filter_map(|came| gather.take(came.clone()))
            .collect();
        minutes.extend(gather.end());
        minutes
    }

    fn came(ms: u64, worker: &str, number: u64, pulse: Pulse) -> Came {
        let worker = worker.to_owned();
        Came {
            ms,
            worker,
            number,
            pulse: Ok(pulse),
        }
    }

    /// Pulses of a few workers over a few hours, in their order.
    fn coming() -> impl Strategy<Value = Vec<Came>> {
        proptest::collection::vec((1u64..400_000, 0usize..3, pulses()), 1..40).prop_map(|all| {
            let (mut at, mut numbers) = (1_700_000_000_000, [0u64; 3]);
            let each = all.into_iter().map(|(wait, worker, pulse)| {
                at += wait;
                numbers[worker] += 1;
                came(at, ["a", "b", "c"][worker], numbers[worker], pulse)
            });
            each.collect()
        })
    }

    fn sum<'a>(all: impl IntoIterator<Item = &'a Snapshot>) -> Snapshot {
        let mut sum = Snapshot::default();
        all.into_iter().for_each(|one| sum.merge(one));
        sum
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn sums_over_slots_of_any_length_are_the_sums_of_the_pulses(all in coming()) {
            let told = sum(all.iter().map(|came| &came.pulse.as_ref().unwrap().counted));
            let minutes: Vec<Slot> = minutes(&all).into_iter().map(|minute| {
                // As Redis keeps it.
                Slot::unpack(minute.slot.at_ms, &minute.slot.pack()).unwrap()
            }).collect();
            let tens = longer(minutes.clone(), Length::Ten);
            let hours = longer(tens.clone(), Length::Hour);
            for slots in [&minutes, &tens, &hours] {
                assert_same(&sum(slots.iter().map(|slot| &slot.counted)), &told);
                prop_assert_eq!(slots.iter().map(|slot| slot.pulses).sum::<u64>(), all.len() as u64);
                prop_assert_eq!(slots.iter().map(|slot| slot.levels.minutes).sum::<u64>(), minutes.len() as u64);
                prop_assert!(slots.is_sorted_by_key(|slot| slot.at_ms));
            }
            prop_assert_eq!(longer(minutes, Length::Hour).len(), hours.len());
        }

        #[test]
        fn a_repeat_is_counted_once_in_whatever_minute_it_comes(all in coming(), again in any::<prop::sample::Index>(), wait in 0usize..5) {
            let mut with_repeat = all.clone();
            let again = again.index(all.len());
            let at = (again + 1 + wait).min(all.len());
            let repeat = Came { ms: all[at - 1].ms, ..all[again].clone() };
            with_repeat.insert(at, repeat);
            let counted = |all: &[Came]| sum(minutes(all).iter().map(|minute| &minute.slot.counted));
            assert_same(&counted(&with_repeat), &counted(&all));
        }
    }

    #[test]
    fn a_slot_comes_back_with_its_levels_and_deploys() {
        let mut pulse = Pulse::default();
        pulse.who.version = "1.2.3".to_owned();
        pulse.who.configuration = 77;
        (pulse.now.slots, pulse.now.running) = (8, 3);
        let mut other = pulse.clone();
        other.now.running = 5;
        let all = [
            came(60_000, "a", 1, pulse.clone()),
            came(61_000, "b", 1, other),
            came(119_999, "a", 2, pulse),
            came(120_000, "a", 3, Pulse::default()),
        ];
        let minutes = minutes(&all);
        assert_eq!(minutes.len(), 2);
        let slot = &minutes[0].slot;
        assert_eq!(
            (slot.at_ms, slot.pulses, slot.levels.workers),
            (60_000, 3, 2)
        );
        assert_eq!((slot.levels.slots, slot.levels.running), (16, 8));
        assert_eq!(slot.deploys[&("1.2.3".to_owned(), 77)], 2);
        assert_eq!(Slot::unpack(60_000, &slot.pack()).as_ref(), Ok(slot));
    }

    #[test]
    fn what_tells_of_long_ago_is_late_and_what_can_not_be_read_is_counted() {
        let late = Pulse {
            span_ms: 120_000,
            every_ms: 10_000,
            ..Pulse::default()
        };
        let idle = Pulse {
            span_ms: 31_000,
            every_ms: 30_000,
            ..Pulse::default()
        };
        let mut newer = came(3000, "b", 1, Pulse::default());
        newer.pulse = Err(Unreadable::Newer(9));
        let minutes = minutes(&[came(1000, "a", 1, late), came(2000, "a", 2, idle), newer]);
        let slot = &minutes[0].slot;
        assert_eq!((slot.pulses, slot.late, slot.unread), (3, 1, 1));
    }
}
