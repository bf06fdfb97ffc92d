//! Events of aggregates: appended with what others are told of them, and read.

use std::collections::HashMap;
use std::sync::Arc;

use redis::Value;

use super::call::Call;
use super::error::Trouble;
use super::keys::StreamKeys;
use super::line::Line;
use super::replicated::{NOT_WRITTEN, Replicas};
use super::reply;
use super::script::script;
#[cfg(feature = "eventstore")]
use crate::conflict::Expected;
use crate::error::Result;
use crate::event::{Entry, EntryId};
use crate::fields::Fields;

script!(
    APPEND_EVENTS,
    "append_events",
    behind "common/ids",
    behind "common/reached",
    behind "common/appending"
);

/// Events for one aggregate, each with its id among its fields.
pub(crate) struct EventsFor<'a> {
    pub key: &'a str,
    pub at: At,
    pub events: Vec<&'a Fields>,
}

/// Where an aggregate is expected to be.
#[derive(Clone, Copy)]
pub(crate) enum At {
    Version(u64),
    /// It has events.
    Exists,
    Any,
}

/// What became of an append; places are those of the aggregates.
pub(crate) enum EventsAppended {
    Done {
        is_new: bool,
        /// Something was written. If not, replicas can't be asked whether they have it.
        is_written: bool,
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

#[cfg(feature = "eventstore")]
impl From<Expected> for At {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Exact(version) => At::Version(version),
            Expected::NoStream => At::Version(0),
            Expected::Exists => At::Exists,
            Expected::Any => At::Any,
        }
    }
}

impl StreamKeys {
    /// The key of an aggregate whose events go to this stream.
    pub fn aggregate(&self, id: &str) -> String {
        format!("{}:{id}", self.prefix)
    }
}

impl Line {
    /// Appends events to aggregates and puts them on `public`, all or none. They are `fresh` where none of them can be
    /// the last one of its aggregate already. Also returns why as many `replicas` as are asked for are not known to have
    /// them, if so.
    pub async fn append_events(
        &self,
        public: &StreamKeys,
        fresh: bool,
        aggregates: &[EventsFor<'_>],
        replicas: Option<Replicas>,
    ) -> Result<(EventsAppended, Option<Arc<str>>)> {
        let first = match aggregates {
            [one] if fresh => one.first(),
            _ => None,
        };
        let room = aggregates.iter().map(EventsFor::room);
        let room = room.fold((3, 2 * public.reached.len() + 20), |all, one| {
            (all.0 + one.0, all.1 + one.1)
        });
        let own = [&public.stream[..], &public.reached[..]].into_iter();
        let keys = own.chain(aggregates.iter().map(|aggregate| aggregate.key));
        let mut call = Call::of(&APPEND_EVENTS, keys, room);
        match first {
            Some(version) => call.arg(version),
            None => call.arg(""),
        };
        for aggregate in aggregates {
            match aggregate.at {
                At::Version(version) => call.arg(version),
                At::Exists => call.arg("exists"),
                At::Any => call.arg("any"),
            };
            call.arg(aggregate.events.len());
            for fields in &aggregate.events {
                call.arg(2 * fields.len());
                for (name, value) in *fields {
                    call.arg(name).arg(value);
                }
            }
        }
        let doing = format!("storing events of {:?}", public.stream);
        let (answer, lacking) = match replicas {
            None => {
                let mut line = self.get(&public.stream).await?;
                (line.call(&doing, &call).await?, None)
            }
            Some(replicas) => {
                let pool = self.pool();
                let asking = pool.call_in_turn(&doing, &public.stream, &call, replicas);
                Box::pin(asking).await?
            }
        };
        let appended =
            appended(answer, first).ok_or_else(|| Trouble::garbled(&doing).into_error())?;
        let lacking = match appended {
            EventsAppended::Done {
                is_written: false, ..
            } => lacking.or_else(|| replicas.map(|_| NOT_WRITTEN.into())),
            EventsAppended::Done { .. } => lacking,
            _ => None,
        };
        Ok((appended, lacking))
    }

    /// The events of an aggregate from a version on, at most so many.
    pub async fn read_events(&self, key: &str, from: u64, most: usize) -> Result<Vec<Entry>> {
        let (mut all, mut from) = (Vec::new(), from);
        loop {
            let asked = self.part(most - all.len());
            let mut command = redis::cmd("XRANGE");
            command.arg(key).arg(format!("{from}-0")).arg("+");
            command.arg("COUNT").arg(asked);
            let entries = self.entries(key, command).await;
            let Some(mut entries) = self.heard(asked, entries)? else {
                continue;
            };
            let is_end = entries.len() < asked;
            all.append(&mut entries);
            if is_end || all.len() == most {
                return Ok(all);
            }
            match all.last().and_then(|entry| entry.id.ms.checked_add(1)) {
                Some(next) => from = next,
                None => return Ok(all),
            }
        }
    }

    /// The version of the last event an aggregate has had, be it there or not.
    pub async fn last_version(&self, key: &str) -> Result<u64> {
        let doing = format!("looking at {key}");
        let mut line = self.get(key).await?;
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
        let mut line = self.get(key).await?;
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

impl EventsFor<'_> {
    /// The version of the first event, if one can be told.
    fn first(&self) -> Option<u64> {
        match self.at {
            At::Version(version) => version.checked_add(1),
            At::Exists | At::Any => None,
        }
    }

    /// How many arguments it takes, and at most how many bytes.
    fn room(&self) -> (usize, usize) {
        let events = self.events.iter();
        events.fold((3, self.key.len() + 24), |all, fields| {
            (all.0 + 1 + 2 * fields.len(), all.1 + 5 + fields.size())
        })
    }
}

/// What the script answered, which was told the version `first` if it could be.
fn appended(answer: Value, first: Option<u64>) -> Option<EventsAppended> {
    if let Value::BulkString(positions) = answer {
        let positions = positions.split(|byte| *byte == b' ').map(EntryId::parse);
        return Some(EventsAppended::Done {
            is_new: true,
            is_written: true,
            aggregates: vec![(first?, positions.collect::<Option<_>>()?)],
        });
    }
    let mut answer = reply::array(answer)?.into_iter();
    let what = reply::text(answer.next()?)?;
    let mut number = || reply::int(&answer.next()?).and_then(|number| u64::try_from(number).ok());
    let place = |number: u64| (number as usize).checked_sub(1);
    match &what[..] {
        "done" => Some({
            let what = number()?;
            EventsAppended::Done {
                is_new: what == 1,
                is_written: what != 2,
                aggregates: answer
                    .map(|one| {
                        let [first, positions] = reply::tuple(one)?;
                        let first = u64::try_from(reply::int(&first)?).ok()?;
                        Some((first, reply::ids(positions)?))
                    })
                    .collect::<Option<_>>()?,
            }
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
