//! The renewer: every third of a lease it renews what is held and hears what is no longer ours. Its answers in time
//! are also what tells the reclaimer that it may trust the ages it sees.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::about::{About, tell};
use crate::error::{Error, ErrorKind};
use crate::event::EntryId;
use crate::metrics::entries::WorkerCounts;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{Link, PROTOCOL, Trouble};
use crate::worker::pace::leases::every;
use crate::worker::shard::health::ServerHealth;
use crate::worker::shard::links::{KeptLink, Links};
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::{Batch, Inflight, Owner};
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// Most entries in one renewal.
const CHUNK: usize = 500;

/// Renews leases.
pub(crate) struct LeaseRenewer {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    inflight: Arc<Inflight>,
    health: Arc<ServerHealth>,
    counts: Option<Arc<WorkerCounts>>,
    link: KeptLink,
    complaint: Complaint,
    unnoted: Complaint,
    gone: Complaint,
    refusals: Refusals,
    pause: Pause,
    /// When the last renewal was sent that was answered.
    last: Option<Instant>,
}

impl LeaseRenewer {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        inflight: Arc<Inflight>,
        health: Arc<ServerHealth>,
        counts: Option<Arc<WorkerCounts>>,
        links: Arc<Links>,
    ) -> Self {
        let patience = (identity.lease / 2).max(Duration::from_millis(500));
        LeaseRenewer {
            identity,
            signals,
            sources,
            inflight,
            health,
            counts,
            link: KeptLink::new(links, "renew", patience),
            complaint: Complaint::default(),
            unnoted: Complaint::default(),
            gone: Complaint::default(),
            refusals: Refusals::default(),
            pause: Pause::new(),
            last: None,
        }
    }

    /// Renews until it is dropped.
    pub async fn run(mut self) {
        self.signals.joined().await;
        loop {
            self.signals.duties.on().await;
            let wait = match self.round().await {
                Ok(all) => {
                    if self.complaint.clear() {
                        tracing::info!("leases are renewed again");
                    }
                    let wait = every(self.identity.lease);
                    if all {
                        self.pause.reset();
                        wait
                    } else {
                        self.pause.next().min(wait)
                    }
                }
                Err(trouble) => {
                    self.link.broke();
                    self.health.not_renewed();
                    if trouble.is_final() {
                        return self.signals.fail(trouble.into_error());
                    }
                    self.complaint.warn(trouble.error().to_string());
                    self.pause.next().min(every(self.identity.lease))
                }
            };
            let soon = tokio::time::sleep(Duration::from_millis(20));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Asked for by an entry that waits for it; but never in a spin.
                () = async { self.signals.renewal_wanted().await; soon.await } => {}
            }
        }
    }

    /// One renewal of everything. Answers whether it was of all streams.
    async fn round(&mut self) -> Result<bool, Trouble> {
        let mut link = self.link.get().await?.clone();
        // Taken before anything is sent: the answers say nothing about what came later.
        let sent = Instant::now();
        let batches = self.inflight.snapshot();
        let mut unrenewed = Vec::new();
        for source in self.sources.joined() {
            let stream = &source.keys.stream;
            if self.refusals.wait(Chore::Renew, stream).is_some() {
                source.renewal_refused();
                unrenewed.push(source);
                continue;
            }
            let renewed = match self.renew_all(&mut link, &source, &batches).await {
                // The group will be made again; the entries of other streams are renewed all the same.
                Err(gone @ Trouble::NoGroup(_)) => {
                    self.signals.rejoin();
                    self.gone.warn(gone.error().to_string());
                    None
                }
                Err(trouble) if link.is_over() => return Err(trouble),
                // So they are where one stream is in trouble, which waits by itself.
                renewed => self.refusals.heard(Chore::Renew, stream, renewed)?,
            };
            if renewed.is_none() {
                source.renewal_refused();
                unrenewed.push(source);
            }
        }
        let is_renewed = |batch: &Batch| {
            let mut of = unrenewed.iter();
            !of.any(|source| Arc::ptr_eq(source, &batch.source))
        };
        for batch in batches.iter().filter(|batch| is_renewed(batch)) {
            if let Some(counts) = &self.counts
                && let Some(left) = batch.lease_left()
            {
                counts.renewed(left.as_millis() as u64);
                if let (true, Some(counts)) = (left.is_zero(), &batch.source.counts) {
                    counts.lapsed(batch.kept().count());
                }
            }
            batch.renew(sent, batch.source.lease(sent, self.identity.lease));
        }
        self.inflight.renewed();
        // In time is: before the lease that the previous answer granted was over.
        let in_time = self
            .last
            .is_some_and(|last| last.elapsed() < self.identity.lease);
        self.health.renewed(sent, in_time);
        self.last = Some(sent);
        Ok(unrenewed.is_empty())
    }

    async fn renew_all(
        &mut self,
        link: &mut Link,
        source: &Arc<Source>,
        batches: &[Arc<Batch>],
    ) -> Result<(), Trouble> {
        self.renew(link, source, batches, false).await?;
        if batches.iter().any(|batch| batch.alone) || self.last.is_none() {
            self.renew(link, source, batches, true).await?;
        }
        Ok(())
    }

    async fn renew(
        &mut self,
        link: &mut Link,
        source: &Arc<Source>,
        batches: &[Arc<Batch>],
        alone: bool,
    ) -> Result<(), Trouble> {
        let consumer = self.identity.consumer(alone);
        let mut held: Vec<(EntryId, u32)> = batches
            .iter()
            .filter(|batch| batch.alone == alone && Arc::ptr_eq(&batch.source, source))
            .flat_map(|batch| batch.kept().map(|slot| (slot.id, slot.count)))
            .collect();
        held.sort_unstable();
        let mut from = "-".to_owned();
        let mut rest = &held[..];
        loop {
            let (chunk, later) = rest.split_at(rest.len().min(CHUNK));
            rest = later;
            let last = rest.is_empty();
            let to = match chunk.last() {
                Some((id, _)) if !last => id.to_string(),
                _ => "+".to_owned(),
            };
            // Entries that may kill their worker are few and do not move a worker's position.
            let note = last && !alone;
            let group = &source.surroundings.group;
            let renewed = link
                .renew(&source.keys, group, consumer, &from, &to, note, chunk)
                .await?;
            if renewed
                .protocol
                .is_some_and(|protocol| protocol != PROTOCOL)
            {
                return Err(Trouble::Refused(Error::new(
                    ErrorKind::Protocol,
                    format!(
                        "workers of another release have taken over the group {group:?} of {:?} (protocol {} instead \
                         of {PROTOCOL}): this one stops, and leaves what it holds to them",
                        source.keys.stream,
                        renewed.protocol.unwrap_or(0),
                    ),
                )));
            }
            if let Some(why) = renewed.unnoted {
                let position = &source.keys.position;
                self.unnoted.warn(format!(
                    "noting how far this worker is in {position}: {why}; if the group is destroyed, it may not be \
                     known where a new one has to begin"
                ));
            }
            let stream = &source.keys.stream;
            let (mut taken, mut gone) = (Vec::new(), Vec::new());
            for lost in renewed.lost {
                let known = batches
                    .iter()
                    .filter(|batch| batch.alone == alone && Arc::ptr_eq(&batch.source, source))
                    .find_map(|batch| batch.lose(lost.id, lost.count, lost.why));
                let Some((owner, ctx)) = known else { continue };
                match (owner, ctx) {
                    (Owner::Another, Some(ctx)) => {
                        tell!(warn, About::of(ctx, stream), "taken over by another worker");
                    }
                    (Owner::Nobody, Some(ctx)) => tell!(
                        warn,
                        About::of(ctx, stream),
                        "no longer pending: trimmed, acknowledged by hand, or the group was destroyed"
                    ),
                    // Of an entry whose handler does not wait the event is not at hand.
                    (Owner::Another, None) => taken.push(lost.id),
                    (Owner::Nobody, None) => gone.push(lost.id),
                    // Its handler has ended: it was settled just now, or its settling finds out.
                    (Owner::Us, _) => {}
                }
            }
            if let Some(first) = taken.first() {
                let count = taken.len();
                tracing::warn!(stream, count, %first, "entries taken over by another worker before they ran here");
            }
            if let Some(first) = gone.first() {
                let count = gone.len();
                tracing::warn!(
                    stream, count, %first,
                    "entries no longer pending before they ran here: trimmed, acknowledged by hand, or the group was \
                     destroyed"
                );
            }
            if renewed.known.is_some_and(|known| !source.learn(known)) {
                // Made anew in between, and perhaps by one who did not know that there had been one.
                self.signals.rejoin();
            }
            if renewed.unheld > 0 {
                self.signals.adopt_soon();
            }
            if last {
                return Ok(());
            }
            from = format!("({to}");
        }
    }
}
