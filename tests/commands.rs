//! Commands as handlers: what processes in other languages answer takes place once, and what they do wrong costs nobody
//! else anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::{Envelope, Registry};

use crate::support::interpreters::{example, node, python};
use crate::support::{
    Cli, Guarded, Kind, ProcessBuilder, Server, Setup, WorkerProcess, entries, eventually,
    publisher, scratch_dir, settled,
};

const PATIENCE: Duration = Duration::from_secs(40);

/// A worker whose only handlers are targets.
#[test]
#[ignore = "run by other tests"]
fn worker_of_targets() {
    crate::support::run_worker(Registry::new());
}

fn process(setup: &Setup) -> WorkerProcess {
    builder(setup).start()
}

fn builder(setup: &Setup) -> ProcessBuilder {
    WorkerProcess::builder()
        .test("commands::worker_of_targets")
        .config(&setup.toml())
}

/// Orders are handled by `command`, an array of TOML; `more` are further lines of the target.
fn orders(server: &Server, command: &[&str], more: &str) -> Setup {
    let command = toml_array(command);
    Setup::new(server).worker("streams = [\"orders\"]").more(&format!(
        "[handlers.\"order.created\"]\ntarget = \"billing\"\n[targets.billing]\ncommand = {command}\n{more}"
    ))
}

fn toml_array(words: &[&str]) -> String {
    format!("{words:?}")
}

async fn publish(server: &Server, orders: impl IntoIterator<Item = (String, i64)>) {
    let orders = orders.into_iter().map(|(id, amount)| {
        let data = serde_json::json!({ "order_id": id, "amount": amount });
        Envelope::new("order.created")
            .with("id", id)
            .json(&data)
            .expect("an event")
    });
    let orders: Vec<_> = orders.collect();
    add(server, "orders", orders).await;
}

async fn add(server: &Server, stream: &str, events: impl IntoIterator<Item = Envelope>) {
    let publisher = publisher(&server.url());
    publisher
        .publish_envelopes(stream, events)
        .await
        .expect("to be published");
}

async fn charged(redis: &mut MultiplexedConnection) -> i64 {
    let charged: Option<i64> = redis.get("{orders}:charged").await.expect("a number");
    charged.unwrap_or_default()
}

/// The values of a field, of all entries of a stream.
async fn values(redis: &mut MultiplexedConnection, stream: &str, field: &str) -> Vec<String> {
    let entries = entries(redis, stream).await;
    let value = |entry: crate::support::Entry| {
        let found = entry
            .fields
            .iter()
            .find(|(name, _)| name == field.as_bytes());
        found
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default()
    };
    entries.into_iter().map(value).collect()
}

/// The errors of a group's dead letters: `orders:workers`.
async fn letters(redis: &mut MultiplexedConnection, of: &str) -> Vec<String> {
    let (stream, group) = of.split_once(':').expect("a stream and a group");
    values(redis, &format!("{{{stream}}}:{group}:dead"), "dead.error").await
}

fn children(of: u32) -> Vec<i32> {
    let found = Command::new("ps")
        .args(["-A", "-o", "ppid=,pid="])
        .output()
        .expect("ps");
    let lines = String::from_utf8_lossy(&found.stdout).into_owned();
    let pairs = lines.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((
            words.next()?.parse::<u32>().ok()?,
            words.next()?.parse::<i32>().ok()?,
        ))
    });
    pairs
        .filter(|(parent, _)| *parent == of)
        .map(|(_, pid)| pid)
        .collect()
}

fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

