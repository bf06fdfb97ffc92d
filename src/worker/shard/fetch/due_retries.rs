//! Takes entries that are parked when their time has come. The same look tells what is paused, whether replayed entries
//! wait, and what the server's clock shows.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use super::clock_steps::ClockSteps;
use super::delivery::{Begin, Deliveries, Delivery, Taken};
use super::flow_control::room_to_wake;
use super::prefetch::Prefetch;
use crate::metrics::entries::Via;
use crate::policy::{Room, SetLimit};
use crate::stream::{Link, Trouble, cancel_flag};
use crate::worker::pace::due::{DueTimes, POLL, Turn};
use crate::worker::run::attempt::cancel_run;
use crate::worker::run::routes::Routes;
use crate::worker::shard::clock::ticks;
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::heard::Heard;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::{Coming, Inflight};
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// Takes what is due.
pub(crate) struct DueRetries {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    routes: Arc<Routes>,
    heard: Arc<Heard>,
    inflight: Arc<Inflight>,
    times: DueTimes,
    refusals: Refusals,
}

/// One look at all streams.
pub(crate) struct DueLook {
    pub began: Instant,
    most: usize,
    sources: IntoIter<Arc<Source>>,
    taken: Taken,
    /// When something is due next, from now.
    next: Duration,
    /// The clock was set: nothing else that is parked is to be taken for due before that is followed.
    stepped: bool,
}

/// What is due of one stream.
pub(crate) struct Woken {
    pub deliveries: Deliveries,
    /// Entries wait for a worker that can handle them.
    pub tells_of_waiting: bool,
}

impl DueRetries {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        routes: Arc<Routes>,
        heard: Arc<Heard>,
        inflight: Arc<Inflight>,
    ) -> Self {
        DueRetries {
            identity,
            signals,
            sources,
            routes,
            heard,
            inflight,
            times: DueTimes::new(Instant::now()),
            refusals: Refusals::default(),
        }
    }

    /// When to look next for what others have parked.
    pub fn next_look(&self) -> Instant {
        self.times.next()
    }

    /// A look for up to `most` entries whose time has come, of all streams, if it is time for one. Without room it only
    /// hears what is paused, now and then; what is due stays so.
    pub fn begin(&mut self, most: usize) -> Begin<DueLook> {
        let now = Instant::now();
        // Parked by this worker since the last look; what others parked, the last look has told.
        let parked_here = self.signals.next_due();
        if let Turn::Not { due } = self.times.begin(now, parked_here, most == 0) {
            return Begin::Not(Taken::none_and(due));
        }
        self.signals.due_looked_for(now);
        Begin::Look(DueLook {
            began: now,
            most,
            sources: self.sources.active().into_iter(),
            taken: Taken::NONE,
            next: POLL,
            stepped: false,
        })
    }

    /// What is due of the next stream; nothing once the look is over.
    pub async fn next(
        &mut self,
        look: &mut DueLook,
        link: &mut Link,
        clock: &mut ClockSteps,
        prefetch: &mut Prefetch,
    ) -> Result<Option<Woken>, Trouble> {
        while let Some(source) = look.next_source() {
            let left = match source.is_fetched() {
                true => look.most - look.taken.entries,
                false => 0,
            };
            // If nothing may come it is asked all the same: for what is paused, and for when the next one is due.
            let (left, wait) = match room_to_wake(&self.routes, &source) {
                Room::Any => (left, Duration::ZERO),
                Room::Some(room) => (left.min(room), Duration::ZERO),
                Room::None(wait) => (0, wait),
            };
            let (since, sent) = (Instant::now(), ticks());
            let expected = clock.expected();
            let (group, stream) = (&source.surroundings.group, &source.keys.stream);
            let (left, room) = prefetch.most(left);
            let left = if room == 0 { left.min(1) } else { left };
            if self.refusals.wait(Chore::Wake, stream).is_some() {
                continue;
            }
            let me = &self.identity.name;
            let woken = link.wake(&source.keys, group, me, left, room, expected);
            let woken = self.refusals.heard(Chore::Wake, stream, woken.await)?;
            let Some(woken) = woken else { continue };
            let step = clock.saw(woken.now_ms, sent, expected);
            if source.schedule.heard(woken.scheduled) {
                self.signals.scheduled();
            }
            let asked_of = &source.surroundings.stream;
            self.heard.learn(asked_of, woken.now_ms, &woken.asked);
            source.report_trimmed(&woken.trimmed, "while they were parked");
            look.taken.entries += woken.entries.len();
            self.learn_pauses(&source, &woken.paused);
            self.learn_cancels(&source, cancel_flag(&woken.asked), link)
                .await?;
            if let Some(due) = woken.next {
                look.taken.more |= due.is_zero() && left > 0;
                look.next = look.next.min(due.max(wait));
            }
            self.learn_replayed(&source, woken.again > 0);
            source.heard_of_waiting(woken.waiting);
            if let Some(step) = step {
                clock.stepped(step);
                self.times = DueTimes::new(Instant::now());
                look.stepped = true;
            }
            let entries = woken.entries.into_iter();
            let entries = entries.map(|entry| Delivery::again(entry, woken.now_ms));
            let deliveries = Deliveries {
                via: Via::Wake,
                coming: Coming::InTurn,
                since,
                entries: entries.collect(),
                source,
            };
            return Ok(Some(Woken {
                deliveries,
                tells_of_waiting: woken.waiting,
            }));
        }
        Ok(None)
    }

    /// The look is over. Returns what it came to.
    pub fn end(&mut self, look: DueLook) -> Taken {
        if look.stepped {
            return look.taken;
        }
        let more = look.taken.more;
        self.times.end(Instant::now(), more, look.next);
        look.taken
    }

    /// What is paused of a stream, as Redis says.
    fn learn_pauses(&self, source: &Source, paused: &[String]) {
        // The same hash has limits that operators have set.
        let set = paused.iter().filter_map(|what| SetLimit::parse(what));
        let stream = &source.surroundings.stream;
        if self.routes.learn_limits(stream, set.collect()) {
            self.signals.replan_all();
        }
        let handlers = paused
            .iter()
            .filter_map(|what| what.strip_prefix("handler:"));
        let handlers = handlers.map(str::to_owned).collect();
        let is_paused = paused.iter().any(|what| what == "stream");
        if let Some(news) = source.pauses.learn(is_paused, handlers) {
            tracing::info!(stream = source.surroundings.stream, "{news}");
            // What was released because of a pause comes back when that ends.
            for bound in self.routes.all() {
                bound.gate.forget_released();
            }
            self.signals.replan();
        }
    }

    /// Which entries an operator has cancelled. It is asked for if there is news: the same look tells that.
    async fn learn_cancels(
        &mut self,
        source: &Arc<Source>,
        flag: Option<&str>,
        link: &mut Link,
    ) -> Result<(), Trouble> {
        if !source.asks_for_cancels(flag) {
            return Ok(());
        }
        let stream = &source.keys.stream;
        if self.refusals.wait(Chore::Cancel, stream).is_some() {
            return Ok(());
        }
        let ids = link.marked_for_cancel(&source.keys).await;
        let Some(ids) = self.refusals.heard(Chore::Cancel, stream, ids)? else {
            return Ok(());
        };
        source.learn_cancels(flag, ids);
        // What waits here is looked at when its turn comes.
        for batch in self.inflight.snapshot() {
            if !Arc::ptr_eq(&batch.source, source) {
                continue;
            }
            let running = batch.slots.iter().filter(|slot| source.cancels(slot.id));
            for ctx in running.filter_map(|slot| slot.context()) {
                let grace = self.routes.policy(ctx).grace;
                cancel_run(ctx, stream, grace, &self.signals);
            }
        }
        Ok(())
    }

    /// Whether replayed entries of a stream wait: then their group has to be joined.
    fn learn_replayed(&self, source: &Source, are_any: bool) {
        let Some(again) = &source.again else { return };
        if again.is_active() == are_any {
            return;
        }
        if are_any {
            self.signals.rejoin();
        }
        again.set_active(are_any);
    }
}

