//! `[cron."nightly"]`: what happens again and again, and how it is checked.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use toml::{Table, Value};

use super::section::Section;
use super::setters::setters;
use super::value::{Given, Refusal, Setting, one_of, text};
use crate::cron::{After, CatchUp, Overlap, Schedule, Spec, Zone};
use crate::duration;
use crate::event_type;

/// So many missed occurrences may be caught up with.
const MOST_MISSED: u64 = 1_000;
/// So many of the next times a refusal shows.
const SHOWN: usize = 5;
/// Two releases apart a cron's data is still read by all: it stands in a record that each planning reads.
const MOST_DATA: usize = 64 << 10;

/// `[cron."nightly"]`: events that are published again and again, at the times of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct CronSettings {
    /// When: five fields as crontab has them (`"30 2 * * *"`), an interval (`"every 15m"`), a name (`"@daily"`), or a list of
    /// those.
    #[serde(serialize_with = "one_or_list")]
    pub schedule: Vec<String>,
    /// The time zone of the schedule; UTC.
    pub zone: String,
    /// The stream its events go to, one that the worker reads; unset, the only one it reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The type of its events.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The subject of its events; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What becomes of occurrences that were missed; they are left out.
    pub catch_up: CatchUp,
    /// How late a missed one may be to run all the same: with `all` a day, with `last` however late.
    #[serde(
        serialize_with = "duration::serialize_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub catch_up_within: Option<Duration>,
    /// What becomes of an occurrence while the one before is not settled; its event is added all the same.
    pub overlap: Overlap,
    /// By how much an event may be later than its occurrence, so that not all are at the same moment; zero.
    #[serde(serialize_with = "duration::serialize")]
    pub jitter: Duration,
    /// The data of its events; an empty map.
    #[serde(skip_serializing_if = "Table::is_empty")]
    pub data: Table,
}

impl Default for CronSettings {
    fn default() -> Self {
        CronSettings {
            schedule: Vec::new(),
            zone: "UTC".into(),
            stream: None,
            event_type: String::new(),
            subject: None,
            catch_up: CatchUp::None,
            catch_up_within: None,
            overlap: Overlap::Allow,
            jitter: Duration::ZERO,
            data: Table::new(),
        }
    }
}

setters!(CronSettings {
    into zone: String,
    some_into stream: String,
    into event_type: String,
    some_into subject: String,
    plain catch_up: CatchUp,
    some catch_up_within: Duration,
    plain overlap: Overlap,
    plain jitter: Duration,
    plain data: Table,
});

impl CronSettings {
    /// Those of a cron with this schedule: `"30 2 * * *"`, `"every 15m"`, `"@daily"`.
    pub fn new(schedule: impl Into<String>) -> Self {
        CronSettings {
            schedule: vec![schedule.into()],
            ..CronSettings::default()
        }
    }

    /// The same settings with this schedule as well.
    pub fn and(mut self, schedule: impl Into<String>) -> Self {
        self.schedule.push(schedule.into());
        self
    }

    pub(super) fn read(&mut self, section: &mut Section<'_, '_>) {
        let mut schedule = Lines(Vec::new());
        section.setting("schedule", &mut schedule);
        self.schedule = schedule.0;
        section.setting("zone", &mut self.zone);
        section.setting("stream", &mut self.stream);
        section.setting("type", &mut self.event_type);
        section.setting("subject", &mut self.subject);
        section.setting("catch_up", &mut self.catch_up);
        section.setting("catch_up_within", &mut self.catch_up_within);
        section.setting("overlap", &mut self.overlap);
        section.setting("jitter", &mut self.jitter);
        section.free("data", &mut self.data);
    }

    /// What is kept of it in Redis; without data if a function of the program makes that.
    pub(crate) fn spec(&self, event_type: &str, is_made: bool) -> Spec {
        let ms = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
        let data = (!is_made).then(|| {
            let text = json(&Value::Table(self.data.clone())).to_string();
            RawValue::from_string(text).ok()
        });
        // As the database writes it, so that its case makes no difference.
        let zone = Zone::named(&self.zone).map(|zone| zone.name().to_owned());
        Spec {
            schedule: self
                .schedule
                .iter()
                .map(|line| line.trim().to_owned())
                .collect(),
            zone: zone.unwrap_or_else(|_| self.zone.clone()),
            event_type: event_type.to_owned(),
            subject: self.subject.clone(),
            data: data.flatten(),
            catch_up: self.catch_up,
            within_ms: self.catch_up_within.map(ms),
            overlap: self.overlap,
            jitter_ms: ms(self.jitter),
        }
    }

    /// The stream it is of, of those that a worker reads.
    pub(crate) fn stream_of<'a>(&'a self, streams: &'a [String]) -> Option<&'a str> {
        match (&self.stream, streams) {
            (Some(stream), _) => Some(stream),
            (None, [only]) => Some(only),
            _ => None,
        }
    }