on_both_servers! {
    /// A pool of Python under SIGKILL: of its processes, of its workers, and of the server.
    async fn what_a_pool_answers_takes_place_once_whoever_dies(kind: Kind) {
        storm(kind, 1_000, 6).await;
    }

    async fn what_an_answer_says_is_done(server: Server) {
        let script = "
import json, os
requests, answers = open(3), open(4, 'w')
for line in requests:
    message = json.loads(line)
    if 'hello' in message:
        print(json.dumps({'hello': {'protocol': 1, 'name': 'test'}}), file=answers, flush=True)
    elif 'event' in message:
        said = {
            'no': {'permanent': 'no such card'},
            'retry': {'error': 'busy'} if message['attempt'] < 3 else {},
            'later': {'later': '10ms'} if not os.path.exists('later') else {},
            'nonsense': {'emits': []},
        }[message['event']['data']['order_id']]
        if 'later' in said: open('later', 'w').close()
        print('on', message['event']['data']['order_id'], 'attempt', message['attempt'])
        print(json.dumps({'id': message['id'], 'answer': said}), file=answers, flush=True)
";
        let scratch = scratch_dir();
        let more = format!("processes = 1\ndirectory = \"{}\"", scratch.path().display());
        let setup = orders(&server, &[python(), "-c", script], &more).retry("max_attempts = 3");
        let mut worker = process(&setup);
        publish(&server, ["no", "retry", "later", "nonsense"].map(|id| (id.to_owned(), 0))).await;
        let mut redis = server.connect().await;
        worker.wait_for_log("on retry attempt 3", PATIENCE).await;
        settled(&mut redis, "orders", PATIENCE).await;
        let mut errors = letters(&mut redis, "orders:workers").await;
        errors.sort();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].contains("its answer can't be read: unknown field `emits`"), "{errors:?}");
        assert_eq!(errors[1], "no such card");
        let log = worker.log();
        let line = log.lines().find(|line| line.contains("on later attempt 1")).expect("what it prints");
        assert!(line.contains("event=later") && line.contains("billing"), "{line}");
        let later = log.matches("on later attempt 1").count();
        assert_eq!(later, 2, "later uses no attempt up: {log}");
    }

    async fn who_runs_out_of_time_is_killed_and_nobody_else_is_harmed(server: Server) {
        let script = r#"while read -r line <&3; do case $line in
            '{"hello"'*) echo '{"hello":{"protocol":1}}' >&4 ;;
            *hangs*) sleep 600 ;;
            '{"id"'*) id=${line#*:}; echo "{\"id\":${id%%,*},\"answer\":{}}" >&4 ;;
            esac; done"#;
        let setup = orders(&server, &["sh", "-c", script], "processes = 1")
            .retry("max_attempts = 2")
            .defaults("timeout = \"300ms\"")
            .defaults("grace = \"100ms\"");
        let worker = process(&setup);
        publish(&server, ["hangs", "a", "b", "c"].map(|id| (id.to_owned(), 0))).await;
        let mut redis = server.connect().await;
        settled(&mut redis, "orders", PATIENCE).await;
        assert_eq!(values(&mut redis, "{orders}:workers:dead", "id").await, ["hangs"]);
        let errors = letters(&mut redis, "orders:workers").await;
        assert!(errors[0].contains("timed out after 300ms"), "{errors:?}");
        eventually(PATIENCE, "who hung to be gone, and another one to be there", async || {
            children(worker.pid()).len() == 1
        })
        .await;
    }

    /// It says nothing about events: they wait, and `status` says for what.
    async fn a_command_that_is_not_there_uses_no_attempts_up(server: Server) {
        let scratch = scratch_dir();
        let program = scratch.path().join("billing.py");
        let path = program.display().to_string();
        let setup = orders(&server, &[python(), &path], "processes = 1")
            .retry("max_attempts = 1")
            .more("[breakers.billing]\nopen_for = \"500ms\"");
        let mut worker = process(&setup);
        publish(&server, [("o-1".to_owned(), 12)]).await;
        worker.wait_for_log("the command of the target billing can't be started", PATIENCE).await;
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"orders\"]");
        eventually(PATIENCE, "status to say so", async || {
            let status = cli.run(&["status"]).await.ok();
            if status.contains("billing") && status.contains("can't be started: exited with 2") { Ok(()) } else { Err(status) }
        })
        .await;
        std::fs::copy(example("worker.py"), &program).expect("the program");
        let mut redis = server.connect().await;
        settled(&mut redis, "orders", PATIENCE).await;
        assert_eq!(charged(&mut redis).await, 12);
        assert!(letters(&mut redis, "orders:workers").await.is_empty());
    }

    async fn a_stop_lets_processes_end_what_they_do(server: Server) {
        let script = "
import json, time
requests, answers = open(3), open(4, 'w')
for line in requests:
    message = json.loads(line)
    if 'hello' in message:
        answer = {'hello': {'protocol': 1}}
    elif 'event' in message:
        print('works on it', flush=True)
        time.sleep(1)
        answer = {'id': message['id'], 'answer': {'effects': [{'effect': 'incr_by', 'key': '{orders}:charged', 'by': 7}]}}
    elif 'drain' in message:
        print('is drained', flush=True)
        break
    else:
        continue
    print(json.dumps(answer), file=answers, flush=True)
";
        let setup = orders(&server, &[python(), "-c", script], "processes = 1");
        let mut worker = process(&setup);
        publish(&server, [("o-1".to_owned(), 0)]).await;
        worker.wait_for_log("works on it", PATIENCE).await;
        let processes = children(worker.pid());
        worker.terminate();
        assert!(worker.wait(PATIENCE).await.success(), "{}", worker.log());
        assert!(worker.log().contains("is drained"), "{}", worker.log());
        let mut redis = server.connect().await;
        assert_eq!(charged(&mut redis).await, 7);
        for pid in processes {
            let pid = rustix::process::Pid::from_raw(pid).expect("a process");
            assert!(rustix::process::test_kill_process(pid).is_err(), "{pid:?} is still there");
        }
    }

    async fn a_script_is_started_for_each_event(server: Server) {
        let scratch = scratch_dir();
        let (mailbox, unwritable) = (scratch.path().join("mails"), scratch.path().join("no/such/folder"));
        let target = |name: &str, mailbox: &Path| {
            let (script, mailbox) = (example("mail.sh"), mailbox.display());
            format!(
                "[handlers.\"{name}.wanted\"]\ntarget = \"{name}\"\n[targets.{name}]\ncommand = [\"sh\", {script:?}]\n\
                 mode = \"once\"\nprocesses = 2\nenv = {{ MAILBOX = \"{mailbox}\" }}"
            )
        };
        let setup = Setup::new(&server)
            .retry("max_attempts = 2")
            .more(&target("mail", &mailbox))
            .more(&target("fax", &unwritable));
        let mut worker = process(&setup);
        let event = |kind: &str, id: &str| Envelope::new(kind).with("id", id).with("data", "{\n\"a\": 1}");
        let events = [
            event("mail.wanted", "m-1").with("subject", "ann@example.com"),
            event("mail.wanted", "m-2"),
            event("fax.wanted", "m-3").with("subject", "bob"),
        ];
        add(&server, "jobs", events).await;
        let mut redis = server.connect().await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(values(&mut redis, "mails", "data").await, ["{\"wanted\": \"m-1\"}"]);
        let sent: serde_json::Value = serde_json::from_slice(&std::fs::read(&mailbox).expect("mails")).expect("an event");
        assert_eq!(sent["id"], "m-1");
        assert_eq!(sent["data"], serde_json::json!({ "a": 1 }));
        let line = worker.wait_for_log("sent attempt 1 to ann@example.com", PATIENCE).await;
        assert!(line.contains("event=m-1"), "{line}");
        let mut said: Vec<_> = values(&mut redis, "{jobs}:workers:dead", "dead.reason").await;
        said.sort();
        assert_eq!(said, ["failed", "permanent"], "{}", worker.log());
        let mut errors = letters(&mut redis, "jobs:workers").await;
        errors.sort();
        assert!(errors.iter().any(|error| error.contains("exited with 65") && error.contains("nobody to write to")), "{errors:?}");
        assert!(errors.iter().any(|error| error.contains("exited with 75")), "{errors:?}");
    }
}

