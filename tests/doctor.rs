//! What `doctor` finds: each finding is seen to appear, and to be gone after its own command was run.

mod fleet;
mod rights;
mod servers;
mod streams;

use redis::aio::MultiplexedConnection;
use serde_json::Value;

use crate::support::{Cli, Server};

/// The program for the group and the stream of the tests' workers.
const OF_JOBS: &str = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]";

fn doctor(server: &Server) -> Cli {
    Cli::new(server, OF_JOBS)
}

/// All findings.
async fn findings(cli: &Cli) -> Vec<Value> {
    let ran = cli.run(&["doctor", "--json"]).await;
    let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    let findings = report["findings"].as_array().expect("findings").clone();
    let is_dangerous = findings
        .iter()
        .any(|finding| finding["severity"] == "danger");
    assert_eq!(ran.code, i32::from(is_dangerous), "{ran:?}");
    findings
}

/// Those that are not ok and say this.
fn that_say<'a>(findings: &'a [Value], text: &str) -> Vec<&'a Value> {
    let says = |finding: &&Value| {
        finding["severity"] != "ok"
            && finding["what"]
                .as_str()
                .is_some_and(|what| what.contains(text))
    };
    findings.iter().filter(says).collect()
}

/// The finding that says this, with its severity; its command.
async fn found(cli: &Cli, severity: &str, text: &str) -> String {
    let findings = findings(cli).await;
    let [finding] = that_say(&findings, text)[..] else {
        panic!("{text}: {}", said(&findings))
    };
    assert_eq!(finding["severity"], severity, "{finding:#}");
    assert!(
        finding["cost"]
            .as_str()
            .is_some_and(|cost| !cost.is_empty()),
        "{finding:#}"
    );
    finding["mend"]
        .as_str()
        .unwrap_or_else(|| panic!("{finding:#}"))
        .to_owned()
}

/// What they say, for who reads why a test failed.
fn said(findings: &[Value]) -> String {
    let each = findings
        .iter()
        .map(|finding| format!("{}: {}", finding["severity"], finding["what"]));
    each.collect::<Vec<_>>().join("\n")
}

/// Nothing says this any more.
async fn is_gone(cli: &Cli, text: &str) {
    let findings = findings(cli).await;
    assert!(
        that_say(&findings, text).is_empty(),
        "{text}: {}",
        said(&findings)
    );
}

/// The finding, its own command, and that it is gone.
async fn mended(cli: &Cli, redis: &mut MultiplexedConnection, severity: &str, text: &str) {
    let mend = found(cli, severity, text).await;
    run(redis, &mend).await;
    is_gone(cli, text).await;
}

/// Runs a command of Redis as it stands in a finding.
async fn run(redis: &mut MultiplexedConnection, command: &str) {
    let words = words(command);
    let mut cmd = redis::cmd(&words[0]);
    let said: redis::RedisResult<redis::Value> = cmd.arg(&words[1..]).query_async(redis).await;
    said.unwrap_or_else(|error| panic!("{command}: {error}"));
}

/// Words as `redis-cli` takes them.
fn words(command: &str) -> Vec<String> {
    let quoted = command.split('"').enumerate();
    let words = quoted.flat_map(|(at, part)| match at % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

async fn set(redis: &mut MultiplexedConnection, name: &str, value: &str) {
    let mut cmd = redis::cmd("CONFIG");
    let () = cmd
        .arg("SET")
        .arg(name)
        .arg(value)
        .query_async(redis)
        .await
        .expect(name);
}
