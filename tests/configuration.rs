//! What a worker would refuse or warn of, `config check` tells; what is none of its business is left alone.

use std::collections::HashMap;
use std::time::Duration;

use streamhand::cli::Program;
use streamhand::{Registry, Settings};

use crate::support::jobs::{self, Action, Job};
use crate::support::{Cli, Server, Setup, WorkerProcess, eventually, run_program};

const PATIENCE: Duration = Duration::from_secs(30);

/// Handlers that are made by `[app]`.
#[test]
#[ignore = "run by other tests"]
fn program() {
    run_program(Program::with(made).show_app(["greeting", "smtp.host"]));
}

/// The same, as a worker whose log can be read while it runs.
#[test]
#[ignore = "run by other tests"]
fn worker() {
    let config = std::env::var("STREAMHAND_TEST_CONFIG").expect("a configuration");
    let result = Program::with(made).run_from(["streamhand", "--config", &config, "run"]);
    std::process::exit(result.map_or_else(|error| error.code().into(), |()| 0));
}

async fn made(settings: Settings) -> Result<Registry, String> {
    #[derive(serde::Deserialize)]
    struct App {
        greeting: Option<serde_json::Value>,
        twice: Option<serde_json::Value>,
    }
    let app: App = settings.app().map_err(|error| error.to_string())?;
    if app.greeting.is_some_and(|greeting| !greeting.is_string()) {
        return Err("app.greeting is no text".to_owned());
    }
    let registry = Registry::new().on(jobs::handle);
    Ok(match app.twice.is_some() {
        true => registry.on(jobs::handle),
        false => registry,
    })
}

fn started(setup: &Setup, env: &[(&str, &str)]) -> WorkerProcess {
    let process = WorkerProcess::builder()
        .test("configuration::worker")
        .config(&setup.toml());
    env.iter()
        .fold(process, |process, (name, value)| process.env(name, *value))
        .start()
}

fn cli(setup: &Setup) -> Cli {
    let cli = Cli::at("redis://unused", "")
        .with_nothing_set()
        .of_test("configuration::program");
    std::fs::write(cli.file("config.toml"), setup.toml()).unwrap();
    cli
}

/// A job is handled, and then the worker stops as it should.
async fn works(server: &Server, mut worker: WorkerProcess, id: &str) -> String {
    let mut redis = server.connect().await;
    jobs::publish(&mut redis, "jobs", &[Job::new(id, Action::Succeed)]).await;
    eventually(PATIENCE, "it to be handled", async || {
        jobs::handled(&mut redis).await.contains_key(id)
    })
    .await;
    worker.terminate();
    assert_eq!(
        worker.wait(PATIENCE).await.code(),
        Some(0),
        "{}",
        worker.log()
    );
    worker.log()
}

