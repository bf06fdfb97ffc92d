//! The history of a category: the events of all aggregates of some kinds in one partition, in the order of their
//! positions on the public stream, read from the aggregates themselves. What became of the public stream meanwhile
//! does not matter.
//!
//! First all aggregates are looked at, and of each is noted where its events behind the position begin. An aggregate is
//! opened when its turn comes, that is, some of its events are read; those whose turn is next come in the same request.
//! However many aggregates there are, few events are in memory: where they get too many, those that are furthest from
//! their turn are given up, and read again when it comes.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;

use super::asking::{Asking, Reads};
use super::events::StoredEvent;
use super::redis::{RedisEventStore, clobbered};
use crate::aggregate_id::{AggregateId, is_kind};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Entry, EntryId};
use crate::stream::{Found, PageOf, Scan};

/// Events and bytes that are in memory, beside those that the last request brought.
const EVENTS: usize = 8192;
const BYTES: usize = 8 << 20;

/// Most events of one aggregate that are read at once.
const MOST: usize = 512;

/// Aggregates that are opened in one request.
const TOGETHER: usize = 32;

/// Aggregates that are looked at in one step, in which Redis does nothing else.
const LOOKED_AT: usize = 64;

/// What an event is thought to have before any has come, in bytes.
const USUAL: usize = 4 << 10;

/// An event of a category.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CategoryEvent {
    /// The aggregate it is an event of.
    pub aggregate: AggregateId,
    /// Its version, its position on the public stream, and the event, as the aggregate has it.
    pub stored: StoredEvent,
}

/// The events of a category, read from its aggregates, in the order of their positions:
/// [`RedisEventStore::history`]. A `Stream`, and [`next`](Self::next) for who has no use for one.
#[must_use = "it reads nothing before it is asked"]
pub struct History {
    store: RedisEventStore,
    partition: usize,
    kinds: Vec<String>,
    after: EntryId,
    up_to: Option<EntryId>,
    asking: Asking<'static, InTurn>,
}

/// Merges the aggregates' events.
pub(super) struct InTurn {
    store: RedisEventStore,
    partition: usize,
    kinds: Vec<String>,
    after: EntryId,
    up_to: Option<EntryId>,
    scan: Scan,
    /// Keys that were found and not looked at yet.
    found: Vec<String>,
    /// Events there are, those behind the end among them.
    total: u64,
    /// By the position of the next event, or of the last one read where that is not known.
    closed: BTreeMap<Turn, u64>,
    /// With whether there may be more than these.
    open: BTreeMap<Turn, (VecDeque<StoredEvent>, bool)>,
    in_memory: usize,
    bytes: usize,
    /// Bytes of an event, as they were of late.
    usual: usize,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("kinds", &self.kinds)
            .field("partition", &self.partition)
            .field("after", &self.after)
            .field("up_to", &self.up_to)
            .finish_non_exhaustive()
    }
}

/// When an aggregate's turn is. An aggregate that SCAN brings twice has the same one.
type Turn = (EntryId, AggregateId);

/// The aggregates of a kind, in no order: [`RedisEventStore::aggregates`]. A `Stream`, and [`next`](Self::next) for who
/// has no use for one.
#[must_use = "it reads nothing before it is asked"]
pub struct Aggregates {
    kind: String,
    asking: Asking<'static, Scanning>,
}

struct Scanning {
    store: RedisEventStore,
    kind: String,
    partition: usize,
    scan: Scan,
    seen: HashSet<AggregateId>,
    page: Vec<AggregateId>,
}

