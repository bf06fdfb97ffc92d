//! What is declared of a cron: when, what its events are, and what becomes of occurrences that were missed or overlap.
//! It is kept in Redis as JSON, so that whoever has no declaration of his own can tell what comes next.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::schedule::Schedule;
use super::zone::Zone;

/// An occurrence that is this late or less was not missed: whoever plans it may have been busy.
pub(crate) const GRACE: Duration = Duration::from_secs(60);
/// So late an occurrence may run with `all`, if nothing else is said.
pub(crate) const CATCH_UP_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// What becomes of occurrences that were missed: no worker was there to add them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CatchUp {
    /// `"none"`: they are left out.
    #[default]
    None,
    /// `"last"`: the last of them runs, the others are left out.
    Last,
    /// `"all"`: all of them run, in their order.
    All,
}

/// What becomes of an occurrence while the group still has the event of the one before: waiting, running, or parked for a
/// retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Overlap {
    /// `"allow"`: its event is added all the same.
    #[default]
    Allow,
    /// `"skip"`: it is left out.
    Skip,
    /// `"queue"`: it waits until that is settled.
    Queue,
}

/// All of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub schedule: Vec<String>,
    pub zone: String,
    #[serde(rename = "type")]
    pub event_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// None if a function of the program makes it of each occurrence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    #[serde(default)]
    pub catch_up: CatchUp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<u64>,
    #[serde(default)]
    pub overlap: Overlap,
    #[serde(default)]
    pub jitter_ms: u64,
}

impl Spec {
    /// As it is kept.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What is kept; None if a later release has written what is none to this one.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The schedule, if it can be one.
    pub fn times(&self) -> Result<Schedule, String> {
        let zone = Zone::named(&self.zone)?;
        Schedule::parse(self.schedule.iter().map(String::as_str), zone)
    }

    /// How late a missed occurrence may be to run all the same; None if it is never too late.
    pub fn within(&self) -> Option<Duration> {
        match (self.within_ms, self.catch_up) {
            (Some(ms), _) => Some(Duration::from_millis(ms)),
            (None, CatchUp::All) => Some(CATCH_UP_WITHIN),
            (None, _) => None,
        }
    }

    /// Whether the other one happens at the same times.
    pub fn has_times_of(&self, other: &Spec) -> bool {
        let of = |spec: &Spec| (spec.schedule.clone(), spec.zone.clone(), spec.jitter_ms);
        of(self) == of(other)
    }

    /// How much later than its occurrence an event is due: the same for all workers.
    pub fn jitter_of(&self, name: &str, occurrence: &str) -> u64 {
        if self.jitter_ms == 0 {
            return 0;
        }
        let bytes = name.bytes().chain([0]).chain(occurrence.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The lower bits of that hash depend on the last bytes alone.
        (hash ^ hash >> 32) % self.jitter_ms
    }
}
