//! What may be set of a handler so that it, and the services behind it, are not overrun: circuit breakers and rates.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::nearest;
use super::setters::setters;
use super::value::{Given, Refusal, Setting, invalid, one_of, text};
use crate::duration;
use crate::error::{Error, ErrorKind};

/// Most that may start at once, in parts of what may start in a second, or in the rate's own time where that is less:
/// a burst is a tenth of a second's worth, so that no second has much more than its due.
const BURST_PART: Duration = Duration::from_millis(100);

/// `circuit_breaker` of a handler, or `[breakers.payments]` for calls to a service: when it opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct BreakerSettings {
    /// Whether there is one; a handler says `false` that is to have none where `[defaults]` has one.
    pub enabled: bool,
    /// It opens after so many failures in a row; 5. Zero counts none.
    pub failures: u32,
    /// It opens where at least such a part of the calls within `window` failed, of at least `minimum` calls. Zero,
    /// which it is at first, looks at no rate.
    pub failure_rate: f64,
    /// What `failure_rate` looks back upon; 1 min.
    #[serde(serialize_with = "duration::serialize")]
    pub window: Duration,
    /// Fewer calls than this say nothing of a rate; 20.
    pub minimum: u32,
    /// How long it stays open; 1 min.
    #[serde(serialize_with = "duration::serialize")]
    pub open_for: Duration,
    /// So many calls are let through after that, and all have to succeed for it to close; 1.
    pub probes: u32,
    /// Whose failures it counts, and whose probes they are; those of each worker.
    pub scope: BreakerScope,
    /// Which failures of a handler count. What a call within a handler says counts always.
    pub counts: Counts,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            failures: 5,
            failure_rate: 0.0,
            window: Duration::from_secs(60),
            minimum: 20,
            open_for: Duration::from_secs(60),
            probes: 1,
            scope: BreakerScope::default(),
            counts: Counts::default(),
        }
    }
}

/// Whose breaker it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BreakerScope {
    /// `"worker"`: each worker's by itself. One that starts takes over what another of the group has left open.
    #[default]
    Worker,
    /// `"group"`: where it opens at one worker it is open for all of the group, and one of them sends the probes.
    Group,
}

/// Which failures of a handler its circuit breaker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Counts {
    /// `"error"`: an error that means a retry.
    pub error: bool,
    /// `"timeout"`: the handler's time was over.
    pub timeout: bool,
    /// `"panic"`: it panicked.
    pub panic: bool,
    /// `"permanent"`: an error that no retry mends. It most often speaks of one bad event, and not of the service.
    pub permanent: bool,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            error: true,
            timeout: true,
            panic: true,
            permanent: false,
        }
    }
}

setters!(BreakerSettings {
    plain enabled: bool,
    plain failures: u32,
    plain failure_rate: f64,
    plain window: Duration,
    plain minimum: u32,
    plain open_for: Duration,
    plain probes: u32,
    plain scope: BreakerScope,
    plain counts: Counts,
});

setters!(Counts {
    plain error: bool,
    plain timeout: bool,
    plain panic: bool,
    plain permanent: bool,
});

impl Counts {
    pub(super) const NAMES: [&'static str; 4] = ["error", "timeout", "panic", "permanent"];

    pub(super) const NONE: Counts = Counts {
        error: false,
        timeout: false,
        panic: false,
        permanent: false,
    };

    pub(super) fn set(&mut self, name: &str) -> bool {
        let [error, timeout, panic, permanent] = Self::NAMES;
        let kind = match name {
            name if name == error => &mut self.error,
            name if name == timeout => &mut self.timeout,
            name if name == panic => &mut self.panic,
            name if name == permanent => &mut self.permanent,
            _ => return false,
        };
        *kind = true;
        true
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let set = [self.error, self.timeout, self.panic, self.permanent];
        let mut names = to.serialize_seq(None)?;
        for (name, _) in Self::NAMES.iter().zip(set).filter(|(_, set)| *set) {
            names.serialize_element(name)?;
        }
        names.end()
    }
}

/// How often a handler may start: `"100/s"`, `"30/m"`, `"1000/h"`, `"5/10s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Rate {
    /// So many times,
    pub count: u32,
    /// in so long.
    pub per: Duration,
}

impl Rate {
    /// So many times in so long.
    pub const fn new(count: u32, per: Duration) -> Self {
        Rate { count, per }
    }

    /// The time one start takes up.
    pub(crate) fn interval(self) -> Duration {
        (self.per / self.count.max(1)).max(Duration::from_nanos(1))
    }

    /// How many may start at once.
    pub(crate) fn burst(self) -> u32 {
        let burst = BURST_PART.as_nanos() / self.interval().as_nanos();
        u32::try_from(burst).unwrap_or(u32::MAX).max(1)
    }
}

impl Rate {
    const ADVICE: &'static str =
        "write a number and a time, as in \"100/s\", \"30/m\" or \"5/10s\"";

    /// Reads a rate; an error completes a sentence about the text and says what to write.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not a rate; {}", Self::ADVICE);
        let (count, per) = text.split_once('/').ok_or_else(refused)?;
        let count: u32 = count.trim().parse().map_err(|_| refused())?;
        let per = per.trim();
        let per = if per.starts_with(|c: char| c.is_ascii_digit()) {
            duration::parse(per).map_err(|_| refused())?
        } else {
            duration::parse(&format!("1{per}")).map_err(|_| refused())?
        };
        Ok(Rate { count, per })
    }
}

/// As the configuration has it.
impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(|why| Error::new(ErrorKind::Invalid, why))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = duration::format(self.per).to_string();
        write!(f, "{}/{}", self.count, per)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Whose starts a handler's rate counts, and whose runs its concurrency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RateScope {
    /// `"worker"`: each worker's by itself.
    #[default]
    Worker,
    /// `"group"`: those of all workers of the group together, counted in Redis.
    Group,
}

impl Setting for RateScope {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(given, &[("worker", Self::Worker), ("group", Self::Group)])
    }
}

impl Setting for BreakerScope {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(given, &[("worker", Self::Worker), ("group", Self::Group)])
    }
}

impl Setting for Rate {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        Rate::parse(text(given, "a rate in quotes, as in \"100/s\"")?).map_err(invalid)
    }
}

/// A list of kinds of failures.
impl Setting for Counts {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        let mut counts = Counts::NONE;
        for name in Vec::<String>::read(given)? {
            if !counts.set(&name) {
                let known = Counts::NAMES.map(|name| format!("{name:?}")).join(", ");
                let hint = nearest::of(&name, Counts::NAMES)
                    .map(|name| format!("; did you mean {name:?}?"))
                    .unwrap_or_default();
                return Err(invalid(format!(
                    "{name:?} is no kind of failure{hint}; there are {known}"
                )));
            }
        }
        Ok(counts)
    }
}
