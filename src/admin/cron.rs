//! Crons: what there is of them, what comes next, their history; paused, resumed, run by hand, and run for times that have
//! passed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::Admin;
use crate::config::{CatchUp, CronSettings, Overlap};
use crate::cron::{self, After, Line, Record, SUSPENDED, Schedule, Spec};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Envelope;
use crate::handler::{self, Registry};
use crate::partition::Partition;
use crate::publisher::Publisher;
use crate::rfc3339;
use crate::stream::{KeptCron, StreamKeys};

/// Most occurrences that one call adds for times that have passed.
const MOST: usize = 10_000;
/// The longest pause that ends by itself.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A cron as Redis has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CronStatus {
    /// What it is called.
    pub name: String,
    /// The stream on whose schedule its occurrences stand: of a partitioned topic one of its partitions.
    pub stream: String,
    /// The group whose workers declare it.
    pub group: String,
    /// When it happens.
    pub schedule: Vec<String>,
    /// The time zone of that.
    pub zone: String,
    /// The type of its events.
    #[serde(rename = "type")]
    pub event_type: String,
    /// What becomes of missed occurrences.
    pub catch_up: CatchUp,
    /// What becomes of an occurrence while the one before is not settled.
    pub overlap: Overlap,
    /// The version of the program that declared it.
    pub release: String,
    /// When a worker declared it last.
    #[serde(serialize_with = "millis")]
    pub declared: SystemTime,
    /// No worker has declared it for ten minutes: nothing is added until one does.
    pub is_suspended: bool,
    /// That it is paused, if it is.
    pub paused: Option<CronPause>,
    /// What comes next; None if nothing does.
    pub next: Option<CronOccurrence>,
    /// The last occurrence whose event was added.
    pub last: Option<CronLast>,
    #[serde(skip)]
    kept: Kept,
}

/// What else is known of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    spec: String,
    history: String,
    now_ms: u64,
}

/// That a cron is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CronPause {
    /// Since when.
    #[serde(serialize_with = "millis")]
    pub since: SystemTime,
    /// When it ends by itself; None until somebody resumes it.
    #[serde(serialize_with = "millis_option")]
    pub until: Option<SystemTime>,
    /// Who paused it.
    pub by: String,
    /// Why, if that was said.
    pub note: Option<String>,
}

/// An occurrence of a cron.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CronOccurrence {
    /// What it is known by: its local time and its zone, as `2026-03-29T02:30:00[Europe/Berlin]`.
    pub occurrence: String,
    /// Those that happen at the same instant, for the clock leaves their times out.
    pub also: Vec<String>,
    /// When its event is due: by its jitter later than it happens.
    #[serde(serialize_with = "millis")]
    pub due: SystemTime,
    /// How far the zone's clocks are ahead of UTC then, in seconds.
    pub offset: i64,
    /// What the clock does to it, if it does anything.
    pub clock: Option<ClockChange>,
}

/// What a clock that is set does to an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClockChange {
    /// Its time is left out: it happens at the first instant behind that.
    LeftOut,
    /// Its time is shown twice, and this is the first.
    First,
    /// The same, and this is the second.
    Second,
}

/// The last occurrence whose event was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CronLast {
    /// What it is known by.
    pub occurrence: String,
    /// Its entry.
    pub entry: String,
    /// When it was added.
    #[serde(serialize_with = "millis")]
    pub added: SystemTime,
    /// The group has not settled it: it waits, runs, or is parked for a retry.
    pub is_unsettled: bool,
}

/// A line of a cron's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CronRun {
    /// When it was written.
    #[serde(serialize_with = "millis")]
    pub at: SystemTime,
    /// `added`, or why it was not: `missed`, `overlap`, `paused`, `suspended`. Of several that were left out one after the
    /// other it is the first.
    pub what: String,
    /// What the occurrences are known by.
    pub occurrences: Vec<String>,
    /// When they were due.
    #[serde(serialize_with = "millis")]
    pub due: SystemTime,
    /// The entry that was added.
    pub entry: Option<String>,
}

/// What is to be paused, and how: see [`Admin::pause_cron`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct CronPauseRequest {
    name: String,
    by: String,
    lasts: Option<Duration>,
    note: Option<String>,
}

