//! A target that is a command: its processes, and what becomes of an event by what they did.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread::available_parallelism;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::runtime::Handle;

use super::answer::Answer;
use super::once::{Exit, Given, Once};
use super::outcome::Outcome;
use super::pool::{Ended, Pool, PoolSettings, Recycling};
use super::process::CommandLine;
use super::request::Request;
use crate::config::{TargetMode, TargetSettings};
use crate::context::Context;
use crate::handler::Companion;

/// What a process of a pool has for its start, if nothing is set: those that load a model need some of it.
const START: Duration = Duration::from_secs(60);

/// An attribute of an event that is longer is not handed on by the environment, which has little room.
const LONGEST_VARIABLE: usize = 4096;

/// A command that handles events.
pub(super) struct Command {
    settings: PoolSettings,
    mode: TargetMode,
    processes: OnceLock<Processes>,
}

enum Processes {
    Pool(Pool),
    Once(Once),
}

impl Command {
    pub fn new(target: &str, settings: &TargetSettings) -> Self {
        let environment = settings.env.iter();
        let environment: BTreeMap<_, _> = environment
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect();
        Command {
            settings: PoolSettings {
                target: target.to_owned(),
                command: CommandLine {
                    command: settings.command.clone(),
                    directory: settings.directory.clone(),
                    environment,
                    pass: settings.pass_env.clone(),
                },
                processes: settings
                    .processes
                    .unwrap_or_else(|| available_parallelism().map_or(1, usize::from)),
                start_timeout: settings.start_timeout.unwrap_or(START),
                recycling: Recycling {
                    events: settings.recycle_after,
                    age: settings.max_age,
                    memory: settings.max_memory.map(|size| size.bytes()),
                },
            },
            mode: settings.mode.unwrap_or_default(),
            processes: OnceLock::new(),
        }
    }

    /// Whether there is a program to start.
    pub fn is_there(&self) -> Result<(), String> {
        self.settings.command.is_there()
    }

    /// Has a process handle an event.
    pub async fn call(&self, request: &Request, ctx: &Context) -> Outcome {
        let processes = self.processes.get();
        // A handler that is called without a worker has what it needs all the same.
        match processes.unwrap_or_else(|| self.processes_on(&Handle::current())) {
            Processes::Pool(pool) => of_pool(pool.handle(ctx, |id| request.json(Some(id))).await),
            Processes::Once(once) => {
                let given = Given {
                    input: request.event_json(),
                    environment: environment(request),
                };
                of_once(once.handle(ctx, given).await)
            }
        }
    }

    fn processes_on(&self, runtime: &Handle) -> &Processes {
        self.processes.get_or_init(|| match self.mode {
            TargetMode::Pool => Processes::Pool(Pool::start(self.settings.clone(), runtime)),
            TargetMode::Once => {
                let PoolSettings {
                    target,
                    command,
                    processes,
                    ..
                } = self.settings.clone();
                Processes::Once(Once::new(target, command, processes, runtime.clone()))
            }
        })
    }
}

impl Companion for Command {
    fn start(&self, runtime: &Handle) {
        self.processes_on(runtime);
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(Processes::Pool(pool)) = self.processes.get() {
                pool.stop().await;
            }
        })
    }
}

fn of_pool(ended: Ended) -> Outcome {
    match ended {
        Ended::Answer(answer) => answered(RawValue::get(&answer).as_bytes()),
        Ended::Died(why) => Outcome::Failed { why, counts: true },
        Ended::Spared(why) | Ended::NotBegun(why) => later(why),
        Ended::WrongTarget(why) => Outcome::WrongTarget(why),
    }
}

fn of_once(exit: Exit) -> Outcome {
    match exit {
        Exit::Done(answer) => answered(&answer),
        Exit::Permanent(why) => Outcome::Permanent(why),
        Exit::Retry(why) => Outcome::Failed { why, counts: false },
        Exit::Failed(why) => Outcome::Failed { why, counts: true },
        Exit::WrongTarget(why) => Outcome::WrongTarget(why),
        Exit::NotBegun(why) => later(why),
    }
}

/// It is as if it had not begun: it comes back, as soon as its backoff says.
fn later(why: String) -> Outcome {
    Outcome::Later {
        after: Duration::ZERO,
        why,
    }
}

fn answered(answer: &[u8]) -> Outcome {
    match Answer::parse(answer) {
        Ok(answer) => Outcome::Answered(answer),
        // It may have done what it is there for, but can't say what is to leave.
        Err(why) => Outcome::Failed { why, counts: false },
    }
}

/// What a process for one event finds in its environment.
fn environment(request: &Request) -> Vec<(String, String)> {
    let of_event = request.attributes().map(|(name, value)| {
        let name = format!("CE_{}", name.to_ascii_uppercase());
        (name, value.into_owned())
    });
    let beside = [
        ("STREAMHAND_ATTEMPT", request.attempt.to_string()),
        ("STREAMHAND_MAX_ATTEMPTS", request.max_attempts.to_string()),
        ("STREAMHAND_GROUP", request.group.clone()),
        ("STREAMHAND_STREAM", request.stream.clone()),
        (
            "STREAMHAND_IDEMPOTENCY_KEY",
            request.idempotency_key.clone(),
        ),
        ("STREAMHAND_DEADLINE", request.deadline_text()),
    ];
    let beside = beside
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let trace = request.traceparent.iter();
    let trace = trace.map(|trace| ("TRACEPARENT".to_owned(), trace.clone()));
    let all = of_event.chain(beside).chain(trace);
    all.filter(|(_, value)| value.len() <= LONGEST_VARIABLE && !value.contains('\0'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Envelope;

    #[test]
    fn the_environment_has_what_the_event_is_if_there_is_room() {
        let envelope = Envelope::new("mail.wanted")
            .with("id", "m-1")
            .with("subject", "a@example.com")
            .with("tenant", "b")
            .with("long", "x".repeat(5_000))
            .with("nul", "a\0b");
        let ctx = Context::for_test_with(envelope, None);
        let request = Request::of(&ctx, Duration::from_secs(10));
        let all: BTreeMap<_, _> = environment(&request).into_iter().collect();
        for (name, value) in [
            ("CE_ID", "m-1"),
            ("CE_TYPE", "mail.wanted"),
            ("CE_SUBJECT", "a@example.com"),
            ("CE_TENANT", "b"),
            ("STREAMHAND_ATTEMPT", "1"),
            ("STREAMHAND_STREAM", "test"),
        ] {
            assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!all.contains_key("CE_LONG") && !all.contains_key("CE_NUL"));
    }
}
