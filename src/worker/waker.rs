//! The waker's part of the fetcher: entries that are parked come back when their time has come.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::arrival::Arrival;
use super::clock::Step;
use super::fetcher::Fetcher;
use super::held::Coming;
use super::refusals::Chore;
use super::source::Source;
use crate::policy::Room;
use crate::stream::{Link, Trouble};

/// How often every worker looks for due entries that nobody told it of, and for what is paused: that holds within a
/// second. A server at rest looks at its clock ten times a second only, and may wake it so much later: scheduled events
/// are to be found within a second all the same.
const POLL: Duration = Duration::from_millis(850);
/// The least time between two looks, so that due times close together are woken together.
const LEAST: Duration = Duration::from_millis(5);

/// When parked entries are to be looked for next.
pub(super) struct Alarm {
    pub next: Instant,
    /// No look without room before this: it takes nothing, and only tells what is paused.
    bare: Instant,
}

/// What one kind of fetching brought.
pub(super) struct Taken {
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
        match step {
            Step::Ahead(by) => {
                let by = crate::config::duration::format(by);
                tracing::warn!(%by, "the clock of Redis was set ahead: for a lease nobody's entries are taken over");
                // All look old that have not renewed since.
                self.shared.not_renewed();
            }
            Step::Back(by) => {
                let told = crate::config::duration::format(by);
                tracing::warn!(by = %told, "the clock of Redis was set back: what it noted since counts from now on");
                self.set_back = Some(by);
                self.alarm.next = Instant::now();
            }
        }
        let ahead = self.clock.ahead().as_millis() as u64;
        self.shared.clock_ahead_ms.store(ahead, Ordering::Relaxed);
    }

    /// Brings back what lies in the future since the server's clock was set back.
    async fn set_back(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let Some(by) = self.set_back else {
            return Ok(());
        };
        for source in self.shared.active_sources() {
            let (group, mut from) = (&source.surroundings.group, Some("-".to_owned()));
            while let Some(id) = from {
                from = match link.set_back(&source.keys, group, &id, by).await {
                    Err(Trouble::Refused(refused)) => {
                        tracing::warn!("{refused}");
                        None
                    }
                    next => next?,
                };
            }
        }
        self.set_back = None;
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
        self.set_back(link).await?;
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
            let since = Instant::now();
            let group = &source.surroundings.group;
            let (left, room) = self.budget.most(&self.shared, left);
            let left = if room == 0 { left.min(1) } else { left };
            if self
                .refusals
                .wait(Chore::Wake, &source.keys.stream)
                .is_some()
            {
                continue;
            }
            let woken = link
                .wake(&source.keys, group, &self.shared.consumer, left, room)
                .await;
            let stream = &source.keys.stream;
            let Some(woken) = self.refusals.heard(Chore::Wake, stream, woken)? else {
                continue;
            };
            let step = self.clock.saw(woken.now_ms, since, Instant::now());
            if let Some(step) = step {
                self.stepped(step);
            }
            if source.schedule.heard(woken.scheduled) {
                self.shared.schedule_changed.notify_one();
            }
            super::report_trimmed(&source, &woken.trimmed, "while they were parked");
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
            let entries: Vec<Arrival> = woken
                .entries
                .into_iter()
                .map(|entry| Arrival::again(entry, woken.now_ms))
                .collect();
            let left = left.saturating_sub(entries.len());
            self.ask_for_rates(link, &entries).await?;
            self.hand_over(&source, Coming::InTurn, since, entries);
            source.set_unknown(woken.unknown);
            if woken.unknown && left > 0 && !source.pauses.stream() {
                let found = self.take_known(link, &source, left).await?;
                taken.entries += found.entries;
                taken.more |= found.more;
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

    /// Takes what others gave back because they did not know its type or version, and this worker does.
    async fn take_known(
        &mut self,
        link: &mut Link,
        source: &Arc<Source>,
        most: usize,
    ) -> Result<Taken, Trouble> {
        let shared = self.shared.clone();
        let since = Instant::now();
        let group = &source.surroundings.group;
        let known = shared.routes.known();
        let (most, room) = self.budget.most(&shared, most);
        let stream = &source.keys.stream;
        if self.refusals.wait(Chore::TakeKnown, stream).is_some() {
            return Ok(Taken::NONE);
        }
        let found = link
            .take_known(&source.keys, group, &shared.consumer, most, room, known)
            .await;
        let Some(found) = self.refusals.heard(Chore::TakeKnown, stream, found)? else {
            return Ok(Taken::NONE);
        };
        super::report_trimmed(source, &found.trimmed, "while they were parked");
        let taken = Taken {
            entries: found.entries.len(),
            more: found.more,
        };
        let entries: Vec<Arrival> = found
            .entries
            .into_iter()
            .map(|entry| Arrival::again(entry, found.now_ms))
            .collect();
        self.ask_for_rates(link, &entries).await?;
        self.hand_over(source, Coming::InTurn, since, entries);
        Ok(taken)
    }
}
