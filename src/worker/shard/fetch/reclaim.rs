//! Takes over what workers that died or froze left behind.
//!
//! It looks at a holder when the holder's own lease, which its name tells, must have run out; it trusts the ages it
//! sees only while this worker's own renewals are answered in time; and it lets an entry that may have killed its
//! workers in only through the quarantine, alone.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use super::delivery::{Begin, Deliveries, Delivery, Taken};
use super::prefetch::{Prefetch, ROOM};
use crate::names::shown;
use crate::stream::{ConsumerInfo, Link, Reclaim, Reclaimed, Trouble};
use crate::worker::shard::clock::Clock;
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::about::{About, tell};
use crate::worker::state::inflight::Coming;
use crate::worker::state::quarantine::{Admission, Visits};
use crate::worker::state::shared::Shared;
use crate::worker::state::source::Source;

/// From which attempt on an entry whose workers died goes alone.
const ALONE_FROM: u32 = 3;
/// The longest time between two looks at the group's consumers.
const LONGEST: Duration = Duration::from_secs(5);
/// The shortest.
const SHORTEST: Duration = Duration::from_millis(50);
/// Every tenth look also looks at holders that are alive.
const THOROUGH: u64 = 10;
/// After so many leases without a word a consumer that holds nothing is forgotten.
const FORGOTTEN: u32 = 10;

/// Takes over what dead workers held.
pub(crate) struct Reclaimer {
    shared: Arc<Shared>,
    schedule: Schedule,
    visits: Visits,
    refusals: Refusals,
}

/// When to look next.
///
/// A look without room takes nothing but suspects. It must not use up the turn of one with room: if it has found
/// something, the next one with room is due at once.
struct Schedule {
    /// The next look with room.
    next: Instant,
    /// The next look at every holder, room or not: suspects need none.
    all: Instant,
    looks: u64,
    /// Something is to be looked for sooner: a suspect that may come in now.
    soon: Option<Instant>,
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
    /// How many have to come alone and have not come yet.
    waiting: u64,
    /// There was no room for what is due.
    left_out: bool,
}

/// A holder whose lease has run out.
struct Holder {
    source: Arc<Source>,
    info: ConsumerInfo,
    lease_ms: u64,
    /// Where to go on in its list.
    from: String,
    /// What has come of this part of its list.
    page: Option<Page>,
    /// How many have to come alone and have not come yet.
    waiting: u64,
}

struct Page {
    /// How many of it have to come alone.
    waiting: u64,
    /// Where the next one begins.
    next: Option<String>,
}

impl Reclaimer {
    pub fn new(shared: Arc<Shared>) -> Self {
        Reclaimer {
            shared,
            schedule: Schedule::now(),
            visits: Visits::new(),
            refusals: Refusals::default(),
        }
    }

    /// When to look next, with room.
    pub fn next_look(&self) -> Instant {
        self.schedule.next.min(self.schedule.next_at_all())
    }

    /// Looks at this time at the latest.
    pub fn look_soon(&mut self, at: Instant) {
        self.schedule.look_soon(at);
    }

    /// An entry has come that runs alone.
    pub fn entered(&mut self) {
        self.visits.entered(&self.shared.quarantine);
    }

    /// Opens the quarantine's gate again when that is due, and looks for the next suspect.
    pub fn tend_quarantine(&mut self) {
        let (held, lease) = (self.shared.inflight.entries(), self.shared.identity.lease);
        if self.visits.tend(&self.shared.quarantine, held, lease) {
            self.schedule.look_soon(Instant::now());
        }
    }

    /// A look for up to `most` entries whose holders let their leases run out, if it is time for one.
    pub fn begin(&mut self, most: usize) -> Begin<ReclaimLook> {
        let now = Instant::now();
        let schedule = &mut self.schedule;
        let all = schedule.next_at_all() <= now;
        if !all && (most == 0 || schedule.next > now) {
            return Begin::Not(Taken::none_and(schedule.next <= now));
        }
        if !self.shared.health.is_healthy() {
            schedule.soon = None;
            schedule.next = now + self.shared.identity.lease / 10;
            schedule.all = schedule.next;
            return Begin::Not(Taken::NONE);
        }
        if all {
            schedule.soon = None;
            schedule.looks += 1;
        }
        Begin::Look(ReclaimLook {
            most,
            all,
            thorough: all && schedule.looks.is_multiple_of(THOROUGH),
            sources: self.shared.sources.active().into_iter(),
            holders: None,
            holder: None,
            taken: Taken::NONE,
            next: LONGEST.min(self.shared.identity.lease),
            waiting: 0,
            left_out: false,
        })
    }

