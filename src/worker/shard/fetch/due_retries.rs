//! The waker's part of the fetcher: entries that are parked come back when their time has come.

use std::time::{Duration, Instant};

use super::delivery::Delivery;
use super::fetcher::Fetcher;
use crate::policy::Room;
use crate::stream::{Kind, Link, Trouble};
use crate::worker::run::routes::Bound;
use crate::worker::shard::clock::{LEAST as STEP, Step, Way, ticks};
use crate::worker::shard::refusals::Chore;
use crate::worker::state::inflight::Coming;
use crate::worker::state::source::Source;

/// How often every worker looks for due entries that nobody told it of, and for what is paused: that holds within a
/// second. A server at rest looks at its clock ten times a second only, and may wake it so much later: scheduled events
/// are to be found within a second all the same.
const POLL: Duration = Duration::from_millis(850);
/// The least time between two looks, so that due times close together are woken together.
const LEAST: Duration = Duration::from_millis(5);

/// What waits for a worker that can handle it is looked for when somebody has told of it.
const UNTIL_TOLD: Duration = Duration::from_secs(3600);

/// When parked entries are to be looked for next.
pub(crate) struct Alarm {
    pub next: Instant,
    /// No look without room before this: it takes nothing, and only tells what is paused.
    bare: Instant,
}

/// What one kind of fetching brought.
pub(crate) struct Taken {
    pub entries: usize,
    /// There is more of it, and it is worth asking again at once.
    pub more: bool,
}

impl Taken {
    pub const NONE: Taken = Taken {
        entries: 0,
        more: false,
    };
}

impl Default for Alarm {
    fn default() -> Self {
        Alarm {
            next: Instant::now(),
            bare: Instant::now(),
        }
    }
}

impl Alarm {
    fn set(&mut self, wait: Duration) {
        self.next = Instant::now() + wait.clamp(LEAST, POLL);
    }
}

impl Fetcher {
    /// The server's clock was set.
    fn stepped(&mut self, step: Step) {
        let by = crate::duration::format(step.by);
        match step.way {
            Way::Ahead => {
                tracing::warn!(%by, "the clock of Redis was set ahead: for a lease nobody's entries are taken over");
                // All look old that have not renewed since.
                self.shared.not_renewed();
            }
            Way::Back => {
                tracing::warn!(%by, "the clock of Redis was set back: what it noted since counts from now on");
            }
        }
        self.clock_set = Some(step);
        self.alarm = Alarm::default();
    }

