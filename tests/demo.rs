//! The demo tells the truth: its figures add up and follow what happens, and nothing of it is left behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Guarded, Kind, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// A demo, in a directory for temporary files of its own. That is not among cargo's: sockets have short paths.
struct Demo {
    process: Guarded,
    temporary: TempDir,
}

impl Demo {
    fn start(kind: Kind, events: u64) -> Demo {
        Demo::start_with(kind, events, &[])
    }

    fn start_with(kind: Kind, events: u64, more: &[&str]) -> Demo {
        let temporary = TempDir::with_prefix("demo-").expect("a directory");
        let file = |name: &str| std::fs::File::create(temporary.path().join(name)).expect("a file");
        let (out, err) = (file("out"), file("err"));
        std::fs::create_dir(temporary.path().join("tmp")).expect("a directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
        command
            .args(["demo", "--server"])
            .arg(kind.program())
            .args(["--events", &events.to_string()])
            .args(more)
            .current_dir(temporary.path())
            .env("TMPDIR", temporary.path().join("tmp"))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STREAMHAND_") {
                command.env_remove(name);
            }
        }
        Demo {
            process: Guarded::spawn(&mut command).expect("the demo to start"),
            temporary,
        }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.temporary.path().join(name)).expect("its output")
    }

    /// Waits until it has said so.
    async fn says(&self, what: &str) {
        eventually(PATIENCE, format!("the demo to say {what:?}"), async || {
            let said = self.read("err");
            if said.contains(what) {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
    }

    /// Its exit code; None where it was killed.
    async fn end(&mut self) -> Option<i32> {
        let status = self.process.wait(PATIENCE).await;
        status
            .unwrap_or_else(|| panic!("it still runs:\n{}\n{}", self.read("err"), self.read("out")))
            .code()
    }

    /// What there is of it in the directory for temporary files, and the processes that speak of that.
    fn left(&self) -> Vec<String> {
        let temporary = self.temporary.path().join("tmp");
        let files = std::fs::read_dir(&temporary).expect("a directory");
        let mut left: Vec<String> = files
            .map(|file| format!("{:?}", file.expect("a file").path()))
            .collect();
        let temporary = temporary.to_str().expect("UTF-8");
        left.extend(
            commands()
                .into_iter()
                .filter(|command| command.contains(temporary)),
        );
        left
    }

    async fn nothing_is_left(&self) {
        eventually(PATIENCE, "all of it to be gone", async || {
            let left = self.left();
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.join("\n"))
            }
        })
        .await;
    }
}

/// The command lines of all processes.
fn commands() -> Vec<String> {
    if Path::new("/proc/self/cmdline").exists() {
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        return processes
            .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .collect();
    }
    let ps = Command::new("ps")
        .args(["-axww", "-o", "command="])
        .output()
        .expect("ps");
    String::from_utf8_lossy(&ps.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The figures below a title.
fn figures(out: &str, title: &str) -> BTreeMap<String, u64> {
    let (_, after) = out
        .split_once(&format!("\n{title}:\n\n"))
        .unwrap_or_else(|| panic!("no {title:?} in:\n{out}"));
    after
        .lines()
        .map_while(|line| line.rsplit_once(' ').filter(|(name, _)| !name.is_empty()))
        .map(|(name, value)| {
            (
                name.trim().to_owned(),
                value.parse().unwrap_or_else(|_| panic!("{name}: {value}")),
            )
        })
        .collect()
}

fn dead(figures: &BTreeMap<String, u64>) -> BTreeMap<&str, u64> {
    let reasons = figures
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("dead-lettered ")?, *value)));
    reasons.collect()
}

