//! What workers and Redis say to each other: requests, answers, and what is under way on a connection.

use crate::state::Who;

/// The requests of the fetcher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fetch {
    Deliver,
    Wake,
    Reclaim,
    Adopt,
    /// What came as new and is known from before is looked at.
    MeetAgain,
    /// A reclaim in two commands, with the defence against it taken out: XPENDING, then XCLAIM of what it named.
    Scan,
    Claim {
        deliveries: u8,
    },
}

/// An entry in an answer to the fetcher.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Delivery {
    pub copy: u8,
    pub alone: bool,
    pub deliveries: u8,
    pub attempt: u8,
    /// It died alone with its attempts used up.
    pub crashed: bool,
    /// A lease has passed since it was asked for.
    pub aged: bool,
    /// It came as new, and is not above what the group is known to have read.
    pub known: bool,
}

/// The delivery a step is about: "still mine" means pending with this consumer at this count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fence {
    pub copy: u8,
    pub alone: bool,
    pub deliveries: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Settlement {
    pub step: Step,
    pub fence: Fence,
    /// If it is nobody's it is this worker's to settle: its lease has not lapsed, and, for a commit, no
    /// earlier commit of it can have been run.
    pub own: bool,
    pub attempt: u8,
    /// It is known to be nobody's, and is to be parked all the same.
    pub brings_back: bool,
    /// The time is over until which that holds.
    pub outdated: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    Ack,
    Commit,
    Park,
    Release,
    Bury,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    Done,
    Taken,
    Nobody,
    /// It was still mine, or is nobody's, and is no longer in the stream.
    Trimmed,
    /// It is nobody's, its record is gone, and it has no attempts left.
    Unknown,
    NoGroup,
    /// It is nobody's, and the time is over in which it was this worker's to settle: nothing was done.
    Late,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Renewal {
    Mine,
    Taken,
    Nobody,
    /// It was still mine, and is no longer in the stream.
    Trimmed,
    /// Nothing was held, and this is pending with the worker.
    Unheld(Delivery),
    /// Nothing that the worker could use.
    Nothing,
}

/// A request under way on a connection, then its answer. Answers that tell the worker nothing are left out,
/// and so are those whose subject was settled or dropped after the request was sent (`stale`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FetchSlot {
    Idle,
    /// `outdated`: its deadline has passed.
    Sent {
        fetch: Fetch,
        outdated: bool,
    },
    Answered {
        fetch: Fetch,
        delivery: Delivery,
    },
    /// Of a reclaim in two commands: XPENDING has named the entry, at this delivery count.
    Found {
        deliveries: u8,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SettleSlot {
    Idle,
    Sent {
        settlement: Settlement,
        stale: bool,
    },
    Answered {
        settlement: Settlement,
        verdict: Verdict,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RenewSlot {
    Idle,
    Sent { held: Option<Fence>, stale: bool },
    Answered(Renewal),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Late {
    pub from: Who,
    pub request: LateRequest,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LateRequest {
    Fetch {
        fetch: Fetch,
        outdated: bool,
    },
    Settle(Settlement),
    /// An operator's replay of the dead letter of this copy.
    Replay {
        copy: u8,
    },
    /// The second half of a forget in two commands.
    DeleteConsumer {
        alone: bool,
    },
}