on_both_servers! {
    async fn what_run_refuses_check_refuses_with_the_same_words(server: Server) {
        let setup = Setup::new(&server);
        for (config, code, said) in [
            ("[app]\ngreeting = 7", 1, "error: the handlers can't be set up: app.greeting is no text\n"),
            ("[app]\ntwice = true", 2, "error: the registry of handlers is wrong:\n  tests/configuration.rs:"),
            ("[worker.oops]", 2, "error: config.toml:"),
        ] {
            let cli = cli(&setup.clone().more(config));
            let (checked, ran) = (cli.run(&["config", "check"]).await, cli.run(&["run"]).await);
            assert_eq!((checked.code, ran.code), (code, code), "{config}: {checked:?}");
            assert!(checked.err.starts_with(said), "{config}: {checked:?}");
            assert_eq!(checked.err, ran.err, "{config}");
            assert_eq!(checked.out, "", "{config}");
        }
        let right = cli(&setup).run(&["config", "check"]).await;
        assert_eq!((right.code, &right.err[..], &right.out[..]), (0, "", "the configuration is right\n"));
    }

    async fn what_run_warns_of_check_warns_of(server: Server) {
        let setup = Setup::new(&server)
            .more("[handlers.\"test.jbo\"]\ntimeout = \"1s\"\n[streams.jbos]\n[projections.totals]");
        let checked = cli(&setup).run(&["config", "check"]).await;
        assert_eq!(checked.code, 0, "{checked:?}");
        assert_eq!(checked.out, "the configuration can be used, with 3 warnings\n");
        let log = works(&server, started(&setup, &[]), "fine").await;
        for warning in [
            "[handlers.\"test.jbo\"] has no effect here: no handler is registered for that type; did you mean \"test.job\"?",
            "[streams.\"jbos\"] has no effect here: worker.streams does not name it; did you mean \"jobs\"?",
            "[projections.\"totals\"] has no effect here: no such projection is registered\n",
        ] {
            assert!(checked.err.contains(&format!("warning: {warning}")), "{}", checked.err);
            assert!(log.contains(warning), "{log}");
        }
    }

    async fn a_group_may_be_called_as_its_people_speak(server: Server) {
        let setup = Setup::new(&server).worker("group = \"lager-süd\"");
        cli(&setup).run(&["config", "check"]).await.ok();
        let mut redis = server.connect().await;
        let worker = started(&setup, &[]);
        eventually(PATIENCE, "its connections to have names", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
            clients.contains("name=streamhand:lager-s%C3%BCd:read")
        })
        .await;
        works(&server, worker, "fine").await;
    }

    async fn a_url_that_asks_for_resp3_works(server: Server) {
        let url = format!("{}?protocol=resp3", server.url());
        let setup = Setup::at(url.clone()).handler("deduplicate = \"1h\"").handler("max_attempts = 3");
        let checked = cli(&setup).run(&["config", "check"]).await;
        assert_eq!(checked.ok(), "the configuration is right\n");
        let worker = started(&setup, &[]);
        let mut redis = server.connect().await;
        jobs::publish(&mut redis, "jobs", &[Job::new("again", Action::Fail(1)), Job::new("bad", Action::FailForGood)]).await;
        let cli = cli(&setup);
        eventually(PATIENCE, "the bad one to be dead", async || {
            cli.run(&["dlq", "stats", "--json"]).await.json()["total"] == 1
        })
        .await;
        cli.run(&["status"]).await.ok();
        eventually(PATIENCE, "the other one to be done", async || {
            jobs::handled(&mut redis).await.contains_key("again")
        })
        .await;
        let log = works(&server, worker, "fine").await;
        // What it can't read it would adopt, after a reconnect each time.
        let warnings: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
        assert!(warnings.len() == 1 && warnings[0].contains("asked to fail"), "{log}");
    }

    async fn only_names_with_two_underscores_are_settings(server: Server) {
        let setup = Setup::new(&server);
        let kubernetes = [
            ("STREAMHAND_WORKER_PORT", "tcp://10.0.0.1:8080"),
            ("STREAMHAND_WORKER_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("STREAMHAND_WORKER_SERVICE_HOST", "10.0.0.1"),
            ("STREAMHAND_IMAGE_TAG", "v1"),
        ];
        let log = works(&server, started(&setup, &kubernetes), "fine").await;
        assert!(!log.contains("STREAMHAND_"), "{log}");
        let meant = [("STREAMHAND_WORKER_LEASE", "10s")];
        let note = "STREAMHAND_WORKER_LEASE: sets nothing; did you mean STREAMHAND_WORKER__LEASE?";
        let log = works(&server, started(&setup, &meant), "again").await;
        assert!(log.contains(note), "{log}");
        let checked = cli(&setup).with_env(meant[0].0, meant[0].1).run(&["config", "check"]).await;
        assert!(checked.err.contains(&format!("warning: {note}")), "{checked:?}");
        assert_eq!(checked.ok(), "the configuration can be used, with 1 warning\n");
        for command in [&["run"][..], &["config", "check"]] {
            let refused = cli(&setup).with_env("STREAMHAND_WORKER__LAESE", "10s").run(command).await;
            assert!(refused.failed(2).contains("did you mean STREAMHAND_WORKER__LEASE?"));
        }
    }
}

/// What the systemd unit says, by section.
fn unit() -> HashMap<String, HashMap<String, String>> {
    let mut sections = HashMap::<String, HashMap<String, String>>::new();
    let mut section = String::new();
    for line in include_str!("../deploy/streamhand.service").lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let known = sections.entry(section.clone()).or_default();
            assert_eq!(
                known.insert(key.to_owned(), value.to_owned()),
                None,
                "{key} twice"
            );
        }
    }
    sections
}

#[test]
fn the_systemd_unit_never_gives_up_and_lets_a_stop_be_graceful() {
    let unit = unit();
    let said = |section: &str, key: &str| unit[section].get(key).map(String::as_str);
    // Five quick deaths would be the end of it: a poison event can cause them, and so can a server that is away.
    assert_eq!(said("Unit", "StartLimitIntervalSec"), Some("0"));
    assert_eq!(said("Service", "Restart"), Some("always"));
    assert_eq!(said("Service", "RestartPreventExitStatus"), Some("2"));
    // The worker alone is asked to stop: what its handlers have started is theirs to end.
    assert_eq!(said("Service", "KillSignal"), Some("SIGTERM"));
    assert_eq!(said("Service", "KillMode"), Some("mixed"));
    // A reload would be a stop, and `systemctl reload` would fail when the process is gone.
    assert_eq!(said("Service", "ExecReload"), None);
    let seconds: u64 = said("Service", "TimeoutStopSec").unwrap().parse().unwrap();
    // What is done after the drain time: cutting off, settling, waiting for the log's reader.
    let drain = Settings::default().worker.drain.as_secs();
    assert!(
        seconds >= drain + 8,
        "{seconds} s, where a stop may take {drain} s and a few"
    );
    assert!(
        said("Service", "ExecStart")
            .unwrap()
            .ends_with("/shipping --config /etc/shipping/config.toml run")
    );
}
