//! Workers in processes of their own: this program once more, with the hidden command `bench-worker`. They say when
//! they are ready, begin when told to, tell how much they have handled, and end when nobody listens to them any more.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Notify, oneshot};

use super::figures;
use super::job::Job;
use super::rig::Rig;
use super::worker::Report;
use streamhand::cli::CommandError;

/// How long a process may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Processes that do the same job.
pub(super) struct Crew {
    members: Vec<Member>,
    /// How often they were asked how far they are.
    marks: u64,
    news: Arc<Notify>,
    log: std::path::PathBuf,
}

/// What a crew did.
pub(super) struct Did {
    pub handled: u64,
    /// The most memory one of them ever had, in MiB, where that is known.
    pub peak_mb: Option<f64>,
    pub latencies: Histogram<u64>,
}

struct Member {
    child: Child,
    stdin: Option<ChildStdin>,
    state: Arc<State>,
    report: oneshot::Receiver<Report>,
}

#[derive(Default)]
struct State {
    ready: AtomicBool,
    handled: AtomicU64,
    marks: AtomicU64,
    handled_at_mark: AtomicU64,
    cpu_at_mark: AtomicU64,
    ended: AtomicBool,
}

/// How far a crew was at some moment, and the CPU time of all its processes.
#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    pub handled: u64,
    client: Duration,
}

impl Mark {
    /// CPU time by the message since another one.
    pub fn client_us_since(&self, before: Mark) -> f64 {
        let cpu = self.client.saturating_sub(before.client);
        cpu.as_secs_f64() * 1e6 / (self.handled - before.handled).max(1) as f64
    }
}

impl Crew {
    /// So many processes, ready to begin.
    pub async fn start(rig: &Rig, job: &Job, size: usize) -> Result<Self, CommandError> {
        let configuration = rig.configuration(job)?;
        let log = rig.files.path("worker.log");
        let mut crew = Crew {
            members: Vec::new(),
            marks: 0,
            news: Arc::default(),
            log,
        };
        for _ in 0..size {
            let member = Member::start(&crew, &configuration, job)
                .map_err(|error| CommandError::failed(format!("can't start a worker: {error}")))?;
            crew.members.push(member);
        }
        let ready = |state: &State| state.ready.load(Ordering::Acquire);
        let all = |crew: &Crew| crew.members.iter().all(|member| ready(&member.state));
        crew.wait_for("be ready", PATIENCE, all).await?;
        Ok(crew)
    }

    /// Tells all of them to begin.
    pub async fn go(&mut self) -> Result<(), CommandError> {
        self.tell("go\n").await
    }

    /// How far they are now.
    pub async fn mark(&mut self) -> Result<Mark, CommandError> {
        self.marks += 1;
        self.tell("mark\n").await?;
        let known = |member: &Member| member.state.marks.load(Ordering::Acquire);
        let all = |crew: &Crew| {
            crew.members
                .iter()
                .all(|member| known(member) >= crew.marks)
        };
        self.wait_for("say how far they are", PATIENCE, all).await?;
        let mut mark = Mark::default();
        for Member { state, .. } in &self.members {
            mark.handled += state.handled_at_mark.load(Ordering::Acquire);
            mark.client += Duration::from_nanos(state.cpu_at_mark.load(Ordering::Acquire));
        }
        Ok(mark)
    }

    async fn tell(&mut self, what: &str) -> Result<(), CommandError> {
        for member in &mut self.members {
            if let Some(stdin) = &mut member.stdin {
                let told = stdin.write_all(what.as_bytes()).await;
                told.map_err(|error| {
                    CommandError::failed(format!("a worker is not there: {error}"))
                })?;
            }
        }
        Ok(())
    }

    /// How much all of them have handled.
    pub fn handled(&self) -> u64 {
        let members = self.members.iter();
        members
            .map(|member| member.state.handled.load(Ordering::Acquire))
            .sum()
    }

    /// Waits until they have handled so much.
    pub async fn until(&self, events: u64, patience: Duration) -> Result<(), CommandError> {
        self.wait_for("handle everything", patience, |crew| {
            crew.handled() >= events
        })
        .await
    }

    /// The process id of the first.
    pub fn pid(&self) -> Option<u32> {
        self.pids().next()
    }

