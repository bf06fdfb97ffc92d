//! Adopts what is pending with this worker and not held by it: the reply that brought it got lost. If the reply to that is
//! cut off as well, an entry may be too large to come; it is looked at alone, and buried if it is: see [`super::oversized`].

use std::sync::Arc;
use std::time::Instant;
use std::vec::IntoIter;

use super::delivery::{Deliveries, Delivery, Unread};
use super::oversized::Oversized;
use super::prefetch::Prefetch;
use crate::about::{About, tell};
use crate::event::EntryId;
use crate::metrics::entries::Via;
use crate::stream::{Link, Trouble};
use crate::worker::run::verdict::{Reason, Verdict};
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::{Coming, Inflight};
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// Most entries that one request adopts.
const MOST: usize = 500;

/// Adopts entries.
pub(crate) struct Adopter {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    inflight: Arc<Inflight>,
    oversized: Oversized,
    refusals: Refusals,
}

/// One look at everything that is pending with this worker.
pub(crate) struct AdoptLook {
    /// The streams, each with whether its entries are those that run alone.
    pending: IntoIter<(Arc<Source>, bool)>,
    /// What is asked for next, if that is known already.
    next: Option<Adoption>,
}

/// What is to be adopted of one stream.
struct Adoption {
    source: Arc<Source>,
    alone: bool,
    held: Vec<EntryId>,
    since: Instant,
    is_suspected: bool,
}

/// What a look has found.
pub(crate) enum Adopted {
    Deliveries(Deliveries),
    /// An entry that can't come through is to be buried.
    TooLarge(Unread),
}

impl Adopter {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        inflight: Arc<Inflight>,
    ) -> Self {
        Adopter {
            identity,
            signals,
            sources,
            inflight,
            oversized: Oversized::default(),
            refusals: Refusals::default(),
        }
    }

    pub fn begin(&self) -> AdoptLook {
        let sources = self.sources.fetched().into_iter();
        let pending = sources.flat_map(|source| [(source.clone(), false), (source, true)]);
        AdoptLook {
            pending: pending.collect::<Vec<_>>().into_iter(),
            next: None,
        }
    }

    /// What the look finds next; nothing once it is over.
    pub async fn next(
        &mut self,
        look: &mut AdoptLook,
        link: &mut Link,
        prefetch: &mut Prefetch,
    ) -> Result<Option<Adopted>, Trouble> {
        loop {
            if let Some(adoption) = look.next.take() {
                if let Some(deliveries) = self.adopt(adoption, link, prefetch).await? {
                    return Ok(Some(Adopted::Deliveries(deliveries)));
                }
                continue;
            }
            let Some((source, alone)) = look.pending.next() else {
                return Ok(None);
            };
            let mut adoption = Adoption {
                held: self.held(&source, alone),
                since: Instant::now(),
                is_suspected: self.oversized.is_suspected(&source.keys.stream, alone),
                source,
                alone,
            };
            let too_large = match adoption.is_suspected {
                true => self.too_large(&mut adoption, link).await?,
                false => None,
            };
            look.next = Some(adoption);
            if let Some(unread) = too_large {
                return Ok(Some(Adopted::TooLarge(unread)));
            }
        }
    }

    /// What this worker holds of a stream.
    fn held(&self, source: &Arc<Source>, alone: bool) -> Vec<EntryId> {
        let batches = self.inflight.snapshot();
        batches
            .iter()
            .filter(|batch| batch.alone == alone && Arc::ptr_eq(&batch.source, source))
            .flat_map(|batch| batch.kept().map(|slot| slot.id))
            .collect()
    }

    async fn adopt(
        &mut self,
        adoption: Adoption,
        link: &mut Link,
        prefetch: &mut Prefetch,
    ) -> Result<Option<Deliveries>, Trouble> {
        let Adoption {
            source,
            alone,
            held,
            since,
            is_suspected,
        } = adoption;
        let (group, stream) = (&source.surroundings.group, &source.keys.stream);
        let few = alone || is_suspected;
        let (most, room) = prefetch.most(if few { 1 } else { MOST });
        let adopted = link
            .adopt(
                &source.keys,
                group,
                self.identity.consumer(alone),
                most,
                room,
                &held,
            )
            .await;
        match &adopted {
            Ok(_) => self.oversized.came(stream, alone),
            Err(trouble) if trouble.is_cut() => self.oversized.cut(stream, alone),
            // One that only did not come says nothing.
            Err(_) => {}
        }
        // If it is refused, it is asked for again once the renewer has found what there is to adopt.
        let Some(adopted) = self.refusals.heard(Chore::Adopt, stream, adopted)? else {
            return Ok(None);
        };
        source.report_trimmed(&adopted.trimmed, "before they were handled");
        let count = adopted.entries.len();
        if count > 0 {
            tracing::info!(stream, count, "found entries whose delivery had got lost");
        }
        if adopted.more {
            self.signals.adopt_soon();
        }
        let entries = adopted.entries.into_iter();
        let entries = entries.map(|entry| Delivery::again(entry, adopted.now_ms));
        Ok(Some(Deliveries {
            via: Via::Adopt,
            coming: coming(alone),
            since,
            entries: entries.collect(),
            source,
        }))
    }

    /// The reply with a stream's next entries was cut off: the next one, if it is too large to come. It then counts as
    /// held.
    async fn too_large(
        &mut self,
        adoption: &mut Adoption,
        link: &mut Link,
    ) -> Result<Option<Unread>, Trouble> {
        let unread = self.look_at_suspect(adoption, link).await;
        let stream = &adoption.source.keys.stream;
        let unread = self.refusals.heard(Chore::Adopt, stream, unread)?.flatten();
        let entries = unread.iter().flat_map(|unread| &unread.entries);
        adoption.held.extend(entries.map(|(id, _)| *id));
        Ok(unread)
    }

    async fn look_at_suspect(
        &mut self,
        adoption: &Adoption,
        link: &mut Link,
    ) -> Result<Option<Unread>, Trouble> {
        let (source, alone) = (&adoption.source, adoption.alone);
        let (group, stream) = (&source.surroundings.group, &source.keys.stream);
        let next = link.first_unheld(
            &source.keys,
            group,
            self.identity.consumer(alone),
            &adoption.held,
        );
        let Some(next) = next.await? else {
            self.oversized.came(stream, alone);
            return Ok(None);
        };
        let limit = link.output_limit().await;
        if !self.oversized.is_too_large(&next, limit) {
            return Ok(None);
        }
        let limit = match limit {
            Some(limit) => format!("{limit} bytes at most"),
            None => "how many this user may not see".to_owned(),
        };
        let error = format!(
            "it takes {} bytes, and the server cuts the connection at so many (client-output-buffer-limit normal: \
             {limit}): raise that, then replay it",
            next.bytes
        );
        tell!(
            error,
            About::unread(next.id, stream, next.count),
            bytes = next.bytes,
            "an entry can't come through and is buried: {error}"
        );
        self.oversized.came(stream, alone);
        Ok(Some(Unread {
            via: Via::Adopt,
            source: source.clone(),
            coming: coming(alone),
            since: Instant::now(),
            entries: vec![(next.id, next.count)],
            verdict: Verdict::Bury {
                reason: Reason::TooLarge,
                error,
            },
            attempt: 0,
        }))
    }
}

fn coming(alone: bool) -> Coming {
    match alone {
        true => Coming::Alone,
        false => Coming::InTurn,
    }
}
