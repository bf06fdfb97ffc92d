//! What is to happen in a run: every event and every fault, with its time, from one seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::rules::{LEASE, MALFORMED, STREAMS};

/// Workers that run at a time.
pub const WORKERS: usize = 4;

/// What is to happen.
pub struct Plan {
    pub seed: u64,
    pub length: Duration,
    /// Of each publisher.
    pub events: Vec<Vec<Planned<NewEvent>>>,
    /// Of each worker.
    pub workers: Vec<Vec<Planned<Fault>>>,
    /// Of the network between each publisher and the server.
    pub publishers: Vec<Vec<Planned<Network>>>,
    pub server: Vec<Planned<ServerFault>>,
}

#[derive(Clone, Debug)]
pub struct Planned<T> {
    /// Since the run began.
    pub at: Duration,
    pub what: T,
}

/// An event to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    pub id: String,
    pub stream: &'static str,
    pub way: Way,
    pub event_type: &'static str,
    pub job: Job,
}

/// How an event is published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    Now,
    /// So that it comes so many milliseconds later.
    Later(u64),
    /// Again and again until it is acknowledged, and only once.
    Once,
}

/// What an event asks of its handler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Whether it counts itself, and emits an event that says so, with its acknowledgement.
    pub effect: bool,
    pub act: Act,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    Succeed,
    /// Succeeds after so many milliseconds.
    Take(u64),
    /// Computes for so many milliseconds without an await.
    Compute(u64),
    /// Fails in the first so many attempts.
    FailFirst(u32),
    /// The same, each after so many milliseconds.
    TakeThenFailFirst(u64, u32),
    Fail,
    FailForGood,
    /// The same after so many milliseconds.
    TakeThenFailForGood(u64),
    PanicFirst(u32),
    /// Hangs in the first so many attempts.
    HangFirst(u32),
    /// Asks to come back until so many milliseconds after it was published.
    LaterFor(u64),
    /// Commits by itself, and fails after that.
    Commit,
    /// Kills its process.
    Abort,
    /// No handler ever sees it.
    Unseen,
}

/// What happens to a worker.
#[derive(Clone, Debug)]
pub enum Fault {
    /// SIGKILL, and a new one after that time.
    Kill(Duration),
    /// SIGTERM, and a new one after that time.
    Stop(Duration),
    /// SIGTERM, and SIGKILL so soon after it.
    StopThenKill(Duration),
    /// SIGSTOP, and SIGCONT after that time.
    Freeze(Duration),
    Network(Network),
}

