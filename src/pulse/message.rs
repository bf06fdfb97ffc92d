//! A pulse: who a worker is, what it runs, and what it has counted since its last one; and how that is packed. The worker's
//! name and the pulse's number stand beside the packed bytes, where a script can see them.

use super::series;
use super::wire::{Garbled, Packed, Packer, Reader, Section, Unreadable};
use crate::event::EntryId;
use crate::metrics::snapshot::Snapshot;

/// Most runs that a pulse names: those that have run for longest.
pub(crate) const MOST_RUNS: usize = 50;
/// Most of anything else that it lists.
const MOST: usize = 1000;

const WHO: u8 = 1;
const STREAMS: u8 = 2;
const TYPES: u8 = 3;
const BREAKERS: u8 = 4;
const RUNS: u8 = 5;
const DONE: u8 = 6;
const SERIES: u8 = 7;
const DEBUGGED: u8 = 8;

const DRAINING: u64 = 1;
const QUIET: u64 = 2;
const LEFT: u64 = 4;
const WATCHED: u64 = 8;

/// What a worker tells of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pulse {
    pub who: Who,
    pub now: Now,
    /// What it has counted since its last one, which is so many milliseconds.
    pub counted: Snapshot,
    pub span_ms: u64,
    /// How long it is at most until its next one.
    pub every_ms: u64,
}

/// Who it is: nothing of this changes while it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Who {
    pub host: String,
    pub pid: u64,
    pub version: String,
    /// A hash of its configuration.
    pub configuration: u64,
    /// When it began, in milliseconds since 1970 by its own clock.
    pub started_ms: u64,
    pub streams: Vec<String>,
    pub types: Vec<String>,
}

/// How it is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Now {
    /// It takes up nothing more, and ends once what runs has ended.
    pub is_draining: bool,
    /// It takes up nothing new until it is told to go on.
    pub is_quiet: bool,
    /// This is its last pulse.
    pub has_left: bool,
    /// It pulses each second, because somebody looks.
    pub is_watched: bool,
    pub slots: u64,
    pub running: u64,
    pub held: u64,
    /// Memory of the process that is in RAM, in bytes; to a KiB.
    pub memory: u64,
    /// How much of one CPU it has used since its last pulse, in thousandths.
    pub cpu: u64,
    /// How long its last pulse took to Redis and back, in microseconds.
    pub round_trip_us: u64,
    /// Its circuit breakers that are not closed.
    pub breakers: Vec<Breaker>,
    /// What it has run for longest, the longest first.
    pub runs: Vec<Run>,
    /// The numbers of orders that it has carried out of late.
    pub done: Vec<u64>,
    /// Types whose entries it logs one by one.
    pub debugged: Vec<String>,
}

/// A circuit breaker that is not closed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Breaker {
    pub name: String,
    /// Until when it is open, from the pulse on, in milliseconds; none where it lets probes through.
    pub open_for_ms: Option<u64>,
}

/// A handler that runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    pub stream: String,
    pub id: EntryId,
    /// Empty where the handler has not let go of its thread yet: then nobody but itself knows.
    pub event_type: String,
    pub attempt: u64,
    /// For how long, at the pulse, in milliseconds.
    pub for_ms: u64,
}

impl Pulse {
    pub fn pack(&self) -> Vec<u8> {
        self.packed(true)
    }

    /// The same without what it counts: for who wants to know who there is.
    pub fn pack_who(&self) -> Vec<u8> {
        self.packed(false)
    }