/// Publishes so many events to two workers with pools of Python, and kills processes, workers and the server in so many
/// rounds; what they answered is there once.
async fn storm(kind: Kind, at_first: i64, rounds: usize) {
    const MORE: i64 = 200;
    let mut server = Server::builder(kind).persistent(true).start().await;
    let setup = orders(&server, &[python(), &example("worker.py")], "processes = 2")
        .retry("max_attempts = 1000")
        .more("[breakers.billing]\nopen_for = \"300ms\"")
        .worker("lease = \"1s\"");
    let mut workers = [process(&setup), process(&setup)];
    publish(&server, (0..at_first).map(|n| (format!("o-{n}"), 1))).await;
    for round in 0..rounds {
        eventually(PATIENCE, "a process to kill", async || {
            let found = children(workers[round % 2].pid());
            found.iter().take(1).for_each(|pid| kill(*pid));
            !found.is_empty()
        })
        .await;
        match round % 6 {
            1 | 3 => {
                workers[round % 2].kill();
                workers[round % 2] = process(&setup);
            }
            2 => {
                server.stop();
                tokio::time::sleep(Duration::from_millis(300)).await;
                server.start_again().await;
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        publish(&server, (0..MORE).map(|n| (format!("o-{round}-{n}"), 1))).await;
    }
    let mut redis = server.connect().await;
    settled(
        &mut redis,
        "orders",
        PATIENCE + Duration::from_millis(at_first as u64 * 2),
    )
    .await;
    let all = at_first + rounds as i64 * MORE;
    assert_eq!(charged(&mut redis).await, all, "every effect once");
    let causes = values(&mut redis, "payments", "causationid").await;
    assert_eq!(causes.len() as i64, all, "every event that is emitted once");
    assert_eq!(causes.iter().collect::<BTreeSet<_>>().len() as i64, all);
    assert!(letters(&mut redis, "orders:workers").await.is_empty());
}

/// The same at length: `cargo test --test behaviour commands::at_length -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn at_length() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(storm(Kind::Redis, 100_000, 120));
}

/// Everything that `docs/any-language.md` tells a newcomer to do, as it stands there.
mod five_minutes {
    use super::*;

    const PAGE: &str = include_str!("../docs/any-language.md");

    /// The first block of a language.
    fn block(language: &str) -> &'static str {
        let (_, from) = PAGE
            .split_once(&format!("```{language}\n"))
            .expect("a block");
        from.split_once("```").expect("its end").0
    }

    /// The commands of the page that begin with this, as words.
    fn command(begins: &str) -> Vec<String> {
        let line = PAGE.lines().find_map(|line| {
            line.strip_prefix("$ ")
                .filter(|line| line.starts_with(begins))
        });
        let line = line.unwrap_or_else(|| panic!("no command {begins}"));
        let (words, quoted) = line.split_once(" '").unwrap_or((line, ""));
        let quoted = quoted.strip_suffix('\'').map(str::to_owned);
        words
            .split(' ')
            .skip(1)
            .map(str::to_owned)
            .chain(quoted)
            .collect()
    }

    on_both_servers! {
        async fn python_without_rust(server: Server) {
            let cli = Cli::new(&server, &block("toml").replace("python3", python()))
                .of_program(env!("CARGO_BIN_EXE_streamhand"))
                .with_env("STREAMHAND_RETRY__MAX_ATTEMPTS", "2")
                .with_env("STREAMHAND_WORKER__DRAIN", "5s");
            std::fs::write(cli.file("billing.py"), block("python")).expect("the program");
            let run = async |begins: &str| {
                let words = command(begins);
                let words: Vec<_> = words.iter().map(|word| &word[..]).collect();
                cli.run(&words).await.ok()
            };
            let start = || cli.command(&["run"]).kill_on_drop(true).spawn().expect("a worker");
            let worker = start();
            run("streamhand publish orders order.created '{\"order_id\": \"o-1\", \"amount\": 12}'").await;
            let mut redis = server.connect().await;
            let key = command("redis-cli GET").pop().expect("a key");
            eventually(PATIENCE, "the order to be charged", async || {
                redis.get::<_, Option<i64>>(&key).await.unwrap() == Some(12)
            })
            .await;
            assert!(run("streamhand find").await.contains("payment.requested"));
            run("streamhand publish orders order.created '{\"order_id\": \"o-2\"}'").await;
            eventually(PATIENCE, "a dead letter", async || !letters(&mut redis, "orders:billing").await.is_empty()).await;
            let listed = run("streamhand dlq list").await;
            assert!(listed.contains("order.created"), "{listed}");
            let errors = letters(&mut redis, "orders:billing").await;
            assert!(errors[0].contains("KeyError: 'amount'"), "{errors:?}");
            run("streamhand status").await;
            drop(worker);
            let mended = block("python").replace("order[\"amount\"]", "order.get(\"amount\", 1)");
            std::fs::write(cli.file("billing.py"), mended).expect("the program");
            let _worker = start();
            run("streamhand dlq replay --all").await;
            eventually(PATIENCE, "the other order to be charged", async || {
                redis.get::<_, Option<i64>>(&key).await.unwrap() == Some(13)
            })
            .await;
        }
    }
}

