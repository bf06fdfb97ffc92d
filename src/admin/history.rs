//! The events of an aggregate, one after the other, as they are stored and as JSON.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::data::{self, on_one_line};
use super::list::List;
use crate::error::Result;
use crate::eventstore::{AggregateId, EventStore, Paging, RedisEventStore, StoredEvent};
use crate::pages::Source;
use crate::rfc3339;

/// The events of an aggregate, by [`Aggregates::history`](super::Aggregates::history).
#[derive(Debug)]
#[non_exhaustive]
pub struct History {
    /// The version it is at.
    pub version: u64,
    /// The events.
    pub events: List<HistoryEvent>,
}

/// An event of an aggregate. Serialized, it is what `aggregate history --json` prints.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HistoryEvent {
    /// The event as it is stored, with its version and its position.
    pub stored: StoredEvent,
    /// Its data as JSON on one line; None where it is not what it says it is.
    pub data: Option<Box<RawValue>>,
}

/// Where the next page begins.
pub(super) struct Reading {
    store: RedisEventStore,
    aggregate: AggregateId,
    paging: Paging,
}

impl Reading {
    pub fn new(store: RedisEventStore, aggregate: AggregateId, from: u64) -> Self {
        Reading {
            store,
            aggregate,
            paging: Paging::new(from),
        }
    }
}

impl Source for Reading {
    type Item = HistoryEvent;

    async fn page(&mut self) -> Result<Option<Vec<HistoryEvent>>> {
        let Some((next, most)) = self.paging.ask() else {
            return Ok(None);
        };
        let mut page = self.store.page(&self.aggregate, next, most).await?;
        self.paging.take(&self.aggregate, &mut page)?;
        Ok(Some(page.into_iter().map(HistoryEvent::of).collect()))
    }
}

impl HistoryEvent {
    fn of(stored: StoredEvent) -> Self {
        let event = &stored.envelope;
        let json = match event.data().is_empty() {
            true => Some("null".to_owned()),
            false => {
                let json = data::json(event.content_type(), event.data());
                json.map(|(_, json)| on_one_line(&json))
            }
        };
        HistoryEvent {
            data: json.and_then(|json| RawValue::from_string(json).ok()),
            stored,
        }
    }
}

#[derive(Serialize)]
struct AsJson<'a> {
    version: u64,
    time: String,
    #[serde(rename = "type")]
    event_type: &'a str,
    schemaversion: u32,
    id: &'a str,
    position: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    /// None where it can't be read: then it is there undecoded.
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_hex: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: BTreeMap<String, String>,
}

impl Serialize for HistoryEvent {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let event = &self.stored.envelope;
        let hex = || {
            event
                .data()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        };
        let own = ["position", "subject"];
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let extensions = event
            .extensions()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| !own.contains(&&name[..]));
        let json = AsJson {
            version: self.stored.version,
            time: rfc3339::millis(event.time()),
            event_type: event.event_type(),
            schemaversion: event.version(),
            id: &event.id(),
            position: self.stored.position.to_string(),
            source: event.source(),
            data: self.data.as_deref(),
            data_hex: self.data.is_none().then(hex),
            extensions: extensions.collect(),
        };
        json.serialize(to)
    }
}