    /// What is wrong with it, each with the key. `is_made` if a function of the program makes its events.
    pub(crate) fn problems(
        &self,
        streams: &[String],
        is_made: bool,
    ) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        match self.stream_of(streams) {
            Some(stream) if streams.is_empty() || streams.iter().any(|it| it == stream) => {}
            Some(stream) => {
                let message =
                    format!("{stream:?} is none that the worker reads; put it into worker.streams");
                problems.push(("stream", message));
            }
            None if streams.is_empty() => {}
            None => {
                let message =
                    "is not set, and the worker reads several; say to which its events go".into();
                problems.push(("stream", message));
            }
        }
        if !is_made {
            if self.event_type.is_empty() {
                let message = "is not set; say of which type its events are, as \"report.due\"";
                problems.push(("type", message.into()));
            } else if let Err(refusal) = event_type::check(&self.event_type) {
                problems.push(("type", format!("the event type {refusal}")));
            }
            if json(&Value::Table(self.data.clone())).to_string().len() > MOST_DATA {
                problems.push(("data", "is too much; at most 64 KiB as JSON".into()));
            }
        } else if !self.event_type.is_empty() || !self.data.is_empty() {
            let key = if self.data.is_empty() { "type" } else { "data" };
            problems.push((key, "is made by a function of the program".into()));
        }
        if self.subject.as_deref() == Some("") {
            problems.push((
                "subject",
                "is empty; leave it out where there is none".into(),
            ));
        }
        let zone = Zone::named(&self.zone);
        if let Err(why) = &zone {
            problems.push(("zone", format!("{:?} is an {why}", self.zone)));
        }
        // Without a zone the lines are looked at all the same.
        let zone = zone.or_else(|_| Zone::named("UTC"));
        let lines = self.schedule.iter().map(String::as_str);
        let times = zone.and_then(|zone| Schedule::parse(lines, zone));
        match times {
            Ok(times) => self.limits(&times, &mut problems),
            Err(why) => problems.push(("schedule", why)),
        }
        problems
    }

    /// What does not fit the times.
    fn limits(&self, times: &Schedule, problems: &mut Vec<(&'static str, String)>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs() as i64;
        let least = match self.jitter {
            Duration::ZERO => None,
            _ => times
                .least_interval(now)
                .map(|least| Duration::from_secs(least.unsigned_abs())),
        };
        if let Some(least) = least.filter(|least| self.jitter > *least) {
            let message = format!(
                "{} is longer than the {} between two of its times; {}",
                duration::format(self.jitter),
                duration::format(least),
                next_times(times, now)
            );
            problems.push(("jitter", message));
        }
        match (self.catch_up, self.catch_up_within) {
            (CatchUp::None, Some(_)) => {
                let message =
                    "has no effect with catch_up = \"none\"; set that to \"last\" or \"all\"";
                problems.push(("catch_up_within", message.into()));
            }
            (CatchUp::All, within) => {
                let within = within.unwrap_or(crate::cron::CATCH_UP_WITHIN);
                let until = now.saturating_add(within.as_secs() as i64);
                let missed = times.iter(After::instant(now));
                let missed = missed.take(MOST_MISSED as usize + 1);
                let missed = missed.take_while(|next| next.instant <= until).count() as u64;
                if missed > MOST_MISSED {
                    let message = format!(
                        "\"all\" within {} would catch up with more than {MOST_MISSED} of its times; set a shorter \
                         catch_up_within, or \"last\"; {}",
                        duration::format(within),
                        next_times(times, now)
                    );
                    problems.push(("catch_up", message));
                }
            }
            _ => {}
        }
    }
}

/// `the next five times are …`.
fn next_times(times: &Schedule, now: i64) -> String {
    let next = times.iter(After::instant(now)).take(SHOWN);
    let next: Vec<String> = next.map(|next| next.names()).collect();
    format!("its next times are {}", next.join(", "))
}

/// TOML as JSON; a date is text.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(is) => (*is).into(),
        Value::Datetime(date) => date.to_string().into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Table(table) => {
            // In one order, whatever it was written in: two workers are to have the same.
            let sorted: BTreeMap<&String, &Value> = table.iter().collect();
            let members = sorted
                .into_iter()
                .map(|(key, value)| (key.clone(), json(value)));
            serde_json::Value::Object(members.collect())
        }
    }
}

/// One line, or a list of them.
struct Lines(Vec<String>);

impl Setting for Lines {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        match given {
            Given::Toml(Value::Array(_)) => Vec::<String>::read(given).map(Lines),
            Given::Text(list) if list.trim_start().starts_with('[') => {
                Vec::<String>::read(given).map(Lines)
            }
            _ => {
                let expected = "text in quotes, as \"30 2 * * *\", or a list of them";
                text(given, expected).map(|line| Lines(vec![line.to_owned()]))
            }
        }
    }
}

impl Setting for CatchUp {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(
            given,
            &[
                ("none", Self::None),
                ("last", Self::Last),
                ("all", Self::All),
            ],
        )
    }
}

impl Setting for Overlap {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(
            given,
            &[
                ("allow", Self::Allow),
                ("skip", Self::Skip),
                ("queue", Self::Queue),
            ],
        )
    }
}

fn one_or_list<S: Serializer>(lines: &[String], to: S) -> Result<S::Ok, S::Error> {
    match lines {
        [line] => to.serialize_str(line),
        lines => to.collect_seq(lines),
    }
}
