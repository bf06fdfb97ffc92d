//! The promises, as what may never be seen.

use std::fmt::{Display, Formatter, Result};

use crate::action::{Action, Transition};
use crate::messages::{Fetch, LateRequest, Step, Verdict};
use crate::rules::{Budget, Rules};
use crate::state::{Holder, Phase, State, WORKERS, Who};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    RunsTwice,
    StartsTheSettled,
    ComesBack,
    TooManyStarts,
    AttemptTwice,
    LeavesItsBackoff,
    TakenFromItsHolder,
    DeadTwice,
    DeadThoughDone,
    DeadTooSoon,
    EffectTwice,
    NeverSettled,
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Violation::RunsTwice => {
                "the handler starts while the same entry runs under a lease that has not lapsed"
            }
            Violation::StartsTheSettled => "the handler starts on an entry that is acknowledged",
            Violation::ComesBack => "an acknowledged entry is delivered again",
            Violation::TooManyStarts => "the handler starts more often than it may",
            Violation::AttemptTwice => "an attempt is had twice",
            Violation::LeavesItsBackoff => "a parked entry is taken before its time",
            Violation::TakenFromItsHolder => {
                "an entry is taken from a holder whose lease has not lapsed"
            }
            Violation::DeadTwice => "there are two dead letters of one entry",
            Violation::DeadThoughDone => "an entry that succeeded is a dead letter as well",
            Violation::DeadTooSoon => {
                "an entry with attempts left is a dead letter, and is in the stream"
            }
            Violation::EffectTwice => "an effect is committed twice",
            Violation::NeverSettled => "whatever is done from here on, the entry is never settled",
        })
    }
}

/// What a step breaks, if anything. `budget` is that of the scenario.
pub fn broken_by(
    rules: &Rules,
    budget: &Budget,
    before: &State,
    step: &Transition,
) -> Option<Violation> {
    let used = budget.minus(&step.state.left);
    let (was, is) = (&before.redis, &step.state.redis);
    if is.dead > 1 && used.groups_destroyed == 0 {
        return Some(Violation::DeadTwice);
    }
    if is.effects > 1 && used.groups_destroyed == 0 {
        return Some(Violation::EffectTwice);
    }
    if let Action::RunsSettlement(_, settlement, Verdict::Done) = step.action
        && settlement.step == Step::Bury
        && is.dead > was.dead
        && was.in_stream
        && settlement.fence.deliveries < rules.max_attempts
    {
        return Some(Violation::DeadTooSoon);
    }
    let was_leased = was
        .pending
        .filter(|pending| pending.holder != Holder::Parked && !pending.lapsed);
    if let (Some(was), Some(is)) = (was_leased, is.pending)
        && was.holder != is.holder
        && is.holder != Holder::Parked
        && !matches!(step.action, Action::Dies(_) | Action::FailsOver)
    {
        return Some(Violation::TakenFromItsHolder);
    }
    // A group destroyed by hand, or a replica that lacks the last write, may have an entry run again.
    if used.groups_destroyed > 0 || used.failovers > 0 {
        return None;
    }
    if let Action::Starts(who, _) = step.action {
        return broken_by_start(rules, &used, before, step, who);
    }
    // A worker that froze or died may have succeeded without others knowing, and what was trimmed is buried
    // by whoever cannot know that another has it.
    if is.dead > 0 && is.acknowledged && used.freezes + used.crashes + used.trims == 0 {
        return Some(Violation::DeadThoughDone);
    }
    // The ack of a worker that froze or died may arrive when the entry is parked; wake then finds it with nobody.
    if was.acknowledged
        && was.pending.is_none()
        && is.pending.is_some()
        && used.freezes + used.crashes == 0
    {
        return Some(Violation::ComesBack);
    }
    let was_parked = was
        .pending
        .is_some_and(|pending| pending.holder == Holder::Parked);
    let is_parked = is
        .pending
        .is_some_and(|pending| pending.holder == Holder::Parked);
    // What is delivered as new where the group was set back is looked at before it starts.
    let leaves = was_parked && !is_parked && is.pending.is_some();
    if leaves && !is_wake(&step.action) && !was.set_back {
        return Some(Violation::LeavesItsBackoff);
    }
    None
}

fn broken_by_start(
    rules: &Rules,
    used: &Budget,
    before: &State,
    step: &Transition,
    who: Who,
) -> Option<Violation> {
    let copy = before.workers[who as usize].held?.copy;
    if copy != before.redis.copy {
        return None; // of what was settled and replayed since
    }
    // An outage is no excuse: it ages every entry, and takes nobody's work away.
    let healthy = |lapsed: bool| !lapsed || (used.outages > 0 && used.freezes == 0);
    let runs_elsewhere = WORKERS
        .into_iter()
        .filter(|other| *other != who)
        .any(|other| {
            let held = before.workers[other as usize].held_of(copy);
            held.is_some_and(|held| {
                matches!(held.phase, Phase::Running | Phase::Succeeded) && healthy(held.lapsed)
            })
        });
    if runs_elsewhere {
        return Some(Violation::RunsTwice);
    }
    // A worker that froze or died may have been the one that acknowledged it.
    if before.redis.acknowledged && used.freezes + used.crashes == 0 {
        return Some(Violation::StartsTheSettled);
    }
    let ledger = step.state.ledger;
    if ledger.starts > rules.most_starts(ledger.crash_check) {
        return Some(Violation::TooManyStarts);
    }
    // It was delivered as new out of its backoff.
    let pending = before.redis.pending;
    if used.set_backs > 0 && before.redis.due && pending.is_some_and(|pending| pending.is_with(who))
    {
        return Some(Violation::LeavesItsBackoff);
    }
    if let Action::Starts(_, attempt) = step.action
        && attempt < ledger.starts
    {
        return Some(Violation::AttemptTwice);
    }
    None
}

fn is_wake(action: &Action) -> bool {
    match action {
        Action::RunsFetch(_, fetch, _) => *fetch == Fetch::Wake,
        Action::ArrivesLate(late) => matches!(
            late.request,
            LateRequest::Fetch {
                fetch: Fetch::Wake,
                ..
            }
        ),
        _ => false,
    }
}

/// Where every entry has to be able to get to: done with its effect, or in the dead letters, or reported as
/// lost to trimming, and nobody busy with it any more.
pub fn is_settled(rules: &Rules, state: &State) -> bool {
    let redis = &state.redis;
    let done = if rules.commits {
        redis.effects > 0
    } else {
        redis.acknowledged
    };
    let written_off = state.ledger.written_off;
    let held = state
        .workers
        .iter()
        .any(|worker| worker.held_of(redis.copy).is_some());
    redis.pending.is_none() && !held && (done || redis.dead > 0 || written_off)
}