impl fmt::Debug for Aggregates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregates")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl RedisEventStore {
    /// The events of all aggregates of these kinds in one partition (0 where there is one only), from the first one
    /// to what is there when it is first asked, in the order of their positions on the public stream. They are read
    /// from the aggregates: it does not matter what the public stream still has.
    ///
    /// # Errors
    /// Where a kind is not one, or there is no such partition.
    pub fn history(&self, kinds: &[&str], partition: usize) -> Result<History> {
        self.public().partition_keys(partition)?;
        kinds.iter().try_for_each(|kind| check(kind))?;
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        Ok(History::new(
            self.clone(),
            partition,
            kinds,
            EntryId::default(),
            None,
        ))
    }

    /// All aggregates of a kind, in all partitions.
    ///
    /// # Errors
    /// Where the kind is not one.
    pub fn aggregates(&self, kind: &str) -> Result<Aggregates> {
        check(kind)?;
        let kind = kind.to_owned();
        Ok(Aggregates {
            kind: kind.clone(),
            asking: Asking::of(Scanning {
                store: self.clone(),
                kind,
                partition: 0,
                scan: Scan::default(),
                seen: HashSet::new(),
                page: Vec::new(),
            }),
        })
    }
}

impl History {
    fn new(
        store: RedisEventStore,
        partition: usize,
        kinds: Vec<String>,
        after: EntryId,
        up_to: Option<EntryId>,
    ) -> Self {
        let reader = InTurn::new(store.clone(), partition, kinds.clone(), after, up_to);
        History {
            store,
            partition,
            kinds,
            after,
            up_to,
            asking: Asking::of(reader),
        }
    }

    /// The same from the start on, of events behind this position alone.
    pub fn after(self, position: EntryId) -> Self {
        History::new(self.store, self.partition, self.kinds, position, self.up_to)
    }

    /// The same from the start on, of events up to this position and with it. Nothing may be published at or below it any
    /// more: it is, or was, the position of an event or [`end`](Self::end).
    pub fn up_to(self, position: EntryId) -> Self {
        History::new(
            self.store,
            self.partition,
            self.kinds,
            self.after,
            Some(position),
        )
    }

    /// The position that this leads up to. Every event published later has one behind it.
    ///
    /// # Errors
    /// If Redis can't be read.
    pub async fn end(&mut self) -> Result<EntryId> {
        self.asking.idle().await.end().await
    }

    /// About how many events there are: all that the aggregates have behind the position, some of which may have come
    /// since, behind the end.
    ///
    /// # Errors
    /// If Redis can't be read.
    pub async fn total(&mut self) -> Result<u64> {
        let reader = self.asking.idle().await;
        reader.look().await?;
        Ok(reader.total)
    }

    /// The next event, None behind the last one. It can be dropped before it has ended; nothing is passed over.
    ///
    /// # Errors
    /// If Redis can't be read: then this can be called again, and goes on. If an aggregate lacks an event or has one that
    /// can't be read, and its turn has come, or if a key that is an aggregate's holds something else: then nothing more
    /// comes.
    pub async fn next(&mut self) -> Result<Option<CategoryEvent>> {
        self.asking.next().await
    }
}

impl Stream for History {
    type Item = Result<CategoryEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().asking.poll_next(cx)
    }
}

impl Reads for InTurn {
    type Item = CategoryEvent;

    fn here(&mut self) -> Option<CategoryEvent> {
        let looked = self.up_to.is_some() && self.found.is_empty() && self.scan.is_done;
        match (self.open.first_key_value(), self.closed.first_key_value()) {
            _ if !looked => None,
            (Some((open, _)), Some((closed, _))) if closed < open => None,
            (Some(_), _) => self.take(),
            _ => None,
        }
    }

    async fn read(&mut self) -> Result<Option<CategoryEvent>> {
        self.next().await
    }
}

impl InTurn {
    pub fn new(
        store: RedisEventStore,
        partition: usize,
        kinds: Vec<String>,
        after: EntryId,
        up_to: Option<EntryId>,
    ) -> Self {
        InTurn {
            store,
            partition,
            kinds,
            after,
            up_to,
            scan: Scan::default(),
            found: Vec::new(),
            total: 0,
            closed: BTreeMap::new(),
            open: BTreeMap::new(),
            in_memory: 0,
            bytes: 0,
            usual: USUAL,
        }
    }

    async fn end(&mut self) -> Result<EntryId> {
        if let Some(end) = self.up_to {
            return Ok(end);
        }
        // Before the first aggregate is looked for: each that has an event up to there is found.
        let public = self.store.public().partition_keys(self.partition)?;
        let end = self.store.line.end_of(public).await?.end;
        self.up_to = Some(end);
        Ok(end)
    }

