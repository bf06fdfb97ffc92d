//! The reclaimer's part of the fetcher: what workers that died or froze left behind.
//!
//! It looks at a holder when the holder's own lease, which its name tells, must have run out; it trusts the ages it
//! sees only while this worker's own renewals are answered in time; and it lets an entry that may have killed its
//! workers in only through the quarantine, alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::delivery::Delivery;
use super::due_retries::Taken;
use super::fetcher::Fetcher;
use super::prefetch::ROOM;
use crate::names::shown;
use crate::stream::{ConsumerInfo, Link, Reclaim, Reclaimed, Trouble};
use crate::worker::run::executor::running;
use crate::worker::shard::refusals::Chore;
use crate::worker::state::about::{About, tell};
use crate::worker::state::inflight::Coming;
use crate::worker::state::quarantine::{Admission, Visits};
use crate::worker::state::source::Source;

/// From which attempt on an entry whose workers died goes alone.
const ALONE_FROM: u32 = 3;
/// The longest time between two looks at the group's consumers.
const LONGEST: Duration = Duration::from_secs(5);
/// The shortest.
const SHORTEST: Duration = Duration::from_millis(50);
/// In every so-manieth look also holders that are alive are looked at.
const THOROUGH: u64 = 10;
/// After so many leases without a word a consumer that holds nothing is forgotten.
const FORGOTTEN: u32 = 10;

/// What one holder's entries came to.
struct Brought {
    taken: Taken,
    /// How many have to come alone and have not come yet.
    waiting: u64,
}

/// When to look next, and when suspects may come.
///
/// A look without room takes nothing but suspects. It must not use up the turn of one with room: where it has found
/// something, the next one with room is due at once.
pub(crate) struct Schedule {
    /// The next look with room.
    next: Instant,
    /// The next look at every holder, room or not: suspects need none.
    all: Instant,
    looks: u64,
    /// Something is to be looked for sooner: a suspect that may come in now.
    soon: Option<Instant>,
    pub visits: Visits,
}

impl Schedule {
    pub fn new() -> Self {
        Schedule {
            next: Instant::now(),
            all: Instant::now(),
            looks: 0,
            soon: None,
            visits: Visits::new(),
        }
    }

    /// When to look next, with room.
    pub fn next(&self) -> Instant {
        self.next.min(self.next_at_all())
    }

    /// When every holder is to be looked at next.
    fn next_at_all(&self) -> Instant {
        self.soon.map_or(self.all, |soon| soon.min(self.all))
    }

    pub fn look_soon(&mut self, at: Instant) {
        self.soon = Some(self.soon.map_or(at, |soon| soon.min(at)));
    }
}

impl Fetcher {
    /// Takes up to `most` entries whose holders let their leases run out.
    pub(super) async fn reclaim(&mut self, link: &mut Link, most: usize) -> Result<Taken, Trouble> {
        let now = Instant::now();
        let all = self.reclaims.next_at_all() <= now;
        if !all && (most == 0 || self.reclaims.next > now) {
            return Ok(Taken {
                entries: 0,
                more: self.reclaims.next <= now,
            });
        }
        if !self.shared.is_healthy() {
            self.reclaims.soon = None;
            self.reclaims.next = now + self.shared.lease / 10;
            self.reclaims.all = self.reclaims.next;
            return Ok(Taken::NONE);
        }
        if all {
            self.reclaims.soon = None;
            self.reclaims.looks += 1;
        }
        let thorough = all && self.reclaims.looks.is_multiple_of(THOROUGH);
        let (mut taken, mut next) = (Taken::NONE, LONGEST.min(self.shared.lease));
        let (mut waiting, mut left_out) = (0, false);
        for source in self.shared.active_sources() {
            if source.pauses.stream() {
                // It would only have to be put back.
                continue;
            }
            let (group, stream) = (&source.surroundings.group, &source.keys.stream);
            if self.refusals.wait(Chore::Reclaim, stream).is_some() {
                continue;
            }
            let holders = link.consumers(&source.keys, group).await;
            let holders = self.refusals.heard(Chore::Reclaim, stream, holders)?;
            for holder in holders.unwrap_or_default() {
                let Some(lease_ms) = holder
                    .lease_ms()
                    .filter(|_| !self.shared.is_me(&holder.name))
                else {
                    continue;
                };
                let left = lease_ms.saturating_sub(holder.idle_ms);
                if left > 0 {
                    next = next.min(Duration::from_millis(left + 1));
                }
                let room = most.saturating_sub(taken.entries);
                if holder.pending == 0 {
                    let forgot = self.forget(link, &source, &holder, lease_ms).await;
                    self.refusals.heard(Chore::Forget, stream, forgot)?;
                } else if room == 0 && !all {
                    left_out |= left == 0;
                } else if left == 0 || thorough {
                    let brought = self
                        .reclaim_from(link, &source, &holder, lease_ms, room)
                        .await;
                    let brought = self.refusals.heard(Chore::Reclaim, stream, brought)?;
                    // What is refused of one holder is of the others.
                    let Some(brought) = brought else { break };
                    taken.entries += brought.taken.entries;
                    taken.more |= brought.taken.more;
                    waiting += brought.waiting;
                }
            }
        }
        let (now, wait) = (Instant::now(), next.max(SHORTEST));
        taken.more |= left_out;
        if !left_out {
            self.reclaims
                .visits
                .looked(&self.shared.quarantine, waiting);
            self.reclaims.all = now + wait;
        }
        self.reclaims.next = if taken.more { now } else { now + wait };
        Ok(taken)
    }

