//! What can happen in one step, in plain words.

use std::fmt::{Display, Formatter, Result};

use crate::messages::{Delivery, Fetch, Late, LateRequest, Renewal, Settlement, Step, Verdict};
use crate::state::{Consumer, State, Who};

/// A step of the model: what happens, what it leads to, and whether the protocol takes it of its own accord.
/// The others, the faults and the choices of handlers and operators, may or may not happen.
#[derive(Clone, Copy, Debug)]
pub struct Transition {
    pub action: Action,
    pub fair: bool,
    pub state: State,
}

impl Transition {
    pub fn fair(action: Action, state: State) -> Self {
        Transition {
            action,
            fair: true,
            state,
        }
    }

    pub fn chance(action: Action, state: State) -> Self {
        Transition {
            action,
            fair: false,
            state,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    SendsFetch(Who, Fetch),
    SendsRenew(Who),
    SendsSettlement(Who, Settlement),
    RunsFetch(Who, Fetch, Option<Delivery>),
    RunsScan(Who, Option<u8>),
    RunsRenew(Who, Renewal),
    RunsSettlement(Who, Settlement, Verdict),
    ReceivesDelivery(Who, Fetch, Delivery),
    ReceivesRenewal(Who, Renewal),
    ReceivesVerdict(Who, Step, Verdict),
    Starts(Who, u8),
    Succeeds(Who),
    Fails(Who),
    GivesBack(Who),
    Mends,
    Joins { waited: bool },
    JoinsKnowing,
    JoinsAsNew,
    BringsBack,
    HoldsOffNoMore,
    BacklogComes,
    LooksWithoutRoom(Who),
    LosesRequest(Who, Lost),
    LosesAnswer(Who, Lost),
    TimesOut(Who, Lost),
    ArrivesLate(Late),
    NeverArrives(Late),
    LeaseLapses(Option<Who>),
    GuardGoes,
    Freezes(Who),
    WakesUp(Who),
    Dies(Who),
    RedisRestarts,
    RedisStandsStill,
    FailsOver,
    OperatorReplays(u8),
    Forgets(Consumer),
    LooksForPendingOf(Consumer),
    Trims,
    DeletesRetryKey,
    DeletesParked,
    DestroysGroup,
    EmptiesRedis,
    SetsBack,
}

/// Which of a worker's connections was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    Fetch(Fetch),
    Settlement(Step),
    Renew,
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match *self {
            Action::SendsFetch(who, fetch) => write!(f, "{who} sends {fetch}"),
            Action::SendsRenew(who) => write!(f, "{who} sends renew"),
            Action::SendsSettlement(who, settlement) => write!(f, "{who} sends {settlement}"),
            Action::RunsFetch(who, fetch, Some(delivery)) => {
                write!(f, "Redis runs {who}'s {fetch}: {delivery}")
            }
            Action::RunsFetch(who, fetch, None) => write!(f, "Redis runs {who}'s {fetch}: nothing"),
            Action::RunsScan(who, found) => {
                let says = if found.is_some() {
                    "the entry has lapsed"
                } else {
                    "nothing"
                };
                write!(f, "Redis runs {who}'s {}: {says}", Fetch::Scan)
            }
            Action::RunsRenew(who, renewal) => write!(f, "Redis runs {who}'s renew: {renewal}"),
            Action::RunsSettlement(who, settlement, verdict) => {
                write!(f, "Redis runs {who}'s {settlement}: {verdict}")
            }
            Action::ReceivesDelivery(who, fetch, delivery) => {
                write!(f, "{who} receives the answer to {fetch}: {delivery}")
            }
            Action::ReceivesRenewal(who, renewal) => {
                write!(f, "{who} receives the answer to renew: {renewal}")
            }
            Action::ReceivesVerdict(who, step, verdict) => {
                write!(f, "{who} receives the answer to {step}: {verdict}")
            }
            Action::Starts(who, attempt) => {
                write!(f, "{who} starts the handler, attempt {attempt}")
            }
            Action::Succeeds(who) => write!(f, "{who}'s handler succeeds"),
            Action::Fails(who) => write!(f, "{who}'s handler fails"),
            Action::GivesBack(who) => write!(f, "{who} decides to give it back"),
            Action::Mends => f.write_str("Redis runs mend: parked without a due time, due now"),
            Action::Joins { waited: true } => f.write_str("a lease later the group is made anew"),
            Action::Joins { waited: false } => f.write_str("the group is made anew at once"),
            Action::JoinsKnowing => {
                f.write_str("a worker that has been in the group makes it anew")
            }
            Action::JoinsAsNew => {
                f.write_str("another worker makes a new group, which begins at the end")
            }
            Action::BringsBack => f.write_str(
                "a worker that has been in the group before brings back what it has passed over",
            ),
            Action::HoldsOffNoMore => {
                f.write_str("renewals have been answered in time for a whole lease")
            }
            Action::BacklogComes => {
                f.write_str("a backlog comes that does not end: no slot stays free")
            }
            Action::LooksWithoutRoom(who) => {
                write!(f, "{who} finds that the entry has lapsed, and no slot free")
            }
            Action::LosesRequest(who, lost) => write!(f, "{who}'s {lost} never reaches Redis"),
            Action::LosesAnswer(who, lost) => write!(f, "the answer to {who}'s {lost} is lost"),
            Action::TimesOut(who, lost) => {
                write!(f, "{who}'s {lost} is given up, still on its way")
            }
            Action::ArrivesLate(late) => write!(f, "late, {late} reaches Redis"),
            Action::NeverArrives(late) => write!(f, "{late} never reaches Redis"),
            Action::LeaseLapses(Some(who)) => {
                write!(f, "a lease passes without a renewal by {who}")
            }
            Action::LeaseLapses(None) => f.write_str("a lease passes while the entry is parked"),
            Action::GuardGoes => f.write_str("the guard has lasted its time"),
            Action::Freezes(who) => write!(f, "{who} freezes"),
            Action::WakesUp(who) => write!(f, "{who} wakes up"),
            Action::Dies(who) => write!(f, "{who} dies and is started again under another name"),
            Action::RedisRestarts => f.write_str("Redis restarts, away for longer than a lease"),
            Action::RedisStandsStill => f.write_str("Redis stands still for longer than a lease"),
            Action::FailsOver => f.write_str("a replica takes over that lacks the last write"),
            Action::OperatorReplays(copy) => write!(
                f,
                "an operator sends replay of the dead letter of copy {copy}"
            ),
            Action::Forgets(consumer) => write!(f, "Redis runs forget of {consumer}"),
            Action::LooksForPendingOf(consumer) => {
                write!(f, "forget sees nothing pending with {consumer}")
            }
            Action::Trims => f.write_str("the entry is trimmed"),
            Action::DeletesRetryKey => f.write_str("somebody deletes the retry key"),
            Action::DeletesParked => f.write_str("somebody deletes the consumer (parked)"),
            Action::DestroysGroup => f.write_str("somebody destroys the group"),
            Action::SetsBack => f.write_str("somebody sets the group back below the entry"),
            Action::EmptiesRedis => {
                f.write_str("somebody empties Redis, and the entry comes after that")
            }
        }
    }
}