impl CronPauseRequest {
    /// This cron, until it is resumed. `by` says who does it.
    pub fn of(name: impl Into<String>, by: impl Into<String>) -> Self {
        CronPauseRequest {
            name: name.into(),
            by: by.into(),
            lasts: None,
            note: None,
        }
    }

    /// It ends by itself after so long.
    pub fn lasts(mut self, lasts: Duration) -> Self {
        self.lasts = Some(lasts);
        self
    }

    /// Why.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

impl Admin {
    /// The same, which can make the events of the crons that this registry declares in code.
    ///
    /// # Errors
    /// If a cron is wrong.
    pub fn with_crons_of(mut self, registry: &Registry) -> Result<Self> {
        self.crons = handler::crons(&self.settings, registry.crons(), "")?.into();
        Ok(self)
    }

    /// The crons of the streams, by their names.
    ///
    /// # Errors
    /// If Redis can't be reached or refuses to say.
    pub async fn crons(&self) -> Result<Vec<CronStatus>> {
        let mut crons = Vec::new();
        for stream in self.streams.iter() {
            let keys = StreamKeys::new(stream);
            let (now_ms, kept) = self.pool.crons(&keys).await?;
            crons.extend(
                kept.into_iter()
                    .filter_map(|kept| status(stream, now_ms, kept)),
            );
        }
        crons.sort_by(|a: &CronStatus, b| (&a.name, &a.stream).cmp(&(&b.name, &b.stream)));
        Ok(crons)
    }

    /// One of them.
    ///
    /// # Errors
    /// As [`crons`](Self::crons), and [`ErrorKind::Invalid`] if there is none of this name.
    pub async fn cron(&self, name: &str) -> Result<CronStatus> {
        let mut crons = self.crons().await?;
        crons.retain(|cron| cron.name == name);
        match crons.len() {
            1 => Ok(crons.remove(0)),
            0 => Err(invalid(format!(
                "no cron {name:?} is known here: a worker makes it known that declares it"
            ))),
            _ => {
                let streams: Vec<String> = crons.into_iter().map(|cron| cron.stream).collect();
                Err(invalid(format!(
                    "several streams have a cron {name:?}: {}; set worker.streams to the one that is meant",
                    streams.join(", ")
                )))
            }
        }
    }

    /// What was done about a cron, the newest first: some hundred lines are kept.
    ///
    /// # Errors
    /// As [`cron`](Self::cron).
    pub async fn cron_history(&self, name: &str) -> Result<Vec<CronRun>> {
        Ok(self.cron(name).await?.history())
    }

    /// Leaves occurrences out until the cron is [resumed](Self::resume_cron): none of those is caught up with. Returns
    /// whether it was not paused before.
    ///
    /// # Errors
    /// As [`cron`](Self::cron), and if it is to last no time, or longer than a year.
    pub async fn pause_cron(&self, request: CronPauseRequest) -> Result<bool> {
        let CronPauseRequest {
            name,
            by,
            lasts,
            note,
        } = request;
        if lasts.is_some_and(|lasts| lasts.is_zero() || lasts > LONGEST) {
            return Err(invalid(
                "a pause ends after 1ms to 365d, or is resumed".into(),
            ));
        }
        let keys = StreamKeys::new(&self.cron(&name).await?.stream);
        let note = note.as_deref();
        let paused = self.pool.pause_cron(&keys, &name, &by, lasts, note).await?;
        Ok(paused.is_some_and(|(is_new, _)| is_new))
    }

    /// Ends the pause of a cron. Returns whether it was paused.
    ///
    /// # Errors
    /// As [`cron`](Self::cron).
    pub async fn resume_cron(&self, name: &str, by: &str) -> Result<bool> {
        let keys = StreamKeys::new(&self.cron(name).await?.stream);
        let resumed = self.pool.resume_cron(&keys, name, by).await?;
        Ok(resumed.unwrap_or_default())
    }

    /// Publishes an event of a cron now, beside its schedule, paused or not. Returns the event's id.
    ///
    /// # Errors
    /// As [`cron`](Self::cron); if a function of the program makes its events, and this does not know it: see
    /// [`with_crons_of`](Self::with_crons_of).
    pub async fn trigger_cron(&self, name: &str) -> Result<String> {
        let cron = self.cron(name).await?;
        let (spec, times) = cron.spec()?;
        let now = times.at((cron.kept.now_ms / 1000) as i64);
        let event = self.event_of(&cron, &spec, &now)?;
        let id = format!("{}:{}", cron::id(name, "manual"), Uuid::now_v7());
        let event = event.with("id", &id).with("cronlate", "0");
        let publisher = self.publisher_of_crons();
        publisher.publish_envelope(&cron.topic(), event).await?;
        Ok(id)
    }

