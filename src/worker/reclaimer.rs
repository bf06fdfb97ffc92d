//! The reclaimer's part of the fetcher: what workers that died or froze left behind.
//!
//! It looks at a holder when the holder's own lease, which its name tells, must have run out; it trusts the ages it
//! sees only while this worker's own renewals are answered in time; and it lets an entry that may have killed its
//! workers in only through the ward, alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::executor::running;
use super::fetcher::{Arrival, Fetcher};
use super::source::Source;
use super::waker::Taken;
use super::ward::Ward;
use crate::stream::{ConsumerInfo, Link, Reclaim, Reclaimed, Trouble};

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

/// When to look next, and who is in the ward.
pub(super) struct Schedule {
    next: Instant,
    looks: u64,
    /// Since when a suspect has been running.
    suspect: Option<Instant>,
    /// Suspects that found the ward occupied or the worker busy are tried again then.
    retry: Option<Instant>,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            next: Instant::now(),
            looks: 0,
            suspect: None,
            retry: None,
        }
    }
}

impl Schedule {
    /// When to look next.
    pub fn next(&self) -> Instant {
        self.retry.map_or(self.next, |retry| retry.min(self.next))
    }

    /// A suspect that has run for a lease no longer keeps others from starting.
    pub fn look_after(&mut self, ward: &Ward, lease: Duration) {
        match self.suspect {
            Some(_) if !ward.is_occupied() => self.suspect = None,
            Some(since) if since.elapsed() > lease && !ward.is_open() => ward.open(),
            _ => {}
        }
    }

    /// A suspect has come in.
    pub fn admitted(&mut self, ward: &Ward) {
        ward.enter();
        self.suspect = Some(Instant::now());
    }
}

impl Fetcher {
    /// Takes up to `most` entries whose holders let their leases run out.
    pub(super) async fn reclaim(&mut self, link: &mut Link, most: usize) -> Result<Taken, Trouble> {
        let now = Instant::now();
        if self.reclaims.next() > now {
            return Ok(Taken::NONE);
        }
        if !self.shared.is_healthy() {
            self.reclaims.retry = None;
            self.reclaims.next = now + self.shared.lease / 10;
            return Ok(Taken::NONE);
        }
        self.reclaims.retry = None;
        self.reclaims.looks += 1;
        let thorough = self.reclaims.looks.is_multiple_of(THOROUGH);
        let (mut taken, mut next) = (Taken::NONE, LONGEST.min(self.shared.lease));
        for source in self.shared.active_sources() {
            for holder in link
                .consumers(&source.keys, &source.surroundings.group)
                .await?
            {
                let Some(lease_ms) = holder.lease_ms() else {
                    continue;
                };
                if self.shared.is_me(&holder.name) {
                    continue;
                }
                let left = lease_ms.saturating_sub(holder.idle_ms);
                if left > 0 {
                    next = next.min(Duration::from_millis(left + 1));
                }
                if holder.pending == 0 {
                    self.forget(link, &source, &holder, lease_ms).await?;
                } else if left == 0 || thorough {
                    let brought = self
                        .reclaim_from(link, &source, &holder, lease_ms, most - taken.entries)
                        .await?;
                    taken.entries += brought.entries;
                    taken.more |= brought.more;
                }
                if taken.entries >= most {
                    break;
                }
            }
        }
        let wait = if taken.more || taken.entries >= most {
            Duration::ZERO
        } else {
            next.max(SHORTEST)
        };
        self.reclaims.next = Instant::now() + wait;
        Ok(taken)
    }

    async fn reclaim_from(
        &mut self,
        link: &mut Link,
        source: &Arc<Source>,
        holder: &ConsumerInfo,
        lease_ms: u64,
        most: usize,
    ) -> Result<Taken, Trouble> {
        let mut from = "-".to_owned();
        let mut taken = Taken::NONE;
        loop {
            let since = Instant::now();
            let reclaim = self.wanted(
                holder,
                lease_ms,
                most.saturating_sub(taken.entries),
                &from,
                false,
            );
            let mut brought = link.reclaim(&source.keys, &reclaim).await?;
            taken.entries += self.take_over(source, holder, since, &mut brought);
            if brought.waiting > 0 && !self.shared.ward.is_occupied() {
                taken.entries += self
                    .reclaim_alone(link, source, holder, lease_ms, &from)
                    .await?;
            }
            match brought.next {
                Some(next) if taken.entries < most => from = next,
                next => {
                    taken.more = next.is_some();
                    return Ok(taken);
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
    ) -> Result<usize, Trouble> {
        let shared = self.shared.clone();
        // Soon again, whether it comes in now or not: suspects come one by one.
        self.reclaims.retry = Some(Instant::now() + SHORTEST);
        if !shared
            .ward
            .quiet(|| running(&shared.slots, shared.concurrency))
            .await
        {
            return Ok(0);
        }
        let since = Instant::now();
        let reclaim = self.wanted(holder, lease_ms, 0, from, true);
        let brought = match link.reclaim(&source.keys, &reclaim).await {
            Ok(brought) => brought,
            Err(trouble) => {
                shared.ward.open();
                return Err(trouble);
            }
        };
        super::report_trimmed(source, &brought.trimmed, "while their worker was gone");
        let Some(suspect) = brought.alone else {
            shared.ward.open();
            return Ok(0);
        };
        tracing::warn!(
            entry = %suspect.entry.id, stream = source.keys.stream, deliveries = suspect.count,
            "its workers died: it runs with nothing else starting beside it"
        );
        self.reclaims.admitted(&shared.ward);
        let arrival = Arrival::again(suspect, brought.now_ms, holder.is_alone());
        self.hand_over(source, true, since, vec![arrival]);
        Ok(1)
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
            most_bytes: super::ROOM,
            alone_from: ALONE_FROM.min(self.shared.least_attempts),
            room_alone: alone,
            from,
        }
    }

    fn take_over(
        &mut self,
        source: &Arc<Source>,
        holder: &ConsumerInfo,
        since: Instant,
        brought: &mut Reclaimed,
    ) -> usize {
        super::report_trimmed(source, &brought.trimmed, "while their worker was gone");
        let count = brought.entries.len();
        if count > 0 {
            tracing::warn!(
                from = holder.name,
                stream = source.keys.stream,
                count,
                "took over from a worker that is gone"
            );
        }
        let entries = std::mem::take(&mut brought.entries);
        let entries = entries
            .into_iter()
            .map(|entry| Arrival::again(entry, brought.now_ms, false))
            .collect();
        self.hand_over(source, false, since, entries);
        count
    }

    async fn forget(
        &self,
        link: &mut Link,
        source: &Source,
        holder: &ConsumerInfo,
        lease_ms: u64,
    ) -> Result<(), Trouble> {
        if holder.idle_ms > lease_ms * u64::from(FORGOTTEN)
            && link
                .forget(&source.keys, &source.surroundings.group, &holder.name)
                .await?
        {
            tracing::debug!(
                consumer = holder.name,
                stream = source.keys.stream,
                "forgot a consumer that is gone"
            );
        }
        Ok(())
    }
}
