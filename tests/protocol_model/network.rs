//! The connections: Redis runs what reaches it, requests and answers get lost, and a request that its sender
//! gave up may arrive all the same.
//!
//! Late requests are kept two at a time. A late renewal is not among them: it renews only what is still its
//! sender's own.

use crate::action::{Action, Lost, Transition};
use crate::faults::spend;
use crate::messages::{
    Delivery, Fetch, FetchSlot, Late, LateRequest, RenewSlot, Renewal, SettleSlot, Step,
};
use crate::rules::Rules;
use crate::server::Server;
use crate::state::{Consumer, Ledger, Redis, State, WORKERS, Who, Worker};

/// What can happen next between the workers and Redis, up to the answer.
pub fn steps(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    for who in WORKERS {
        redis_runs(rules, state, who, out);
        losses(state, who, out);
    }
    late_requests(rules, state, out);
}

/// Runs a script. Its writes are what a failover may lose.
pub fn run<T>(rules: &Rules, state: &mut State, script: impl FnOnce(&mut Server) -> T) -> T {
    let (redis, ledger): (&mut Redis, &mut Ledger) = (&mut state.redis, &mut state.ledger);
    let before = *redis;
    let noting = state.left.groups_destroyed > 0;
    let answer = script(&mut Server {
        rules,
        redis,
        ledger,
        noting,
    });
    if state.left.failovers > 0 && state.redis != before {
        state.replica = Some(before);
    }
    answer
}

/// One request of the fetcher.
pub fn run_fetch(
    rules: &Rules,
    state: &mut State,
    me: Who,
    fetch: Fetch,
    outdated: bool,
) -> Option<Delivery> {
    let refused = outdated && rules.defences.reclaim_has_a_deadline;
    run(rules, state, |server| match fetch {
        Fetch::Deliver => server.deliver(me),
        Fetch::Wake => server.wake(me),
        Fetch::Reclaim if refused => None,
        Fetch::Reclaim => server.reclaim(me),
        Fetch::Adopt => server.adopt(me),
        Fetch::MeetAgain => server.meet_again(me),
        Fetch::Scan => None,
        Fetch::Claim { deliveries } => server.claim(me, deliveries),
    })
}

fn redis_runs(rules: &Rules, state: &State, who: Who, out: &mut Vec<Transition>) {
    let worker = state.workers[who as usize];
    if let FetchSlot::Sent {
        fetch: Fetch::Scan, ..
    } = worker.fetch
    {
        let mut state = *state;
        let found = run(rules, &mut state, |server| server.scan(who));
        state.worker(who).fetch = found.map_or(FetchSlot::Idle, |deliveries| FetchSlot::Found {
            deliveries,
        });
        out.push(Transition::fair(Action::RunsScan(who, found), state));
    } else if let FetchSlot::Sent { fetch, outdated } = worker.fetch {
        let mut state = *state;
        let answer = run_fetch(rules, &mut state, who, fetch, outdated);
        state.worker(who).fetch = answer.map_or(FetchSlot::Idle, |delivery| FetchSlot::Answered {
            fetch,
            delivery,
        });
        out.push(Transition::fair(
            Action::RunsFetch(who, fetch, answer),
            state,
        ));
    }
    if let RenewSlot::Sent { held, stale } = worker.renew {
        let mut state = *state;
        let renewal = run(rules, &mut state, |server| server.renew(who, held));
        let useless = stale || renewal == Renewal::Nothing;
        state.worker(who).renew = if useless {
            RenewSlot::Idle
        } else {
            RenewSlot::Answered(renewal)
        };
        out.push(Transition::fair(Action::RunsRenew(who, renewal), state));
    }
    if let SettleSlot::Sent { settlement, stale } = worker.settle {
        let mut state = *state;
        let verdict = run(rules, &mut state, |server| server.settle(who, settlement));
        let answered = SettleSlot::Answered {
            settlement,
            verdict,
        };
        state.worker(who).settle = if stale { SettleSlot::Idle } else { answered };
        out.push(Transition::fair(
            Action::RunsSettlement(who, settlement, verdict),
            state,
        ));
    }
}

