//! Has streams whose events have an order: one worker has each, for a lease that it renews. Who should have which is
//! agreed by who is there. What another has is taken only once its lease has lapsed. What should be another's is released
//! once nothing of it waits here: what still runs goes on, and the next owner waits for that, subject by subject.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::spread::should_have;
use crate::reconnect::Complaint;
use crate::stream::{Link, Ownership as Owned, Trouble, Wants, Wish};
use crate::worker::pace::{duty, owning};
use crate::worker::run::orderer::Orderer;
use crate::worker::shard::clock::{LEAST, ServerClock};
use crate::worker::shard::health::ServerHealth;
use crate::worker::shard::links::{KeptLink, Links};
use crate::worker::shard::order::known::{load, look_at, look_at_dead, lose};
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::order::Order;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// How often it is looked what has become of what others wait for.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// Most subjects of a stream that are looked at then.
const SUBJECTS: usize = 1000;

/// The worker that has them, as the other parts know it.
pub(crate) struct Owner {
    pub identity: Arc<Identity>,
    pub signals: Arc<Signals>,
    pub sources: Arc<Sources>,
    pub inflight: Arc<Inflight>,
    pub health: Arc<ServerHealth>,
    pub clock: Arc<ServerClock>,
}

/// Has streams.
pub(crate) struct Ownership {
    me: Owner,
    orderer: Option<Arc<Orderer>>,
    link: KeptLink,
    complaint: Complaint,
    /// Who was there to have each stream at the last look.
    crews: HashMap<String, Vec<String>>,
    /// Streams of which dead letters held their subjects then.
    held: HashSet<String>,
    /// How many rank before this worker at the stream where fewest do.
    before: usize,
    looked_after: Instant,
}

impl Ownership {
    pub fn new(me: Owner, orderer: Option<Arc<Orderer>>, links: Arc<Links>) -> Self {
        let patience = (me.identity.lease / 2).max(Duration::from_millis(500));
        Ownership {
            me,
            orderer,
            link: KeptLink::new(links, "own", patience),
            complaint: Complaint::default(),
            crews: HashMap::new(),
            held: HashSet::new(),
            before: 0,
            looked_after: Instant::now(),
        }
    }

    /// Looks until it is dropped. Does nothing if no stream has an order.
    pub async fn run(mut self) {
        let Some(orderer) = self.orderer.clone() else {
            return;
        };
        self.me.signals.joined().await;
        loop {
            // Off duty it is not there, and has nothing: whoever goes off duty says so.
            if !self.me.signals.duties.is_on() {
                self.crews.clear();
                self.me.signals.duties.on().await;
                self.me.signals.joined().await;
            }
            match self.round(&orderer).await {
                Ok(()) => {
                    self.complaint.clear();
                }
                Err(trouble) => {
                    if trouble.ends_the_link() {
                        self.link.broke();
                    }
                    self.complaint.warn(trouble.error().to_string());
                }
            }
            let crew = self.crews.values().map(Vec::len).max().unwrap_or(1);
            let lease = self.me.identity.lease;
            let wait = owning::look_in(self.crews.len(), crew, self.before, lease);
            tokio::time::sleep(wait).await;
        }
    }

    /// Looks at every stream once. What is refused of one holds up no other.
    async fn round(&mut self, orderer: &Orderer) -> Result<(), Trouble> {
        let mut link = self.link.get().await?.clone();
        let looks_after = self.looked_after.elapsed() >= LOOK_AFTER;
        if looks_after {
            self.looked_after = Instant::now();
        }
        let (mut refused, mut before) = (None, usize::MAX);
        let sources = self.me.sources.clone();
        for source in sources.named().iter().filter(|of| !of.is_barred()) {
            let Some(order) = &source.order else {
                continue;
            };
            let mut looked = self.look(&mut link, source, order, orderer).await;
            if let Some(crew) = self.crews.get(&source.keys.stream) {
                let me = &self.me.identity.name;
                let standing = duty::among(&source.keys.stream, me, crew);
                before = before.min(standing.before);
                if looked.is_ok() {
                    self.me.signals.duties.sees(standing);
                }
            }
            if looked.is_ok() && looks_after && order.epoch().is_some() {
                looked = self.look_after(&mut link, source, orderer).await;
            }
            match looked {
                Err(trouble) if trouble.ends_the_link() => return Err(trouble),
                Err(trouble) => refused = Some(trouble),
                Ok(()) => {}
            }
        }
        self.before = match before {
            usize::MAX => 0,
            before => before,
        };
        refused.map_or(Ok(()), Err)
    }