    /// The occurrences of a cron within a time that has passed, which [`backfill_cron`](Self::backfill_cron) would add.
    ///
    /// # Errors
    /// As [`cron`](Self::cron), and if there are more than 10,000, or the time has not passed.
    pub async fn missed_by_cron(
        &self,
        name: &str,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<Vec<CronOccurrence>> {
        let cron = self.cron(name).await?;
        let (spec, times) = cron.spec()?;
        let within = cron.within(&times, from, to)?;
        Ok(within
            .iter()
            .map(|it| occurrence(name, &spec, &times, it))
            .collect())
    }

    /// Publishes the events of all occurrences of a cron within a time that has passed, in their order, with the ids they
    /// had or would have had: a handler that deduplicates leaves those out that have succeeded. Returns how many there are.
    ///
    /// # Errors
    /// As [`missed_by_cron`](Self::missed_by_cron) and [`trigger_cron`](Self::trigger_cron). Some may have been added by
    /// then.
    pub async fn backfill_cron(
        &self,
        name: &str,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<usize> {
        let cron = self.cron(name).await?;
        let (spec, times) = cron.spec()?;
        let now = (cron.kept.now_ms / 1000) as i64;
        let mut events = Vec::new();
        for it in cron.within(&times, from, to)? {
            let event = self.event_of(&cron, &spec, &it)?;
            let late = now.saturating_sub(it.instant).max(0) * 1000;
            events.push(event.with("cronlate", late.to_string()));
        }
        let all = events.len();
        let published = self
            .publisher_of_crons()
            .publish_envelopes(&cron.topic(), events)
            .await;
        published.map_err(|error| Error::new(error.kind(), error.to_string()))?;
        Ok(all)
    }

    fn event_of(&self, cron: &CronStatus, spec: &Spec, it: &cron::Occurrence) -> Result<Envelope> {
        let in_code = self
            .crons
            .iter()
            .find(|known| known.declared.name == cron.name);
        match in_code.filter(|_| spec.data.is_none()) {
            Some(known) => known.event(it),
            None => handler::event_of_spec(&cron.name, spec, it),
        }
    }

    fn publisher_of_crons(&self) -> Publisher {
        let topics = crate::publisher::Topics::of_settings(&self.settings);
        Publisher::with_pool(self.pool.clone()).with_topics(topics)
    }
}

impl CronStatus {
    /// What is to come after now.
    ///
    /// # Errors
    /// If a later release has written its schedule.
    pub fn next_times(&self, count: usize) -> Result<Vec<CronOccurrence>> {
        let (spec, times) = self.spec()?;
        Ok(next_times(
            &self.name,
            &spec,
            &times,
            self.kept.now_ms,
            count,
        ))
    }

    /// What was done about it, the newest first.
    pub fn history(&self) -> Vec<CronRun> {
        let lines = self.kept.history.lines().filter_map(Line::parse);
        let run = |line: Line| CronRun {
            at: time(line.at_ms),
            what: line.what,
            occurrences: line.names.split(',').map(str::to_owned).collect(),
            due: time(line.due_ms),
            entry: line.entry,
        };
        lines.map(run).collect()
    }

    fn spec(&self) -> Result<(Spec, Schedule)> {
        let spec = Spec::parse(&self.kept.spec);
        let times = spec.and_then(|spec| {
            let times = spec.times().ok()?;
            Some((spec, times))
        });
        times.ok_or_else(|| {
            let (name, release) = (&self.name, &self.release);
            invalid(format!(
                "the schedule of {name} was written by the release {release}, and is none here"
            ))
        })
    }

    /// The topic its events go to, or its stream.
    fn topic(&self) -> String {
        let partition = Partition::parse(&self.stream);
        partition.map_or(self.stream.clone(), |it| it.topic.to_owned())
    }

    fn within(
        &self,
        times: &Schedule,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<Vec<cron::Occurrence>> {
        let second = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        let (from, to) = (second(from), second(to));
        if to > (self.kept.now_ms / 1000) as i64 || from > to {
            return Err(invalid("what is filled in lies behind: --from is before --to, and that is not later than now".into()));
        }
        let all = times.iter(After::instant(from - 1));
        let within: Vec<_> = all
            .take_while(|it| it.instant <= to)
            .take(MOST + 1)
            .collect();
        match within.len() > MOST {
            true => Err(invalid(format!(
                "that is more than {MOST} occurrences at once: fill in a part of it"
            ))),
            false => Ok(within),
        }
    }
}

impl CronSettings {
    /// What is to come after this time, without Redis.
    ///
    /// # Errors
    /// If the schedule or the zone is wrong.
    pub fn next_times(
        &self,
        name: &str,
        after: SystemTime,
        count: usize,
    ) -> Result<Vec<CronOccurrence>> {
        let spec = self.spec(&self.event_type, false);
        let times = spec.times().map_err(invalid)?;
        let since = after.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(next_times(
            name,
            &spec,
            &times,
            since.as_millis() as u64,
            count,
        ))
    }
}

fn next_times(
    name: &str,
    spec: &Spec,
    times: &Schedule,
    now_ms: u64,
    count: usize,
) -> Vec<CronOccurrence> {
    let next = times.iter(After::instant((now_ms / 1000) as i64));
    next.take(count)
        .map(|it| occurrence(name, spec, times, &it))
        .collect()
}

fn occurrence(name: &str, spec: &Spec, times: &Schedule, it: &cron::Occurrence) -> CronOccurrence {
    let at = u64::try_from(it.instant).unwrap_or_default() * 1000;
    CronOccurrence {
        occurrence: it.name.clone(),
        also: it.also.clone(),
        due: time(at + spec.jitter_of(name, &it.name)),
        offset: times.zone().offset(it.instant),
        clock: match times.shown(it) {
            cron::Shown::Once => None,
            cron::Shown::LeftOut => Some(ClockChange::LeftOut),
            cron::Shown::First => Some(ClockChange::First),
            cron::Shown::Second => Some(ClockChange::Second),
        },
    }
}

fn status(stream: &str, now_ms: u64, kept: KeptCron) -> Option<CronStatus> {
    let record = Record::parse(&kept.record)?;
    let spec = record.spec();
    let declared_ms = record.declared_ms();
    let age = Duration::from_millis(now_ms.saturating_sub(declared_ms));
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let ms = |text: &str| text.parse().ok().map(time);
    let times = spec.as_ref().and_then(|spec| spec.times().ok());
    let next = spec.as_ref().zip(times.as_ref()).and_then(|(spec, times)| {
        let next = times.named(&record.next, record.at.parse().ok()?, &record.names);
        (!record.next.is_empty()).then(|| occurrence(&kept.name, spec, times, &next))
    });
    let last = text(&record.last).map(|last| CronLast {
        occurrence: last,
        entry: record.entry.clone(),
        added: ms(&record.added).unwrap_or(UNIX_EPOCH),
        is_unsettled: kept.is_out,
    });
    Some(CronStatus {
        stream: stream.to_owned(),
        group: record.group.clone(),
        schedule: spec
            .as_ref()
            .map(|spec| spec.schedule.clone())
            .unwrap_or_default(),
        zone: spec
            .as_ref()
            .map(|spec| spec.zone.clone())
            .unwrap_or_default(),
        event_type: spec
            .as_ref()
            .map(|spec| spec.event_type.clone())
            .unwrap_or_default(),
        catch_up: spec.as_ref().map(|spec| spec.catch_up).unwrap_or_default(),
        overlap: spec.as_ref().map(|spec| spec.overlap).unwrap_or_default(),
        release: record.release.clone(),
        declared: time(declared_ms),
        is_suspended: age > SUSPENDED,
        paused: record.is_paused(now_ms).then(|| CronPause {
            since: ms(&record.paused).unwrap_or(UNIX_EPOCH),
            until: ms(&record.paused_until),
            by: record.paused_by.clone(),
            note: text(&record.paused_note),
        }),
        next,
        last,
        kept: Kept {
            spec: record.spec,
            history: kept.history,
            now_ms,
        },
        name: kept.name,
    })
}

fn time(ms: u64) -> SystemTime {
    crate::stream::time(ms)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

fn millis<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339::millis(*time))
}

fn millis_option<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339::millis).serialize(to)
}