    /// What comes of the next holder that left something; nothing once the look is over.
    pub async fn next(
        &mut self,
        look: &mut ReclaimLook,
        link: &mut Link,
        clock: &Clock,
        prefetch: &Prefetch,
    ) -> Result<Option<Deliveries>, Trouble> {
        loop {
            if let Some(mut holder) = look.holder.take() {
                let brought = self.go_on(&mut holder, look, link, clock, prefetch).await;
                let stream = &holder.source.keys.stream;
                match self.refusals.heard(Chore::Reclaim, stream, brought)? {
                    Some(Some(deliveries)) => {
                        look.holder = Some(holder);
                        return Ok(Some(deliveries));
                    }
                    Some(None) => look.waiting += holder.waiting,
                    // What is refused of one holder is of the others.
                    None => look.holders = None,
                }
            } else if let Some((source, mut holders)) = look.holders.take() {
                if let Some(holder) = holders.next() {
                    self.look_at(&source, holder, look, link, clock).await?;
                    look.holders = Some((source, holders));
                }
            } else if let Some(source) = look.sources.next() {
                look.holders = self.holders(source, link).await?;
            } else {
                return Ok(None);
            }
        }
    }

    /// The look is over. Returns what it came to.
    pub fn end(&mut self, look: ReclaimLook) -> Taken {
        let (now, wait) = (Instant::now(), look.next.max(SHORTEST));
        let mut taken = look.taken;
        taken.more |= look.left_out;
        if !look.left_out {
            self.visits.looked(&self.shared.quarantine, look.waiting);
            self.schedule.all = now + wait;
        }
        self.schedule.next = if taken.more { now } else { now + wait };
        taken
    }

