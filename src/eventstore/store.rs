//! The contract of an event store, and reading an aggregate page by page.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;

use super::append::{Append, AppendError, Appended};
use super::asking::{Asking, Reads};
use super::events::{Paging, StoredEvent};
use super::snapshot::Snapshot;
use crate::aggregate_id::AggregateId;
use crate::conflict::Expected;
use crate::error::Result;
use crate::event::Envelope;

/// Keeps the events of aggregates. Whoever keeps them, the contract is the same.
pub trait EventStore: Send + Sync {
    /// Appends events to several aggregates and puts them on the public stream, all or none. The aggregates must share
    /// a partition. Answers what became of each, in their order.
    ///
    /// # Errors
    /// Where nothing was stored: an aggregate is not at the version expected, some of the events are stored already and
    /// others not, or an event can't be stored. Where it is not known, as Redis can't be reached: the same append can
    /// be repeated, and says what the first one would have.
    fn append_all(
        &self,
        appends: Vec<Append>,
    ) -> impl Future<Output = Result<Vec<Appended>, AppendError>> + Send;

    /// Appends events to an aggregate and puts them on the public stream, all or none.
    ///
    /// Events that are to be known again when this is repeated have an `id`; one without gets its own every time.
    ///
    /// # Errors
    /// As [`append_all`](Self::append_all).
    fn append(
        &self,
        aggregate: &AggregateId,
        events: Vec<Envelope>,
        expected: Expected,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send {
        let append = Append::new(aggregate.clone(), events, expected);
        async {
            let mut appended = self.append_all(vec![append]).await?;
            Ok(appended.pop().expect("one was asked for"))
        }
    }

    /// The events of an aggregate from a version on, oldest first, at most `most`.
    ///
    /// # Errors
    /// Where the store can't be read.
    fn page(
        &self,
        aggregate: &AggregateId,
        from: u64,
        most: usize,
    ) -> impl Future<Output = Result<Vec<StoredEvent>>> + Send;

    /// The version of an aggregate, that of its last event; 0 where it has none.
    ///
    /// # Errors
    /// Where the store can't be read.
    fn version(&self, aggregate: &AggregateId) -> impl Future<Output = Result<u64>> + Send;

    /// The snapshot of an aggregate, whatever its schema; None where there is none. Whether its event is (still) the
    /// aggregate's is for the caller to see. A store that keeps none is a store all the same.
    ///
    /// # Errors
    /// Where the store can't be read.
    fn snapshot(
        &self,
        aggregate: &AggregateId,
    ) -> impl Future<Output = Result<Option<Snapshot>>> + Send {
        let _ = aggregate;
        async { Ok(None) }
    }

    /// Keeps a snapshot of an aggregate in place of the one there is. Answers whether it did: not where its event is
    /// none of the aggregate's, and not where the one there is has the same schema, a higher version, and an event
    /// that is there.
    ///
    /// # Errors
    /// Where it can't be kept.
    fn keep_snapshot(
        &self,
        aggregate: &AggregateId,
        snapshot: Snapshot,
    ) -> impl Future<Output = Result<bool>> + Send {
        let _ = (aggregate, snapshot);
        async { Ok(false) }
    }

    /// Reads the events of an aggregate from a version on, page by page: however many there are, few are in memory.
    fn read(&self, aggregate: &AggregateId, from: u64) -> Events<'_, Self>
    where
        Self: Sized,
    {
        Events::new(self, aggregate.clone(), from)
    }
}

/// An aggregate's events, oldest first: a `Stream`, and [`next`](Self::next) for who has no use for one. A page at a time
/// is in memory.
#[must_use = "it reads nothing before it is asked"]
pub struct Events<'a, S: EventStore> {
    aggregate: AggregateId,
    asking: Asking<'a, PageByPage<'a, S>>,
}

struct PageByPage<'a, S> {
    store: &'a S,
    aggregate: AggregateId,
    page: VecDeque<StoredEvent>,
    paging: Paging,
}

impl<S: EventStore> fmt::Debug for Events<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("aggregate", &self.aggregate)
            .finish_non_exhaustive()
    }
}

impl<'a, S: EventStore> Events<'a, S> {
    pub(super) fn new(store: &'a S, aggregate: AggregateId, from: u64) -> Self {
        Events {
            aggregate: aggregate.clone(),
            asking: Asking::of(PageByPage {
                store,
                aggregate,
                page: VecDeque::new(),
                paging: Paging::new(from),
            }),
        }
    }

    /// The next event, None behind the last one. It can be dropped before it has ended; nothing is passed over.
    ///
    /// # Errors
    /// If the store can't be read, or an event is missing or unreadable: what would be made of the others is not the
    /// aggregate.
    pub async fn next(&mut self) -> Result<Option<StoredEvent>> {
        self.asking.next().await
    }
}

impl<S: EventStore> Stream for Events<'_, S> {
    type Item = Result<StoredEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().asking.poll_next(cx)
    }
}

impl<S: EventStore> Reads for PageByPage<'_, S> {
    type Item = StoredEvent;

    fn here(&mut self) -> Option<StoredEvent> {
        self.page.pop_front()
    }

    async fn read(&mut self) -> Result<Option<StoredEvent>> {
        while self.page.is_empty()
            && let Some((next, most)) = self.paging.ask()
        {
            let mut page = self.store.page(&self.aggregate, next, most).await?;
            self.paging.take(&self.aggregate, &mut page)?;
            self.page = page.into();
        }
        Ok(self.page.pop_front())
    }
}