    /// The process ids of all.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.members.iter().filter_map(|member| member.child.id())
    }

    /// Tells them to end, and takes their reports.
    pub async fn stop(mut self) -> Result<Did, CommandError> {
        let mut did = Did {
            handled: 0,
            peak_mb: None,
            latencies: figures::histogram(),
        };
        for member in &mut self.members {
            member.stdin.take();
        }
        for mut member in std::mem::take(&mut self.members) {
            let report = match tokio::time::timeout(PATIENCE, &mut member.report).await {
                Ok(Ok(report)) => report,
                _ => return Err(self.failed("a worker ended without a report")),
            };
            let _ = tokio::time::timeout(PATIENCE, member.child.wait()).await;
            did.handled += report.handled;
            did.peak_mb = did
                .peak_mb
                .into_iter()
                .chain(report.peak_mb)
                .reduce(f64::max);
            for (ns, count) in report.latencies {
                did.latencies.saturating_record_n(ns, count);
            }
        }
        Ok(did)
    }

    async fn wait_for(
        &self,
        what: &str,
        patience: Duration,
        is_so: impl Fn(&Crew) -> bool,
    ) -> Result<(), CommandError> {
        let end = Instant::now() + patience;
        loop {
            let news = self.news.notified();
            if is_so(self) {
                return Ok(());
            }
            let ended = |member: &Member| member.state.ended.load(Ordering::Acquire);
            if self.members.iter().any(ended) {
                return Err(self.failed("a worker ended"));
            }
            if tokio::time::timeout_at(end.into(), news).await.is_err() {
                let (patience, handled) = (patience.as_secs(), self.handled());
                return Err(self.failed(&format!(
                    "the workers did not {what} within {patience} s; {handled} handled"
                )));
            }
        }
    }

    /// An error with what the workers had to say last.
    fn failed(&self, what: &str) -> CommandError {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(5)..];
        CommandError::failed(format!("{what}\n{}", last.join("\n")))
    }
}

impl Member {
    fn start(crew: &Crew, configuration: &std::path::Path, job: &Job) -> std::io::Result<Self> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&crew.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bench-worker").arg(job.way.name());
        command.arg("--config").arg(configuration);
        command.arg("--path").arg(job.path.name());
        if let Some(wait) = job.wait {
            command.arg("--wait").arg(wait.as_millis().to_string());
        }
        for (wanted, flag) in [(job.fails, "--fail"), (job.due, "--due")] {
            if wanted {
                command.arg(flag);
            }
        }
        without_settings(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // A Ctrl-C on the terminal is for the program that started it.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().expect("it is piped");
        let (state, (send, report)) = (Arc::new(State::default()), oneshot::channel());
        tokio::spawn(listen(stdout, state.clone(), crew.news.clone(), send));
        Ok(Member {
            stdin: child.stdin.take(),
            child,
            state,
            report,
        })
    }
}

/// A command of the program that is configured by its arguments alone.
pub(super) fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STREAMHAND_") {
            command.env_remove(name);
        }
    }
    command
}

/// Takes in what a process says: `ready`, numbers, marks, and at last its report.
async fn listen(
    stdout: ChildStdout,
    state: Arc<State>,
    news: Arc<Notify>,
    report: oneshot::Sender<Report>,
) {
    let mut lines = BufReader::new(stdout).lines();
    let mut last = None;
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "ready" {
            state.ready.store(true, Ordering::Release);
        } else if let Ok(handled) = line.parse() {
            state.handled.store(handled, Ordering::Release);
        } else if let Some((handled, cpu)) = mark(&line) {
            state.handled_at_mark.store(handled, Ordering::Release);
            state.cpu_at_mark.store(cpu, Ordering::Release);
            state.marks.fetch_add(1, Ordering::AcqRel);
        } else {
            last = serde_json::from_str::<Report>(&line).ok().or(last);
        }
        news.notify_waiters();
    }
    if let Some(last) = last {
        state.handled.store(last.handled, Ordering::Release);
        let _ = report.send(last);
    }
    state.ended.store(true, Ordering::Release);
    news.notify_waiters();
}

/// `mark <handled> <CPU time in ns>`.
fn mark(line: &str) -> Option<(u64, u64)> {
    let (handled, cpu) = line.strip_prefix("mark ")?.split_once(' ')?;
    Some((handled.parse().ok()?, cpu.parse().ok()?))
}
