//! What is to be done about a cron, decided from what a worker declares, what Redis has of it, and what time it is there.
//!
//! Pure. Whoever decides has looked, and writes only if nothing has changed since: so of many workers one goes on, and the
//! others look again.

use std::sync::Arc;
use std::time::Duration;

use super::occurrence::{After, Occurrence};
use super::record::{Record, Seen, due_ms};
use super::schedule::Schedule;
use super::spec::{CatchUp, GRACE, Spec};

/// So often it is noted that a cron is declared,
pub(crate) const REFRESH: Duration = Duration::from_secs(20);
/// and one that nobody has declared for so long is suspended, and may be declared otherwise by any release.
pub(crate) const SUSPENDED: Duration = Duration::from_secs(600);
/// The same for another declaration of the same release.
const ABANDONED: Duration = Duration::from_secs(90);
/// So many earlier declarations are remembered.
const PAST: usize = 32;

/// A cron as a worker declares it.
#[derive(Clone)]
pub(crate) struct Declared {
    pub name: String,
    pub group: String,
    /// The version of the worker's program.
    pub release: String,
    pub spec: Arc<Spec>,
    pub times: Arc<Schedule>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, before this time at the earliest, in ms; None if there is nothing to come.
    Wait(Option<u64>),
    /// The same: another declaration holds, for this reason.
    Behind(String),
    /// This is to be the record.
    Write(Box<Write>),
}

/// A record that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub record: Record,
    /// What is to be taken off the schedule, by its name.
    pub take_off: Option<String>,
    /// Puts the event of the record's next occurrence on it.
    pub put: Option<Occurrence>,
    /// What the history is to say: why occurrences were left out, when the first was due, and their names.
    pub note: Option<(&'static str, u64, String)>,
}

/// What is to be done about a cron. `stands` tells whether the record's next occurrence stands on the schedule.
pub(crate) fn decide(
    declared: &Declared,
    record: Option<&Record>,
    stands: bool,
    now_ms: u64,
) -> Step {
    let now = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    let Some(old) = record else {
        let mut record = declared.new_record(now_ms);
        let after = After::instant(now);
        let next = declared.times.next(after);
        record.set_next(&declared.name, &declared.spec, after, next.as_ref());
        return Step::Write(Box::new(Write {
            record,
            take_off: None,
            put: next,
            note: None,
        }));
    };
    let age = Duration::from_millis(now_ms.saturating_sub(old.declared_ms()));
    if old.group != declared.group && age < SUSPENDED {
        return Step::Behind(format!("the group {} has a cron of this name", old.group));
    }
    let (text, old_spec) = (declared.spec.text(), old.spec());
    let is_same = old.spec == text && old.group == declared.group;
    if !is_same && let Some(why) = declared.is_behind(old, age) {
        return Step::Behind(why);
    }
    let mut record = old.clone();
    let mut is_new = false;
    if !is_same || declared.is_newer_than(&old.release) {
        record = declared.take_over(old, &text);
        is_new = true;
    }
    if age >= REFRESH || is_new {
        record.declared = now_ms.to_string();
        is_new = true;
    }
    let has_same_times = old_spec.is_some_and(|spec| spec.has_times_of(&declared.spec));
    let found = Found {
        declared,
        old,
        stands,
        now,
        now_ms,
    };
    if !has_same_times {
        return found.otherwise(record);
    }
    if let Some(write) = found.turn(&record) {
        return Step::Write(Box::new(write));
    }
    if is_new {
        // Its event may be another one by now.
        let put = (stands && !is_same).then(|| found.again()).flatten();
        return Step::Write(Box::new(Write {
            record,
            take_off: None,
            put,
            note: None,
        }));
    }
    Step::Wait((!old.next.is_empty()).then(|| old.due_ms()))
}

/// What was found of a cron.
struct Found<'a> {
    declared: &'a Declared,
    old: &'a Record,
    stands: bool,
    now: i64,
    now_ms: u64,
}