/// The examples in `deploy/examples`, each with the interpreter it is for.
mod examples {
    use super::*;

    async fn pays(server: &Server, setup: Setup) -> WorkerProcess {
        let mut worker = process(&setup);
        publish(
            server,
            (1..=40)
                .map(|n| (format!("o-{n}"), n))
                .chain([("nothing".to_owned(), 0)]),
        )
        .await;
        let mut redis = server.connect().await;
        settled(&mut redis, "orders", PATIENCE).await;
        let causes: BTreeSet<_> = values(&mut redis, "payments", "causationid")
            .await
            .into_iter()
            .collect();
        assert_eq!(causes.len(), 40, "{}", worker.log());
        let errors = letters(&mut redis, "orders:workers").await;
        assert_eq!(errors, ["there is nothing to charge"], "{}", worker.log());
        assert!(!worker.has_ended());
        worker
    }

    /// A service of an example, with a secret or another one.
    fn service(interpreter: &str, name: &str, secret: &str) -> (Guarded, u16) {
        let port = crate::support::free_ports().next().expect("a port");
        let mut command = Command::new(interpreter);
        command
            .arg(example(name))
            .env("PORT", port.to_string())
            .env("SECRET", secret);
        let service =
            Guarded::spawn(command.stdout(Stdio::null()).stderr(Stdio::null())).expect("a service");
        (service, port)
    }

