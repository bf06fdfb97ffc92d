//! What is done to the entry from outside its handling: maintenance, which any worker does now and then,
//! operators' commands, trimming, and keys that are deleted by hand.

use crate::action::{Action, Transition};
use crate::faults::{lapse, spend};
use crate::messages::LateRequest;
use crate::network::run;
use crate::rules::Rules;
use crate::state::{Consumer, Holder, Redis, State, WORKERS, Who};

pub fn steps(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    maintenance(rules, state, out);
    operators(rules, state, out);
    hands(rules, state, out);
}

/// What some worker does now and then, whichever it is.
fn maintenance(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    if rules.defences.mend && is_parked(state) && !state.redis.due {
        let mut state = *state;
        run(rules, &mut state, |server| server.mend());
        out.push(Transition::fair(Action::Mends, state));
    }
    if state.redis.emptied {
        let mut begins = |knows, action| {
            let mut state = *state;
            run(rules, &mut state, |server| server.join_emptied(knows));
            out.push(Transition::fair(action, state));
        };
        // A worker that has died since comes back as one that knows nothing.
        if rules.defences.joined_once_is_remembered && has_been_in_it(state) {
            begins(true, Action::JoinsKnowing);
        }
        begins(false, Action::JoinsAsNew);
        return;
    }
    if state.redis.passed_over && rules.defences.passed_over_comes_back && has_been_in_it(state) {
        let mut state = *state;
        run(rules, &mut state, |server| server.bring_back());
        out.push(Transition::fair(Action::BringsBack, state));
    }
    if !state.redis.group {
        if !rules.defences.join_waits_a_lease {
            let mut state = *state;
            run(rules, &mut state, |server| server.join(|_| false));
            out.push(Transition::fair(Action::Joins { waited: false }, state));
        }
        let mut state = *state;
        for who in [Who::A, Who::B, Who::Gone] {
            if !state.is_up(who) {
                lapse(rules, &mut state, who);
            }
        }
        let lapsed = state
            .workers
            .map(|worker| worker.frozen || worker.held.is_some_and(|held| held.lapsed));
        run(rules, &mut state, |server| {
            server.join(|who| lapsed.get(who as usize) != Some(&false))
        });
        out.push(Transition::fair(Action::Joins { waited: true }, state));
    }
}

/// Whether a worker is up that joined before Redis was emptied: all have, unless they were started since.
fn has_been_in_it(state: &State) -> bool {
    WORKERS.into_iter().any(|who| state.is_up(who))
}

fn is_parked(state: &State) -> bool {
    let pending = state.redis.pending;
    pending.is_some_and(|pending| pending.holder == Holder::Parked)
}

fn operators(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    let copy = state.redis.copy;
    if state.redis.dead > 0
        && let Some(mut state) = spend(state, |left| &mut left.replays)
        && state.add_late(Who::Gone, LateRequest::Replay { copy })
    {
        out.push(Transition::chance(Action::OperatorReplays(copy), state));
    }
    let Some(spent) = spend(state, |left| &mut left.forgets) else {
        return;
    };
    for who in [Who::A, Who::B, Who::Gone] {
        // Long unseen.
        if state.is_up(who) || (who == Who::Gone && state.left.crashes > 0) {
            continue;
        }
        for alone in [false, true] {
            let consumer = Consumer { who, alone };
            let mut state = spent;
            if !run(rules, &mut state, |server| server.has_nothing(consumer)) {
                continue;
            }
            if rules.defences.forget_in_one_step {
                run(rules, &mut state, |server| server.delete_consumer(consumer));
                out.push(Transition::chance(Action::Forgets(consumer), state));
            } else if state.add_late(who, LateRequest::DeleteConsumer { alone }) {
                out.push(Transition::chance(
                    Action::LooksForPendingOf(consumer),
                    state,
                ));
            }
        }
    }
}

fn hands(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    let mut change = |spent: Option<State>, action, change: &dyn Fn(&mut Redis)| {
        let Some(mut after) = spent else { return };
        run(rules, &mut after, |server| change(server.redis));
        // Trimmed while no healthy worker has it, it is counted, logged and reported.
        after.ledger.written_off |= !after.redis.in_stream && !after.is_with_a_worker();
        if after.redis != state.redis {
            out.push(Transition::chance(action, after));
        }
    };
    if state.redis.delivered {
        change(
            spend(state, |left| &mut left.trims),
            Action::Trims,
            &|redis| redis.in_stream = false,
        );
    }
    change(
        spend(state, |left| &mut left.retry_keys_deleted),
        Action::DeletesRetryKey,
        &|redis| redis.due = false,
    );
    change(
        spend(state, |left| &mut left.parked_deleted),
        Action::DeletesParked,
        &|redis| {
            redis.pending = redis
                .pending
                .filter(|pending| pending.holder != Holder::Parked);
        },
    );
    change(
        spend(state, |left| &mut left.groups_destroyed),
        Action::DestroysGroup,
        &|redis| {
            redis.group = false;
            redis.delivered = false;
            redis.pending = None;
        },
    );
    // What another worker holds would be taken from it, and what was settled runs once more: neither is a promise.
    if state.redis.group && state.redis.delivered && is_parked(state) {
        change(
            spend(state, |left| &mut left.set_backs),
            Action::SetsBack,
            &|redis| {
                redis.delivered = false;
                redis.set_back = true;
            },
        );
    }
    // What was in it is gone by somebody's will; what counts is what comes afterwards.
    if !state.redis.delivered && state.redis.copy == 0 {
        change(
            spend(state, |left| &mut left.flushes),
            Action::EmptiesRedis,
            &|redis| {
                redis.group = false;
                redis.emptied = true;
            },
        );
    }
}
