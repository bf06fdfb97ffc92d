//! The workers of a run, each behind a network of its own, and what the plan does to them.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;
use tokio::time::{Instant, sleep, sleep_until};

use super::history::{Life, Renewal};
use super::plan::{Fault, Network, Planned};
use super::records;
use super::rules::{self, STREAMS};
use crate::support::{
    Caught, Exchange, ProcessBuilder, Proxy, Watched, WorkerProcess, monotonic, scripts,
};

/// How long a worker may take to stop: its drain time, and what the library grants itself behind that.
const STOP: Duration = Duration::from_secs(30);
/// How often it is looked whether a worker still lives.
const LOOK: Duration = Duration::from_millis(20);

/// Where workers of a run reach their server, and where they leave what they have to say.
#[derive(Clone)]
pub struct Base {
    pub server_port: u16,
    pub dir: PathBuf,
}

impl Base {
    pub fn records(&self) -> PathBuf {
        self.dir.join("records")
    }
}

/// The worker of one number, in one life after another.
pub struct Slot {
    base: Base,
    number: usize,
    lives: Vec<Life>,
    /// `None` between two lives.
    now: Option<Now>,
    /// Networks of lives that ended a moment ago: what they had sent is still on its way.
    past: Vec<(Instant, Proxy)>,
    /// When networks of this life that are in trouble are to be well again.
    heals: Vec<(Instant, Heal)>,
}

struct Now {
    process: WorkerProcess,
    proxy: Proxy,
    renewals: Watched,
    frozen: bool,
}

/// How trouble ends.
#[derive(Clone, Copy)]
enum Heal {
    Accept,
    Speak,
    SpeakAndCut,
    Hurry,
    ResumeReplies,
}

impl Slot {
    pub async fn start(base: Base, number: usize) -> Slot {
        let mut slot = Slot {
            base,
            number,
            lives: Vec::new(),
            now: None,
            past: Vec::new(),
            heals: Vec::new(),
        };
        slot.begin().await;
        slot
    }

    /// Plays what is planned from `begin` on.
    pub async fn play(&mut self, begin: Instant, faults: &[Planned<Fault>]) {
        for planned in faults {
            self.live_until(begin + planned.at).await;
            self.suffer(&planned.what).await;
        }
    }

    /// Lets it live, and live again where it died, until then.
    pub async fn live_until(&mut self, end: Instant) {
        loop {
            self.look_after().await;
            let now = Instant::now();
            if now >= end {
                return;
            }
            sleep_until(end.min(now + LOOK)).await;
        }
    }

    /// Puts an end to all trouble.
    pub async fn heal(&mut self) {
        for (_, heal) in std::mem::take(&mut self.heals) {
            self.end_trouble(heal).await;
        }
    }

    /// Stops it in peace, and returns all its lives.
    pub async fn finish(mut self) -> Vec<Life> {
        self.look_after().await;
        if self.now.is_some() {
            self.stop().await;
            let life = self.lives.last().expect("a life");
            // An answer that never comes may still be waited for, or its trap be sprung by the stop itself.
            let stopping = life.told_to_stop.expect("it was told");
            let was_in_trouble = life.troubles.between(stopping, monotonic());
            if life.ending != "0" && !was_in_trouble {
                let ending = format!("it ended with {} where nothing was wrong", life.ending);
                self.lives.last_mut().expect("a life").wrong.push(ending);
            }
        }
        self.lives
    }

    async fn begin(&mut self) {
        let proxy = Proxy::start(self.base.server_port).await;
        let renewals = proxy.watch(Exchange::of(scripts::hash("renew")));
        let name = format!("{}.{}", self.number, self.lives.len());
        let process = ProcessBuilder::test(WorkerProcess::builder(), "chaos::worker_under_chaos")
            .config(&rules::config(&proxy.url()))
            .env(records::FILE, self.base.records().display().to_string())
            .env(records::LIFE, name.clone())
            .start();
        self.lives.push(Life::new(name, monotonic()));
        self.now = Some(Now {
            process,
            proxy,
            renewals,
            frozen: false,
        });
    }

    /// Ends what trouble is over, and starts it anew where it has died by itself.
    async fn look_after(&mut self) {
        let now = Instant::now();
        self.past
            .retain(|(gone, _)| now.duration_since(*gone) < Duration::from_secs(8));
        let over: Vec<Heal> = self
            .heals
            .extract_if(.., |(at, _)| *at <= now)
            .map(|(_, heal)| heal)
            .collect();
        for heal in over {
            self.end_trouble(heal).await;
        }
        let died = self.now.as_mut().is_some_and(|now| now.process.has_ended());
        if died {
            self.killed_by_an_event().await;
        }
        if self.now.is_none() {
            self.begin().await;
        }
    }

