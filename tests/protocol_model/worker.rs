//! What a worker does of its own accord: what it sends, and how its handler fares.

use crate::action::{Action, Transition};
use crate::answers::receive;
use crate::faults::spend;
use crate::messages::{Fence, Fetch, FetchSlot, RenewSlot, SettleSlot, Settlement, Step};
use crate::network::run;
use crate::rules::Rules;
use crate::state::{Held, Phase, State, WORKERS, Who};

/// The next steps of the workers that are up.
pub fn steps(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    for who in WORKERS {
        if state.is_up(who) {
            receive(rules, state, who, out);
            fetch(rules, state, who, out);
            look_without_room(rules, state, who, out);
            renew(rules, state, who, out);
            handle(state, who, out);
            settle(rules, state, who, out);
        }
    }
    if let Some(mut state) = spend(state, |left| &mut left.backlogs) {
        state.backlog = true;
        out.push(Transition::chance(Action::BacklogComes, state));
    }
}

fn fetch(rules: &Rules, state: &State, who: Who, out: &mut Vec<Transition>) {
    let worker = state.workers[who as usize];
    let redis = &state.redis;
    let mut send = |fetch| {
        let mut state = *state;
        state.worker(who).fetch = FetchSlot::Sent {
            fetch,
            outdated: false,
        };
        state.worker(who).adopt_due &= fetch != Fetch::Adopt;
        state.worker(who).slot_promised &= fetch != Fetch::Reclaim;
        out.push(Transition::fair(Action::SendsFetch(who, fetch), state));
    };
    match worker.fetch {
        FetchSlot::Found { deliveries } => send(Fetch::Claim { deliveries }),
        FetchSlot::Idle if redis.group => {
            // Each is sent all the time, and does nothing unless there is something for it.
            if !redis.delivered {
                send(Fetch::Deliver);
            }
            if redis.due {
                send(Fetch::Wake);
            }
            let lapsed = redis
                .pending
                .is_some_and(|pending| pending.lapsed && !pending.is_with(who));
            let stands_still = state.left.outages > 0; // it may, and find the request when it goes on
            if (lapsed || stands_still) && !worker.holds_off && has_room(rules, state, who) {
                send(if rules.defences.reclaim_in_one_script {
                    Fetch::Reclaim
                } else {
                    Fetch::Scan
                });
            }
            if worker.adopt_due && worker.held_of(redis.copy).is_none() {
                send(Fetch::Adopt);
            }
        }
        _ => {}
    }
}

/// Whether it may take over what has lapsed: what goes alone needs no slot, for nothing else runs then.
fn has_room(rules: &Rules, state: &State, who: Who) -> bool {
    let redis = &state.redis;
    let alone = redis.pending.is_some_and(|pending| {
        rules.goes_alone((pending.deliveries + 1).saturating_sub(redis.record.given_back))
    });
    !state.backlog || alone || state.workers[who as usize].slot_promised
}

/// What has lapsed is looked for with all slots full, too. Where that used up the turn, another entry would have the
/// next slot, and the one after it.
fn look_without_room(rules: &Rules, state: &State, who: Who, out: &mut Vec<Transition>) {
    let worker = state.workers[who as usize];
    let lapsed = state
        .redis
        .pending
        .is_some_and(|pending| pending.lapsed && !pending.is_with(who));
    let looks = lapsed && worker.fetch == FetchSlot::Idle && !worker.holds_off;
    if looks && rules.defences.reclaimed_come_first && !has_room(rules, state, who) {
        let mut state = *state;
        state.worker(who).slot_promised = true;
        out.push(Transition::fair(Action::LooksWithoutRoom(who), state));
    }
}

/// Renewals go out all the time. Sent are only those that can make a difference: a lease that has lapsed,
/// something pending and not held, something held and not pending, or a position to be noted.
fn renew(rules: &Rules, state: &State, who: Who, out: &mut Vec<Transition>) {
    let worker = state.workers[who as usize];
    if worker.renew != RenewSlot::Idle || !state.redis.group {
        return;
    }
    let held = worker.held.map(fence);
    let pending = state.redis.pending.filter(|pending| pending.is_with(who));
    let differs = match (worker.held, pending) {
        (Some(held), Some(pending)) => {
            held.copy != state.redis.copy
                || held.deliveries != pending.deliveries
                || !state.redis.in_stream
                || held.lapsed
                || pending.lapsed
        }
        (Some(held), None) => !held.nobodys || held.lapsed || state.redis.pending.is_some(),
        (None, Some(_)) => {
            !worker.adopt_due
                && !matches!(
                    worker.fetch,
                    FetchSlot::Sent {
                        fetch: Fetch::Adopt,
                        ..
                    }
                )
        }
        (None, None) => false,
    };
    let mut noted = *state;
    run(rules, &mut noted, |server| server.renew(who, held));
    let notes = noted.redis.position != state.redis.position;
    if differs || notes || !rules.defences.answers_by_generation {
        let mut state = *state;
        state.worker(who).renew = RenewSlot::Sent { held, stale: false };
        out.push(Transition::fair(Action::SendsRenew(who), state));
    }
}

