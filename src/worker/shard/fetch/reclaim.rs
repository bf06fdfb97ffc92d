//! Finds workers that died or froze, and takes over what they left behind: see [`super::takeover`].
//!
//! It looks at a holder when the holder's own lease, which its name tells, must have run out, and it trusts the ages it
//! sees only while this worker's own renewals are answered in time.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use super::delivery::{Begin, Deliveries, Taken};
use super::prefetch::Prefetch;
use super::takeover::{Holder, Takeover};
use super::visit::standing;
use crate::names::shown;
use crate::stream::{ConsumerInfo, Link, Trouble};
use crate::worker::pace::reclaims::{LONGEST, ReclaimTimes, Turn, runs_out_in};
use crate::worker::shard::clock::Clock;
use crate::worker::shard::health::ServerHealth;
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::identity::Identity;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// After so many leases without a word a consumer that holds nothing is forgotten.
const FORGOTTEN: u32 = 10;

/// Takes over what dead workers held.
pub(crate) struct Reclaimer {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    health: Arc<ServerHealth>,
    takeover: Takeover,
    times: ReclaimTimes,
    refusals: Refusals,
}

/// One look at the group's consumers.
pub(crate) struct ReclaimLook {
    most: usize,
    /// At every holder, room or not.
    all: bool,
    /// At those that are alive, too.
    thorough: bool,
    sources: IntoIter<Arc<Source>>,
    /// The stream that is looked at, and its holders that have not been yet.
    holders: Option<(Arc<Source>, IntoIter<ConsumerInfo>)>,
    /// The holder whose entries are being taken.
    holder: Option<Holder>,
    taken: Taken,
    /// When the next lease runs out, from now.
    next: Duration,
    /// How many others read the stream that most read.
    others: usize,
    /// How many have to come alone and have not come yet.
    waiting: u64,
    /// There was no room for what is due.
    left_out: bool,
}