on_both_servers! {
    async fn every_event_is_accounted_for_and_nothing_is_left_behind(kind: Kind) {
        // Of every 200, one is malformed, one of a type nobody handles, two can't be handled at first and one fails
        // until it is repaired.
        let mut demo = Demo::start(kind, 1_600);
        demo.says("three workers run").await;
        assert!(!demo.left().is_empty(), "what is looked for is seen while it is there");
        let code = demo.end().await;
        let (out, err) = (demo.read("out"), demo.read("err"));
        println!("{err}{out}");
        assert_eq!(code, Some(0));

        let first = figures(&out, "What became of them");
        assert_eq!((first["published"], first["lost"], first["units of stock astray"]), (1_600, 0, 0));
        let letters = dead(&first);
        assert_eq!(first["handled"] + letters.values().sum::<u64>(), 1_600);
        assert_eq!((letters["undecodable"], letters["unhandled"], letters["permanent"]), (8, 8, 16));
        // At least: on a slow machine some of those that are mended in time are not in time.
        assert!(letters["failed"] >= 8, "{letters:?}");
        assert!(first["retried"] >= 3 * 8, "what ends as failed was tried four times: {first:?}");
        assert!(first["reclaimed"] > 0, "{first:?}");
        assert_eq!(first["handled more than once"], 0, "{first:?}");
        let held = regex::Regex::new(r"SIGKILL for worker 2, which holds (\d+) events").unwrap();
        let held: u64 = held.captures(&err).expect("the kill")[1].parse().unwrap();
        assert!(first["reclaimed"] >= held, "{held} were held: {first:?}");

        let last = figures(&out, "And after the replay");
        assert_eq!((last["published"], last["handled"], last["lost"]), (1_600, 1_600 - 16, 0));
        assert_eq!(dead(&last), BTreeMap::from([("undecodable", 8), ("unhandled", 8)]));
        let replayed: u64 = letters.values().sum();
        assert!(out.contains(&format!("\nreplayed {replayed} dead letters\n")));
        let status = out.split("$ shop status\n").nth(1).expect("the status");
        let row = status.lines().find(|line| line.starts_with("orders ")).expect("its row");
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["orders", "1600", "0", "0", "0", "0", "16", "-"]);

        let clerks = out.split("\nTwo clerks decide about one order at once.").nth(1).expect("the clerks");
        assert!(clerks.contains("the first decision, as it was Created: ship it\n"), "{clerks}");
        assert!(clerks.contains("the second decision, as it was Cancelled: "), "{clerks}");
        let versions = ["\n1        ", "\n2        "].map(|version| clerks.split(version).nth(1).expect("its row"));
        assert!(versions[0].contains("order.created") && versions[1].contains("order.cancelled"), "{clerks}");
        assert!(!clerks.contains("order.shipped"), "{clerks}");
        assert!(clerks.contains("\"status\": \"cancelled\""), "{clerks}");
        // The janitor has been waited for.
        assert_eq!(demo.left(), [""; 0]);
    }

    async fn a_node_is_killed_under_a_topic_and_nothing_is_lost(kind: Kind) {
        let mut demo = Demo::start_with(kind, 1_000, &["--cluster"]);
        let code = demo.end().await;
        let (out, err) = (demo.read("out"), demo.read("err"));
        println!("{err}{out}");
        assert_eq!(code, Some(0));
        assert!(err.contains("SIGKILL for the node 127.0.0.1:"), "{err}");
        assert!(err.contains("has taken its place"), "{err}");
        let title = "What the handlers wrote down, outside the cluster";
        let told = figures(&out, title);
        assert_eq!((told["published"], told["handled"], told["lost"]), (1_000, 1_000, 0));
        assert_eq!(told.get("out of order").copied().unwrap_or(0), 0);
        let last = out.trim_end().lines().last().unwrap();
        assert!(["lost 0", "out of order 0"].contains(&last), "{out}");
        demo.nothing_is_left().await;
    }

    /// A thief reads an event of the group, acknowledges it and does nothing: that one is neither handled nor dead.
    async fn an_event_that_is_stolen_is_called_lost(kind: Kind) {
        let mut demo = Demo::start(kind, 1_000);
        demo.says("a server of the demo's own runs").await;
        let tmp = std::fs::read_dir(demo.temporary.path().join("tmp")).unwrap().next().unwrap().unwrap().path();
        let client = redis::Client::open(format!("unix://{}", tmp.join("redis.sock").display())).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let mut redis = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        let stolen: redis::streams::StreamReadReply = eventually(PATIENCE, "something to steal", async || {
            redis::cmd("XREADGROUP").arg("GROUP").arg("fulfilment").arg("thief").arg("COUNT").arg(1).arg("BLOCK").arg(0)
                .arg("NOACK").arg("STREAMS").arg("orders").arg(">").query_async(&mut redis).await
        })
        .await;
        let id: String = stolen.keys[0].ids[0].get("id").unwrap();
        assert_eq!(demo.end().await, Some(1), "{}", demo.read("out"));
        assert_eq!(figures(&demo.read("out"), "What became of them")["lost"], 1);
        let err = demo.read("err");
        assert!(err.ends_with(&format!("error: 1 of 1000 events are lost: {id}\n")), "{err}");
        assert_eq!(demo.left(), [""; 0]);
    }

    async fn a_demo_that_is_interrupted_or_killed_takes_its_processes_along(kind: Kind) {
        for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
            let mut demo = Demo::start(kind, 1_000);
            demo.says("SIGKILL for worker 2").await;
            demo.process.signal(signal);
            let code = demo.end().await;
            if signal == Signal::KILL {
                demo.nothing_is_left().await;
                continue;
            }
            assert_eq!(code, Some(1));
            assert!(demo.read("err").ends_with("error: stopped; the demo's server and workers are gone\n"));
            assert_eq!(demo.left(), [""; 0]);
        }
    }
}
