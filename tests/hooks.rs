//! What a program of a user's own adds to `run` and to its commands: an observer, what is done before and after the work,
//! and the registry.

use std::time::Duration;

use streamhand::cli::{self, Command, CommandError, Program};
use streamhand::{Observer, Registry, Settings, Settled, Summary};

use crate::support::jobs::{self, Action, Job};
use crate::support::{Cli, Server, Setup, WorkerProcess, run_program};

const PATIENCE: Duration = Duration::from_secs(30);

/// Says what it sees.
struct Says;

impl Observer for Says {
    fn settled(&self, settled: &Settled<'_>) {
        cli::say(format_args!("observer: {:?}", settled.outcome));
    }
}

fn hooked() -> Program {
    Program::new(jobs::registry())
        .observer(Says)
        .on_start(async |settings: Settings| {
            cli::say(format_args!("first hook: {}", settings.worker.group));
            Ok(())
        })
        .on_start(async |settings: Settings| {
            #[derive(serde::Deserialize)]
            struct App {
                port: Option<String>,
            }
            let app: App = settings.app()?;
            // Any error ends it.
            let port = app.port.map(|port| port.parse::<u16>()).transpose()?;
            cli::say(format_args!("second hook: {port:?}"));
            Ok(())
        })
        .on_stop(async |summary: Summary| {
            cli::say(format_args!("stop hook: {}", summary.settled));
            Err(CommandError::failed("the exporter is away"))
        })
        .on_stop(async |_| {
            cli::say("last hook");
            Ok(())
        })
        .command(Command::with_registry(
            clap_command("handled"),
            async |_: Settings, registry: Registry, _| {
                cli::print(registry.event_types().collect::<Vec<_>>().join(","))
            },
        ))
}

fn clap_command(name: &'static str) -> cli::clap::Command {
    cli::clap::Command::new(name)
}

#[test]
#[ignore = "run by other tests"]
fn worker() {
    let config = std::env::var("STREAMHAND_TEST_CONFIG").expect("a configuration");
    let result = hooked().run_from(["streamhand", "--config", &config, "run"]);
    if let Err(error) = &result {
        eprintln!("error: {error}");
    }
    std::process::exit(result.map_or_else(|error| error.code().into(), |()| 0));
}

#[test]
#[ignore = "run by other tests"]
fn program() {
    run_program(hooked());
}

on_both_servers! {
    async fn run_does_what_it_is_to_do_before_and_after_and_is_watched(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = started(&Setup::new(&server));
        worker.wait_for_log("worker starts", PATIENCE).await;
        jobs::publish(&mut redis, "jobs", &[Job::new("one", Action::Nothing)]).await;
        worker.wait_for_log("observer: Succeeded", PATIENCE).await;
        worker.terminate();
        let status = worker.wait(PATIENCE).await;
        let log = worker.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let lines = [
            "first hook: workers",
            "second hook: None",
            "worker starts",
            "observer: Succeeded",
            "stop hook: 1",
            "last hook",
            "error: the exporter is away",
        ];
        let mut at = 0;
        for line in lines {
            let found = log[at..].find(line);
            at += found.unwrap_or_else(|| panic!("{line} is not where it is to be: {log}"));
        }
    }

    async fn an_error_before_the_work_ends_run(server: Server) {
        let mut worker = started(&Setup::new(&server).more("[app]\nport = \"many\""));
        let status = worker.wait(PATIENCE).await;
        let log = worker.log();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("error: invalid digit found in string"), "{log}");
        assert!(!log.contains("worker starts") && !log.contains("hook: 0"), "{log}");
    }

    async fn a_command_of_ones_own_has_the_programs_registry(server: Server) {
        let cli = Cli::new(&server, "").of_test("hooks::program");
        assert_eq!(cli.run(&["handled"]).await.ok(), "test.job\n");
    }
}

fn started(setup: &Setup) -> WorkerProcess {
    WorkerProcess::builder()
        .test("hooks::worker")
        .config(&setup.toml())
        .start()
}
