//! Random programs: their traces have to be the same in memory and on a server, line by line. A program is made from its
//! seed, which is printed. `STREAMHAND_KIT_SEED=17` runs that one alone; `STREAMHAND_KIT_PROGRAMS=1000` runs a thousand.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use streamhand::testing::{At, Builder, TestWorker};
use streamhand::{Effect, Envelope, Registry, testing};

use super::jobs::{self, Does, Done, Job, Unknown, job};
use super::kind::Kind;
use super::{on, runtime, said};

/// Configurations that programs run with.
const CONFIGS: &[&str] = &[
    "",
    "[handlers.\"job.asked\"]\ndeduplicate = \"1h\"",
    "[handlers.\"job.asked\"]\ncircuit_breaker = { failures = 2, open_for = \"1m\", probes = 1 }",
    "[handlers.\"job.asked\"]\nrate = \"2/m\"",
    "[handlers.\"job.asked\"]\nconcurrency = 1\nmax_attempts = 5",
    "[breakers.service]\nfailures = 1\nopen_for = \"10m\"",
    "[retry]\non_crash = \"bury\"\nmax_attempts = 2",
    "[streams.jobs]\npartitions = 3",
];

/// One thing that a program does.
#[derive(Clone, Debug)]
enum Act {
    Publish(Job),
    /// The same event as one before, or another one of its id.
    PublishCopy(u64, Job),
    PublishOnce(u64),
    PublishLater(u64, Job),
    PublishDone,
    PublishUnknown,
    PublishBroken,
    Advance(Duration),
    Run,
    Kill(At),
    LoseAnswer,
    RedisAway(u64),
    Pause,
    Resume,
    PauseHandler,
    ResumeHandler,
    Cancel(usize),
    Replay,
    Given(i64),
}

struct Program {
    config: String,
    acts: Vec<Act>,
}

/// A program by its seed.
fn program(seed: u64) -> Program {
    let mut dice = fastrand::Rng::with_seed(seed);
    let config = dice.choice(CONFIGS).unwrap_or(&"");
    let streams = if dice.bool() {
        "\"jobs\""
    } else {
        "\"jobs\", \"done\""
    };
    let config = format!("[worker]\nstreams = [{streams}]\n{config}");
    let count = dice.usize(3..25);
    let acts = (0..count).map(|number| act(&mut dice, number)).collect();
    Program { config, acts }
}

fn act(dice: &mut fastrand::Rng, number: usize) -> Act {
    match dice.u8(0..40) {
        0..10 => Act::Publish(random_job(dice, number)),
        10..12 => Act::PublishCopy(dice.u64(0..2), random_job(dice, 0)),
        12 => Act::PublishOnce(dice.u64(0..2)),
        13..15 => Act::PublishLater(dice.u64(1..3000), random_job(dice, number)),
        15 => Act::PublishDone,
        16 => Act::PublishUnknown,
        17 => Act::PublishBroken,
        18..27 => Act::Advance(some_time(dice)),
        27..30 => Act::Run,
        30..33 => {
            let places = [At::Delivered, At::BeforeAck, At::AfterAck, At::BeforeRetry];
            Act::Kill(places[dice.usize(0..4)])
        }
        33 => Act::LoseAnswer,
        34 => Act::RedisAway(dice.u64(1..200)),
        35 => Act::Pause,
        36 => Act::Resume,
        37 => match dice.u8(0..4) {
            0 => Act::PauseHandler,
            1 => Act::ResumeHandler,
            2 => Act::Cancel(dice.usize(0..3)),
            _ => Act::Given(dice.i64(1..4)),
        },
        _ => Act::Replay,
    }
}

fn some_time(dice: &mut fastrand::Rng) -> Duration {
    // Not to the millisecond at which a key expires: a server's keys go by the time that a test really takes as well.
    match dice.u8(0..4) {
        0 => Duration::from_millis(dice.u64(1..1500)),
        1 => Duration::from_secs(dice.u64(1..40)),
        2 => Duration::from_secs(dice.u64(40..700)),
        _ => Duration::from_secs(dice.u64(700..20_000)),
    }
}

fn random_job(dice: &mut fastrand::Rng, number: usize) -> Job {
    let does = |dice: &mut fastrand::Rng| match dice.u8(0..19) {
        0..3 => Does::Emit,
        3 | 4 => Does::Count(dice.i64(-2..3)),
        5 => Does::Take,
        6..9 => Does::Fail(dice.u32(1..5)),
        9 => Does::Never,
        10 => Does::NeverTimes(1),
        11 => Does::RetryAfter(dice.u32(1..3), dice.u64(0..90)),
        12 => Does::Later(dice.u32(1..3), dice.u64(1..90)),
        13 => Does::Sleep(dice.u64(1..50)),
        14 => Does::CommitAndFail,
        15 => Does::EmitLater(dice.u64(1..2000)),
        16 => Does::CancelLater,
        _ => Does::CallAway,
    };
    let count = dice.usize(0..4);
    let does: Vec<Does> = (0..count).map(|_| does(dice)).collect();
    job(&format!("job {number}"), does)
}

/// An event that has this id whatever it says.
fn known(id: u64, job: &Job) -> Envelope {
    let event = Envelope::new("job.asked").json(job).unwrap();
    event
        .with("id", format!("e-{id}"))
        .with("schemaversion", "2")
}