fn losses(state: &State, who: Who, out: &mut Vec<Transition>) {
    let Some(spent) = spend(state, |left| &mut left.losses) else {
        return;
    };
    let worker = state.workers[who as usize];
    let mut lose_request = |lost, cut: fn(&mut Worker), late| {
        let mut state = spent;
        cut(state.worker(who));
        state.write_off(&spent);
        out.push(Transition::chance(Action::LosesRequest(who, lost), state));
        if state.add_late(who, late) {
            out.push(Transition::chance(Action::TimesOut(who, lost), state));
        }
    };
    if let FetchSlot::Sent { fetch, outdated } = worker.fetch {
        lose_request(
            Lost::Fetch(fetch),
            cut_fetch,
            LateRequest::Fetch { fetch, outdated },
        );
    }
    if let SettleSlot::Sent { settlement, .. } = worker.settle {
        lose_request(
            Lost::Settlement(settlement.step),
            cut_settle,
            LateRequest::Settle(settlement),
        );
    }
    let mut lose_answer = |lost, cut: fn(&mut Worker)| {
        let mut state = spent;
        cut(state.worker(who));
        state.write_off(&spent);
        out.push(Transition::chance(Action::LosesAnswer(who, lost), state));
    };
    if let FetchSlot::Answered { fetch, .. } = worker.fetch {
        lose_answer(Lost::Fetch(fetch), cut_fetch);
    }
    if let SettleSlot::Answered { settlement, .. } = worker.settle {
        lose_answer(Lost::Settlement(settlement.step), cut_settle);
    }
    // A renewal that is lost is sent again; one that is late renews only what is still the sender's own.
    if matches!(worker.renew, RenewSlot::Answered(_)) {
        lose_answer(Lost::Renew, |worker| worker.renew = RenewSlot::Idle);
    }
}

/// The fetcher's connection is gone: whatever the answer was, adopt finds it.
pub fn cut_fetch(worker: &mut Worker) {
    worker.adopt_due = worker.held.is_none();
    worker.fetch = FetchSlot::Idle;
}

pub fn cut_settle(worker: &mut Worker) {
    if let (
        SettleSlot::Sent {
            settlement,
            stale: false,
        }
        | SettleSlot::Answered { settlement, .. },
        Some(held),
    ) = (worker.settle, &mut worker.held)
    {
        held.commit_unanswered |= settlement.step == Step::Commit && !settlement.own;
        if !matches!(settlement.step, Step::Commit | Step::Ack) {
            held.asked = true;
            held.asked_long_ago |= settlement.outdated;
        }
    }
    worker.settle = SettleSlot::Idle;
}

fn late_requests(rules: &Rules, state: &State, out: &mut Vec<Transition>) {
    for (slot, late) in state.late.iter().enumerate() {
        let Some(late) = *late else { continue };
        let mut state = *state;
        state.late[slot] = None;
        state.late.sort_unstable();
        out.push(Transition::chance(Action::NeverArrives(late), state));
        arrives(rules, &mut state, late);
        out.push(Transition::fair(Action::ArrivesLate(late), state));
    }
}

fn arrives(rules: &Rules, state: &mut State, Late { from, request }: Late) {
    match request {
        LateRequest::Fetch { fetch, outdated } => {
            run_fetch(rules, state, from, fetch, outdated);
        }
        LateRequest::Settle(settlement) => {
            run(rules, state, |server| server.settle(from, settlement));
        }
        LateRequest::Replay { copy } => run(rules, state, |server| server.replay(copy)),
        LateRequest::DeleteConsumer { alone } => {
            run(rules, state, |server| {
                server.delete_consumer(Consumer { who: from, alone })
            });
        }
    }
}
