//! Reading along a public stream without a group: what comes behind a position, and waiting for it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use redis::Value;

use super::connection::{Connector, Link};
use super::error::{Trouble, Who, refusal};
use super::events;
use super::keys::StreamKeys;
use super::line::Line;
use super::reply;
use super::script::script;
use super::topology::Slot;
use crate::error::Result;
use crate::event::{Entry, EntryId};

script!(READ_ALONG, "read_along", behind "common/ids", behind "common/reached");

/// How much is there, in the script's words, where it is not just a part.
const ALL_THERE: i64 = 1;
const NEVER_ADDED_TO: i64 = 2;
const BEHIND_ALL: i64 = 3;

/// How long a wait blocks: a connection that broke unnoticed is found out by then.
const BLOCK: Duration = Duration::from_secs(5);
/// A stream that nothing was ever added to may have been made anew, and where it ends is told by the clock. Once this has
/// passed nothing that was on the one before stands above that: a new one begins a millisecond ahead.
const SETTLING: Duration = Duration::from_millis(3);

/// What comes behind a position.
pub(crate) struct Along {
    /// All entries that there are stand at or below it, and all that will be, above.
    pub end: EntryId,
    /// How many entries have been added to the stream, up to its end.
    pub added: u64,
    /// Whether all entries behind the position are there that ever were. Else there may be more, and none is here.
    pub is_complete: bool,
    /// The position is behind all that was ever there: it was another stream's, or what is there was lost.
    pub is_behind_all: bool,
    /// The highest position that an event was ever given, where that is known.
    pub reached: Option<EntryId>,
    /// The first of them.
    pub entries: Vec<Entry>,
    /// Whether there were fewer of them than were asked for.
    pub is_to_end: bool,
}

/// Connections for waiting, by hash slot; one if it is no cluster.
pub(crate) struct Waiters {
    connector: Connector,
    links: HashMap<Option<Slot>, Link>,
    /// A connection that waits does nothing else until that is over: these are kept.
    waits: FuturesUnordered<BoxFuture<'static, (Option<Slot>, Result<()>)>>,
    is_waiting: HashSet<Option<Slot>>,
}

impl Line {
    /// Reads entries behind a position, up to which `known` had been added, as far as is known.
    pub async fn read_along(
        &self,
        stream: &StreamKeys,
        after: EntryId,
        known: Option<u64>,
        most: usize,
    ) -> Result<Along> {
        let doing = format!("reading along {:?}", stream.stream);
        let first = self.ask_along(&doing, stream, after, known, most).await?;
        let (along, all_there) = first;
        if all_there != NEVER_ADDED_TO {
            return Ok(along);
        }
        tokio::time::sleep(SETTLING).await;
        let again = self.ask_along(&doing, stream, after, known, most).await?;
        Ok(again.0)
    }

    async fn ask_along(
        &self,
        doing: &str,
        stream: &StreamKeys,
        after: EntryId,
        known: Option<u64>,
        most: usize,
    ) -> Result<(Along, i64)> {
        loop {
            let most = self.part(most);
            let mut call = READ_ALONG.key(&stream.stream);
            call.key(&stream.reached);
            call.arg(after.to_string());
            call.arg(known.map_or(String::new(), |known| known.to_string()));
            call.arg(most);
            let answer = self.get(&stream.stream).await?.read(doing, &call).await;
            if let Some(answer) = self.heard(most, answer)? {
                return along(answer, most).ok_or_else(|| Trouble::garbled(doing).into_error());
            }
        }
    }

    /// Where a stream ends.
    pub async fn end_of(&self, stream: &StreamKeys) -> Result<Along> {
        self.read_along(stream, EntryId::default(), None, 0).await
    }

    /// Connections of its own for waiting.
    pub fn waiters(&self) -> Waiters {
        Waiters {
            connector: self.pool().connector().clone(),
            links: HashMap::new(),
            waits: FuturesUnordered::new(),
            is_waiting: HashSet::new(),
        }
    }
}

impl Waiters {
    /// Waits for an entry behind these positions of streams, or for a while. Whoever drops this and calls it again goes on
    /// with the same wait; the positions are those of the first call.
    ///
    /// A read takes streams of one slot: in a cluster each slot is waited for on a connection of its own.
    pub async fn wait(&mut self, streams: Vec<(String, EntryId)>) -> Result<()> {
        self.connector.learn().await?;
        for places in self.connector.by_slot(&streams, |stream| &stream.0) {
            let streams: Vec<_> = places.iter().map(|at| streams[*at].clone()).collect();
            let slot = self.connector.slot_of(&streams[0].0);
            if self.is_waiting.contains(&slot) {
                continue;
            }
            let link = match self.links.get(&slot) {
                Some(link) if !link.is_over() => link.clone(),
                _ => {
                    let connector = self.connector.at(&streams[0].0);
                    let patience = BLOCK + Duration::from_secs(3);
                    let link = connector.connect_to_any("streamhand:subscription", patience);
                    let link = link.await?;
                    self.links.insert(slot, link.clone());
                    link
                }
            };
            self.is_waiting.insert(slot);
            self.waits
                .push(async move { (slot, wait(link, &streams).await) }.boxed());
        }
        let Some((slot, waited)) = self.waits.next().await else {
            return Ok(());
        };
        self.is_waiting.remove(&slot);
        if waited.is_err() {
            self.links.remove(&slot);
        }
        waited
    }
}

async fn wait(mut link: Link, streams: &[(String, EntryId)]) -> Result<()> {
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(1);
    command.arg("BLOCK").arg(BLOCK.as_millis() as u64);
    command.arg("STREAMS");
    for (stream, _) in streams {
        command.arg(stream);
    }
    for (_, after) in streams {
        command.arg(after.to_string());
    }
    let waited: redis::RedisResult<Value> = command.query_async(&mut link.conn).await;
    waited
        .map(|_| ())
        .map_err(|error| refusal(Who::Publisher, "waiting for events", error))
}

/// What the script tells, and how much of it is there, in its words.
fn along(answer: Value, most: usize) -> Option<(Along, i64)> {
    let [end, added, all_there, entries, reached] = reply::tuple(answer)?;
    let all_there = reply::int(&all_there)?;
    let entries = events::entries(entries)?;
    let along = Along {
        end: reply::id(&end)?,
        added: u64::try_from(reply::int(&added)?).ok()?,
        is_complete: all_there == ALL_THERE,
        is_behind_all: all_there == BEHIND_ALL,
        reached: reply::id(&reached),
        is_to_end: entries.len() < most,
        entries,
    };
    Some((along, all_there))
}