    /// What is parked waits as long as it was to, and what lies in the future now counts from now on, since the server's
    /// clock was set.
    async fn follow_clock(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let Some(step) = self.clock_set else {
            return Ok(());
        };
        for source in self.shared.active_sources() {
            let group = &source.surroundings.group;
            loop {
                // With what the request takes on its way.
                let since = ticks().saturating_sub(step.after) + STEP / 2;
                match link.clock_set(&source.keys, group, step.ms(), since).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(Trouble::Refused(refused)) => {
                        tracing::warn!("{refused}");
                        break;
                    }
                    Err(trouble) => return Err(trouble),
                }
            }
        }
        self.clock_set = None;
        // Who looked alive for long is to be looked at when their leases have run out, counted from now.
        self.reclaims.look_soon(Instant::now());
        Ok(())
    }

    /// What is paused of a stream, as Redis says.
    fn learn_pauses(&mut self, source: &Source, paused: &[String]) {
        let handlers = paused
            .iter()
            .filter_map(|what| what.strip_prefix("handler:"));
        let handlers = handlers.map(str::to_owned).collect();
        let is_paused = paused.iter().any(|what| what == "stream");
        if let Some(news) = source.pauses.learn(is_paused, handlers) {
            tracing::info!(stream = source.surroundings.stream, "{news}");
            // What was put back because of a pause comes back when that ends.
            for bound in self.shared.routes.all() {
                bound.gate.forget_put_back();
            }
            self.shared.replan();
        }
    }

    /// Takes up to `most` entries whose time has come, of all streams. Without room it only hears what is paused, now
    /// and then; what is due stays so.
    pub(super) async fn wake(&mut self, link: &mut Link, most: usize) -> Result<Taken, Trouble> {
        let now = Instant::now();
        // Parked by this worker since the last look; what others parked, the last look has told.
        let parked_here = self.shared.next_due();
        let at = parked_here.map_or(self.alarm.next, |due| due.min(self.alarm.next));
        let is_bare = most == 0;
        if at > now || (is_bare && self.alarm.bare > now) {
            self.alarm.next = at;
            return Ok(Taken {
                entries: 0,
                more: at <= now,
            });
        }
        if is_bare {
            self.alarm.bare = now + POLL;
        }
        self.shared.due_looked_for(now);
        self.follow_clock(link).await?;
        let (mut taken, mut next) = (Taken::NONE, POLL);
        for source in self.shared.active_sources() {
            let left = most - taken.entries;
            if left == 0 && !is_bare {
                taken.more = true;
                break;
            }
            // Where nothing may come it is asked all the same: for what is paused, and for when the next one is due.
            let (left, wait) = match self.room_to_wake(&source) {
                Room::Any => (left, Duration::ZERO),
                Room::Some(room) => (left.min(room), Duration::ZERO),
                Room::None(wait) => (0, wait),
            };
            let (since, sent) = (Instant::now(), ticks());
            let clock = self
                .is_clock_known
                .then(|| self.clock.expected(STEP))
                .filter(|clock| clock.ms > 0);
            let group = &source.surroundings.group;
            let (left, room) = self.prefetch.most(&self.shared, left);
            let left = if room == 0 { left.min(1) } else { left };
            if self
                .refusals
                .wait(Chore::Wake, &source.keys.stream)
                .is_some()
            {
                continue;
            }
            let woken = link
                .wake(
                    &source.keys,
                    group,
                    &self.shared.consumer,
                    left,
                    room,
                    clock,
                )
                .await;
            let stream = &source.keys.stream;
            let Some(woken) = self.refusals.heard(Chore::Wake, stream, woken)? else {
                continue;
            };
            self.shared.server_shows(woken.now_ms);
            let step = self.clock.saw(woken.now_ms, sent, ticks());
            self.shared.saw_clock(self.clock);
            let is_off = clock
                .is_some_and(|clock| woken.now_ms.abs_diff(clock.ms) > STEP.as_millis() as u64);
            self.is_clock_known = step.is_some() || !is_off;
            if source.schedule.heard(woken.scheduled) {
                self.shared.schedule_changed.notify_one();
            }
            source.report_trimmed(&woken.trimmed, "while they were parked");
            taken.entries += woken.entries.len();
            self.learn_pauses(&source, &woken.paused);
            if let Some(due) = woken.next {
                taken.more |= due.is_zero() && left > 0;
                next = next.min(due.max(wait));
            }
            if let Some(again) = &source.again
                && again.is_active() != (woken.again > 0)
            {
                if woken.again > 0 {
                    self.shared.rejoin();
                }
                again.set_active(woken.again > 0);
            }
            let entries: Vec<Delivery> = woken
                .entries
                .into_iter()
                .map(|entry| Delivery::again(entry, woken.now_ms))
                .collect();
            self.ask_for_rates(link, &entries).await?;
            self.hand_over(&source, Coming::InTurn, since, entries);
            source.heard_of_waiting(woken.waiting);
            if woken.waiting {
                self.waiting_next = now;
            }
            if let Some(step) = step {
                // Before anything else that is parked is taken for due.
                self.stepped(step);
                return Ok(taken);
            }
        }
        if taken.more {
            // No waiting, not even a little: a read would have to block for it, and a server at rest looks at its
            // clock ten times a second only.
            self.alarm.next = Instant::now();
        } else {
            self.alarm.set(next);
        }
        Ok(taken)
    }

    /// Takes up to `most` entries that wait for a worker that can handle them, of all streams: those of handlers that are
    /// free for more of them, and, now and then, what others may have left there.
    pub(super) async fn take_waiting(
        &mut self,
        link: &mut Link,
        most: usize,
    ) -> Result<Taken, Trouble> {
        let now = Instant::now();
        if self.waiting_next > now || most == 0 {
            return Ok(Taken {
                entries: 0,
                more: self.waiting_next <= now,
            });
        }
        let shared = self.shared.clone();
        let (mut taken, mut next) = (Taken::NONE, UNTIL_TOLD);
        for source in shared.active_sources() {
            let left = most - taken.entries;
            if left == 0 {
                taken.more = true;
                break;
            }
            if source.pauses.stream() || !source.has_waiting() {
                continue;
            }
            let (all, listed) = (source.take_heard_of_waiting(), source.listed());
            let (mut kinds, mut places) = (Vec::new(), Vec::new());
            for bound in shared.routes.all() {
                if !all && !listed.contains(&bound.place) {
                    continue;
                }
                let most = match self.room_of_waiting(link, &source, bound).await? {
                    Room::None(wait) => {
                        if listed.contains(&bound.place) {
                            next = next.min(wait.max(LEAST));
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
                let unbound = shared.routes.unbound().iter();
                kinds.extend(unbound.map(|range| Kind { range, most: left }));
            }
            if kinds.is_empty() {
                continue;
            }
            let stream = &source.keys.stream;
            if let Some(wait) = self.refusals.wait(Chore::TakeWaiting, stream) {
                next = next.min(wait.max(LEAST));
                continue;
            }
            let since = Instant::now();
            let group = &source.surroundings.group;
            let (left, room) = self.prefetch.most(&shared, left);
            let found = link
                .take_waiting(&source.keys, group, &shared.consumer, left, room, &kinds)
                .await;
            let Some(found) = self.refusals.heard(Chore::TakeWaiting, stream, found)? else {
                next = LEAST;
                continue;
            };
            source.report_trimmed(&found.trimmed, "while they were parked");
            for (place, more) in places.into_iter().zip(&found.more) {
                match more {
                    true => source.list(place),
                    false => source.unlist(place),
                }
            }
            if found.more.contains(&true) {
                next = LEAST;
            }
            taken.entries += found.entries.len();
            let entries: Vec<Delivery> = found
                .entries
                .into_iter()
                .map(|entry| Delivery::again(entry, found.now_ms))
                .collect();
            self.ask_for_rates(link, &entries).await?;
            self.hand_over(&source, Coming::InTurn, since, entries);
        }
        let wait = if taken.more { Duration::ZERO } else { next };
        self.waiting_next = Instant::now() + wait;
        Ok(taken)
    }

    /// How many of a handler's entries that wait may come now.
    async fn room_of_waiting(
        &mut self,
        link: &mut Link,
        source: &Source,
        bound: &Bound,
    ) -> Result<Room, Trouble> {
        let room = self.room_of(source, bound);
        let (Some(granted), Some(rate)) = (bound.gate.granted(), bound.gate.rate_setting) else {
            return Ok(room);
        };
        if matches!(room, Room::None(_)) {
            return Ok(room);
        }
        // Asked for beforehand, so that none comes for nothing.
        if granted.left() == 0 {
            self.ask_for_rate_of(link, bound, rate.burst()).await?;
        }
        Ok(match granted.left() {
            0 => Room::None(granted.dry_for().unwrap_or(LEAST)),
            left => room.and(Room::Some(left as usize)),
        })
    }
}