impl Found<'_> {
    /// The times have changed: what is next is looked for from now on.
    fn otherwise(&self, mut record: Record) -> Step {
        let had_turn = match self.old.seen() {
            Seen::Done => self.old.behind(),
            _ => self.old.before(),
        };
        let is_same_zone = self
            .old
            .spec()
            .is_some_and(|spec| spec.zone == self.declared.spec.zone);
        let after = After {
            instant: self.now.max(had_turn.instant),
            behind: had_turn.behind.filter(|_| is_same_zone),
        };
        let next = self.declared.times.next(after);
        record.set_next(
            &self.declared.name,
            &self.declared.spec,
            after,
            next.as_ref(),
        );
        Step::Write(Box::new(Write {
            record,
            take_off: self.stands.then(|| self.old.next.clone()),
            put: next,
            note: None,
        }))
    }

    /// Goes on to what comes after the next occurrence, if that has had its turn or has missed it.
    fn turn(&self, record: &Record) -> Option<Write> {
        let old = self.old;
        let late = Duration::from_millis(self.now_ms.saturating_sub(old.due_ms()));
        let is_due = !old.next.is_empty() && old.due_ms() <= self.now_ms;
        if old.next.is_empty() {
            return None;
        }
        let is_paused = old.is_paused(self.now_ms);
        match old.seen() {
            Seen::Done => Some(self.after(record.clone(), old.behind(), is_paused, None)),
            Seen::Off => {
                // It is among those that were missed.
                Some(self.after(record.clone(), old.before(), is_paused, Some(old)))
            }
            Seen::Stands | Seen::Waits if !is_due => None,
            // Added by a worker of an earlier release, or cancelled.
            Seen::Stands | Seen::Waits if !self.stands => {
                Some(self.after(record.clone(), old.behind(), is_paused, None))
            }
            _ if is_paused => Some(self.after(record.clone(), old.before(), true, Some(old))),
            Seen::Stands if late > GRACE && old.free != "1" => {
                Some(self.after(record.clone(), old.before(), false, Some(old)))
            }
            _ => None,
        }
    }

    /// What comes after that: the next in turn, or, if that is missed, what is to be caught up with.
    fn after(
        &self,
        mut record: Record,
        after: After,
        is_paused: bool,
        missed: Option<&Record>,
    ) -> Write {
        let Declared {
            name, spec, times, ..
        } = self.declared;
        let in_turn = times.next(after);
        let grace = u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX);
        let is_missed = |next: &Occurrence| due_ms(name, spec, next) + grace < self.now_ms;
        let from_now = |after: After| {
            let instant = self.now.max(after.instant);
            let after = After { instant, ..after };
            (times.next(after), after, false)
        };
        let is_late = in_turn.as_ref().is_some_and(is_missed);
        let is_due = |next: &Occurrence| due_ms(name, spec, next) <= self.now_ms;
        let (next, passed, is_free) = match spec.catch_up {
            _ if is_paused && in_turn.as_ref().is_some_and(is_due) => from_now(after),
            _ if !is_late => (in_turn.clone(), after, false),
            CatchUp::None => from_now(after),
            CatchUp::Last => {
                let last = times.last(after, self.now);
                match last.filter(|last| self.is_in_time(last)) {
                    Some(last) => (Some(last), after, true),
                    None => from_now(after),
                }
            }
            CatchUp::All => {
                let within = spec
                    .within()
                    .map_or(i64::MAX, |within| within.as_secs() as i64);
                let instant = after.instant.max(self.now.saturating_sub(within));
                let after = After { instant, ..after };
                (times.next(after), after, true)
            }
        };
        // The history names the first that was left out, if any was.
        let first = missed.map(|missed| (missed.names.clone(), missed.due_ms()));
        let first = first.or_else(|| {
            let first = in_turn.as_ref()?;
            Some((first.names(), due_ms(name, spec, first)))
        });
        let chosen = next.as_ref().map(Occurrence::names);
        let left_out =
            first.filter(|(names, _)| (is_late || is_paused) && Some(names) != chosen.as_ref());
        let why = if is_paused { "paused" } else { "missed" };
        let note = left_out.map(|(names, due)| (why, due, names));
        // What was passed over does not come back.
        record.set_next(name, spec, passed, next.as_ref());
        if is_free {
            record.free = "1".into();
        }
        Write {
            record,
            take_off: self.stands.then(|| self.old.next.clone()),
            put: next,
            note,
        }
    }

    fn is_in_time(&self, missed: &Occurrence) -> bool {
        let late = self.now.saturating_sub(missed.instant);
        self.declared
            .spec
            .within()
            .is_none_or(|within| late <= within.as_secs() as i64)
    }

    /// The occurrence that is next as it was.
    fn again(&self) -> Option<Occurrence> {
        let next = self.declared.times.next(self.old.before());
        let is_it = |next: &Occurrence| next.name == self.old.next;
        next.filter(is_it).or_else(|| {
            // It was not the first after that: earlier ones were left out.
            let from = After::instant(self.old.behind().instant - 1);
            self.declared.times.next(from).filter(is_it)
        })
    }
}

impl Declared {
    fn new_record(&self, now_ms: u64) -> Record {
        Record {
            spec: self.spec.text(),
            release: self.release.clone(),
            group: self.group.clone(),
            declared: now_ms.to_string(),
            overlap: overlap(&self.spec),
            ..Record::default()
        }
    }