impl Reclaimer {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        health: Arc<ServerHealth>,
        takeover: Takeover,
    ) -> Self {
        Reclaimer {
            identity,
            signals,
            sources,
            health,
            takeover,
            times: ReclaimTimes::new(Instant::now()),
            refusals: Refusals::default(),
        }
    }

    /// When to look next, with room.
    pub fn next_look(&self) -> Instant {
        self.times.next()
    }

    /// Looks at this time at the latest.
    pub fn look_soon(&mut self, at: Instant) {
        self.times.look_soon(at);
    }

    /// An entry has come that runs alone.
    pub fn entered(&mut self) {
        self.takeover.entered();
    }

    /// Opens the quarantine's gate again when that is due, and looks for the next suspect; `held` is how many entries are
    /// held.
    pub fn tend_quarantine(&mut self, held: usize) {
        if self.takeover.tend_quarantine(held) {
            self.times.look_soon(Instant::now());
        }
    }

    /// A look for up to `most` entries whose holders let their leases run out, if it is time for one.
    pub fn begin(&mut self, most: usize) -> Begin<ReclaimLook> {
        let now = Instant::now();
        let lease = self.identity.lease;
        let is_healthy = || self.health.is_healthy();
        let turn = self.times.begin(now, most > 0, is_healthy, lease);
        let (all, thorough) = match turn {
            Turn::Look { all, thorough } => (all, thorough),
            Turn::Not { due } => return Begin::Not(Taken::none_and(due)),
        };
        Begin::Look(ReclaimLook {
            most,
            all,
            thorough,
            sources: self.sources.fetched().into_iter(),
            holders: None,
            holder: None,
            taken: Taken::NONE,
            next: LONGEST.min(lease),
            others: 0,
            waiting: 0,
            left_out: false,
        })
    }

    /// What comes next of holders that are gone; nothing once the look is over.
    pub async fn next(
        &mut self,
        look: &mut ReclaimLook,
        link: &mut Link,
        clock: &Clock,
        prefetch: &Prefetch,
    ) -> Result<Option<Deliveries>, Trouble> {
        loop {
            if let Some(holder) = look.holder.take() {
                let deliveries = self.take_over(holder, look, link, clock, prefetch).await?;
                if deliveries.is_some() {
                    return Ok(deliveries);
                }
            } else if let Some((source, mut holders)) = look.holders.take() {
                if let Some(holder) = holders.next() {
                    self.look_at(&source, holder, look, link, clock).await?;
                    look.holders = Some((source, holders));
                }
            } else if let Some(source) = look.sources.next() {
                look.holders = self.holders(source, link).await?;
                if let Some((source, holders)) = &look.holders
                    && source.again.is_some()
                {
                    let standing = standing(&self.identity, source, holders.as_slice());
                    look.others = look.others.max(standing.readers);
                    // Of a stream whose events have an order only the owner asks for entries: others stand by.
                    if source.order.is_none() {
                        self.signals.duties.sees(standing);
                    }
                }
            } else {
                return Ok(None);
            }
        }
    }

    /// The look is over. Returns what it came to.
    pub fn end(&mut self, look: ReclaimLook) -> Taken {
        let mut taken = look.taken;
        taken.more |= look.left_out;
        if !look.left_out {
            self.takeover.looked(look.waiting);
        }
        let now = Instant::now();
        let (more, left_out) = (taken.more, look.left_out);
        self.times.end(now, look.next, more, left_out, look.others);
        taken
    }

    /// Who holds entries of a stream; nobody is asked if nothing of it may come.
    async fn holders(
        &mut self,
        source: Arc<Source>,
        link: &mut Link,
    ) -> Result<Option<(Arc<Source>, IntoIter<ConsumerInfo>)>, Trouble> {
        let (group, stream) = (&source.surroundings.group, &source.keys.stream);
        // If it is paused, it would only have to be released.
        if source.pauses.stream() || self.refusals.wait(Chore::Reclaim, stream).is_some() {
            return Ok(None);
        }
        if !source.is_renewed_for(self.identity.lease) {
            // What looks old may only be unrenewed.
            return Ok(None);
        }
        let holders = link.consumers(&source.keys, group).await;
        let holders = self.refusals.heard(Chore::Reclaim, stream, holders)?;
        Ok(holders.map(|holders| (source, holders.into_iter())))
    }

    /// Decides whether a holder's entries are to be taken: then it becomes the holder of the look.
    async fn look_at(
        &mut self,
        source: &Arc<Source>,
        holder: ConsumerInfo,
        look: &mut ReclaimLook,
        link: &mut Link,
        clock: &Clock,
    ) -> Result<(), Trouble> {
        let lease_ms = holder.lease_ms();
        let Some(lease_ms) = lease_ms.filter(|_| !self.identity.is_me(&holder.name)) else {
            return Ok(());
        };
        let left = lease_ms.saturating_sub(holder.idle_ms);
        if let Some(wait) = runs_out_in(left) {
            look.next = look.next.min(wait);
        }
        if holder.pending == 0 {
            let forgot = self.forget(link, source, &holder, lease_ms, clock).await;
            let stream = &source.keys.stream;
            self.refusals.heard(Chore::Forget, stream, forgot)?;
        } else if look.room() == 0 && !look.all {
            look.left_out |= left == 0;
        } else if left == 0 || look.thorough || source.order.is_some() {
            // Of a stream that one worker has, others that are alive may have left some, read when it was theirs.
            look.holder = Some(Holder::new(source.clone(), holder, lease_ms));
        }
        Ok(())
    }

    /// What comes next of a holder's entries; then it stays the holder of the look.
    async fn take_over(
        &mut self,
        mut holder: Holder,
        look: &mut ReclaimLook,
        link: &mut Link,
        clock: &Clock,
        prefetch: &Prefetch,
    ) -> Result<Option<Deliveries>, Trouble> {
        let room = look.room();
        let brought = self
            .takeover
            .next(&mut holder, room, link, clock, prefetch)
            .await;
        if let Some(at) = holder.ask_again.take() {
            self.times.look_soon(at);
        }
        let stream = &holder.source.keys.stream;
        let Some(deliveries) = self.refusals.heard(Chore::Reclaim, stream, brought)? else {
            // What is refused of one holder is of the others.
            look.holders = None;
            return Ok(None);
        };
        match &deliveries {
            Some(deliveries) => {
                look.taken.entries += deliveries.entries.len();
                look.holder = Some(holder);
            }
            None => {
                look.taken.more |= holder.more;
                look.waiting += holder.waiting;
            }
        }
        Ok(deliveries)
    }

    async fn forget(
        &self,
        link: &mut Link,
        source: &Source,
        holder: &ConsumerInfo,
        lease_ms: u64,
        clock: &Clock,
    ) -> Result<(), Trouble> {
        let (group, stream) = (&source.surroundings.group, &source.keys.stream);
        if self.refusals.wait(Chore::Forget, stream).is_some()
            || holder.idle_ms <= lease_ms * u64::from(FORGOTTEN)
        {
            return Ok(());
        }
        let expected = Some(clock.expected(self.identity.lease / 2));
        let forget = link.forget(&source.keys, group, &holder.name, expected);
        if forget.await? {
            tracing::debug!(
                consumer = %shown(&holder.name),
                stream,
                "forgot a consumer that is gone"
            );
        }
        Ok(())
    }
}

impl ReclaimLook {
    /// How many more entries it may take.
    fn room(&self) -> usize {
        self.most.saturating_sub(self.taken.entries)
    }
}

#[cfg(test)]
mod tests;
