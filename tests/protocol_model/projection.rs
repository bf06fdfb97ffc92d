//! A projection as a model: its checkpoint in Redis, two processes that may run it, a few events, of which one kills
//! whoever applies it. Every order in which its steps and what goes wrong can happen is gone through by
//! `search.rs`; `projection_scenarios.rs` says what holds, and what each defence is for.
//!
//! Left out: partitions, replayed events, rebuilds, reading the aggregates, and how long things take: only that a lease
//! can pass.

use crate::search::{Model, Step};

/// Events, in their order; the last one is this.
pub const LAST: u8 = 4;

/// Entries of a batch, and so the zone behind a death in which the one that killed must be.
const BATCH: u8 = 2;

/// Deaths that are put up with before events go one at a time, each noted before.
const UNNOTED: u8 = 2;

/// What keeps the promises. Each can be taken out, to show what it is there for.
#[derive(Clone, Copy, Debug)]
pub struct Defences {
    /// A batch does nothing but where the view stands where it was made, and the lease is its runner's.
    pub fence: bool,
    /// The lease is renewed while a batch is made.
    pub renewed_meanwhile: bool,
    /// Who takes over from one that died counts it.
    pub deaths_counted: bool,
    /// An event is noted before it is applied, from the third death on.
    pub noted_before: bool,
    /// It is then applied alone: no other is in its batch.
    pub one_at_a_time: bool,
    /// No other projection of the process applies anything meanwhile.
    pub alone_in_process: bool,
    /// Events go one at a time until the zone is passed, however the position moves on.
    pub whole_zone: bool,
    /// Deaths are forgotten only once what there was to apply has been, not because a lease was lived through.
    pub calm_when_applied: bool,
}

impl Defences {
    pub const fn all() -> Self {
        Defences {
            fence: true,
            renewed_meanwhile: true,
            deaths_counted: true,
            noted_before: true,
            one_at_a_time: true,
            alone_in_process: true,
            whole_zone: true,
            calm_when_applied: true,
        }
    }
}

/// How it is set up, and how often what may go wrong that the protocol does not choose.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The event that kills; 0: none does.
    pub killer: u8,
    pub max_attempts: u8,
    /// A process dies of something else.
    pub crashes: u8,
    /// It dies of another projection's event, which comes again and again until that has found it out.
    pub others: u8,
    /// A process stands still for longer than a lease, and wakes up or does not.
    pub freezes: u8,
    /// The answer to a batch is lost, and the batch is sent once more.
    pub losses: u8,
    pub defences: Defences,
}