    /// Looks whose a stream is, and does what follows.
    async fn look(
        &mut self,
        link: &mut Link,
        source: &Arc<Source>,
        order: &Order,
        orderer: &Orderer,
    ) -> Result<(), Trouble> {
        let stream = &source.keys.stream;
        let signals = &self.me.signals;
        let is_there = !signals.is_stopping() && !signals.is_quiet() && signals.duties.is_on();
        let crew = self.crews.get(stream).map_or(&[][..], Vec::as_slice);
        let should = is_there && should_have(stream, crew, &self.me.identity.name);
        let had = order.epoch();
        let wants = match (had.is_some(), should) {
            (true, true) => {
                match orderer.is_full(&source.surroundings.stream) {
                    true => self.pauses(source, order),
                    false => self.reads_on(order),
                }
                Wants::Nothing
            }
            (true, false) if self.may_release(source, order, orderer) => Wants::Release,
            (true, false) | (false, false) => Wants::Nothing,
            // The ages of others' leases say that they are gone only if the server has answered ours.
            (false, true) if self.me.health.is_healthy() => Wants::Lapsed,
            (false, true) => Wants::Free,
        };
        let sent = Instant::now();
        let owned = self.own(link, source, is_there, wants).await?;
        match (had, owned.is_mine) {
            (Some(epoch), true) if epoch == owned.epoch => {
                order.is_mine(epoch, sent, self.me.identity.lease);
            }
            (Some(_), _) if wants == Wants::Release => {
                tracing::info!(stream, "released: others handle this stream's events now");
                self.forgets(source, order, orderer);
            }
            (Some(_), _) => {
                let owner = &owned.owner;
                tracing::warn!(
                    stream,
                    owner,
                    "another worker has taken this stream over: nothing more of it starts here"
                );
                // In this order: what starts meanwhile is seen.
                order.is_lost();
                lose(&self.me.inflight, source);
                self.forgets(source, order, orderer);
            }
            (None, true) if should => {
                orderer.forgets(&source.surroundings.stream);
                load(link, source, orderer).await?;
                order.is_mine(owned.epoch, sent, self.me.identity.lease);
                let epoch = owned.epoch;
                tracing::info!(stream, epoch, "this stream's events are handled here now");
                self.me.signals.adopt_soon();
                self.reads_on(order);
            }
            // An answer got lost, and by now another should have it.
            (None, true) => {
                self.own(link, source, is_there, Wants::Release).await?;
            }
            (None, false) => {}
        }
        self.crews.insert(stream.clone(), owned.crew);
        match owned.any_held {
            true => self.held.insert(stream.clone()),
            false => self.held.remove(stream),
        };
        Ok(())
    }

    async fn own(
        &self,
        link: &mut Link,
        source: &Source,
        is_there: bool,
        wants: Wants,
    ) -> Result<Owned, Trouble> {
        let clock = self.me.clock.get().expected(LEAST);
        let wish = Wish {
            is_there,
            wants,
            clock: Some(clock).filter(|clock| clock.ms > 0),
        };
        let (me, lease) = (&self.me.identity.name, self.me.identity.lease);
        link.own(&source.keys, me, lease, wish).await
    }

    /// Too much waits behind a dead letter.
    fn pauses(&self, source: &Source, order: &Order) {
        if order.reads() {
            let stream = &source.keys.stream;
            tracing::error!(
                stream,
                "a thousand events wait behind a dead letter of their subject: nothing more of this stream is handled \
                 until it is replayed or purged"
            );
            order.set_reads(false);
            self.me.signals.replan();
        }
    }

    fn reads_on(&self, order: &Order) {
        if !order.reads() {
            order.set_reads(true);
            self.me.signals.replan();
        }
    }

    /// It should be another's: reads no more of it. Returns whether nothing of it waits here or is on its way.
    fn may_release(&self, source: &Source, order: &Order, orderer: &Orderer) -> bool {
        if order.reads() {
            order.set_reads(false);
            self.me.signals.replan();
        }
        orderer.leaves(&source.surroundings.stream);
        // In this order: what came was held before it was still.
        order.is_still() && {
            let batches = self.me.inflight.snapshot();
            let stream = &source.surroundings.stream;
            let mut of_it = batches
                .iter()
                .filter(|batch| batch.source.surroundings.stream == *stream);
            of_it.all(|batch| batch.only_runs())
        }
    }

    fn forgets(&self, source: &Source, order: &Order, orderer: &Orderer) {
        order.is_lost();
        orderer.leaves(&source.surroundings.stream);
        orderer.forgets(&source.surroundings.stream);
        self.me.signals.replan();
    }

    /// What others wait for may have been settled by other hands.
    async fn look_after(
        &self,
        link: &mut Link,
        source: &Arc<Source>,
        orderer: &Orderer,
    ) -> Result<(), Trouble> {
        // One that was purged may have been brought back.
        let is_noted = self.held.contains(&source.keys.stream);
        if is_noted || !orderer.dead(&source.surroundings.stream).is_empty() {
            look_at_dead(link, source, orderer, false).await?;
        }
        let awaited = orderer.awaited(&source.surroundings.stream, SUBJECTS);
        if look_at(link, source, orderer, &awaited).await? {
            self.me.signals.due_in(Duration::ZERO);
        }
        Ok(())
    }
}
