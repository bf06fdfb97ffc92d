//! Scheduled events come to a stream by its workers alone: where it has none this is said, and where its workers are
//! merely being restarted it is not.

use std::time::Duration;

use crate::support::{Cli, Clock, Kind, Server, Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CONFIG: &str = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]";

/// The warning, which is the same when events are scheduled, in their list and in the status.
async fn warnings(cli: &Cli) -> Option<String> {
    let later = ["publish", "jobs", "test.job", "{}", "--delay", "3d"];
    let said = [
        cli.run(&later).await.err,
        cli.run(&["scheduled", "list"]).await.err,
        cli.run(&["scheduled", "list", "--json"]).await.err,
        cli.run(&["status"])
            .await
            .ok()
            .replace("\njobs: n", "\nwarning: jobs: n"),
    ]
    .map(|said| {
        let mut warnings = said
            .lines()
            .filter_map(|line| line.strip_prefix("warning: "));
        warnings
            .find(|line| line.contains("scheduled events"))
            .map(str::to_owned)
    });
    let in_json = cli.run(&["status", "--json"]).await.json();
    let in_json = in_json["streams"][0]["scheduled_unread"].clone();
    assert_eq!(in_json, said[0].is_some(), "{said:?}");
    assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
    said[0].clone()
}

/// Whether the status finds nothing wrong with what is scheduled.
async fn is_read(cli: &Cli) -> bool {
    cli.run(&["status", "--json"]).await.json()["streams"][0]["scheduled_unread"] == false
}

on_both_servers! {
    async fn a_stream_without_workers_is_told_from_one_whose_workers_restart(kind: Kind) {
        let clock = Clock::new();
        let server = Server::builder(kind).clock(&clock).start().await;
        let cli = Cli::new(&server, CONFIG);
        assert_eq!(warnings(&cli).await.as_deref(), Some("jobs: no worker has ever read it: its scheduled events come \
            once a worker has it in worker.streams"));
        // Another program's consumer adds nothing.
        let mut redis = server.connect().await;
        for command in ["XGROUP CREATE jobs py 0 MKSTREAM", "XGROUP CREATECONSUMER jobs py py-1"] {
            let mut words = command.split(' ');
            let mut cmd = redis::cmd(words.next().unwrap());
            let () = cmd.arg(words.collect::<Vec<_>>()).query_async(&mut redis).await.unwrap();
        }
        assert!(warnings(&cli).await.unwrap().starts_with("jobs: no worker has ever read it"));

        // A worker of any group adds them.
        let worker = Setup::new(&server).worker("group = \"others\"").start();
        eventually(PATIENCE, "the worker to have joined", async || is_read(&cli).await).await;
        assert_eq!(warnings(&cli).await, None);
        worker.stop().await;
        assert_eq!(warnings(&cli).await, None, "it may be back in a moment");
        clock.ahead(DAY);
        let warning = warnings(&cli).await.expect("a warning");
        assert!(warning.starts_with("jobs: no worker of it was seen for 1d: its"), "{warning}");
        let mut worker = Setup::new(&server).process();
        eventually(PATIENCE, "a worker to be there again", async || is_read(&cli).await).await;
        worker.kill();
        assert_eq!(warnings(&cli).await, None, "it may be back in a moment");
        clock.ahead(2 * DAY);
        let warning = warnings(&cli).await.expect("a warning");
        assert!(warning.starts_with("jobs: no worker of it was seen for 1d: its"), "{warning}");
        clock.ahead(4 * DAY);
        let warning = warnings(&cli).await.expect("a warning");
        assert!(warning.ends_with("worker.streams, and the first has been due for 1d"), "{warning}");
    }
}