/// What is not to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    AppliedTwice,
    InnocentBuried,
    TooManyDeaths,
    LapsesWhileItWorks,
    NeverDone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    position: u8,
    /// Whose name is in the checkpoint, and whether they live.
    runner: Option<(u8, bool)>,
    /// Their lease has run out.
    lapsed: bool,
    deaths: u8,
    noted: u8,
    suspect: (u8, u8),
    applied: [u8; LAST as usize],
    buried: [bool; LAST as usize],
    workers: [Worker; 2],
    /// What may still go wrong.
    crashes: u8,
    others: u8,
    freezes: u8,
    losses: u8,
    /// Deaths of the event that kills.
    killed: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Worker {
    frozen: bool,
    doing: Doing,
    /// What it was told when it took over.
    deaths: u8,
    suspect: (u8, u8),
    /// Entries that may be the one.
    zone: u8,
    has_applied: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Doing {
    /// It does not run the projection.
    #[default]
    Else,
    Ready,
    /// It makes a batch of what comes behind the first up to the second.
    Making(u8, u8, bool),
    /// It has asked for it to be applied, or buried.
    Sent(u8, u8, bool),
}

impl Model for State {
    type Setup = Setup;
    type Violation = Violation;
    type Action = String;

    fn start(setup: &Setup) -> Self {
        State {
            position: 0,
            runner: None,
            lapsed: false,
            deaths: 0,
            noted: 0,
            suspect: (0, 0),
            applied: [0; LAST as usize],
            buried: [false; LAST as usize],
            workers: [Worker::default(); 2],
            crashes: setup.crashes,
            others: setup.others,
            freezes: setup.freezes,
            losses: setup.losses,
            killed: 0,
        }
    }

    /// Everything is in the view, but for what kills, which is among the dead letters.
    fn is_done(&self, setup: &Setup) -> bool {
        (1..=LAST).all(|event| {
            let (applied, buried) = self.of(event);
            match event == setup.killer {
                true => applied == 0 && buried,
                false => applied == 1 && !buried,
            }
        })
    }

    fn steps(&self, setup: &Setup) -> Vec<Step<Self>> {
        let mut steps = Vec::new();
        if let Some((who, lives)) = self.runner
            && !self.lapsed
        {
            let worker = &self.workers[who as usize];
            let unrenewed = !setup.defences.renewed_meanwhile && worker.is_making();
            if !lives || worker.frozen || unrenewed {
                let next = State {
                    lapsed: true,
                    ..*self
                };
                let breaks = (lives && !worker.frozen).then_some(Violation::LapsesWhileItWorks);
                add(
                    &mut steps,
                    !lives,
                    "the lease runs out".to_owned(),
                    next,
                    breaks,
                );
            }
        }
        for who in 0..2 {
            self.steps_of(who, setup, &mut steps);
        }
        steps
    }
}

impl State {
    fn of(&self, event: u8) -> (u8, bool) {
        let place = event as usize - 1;
        (self.applied[place], self.buried[place])
    }

    fn steps_of(&self, who: u8, setup: &Setup, steps: &mut Vec<Step<Self>>) {
        let name = ["A", "B"][who as usize];
        let worker = self.workers[who as usize];
        let defences = &setup.defences;
        if worker.frozen {
            let mut next = *self;
            next.workers[who as usize].frozen = false;
            return add(steps, true, format!("{name} wakes up"), next, None);
        }
        let mut goes = |fair: bool, told: &str, next: State, breaks: Option<Violation>| {
            add(steps, fair, format!("{name} {told}"), next, breaks);
        };
        if self.freezes > 0 && worker.doing != Doing::Else {
            let mut next = *self;
            next.freezes -= 1;
            next.workers[who as usize].frozen = true;
            goes(false, "stands still", next, None);
        }
        if self.crashes > 0 && worker.doing != Doing::Else {
            let mut next = self.without(who);
            next.crashes -= 1;
            goes(false, "dies of something else", next, None);
        }
        // Until it is in the view.
        let is_at_work = matches!(worker.doing, Doing::Making(..) | Doing::Sent(..));
        let is_alone = defences.alone_in_process && self.noted != 0 && is_at_work;
        if self.others > 0 && worker.doing != Doing::Else && !is_alone {
            let mut next = self.without(who);
            next.others -= 1;
            goes(false, "dies of an event of another projection", next, None);
        }
        if self.lapsed && self.runner == Some((who, true)) && worker.doing != Doing::Else {
            let next = State {
                lapsed: false,
                ..*self
            };
            goes(true, "renews the lease", next, None);
        }
        match worker.doing {
            Doing::Else => {
                let is_mine = self.runner == Some((who, true));
                if self.runner.is_none() || self.lapsed || is_mine {
                    goes(true, "takes the lease", self.taken_by(who, defences), None);
                }
            }
            Doing::Ready => {
                if let Some(next) = self.calmed_by(who) {
                    goes(
                        true,
                        "has lived, and is past it: deaths are forgotten",
                        next,
                        None,
                    );
                }
                if self.position < LAST {
                    let (next, told) = self.begun_by(who, setup);
                    goes(true, &told, next, None);
                }
            }
            Doing::Making(from, to, _) => {
                if !defences.calm_when_applied
                    && self.runner == Some((who, true))
                    && self.deaths > 0
                {
                    let mut next = *self;
                    (next.deaths, next.suspect) = (0, (0, 0));
                    next.workers[who as usize].deaths = 0;
                    goes(
                        true,
                        "has lived for a lease: deaths are forgotten",
                        next,
                        None,
                    );
                }
                if (from + 1..=to).contains(&setup.killer) {
                    let mut next = self.without(who);
                    next.killed += 1;
                    // Who has stood still in the midst of a batch may die where another runs it by now.
                    let most = setup.max_attempts + setup.freezes;
                    let breaks = (next.killed > most).then_some(Violation::TooManyDeaths);
                    goes(
                        true,
                        &format!("is killed by {}", setup.killer),
                        next,
                        breaks,
                    );
                } else {
                    let mut next = *self;
                    next.workers[who as usize].doing = Doing::Sent(from, to, false);
                    goes(true, "has made its batch", next, None);
                }
            }
            Doing::Sent(from, to, buries) => {
                let (next, breaks) = self.applied_by(who, (from, to, buries), setup);
                let told = match (next.position != self.position, buries) {
                    (false, _) => "is told that it moved",
                    (_, true) => "buries it",
                    _ => "applies its batch",
                };
                goes(true, told, next, breaks);
                if self.losses > 0 && breaks.is_none() {
                    let mut next = next;
                    next.losses -= 1;
                    next.workers[who as usize].doing = worker.doing;
                    goes(false, &format!("{told}; the answer is lost"), next, None);
                }
            }
        }
    }

    /// The process is gone, and another one starts; its name stays in the checkpoint.
    fn without(&self, who: u8) -> State {
        let mut next = *self;
        next.workers[who as usize] = Worker::default();
        if self.runner == Some((who, true)) {
            next.runner = Some((who, false));
        }
        next
    }

    fn taken_by(&self, who: u8, defences: &Defences) -> State {
        let mut next = *self;
        if let Some((other, lives)) = self.runner
            && !(other == who && lives)
        {
            if defences.deaths_counted {
                next.deaths = (self.deaths + 1).min(UNNOTED);
                if self.noted != 0 {
                    let (suspect, killed) = self.suspect;
                    let before = if suspect == self.noted { killed } else { 0 };
                    next.suspect = (self.noted, before + 1);
                }
            }
            next.noted = 0;
        }
        (next.runner, next.lapsed) = (Some((who, true)), false);
        next.workers[who as usize] = Worker {
            doing: Doing::Ready,
            deaths: next.deaths,
            suspect: next.suspect,
            zone: BATCH,
            ..Worker::default()
        };
        next
    }

    fn calmed_by(&self, who: u8) -> Option<State> {
        let worker = &self.workers[who as usize];
        let is_past = worker.has_applied
            && (worker.zone == 0 || self.position == LAST || worker.deaths < UNNOTED);
        (is_past && worker.deaths > 0 && self.runner == Some((who, true))).then(|| {
            let mut next = *self;
            (next.deaths, next.suspect) = (0, (0, 0));
            next.workers[who as usize].deaths = 0;
            next
        })
    }

    fn begun_by(&self, who: u8, setup: &Setup) -> (State, String) {
        let mut next = *self;
        if self.runner != Some((who, true)) {
            next.workers[who as usize] = Worker::default();
            return (next, "finds that it is another's".to_owned());
        }
        let worker = &mut next.workers[who as usize];
        let (from, first) = (self.position, self.position + 1);
        let is_careful = worker.deaths >= UNNOTED && worker.zone > 0;
        if !is_careful {
            worker.doing = Doing::Making(from, (from + BATCH).min(LAST), false);
            return (next, "begins a batch".to_owned());
        }
        let limit = setup.max_attempts.saturating_sub(UNNOTED).max(1);
        if worker.suspect.0 == first && worker.suspect.1 >= limit {
            worker.doing = Doing::Sent(from, first, true);
            return (next, format!("knows that {first} kills"));
        }
        let to = if setup.defences.one_at_a_time {
            first
        } else {
            (from + BATCH).min(LAST)
        };
        worker.doing = Doing::Making(from, to, true);
        if setup.defences.noted_before {
            next.noted = first;
        }
        (next, format!("notes {first}, and begins it"))
    }

    fn applied_by(
        &self,
        who: u8,
        batch: (u8, u8, bool),
        setup: &Setup,
    ) -> (State, Option<Violation>) {
        let (from, to, buries) = batch;
        let mut next = *self;
        let stands = self.runner == Some((who, true)) && self.position == from;
        if setup.defences.fence && !stands {
            next.workers[who as usize] = Worker::default();
            return (next, None);
        }
        let mut breaks = None;
        for event in from + 1..=to {
            let place = event as usize - 1;
            match buries {
                true => next.buried[place] = true,
                false => next.applied[place] += 1,
            }
            if next.applied[place] + u8::from(next.buried[place]) > 1 {
                breaks = Some(Violation::AppliedTwice);
            }
            if buries && event != setup.killer {
                breaks = Some(Violation::InnocentBuried);
            }
        }
        next.position = next.position.max(to);
        if next.noted != 0 || buries {
            (next.noted, next.suspect) = (0, (0, 0));
        }
        let worker = &mut next.workers[who as usize];
        worker.doing = Doing::Ready;
        worker.has_applied = true;
        worker.suspect = (0, 0);
        worker.zone = worker.zone.saturating_sub(to - from);
        if !setup.defences.whole_zone {
            worker.deaths = 0;
            next.deaths = 0;
        }
        (next, breaks)
    }
}

impl Worker {
    fn is_making(&self) -> bool {
        matches!(self.doing, Doing::Making(..))
    }
}

fn add(
    steps: &mut Vec<Step<State>>,
    fair: bool,
    action: String,
    state: State,
    breaks: Option<Violation>,
) {
    steps.push(Step {
        action,
        fair,
        state,
        breaks,
    });
}
