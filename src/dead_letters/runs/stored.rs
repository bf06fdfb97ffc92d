//! What a run is to do, as it is kept in Redis.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::super::filter::Filter;
use super::super::letter::DeadLetter;
use super::super::letters::What;
use super::super::of_group::DeadLetters;
use super::plan::RunPlan;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::stream::RunRecord;

/// Letters that a run can be given by their ids; more are meant by filters.
const MOST_IDS: usize = 1000;

/// What a run is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    pub by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    #[serde(flatten)]
    pub plan: RunPlan,
    /// How many letters were meant when it began.
    pub found: u64,
    pub meant: Meant,
}

/// Which letters of its stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Meant {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// The newest letter of when it began.
    pub newest: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl Stored {
    /// As a run's record has it.
    pub fn of(record: &RunRecord) -> Result<Self> {
        serde_json::from_str(&record.what).map_err(|error| {
            let message = format!(
                "what the run r-{} is to do can't be read: {error}; a later release may have begun it",
                record.number
            );
            Error::new(ErrorKind::Redis, message).with_source(error)
        })
    }
}

impl Meant {
    /// The letters of a selection, which are of one stream, and which.
    pub fn of(what: &What) -> Result<(usize, Self)> {
        let invalid = |message: &str| Err(Error::new(ErrorKind::Invalid, message));
        match what {
            What::Picked(at, ids) if ids.len() <= MOST_IDS => {
                let ids = ids.iter().map(EntryId::to_string).collect();
                let meant = Meant {
                    ids: Some(ids),
                    ..Meant::default()
                };
                Ok((*at, meant))
            }
            What::Picked(..) => invalid("a run takes 1000 ids at most: mean more by filters"),
            What::Filtered(filter, bounds) => {
                let [(at, newest)] = bounds[..] else {
                    return invalid(
                        "a run is of one stream, and the letters meant are of several: name the stream, and begin a run \
                         for each",
                    );
                };
                Ok((at, Meant::filtered(filter, newest)))
            }
        }
    }

    fn filtered(filter: &Filter, newest: EntryId) -> Self {
        let ms = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap_or_default().as_millis() as u64
        };
        Meant {
            ids: None,
            newest: newest.to_string(),
            event_type: filter.event_type.clone(),
            reason: filter.reason.map(|reason| reason.to_string()),
            error: filter.error.as_ref().map(|regex| regex.as_str().to_owned()),
            fingerprint: filter.fingerprint.clone(),
            since_ms: filter.since.map(ms),
            until_ms: filter.until.map(ms),
            limit: filter.limit,
        }
    }

    /// The letters meant, of this stream.
    pub fn what(&self, dead: &DeadLetters, at: usize) -> Result<Arc<What>> {
        if let Some(ids) = &self.ids {
            let ids = ids.iter().filter_map(|id| id.parse().ok()).collect();
            return Ok(Arc::new(What::Picked(at, ids)));
        }
        let time = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let mut filter = Filter {
            stream: Some(dead.streams[at].stream.clone()),
            event_type: self.event_type.clone(),
            reason: self.reason.as_deref().map(str::parse).transpose()?,
            fingerprint: self.fingerprint.clone(),
            since: self.since_ms.map(time),
            until: self.until_ms.map(time),
            limit: self.limit,
            ..Filter::new()
        };
        if let Some(regex) = &self.error {
            filter = filter.error(regex)?;
        }
        let newest = self.newest.parse()?;
        Ok(Arc::new(What::Filtered(filter, vec![(at, newest)])))
    }

    /// Whether a letter is meant that stands behind `cursor`, the last one that the run has dealt with.
    pub fn means(&self, letter: &DeadLetter, cursor: Option<EntryId>) -> bool {
        if let Some(ids) = &self.ids {
            return ids.contains(&letter.id.to_string());
        }
        let is = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
        };
        let newest: EntryId = self.newest.parse().unwrap_or(letter.id);
        cursor.is_none_or(|cursor| letter.id > cursor)
            && letter.id <= newest
            && self.since_ms.is_none_or(|ms| letter.id.ms >= ms)
            && self.until_ms.is_none_or(|ms| letter.id.ms <= ms)
            && is(&self.event_type, letter.event_type.as_deref())
            && is(&self.reason, Some(letter.reason.as_str()))
            && is(&self.fingerprint, Some(&letter.fingerprint))
            && self.error.as_ref().is_none_or(|regex| {
                regex::Regex::new(regex).is_ok_and(|regex| regex.is_match(&letter.error))
            })
    }
}
