//! What Redis and two workers hold, as far as one entry goes.
//!
//! There is no clock: a lease lapses, an entry falls due and a request arrives whenever that is possible, so
//! that every order of events is among those explored.

use crate::messages::{FetchSlot, Late, LateRequest, RenewSlot, SettleSlot};
use crate::rules::Budget;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct State {
    pub redis: Redis,
    /// What a failover falls back on: Redis before its last write. Kept only while a failover may come.
    pub replica: Option<Redis>,
    pub workers: [Worker; 2],
    /// Requests that were given up by whoever sent them, and may still reach Redis.
    pub late: [Option<Late>; 2],
    pub ledger: Ledger,
    pub left: Budget,
    /// Whatever slot becomes free, another entry waits for it, here and at every worker that is still to come.
    pub backlog: bool,
}

/// Who sends a request or is named as a consumer. A worker that died comes back under another name, and what
/// it was before is `Gone`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Who {
    A,
    B,
    Gone,
}

pub const WORKERS: [Who; 2] = [Who::A, Who::B];

/// A name in the group: `<who>`, or `<who>!` for an entry that was reclaimed alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Consumer {
    pub who: Who,
    pub alone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Holder {
    Parked,
    Consumer(Consumer),
}

/// The entry in the pending list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pending {
    pub holder: Holder,
    pub deliveries: u8,
    /// Its idle time is beyond the holder's lease.
    pub lapsed: bool,
}

impl Pending {
    pub fn with(who: Who, alone: bool, deliveries: u8) -> Self {
        Pending {
            holder: Holder::Consumer(Consumer { who, alone }),
            deliveries,
            lapsed: false,
        }
    }

    pub fn is_with(&self, who: Who) -> bool {
        matches!(self.holder, Holder::Consumer(consumer) if consumer.who == who)
    }

    pub fn is_alone(&self) -> bool {
        matches!(self.holder, Holder::Consumer(consumer) if consumer.alone)
    }
}

/// What the failures hash says of the entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Record {
    pub given_back: u8,
    /// The delivery count it was parked with; 0 where it never was.
    pub parked_at: u8,
    /// The attempt before this one ended with the death of its worker.
    pub died: Option<Death>,
}

/// How a worker died that held the entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Death {
    Alone,
    InCompany,
}

/// What renewals have noted, for a group that has to be made anew.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The group's last delivered id is at the entry.
    pub last: bool,
    pub of: [Note; 3],
}

/// What a worker's last renewal noted of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Note {
    /// Whatever was delivered to it up to the entry is settled.
    Settled,
    /// The entry had not been delivered then.
    Before,
    /// It holds the entry.
    Held,
    /// The entry is pending with it, and it does not hold it.
    Unheld,
}

impl Position {
    fn none() -> Self {
        Position {
            last: false,
            of: [Note::Before, Note::Before, Note::Settled],
        }
    }
}

/// The entry, or its newest copy, as Redis has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Redis {
    /// 0 for the entry as it was published; each replay adds a copy to the stream `again`.
    pub copy: u8,
    pub in_stream: bool,
    pub group: bool,
    pub made_anew: bool,
    /// Redis was emptied: nothing in it tells that there was a group.
    pub emptied: bool,
    /// A group that was made as a new one began behind the entry.
    pub passed_over: bool,
    /// The group was set back below the entry, which it had read.
    pub set_back: bool,
    /// The group's last delivered id is at or past the entry.
    pub delivered: bool,
    pub pending: Option<Pending>,
    /// The retry key names it; that its time has come is a matter of waiting.
    pub due: bool,
    pub record: Record,
    pub position: Position,
    /// Dead letters that were made of this copy.
    pub dead: u8,
    /// What fences the settling of a nobody's, for a while.
    pub guard: bool,
    /// It was nobody's, and the guard stays for longer than any handler runs.
    pub guard_stays: bool,
    /// Who has committed it as a nobody's: commits are numbered, and what a worker's last one did is noted.
    pub committed_by: Option<Who>,
    pub acknowledged: bool,
    /// Events that were emitted by committed handlers, of all copies.
    pub effects: u8,
}

