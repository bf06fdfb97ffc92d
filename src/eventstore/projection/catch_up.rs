//! What is to be read from the aggregates, as it was on the public stream, which may have it no more.

use std::collections::VecDeque;

use super::super::batch::{POSITION, VERSION};
use super::super::category::{CategoryEvent, History};
use super::super::public::PublicStreams;
use super::super::redis::RedisEventStore;
use super::Registered;
use crate::error::Result;
use crate::event::{Entry, EntryId};
use crate::fields::Fields;
use crate::stream::{Pool, Standing};

/// Most events that are read at once, and bytes of them.
const MOST: usize = 500;
const MOST_BYTES: usize = 1 << 20;

/// The events of one partition's aggregates behind a position, up to where the public stream stood.
pub(super) struct CatchUp {
    history: History,
    /// Where it stood when this was begun: it is read on from there.
    pub until: Standing,
    /// Read, and not known to be in the view.
    entries: VecDeque<Entry>,
    is_whole: bool,
}

impl CatchUp {
    /// The events behind a position that a projection takes.
    ///
    /// # Errors
    /// If its kinds or its streams are none.
    pub fn new(
        pool: &Pool,
        public: &PublicStreams,
        projection: &Registered,
        partition: usize,
        after: EntryId,
        until: Standing,
    ) -> Result<Self> {
        let store = RedisEventStore::with_pool(pool.clone(), public.clone());
        let history = store.history(projection.kinds, partition)?;
        Ok(CatchUp {
            history: history.after(after).up_to(until.last),
            until,
            entries: VecDeque::new(),
            is_whole: false,
        })
    }

    /// Reads some, if there are none. It can be dropped before it has ended.
    pub async fn fill(&mut self) -> Result<()> {
        if !self.entries.is_empty() || self.is_whole {
            return Ok(());
        }
        let mut bytes = 0;
        while self.entries.len() < MOST && bytes < MOST_BYTES {
            let Some(event) = self.history.next().await? else {
                self.is_whole = true;
                break;
            };
            let entry = as_published(event);
            bytes += entry.size();
            self.entries.push_back(entry);
        }
        Ok(())
    }

    /// What was read and is not in the view.
    pub fn entries(&mut self) -> &[Entry] {
        self.entries.make_contiguous()
    }

    /// Everything up to a position is in the view.
    pub fn pass(&mut self, position: EntryId) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.id <= position)
        {
            self.entries.pop_front();
        }
    }

    /// Whether there is nothing more.
    pub fn is_over(&self) -> bool {
        self.is_whole && self.entries.is_empty()
    }
}

/// The event as it was on the public stream: a view must not come to depend on where it was read.
fn as_published(event: CategoryEvent) -> Entry {
    let stored = event.stored;
    let version = stored.version.to_string();
    let own = [(VERSION.as_bytes(), version.as_bytes())];
    // The store has put the position in front of what the publisher gave.
    let others = stored.envelope.fields().iter();
    let others = others.skip_while(|(name, _)| *name == POSITION.as_bytes());
    Entry {
        id: stored.position,
        fields: own.into_iter().chain(others).collect::<Fields>(),
    }
}