    /// Who holds entries of a stream; nobody is asked if nothing of it may come.
    async fn holders(
        &mut self,
        source: Arc<Source>,
        link: &mut Link,
    ) -> Result<Option<(Arc<Source>, IntoIter<ConsumerInfo>)>, Trouble> {
        let (group, stream) = (&source.surroundings.group, &source.keys.stream);
        // If it is paused, it would only have to be put back.
        if source.pauses.stream() || self.refusals.wait(Chore::Reclaim, stream).is_some() {
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
        let Some(lease_ms) = lease_ms.filter(|_| !self.shared.identity.is_me(&holder.name)) else {
            return Ok(());
        };
        let left = lease_ms.saturating_sub(holder.idle_ms);
        if left > 0 {
            look.next = look.next.min(Duration::from_millis(left + 1));
        }
        if holder.pending == 0 {
            let forgot = self.forget(link, source, &holder, lease_ms, clock).await;
            let stream = &source.keys.stream;
            self.refusals.heard(Chore::Forget, stream, forgot)?;
        } else if look.room() == 0 && !look.all {
            look.left_out |= left == 0;
        } else if left == 0 || look.thorough {
            look.holder = Some(Holder {
                source: source.clone(),
                info: holder,
                lease_ms,
                from: "-".to_owned(),
                page: None,
                waiting: 0,
            });
        }
        Ok(())
    }

    /// What comes next of a holder's entries: page by page all that there is room for; and of those that may have killed
    /// it, one. Nothing if that was all.
    async fn go_on(
        &mut self,
        holder: &mut Holder,
        look: &mut ReclaimLook,
        link: &mut Link,
        clock: &Clock,
        prefetch: &Prefetch,
    ) -> Result<Option<Deliveries>, Trouble> {
        loop {
            let Some(page) = &mut holder.page else {
                if !self.shared.health.is_healthy() {
                    // Redis has stood still since the look began: what looks old may only be unrenewed.
                    return Ok(None);
                }
                let since = Instant::now();
                let wanted = self.wanted(holder, look.room(), false, clock, prefetch);
                let brought = link.reclaim(&holder.source.keys, &wanted).await?;
                look.taken.entries += brought.entries.len();
                holder.waiting += brought.waiting;
                holder.page = Some(Page {
                    waiting: brought.waiting,
                    next: brought.next.clone(),
                });
                return Ok(Some(take_over(holder, since, brought)));
            };
            if std::mem::take(&mut page.waiting) > 0
                && !self.shared.quarantine.is_occupied()
                && let Some(deliveries) = self.reclaim_alone(holder, link, clock, prefetch).await?
            {
                look.taken.entries += 1;
                holder.waiting -= 1;
                return Ok(Some(deliveries));
            }
            match holder.page.take().and_then(|page| page.next) {
                Some(next) if look.room() > 0 => holder.from = next,
                next => {
                    look.taken.more |= next.is_some();
                    return Ok(None);
                }
            }
        }
    }

    /// Takes one entry that may have killed its workers, once nothing else runs here.
    async fn reclaim_alone(
        &mut self,
        holder: &Holder,
        link: &mut Link,
        clock: &Clock,
        prefetch: &Prefetch,
    ) -> Result<Option<Deliveries>, Trouble> {
        let shared = &self.shared;
        let running = || shared.slots.running();
        let admission = self
            .visits
            .ask(&shared.quarantine, running, shared.identity.lease);
        if let Admission::At(at) = admission {
            self.schedule.look_soon(at);
            return Ok(None);
        }
        let (since, source) = (Instant::now(), &holder.source);
        let wanted = self.wanted(holder, 0, true, clock, prefetch);
        let brought = link.reclaim(&source.keys, &wanted).await?;
        source.report_trimmed(&brought.trimmed, "while their worker was gone");
        let Some(suspect) = brought.alone else {
            return Ok(None);
        };
        tell!(
            warn,
            About::raw(&suspect.entry, source),
            deliveries = suspect.count,
            "its workers died: it runs with nothing else starting beside it"
        );
        Ok(Some(Deliveries {
            source: source.clone(),
            coming: Coming::Alone,
            since,
            entries: vec![Delivery::again(suspect, brought.now_ms)],
        }))
    }

    fn wanted<'a>(
        &'a self,
        holder: &'a Holder,
        most: usize,
        alone: bool,
        clock: &Clock,
        prefetch: &Prefetch,
    ) -> Reclaim<'a> {
        Reclaim {
            group: &self.shared.identity.group,
            me: &self.shared.identity.name,
            holder: &holder.info.name,
            lease_ms: holder.lease_ms,
            most,
            most_bytes: prefetch.room(&self.shared).clamp(1, ROOM),
            alone_from: ALONE_FROM.min(self.shared.least_attempts),
            room_alone: alone,
            from: &holder.from,
            clock: clock.expected(self.shared.identity.lease / 2),
        }
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
        let expected = Some(clock.expected(self.shared.identity.lease / 2));
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

impl Schedule {
    fn now() -> Self {
        Schedule {
            next: Instant::now(),
            all: Instant::now(),
            looks: 0,
            soon: None,
        }
    }

    /// When every holder is to be looked at next.
    fn next_at_all(&self) -> Instant {
        self.soon.map_or(self.all, |soon| soon.min(self.all))
    }

    fn look_soon(&mut self, at: Instant) {
        self.soon = Some(self.soon.map_or(at, |soon| soon.min(at)));
    }
}

fn take_over(holder: &Holder, since: Instant, brought: Reclaimed) -> Deliveries {
    let source = &holder.source;
    source.report_trimmed(&brought.trimmed, "while their worker was gone");
    let count = brought.entries.len();
    if count > 0 {
        tracing::warn!(
            from = %shown(&holder.info.name),
            stream = source.keys.stream,
            count,
            "took over from a worker that is gone"
        );
    }
    let entries = brought.entries.into_iter();
    let entries = entries.map(|entry| Delivery::again(entry, brought.now_ms));
    Deliveries {
        source: source.clone(),
        coming: Coming::First,
        since,
        entries: entries.collect(),
    }
}