    pub async fn next(&mut self) -> Result<Option<CategoryEvent>> {
        self.look().await?;
        loop {
            match (self.open.first_key_value(), self.closed.first_key_value()) {
                (Some((open, _)), Some((closed, _))) if closed < open => self.open_some().await?,
                (Some(_), _) => return Ok(self.take()),
                (None, Some(_)) => self.open_some().await?,
                (None, None) => return Ok(None),
            }
        }
    }

    /// Finds all aggregates, and where their events begin.
    async fn look(&mut self) -> Result<()> {
        let end = self.end().await?;
        loop {
            while !self.found.is_empty() {
                let keys = &self.found[..self.found.len().min(LOOKED_AT)];
                let firsts = self.store.line.first_events(keys, self.after).await?;
                for (key, first) in keys.iter().zip(&firsts) {
                    let id = self.store.public().aggregate_at(self.partition, key);
                    if let (Some(id), Found::Other(held)) = (&id, first) {
                        return Err(Error::new(ErrorKind::NotFound, clobbered(id, key, held)));
                    }
                    if let (Some(id), Found::Events(first)) = (id, first)
                        && first.position <= end
                        && self
                            .closed
                            .insert((first.position, id), first.version)
                            .is_none()
                    {
                        self.total += (first.last + 1).saturating_sub(first.version);
                    }
                }
                let looked_at = keys.len();
                self.found.drain(..looked_at);
            }
            if self.scan.is_done {
                return Ok(());
            }
            let public = self.store.public().partition_keys(self.partition)?;
            let prefix = public.aggregate(in_common(&self.kinds));
            let mut found = self.store.line.scan(&prefix, &mut self.scan).await?;
            found.retain(|key| {
                let id = self.store.public().aggregate_at(self.partition, key);
                id.is_some_and(|id| self.kinds.iter().any(|kind| kind == id.kind()))
            });
            self.found = found;
        }
    }

    /// Reads events of the aggregates whose turn is next.
    async fn open_some(&mut self) -> Result<()> {
        let end = self.end().await?;
        let turns: Vec<(Turn, u64)> = self
            .closed
            .iter()
            .take(TOGETHER)
            .map(|(turn, version)| (turn.clone(), *version))
            .collect();
        // With two of each there is one to go on with, and the turn of the next one is known.
        let share = self.open.len() + turns.len();
        let most = (EVENTS / share)
            .min(BYTES / self.usual / share)
            .clamp(2, MOST);
        let keys: Vec<String> = turns
            .iter()
            .map(|((_, id), _)| self.store.public().key(id))
            .collect();
        let pages: Vec<PageOf<'_>> = turns
            .iter()
            .zip(&keys)
            .map(|((_, from), key)| PageOf {
                key,
                from: *from,
                most,
            })
            .collect();
        let pages = self.store.line.pages(&pages).await?;
        // From here on nothing is waited for: what was read is not lost, whoever drops this.
        for (place, ((turn, from), entries)) in turns.into_iter().zip(pages).enumerate() {
            let page = Page::read(&turn, from, entries, most, end);
            if let Some(error) = page.wrong
                && page.events.is_empty()
            {
                // Those that are behind the first one have to wait for their turn.
                match place {
                    0 => return Err(error),
                    _ => continue,
                }
            }
            self.closed.remove(&turn);
            let bytes = page.events.iter().map(StoredEvent::size).sum::<usize>();
            if let Some(first) = page.events.front() {
                self.usual = (bytes / page.events.len()).max(1);
                self.bytes += bytes;
                self.in_memory += page.events.len();
                let turn = (first.position, turn.1);
                self.open.insert(turn, (page.events, page.goes_on));
            }
        }
        while (self.in_memory > EVENTS || self.bytes > BYTES) && self.open.len() > 1 {
            let (turn, (events, _)) = self.open.pop_last().expect("there are some");
            self.in_memory -= events.len();
            self.bytes -= events.iter().map(StoredEvent::size).sum::<usize>();
            self.closed.insert(turn, events[0].version);
        }
        Ok(())
    }

