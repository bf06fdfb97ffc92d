//! What a worker makes of an answer.

use crate::action::{Action, Transition};
use crate::messages::{
    Delivery, Fetch, FetchSlot, RenewSlot, Renewal, SettleSlot, Settlement, Step, Verdict,
};
use crate::rules::Rules;
use crate::state::{Held, Phase, State, Who, Worker};

/// The answers that have come for a worker, each of which it may take next.
pub fn receive(rules: &Rules, state: &State, who: Who, out: &mut Vec<Transition>) {
    let worker = state.workers[who as usize];
    if let FetchSlot::Answered { fetch, delivery } = worker.fetch {
        let mut state = *state;
        let worker = state.worker(who);
        worker.fetch = FetchSlot::Idle;
        if delivery.known && rules.defences.looks_at_the_known {
            worker.fetch = FetchSlot::Sent {
                fetch: Fetch::MeetAgain,
                outdated: false,
            };
        } else {
            receive_delivery(rules, worker, delivery);
        }
        out.push(Transition::fair(
            Action::ReceivesDelivery(who, fetch, delivery),
            state,
        ));
    }
    if let RenewSlot::Answered(renewal) = worker.renew {
        let mut state = *state;
        let worker = state.worker(who);
        worker.renew = RenewSlot::Idle;
        receive_renewal(rules, worker, renewal);
        out.push(Transition::fair(
            Action::ReceivesRenewal(who, renewal),
            state,
        ));
    }
    if let SettleSlot::Answered {
        settlement: Settlement {
            step, brings_back, ..
        },
        verdict,
    } = worker.settle
    {
        let mut state = *state;
        let worker = state.worker(who);
        worker.settle = SettleSlot::Idle;
        receive_verdict(rules, worker, step, brings_back, verdict);
        out.push(Transition::fair(
            Action::ReceivesVerdict(who, step, verdict),
            state,
        ));
    }
}

/// An entry that is held already has been away in between: the server's count holds, a handler that runs goes
/// on, and a verdict on the earlier delivery is forgotten.
fn receive_delivery(rules: &Rules, worker: &mut Worker, delivery: Delivery) {
    match worker.held_of(delivery.copy) {
        Some(held) if held.deliveries == delivery.deliveries && held.alone == delivery.alone => {}
        Some(held)
            if !matches!(
                held.phase,
                Phase::Failed | Phase::GivenBack | Phase::Crashed
            ) =>
        {
            outdate_answers(rules, worker);
            worker.held = Some(Held {
                phase: held.phase,
                ..taken(delivery)
            });
        }
        _ => take(rules, worker, delivery),
    }
}

fn take(rules: &Rules, worker: &mut Worker, delivery: Delivery) {
    outdate_answers(rules, worker);
    worker.adopt_due = false;
    worker.held = Some(taken(delivery));
}

fn taken(delivery: Delivery) -> Held {
    Held {
        copy: delivery.copy,
        alone: delivery.alone,
        deliveries: delivery.deliveries,
        attempt: delivery.attempt,
        phase: if delivery.crashed {
            Phase::Crashed
        } else {
            Phase::Waiting
        },
        lapsed: delivery.aged,
        nobodys: false,
        is_gone: false,
        commit_unanswered: false,
        asked: false,
        asked_long_ago: false,
    }
}

fn drop_held(rules: &Rules, worker: &mut Worker) {
    outdate_answers(rules, worker);
    // A failover can have it delivered at the same count again: that answer is of before, too, and if the
    // entry is still pending adopt finds it.
    if let (FetchSlot::Answered { delivery, .. }, Some(held)) = (worker.fetch, worker.held)
        && (delivery.copy, delivery.deliveries, delivery.alone)
            == (held.copy, held.deliveries, held.alone)
        && rules.defences.answers_by_generation
    {
        worker.fetch = FetchSlot::Idle;
        worker.adopt_due = true;
    }
    worker.held = None;
}

