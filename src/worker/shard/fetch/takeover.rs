//! Takes over what one holder left: page by page of its list what there is room for, and an entry that may have killed its
//! workers only through the quarantine, alone.

use std::sync::Arc;
use std::time::Instant;

use super::delivery::{Deliveries, Delivery};
use super::prefetch::{Prefetch, ROOM};
use crate::about::{About, tell};
use crate::metrics::entries::Via;
use crate::names::shown;
use crate::stream::{ConsumerInfo, Link, Reclaim, Reclaimed, Trouble};
use crate::worker::shard::clock::Clock;
use crate::worker::shard::health::ServerHealth;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Coming;
use crate::worker::state::quarantine::{Admission, Quarantine, Visits};
use crate::worker::state::slots::Slots;
use crate::worker::state::source::Source;

/// From which attempt on an entry whose workers died goes alone.
const ALONE_FROM: u32 = 3;

/// Takes over entries of holders that are gone.
pub(crate) struct Takeover {
    identity: Arc<Identity>,
    health: Arc<ServerHealth>,
    quarantine: Arc<Quarantine>,
    slots: Arc<Slots>,
    /// From which attempt on an entry goes alone: the third, or the last if that comes first,
    alone_from: u32,
    /// which is another one for these types.
    alone_from_of: Vec<(String, u32)>,
    visits: Visits,
}

/// A holder whose entries are being taken.
pub(crate) struct Holder {
    pub source: Arc<Source>,
    info: ConsumerInfo,
    lease_ms: u64,
    /// Where to go on in its list.
    from: String,
    /// What has come of this part of its list.
    page: Option<Page>,
    /// How many have to come alone and have not come yet.
    pub waiting: u64,
    /// There is more of it than there was room for.
    pub more: bool,
    /// When to ask again for one that has to come alone.
    pub ask_again: Option<Instant>,
}

struct Page {
    /// Some of it have to come alone.
    has_suspects: bool,
    /// Where the next one begins.
    next: Option<String>,
}

impl Takeover {
    /// `attempts` says how many there are at most, `attempts_of` of which types there may be more or fewer.
    pub fn new(
        identity: Arc<Identity>,
        health: Arc<ServerHealth>,
        quarantine: Arc<Quarantine>,
        slots: Arc<Slots>,
        attempts: u32,
        attempts_of: impl IntoIterator<Item = (String, u32)>,
    ) -> Self {
        let alone_from = ALONE_FROM.min(attempts);
        Takeover {
            identity,
            health,
            quarantine,
            slots,
            alone_from,
            alone_from_of: attempts_of
                .into_iter()
                .map(|(of, most)| (of, ALONE_FROM.min(most)))
                .filter(|&(_, from)| from != alone_from)
                .collect(),
            visits: Visits::new(),
        }
    }

    /// An entry has come that runs alone.
    pub fn entered(&mut self) {
        self.visits.entered(&self.quarantine);
    }

    /// Opens the quarantine's gate again when that is due; `held` is how many entries are held. Returns whether the next
    /// suspect may be looked for at once.
    pub fn tend_quarantine(&mut self, held: usize) -> bool {
        let lease = self.identity.lease;
        self.visits.tend(&self.quarantine, held, lease)
    }

    /// A look at all holders is over that found so many that have to come alone and have not come yet.
    pub fn looked(&mut self, waiting: u64) {
        self.visits.looked(&self.quarantine, waiting);
    }

    /// What comes next of a holder's entries, with room for so many: one page of them, or one that comes alone. Nothing
    /// once that was all.
    pub async fn next(
        &mut self,
        holder: &mut Holder,
        room: usize,
        link: &mut Link,
        clock: &Clock,
        prefetch: &Prefetch,
    ) -> Result<Option<Deliveries>, Trouble> {
        loop {
            let Some(page) = &mut holder.page else {
                if !self.health.is_healthy() {
                    // Redis has stood still since the look began: what looks old may only be unrenewed.
                    return Ok(None);
                }
                let since = Instant::now();
                let wanted = self.wanted(holder, room, false, clock, prefetch);
                let brought = link.reclaim(&holder.source.keys, &wanted).await?;
                return Ok(Some(holder.turned_page(since, brought)));
            };
            if std::mem::take(&mut page.has_suspects)
                && !self.quarantine.is_occupied()
                && let Some(suspect) = self.take_suspect(holder, link, clock, prefetch).await?
            {
                holder.waiting -= 1;
                return Ok(Some(suspect));
            }
            match holder.page.take().and_then(|page| page.next) {
                Some(next) if room > 0 => holder.from = next,
                next => {
                    holder.more = next.is_some();
                    return Ok(None);
                }
            }
        }
    }

    /// Takes one entry that may have killed its workers, once nothing else runs here.
    async fn take_suspect(
        &mut self,
        holder: &mut Holder,
        link: &mut Link,
        clock: &Clock,
        prefetch: &Prefetch,
    ) -> Result<Option<Deliveries>, Trouble> {
        let running = || self.slots.running();
        let lease = self.identity.lease;
        if let Admission::At(at) = self.visits.ask(&self.quarantine, running, lease) {
            holder.ask_again = Some(holder.ask_again.map_or(at, |known| known.min(at)));
            return Ok(None);
        }
        let (since, source) = (Instant::now(), &holder.source);
        let wanted = self.wanted(holder, 0, true, clock, prefetch);
        let brought = link.reclaim(&source.keys, &wanted).await?;
        source.report_trimmed(&brought.trimmed, "while their worker was gone");
        let Some(suspect) = brought.alone else {
            return Ok(None);
        };
        let released = suspect.record.as_ref().map_or(0, |record| record.released);
        let attempt = suspect.count.saturating_sub(released).max(1);
        tell!(
            warn,
            About::raw(&suspect.entry, &source.keys.stream, attempt),
            "its workers died: it runs with nothing else starting beside it"
        );
        Ok(Some(Deliveries {
            via: Via::Reclaim,
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
            group: &self.identity.group,
            me: &self.identity.name,
            holder: &holder.info.name,
            lease_ms: holder.lease_ms,
            most,
            most_bytes: prefetch.room().clamp(1, ROOM),
            alone_from: self.alone_from,
            alone_from_of: &self.alone_from_of,
            room_alone: alone,
            from: &holder.from,
            clock: clock.expected(self.identity.lease / 2),
        }
    }
}

impl Holder {
    /// A holder of entries of a stream, from the beginning of its list.
    pub fn new(source: Arc<Source>, info: ConsumerInfo, lease_ms: u64) -> Self {
        Holder {
            source,
            info,
            lease_ms,
            from: "-".to_owned(),
            page: None,
            waiting: 0,
            more: false,
            ask_again: None,
        }
    }

    /// A page of its list has come.
    fn turned_page(&mut self, since: Instant, brought: Reclaimed) -> Deliveries {
        self.source
            .report_trimmed(&brought.trimmed, "while their worker was gone");
        let count = brought.entries.len();
        if count > 0 {
            tracing::warn!(
                from = %shown(&self.info.name),
                stream = self.source.keys.stream,
                count,
                "took over from a worker that is gone"
            );
        }
        self.waiting += brought.waiting;
        self.page = Some(Page {
            has_suspects: brought.waiting > 0,
            next: brought.next,
        });
        let entries = brought.entries.into_iter();
        let entries = entries.map(|entry| Delivery::again(entry, brought.now_ms));
        Deliveries {
            via: Via::Reclaim,
            source: self.source.clone(),
            coming: Coming::First,
            since,
            entries: entries.collect(),
        }
    }
}
