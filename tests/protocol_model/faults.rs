//! What goes wrong with workers and with Redis: freezes, crashes, outages, failovers. All but the passing of a
//! lease is rationed by the budget.

use crate::action::{Action, Transition};
use crate::messages::{Fetch, FetchSlot, Late, LateRequest, RenewSlot, Renewal, SettleSlot};
use crate::network::{cut_fetch, cut_settle};
use crate::rules::{Budget, Rules};
use crate::state::{Held, Holder, Redis, State, WORKERS, Who, Worker};

pub fn steps(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    for who in WORKERS {
        freezes_and_crashes(state, who, out);
    }
    leases(rules, state, out);
    guards(rules, state, out);
    proven_renewals(state, out);
    redis_fails(rules, state, out);
}

/// The state with one piece of the budget spent, if there is one left.
pub fn spend(state: &State, piece: impl Fn(&mut Budget) -> &mut u8) -> Option<State> {
    let mut state = *state;
    let left = piece(&mut state.left);
    *left = left.checked_sub(1)?;
    Some(state)
}

/// All connections of every worker that is up are gone. After it none reclaims for a lease.
fn cut_all(state: &mut State) {
    for worker in &mut state.workers {
        cut_fetch(worker);
        cut_settle(worker);
        worker.renew = RenewSlot::Idle;
        worker.holds_off = true;
    }
    state.late = [None; 2];
}

fn freezes_and_crashes(state: &State, who: Who, out: &mut Vec<Transition>) {
    let worker = state.workers[who as usize];
    if worker.frozen {
        let mut state = *state;
        state.worker(who).frozen = false;
        out.push(Transition::fair(Action::WakesUp(who), state));
    } else if let Some(mut state) = spend(state, |left| &mut left.freezes) {
        state.worker(who).frozen = true;
        out.push(Transition::chance(Action::Freezes(who), state));
    }
    if let Some(mut state) = spend(state, |left| &mut left.crashes) {
        dies(&mut state, who);
        out.push(Transition::chance(Action::Dies(who), state));
    }
}

/// What it had sent may still arrive. Its successor has to prove its renewals for a lease before it reclaims.
fn dies(state: &mut State, who: Who) {
    let before = *state;
    let worker = state.workers[who as usize];
    *state.worker(who) = Worker {
        holds_off: true,
        ..Worker::fresh()
    };
    let gone = |name| if name == who { Who::Gone } else { name };
    state.redis.rename(gone);
    if let Some(replica) = &mut state.replica {
        replica.rename(gone);
    }
    for late in state.late.iter_mut().flatten() {
        late.from = gone(late.from);
    }
    if let FetchSlot::Sent { fetch, outdated } = worker.fetch {
        state.add_late(Who::Gone, LateRequest::Fetch { fetch, outdated });
    }
    if let SettleSlot::Sent { settlement, .. } = worker.settle {
        state.add_late(Who::Gone, LateRequest::Settle(settlement));
    }
    state.write_off(&before);
}

/// A lease passes without a renewal: of a worker that is frozen or dead, or of something a worker does not hold.
fn leases(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    for who in [Who::A, Who::B, Who::Gone] {
        let lapses = match state.workers.get(who as usize) {
            Some(worker) if !worker.frozen => {
                let coming = matches!(worker.fetch, FetchSlot::Answered { .. });
                is_with(state, who) && !coming && worker.held_of(state.redis.copy).is_none()
            }
            _ => true,
        };
        let mut after = *state;
        if lapses {
            lapse(rules, &mut after, who);
        }
        if after != *state {
            out.push(Transition::fair(Action::LeaseLapses(Some(who)), after));
        }
    }
    let mut after = *state;
    let parked = after
        .redis
        .pending
        .as_mut()
        .filter(|pending| pending.holder == Holder::Parked);
    // Its idle time is of interest only to a reclaim that does not ask for the holder.
    if let Some(parked) =
        parked.filter(|parked| !parked.lapsed && !rules.defences.reclaim_in_one_script)
    {
        parked.lapsed = true;
        out.push(Transition::fair(Action::LeaseLapses(None), after));
    }
}

/// In the course of a lease all who are healthy have renewed what they hold; then there is reclaiming again.
fn proven_renewals(state: &State, out: &mut Vec<Transition>) {
    let waits_for = |who: &Who| {
        let lapsed = state.redis.pending.is_some_and(|pending| pending.lapsed);
        let holds = state.workers[*who as usize]
            .held_of(state.redis.copy)
            .is_some();
        lapsed && is_with(state, *who) && holds && state.is_up(*who)
    };
    if state.workers.iter().any(|worker| worker.holds_off) && !WORKERS.iter().any(waits_for) {
        let mut state = *state;
        state
            .workers
            .iter_mut()
            .for_each(|worker| worker.holds_off = false);
        out.push(Transition::fair(Action::HoldsOffNoMore, state));
    }
}