/// What is held changes: the answers still to come are about what was held before.
fn outdate_answers(rules: &Rules, worker: &mut Worker) {
    if !rules.defences.answers_by_generation {
        return;
    }
    worker.renew = match worker.renew {
        RenewSlot::Sent {
            held: Some(fence), ..
        } => RenewSlot::Sent {
            held: Some(fence),
            stale: true,
        },
        RenewSlot::Answered(Renewal::Unheld(_)) | RenewSlot::Sent { .. } => worker.renew,
        RenewSlot::Answered(_) | RenewSlot::Idle => RenewSlot::Idle,
    };
    worker.settle = outdated(worker.settle);
}

fn outdated(settle: SettleSlot) -> SettleSlot {
    match settle {
        SettleSlot::Sent { settlement, .. } => SettleSlot::Sent {
            settlement,
            stale: true,
        },
        SettleSlot::Answered { .. } | SettleSlot::Idle => SettleSlot::Idle,
    }
}

fn receive_renewal(rules: &Rules, worker: &mut Worker, renewal: Renewal) {
    match renewal {
        Renewal::Mine => {
            if let Some(held) = &mut worker.held {
                held.lapsed = false;
            }
        }
        Renewal::Trimmed => turns_out_trimmed(worker),
        Renewal::Taken => drop_held(rules, worker),
        Renewal::Nobody => becomes_nobodys(rules, worker),
        Renewal::Unheld(delivery) if worker.held_of(delivery.copy).is_none() => {
            if rules.defences.adopt_by_fetcher {
                worker.adopt_due = true;
            } else {
                take(rules, worker, delivery);
            }
        }
        Renewal::Unheld(_) | Renewal::Nothing => {}
    }
}

fn receive_verdict(
    rules: &Rules,
    worker: &mut Worker,
    step: Step,
    brings_back: bool,
    verdict: Verdict,
) {
    match (step, verdict) {
        (_, Verdict::NoGroup) => {} // repeated once the group is there again
        (_, Verdict::Late) => {}    // repeated as long as it is still ours
        (_, Verdict::Done | Verdict::Taken) | (Step::Bury | Step::Ack, _) => {
            drop_held(rules, worker)
        }
        (_, Verdict::Trimmed | Verdict::Unknown) => turns_out_trimmed(worker),
        // Its success stands. What it emitted has left if an earlier commit was run and its answer lost.
        (Step::Commit, Verdict::Nobody) if !rules.defences.nobodys_commit => {
            drop_held(rules, worker)
        }
        (Step::Commit, Verdict::Nobody)
            if worker.held.is_some_and(|held| held.commit_unanswered) =>
        {
            drop_held(rules, worker);
        }
        // It was asked for as nobody's, and is not its worker's to settle any more.
        (Step::Park | Step::Release, Verdict::Nobody) if brings_back => drop_held(rules, worker),
        (Step::Commit | Step::Park | Step::Release, Verdict::Nobody) => {
            becomes_nobodys(rules, worker)
        }
    }
}

/// Trimmed, acknowledged by hand, or its group destroyed: where the lease has not lapsed it is ours to finish.
fn becomes_nobodys(rules: &Rules, worker: &mut Worker) {
    match &mut worker.held {
        Some(held) if !held.lapsed => held.nobodys = true,
        _ => drop_held(rules, worker),
    }
}

/// It was still ours: nobody can have taken it, and no settlement that was sent can have been run or will be, but for a
/// burial, which was one of a nobody's.
fn turns_out_trimmed(worker: &mut Worker) {
    let is_burial = matches!(
        worker.settle,
        SettleSlot::Sent { settlement, .. } | SettleSlot::Answered { settlement, .. }
            if settlement.step == Step::Bury
    );
    if !is_burial {
        worker.settle = outdated(worker.settle);
    }
    if let Some(held) = &mut worker.held {
        (held.lapsed, held.nobodys, held.is_gone) = (false, true, true);
        held.commit_unanswered = false;
    }
}
