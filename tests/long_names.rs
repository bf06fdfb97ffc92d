//! Names of any length and with anything in them come from outside: what people read has them cut, what programs read
//! has them whole.

use std::time::Duration;

use redis::AsyncCommands;

use crate::support::letters::fields;
use crate::support::{Cli, Server, Setup, add, dead, entries, eventually, most_memory};

const DEAD: &str = "{jobs}:workers:dead";

const PATIENCE: Duration = Duration::from_secs(60);
const LONG: usize = 10_000_000;

/// The most memory the program had, in bytes, in the best seen of several runs: what is over in a few milliseconds can pass
/// between two looks, and then too little is seen of it, but never too much.
async fn memory(cli: &Cli, args: &[&str]) -> usize {
    let mut most = 0;
    for _ in 0..5 {
        let mut child = cli.command(args).spawn().expect("the program to start");
        let pid = child.id().expect("a process");
        let looks = tokio::task::spawn_blocking(move || {
            let looks = std::iter::from_fn(|| Some(most_memory(pid)).filter(|&bytes| bytes > 0));
            looks.max().unwrap_or(0)
        });
        most = most.max(looks.await.expect("the looks to end"));
        child.wait().await.expect("its end");
    }
    assert!(most > 1 << 20, "nothing was seen of {args:?}: {most} bytes");
    most
}

on_both_servers! {
    async fn a_type_of_ten_megabytes_costs_neither_the_log_nor_a_list_its_size(server: Server) {
        let mut redis = server.connect().await;
        let long = format!("\u{1b}[31m{}", "x".repeat(LONG));
        add(&mut redis, "jobs", &fields(&[("type", &long), ("id", &long), ("data", "{}")])).await;
        let mut worker = Setup::new(&server).worker("unhandled_after = \"1ms\"").process();
        eventually(PATIENCE, "the event to be buried", async || dead(&mut redis).await == 1).await;
        worker.terminate();
        worker.wait(PATIENCE).await;
        let log = worker.log();
        assert!(log.len() < 20_000, "{} bytes of log", log.len());
        assert!(log.contains("no handler is registered for") && !log.contains("\u{1b}[31mx"), "{log}");

        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        // The same with nothing to list.
        let idle = memory(&cli, &["dlq", "list", "--reason", "crashed"]).await;
        let took = memory(&cli, &["dlq", "list"]).await;
        println!("dlq list took {} KiB, of nothing {} KiB", took >> 10, idle >> 10);
        assert!(took < idle + LONG / 2, "{took} bytes, and {idle} without a list");
        let letters: Vec<String> = redis.xrange_all::<_, redis::streams::StreamRangeReply>(DEAD).await.unwrap()
            .ids.into_iter().map(|letter| letter.id).collect();
        for args in [&["list"][..], &["stats"], &["groups"], &["show", &letters[0]]] {
            let out = cli.run(&[&["dlq"], args].concat()).await.ok();
            assert!(out.len() < 3_000, "{} bytes of {args:?}", out.len());
            assert!(out.contains("\\u{1b}[31mxxx") && out.contains("x… ("), "{out}");
        }
        let json = cli.run(&["dlq", "list", "--json"]).await.json();
        assert!(json[0]["type"] == long.as_str(), "JSON has it whole");
        let json = cli.run(&["dlq", "stats", "--json"]).await.json();
        assert!(json["kinds"][0]["type"] == long.as_str(), "JSON has it whole");
        let json = cli.run(&["dlq", "show", &letters[0], "--json"]).await.ok();
        assert!(json.len() > 2 * LONG, "JSON has it whole");
        let entry = entries(&mut redis, "jobs").await[0].id.to_string();
        // It shows the event whole, as JSON.
        let out = cli.run(&["entry", &entry]).await.ok();
        assert!(!out.contains('\u{1b}') && out.contains("dead letter"), "{} bytes", out.len());
        cli.run(&["pause", "jobs", "--by", &"b".repeat(100_000)]).await.ok();
        let out = cli.run(&["status"]).await.ok();
        assert!(out.len() < 2_000 && out.contains("b… (100000 bytes)"), "{out}");

        let later = ["publish", "jobs", "test.job", "{}", "--delay", "1h", "--id", &"e".repeat(100_000)];
        let said = cli.run(&later).await;
        assert!(said.err.len() < 1_000, "{}", said.err.len());
        let out = cli.run(&["scheduled", "list"]).await.ok();
        assert!(out.len() < 1_000 && out.contains("e… (100000 bytes)"), "{out}");
    }
}