    /// The record with this declaration in place of the one that holds.
    fn take_over(&self, old: &Record, text: &str) -> Record {
        let (mine, others) = (digest(&self.release, text), digest(&old.release, &old.spec));
        let past = old.past.split(' ').chain([&others[..]]);
        let past: Vec<&str> = past.filter(|it| !it.is_empty() && *it != mine).collect();
        Record {
            spec: text.to_owned(),
            release: self.release.clone(),
            group: self.group.clone(),
            overlap: overlap(&self.spec),
            past: past[past.len().saturating_sub(PAST)..].join(" "),
            ..old.clone()
        }
    }

    /// Why this does not take the place of what holds, which was declared so long ago.
    fn is_behind(&self, old: &Record, age: Duration) -> Option<String> {
        let is_of_one_release = self.release == old.release;
        let patience = if is_of_one_release {
            ABANDONED
        } else {
            SUSPENDED
        };
        if age >= patience {
            return None;
        }
        let is_older = match (version(&self.release), version(&old.release)) {
            (Some(mine), Some(others)) if mine != others => mine < others,
            _ => {
                let mine = digest(&self.release, &self.spec.text());
                old.past.split(' ').any(|past| past == mine)
            }
        };
        is_older.then(|| {
            format!(
                "a worker of the release {} has declared it otherwise, and that holds until nobody has declared it for {}",
                old.release,
                crate::duration::format(patience)
            )
        })
    }

    fn is_newer_than(&self, release: &str) -> bool {
        version(&self.release) > version(release)
    }
}

fn overlap(spec: &Spec) -> String {
    let overlap = serde_json::to_value(spec.overlap);
    let overlap = overlap.ok().and_then(|it| it.as_str().map(str::to_owned));
    overlap.unwrap_or_default()
}

/// The numbers of a version as `1.4.2`; None if it is none.
fn version(release: &str) -> Option<Vec<u64>> {
    let numbers = release.trim_start_matches('v').split(['-', '+']).next()?;
    numbers
        .split('.')
        .map(|number| number.parse().ok())
        .collect()
}

