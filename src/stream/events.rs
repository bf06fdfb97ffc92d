//! Events of aggregates: appended with what others are told of them, and read.

use std::collections::HashMap;

use redis::Value;

use super::connection::Trouble;
use super::keys::StreamKeys;
use super::line::Line;
use super::reply;
use super::settle::script;
use crate::error::Result;
use crate::event::{Entry, EntryId};
use crate::fields::Fields;

script!(APPEND_EVENTS, "append_events");

/// Events for one aggregate.
pub(crate) struct EventsFor<'a> {
    pub key: &'a str,
    /// A version, or exists, or any.
    pub expected: String,
    /// Each with the event's id.
    pub events: Vec<(&'a str, &'a Fields)>,
}

/// What became of an append; places are those of the aggregates.
pub(crate) enum EventsAppended {
    Done {
        is_new: bool,
        /// Of each aggregate: the first event's version, and where each event stands on the public stream.
        aggregates: Vec<(u64, Vec<EntryId>)>,
    },
    Conflict {
        place: usize,
        actual: u64,
    },
    Overlap {
        place: usize,
        actual: u64,
    },
    /// The key does not begin with an aggregate's first event.
    Strange {
        place: usize,
    },
}

impl StreamKeys {
    /// The key of an aggregate whose events go to this stream.
    pub fn aggregate(&self, id: &str) -> String {
        format!("{}:{id}", self.prefix)
    }
}

impl Line {
    /// Appends events to aggregates and puts them on `public`, all or none. They are `fresh` where none of them can be
    /// the last one of its aggregate already.
    pub async fn append_events(
        &self,
        public: &str,
        fresh: bool,
        aggregates: &[EventsFor<'_>],
    ) -> Result<EventsAppended> {
        let doing = format!("storing events of {public:?}");
        let mut line = self.get().await?;
        let mut call = APPEND_EVENTS.key(public);
        call.arg(i32::from(fresh));
        for aggregate in aggregates {
            call.key(aggregate.key);
            call.arg(&aggregate.expected).arg(aggregate.events.len());
            for (id, fields) in &aggregate.events {
                call.arg(id).arg(2 * fields.len());
                for (name, value) in *fields {
                    call.arg(name).arg(value);
                }
            }
        }
        let answer = line.invoke(&doing, &call).await?;
        appended(answer, aggregates).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// The events of an aggregate from a version on, at most so many.
    pub async fn read_events(&self, key: &str, from: u64, most: usize) -> Result<Vec<Entry>> {
        let mut command = redis::cmd("XRANGE");
        command.arg(key).arg(format!("{from}-0")).arg("+");
        command.arg("COUNT").arg(most);
        self.entries(key, command).await
    }

    /// The version of the last event an aggregate has had, be it there or not.
    pub async fn last_version(&self, key: &str) -> Result<u64> {
        let doing = format!("looking at {key}");
        let mut line = self.get().await?;
        let mut command = redis::cmd("XINFO");
        command.arg(&["STREAM", key]);
        let answer: HashMap<String, Value> = match command.query_async(&mut line.conn).await {
            Ok(answer) => answer,
            Err(error)
                if error
                    .detail()
                    .is_some_and(|why| why.contains("no such key")) =>
            {
                return Ok(0);
            }
            Err(error) => return Err(line.failed(&doing, error).await),
        };
        let last = answer.get("last-generated-id").and_then(reply::id);
        last.map(|last| last.ms)
            .ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// The last event of an aggregate.
    pub async fn last_event(&self, key: &str) -> Result<Option<Entry>> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&[key, "+", "-", "COUNT", "1"]);
        Ok(self.entries(key, command).await?.pop())
    }

    async fn entries(&self, key: &str, command: redis::Cmd) -> Result<Vec<Entry>> {
        let doing = format!("reading the events in {key}");
        let mut line = self.get().await?;
        let answer: Value = line.query(&doing, &command).await?;
        entries(answer).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }
}

/// What XRANGE answers.
pub(super) fn entries(answer: Value) -> Option<Vec<Entry>> {
    reply::array(answer)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Option<Entry> {
    let [id, fields] = reply::tuple(value)?;
    Some(Entry {
        id: reply::id(&id)?,
        fields: reply::fields(fields)?,
    })
}

fn appended(answer: Value, aggregates: &[EventsFor<'_>]) -> Option<EventsAppended> {
    if let Value::BulkString(positions) = answer {
        // One aggregate that was at the version expected.
        let first = aggregates.first()?.expected.parse::<u64>().ok()? + 1;
        let positions = positions.split(|byte| *byte == b' ').map(EntryId::parse);
        return Some(EventsAppended::Done {
            is_new: true,
            aggregates: vec![(first, positions.collect::<Option<_>>()?)],
        });
    }
    let mut answer = reply::array(answer)?.into_iter();
    let what = reply::text(answer.next()?)?;
    let mut number = || reply::int(&answer.next()?).and_then(|number| u64::try_from(number).ok());
    let place = |number: u64| (number as usize).checked_sub(1);
    match &what[..] {
        "done" => Some(EventsAppended::Done {
            is_new: number()? == 1,
            aggregates: answer
                .map(|one| {
                    let [first, positions] = reply::tuple(one)?;
                    let first = u64::try_from(reply::int(&first)?).ok()?;
                    Some((first, reply::ids(positions)?))
                })
                .collect::<Option<_>>()?,
        }),
        "conflict" => Some(EventsAppended::Conflict {
            place: place(number()?)?,
            actual: number()?,
        }),
        "overlap" => Some(EventsAppended::Overlap {
            place: place(number()?)?,
            actual: number()?,
        }),
        "strange" => Some(EventsAppended::Strange {
            place: place(number()?)?,
        }),
        _ => None,
    }
}