    /// The event whose turn it is, of an aggregate that is open.
    fn take(&mut self) -> Option<CategoryEvent> {
        let ((_, aggregate), (mut events, goes_on)) = self.open.pop_first()?;
        let stored = events.pop_front()?;
        self.in_memory -= 1;
        self.bytes -= stored.size();
        if let Some(next) = events.front() {
            let turn = (next.position, aggregate.clone());
            self.open.insert(turn, (events, goes_on));
        } else if goes_on {
            let turn = (stored.position, aggregate.clone());
            self.closed.insert(turn, stored.version + 1);
        }
        Some(CategoryEvent { aggregate, stored })
    }
}

/// Some events of an aggregate.
struct Page {
    events: VecDeque<StoredEvent>,
    /// Whether there may be more up to the end.
    goes_on: bool,
    /// What is wrong with the event behind them.
    wrong: Option<Error>,
}

impl Page {
    fn read(turn: &Turn, from: u64, entries: Vec<Entry>, most: usize, end: EntryId) -> Self {
        let mut page = Page {
            events: VecDeque::with_capacity(entries.len()),
            goes_on: entries.len() == most,
            wrong: None,
        };
        let (mut version, mut last) = (from, turn.0);
        for entry in entries {
            match StoredEvent::decode(&turn.1, entry) {
                Ok(event)
                    if event.version == version
                        && event.position >= last
                        && last > EntryId::default() =>
                {
                    if event.position > end {
                        page.goes_on = false;
                        break;
                    }
                    version += 1;
                    last = event.position;
                    page.events.push_back(event);
                }
                other => {
                    // Read again when its turn comes, which is behind those that are right.
                    page.wrong = Some(other.err().unwrap_or_else(|| lacks(&turn.1, version)));
                    page.goes_on = true;
                    break;
                }
            }
        }
        page
    }
}

impl Aggregates {
    /// The next one, None behind the last. Those that are made meanwhile may be among them; and those whose key holds
    /// something else, which only reading them tells.
    ///
    /// # Errors
    /// If Redis can't be read; this can be called again, and goes on.
    pub async fn next(&mut self) -> Result<Option<AggregateId>> {
        self.asking.next().await
    }
}

impl Stream for Aggregates {
    type Item = Result<AggregateId>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().asking.poll_next(cx)
    }
}

impl Reads for Scanning {
    type Item = AggregateId;

    fn here(&mut self) -> Option<AggregateId> {
        self.page.pop()
    }

    async fn read(&mut self) -> Result<Option<AggregateId>> {
        let public = self.store.public().clone();
        loop {
            if let Some(id) = self.page.pop() {
                return Ok(Some(id));
            }
            if self.scan.is_done {
                self.partition += 1;
                self.scan = Scan::default();
                self.seen.clear();
            }
            let Ok(keys) = public.partition_keys(self.partition) else {
                return Ok(None);
            };
            let prefix = keys.aggregate(&format!("{}:", self.kind));
            let found = self.store.line.scan(&prefix, &mut self.scan).await?;
            let ids = found
                .iter()
                .filter_map(|key| public.aggregate_at(self.partition, key));
            self.page = ids.filter(|id| self.seen.insert(id.clone())).collect();
        }
    }
}

/// What the names of all of these kinds begin with: SCAN need not tell of other keys.
fn in_common(kinds: &[String]) -> &str {
    let Some(first) = kinds.first() else {
        return "";
    };
    let shared = |other: &String| {
        let pairs = first.bytes().zip(other.bytes());
        pairs.take_while(|(a, b)| a == b).count()
    };
    // Kinds are ASCII.
    &first[..kinds.iter().map(shared).min().unwrap_or(0)]
}

fn lacks(aggregate: &AggregateId, version: u64) -> Error {
    let message = format!("{aggregate} lacks its event {version}, or is no aggregate");
    Error::new(ErrorKind::NotFound, message)
}

pub(super) fn check(kind: &str) -> Result<()> {
    match is_kind(kind) {
        true => Ok(()),
        false => {
            let message = format!("{kind:?} is no kind of aggregates: it is a word such as order");
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}