fn fence(held: Held) -> Fence {
    Fence {
        copy: held.copy,
        alone: held.alone,
        deliveries: held.deliveries,
    }
}

/// The handler: its start, and the ways in which it ends.
fn handle(state: &State, who: Who, out: &mut Vec<Transition>) {
    let Some(held) = state.workers[who as usize].held else {
        return;
    };
    let mut push = |action, fair, change: &dyn Fn(&mut State) -> Phase| {
        let mut state = *state;
        let phase = change(&mut state);
        state.worker(who).held = Some(Held { phase, ..held });
        out.push(Transition {
            action,
            fair,
            state,
        });
    };
    match held.phase {
        Phase::Waiting => {
            // A lease that has lapsed is confirmed first.
            if !held.lapsed {
                push(Action::Starts(who, held.attempt), true, &|state| {
                    if held.copy == state.redis.copy {
                        state.ledger.starts += 1;
                    }
                    Phase::Running
                });
            }
            if state.left.releases > 0 {
                push(Action::GivesBack(who), false, &|state| {
                    state.left.releases -= 1;
                    Phase::GivenBack
                });
            }
        }
        Phase::Running => {
            push(Action::Succeeds(who), true, &|_| Phase::Succeeded);
            if state.left.failures > 0 {
                push(Action::Fails(who), false, &|state| {
                    state.left.failures -= 1;
                    Phase::Failed
                });
            }
            if state.left.releases > 0 {
                push(Action::GivesBack(who), false, &|state| {
                    state.left.releases -= 1;
                    if held.copy == state.redis.copy {
                        state.ledger.starts = state.ledger.starts.saturating_sub(1);
                    }
                    Phase::GivenBack
                });
            }
        }
        // A worker that stops releases what it has not looked at.
        Phase::Crashed => {
            if state.left.releases > 0 {
                push(Action::GivesBack(who), false, &|state| {
                    state.left.releases -= 1;
                    Phase::GivenBack
                });
            }
        }
        Phase::Succeeded | Phase::Failed | Phase::GivenBack => {}
    }
}

/// Sends what settles the entry, again and again until an answer is known.
fn settle(rules: &Rules, state: &State, who: Who, out: &mut Vec<Transition>) {
    let worker = state.workers[who as usize];
    let (Some(held), SettleSlot::Idle) = (worker.held, worker.settle) else {
        return;
    };
    let step = match held.phase {
        Phase::Waiting | Phase::Running => return,
        Phase::Succeeded if rules.commits => Step::Commit,
        Phase::Succeeded => Step::Ack,
        Phase::Failed | Phase::GivenBack if held.is_gone => Step::Bury,
        Phase::Failed | Phase::GivenBack
            if held.nobodys && !rules.defences.nobodys_are_brought_back =>
        {
            Step::Bury
        }
        Phase::Failed if held.attempt >= rules.max_attempts => Step::Bury,
        Phase::Failed => Step::Park,
        Phase::GivenBack => Step::Release,
        Phase::Crashed => Step::Bury,
    };
    if held.lapsed && step != Step::Ack && rules.defences.lapsed_is_confirmed_first {
        return;
    }
    let own = match step {
        // A commit leaves no guard unless it has to: a nobody's is committed only where no earlier commit of it
        // can have been run.
        Step::Commit => held.nobodys && !held.commit_unanswered && rules.defences.nobodys_commit,
        _ if held.asked_long_ago && rules.defences.repeats_have_an_end => false,
        _ => held.nobodys || !held.lapsed,
    };
    let settlement = Settlement {
        step,
        fence: fence(held),
        own,
        attempt: held.attempt,
        brings_back: held.nobodys && matches!(step, Step::Park | Step::Release),
        outdated: false,
    };
    let mut state = *state;
    state.worker(who).settle = SettleSlot::Sent {
        settlement,
        stale: false,
    };
    out.push(Transition::fair(
        Action::SendsSettlement(who, settlement),
        state,
    ));
}
