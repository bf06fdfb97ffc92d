//! Takes entries that wait for a worker that can handle them: those of handlers that are free for more of them, and, now
//! and then, what others may have left there.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use super::delivery::{Begin, Deliveries, Delivery, Taken};
use super::flow_control::room_of;
use super::group_rates::GroupRates;
use super::prefetch::Prefetch;
use crate::metrics::entries::Via;
use crate::policy::Room;
use crate::stream::{Kind, Link, Trouble};
use crate::worker::pace::due::LEAST;
use crate::worker::run::routes::{Bound, Routes};
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Coming;
use crate::worker::state::source::{Source, Sources};

/// What waits is looked for when somebody has told of it.
const UNTIL_TOLD: Duration = Duration::from_secs(3600);

/// Takes entries that wait.
pub(crate) struct WaitingEntries {
    identity: Arc<Identity>,
    sources: Arc<Sources>,
    routes: Arc<Routes>,
    next: Instant,
    refusals: Refusals,
}

/// One look at all streams.
pub(crate) struct WaitingLook {
    most: usize,
    sources: IntoIter<Arc<Source>>,
    taken: Taken,
    /// When to look again, from now.
    next: Duration,
}

/// Which entries of one stream may come.
struct Wanted<'a> {
    kinds: Vec<Kind<'a>>,
    /// The places of the handlers that the first of these are for.
    places: Vec<usize>,
}

impl WaitingEntries {
    pub fn new(identity: Arc<Identity>, sources: Arc<Sources>, routes: Arc<Routes>) -> Self {
        WaitingEntries {
            identity,
            sources,
            routes,
            next: Instant::now(),
            refusals: Refusals::default(),
        }
    }

    /// When to look next.
    pub fn next_look(&self) -> Instant {
        self.next
    }

    /// There may be something: the next look is at this time.
    pub fn look_at(&mut self, at: Instant) {
        self.next = at;
    }

    /// A look for up to `most` entries, if it is time for one.
    pub fn begin(&self, most: usize) -> Begin<WaitingLook> {
        let now = Instant::now();
        if self.next > now || most == 0 {
            return Begin::Not(Taken::none_and(self.next <= now));
        }
        Begin::Look(WaitingLook {
            most,
            sources: self.sources.fetched().into_iter(),
            taken: Taken::NONE,
            next: UNTIL_TOLD,
        })
    }

    /// What comes of the next stream that has some; nothing once the look is over.
    pub async fn next(
        &mut self,
        look: &mut WaitingLook,
        link: &mut Link,
        rates: &mut GroupRates,
        prefetch: &mut Prefetch,
    ) -> Result<Option<Deliveries>, Trouble> {
        while let Some(source) = look.sources.next() {
            let left = look.most - look.taken.entries;
            if left == 0 {
                look.taken.more = true;
                return Ok(None);
            }
            if source.pauses.stream() || !source.has_waiting() {
                continue;
            }
            let wanted = wanted(&self.routes, look, link, rates, &source, left).await?;
            if wanted.kinds.is_empty() {
                continue;
            }
            let (group, stream) = (&source.surroundings.group, &source.keys.stream);
            if let Some(wait) = self.refusals.wait(Chore::TakeWaiting, stream) {
                look.wait_for(wait);
                continue;
            }
            let since = Instant::now();
            let (left, room) = prefetch.most(left);
            let (me, kinds) = (&self.identity.name, &wanted.kinds);
            let found = link.take_waiting(&source.keys, group, me, left, room, kinds);
            let found = self
                .refusals
                .heard(Chore::TakeWaiting, stream, found.await)?;
            let Some(found) = found else {
                look.next = LEAST;
                continue;
            };
            source.report_trimmed(&found.trimmed, "while they were parked");
            for (place, more) in wanted.places.into_iter().zip(&found.more) {
                match more {
                    true => source.list(place),
                    false => source.unlist(place),
                }
            }
            if found.more.contains(&true) {
                look.next = LEAST;
            }
            look.taken.entries += found.entries.len();
            let entries = found.entries.into_iter();
            let entries = entries.map(|entry| Delivery::again(entry, found.now_ms));
            return Ok(Some(Deliveries {
                via: Via::Wake,
                coming: Coming::InTurn,
                since,
                entries: entries.collect(),
                source,
            }));
        }
        Ok(None)
    }

    /// The look is over. Returns what it came to.
    pub fn end(&mut self, look: WaitingLook) -> Taken {
        let wait = match look.taken.more {
            true => Duration::ZERO,
            false => look.next,
        };
        self.next = Instant::now() + wait;
        look.taken
    }
}

impl WaitingLook {
    fn wait_for(&mut self, wait: Duration) {
        self.next = self.next.min(wait.max(LEAST));
    }
}

/// What may come of a stream, of `left` entries.
async fn wanted<'a>(
    routes: &'a Routes,
    look: &mut WaitingLook,
    link: &Link,
    rates: &mut GroupRates,
    source: &Source,
    left: usize,
) -> Result<Wanted<'a>, Trouble> {
    let (all, listed) = (source.take_heard_of_waiting(), source.listed());
    let (mut kinds, mut places) = (Vec::new(), Vec::new());
    for bound in routes.all() {
        if !all && !listed.contains(&bound.place) {
            continue;
        }
        let most = match room(routes, link, rates, source, bound).await? {
            Room::None(wait) => {
                if listed.contains(&bound.place) {
                    look.wait_for(wait);
                }
                continue;
            }
            Room::Some(room) => left.min(room),
            Room::Any => left,
        };
        let range = &bound.waiting;
        kinds.push(Kind { range, most });
        places.push(bound.place);
    }
    if all {
        let unbound = routes.unbound().iter();
        kinds.extend(unbound.map(|range| Kind { range, most: left }));
    }
    Ok(Wanted { kinds, places })
}

/// How many of a handler's entries that wait may come now.
async fn room(
    routes: &Routes,
    link: &Link,
    rates: &mut GroupRates,
    source: &Source,
    bound: &Bound,
) -> Result<Room, Trouble> {
    let room = room_of(routes, source, bound);
    let (Some(granted), Some(rate)) = (bound.gate.granted(), bound.gate.rate()) else {
        return Ok(room);
    };
    if matches!(room, Room::None(_)) {
        return Ok(room);
    }
    // Asked for beforehand, so that none comes for nothing.
    if granted.left() == 0 {
        rates.ask_for_starts(link, bound, rate.burst()).await?;
    }
    Ok(match granted.left() {
        0 => Room::None(granted.dry_for().unwrap_or(LEAST)),
        left => room.and(Room::Some(left as usize)),
    })
}
