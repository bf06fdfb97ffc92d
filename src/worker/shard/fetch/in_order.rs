//! Makes sure of the order of what was read: whatever is pending with others may come before it.

use std::sync::Arc;
use std::time::Instant;

use crate::stream::{Link, Trouble};
use crate::worker::run::orderer::Orderer;
use crate::worker::shard::order::known::{load, lose};
use crate::worker::shard::unit::Shard;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// Looks behind each read of a stream whose events have an order.
pub(crate) struct InOrder {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    inflight: Arc<Inflight>,
    orderer: Option<Arc<Orderer>>,
}

impl InOrder {
    pub fn new(shard: &Shard) -> Self {
        InOrder {
            identity: shard.identity.clone(),
            signals: shard.signals.clone(),
            sources: shard.sources.clone(),
            inflight: shard.inflight.clone(),
            orderer: shard.orderer.clone(),
        }
    }

    /// Something was read, which was asked for at `since`. Returns whether it may be handed on: if the stream is another worker's by now it stays pending
    /// here, where that one finds it. If others have anything pending, all of that is known before.
    pub async fn check(
        &mut self,
        link: &Link,
        source: &Arc<Source>,
        since: Instant,
    ) -> Result<bool, Trouble> {
        let (Some(orderer), Some(order)) = (&self.orderer, &source.order) else {
            return Ok(true);
        };
        let Some(epoch) = order.epoch() else {
            return Ok(false);
        };
        let mut link = link.clone();
        if !order.was_mine(since) {
            load(&mut link, source, orderer).await?;
            self.signals.adopt_soon();
            return Ok(false);
        }
        let (group, me) = (&source.surroundings.group, &self.identity.name);
        let checked = link.order_check(&source.keys, group, me, epoch).await?;
        if !checked.is_mine {
            order.is_doubtful();
            lose(&self.inflight, source);
            return Ok(false);
        }
        if checked.others > 0 {
            load(&mut link, source, orderer).await?;
        }
        Ok(true)
    }

    /// More came than there was room for. It stays pending here, known, and is adopted once there is room: released, it
    /// could be passed by what comes after it.
    pub async fn passed(&mut self, link: &Link, source: &Arc<Source>) -> Result<(), Trouble> {
        if let Some(orderer) = &self.orderer {
            load(&mut link.clone(), source, orderer).await?;
            self.signals.adopt_soon();
        }
        Ok(())
    }

    /// The connection is new: what came on the one before may be pending and not held, and comes before what is read next.
    pub async fn joined(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let Some(orderer) = &self.orderer else {
            return Ok(());
        };
        for source in self.sources.named().iter() {
            let order = source.order.as_ref();
            if order.is_some_and(|order| order.epoch().is_some()) && !source.is_barred() {
                load(link, source, orderer).await?;
            }
        }
        Ok(())
    }

    /// Nothing of any stream is under way: between two rounds, and once there are no more.
    pub fn stands_still(&self) {
        if self.orderer.is_some() {
            let sources = self.sources.named();
            let orders = sources.iter().filter_map(|of| of.order.as_ref());
            orders.for_each(|order| order.stands_still());
        }
    }

    /// Nothing is fetched any more.
    pub fn ends(&self) {
        let sources = self.sources.named();
        let orders = sources.iter().filter_map(|of| of.order.as_ref());
        orders.for_each(|order| order.set_reads(false));
        self.stands_still();
    }
}
