//! Crons that a program declares, and the events of their occurrences.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::codec::{self, Encodable, Format};
use crate::config::check::group_name;
use crate::config::{CronSettings, Settings};
use crate::cron::{self, Declared, Occurrence, Spec};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Envelope, Event, envelope_of};

/// The time that an event of a cron is for; see [`Registry::cron`](crate::Registry::cron).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CronTime {
    /// What the cron is called.
    pub cron: String,
    /// The local time and its zone, as `2026-03-29T02:30:00[Europe/Berlin]`. If the clock was set so that several of its
    /// times happen at once, they are one event, and this is the first of them.
    pub occurrence: String,
    /// The same of the others.
    pub also: Vec<String>,
    /// When it happens.
    pub at: SystemTime,
}

impl CronTime {
    pub(crate) fn new(cron: &str, occurrence: &Occurrence) -> Self {
        let since = u64::try_from(occurrence.instant).unwrap_or_default();
        CronTime {
            cron: cron.to_owned(),
            occurrence: occurrence.name.clone(),
            also: occurrence.also.clone(),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(since),
        }
    }

    /// The local day, as `2026-03-29`.
    pub fn date(&self) -> &str {
        self.occurrence.split('T').next().unwrap_or_default()
    }

    /// The local time, as `02:30:00`.
    pub fn time(&self) -> &str {
        let time = self.occurrence.split(['T', '[']).nth(1);
        time.and_then(|time| time.get(..8)).unwrap_or_default()
    }

    /// The time zone, as `Europe/Berlin`.
    pub fn zone(&self) -> &str {
        let zone = self.occurrence.split(['[', ']']).nth(1);
        zone.unwrap_or_default()
    }
}

/// Makes an event of an occurrence.
type Make = Arc<dyn Fn(&CronTime) -> Result<Envelope> + Send + Sync>;

/// A cron that a program declares in code.
pub(crate) struct RegisteredCron {
    pub name: String,
    settings: CronSettings,
    event_type: &'static str,
    make: Make,
    place: &'static Location<'static>,
}

/// A cron as a worker runs it.
pub(crate) struct Cron {
    pub declared: Declared,
    /// The stream or the topic its events go to.
    pub stream: String,
    make: Option<Make>,
}

impl RegisteredCron {
    pub fn new<E: Event + Encodable>(
        name: &str,
        settings: CronSettings,
        make: impl Fn(&CronTime) -> E + Send + Sync + 'static,
        place: &'static Location<'static>,
    ) -> Self {
        RegisteredCron {
            name: name.to_owned(),
            settings,
            event_type: E::TYPE,
            make: Arc::new(move |time| envelope_of(&make(time), Format::Json)),
            place,
        }
    }

    /// What is wrong with it in a worker of these settings.
    fn problems(&self, settings: &Settings) -> impl Iterator<Item = String> {
        let mut problems = self.settings.problems(&settings.worker.streams, true);
        if let Err(refusal) = group_name(&self.name) {
            problems.push(("", format!("its name {refusal}")));
        }
        if settings.cron.contains_key(&self.name) {
            problems.push(("", format!("[cron.{:?}] declares it too", self.name)));
        }
        problems.into_iter().map(|(key, message)| {
            let part = if key.is_empty() { "" } else { ", " };
            format!(
                "{}: the cron {}{part}{key}: {message}",
                self.place, self.name
            )
        })
    }
}

/// All that a worker of these settings runs.
///
/// # Errors
/// If one that is declared in code is wrong, or declared twice.
pub(crate) fn crons(
    settings: &Settings,
    registered: &[RegisteredCron],
    release: &str,
) -> Result<Vec<Arc<Cron>>> {
    let mut problems: Vec<String> = registered
        .iter()
        .flat_map(|cron| cron.problems(settings))
        .collect();
    for (at, cron) in registered.iter().enumerate() {
        if let Some(first) = registered[..at].iter().find(|it| it.name == cron.name) {
            let message = format!(
                "{}: the cron {} is declared at {}, too",
                cron.place, cron.name, first.place
            );
            problems.push(message);
        }
    }
    let in_code = registered.iter().map(|cron| {
        let spec = cron.settings.spec(cron.event_type, true);
        (&cron.name, &cron.settings, spec, Some(cron.make.clone()))
    });
    let in_settings = settings.cron.iter().map(|(name, cron)| {
        let spec = cron.spec(&cron.event_type, false);
        (name, cron, spec, None)
    });
    let mut crons = Vec::new();
    for (name, cron, spec, make) in in_code.chain(in_settings) {
        // What was made in code alone has not been checked.
        let times = match spec.times() {
            Ok(times) => times,
            Err(why) => {
                problems.push(format!("the cron {name}: {why}"));
                continue;
            }
        };
        let Some(stream) = cron.stream_of(&settings.worker.streams) else {
            continue;
        };
        crons.push(Arc::new(Cron {
            declared: Declared {
                name: name.clone(),
                group: settings.worker.group.clone(),
                release: release.to_owned(),
                spec: Arc::new(spec),
                times: Arc::new(times),
            },
            stream: stream.to_owned(),
            make,
        }));
    }
    if problems.is_empty() {
        return Ok(crons);
    }
    problems.sort();
    problems.dedup();
    Err(Error::new(ErrorKind::Invalid, problems.join("\n")))
}

impl Cron {
    /// The event of an occurrence.
    ///
    /// # Errors
    /// If what the program makes of it can't be written.
    pub fn event(&self, occurrence: &Occurrence) -> Result<Envelope> {
        let Declared { name, spec, .. } = &self.declared;
        let time = CronTime::new(name, occurrence);
        let made = self.make.as_ref().map(|make| make(&time)).transpose()?;
        let made = made.or_else(|| bare_event(spec));
        let made = made.ok_or_else(|| no_data(name))?;
        Ok(event_of(name, spec, made, &time))
    }
}

/// The event of an occurrence of a cron that has its data in its declaration.
///
/// # Errors
/// If a function of the program makes it.
pub(crate) fn event_of_spec(name: &str, spec: &Spec, occurrence: &Occurrence) -> Result<Envelope> {
    let made = bare_event(spec).ok_or_else(|| no_data(name))?;
    Ok(event_of(name, spec, made, &CronTime::new(name, occurrence)))
}

fn no_data(name: &str) -> Error {
    let message = format!(
        "the data of the cron {name}'s events is made by a function of the program: use the program that has it"
    );
    Error::new(ErrorKind::Invalid, message)
}

fn bare_event(spec: &Spec) -> Option<Envelope> {
    let data = spec.data.as_ref()?;
    let event = Envelope::new(&spec.event_type).with("datacontenttype", codec::JSON);
    Some(event.with("data", data.get()))
}

fn event_of(name: &str, spec: &Spec, made: Envelope, time: &CronTime) -> Envelope {
    let mut names = time.occurrence.clone();
    for also in &time.also {
        names = format!("{names},{also}");
    }
    let mut event = made
        .with("id", cron::id(name, &time.occurrence))
        .with_time(time.at);
    if let Some(subject) = &spec.subject {
        event = event.with("subject", subject);
    }
    event.with("cronname", name).with("crondue", names)
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cron")
            .field("name", &self.declared.name)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}