impl DueLook {
    /// The stream that is looked at next; none if there is no room for what it may have.
    fn next_source(&mut self) -> Option<Arc<Source>> {
        if self.stepped {
            return None;
        }
        let source = self.sources.next()?;
        let (is_bare, left) = (self.most == 0, self.most - self.taken.entries);
        if left == 0 && !is_bare {
            self.taken.more = true;
            return None;
        }
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use crate::config::Settings;
    use crate::policy::Breakers;

    fn due_retries() -> DueRetries {
        let settings = Settings::default();
        let routes = Routes::new(&settings, Registry::new(), &Breakers::default());
        DueRetries::new(
            Arc::new(Identity::new(&settings)),
            Arc::default(),
            Arc::new(Sources::new(Vec::new())),
            Arc::new(routes),
            Arc::default(),
            Arc::new(Inflight::new(Arc::default(), Arc::default())),
        )
    }

    /// Looks, and finds that more is due, or not; returns what there is if it is not time to look.
    fn look(due_retries: &mut DueRetries, most: usize, more: bool) -> Option<Taken> {
        match due_retries.begin(most) {
            Begin::Look(mut look) => {
                look.taken.more = more;
                due_retries.end(look);
                None
            }
            Begin::Not(taken) => Some(taken),
        }
    }

    #[test]
    fn it_looks_at_once_then_when_something_falls_due_here() {
        let mut due_retries = due_retries();
        assert!(look(&mut due_retries, 1, false).is_none());
        assert!(look(&mut due_retries, 1, false).is_some_and(|taken| !taken.more));
        due_retries.signals.due_in(Duration::ZERO);
        assert!(look(&mut due_retries, 1, false).is_none());
        assert!(look(&mut due_retries, 1, true).is_some_and(|taken| !taken.more));
    }

    #[test]
    fn without_room_it_looks_now_and_then_and_leaves_what_is_due() {
        let mut due_retries = due_retries();
        assert!(look(&mut due_retries, 1, true).is_none());
        assert!(look(&mut due_retries, 0, true).is_none());
        assert!(look(&mut due_retries, 0, true).is_some_and(|taken| taken.more));
        assert!(look(&mut due_retries, 1, false).is_none());
    }
}