fn digest(release: &str, spec: &str) -> String {
    let bytes = release.bytes().chain([0]).chain(spec.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cron::{Overlap, Zone};

    const HOUR: u64 = 3_600_000;
    /// 2026-06-01T00:00:00Z.
    const BEGIN: u64 = 1_780_272_000_000;

    fn declared(line: &str, catch_up: CatchUp, release: &str) -> Declared {
        let spec = Spec {
            schedule: vec![line.to_owned()],
            zone: "UTC".into(),
            event_type: "report.due".into(),
            subject: None,
            data: None,
            catch_up,
            within_ms: None,
            overlap: Overlap::Allow,
            jitter_ms: 0,
        };
        let zone = Zone::named("UTC").unwrap();
        Declared {
            name: "nightly".into(),
            group: "g".into(),
            release: release.into(),
            times: Arc::new(Schedule::parse([line], zone).unwrap()),
            spec: Arc::new(spec),
        }
    }

    fn write(step: Step) -> Write {
        match step {
            Step::Write(write) => *write,
            other => panic!("{other:?}"),
        }
    }

    /// What is added from a record that stands, at this time: the names, until nothing is due any more.
    fn added(declared: &Declared, mut record: Record, now: u64) -> Vec<String> {
        let mut added = Vec::new();
        let mut stands = true;
        for _ in 0..1000 {
            match decide(declared, Some(&record), stands, now) {
                Step::Write(write) => {
                    stands |= write.put.is_some();
                    record = write.record;
                }
                Step::Wait(_) if record.due_ms() <= now => {
                    added.push(record.next.clone());
                    record.state = "done".into();
                    stands = false;
                }
                _ => break,
            }
        }
        added
    }

    #[test]
    fn three_hours_of_nobody_are_none_the_last_or_all() {
        for (catch_up, hours) in [
            (CatchUp::None, &[][..]),
            (CatchUp::Last, &["13"]),
            (CatchUp::All, &["11", "12", "13"]),
        ] {
            let hourly = declared("5 */1 * * *", catch_up, "1.0.0");
            let first = write(decide(&hourly, None, false, BEGIN + 10 * HOUR + 600_000));
            assert_eq!(first.record.next, "2026-06-01T11:05:00[UTC]");
            let after = BEGIN + 13 * HOUR + 1_800_000;
            let names: Vec<String> = hours
                .iter()
                .map(|hour| format!("2026-06-01T{hour}:05:00[UTC]"))
                .collect();
            assert_eq!(
                added(&hourly, first.record.clone(), after),
                names,
                "{catch_up:?}"
            );
            // The same if another worker has taken off what was late.
            let mut off = first.record;
            off.state = "late".into();
            let step = write(decide(&hourly, Some(&off), false, after));
            assert!(step.put.is_some());
            assert_eq!(added(&hourly, step.record, after), names, "{catch_up:?}");
        }
    }

    #[test]
    fn a_moment_late_is_not_missed() {
        let often = declared("every 1s", CatchUp::None, "1.0.0");
        let first = write(decide(&often, None, false, BEGIN)).record;
        assert_eq!(added(&often, first, BEGIN + 30_000).len(), 30);
    }

    #[test]
    fn a_newer_release_replaces_what_is_next_and_an_older_one_never_flips_back() {
        let old = declared("30 2 * * *", CatchUp::None, "1.9.0");
        let new = declared("30 4 * * *", CatchUp::None, "1.10.0");
        let first = write(decide(&old, None, false, BEGIN)).record;
        let replaced = write(decide(&new, Some(&first), true, BEGIN + 1000));
        assert_eq!(
            replaced.take_off.as_deref(),
            Some("2026-06-01T02:30:00[UTC]")
        );
        assert_eq!(replaced.record.next, "2026-06-01T04:30:00[UTC]");
        let behind = |record: &Record, declared: &Declared, at: u64| {
            matches!(decide(declared, Some(record), true, at), Step::Behind(_))
        };
        assert!(behind(&replaced.record, &old, BEGIN + 2000));
        assert!(behind(&replaced.record, &old, BEGIN + 599_000));
        // Rolled back: nobody declares the newer one any more.
        let back = write(decide(&old, Some(&replaced.record), true, BEGIN + 602_000));
        assert_eq!(back.record.next, "2026-06-01T02:30:00[UTC]");
        // And there again.
        let again = write(decide(&new, Some(&back.record), true, BEGIN + 603_000));
        assert_eq!(again.record.next, "2026-06-01T04:30:00[UTC]");
    }

    #[test]
    fn releases_that_are_no_versions_come_in_the_order_they_were_seen() {
        let old = declared("30 2 * * *", CatchUp::None, "c0ffee");
        let new = declared("30 4 * * *", CatchUp::None, "abad1dea");
        let first = write(decide(&old, None, false, BEGIN)).record;
        let replaced = write(decide(&new, Some(&first), true, BEGIN)).record;
        let step = decide(&old, Some(&replaced), true, BEGIN + 1000);
        assert!(matches!(step, Step::Behind(_)), "{step:?}");
        // The same release with the settings it had before: sooner.
        let other = declared("30 6 * * *", CatchUp::None, "abad1dea");
        let changed = write(decide(&other, Some(&replaced), true, BEGIN + 1000)).record;
        let step = decide(&new, Some(&changed), true, BEGIN + 2000);
        assert!(matches!(step, Step::Behind(_)), "{step:?}");
        let back = write(decide(&new, Some(&changed), true, BEGIN + 92_000)).record;
        assert_eq!(back.next, "2026-06-01T04:30:00[UTC]");
    }

    #[test]
    fn what_is_paused_is_left_out_and_not_caught_up_with() {
        let hourly = declared("5 */1 * * *", CatchUp::All, "1.0.0");
        let mut record = write(decide(&hourly, None, false, BEGIN)).record;
        record.paused = BEGIN.to_string();
        let late = BEGIN + 5 * HOUR;
        let passed = write(decide(&hourly, Some(&record), true, late));
        assert_eq!(passed.record.next, "2026-06-01T05:05:00[UTC]");
        assert_eq!(passed.note.unwrap().0, "paused");
        record.paused_until = (BEGIN + HOUR).to_string();
        assert_eq!(added(&hourly, record, late).len(), 5);
    }

    #[test]
    fn a_clock_that_goes_back_repeats_nothing() {
        let often = declared("every 10s", CatchUp::All, "1.0.0");
        let mut record = write(decide(&often, None, false, BEGIN)).record;
        record.state = "done".into();
        let next = write(decide(&often, Some(&record), false, BEGIN - 10 * HOUR)).record;
        assert_eq!(next.at.parse::<u64>().unwrap() * 1000, BEGIN + 20_000);
    }

    #[test]
    fn what_was_cancelled_or_added_by_others_is_passed() {
        let daily = declared("@daily", CatchUp::All, "1.0.0");
        let record = write(decide(&daily, None, false, BEGIN + 1000)).record;
        let due = record.due_ms();
        assert_eq!(
            decide(&daily, Some(&record), false, BEGIN + 2000),
            Step::Wait(Some(due))
        );
        let next = write(decide(&daily, Some(&record), false, due)).record;
        assert_eq!(next.next, "2026-06-03T00:00:00[UTC]");
    }

    #[test]
    fn another_group_has_to_wait_until_nobody_declares_it() {
        let mine = declared("@daily", CatchUp::All, "1.0.0");
        let record = write(decide(&mine, None, false, BEGIN)).record;
        let others = Declared {
            group: "other".into(),
            ..mine
        };
        let step = decide(&others, Some(&record), true, BEGIN + 1000);
        assert!(matches!(step, Step::Behind(_)), "{step:?}");
        let taken = write(decide(&others, Some(&record), true, BEGIN + 601_000)).record;
        assert_eq!(taken.group, "other");
    }
}