impl Redis {
    pub fn fresh(copy: u8, effects: u8) -> Self {
        Redis {
            copy,
            in_stream: true,
            group: true,
            made_anew: false,
            emptied: false,
            passed_over: false,
            set_back: false,
            delivered: false,
            pending: None,
            due: false,
            record: Record::default(),
            position: Position::none(),
            dead: 0,
            guard: false,
            guard_stays: false,
            committed_by: None,
            acknowledged: false,
            effects,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Worker {
    pub frozen: bool,
    /// Its own renewals have not been answered in time for a whole lease: it does not reclaim.
    pub holds_off: bool,
    /// Renew named something that is not held, or the fetcher's connection was cut: it has to send adopt.
    pub adopt_due: bool,
    /// It has found something to be reclaimed, and no slot free: the next one is for that.
    pub slot_promised: bool,
    pub held: Option<Held>,
    /// The fetcher's connection: deliver, wake, reclaim and adopt, strictly one after the other.
    pub fetch: FetchSlot,
    /// The other connections, concurrent with it: one settlement of the entry, one renewal.
    pub settle: SettleSlot,
    pub renew: RenewSlot,
}

impl Worker {
    pub fn fresh() -> Self {
        Worker {
            frozen: false,
            holds_off: false,
            adopt_due: false,
            slot_promised: false,
            held: None,
            fetch: FetchSlot::Idle,
            settle: SettleSlot::Idle,
            renew: RenewSlot::Idle,
        }
    }

    /// What it holds of this copy.
    pub fn held_of(&self, copy: u8) -> Option<Held> {
        self.held.filter(|held| held.copy == copy)
    }
}

/// The entry as a worker holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Held {
    pub copy: u8,
    pub alone: bool,
    pub deliveries: u8,
    pub attempt: u8,
    pub phase: Phase,
    /// By the worker's own clock, which runs from when a request was sent.
    pub lapsed: bool,
    /// Redis has said that it is pending with nobody, and the lease had not lapsed.
    pub nobodys: bool,
    /// And that it is no longer in the stream: there is nothing to bring back.
    pub is_gone: bool,
    /// A commit of it was sent and never answered: its effect may be there.
    pub commit_unanswered: bool,
    /// A park or burial of it was sent and never answered: it may have been done.
    pub asked: bool,
    /// So long ago that it is not known any more whether it was.
    pub asked_long_ago: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    Waiting,
    Running,
    Succeeded,
    Failed,
    /// To be released.
    GivenBack,
    /// Died alone with its attempts used up: to be buried without running again.
    Crashed,
}

/// What is known of the entry from outside, and cannot be lost with a failover.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ledger {
    /// Handler starts of this copy that were not released.
    pub starts: u8,
    /// It was reclaimed with its attempts used up: there may be one run more.
    pub crash_check: bool,
    /// The delivery count it was last handed over at.
    pub latest: u8,
    /// Trimmed, or left out of the pending list with its group, when no worker under a lease had it.
    pub written_off: bool,
}

impl State {
    pub fn start(budget: Budget) -> Self {
        State {
            redis: Redis::fresh(0, 0),
            replica: None,
            workers: [Worker::fresh(); 2],
            late: [None; 2],
            ledger: Ledger::default(),
            left: budget,
            backlog: false,
        }
    }

    pub fn worker(&mut self, who: Who) -> &mut Worker {
        &mut self.workers[who as usize]
    }

    pub fn is_up(&self, who: Who) -> bool {
        who != Who::Gone && !self.workers[who as usize].frozen
    }

    /// Adds to the late requests; false where the model has no room for another.
    pub fn add_late(&mut self, from: Who, request: LateRequest) -> bool {
        let room = self.late.iter_mut().find(|late| late.is_none());
        let added = room
            .map(|room| *room = Some(Late { from, request }))
            .is_some();
        self.late.sort_unstable();
        added
    }

    /// The same state with A and B exchanged, as it behaves the same: the smaller of the two stands for both.
    pub fn canonical(self) -> Self {
        let mirror = self.mirrored();
        if mirror.workers[0] < self.workers[0] || (mirror.workers == self.workers && mirror < self)
        {
            mirror
        } else {
            self
        }
    }

    fn mirrored(mut self) -> Self {
        self.workers.swap(0, 1);
        self.redis.rename(Who::mirrored);
        if let Some(replica) = &mut self.replica {
            replica.rename(Who::mirrored);
        }
        for late in self.late.iter_mut().flatten() {
            late.from = late.from.mirrored();
        }
        self.late.sort_unstable();
        self
    }
}

impl Redis {
    /// Gives the consumers other names.
    pub fn rename(&mut self, name: impl Fn(Who) -> Who) {
        if let Some(Pending {
            holder: Holder::Consumer(consumer),
            ..
        }) = &mut self.pending
        {
            consumer.who = name(consumer.who);
        }
        self.committed_by = self.committed_by.map(&name);
        let was = self.position;
        self.position.of = [Note::Settled; 3];
        for who in [Who::A, Who::B, Who::Gone] {
            let note = &mut self.position.of[name(who) as usize];
            *note = was.of[who as usize].max(*note);
        }
    }
}

impl Who {
    fn mirrored(self) -> Self {
        match self {
            Who::A => Who::B,
            Who::B => Who::A,
            Who::Gone => Who::Gone,
        }
    }
}

impl State {
    /// What Redis has in no pending list any more is with its holder alone. Where that one dies, or lets its
    /// lease lapse before it has heard of it, the entry is written off: here the promise that nothing is lost
    /// has its limit. `before` is the state before the holder did.
    pub fn write_off(&mut self, before: &State) {
        let redis = &self.redis;
        let left_out = redis.made_anew
            && redis.group
            && redis.delivered
            && redis.pending.is_none()
            && !redis.due;
        let gone = !redis.in_stream || left_out;
        self.ledger.written_off |= gone && before.is_with_a_worker() && !self.is_with_a_worker();
    }

    /// Whether a worker holds the newest copy, under a lease or as a nobody's, or is about to.
    pub fn is_with_a_worker(&self) -> bool {
        self.workers.iter().any(|worker| {
            let held = worker
                .held_of(self.redis.copy)
                .filter(|held| held.deliveries == self.ledger.latest);
            let coming =
                matches!(worker.fetch, FetchSlot::Answered { delivery, .. } if !delivery.aged);
            coming
                || held.is_some_and(|held| !held.lapsed || (held.nobodys && !held.asked_long_ago))
        })
    }
}