    async fn serves(server: &Server, interpreter: &str, name: &str) {
        const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let scratch = scratch_dir();
        let file = scratch.path().join("webhook.secret");
        std::fs::write(&file, SECRET).expect("a secret");
        let at = |port: u16| {
            Setup::new(server).worker("streams = [\"orders\"]").more(&format!(
                "[handlers.\"order.created\"]\ntarget = \"billing\"\n[targets.billing]\nurl = \"http://127.0.0.1:{port}/events\"\n\
                 allow = [\"127.0.0.1\"]\nsecret_files = [\"{}\"]\n[breakers.billing]\nopen_for = \"300ms\"",
                file.display()
            )).retry("max_attempts = 100")
        };
        let (right, port) = service(interpreter, name, SECRET);
        let worker = pays(server, at(port)).await;
        drop((right, worker));
        let (_wrong, port) = service(interpreter, name, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        let mut worker = process(&at(port));
        publish(server, [("late".to_owned(), 1)]).await;
        worker
            .wait_for_log("the signature is wrong", PATIENCE)
            .await;
    }

    on_both_servers! {
        async fn python_handles_events_as_a_pool(server: Server) {
            pays(&server, orders(&server, &[python(), &example("worker.py")], "processes = 2")).await;
            let mut redis = server.connect().await;
            assert_eq!(charged(&mut redis).await, (1..=40).sum::<i64>());
        }

        async fn node_handles_events_as_a_pool(server: Server) {
            let Some(node) = node() else { return };
            pays(&server, orders(&server, &[node, &example("worker.mjs")], "processes = 1")).await;
            let mut redis = server.connect().await;
            assert_eq!(charged(&mut redis).await, (1..=40).sum::<i64>());
        }

        async fn python_serves_events(server: Server) {
            serves(&server, python(), "service.py").await;
        }

        async fn node_serves_events(server: Server) {
            let Some(node) = node() else { return };
            serves(&server, node, "service.mjs").await;
        }
    }
}