async fn run(w: &mut TestWorker, acts: &[Act]) {
    const JOBS: &str = "jobs";
    let mut later = Vec::new();
    for act in acts {
        match act {
            Act::Publish(job) => drop(w.publish(JOBS, job).await),
            Act::PublishCopy(id, job) => drop(w.publish_envelope(JOBS, known(*id, job)).await),
            Act::PublishOnce(id) => {
                let (id, window) = (format!("once-{id}"), Duration::from_secs(5000));
                let job = job(&id, [Does::Emit]);
                w.publish_once(JOBS, &id, &job, window).await;
            }
            Act::PublishLater(seconds, job) => {
                let wait = Duration::from_secs(*seconds);
                later.push(w.publish_after(JOBS, job, wait).await);
            }
            Act::PublishDone => {
                let done = Done { name: "x".into() };
                w.publish(JOBS, &done).await;
            }
            Act::PublishUnknown => drop(w.publish(JOBS, &Unknown).await),
            Act::PublishBroken => {
                let broken = Envelope::new("job.asked").with("schemaversion", "2");
                w.publish_envelope(JOBS, broken.with("data", "{}")).await;
            }
            Act::Advance(time) => w.advance(*time).await,
            Act::Run => w.run_until_idle().await,
            Act::Kill(at) => w.kill(*at),
            Act::LoseAnswer => w.lose_answer(),
            Act::RedisAway(seconds) => w.redis_away(Duration::from_secs(*seconds)),
            Act::Pause => w.pause(JOBS).await,
            Act::Resume => w.resume(JOBS).await,
            Act::PauseHandler => w.pause_handler::<Job>(JOBS).await,
            Act::ResumeHandler => w.resume_handler::<Job>(JOBS).await,
            Act::Cancel(which) => {
                if let Some(id) = later.get(*which) {
                    w.cancel_scheduled(JOBS, id).await;
                }
            }
            Act::Replay => drop(w.replay().await),
            Act::Given(by) => w.given(Effect::incr_by("stock", *by)).await,
        }
    }
    w.advance(Duration::from_secs(24 * 3600)).await;
}

/// What came of a program: what happened, and what is there in the end.
fn trace(program: &Program, make: impl Fn(Registry) -> Builder) -> String {
    runtime().block_on(async {
        let builder = make(jobs::registry()).seed(7).config(&program.config);
        let mut w = builder.start().await;
        run(&mut w, &program.acts).await;
        let mut text = w.timeline();
        for key in ["count", "stock", "committed", "sold out"] {
            let _ = writeln!(text, "{key}: {:?}", w.state(key).await);
        }
        for letter in w.dead_letters().all() {
            let head = &letter.head;
            let (why, had) = (head.reason.as_str(), head.attempts);
            let _ = writeln!(
                text,
                "dead: {why} after {had}, {} replays: {}",
                head.replays, head.error
            );
        }
        let done = w.emitted::<Done>().all();
        let _ = writeln!(text, "emitted: {done:?}");
        let (handled, ran) = (w.handled::<Job>().get(), w.attempts::<Job>().get());
        let _ = writeln!(
            text,
            "handled {handled}, ran {ran}, parked {}",
            w.parked().get()
        );
        text
    })
}

/// The first line that differs, and some before it.
fn difference(memory: &str, server: &str) -> String {
    let (mut lines, mut before) = (memory.lines().zip(server.lines()), Vec::new());
    let differ = lines.find(|(one, other)| {
        before.push((*one).to_owned());
        one != other
    });
    before.pop();
    let from = before.len().saturating_sub(30);
    let (one, other) = differ.unwrap_or(("(it ends)", "(it ends)"));
    format!(
        "{}\nin memory: {one}\non server: {other}",
        before[from..].join("\n")
    )
}

fn compare(seed: u64, kind: Kind) -> Result<(), String> {
    let program = program(seed);
    let on_server = catch_unwind(AssertUnwindSafe(|| trace(&program, on(kind))));
    let in_memory = catch_unwind(AssertUnwindSafe(|| trace(&program, testing::worker)));
    let said = |ran: std::thread::Result<String>| match ran {
        Ok(text) => text,
        Err(panic) => said(|| std::panic::resume_unwind(panic)),
    };
    let (in_memory, on_server) = (said(in_memory), said(on_server));
    if in_memory == on_server {
        return Ok(());
    }
    let (config, acts) = (&program.config, &program.acts);
    let acts: Vec<String> = acts.iter().map(|act| format!("{act:?}")).collect();
    Err(format!(
        "STREAMHAND_KIT_SEED={seed} on {kind:?}\n{config}\n{}\n{}",
        acts.join("\n"),
        difference(&in_memory, &on_server)
    ))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn programs_come_to_the_same(kind: Kind) {
    let seeds = match number("STREAMHAND_KIT_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let begin = u64::from(fastrand::u32(..));
            begin..begin + number("STREAMHAND_KIT_PROGRAMS").unwrap_or(10)
        }
    };
    println!("seeds {seeds:?}");
    let differ: Vec<String> = seeds.filter_map(|seed| compare(seed, kind).err()).collect();
    assert!(
        differ.is_empty(),
        "{} differ:\n{}",
        differ.len(),
        differ.join("\n\n")
    );
}

#[test]
fn programs_come_to_the_same_on_redis() {
    programs_come_to_the_same(Kind::Redis);
}

#[test]
fn programs_come_to_the_same_on_valkey() {
    programs_come_to_the_same(Kind::Valkey);
}