    /// All of one holder's entries there is room for; of those that may have killed it, one.
    async fn reclaim_from(
        &mut self,
        link: &mut Link,
        source: &Arc<Source>,
        holder: &ConsumerInfo,
        lease_ms: u64,
        most: usize,
    ) -> Result<Brought, Trouble> {
        let mut from = "-".to_owned();
        let mut brought = Brought {
            taken: Taken::NONE,
            waiting: 0,
        };
        loop {
            if !self.shared.is_healthy() {
                // Redis has stood still since the look began: what looks old may only be unrenewed.
                return Ok(brought);
            }
            let since = Instant::now();
            let room = most.saturating_sub(brought.taken.entries);
            let wanted = self.wanted(holder, lease_ms, room, &from, false);
            let mut page = link.reclaim(&source.keys, &wanted).await?;
            brought.taken.entries += self.take_over(source, holder, since, &mut page);
            brought.waiting += page.waiting;
            if page.waiting > 0
                && !self.shared.quarantine.is_occupied()
                && self
                    .reclaim_alone(link, source, holder, lease_ms, &from)
                    .await?
            {
                brought.taken.entries += 1;
                brought.waiting -= 1;
            }
            match page.next {
                Some(next) if brought.taken.entries < most => from = next,
                next => {
                    brought.taken.more = next.is_some();
                    return Ok(brought);
                }
            }
        }
    }

    /// Takes one entry that may have killed its workers, once nothing else runs here.
    async fn reclaim_alone(
        &mut self,
        link: &mut Link,
        source: &Arc<Source>,
        holder: &ConsumerInfo,
        lease_ms: u64,
        from: &str,
    ) -> Result<bool, Trouble> {
        let shared = self.shared.clone();
        let running = || running(&shared.slots, shared.concurrency);
        if let Admission::At(at) =
            self.reclaims
                .visits
                .ask(&shared.quarantine, running, shared.lease)
        {
            self.reclaims.look_soon(at);
            return Ok(false);
        }
        let since = Instant::now();
        let reclaim = self.wanted(holder, lease_ms, 0, from, true);
        let brought = link.reclaim(&source.keys, &reclaim).await?;
        source.report_trimmed(&brought.trimmed, "while their worker was gone");
        let Some(suspect) = brought.alone else {
            return Ok(false);
        };
        tell!(
            warn,
            About::raw(&suspect.entry, source),
            deliveries = suspect.count,
            "its workers died: it runs with nothing else starting beside it"
        );
        self.reclaims.visits.entered(&shared.quarantine);
        let arrival = Delivery::again(suspect, brought.now_ms);
        self.hand_over(source, Coming::Alone, since, vec![arrival]);
        Ok(true)
    }

    fn wanted<'a>(
        &'a self,
        holder: &'a ConsumerInfo,
        lease_ms: u64,
        most: usize,
        from: &'a str,
        alone: bool,
    ) -> Reclaim<'a> {
        Reclaim {
            group: &self.shared.group,
            me: &self.shared.consumer,
            holder: &holder.name,
            lease_ms,
            most,
            most_bytes: self.prefetch.room(&self.shared).clamp(1, ROOM),
            alone_from: ALONE_FROM.min(self.shared.least_attempts),
            room_alone: alone,
            from,
            clock: self.clock.expected(self.shared.lease / 2),
        }
    }

    /// What the server's clock shows now, unless the server has stood still meanwhile: then it is later there.
    pub(super) fn server_time(&self) -> u64 {
        self.clock.now()
    }

    fn take_over(
        &mut self,
        source: &Arc<Source>,
        holder: &ConsumerInfo,
        since: Instant,
        brought: &mut Reclaimed,
    ) -> usize {
        source.report_trimmed(&brought.trimmed, "while their worker was gone");
        let count = brought.entries.len();
        if count > 0 {
            tracing::warn!(
                from = %shown(&holder.name),
                stream = source.keys.stream,
                count,
                "took over from a worker that is gone"
            );
        }
        let entries = std::mem::take(&mut brought.entries);
        let entries = entries
            .into_iter()
            .map(|entry| Delivery::again(entry, brought.now_ms))
            .collect();
        self.hand_over(source, Coming::First, since, entries);
        count
    }

    async fn forget(
        &self,
        link: &mut Link,
        source: &Source,
        holder: &ConsumerInfo,
        lease_ms: u64,
    ) -> Result<(), Trouble> {
        if self
            .refusals
            .wait(Chore::Forget, &source.keys.stream)
            .is_some()
        {
            return Ok(());
        }
        if holder.idle_ms > lease_ms * u64::from(FORGOTTEN)
            && link
                .forget(
                    &source.keys,
                    &source.surroundings.group,
                    &holder.name,
                    Some(self.clock.expected(self.shared.lease / 2)),
                )
                .await?
        {
            tracing::debug!(
                consumer = %shown(&holder.name),
                stream = source.keys.stream,
                "forgot a consumer that is gone"
            );
        }
        Ok(())
    }
}
