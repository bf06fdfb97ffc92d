//! The order of a stream's events as a model: a few events of one subject, the lease on their stream with its number, two
//! workers that may have it, dead letters and their copies. `ordered_worker.rs` says what a worker does, `ordered_line.rs`
//! what it knows of the subject's events; `ordered_scenarios.rs` what holds, and what each defence is for.
//!
//! What is promised: the events are begun in the order of the stream, copies of dead letters before what waited for
//! them, and never two of them at once by workers that have them under a lease.
//!
//! Left out: attempts and delivery counts, guards and failovers, which the model of one entry has; other subjects; how
//! much may wait where; and how long things take: only that a lease can pass.

use std::fmt::{self, Display, Formatter};

use crate::ordered_line::Known;
use crate::search::{Model, Step};

/// Copies of dead letters, in the order in which they were replayed; behind them come the events.
pub const COPIES: usize = 2;
/// Copies and events, in the order in which they are to be begun.
pub const PLACES: usize = COPIES + 3;

/// What keeps the promise. Each can be taken out, to show what it is there for.
#[derive(Clone, Copy, Debug)]
pub struct Defences {
    /// What a read has brought is handed on only if the stream is still its worker's.
    pub checks_behind_reads: bool,
    /// And under the lease under which it was asked for.
    pub hands_on_under_one_lease: bool,
    /// If others have anything pending then, that is looked at first.
    pub looks_at_what_others_have: bool,
    /// Who takes the stream over looks at everything that is pending before it starts anything.
    pub loads_before_it_starts: bool,
    /// Nothing starts beyond the lease, by the worker's own clock.
    pub lease_bound: bool,
    /// The lease runs from when it was asked for, not from when the answer came.
    pub lease_runs_from_asking: bool,
    /// Only a lease that has run out is taken over.
    pub takes_what_has_lapsed: bool,
    /// What came late to an owner before stays pending with it until the owner takes it.
    pub late_reads_stay: bool,
    /// Copies of a dead letter are known before what it held goes on.
    pub copies_before_a_hold_ends: bool,
    /// So are those that nobody has read when the stream is taken over.
    pub unread_copies_are_loaded: bool,
    /// A copy waits for what is with another worker and may run there.
    pub copies_wait_for_others: bool,
    /// What is pending with nobody is done with only if it has been read.
    pub unread_is_not_done: bool,
    /// What is pending with nobody may be a dead letter by another's hands, which holds the subject.
    pub gone_may_be_dead: bool,
    /// The first of a subject that is not here is looked at now and then.
    pub looks_again: bool,
    /// A stream is released once nothing of it waits or is on its way to be parked.
    pub releases_when_still: bool,
}

impl Defences {
    pub const fn all() -> Self {
        Defences {
            checks_behind_reads: true,
            hands_on_under_one_lease: true,
            looks_at_what_others_have: true,
            loads_before_it_starts: true,
            lease_bound: true,
            lease_runs_from_asking: true,
            takes_what_has_lapsed: true,
            late_reads_stay: true,
            copies_before_a_hold_ends: true,
            unread_copies_are_loaded: true,
            copies_wait_for_others: true,
            unread_is_not_done: true,
            gone_may_be_dead: true,
            looks_again: true,
            releases_when_still: true,
        }
    }
}

/// How it is set up, and how often what may go wrong or is chosen by nobody here.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How many events there are, three at most.
    pub events: usize,
    /// `on_dead = "hold"`.
    pub holds: bool,
    pub left: Budget,
    pub defences: Defences,
}

/// How often what may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// A handler fails, and its event is tried again later.
    pub failures: u8,
    /// It fails for good.
    pub deaths: u8,
    /// An operator replays a dead letter.
    pub replays: u8,
    /// An operator purges one.
    pub purges: u8,
    /// A worker stands still, and wakes up or does not.
    pub freezes: u8,
    /// A worker dies, and another one comes.
    pub crashes: u8,
    /// The fleet changes, so that the stream should be the other's.
    pub handovers: u8,
    /// A request that wakes an entry is lost, or the answer of who takes the stream.
    pub losses: u8,
}

/// What is not to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    OutOfOrder,
    TwoAtOnce,
    NeverDone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub places: [Place; PLACES],
    /// Dead letters that are noted to hold their subject; the note outlives the letter.
    pub notes: [bool; PLACES],
    pub owner: Option<Who>,
    /// The number of the lease.
    pub epoch: u8,
    pub lapsed: bool,
    /// Who should have the stream, as all see it.
    pub preferred: Who,
    pub workers: [Worker; 2],
    pub left: Budget,
}

/// A worker, or those that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    A,
    B,
    Gone,
}