    fn packed(&self, with_counts: bool) -> Vec<u8> {
        let mut packer = Packer::default();
        packer.section(WHO, |section| self.pack_numbers(section));
        packer.section(STREAMS, |section| texts(section, &self.who.streams));
        packer.section(TYPES, |section| texts(section, &self.who.types));
        let now = &self.now;
        packer.section(BREAKERS, |section| {
            for breaker in now.breakers.iter().take(MOST) {
                let open_for = breaker.open_for_ms.map_or(0, |ms| ms + 1);
                section.text(&breaker.name).number(open_for);
            }
        });
        packer.section(RUNS, |section| {
            for run in now.runs.iter().take(MOST_RUNS) {
                section
                    .text(&run.stream)
                    .number(run.id.ms)
                    .number(run.id.seq);
                section
                    .text(&run.event_type)
                    .number(run.attempt)
                    .number(run.for_ms);
            }
        });
        packer.section(DONE, |section| {
            for order in now.done.iter().take(MOST) {
                section.number(*order);
            }
        });
        packer.section(DEBUGGED, |section| texts(section, &now.debugged));
        if with_counts {
            packer.section(SERIES, |section| series::pack(&self.counted, section));
        }
        packer.finish()
    }

    fn pack_numbers(&self, section: &mut Section<'_>) {
        let Pulse { who, now, .. } = self;
        let flag = |is_so, flag| if is_so { flag } else { 0 };
        let flags = flag(now.is_draining, DRAINING)
            | flag(now.is_quiet, QUIET)
            | flag(now.has_left, LEFT)
            | flag(now.is_watched, WATCHED);
        section.text(&who.host).number(who.pid).text(&who.version);
        section.fixed(who.configuration).number(who.started_ms);
        section.number(flags).number(now.slots).number(now.running);
        section.number(now.held).number(now.memory >> 10);
        section.number(now.cpu).number(now.round_trip_us);
        section.number(self.span_ms).number(self.every_ms);
    }

    pub fn unpack(bytes: &[u8]) -> Result<Self, Unreadable> {
        let packed = Packed::open(bytes)?;
        let mut pulse = Pulse::default();
        pulse.unpack_numbers(&packed, packed.section(WHO))?;
        pulse.who.streams = unpack_texts(&packed, packed.section(STREAMS))?;
        pulse.who.types = unpack_texts(&packed, packed.section(TYPES))?;
        let now = &mut pulse.now;
        let mut breakers = packed.section(BREAKERS);
        while !breakers.is_empty() {
            let name = packed.text(&mut breakers)?.to_owned();
            let open_for_ms = breakers.number()?.checked_sub(1);
            now.breakers.push(Breaker { name, open_for_ms });
        }
        let mut runs = packed.section(RUNS);
        while !runs.is_empty() {
            now.runs.push(Run {
                stream: packed.text(&mut runs)?.to_owned(),
                id: EntryId {
                    ms: runs.number()?,
                    seq: runs.number()?,
                },
                event_type: packed.text(&mut runs)?.to_owned(),
                attempt: runs.number()?,
                for_ms: runs.number()?,
            });
        }
        let mut done = packed.section(DONE);
        while !done.is_empty() {
            now.done.push(done.number()?);
        }
        now.debugged = unpack_texts(&packed, packed.section(DEBUGGED))?;
        pulse.counted = series::unpack(&packed, packed.section(SERIES))?;
        Ok(pulse)
    }

    fn unpack_numbers(&mut self, packed: &Packed<'_>, mut of: Reader<'_>) -> Result<(), Garbled> {
        let Pulse { who, now, .. } = self;
        who.host = packed.text(&mut of)?.to_owned();
        who.pid = of.number()?;
        who.version = packed.text(&mut of)?.to_owned();
        (who.configuration, who.started_ms) = (of.fixed()?, of.number()?);
        let flags = of.number()?;
        let is_set = |flag| flags & flag != 0;
        (now.is_draining, now.is_quiet) = (is_set(DRAINING), is_set(QUIET));
        (now.has_left, now.is_watched) = (is_set(LEFT), is_set(WATCHED));
        (now.slots, now.running, now.held) = (of.number()?, of.number()?, of.number()?);
        now.memory = of.number()?.saturating_mul(1024);
        (now.cpu, now.round_trip_us) = (of.number()?, of.number()?);
        (self.span_ms, self.every_ms) = (of.number()?, of.number()?);
        Ok(())
    }
}

fn texts(section: &mut Section<'_>, texts: &[String]) {
    for text in texts.iter().take(MOST) {
        section.text(text);
    }
}

