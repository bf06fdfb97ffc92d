//! The workers: processes of this program, what is done to them, and what they say in their logs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde::Deserialize;
use streamhand::Event;
use streamhand::cli::CommandError;

use super::program::Program;
use crate::events::OrderCancelled;

/// Longer than a worker takes to stop.
const STOP: Duration = Duration::from_secs(30);

/// The workers, also those that are gone: what they have logged counts.
pub struct Fleet {
    program: Program,
    /// What they are told beside their configuration.
    environment: Vec<(&'static str, String)>,
    workers: Vec<Worker>,
    said: Said,
}

/// What the workers have said so far.
#[derive(Default)]
pub struct Said {
    /// Failed attempts that another one follows: the entry and the attempt.
    retried: BTreeSet<(String, u32)>,
    /// Entries that were taken over from a worker that was gone.
    pub reclaimed: u64,
    /// How often an entry that nobody answers was handled.
    handled: BTreeMap<String, u32>,
}

struct Worker {
    process: Child,
    log: Log,
    /// It was killed, or told to stop.
    leaves: bool,
}

/// A log that is being written.
struct Log {
    file: File,
    /// What has been read of a line that has no end yet.
    rest: Vec<u8>,
    last: String,
}

/// A line of a worker's log, as far as it counts here.
#[derive(Deserialize)]
struct Line {
    message: String,
    #[serde(default)]
    entry: String,
    #[serde(default)]
    event_type: String,
    #[serde(default)]
    attempt: u32,
    retry_in: Option<String>,
    #[serde(default)]
    count: u64,
}

impl Fleet {
    pub fn new(program: Program) -> Self {
        Fleet {
            program,
            environment: Vec::new(),
            workers: Vec::new(),
            said: Said::default(),
        }
    }

    /// The same, whose workers find this in their environment.
    pub fn with(mut self, name: &'static str, value: String) -> Self {
        self.environment.push((name, value));
        self
    }

    /// Starts one more worker and answers its number; the first is 1.
    pub fn start(&mut self) -> Result<usize, CommandError> {
        let number = self.workers.len() + 1;
        let cannot = |error| self.program.not_started(&error);
        let (log, file) = self
            .program
            .create(&format!("worker-{number}.log"))
            .map_err(cannot)?;
        let process = self
            .program
            .command(&["run"])
            // At this level they name every entry they have handled.
            .env("STREAMHAND_LOG", "info,streamhand=debug")
            .env("STREAMHAND_LOG_FORMAT", "json")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(cannot)?;
        self.workers.push(Worker {
            process,
            log: Log {
                file,
                rest: Vec::new(),
                last: String::new(),
            },
            leaves: false,
        });
        Ok(number)
    }

    /// The id of a worker's process.
    pub fn pid(&self, number: usize) -> u32 {
        self.workers[number - 1].process.id()
    }

    /// Those that are there to stay.
    pub fn working(&self) -> impl Iterator<Item = usize> {
        (1..)
            .zip(&self.workers)
            .filter(|(_, worker)| !worker.leaves)
            .map(|(number, _)| number)
    }

    /// Reads what the workers have said meanwhile. Fails where one has ended by itself.
    pub fn listen(&mut self) -> Result<&Said, CommandError> {
        for (number, worker) in (1..).zip(&mut self.workers) {
            let ended = worker
                .process
                .try_wait()
                .ok()
                .flatten()
                .filter(|_| !worker.leaves);
            worker.log.read(&mut self.said);
            if let Some(status) = ended {
                let why = format!(
                    "worker {number} ended by itself with {status} {}",
                    worker.log.last
                );
                return Err(CommandError::failed(why.trim_end()));
            }
        }
        Ok(&self.said)
    }

    /// Stops a worker in its tracks, and returns when it does nothing any more.
    pub fn freeze(&mut self, number: usize) -> Result<(), CommandError> {
        self.signal(number, Signal::STOP)?;
        let until = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(
            WaitId::Pid(Pid::from_child(&self.workers[number - 1].process)),
            until,
        )
        .map_err(|error| {
            CommandError::failed(format!("can't wait for worker {number}: {error}"))
        })?;
        Ok(())
    }

    pub fn thaw(&mut self, number: usize) -> Result<(), CommandError> {
        self.signal(number, Signal::CONT)
    }

    /// Kills a worker, frozen or not.
    pub async fn kill(&mut self, number: usize) -> Result<(), CommandError> {
        self.signal(number, Signal::KILL)?;
        self.gone(number).await.map(|_| ())
    }

    /// Tells a worker to stop, and answers how it ended.
    pub async fn stop(&mut self, number: usize) -> Result<ExitStatus, CommandError> {
        self.signal(number, Signal::TERM)?;
        self.gone(number).await
    }

    /// Stops them all at once.
    pub async fn disband(&mut self) -> Result<(), CommandError> {
        let all: Vec<usize> = self.working().collect();
        for number in &all {
            self.signal(*number, Signal::TERM)?;
        }
        for number in all {
            let status = self.gone(number).await?;
            if !status.success() {
                return Err(CommandError::failed(format!(
                    "worker {number} did not stop well: {status}"
                )));
            }
        }
        Ok(())
    }

    fn signal(&mut self, number: usize, signal: Signal) -> Result<(), CommandError> {
        let worker = &mut self.workers[number - 1];
        worker.leaves |= matches!(signal, Signal::KILL | Signal::TERM);
        // Not waited for yet, its id is nobody else's.
        kill_process(Pid::from_child(&worker.process), signal)
            .map_err(|error| CommandError::failed(format!("can't signal worker {number}: {error}")))
    }

    async fn gone(&mut self, number: usize) -> Result<ExitStatus, CommandError> {
        let process = &mut self.workers[number - 1].process;
        let begin = Instant::now();
        while begin.elapsed() < STOP {
            match process.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => {
                    return Err(CommandError::failed(format!(
                        "can't wait for worker {number}: {error}"
                    )));
                }
            }
        }
        Err(CommandError::failed(format!(
            "worker {number} has not ended within {STOP:?}"
        )))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // Fails where it has ended already.
            let _ = worker.process.kill();
            let _ = worker.process.wait();
        }
    }
}

impl Said {
    /// How many attempts failed and were followed by another.
    pub fn retried(&self) -> u64 {
        self.retried.len() as u64
    }

    /// Whether an entry has failed at its second attempt already.
    pub fn second_attempts_fail(&self) -> bool {
        self.retried.iter().any(|(_, attempt)| *attempt > 1)
    }

    /// How many cancellations more than one worker has finished, or one worker more than once.
    pub fn cancelled_again(&self) -> u64 {
        self.handled.values().filter(|times| **times > 1).count() as u64
    }

    fn take(&mut self, line: Line) {
        if line.retry_in.is_some() {
            self.retried.insert((line.entry, line.attempt));
        } else if line.message == "handled" && line.event_type == OrderCancelled::TYPE {
            *self.handled.entry(line.entry).or_default() += 1;
        } else if line.message.starts_with("took over") {
            self.reclaimed += line.count;
        } else if line.message.starts_with("its workers died") {
            self.reclaimed += 1;
        }
    }
}

impl Log {
    fn read(&mut self, said: &mut Said) {
        // A worker can't be heard better by failing here; what is not read now is read later.
        let _ = self.file.read_to_end(&mut self.rest);
        let end = self
            .rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in self.rest[..end]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match serde_json::from_slice(line) {
                Ok(line) => said.take(line),
                Err(_) => self.last = String::from_utf8_lossy(line).into_owned(),
            }
        }
        self.rest.drain(..end);
    }
}