pub const WORKERS: [Who; 2] = [Who::A, Who::B];

/// What Redis has of an event, or of a copy of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// It is not there yet.
    Absent,
    Unread,
    With {
        who: Who,
        lapsed: bool,
    },
    Parked {
        /// It only waits behind another.
        behind: bool,
        due: bool,
    },
    /// There is a dead letter of it.
    Dead,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    pub frozen: bool,
    /// The number of its lease; zero if it has none.
    pub epoch: u8,
    /// That lease has not run out by its own clock.
    pub is_sure: bool,
    pub reads: bool,
    /// See [`Defences::copies_wait_for_others`].
    pub waits_for_others: bool,
    pub taking: Taking,
    pub fetch: Fetch,
    /// Under which lease that was asked for.
    pub fetch_epoch: u8,
    /// What it knows of what is pending.
    pub line: [Known; PLACES],
    pub items: [Item; PLACES],
    /// Requests on their way that wake these.
    pub rouses: [bool; PLACES],
}

/// Whether it takes the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Taking {
    #[default]
    No,
    /// Redis has said yes; a lease may have passed since that was asked.
    Told { epoch: u8, is_old: bool },
}

/// What its fetcher does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fetch {
    #[default]
    Nothing,
    /// It reads; if there is nothing, that waits.
    Reads,
    /// It asks for what is due, what others have left, and what came and got lost.
    Asks,
    /// This has come; a lease may have passed since that was asked for.
    Brought {
        place: u8,
        is_new: bool,
        lapsed: bool,
    },
}

