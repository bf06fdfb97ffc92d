//! Looks which types come next where all slots are taken by handlers that take long. Without it nothing would be read while
//! no slot is free, and what stands behind a long row of one type would never come into sight: see
//! [`crate::worker::run::sharing`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::event::EntryId;
use crate::stream::{Link, Trouble};
use crate::worker::run::routes::Routes;
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::source::{Source, Sources};

/// Between two looks: of streams of which more is to be looked at, and if all was; and so many times as long as the last
/// one took.
const REST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));
const TIMES: u32 = 20;
/// Most streams that are looked at in a row.
const STREAMS: usize = 4;

/// Looks at what comes next.
pub(crate) struct OthersInSight {
    sources: Arc<Sources>,
    routes: Arc<Routes>,
    /// Of each stream, how far its group had read, and up to where its entries are known.
    known: HashMap<String, (EntryId, EntryId)>,
    /// Whose turn it is.
    turn: usize,
    next: Instant,
    refusals: Refusals,
}

impl OthersInSight {
    pub fn new(sources: Arc<Sources>, routes: Arc<Routes>) -> Self {
        OthersInSight {
            sources,
            routes,
            known: HashMap::new(),
            turn: 0,
            next: Instant::now(),
            refusals: Refusals::default(),
        }
    }

    /// Finds out whether entries of all these streams can be parked, as those do that are over their share.
    pub async fn prove(&mut self, link: &Link) -> Result<(), Trouble> {
        let sources = self.sources.fetched();
        let asks = sources.iter().map(|source| {
            let mut link = link.clone();
            async move {
                let group = &source.surroundings.group;
                link.can_park(&source.keys, group).await
            }
        });
        let mut can_be_parked = true;
        for answer in join_all(asks).await {
            match answer {
                Ok(()) => {}
                Err(trouble) if trouble.is_a_refusal() => can_be_parked = false,
                Err(trouble) => return Err(trouble),
            }
        }
        self.routes.sharing.proved(can_be_parked, Instant::now());
        Ok(())
    }

    /// Looks, if slots are scarce and it is time to.
    pub async fn look(&mut self, link: &Link) -> Result<(), Trouble> {
        if !self.routes.sharing.is_scarce() || Instant::now() < self.next {
            return Ok(());
        }
        let sources = self.sources.fetched();
        let (since, mut more) = (Instant::now(), false);
        for _ in 0..sources.len().min(STREAMS) {
            self.turn = (self.turn + 1) % sources.len();
            let source = &sources[self.turn];
            if source.is_read() && !source.pauses.stream() {
                more |= self.look_at(source, link).await?;
            }
        }
        let rest = if more { REST.0 } else { REST.1 };
        self.next = Instant::now() + rest.max(since.elapsed() * TIMES);
        Ok(())
    }

    /// Looks at a stream. Returns whether there is more of it.
    async fn look_at(&mut self, source: &Source, link: &Link) -> Result<bool, Trouble> {
        let (group, stream) = (&source.surroundings.group, &source.keys.stream);
        if self.refusals.wait(Chore::LookAhead, stream).is_some() {
            return Ok(false);
        }
        let known = self.known.get(stream).copied().unwrap_or_default();
        let seen = link.clone().look_ahead(&source.keys, group, known).await;
        let Some(seen) = self.refusals.heard(Chore::LookAhead, stream, seen)? else {
            return Ok(false);
        };
        let sharing = &self.routes.sharing;
        let mut others = false;
        for run in &seen.runs {
            if let Some(place) = self.routes.place(&run.kind) {
                sharing.saw(place);
                others |= !sharing.takes_long(place);
            }
        }
        if others {
            // They are looked for before more is read, and read up to.
            source.ahead().has_others();
        }
        let known = (seen.read, seen.upto);
        self.known.insert(stream.clone(), known);
        Ok(seen.more)
    }
}