/// What happens to the network between a client and the server.
#[derive(Clone, Debug)]
pub enum Network {
    /// All connections break.
    Cut,
    /// They break, and none can be made for so long.
    Refuse(Duration),
    /// Nothing is passed on, in neither direction, for so long; then all of it, late.
    Silence(Duration),
    /// The same, but in the end connections break.
    SilenceThenCut(Duration),
    /// Replies are delivered that much later, for so long.
    Slow(Duration, Duration),
    /// Replies are held back for so long.
    HoldReplies(Duration),
    HalfCloseToClients,
    HalfCloseToServer,
    /// The connection breaks on which the next such request comes, which the server never gets.
    LoseRequest(&'static str),
    /// From the next request on that has this in it nothing is passed on for so long: what a handler came to arrives when another
    /// worker may have its entry.
    FallSilentAt(&'static str, Duration),
    /// The server does it, and the connection breaks that carries its answer.
    LoseReply(&'static str),
    /// The server does it, and neither the answer nor anything behind it on its connection ever comes.
    NeverAnswer(&'static str),
    /// The answer, and all behind it on its connection, come that much later.
    AnswerLate(&'static str, Duration),
}

#[derive(Clone, Debug)]
pub enum ServerFault {
    /// SIGKILL, and started again with its append-only file after that time.
    Kill(Duration),
    /// SIGSTOP for so long.
    Freeze(Duration),
    /// It forgets its scripts.
    ForgetScripts,
}

/// In the error of a handler that takes a while.
pub const AT_LENGTH: &str = "asked to fail at length";

/// Steps whose exchanges get lost, by their script, or by their command in capitals.
const STEPS: [&str; 12] = [
    "XREADGROUP",
    "XACK",
    "commit",
    "park",
    "bury",
    "wake",
    "reclaim",
    "adopt",
    "renew",
    "claim",
    "take_waiting",
    "ack",
];

/// How much is to happen in a second.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub events: f64,
    /// Between one fault of a worker and its next one, on average.
    pub pause: Duration,
    /// The same of single steps of a worker whose exchange gets lost or comes late.
    pub loss: Duration,
}

impl Plan {
    pub fn new(seed: u64, length: Duration, rates: Rates) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let publishers = 2;
        let events = (0..publishers)
            .map(|n| events(&mut rng.fork(), n, length, rates.events / publishers as f64))
            .collect();
        let workers = (0..WORKERS)
            .map(|_| {
                let mut all = times(&mut rng.fork(), length, rates.pause, fault);
                all.extend(times(&mut rng.fork(), length, rates.loss, loss));
                all.sort_by_key(|planned| planned.at);
                all
            })
            .collect();
        let pause = rates.pause * 3;
        // The second publisher has a good network.
        let mut of_publishers = vec![times(&mut rng.fork(), length, pause, network)];
        of_publishers.push(Vec::new());
        let server = times(&mut rng.fork(), length, rates.pause * 4, server_fault);
        Plan {
            seed,
            length,
            events,
            workers,
            publishers: of_publishers,
            server,
        }
    }
}

/// Things at random times, none in the first second.
fn times<T>(
    rng: &mut Rng,
    length: Duration,
    pause: Duration,
    mut what: impl FnMut(&mut Rng) -> T,
) -> Vec<Planned<T>> {
    let mut at = Duration::from_secs(1);
    let mut all = Vec::new();
    loop {
        at += pause.mul_f64(wait(rng));
        if at >= length {
            return all;
        }
        let what = what(rng);
        all.push(Planned { at, what });
    }
}

/// A wait as between things that know nothing of each other, 1 on average.
fn wait(rng: &mut Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}

fn between(rng: &mut Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.u64(least..=most))
}

/// Mostly short, and sometimes past the lease.
fn short_or_past_the_lease(rng: &mut Rng) -> Duration {
    let lease = LEASE.as_millis() as u64;
    match rng.u8(0..3) {
        0 => between(rng, 50, lease / 2),
        1 => between(rng, lease / 2, lease),
        _ => between(rng, lease * 11 / 10, lease * 5 / 2),
    }
}

fn fault(rng: &mut Rng) -> Fault {
    let restart = between(rng, 0, 1_500);
    match rng.u8(0..20) {
        0..=3 => Fault::Kill(restart),
        4..=6 => Fault::Stop(restart),
        7 => Fault::StopThenKill(between(rng, 0, 1_200)),
        8..=11 => Fault::Freeze(short_or_past_the_lease(rng)),
        _ => Fault::Network(network(rng)),
    }
}

fn network(rng: &mut Rng) -> Network {
    match rng.u8(0..14) {
        0..=2 => Network::Cut,
        3..=4 => Network::Refuse(short_or_past_the_lease(rng)),
        5..=6 => Network::Silence(short_or_past_the_lease(rng)),
        7..=8 => Network::SilenceThenCut(short_or_past_the_lease(rng)),
        9 => Network::Slow(between(rng, 5, 300), between(rng, 500, 4_000)),
        10 => Network::HoldReplies(short_or_past_the_lease(rng)),
        11 => Network::HalfCloseToClients,
        12 => Network::HalfCloseToServer,
        _ => lost(rng),
    }
}

fn loss(rng: &mut Rng) -> Fault {
    Fault::Network(lost(rng))
}

fn lost(rng: &mut Rng) -> Network {
    let step = STEPS[rng.usize(0..STEPS.len())];
    match rng.u8(0..12) {
        10..=11 => {
            let lease = LEASE.as_millis() as u64;
            Network::FallSilentAt(AT_LENGTH, between(rng, lease * 11 / 10, lease * 17 / 10))
        }
        0..=1 => Network::LoseRequest(step),
        2..=6 => Network::LoseReply(step),
        7 => Network::NeverAnswer(step),
        _ => Network::AnswerLate(step, short_or_past_the_lease(rng)),
    }
}

fn server_fault(rng: &mut Rng) -> ServerFault {
    match rng.u8(0..8) {
        0..=5 => ServerFault::Kill(between(rng, 0, 2_500)),
        6 => ServerFault::Freeze(between(rng, 200, 3_000)),
        _ => ServerFault::ForgetScripts,
    }
}

fn events(rng: &mut Rng, publisher: usize, length: Duration, rate: f64) -> Vec<Planned<NewEvent>> {
    let mut all = Vec::new();
    let pause = Duration::from_secs_f64(1.0 / rate);
    let mut at = Duration::ZERO;
    // Each takes a worker or two with it, and all that these hold: few, and none towards the end.
    let mut next_killer = length / 5;
    let mut number = 0;
    loop {
        at += pause.mul_f64(wait(rng));
        if at >= length {
            return all;
        }
        let (event_type, act) = if publisher == 0 && at >= next_killer && at < length.mul_f64(0.8) {
            next_killer = at + Duration::from_secs(40);
            ("chaos.killer", Act::Abort)
        } else {
            kind(rng)
        };
        let wants_effect = rng.u8(0..3) > 0;
        let effect = match act {
            Act::Unseen => false,
            // It may die when it has committed and before it can say so: its effect says so.
            Act::Commit => true,
            _ => wants_effect,
        };
        let id = format!("{publisher}-{number}");
        number += 1;
        let job = Job { effect, act };
        let way = match (event_type, rng.u8(0..10)) {
            // No publisher takes it. And copies are told by who handles them.
            (MALFORMED | "chaos.once", _) => Way::Now,
            (_, 0) => Way::Later(rng.u64(1..=2_500)),
            (_, 1) => Way::Once,
            _ => Way::Now,
        };
        let stream = STREAMS[usize::from(rng.u8(0..4) == 0)];
        let event = NewEvent {
            id,
            stream,
            way,
            event_type,
            job,
        };
        // A copy comes at once, soon, or when the first should be done.
        if event_type == "chaos.once" {
            let most = [0, 50, 3_000][rng.usize(0..3)];
            let later = at + between(rng, 0, most);
            let what = event.clone();
            all.push(Planned {
                at: later.min(length),
                what,
            });
        }
        all.push(Planned { at, what: event });
    }
}

fn kind(rng: &mut Rng) -> (&'static str, Act) {
    let first = rng.u32(1..=3);
    match rng.u8(0..100) {
        0..=34 => ("chaos.plain", Act::Succeed),
        35..=36 => ("chaos.plain", Act::Compute(rng.u64(1..=60))),
        37..=44 => ("chaos.slow", Act::Take(rng.u64(20..=3_000))),
        45..=49 => ("chaos.flaky", Act::FailFirst(first)),
        50..=54 => (
            "chaos.flaky",
            Act::TakeThenFailFirst(rng.u64(100..=2_000), first),
        ),
        55..=57 => ("chaos.hopeless", Act::Fail),
        58 => ("chaos.permanent", Act::FailForGood),
        59..=60 => (
            "chaos.permanent",
            Act::TakeThenFailForGood(rng.u64(100..=2_000)),
        ),
        61..=63 => ("chaos.panics", Act::PanicFirst(first)),
        64..=67 => ("chaos.hangs", Act::HangFirst(first.min(2))),
        68..=72 => ("chaos.later", Act::LaterFor(rng.u64(50..=1_500))),
        73..=77 => ("chaos.rated", Act::Succeed),
        78..=82 => ("chaos.narrow", Act::Take(rng.u64(10..=150))),
        83..=90 => ("chaos.once", once(rng)),
        91..=93 => ("chaos.single", Act::Take(rng.u64(1..=400))),
        94..=96 => ("chaos.commits", Act::Commit),
        97 => ("chaos.breaker", Act::FailFirst(1)),
        98 => ("chaos.unknown", Act::Unseen),
        _ => ("chaos.malformed", Act::Unseen),
    }
}

fn once(rng: &mut Rng) -> Act {
    match rng.u8(0..4) {
        0 => Act::Succeed,
        1 => Act::FailFirst(1),
        _ => Act::Take(rng.u64(1..=800)),
    }
}

/// All faults in the order of their times, a line each.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        for (n, faults) in self.workers.iter().enumerate() {
            lines.extend(
                faults
                    .iter()
                    .map(|p| (p.at, format!("worker {n}: {:?}", p.what))),
            );
        }
        for (n, faults) in self.publishers.iter().enumerate() {
            lines.extend(
                faults
                    .iter()
                    .map(|p| (p.at, format!("publisher {n}: {:?}", p.what))),
            );
        }
        lines.extend(
            self.server
                .iter()
                .map(|p| (p.at, format!("server: {:?}", p.what))),
        );
        lines.sort();
        for (at, what) in lines {
            writeln!(f, "{:8.3}  {what}", at.as_secs_f64())?;
        }
        Ok(())
    }
}