fn is_with(state: &State, who: Who) -> bool {
    state
        .redis
        .pending
        .is_some_and(|pending| pending.is_with(who))
}

/// Its lease has passed, by Redis' clock and by its own. What was answered before is of no use for it.
pub fn lapse(rules: &Rules, state: &mut State, who: Who) {
    let before = *state;
    let mut lapse_in = |redis: &mut Redis| {
        if let Some(pending) = &mut redis.pending {
            pending.lapsed |= pending.is_with(who);
        }
    };
    lapse_in(&mut state.redis);
    state.replica.as_mut().map(&mut lapse_in);
    if let Some(worker) = state.workers.get_mut(who as usize) {
        lapse_own(rules, worker);
    }
    let own = state.late.iter_mut().flatten();
    own.filter(|late| late.from == who).for_each(outdate);
    state.late.sort_unstable();
    state.write_off(&before);
}

fn lapse_own(rules: &Rules, worker: &mut Worker) {
    if let Some(held) = &mut worker.held {
        held.lapsed |= !(held.nobodys && rules.defences.nobodys_has_no_lease);
        held.asked_long_ago |= held.asked;
    }
    if let FetchSlot::Answered { delivery, .. } = &mut worker.fetch {
        delivery.aged = true;
    }
    if matches!(worker.renew, RenewSlot::Answered(Renewal::Mine)) {
        worker.renew = RenewSlot::Idle;
    }
    if let SettleSlot::Sent { settlement, .. } | SettleSlot::Answered { settlement, .. } =
        &mut worker.settle
    {
        settlement.outdated |= settlement.own;
    }
}

/// It was said until when it is its sender's to settle, should it be nobody's.
fn outdate(late: &mut Late) {
    if let LateRequest::Settle(settlement) = &mut late.request {
        settlement.outdated |= settlement.own;
    }
}

/// A guard goes once it has lasted longer than any lease or repeat of when it was left, and than any deadline.
fn guards(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    let lasts_for = |who: &Who| {
        let worker = state.workers[*who as usize];
        let is_leased = |held: Held| !held.lapsed && !held.nobodys && !is_with(state, *who);
        let repeats = |held: Held| held.asked && !held.asked_long_ago && !held.lapsed;
        let is_sent = match worker.settle {
            SettleSlot::Sent { settlement, .. } | SettleSlot::Answered { settlement, .. } => {
                settlement.own && !settlement.outdated
            }
            SettleSlot::Idle => false,
        };
        let is_coming = match worker.fetch {
            FetchSlot::Answered { delivery, .. } => !delivery.aged && !is_with(state, *who),
            _ => false,
        };
        let held = worker.held_of(state.redis.copy);
        is_sent || is_coming || held.is_some_and(|held| is_leased(held) || repeats(held))
    };
    let outlasts = rules.defences.guards_outlast_repeats;
    if state.redis.guard && !state.redis.guard_stays && !(outlasts && WORKERS.iter().any(lasts_for))
    {
        let mut state = *state;
        state.redis.guard = false;
        if outlasts {
            state.late.iter_mut().flatten().for_each(outdate);
            state.late.sort_unstable();
        }
        out.push(Transition::fair(Action::GuardGoes, state));
    }
}

fn redis_fails(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    if let Some(mut state) = spend(state, |left| &mut left.outages) {
        for who in [Who::A, Who::B, Who::Gone] {
            lapse(rules, &mut state, who);
        }
        let mut still = state;
        cut_all(&mut state);
        state.write_off(&still);
        out.push(Transition::chance(Action::RedisRestarts, state));
        for worker in &mut still.workers {
            worker.holds_off = true;
            if let FetchSlot::Sent {
                outdated,
                fetch: Fetch::Reclaim,
            } = &mut worker.fetch
            {
                *outdated = true;
            }
        }
        for late in still.late.iter_mut().flatten() {
            if let LateRequest::Fetch {
                fetch: Fetch::Reclaim,
                outdated,
            } = &mut late.request
            {
                *outdated = true;
            }
        }
        still.late.sort_unstable();
        out.push(Transition::chance(Action::RedisStandsStill, still));
    }
    if let (Some(replica), Some(mut state)) =
        (state.replica, spend(state, |left| &mut left.failovers))
    {
        state.redis = replica;
        state.replica = None;
        cut_all(&mut state);
        for held in state
            .workers
            .iter_mut()
            .filter_map(|worker| worker.held.as_mut())
        {
            held.lapsed |= rules.defences.failover_ends_leases;
        }
        out.push(Transition::chance(Action::FailsOver, state));
    }
}