impl Display for Who {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Who::A => "A",
            Who::B => "B",
            Who::Gone => "the dead worker",
        })
    }
}

impl Display for Consumer {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}{}", self.who, if self.alone { "!" } else { "" })
    }
}

impl Display for Fetch {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Fetch::Deliver => f.write_str("deliver"),
            Fetch::Wake => f.write_str("wake"),
            Fetch::Reclaim => f.write_str("reclaim"),
            Fetch::Adopt => f.write_str("adopt"),
            Fetch::MeetAgain => f.write_str("met_again"),
            Fetch::Scan => f.write_str("XPENDING IDLE"),
            Fetch::Claim { deliveries } => {
                write!(f, "XCLAIM of what had been delivered {deliveries} times")
            }
        }
    }
}

impl Display for Delivery {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let alone = if self.alone { ", alone" } else { "" };
        let crashed = if self.crashed {
            ", to be buried as crashed"
        } else {
            ""
        };
        write!(
            f,
            "the entry, delivery {}, attempt {}{alone}{crashed}",
            self.deliveries, self.attempt
        )
    }
}

impl Display for Settlement {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} of delivery {}", self.step, self.fence.deliveries)
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Step::Ack => "ack",
            Step::Commit => "commit",
            Step::Park => "park",
            Step::Release => "release",
            Step::Bury => "bury",
        })
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Verdict::Done => "done",
            Verdict::Taken => "taken",
            Verdict::Nobody => "nobody's",
            Verdict::Trimmed => "trimmed",
            Verdict::Unknown => "nobody's, and not known",
            Verdict::NoGroup => "no such group",
            Verdict::Late => "too late",
        })
    }
}

impl Display for Renewal {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Renewal::Mine => f.write_str("mine"),
            Renewal::Taken => f.write_str("taken"),
            Renewal::Nobody => f.write_str("nobody's"),
            Renewal::Trimmed => f.write_str("trimmed"),
            Renewal::Unheld(_) => f.write_str("the entry is pending and not held"),
            Renewal::Nothing => f.write_str("nothing"),
        }
    }
}

impl Display for Lost {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Lost::Fetch(fetch) => write!(f, "{fetch}"),
            Lost::Settlement(step) => write!(f, "{step}"),
            Lost::Renew => f.write_str("renew"),
        }
    }
}

impl Display for Late {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let from = self.from;
        match self.request {
            LateRequest::Fetch { fetch, .. } => write!(f, "{from}'s {fetch}"),
            LateRequest::Settle(settlement) => write!(f, "{from}'s {settlement}"),
            LateRequest::Replay { copy } => write!(f, "replay of the dead letter of copy {copy}"),
            LateRequest::DeleteConsumer { alone } => {
                write!(f, "XGROUP DELCONSUMER of {}", Consumer { who: from, alone })
            }
        }
    }
}