/// What a worker holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Item {
    #[default]
    None,
    /// It has not been started; it may be, if it `goes`, and if its lease has not lapsed.
    Here {
        goes: bool,
        lapsed: bool,
    },
    Runs {
        lapsed: bool,
    },
    /// The stream was lost meanwhile: its handler is told, and may go on.
    RunsOn,
    /// A settlement is on its way.
    Sent(Settles),
    /// It was done, or was refused: the entry is another's.
    Answered {
        settles: Settles,
        is_done: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settles {
    Acknowledges,
    ParksForRetry,
    ParksBehind,
    Buries,
    /// Gives back what came late: what is not done.
    GivesBack,
}

/// What happens, to be told.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Does(Who, &'static str),
    DoesTo(Who, &'static str, usize),
    Happens(&'static str),
    HappensTo(&'static str, usize),
}

impl State {
    pub fn worker(&mut self, who: Who) -> &mut Worker {
        &mut self.workers[who as usize]
    }

    /// Whether the stream is this worker's, under the number it knows.
    pub fn is_owner(&self, who: Who) -> bool {
        self.owner == Some(who) && self.epoch == self.workers[who as usize].epoch
    }

    /// What of a stream is pending; those of copies if it is of a copy.
    pub fn of_its_stream(place: usize) -> std::ops::Range<usize> {
        match place < COPIES {
            true => 0..COPIES,
            false => COPIES..PLACES,
        }
    }

    /// What the start of a place's handler by a worker breaks.
    pub fn broken_by_start(&self, setup: &Setup, who: Who, place: usize) -> Option<Violation> {
        let is_open = |before: usize| match self.places[before] {
            Place::Absent | Place::Done => false,
            Place::Dead => setup.holds,
            // Nothing waits for what is replayed, unless it was held.
            _ => setup.holds || before >= COPIES || place < COPIES,
        };
        if (0..place).any(is_open) {
            return Some(Violation::OutOfOrder);
        }
        let runs = |other: Who, at: usize| {
            let is_its = matches!(self.places[at], Place::With { who, .. } if who == other);
            is_its && self.workers[other as usize].items[at] == Item::Runs { lapsed: false }
        };
        let mut all = WORKERS
            .into_iter()
            .flat_map(|other| (0..PLACES).map(move |at| (other, at)));
        all.any(|(other, at)| (other, at) != (who, place) && runs(other, at))
            .then_some(Violation::TwoAtOnce)
    }
}

impl Model for State {
    type Setup = Setup;
    type Violation = Violation;
    type Action = Action;

    fn start(setup: &Setup) -> Self {
        let mut places = [Place::Absent; PLACES];
        places[COPIES..COPIES + setup.events].fill(Place::Unread);
        State {
            places,
            notes: [false; PLACES],
            owner: None,
            epoch: 0,
            lapsed: false,
            preferred: Who::A,
            workers: [Worker::default(); 2],
            left: setup.left,
        }
    }

    fn is_done(&self, setup: &Setup) -> bool {
        // Of a worker that stands still nothing is expected.
        let awake = self.workers.iter().filter(|worker| !worker.frozen);
        let mut items = awake.flat_map(|worker| &worker.items);
        let mut is_held = false;
        let mut is_over = |place: &Place| {
            is_held |= *place == Place::Dead && setup.holds;
            let waits = Place::Parked {
                behind: true,
                due: false,
            };
            matches!(place, Place::Absent | Place::Done | Place::Dead) || is_held && *place == waits
        };
        items.all(|item| *item == Item::None) && self.places.iter().all(&mut is_over)
    }

    fn steps(&self, setup: &Setup) -> Vec<Step<Self>> {
        let mut steps = Steps { all: Vec::new() };
        self.redis_and_operators(&mut steps);
        for who in WORKERS {
            crate::ordered_worker::steps(self, setup, who, &mut steps);
        }
        steps.all
    }
}

impl State {
    fn redis_and_operators(&self, steps: &mut Steps) {
        for who in [Who::A, Who::B, Who::Gone] {
            let is_away = who == Who::Gone || self.workers[who as usize].frozen;
            let next = self.without_word_of(who);
            if is_away && next != *self {
                steps.fair(Action::Does(who, "is not heard of for a lease"), next);
            }
        }
        if self.left.handovers > 0 {
            let mut next = *self;
            next.left.handovers -= 1;
            next.preferred = next.preferred.other();
            steps.chance(
                Action::Happens("the fleet changes: the stream should be the other's"),
                next,
            );
        }
        for at in 0..PLACES {
            let mut next = *self;
            match self.places[at] {
                Place::Parked { behind, due: false } => {
                    next.places[at] = Place::Parked { behind, due: true };
                    match behind {
                        false => steps.fair(Action::HappensTo("its backoff is over: ", at), next),
                        true => {
                            steps.chance(Action::HappensTo("an hour has passed for ", at), next)
                        }
                    }
                }
                Place::Dead => {
                    next.places[at] = Place::Done;
                    let purged = State {
                        left: Budget {
                            purges: self.left.purges.saturating_sub(1),
                            ..self.left
                        },
                        ..next
                    };
                    if self.left.purges > 0 {
                        steps.chance(
                            Action::HappensTo("an operator purges the letter of ", at),
                            purged,
                        );
                    }
                    let copy = (0..COPIES).find(|copy| self.places[*copy] == Place::Absent);
                    if let (Some(copy), true) = (copy, self.left.replays > 0) {
                        next.left.replays -= 1;
                        next.places[copy] = Place::Unread;
                        steps.chance(
                            Action::HappensTo("an operator replays the letter of ", at),
                            next,
                        );
                    }
                }
                _ => {}
            }
        }
    }

    /// A lease has passed without a word of a worker.
    fn without_word_of(&self, gone: Who) -> State {
        let mut next = *self;
        next.lapsed |= next.owner == Some(gone);
        for place in &mut next.places {
            if let Place::With { who, lapsed } = place {
                *lapsed |= *who == gone;
            }
        }
        if gone == Who::Gone {
            return next;
        }
        if next.preferred == gone {
            next.preferred = gone.other();
        }
        let worker = next.worker(gone);
        worker.is_sure = false;
        if let Taking::Told { is_old, .. } = &mut worker.taking {
            *is_old = true;
        }
        if let Fetch::Brought { lapsed, .. } = &mut worker.fetch {
            *lapsed = true;
        }
        for item in &mut worker.items {
            if let Item::Here { lapsed, .. } | Item::Runs { lapsed } = item {
                *lapsed = true;
            }
        }
        next
    }
}

/// Steps that can be taken.
pub struct Steps {
    all: Vec<Step<State>>,
}

impl Steps {
    /// It comes to pass if it can for long enough.
    pub fn fair(&mut self, action: Action, state: State) {
        self.add(action, true, state, None);
    }

    /// It may come to pass, or not.
    pub fn chance(&mut self, action: Action, state: State) {
        self.add(action, false, state, None);
    }

    pub fn add(&mut self, action: Action, fair: bool, state: State, breaks: Option<Violation>) {
        self.all.push(Step {
            action,
            fair,
            state,
            breaks,
        });
    }
}

impl Who {
    pub fn other(self) -> Who {
        match self {
            Who::A => Who::B,
            _ => Who::A,
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = |place: usize| match place < COPIES {
            true => format!("copy {}", place + 1),
            false => format!("event {}", place - COPIES + 1),
        };
        match *self {
            Action::Does(who, what) => write!(f, "{who:?} {what}"),
            Action::DoesTo(who, what, place) => write!(f, "{who:?} {what} {}", name(place)),
            Action::Happens(what) => f.write_str(what),
            Action::HappensTo(what, place) => write!(f, "{what}{}", name(place)),
        }
    }
}
