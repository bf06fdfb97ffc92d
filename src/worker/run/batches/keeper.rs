//! Who keeps what is collected: waits until a batch is whole, or has waited for long enough, or the worker stops; waits for
//! a place and a slot; and has it handled.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep_until, timeout};

use super::call::Calls;
use super::gatherer::{Came, Gathered, Gatherer, Kept};
use super::release::release;
use crate::metrics::entries::HeldBy;
use crate::policy::Why;
use crate::worker::run::routes::Bound;
use crate::worker::run::starter::{Gathers, Handlers, Joined, Starter};
use crate::worker::run::verdict;
use crate::worker::run::work::Member;
use crate::worker::state::slots::Permit;

/// When what is too much of one key comes back.
const FULL_FOR: Duration = Duration::from_secs(1);

/// Collects entries for batch handlers, and has somebody keep each batch.
pub(crate) struct Keepers(Arc<Gatherer>);

impl Keepers {
    /// Of a worker that holds so many entries at most, and waits for so long when it stops.
    pub fn gathers(most_held: usize, drain: Duration) -> Box<dyn Gathers> {
        Box::new(Keepers(Arc::new(Gatherer::new(most_held, drain))))
    }
}

impl Gathers for Keepers {
    fn join(
        &self,
        of: &Arc<Handlers>,
        bound: &Bound,
        member: Member,
        permit: &mut Option<Permit>,
    ) -> Joined {
        let key = match bound.batch.as_ref().and_then(|batch| batch.key.as_ref()) {
            None => None,
            Some(key) => match catch_unwind(AssertUnwindSafe(|| key(&member.ctx))) {
                Ok(Ok(key)) => Some(key),
                // Why it has none its handler is told, or says.
                Ok(Err(_)) | Err(_) => return Joined::Alone(member),
            },
        };
        if member.batch.source.pauses.handler(&bound.gate.name) {
            of.release_at_limit(bound, member, Why::Paused);
            return Joined::Yes;
        }
        if bound.batch.as_ref().is_some_and(|batch| batch.is_full()) {
            of.release_at_limit(bound, member, Why::Concurrency);
            return Joined::Yes;
        }
        if let Err(closed) = bound.gate.pass_event() {
            of.release_at_limit(bound, member, closed.why);
            return Joined::Yes;
        }
        member.batch.slots[member.index as usize].waits_again();
        let gatherer = &self.0;
        match gatherer.collect(bound, key, member, &of.attempts.inflight, permit) {
            Came::In => {}
            Came::First(kept) => {
                of.tasks.spawn(keep(of.clone(), gatherer.clone(), kept));
            }
            Came::Full(member) => {
                if let Some(counts) = &member.batch.source.counts {
                    counts.held_back(bound.place, HeldBy::Places);
                }
                let why = "others of its key are handled before it";
                release(of, member, FULL_FOR, why);
            }
        }
        Joined::Yes
    }
}

/// Keeps a batch, or those of a key one after the other.
async fn keep(of: Arc<Handlers>, gatherer: Arc<Gatherer>, kept: Kept) {
    let bound = &of.routes.all()[kept.key.handler];
    let (signals, inflight) = (&of.attempts.signals, &of.attempts.inflight);
    while let Some(waits) = gatherer.next(&kept) {
        tokio::select! {
            () = waits.whole.notified() => {}
            () = sleep_until(waits.until) => {}
            () = signals.stopped() => {}
        }
        let Some(gathered) = gatherer.take(&kept, inflight) else {
            return;
        };
        run(&of, bound, gathered, gatherer.drain).await;
    }
}

/// Waits for room, and has a batch handled.
async fn run(of: &Arc<Handlers>, bound: &Bound, gathered: Gathered, drain: Duration) {
    let Gathered { members, permit } = gathered;
    let mut starter = Starter::with(of, permit);
    let place = free(of, bound, &mut starter, &members, drain).await;
    if let Some(batch) = &bound.batch {
        batch.go(members.len());
    }
    let Some(_place) = place else {
        for member in members {
            of.attempts.inflight.leave_batch(1);
            release(of, member, Duration::ZERO, verdict::STOPPED);
        }
        return;
    };
    of.routes.sharing.begins(bound.place);
    Calls::new(of, bound, starter).handle(members).await;
    of.routes.sharing.ends(bound.place);
    if of.attempts.signals.has_released() {
        // There is a place for what waits in Redis.
        of.attempts.signals.replan_all();
    }
}

/// Waits for a place among the handler's, and for a slot. None where the worker stops and has none soon: a short batch still
/// runs if it can begin in half of the time that handlers have to end.
async fn free(
    of: &Arc<Handlers>,
    bound: &Bound,
    starter: &mut Starter<'_>,
    members: &[Member],
    drain: Duration,
) -> Option<Option<OwnedSemaphorePermit>> {
    let signals = &of.attempts.signals;
    let places = bound.batch.as_ref().and_then(|batch| batch.places.clone());
    let place = async {
        match places {
            Some(places) => places.acquire_owned().await.ok(),
            None => None,
        }
    };
    let mut place = Box::pin(place);
    let mut taken = None;
    if !signals.is_stopping() {
        tokio::select! {
            one = &mut place => taken = Some(one),
            () = signals.stopped() => {}
        }
        if taken.is_some() && starter.until_all_may_start(members).await {
            return taken;
        }
    }
    if drain.is_zero() {
        return None;
    }
    let soon = async {
        let place = match taken {
            Some(place) => place,
            None => (&mut place).await,
        };
        starter.until_slot().await;
        place
    };
    tokio::select! {
        place = timeout(drain / 2, soon) => place.ok(),
        () = signals.given_up() => None,
    }
}