    async fn killed_by_an_event(&mut self) {
        let now = self.now.as_mut().expect("a life");
        let status = now.process.wait(STOP).await;
        self.ended(status);
        // SIGABRT: it was an event's doing.
        if status.signal() != Some(6) {
            let life = self.lives.last_mut().expect("a life");
            life.wrong
                .push(format!("it ended by itself, with {}", life.ending));
        }
    }

    /// Notes how a life ended.
    fn ended(&mut self, status: ExitStatus) {
        let now = self.now.take().expect("a life");
        let life = self.lives.last_mut().expect("a life");
        life.ended = Some(monotonic());
        life.ending = match (status.code(), status.signal()) {
            (Some(code), _) => code.to_string(),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        life.renewals = renewals(&now.renewals);
        let log = now.process.log();
        if let Some(line) = log.lines().find(|line| line.contains("panicked at src/")) {
            life.wrong.push(format!("the library panicked: {line}"));
        }
        keep_log(&self.base.dir, &life.name, &log);
        self.past.push((Instant::now(), now.proxy));
        self.heals.clear();
    }

    /// SIGTERM, and what comes of it.
    async fn stop(&mut self) {
        let now = self.now.as_mut().expect("a life");
        let life = self.lives.last_mut().expect("a life");
        life.told_to_stop = Some(monotonic());
        now.process.terminate();
        let since = Instant::now();
        while !now.process.has_ended() {
            if since.elapsed() > STOP {
                life.wrong
                    .push(format!("it had not stopped after {STOP:?}"));
                let status = now.process.kill();
                return self.ended(status);
            }
            sleep(LOOK).await;
        }
        let status = now.process.wait(STOP).await;
        self.ended(status);
    }

    async fn suffer(&mut self, fault: &Fault) {
        let Some(now) = self.now.as_mut() else { return };
        let from = monotonic();
        match fault {
            Fault::Kill(pause) => {
                let status = now.process.kill();
                self.ended(status);
                sleep(*pause).await;
            }
            Fault::Stop(pause) => {
                self.stop_amid_trouble(STOP).await;
                sleep(*pause).await;
            }
            Fault::StopThenKill(after) => self.stop_amid_trouble(*after).await,
            Fault::Freeze(time) => {
                now.process.freeze();
                now.frozen = true;
                sleep(*time).await;
                now.process.thaw();
                now.frozen = false;
                self.trouble(from);
            }
            Fault::Network(network) => self.suffer_network(network).await,
        }
    }

    /// A stop while the network may be bad: it is well again when its time comes.
    async fn stop_amid_trouble(&mut self, kill_after: Duration) {
        let now = self.now.as_mut().expect("a life");
        if now.process.has_ended() {
            return;
        }
        let life = self.lives.last_mut().expect("a life");
        life.told_to_stop = Some(monotonic());
        now.process.terminate();
        let since = Instant::now();
        loop {
            let now = self.now.as_mut().expect("a life");
            if now.process.has_ended() {
                let status = now.process.wait(STOP).await;
                return self.ended(status);
            }
            if since.elapsed() >= kill_after {
                if kill_after == STOP {
                    let life = self.lives.last_mut().expect("a life");
                    life.wrong
                        .push(format!("it had not stopped after {STOP:?}"));
                }
                let status = now.process.kill();
                return self.ended(status);
            }
            let due = Instant::now();
            let over: Vec<Heal> = self
                .heals
                .extract_if(.., |(at, _)| *at <= due)
                .map(|(_, heal)| heal)
                .collect();
            for heal in over {
                self.end_trouble(heal).await;
            }
            sleep(LOOK).await;
        }
    }

    async fn suffer_network(&mut self, network: &Network) {
        let from = monotonic();
        let now = self.now.as_mut().expect("a life");
        match play_network(&mut now.proxy, network).await {
            Played::Done => self.trouble(from),
            Played::Sprung(caught, lasts) => self.trouble_when(caught, lasts),
            Played::Until(time, heal) => {
                self.heals.push((Instant::now() + time, heal));
                let life = self.lives.last().expect("a life");
                let until = monotonic() + time.as_nanos() as u64 + AFTER;
                life.troubles.add(from, until);
            }
        }
    }

    /// Notes when a trap is sprung, and trouble for so long after that.
    fn trouble_when(&mut self, caught: Caught, lasts: Duration) {
        let life = self.lives.last().expect("a life");
        let troubles = life.troubles.clone();
        let lasts = lasts.as_nanos() as u64;
        tokio::spawn(async move {
            if caught.sprung().await {
                let now = monotonic();
                troubles.add(now.saturating_sub(AFTER), now + lasts + AFTER);
            }
        });
    }

    /// Notes that it was in trouble until now, and a moment longer.
    fn trouble(&mut self, from: u64) {
        let life = self.lives.last().expect("a life");
        life.troubles.add(from, monotonic() + AFTER);
    }

    async fn end_trouble(&mut self, heal: Heal) {
        let Some(now) = self.now.as_mut() else { return };
        heal_network(&mut now.proxy, heal).await;
        let from = monotonic();
        self.trouble(from);
    }
}

/// How long, in ns, what was in trouble may take to be itself again.
const AFTER: u64 = 2_000_000_000;
/// How long a worker may take to give up on an answer that never comes.
const GIVE_UP: Duration = Duration::from_secs(15);

/// What is left of a fault once it was played.
enum Played {
    Done,
    /// It is over after that time.
    Until(Duration, Heal),
    /// It begins when its trap is sprung, and is over so long after that.
    Sprung(Caught, Duration),
}

async fn play_network(proxy: &mut Proxy, network: &Network) -> Played {
    match network {
        Network::Cut => proxy.cut().await,
        Network::Refuse(time) => {
            proxy.refuse().await;
            return Played::Until(*time, Heal::Accept);
        }
        Network::Silence(time) => {
            proxy.silence();
            return Played::Until(*time, Heal::Speak);
        }
        Network::SilenceThenCut(time) => {
            proxy.silence();
            return Played::Until(*time, Heal::SpeakAndCut);
        }
        Network::Slow(by, time) => {
            proxy.slow_down(*by);
            return Played::Until(*time, Heal::Hurry);
        }
        Network::HoldReplies(time) => {
            proxy.pause_replies();
            return Played::Until(*time, Heal::ResumeReplies);
        }
        Network::HalfCloseToClients => proxy.half_close_to_clients(),
        Network::HalfCloseToServer => proxy.half_close_to_server(),
        Network::LoseRequest(step) => {
            return Played::Sprung(proxy.cut_before(exchange(step)), Duration::ZERO);
        }
        Network::FallSilentAt(part, time) => {
            let caught = proxy.fall_silent_at(Exchange::of(part), *time);
            return Played::Sprung(caught, *time);
        }
        Network::LoseReply(step) => {
            return Played::Sprung(proxy.cut_after(exchange(step)), Duration::ZERO);
        }
        Network::NeverAnswer(step) => {
            return Played::Sprung(proxy.hold_reply(exchange(step)), GIVE_UP);
        }
        Network::AnswerLate(step, by) => {
            return Played::Sprung(proxy.delay(exchange(step), *by), *by);
        }
    }
    Played::Done
}

async fn heal_network(proxy: &mut Proxy, heal: Heal) {
    match heal {
        Heal::Accept => proxy.accept_again(),
        Heal::Speak => proxy.speak(),
        Heal::SpeakAndCut => {
            proxy.cut().await;
            proxy.speak();
        }
        Heal::Hurry => proxy.slow_down(Duration::ZERO),
        Heal::ResumeReplies => proxy.resume_replies(),
    }
}

/// The network of somebody who is no worker: plays what is planned, and is well again at the end.
pub async fn play_to(proxy: &mut Proxy, begin: Instant, faults: &[Planned<Network>]) {
    for planned in faults {
        sleep_until(begin + planned.at).await;
        if let Played::Until(time, heal) = play_network(proxy, &planned.what).await {
            sleep(time).await;
            heal_network(proxy, heal).await;
        }
    }
}

fn exchange(step: &str) -> Exchange {
    if step.starts_with('X') {
        Exchange::of(step)
    } else {
        scripts::call(step)
    }
}

/// What a network saw of its worker's renewals of the streams, and not of what was replayed.
fn renewals(watched: &Watched) -> Vec<Renewal> {
    let has = |head: &[u8], part: &[u8]| head.windows(part.len()).any(|window| window == part);
    let seen = watched.seen().into_iter();
    seen.filter_map(|seen| {
        // The first key, as a request has it.
        let is_of = |stream: &&&str| has(&seen.head, format!("\r\n{stream}\r\n").as_bytes());
        let stream = *STREAMS.iter().find(is_of)?;
        let (asked, answered) = (seen.asked, seen.answered);
        let alone = has(&seen.head, b"!\r\n");
        Some(Renewal {
            asked,
            answered,
            stream,
            alone,
        })
    })
    .collect()
}

fn keep_log(dir: &Path, life: &str, log: &str) {
    std::fs::write(dir.join(format!("worker-{life}.log")), log).expect("to keep a log");
}