fn unpack_texts(packed: &Packed<'_>, mut from: Reader<'_>) -> Result<Vec<String>, Garbled> {
    let mut texts = Vec::new();
    while !from.is_empty() {
        texts.push(packed.text(&mut from)?.to_owned());
    }
    Ok(texts)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec as many;
    use proptest::prelude::*;

    use super::super::series::tests::{assert_same, snapshots};
    use super::*;

    pub fn pulses() -> impl Strategy<Value = Pulse> {
        let who = (
            "[a-z]{1,9}",
            any::<u64>(),
            "[0-9.]{3,5}",
            many("[a-z.]{1,9}", 0..4),
        )
            .prop_map(|(host, number, version, types)| Who {
                host,
                pid: number % 99_999,
                version,
                configuration: number,
                started_ms: number >> 20,
                streams: vec!["orders".to_owned()],
                types,
            });
        let run =
            (any::<u64>(), "[a-z.]{0,9}", 1u64..9).prop_map(|(number, event_type, attempt)| Run {
                stream: "orders".to_owned(),
                id: EntryId {
                    ms: number >> 20,
                    seq: number % 7,
                },
                event_type,
                attempt,
                for_ms: number % 100_000,
            });
        let breaker = ("[a-z]{1,9}", any::<Option<u32>>()).prop_map(|(name, open_for)| Breaker {
            name,
            open_for_ms: open_for.map(u64::from),
        });
        let flags = any::<[bool; 4]>();
        let numbers = any::<[u32; 6]>();
        let now = (
            flags,
            numbers,
            many(run, 0..5),
            many(breaker, 0..3),
            many(any::<u64>(), 0..3),
        )
            .prop_map(|(flags, numbers, runs, breakers, done)| Now {
                is_draining: flags[0],
                is_quiet: flags[1],
                has_left: flags[2],
                is_watched: flags[3],
                slots: numbers[0].into(),
                running: numbers[1].into(),
                held: numbers[2].into(),
                memory: u64::from(numbers[3]) << 10,
                cpu: numbers[4].into(),
                round_trip_us: numbers[5].into(),
                breakers,
                runs,
                done,
                debugged: vec!["order.created".to_owned()],
            });
        (who, now, snapshots(), 0u64..100_000, 0u64..100_000).prop_map(
            |(who, now, counted, span_ms, every_ms)| Pulse {
                who,
                now,
                counted,
                span_ms,
                every_ms,
            },
        )
    }

    proptest! {
        #[test]
        fn a_pulse_comes_back(pulse in pulses()) {
            let read = Pulse::unpack(&pulse.pack()).unwrap();
            assert_same(&read.counted, &pulse.counted);
            let counted = pulse.counted.clone();
            prop_assert_eq!(Pulse { counted, ..read }, pulse.clone());
            let who = Pulse::unpack(&pulse.pack_who()).unwrap();
            prop_assert!(who.counted.is_empty());
            prop_assert_eq!(who.who, pulse.who);
        }

        #[test]
        fn what_is_cut_off_or_changed_is_refused_or_read_and_nothing_panics(pulse in pulses(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = pulse.pack();
            let _ = Pulse::unpack(&bytes[..at.index(bytes.len())]);
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = Pulse::unpack(&bytes);
        }
    }

    #[test]
    fn a_pulse_of_a_newer_form_is_said() {
        let mut bytes = Pulse::default().pack();
        bytes[0] = 7;
        assert_eq!(Pulse::unpack(&bytes), Err(Unreadable::Newer(7)));
    }

    #[test]
    fn a_pulse_names_no_more_than_its_longest_runs() {
        let run = |n| Run {
            stream: "orders".to_owned(),
            id: EntryId { ms: n, seq: 0 },
            event_type: "order.created".to_owned(),
            attempt: 1,
            for_ms: 5,
        };
        let mut pulse = Pulse::default();
        pulse.now.runs = (0..500).map(run).collect();
        let bytes = pulse.pack();
        assert!(bytes.len() < 1000, "{}", bytes.len());
        assert_eq!(Pulse::unpack(&bytes).unwrap().now.runs.len(), MOST_RUNS);
    }
}
