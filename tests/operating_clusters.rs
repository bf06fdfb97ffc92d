//! What operators do with a group whose streams lie on all masters of a cluster: by the program, which finds out from one
//! node that it is a cluster, and by the library.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use streamhand::admin::Admin;
use streamhand::dead_letters::Filter;
use streamhand::eventstore::RedisEventStore;
use streamhand::{Publisher, Settings};

use crate::support::cluster::{Cluster, slot, spread};
use crate::support::jobs::{Action, Job};
use crate::support::letters::{bury, fields};
use crate::support::{Cli, Kind, eventually};

const STREAMHAND: &str = env!("CARGO_BIN_EXE_streamhand");

const PATIENCE: Duration = Duration::from_secs(30);

/// Three masters, a stream on each, and the program, which knows one of them.
struct Group {
    cluster: Cluster,
    streams: Vec<String>,
    config: String,
    cli: Cli,
}

impl Group {
    async fn start(kind: Kind) -> Group {
        let options = ["--cluster-require-full-coverage", "no"];
        let cluster = Cluster::start_with(kind, 3, false, &options).await;
        let streams = spread("work", 3, 3);
        let config = format!("[worker]\ngroup = \"fulfilment\"\nstreams = {streams:?}\n");
        // It has no handlers, by which it would judge what is edited.
        let cli = Cli::at(&cluster.node(2).url(), &config).of_program(STREAMHAND);
        Group {
            cluster,
            streams,
            config,
            cli,
        }
    }

    fn settings(&self) -> Settings {
        let url = self.cluster.node(2).url();
        let toml = format!("[redis]\nurl = \"{url}\"\n{}", self.config);
        Settings::from_toml_str(&toml).expect("right settings")
    }

    async fn redis(&self, stream: &str) -> MultiplexedConnection {
        let master = self.cluster.master_of(stream).await;
        self.cluster.node(master).connect().await
    }

    async fn ok(&self, args: &[&str]) -> String {
        self.cli.run(args).await.ok()
    }

    async fn json(&self, args: &[&str]) -> Value {
        self.cli.run(&[args, &["--json"]].concat()).await.json()
    }
}

on_both_servers! {
    async fn every_command_finds_what_lies_on_other_masters(kind: Kind) {
        let group = Group::start(kind).await;
        let event = fields(&[("type", "order.created"), ("id", "e-1"), ("subject", "o-1"), ("data", "{\"order_id\":\"o-1\"}")]);
        for stream in &group.streams {
            let once = ["publish", stream, "order.created", "{\"order_id\":\"o-1\"}", "--id", "once", "--once"];
            let first = group.ok(&once).await;
            assert!(group.ok(&once).await.starts_with(first.trim()), "{stream}");
            let many = ["publish", stream, "order.created", "-"];
            group.cli.run_with(&many, b"{\"order_id\":\"a\"}\n{\"order_id\":\"b\"}\n").await.ok();
            group.ok(&["publish", stream, "order.reminded", "{}", "--id", "later", "--delay", "1h"]).await;
            group.ok(&["pause", stream, "--reason", "stocktaking"]).await;
            let mut redis = group.redis(stream).await;
            for reason in ["failed", "permanent"] {
                bury(&mut redis, stream, &event, reason, "no stock").await;
            }
        }
        let status = group.json(&["status"]).await;
        let seen: Vec<_> = status["streams"].as_array().unwrap().iter()
            .map(|of| (of["length"].as_u64(), of["dead"].as_u64(), of["scheduled"].as_u64(), of["paused"].as_array().map(Vec::len)))
            .collect();
        assert_eq!(seen, [(Some(5), Some(2), Some(1), Some(1)); 3], "{status}");
        assert_eq!(group.json(&["redis"]).await.as_array().map(Vec::len), Some(3), "each master");
        let checked = group.ok(&["config", "check", "--connect"]).await;
        assert!(checked.contains("a cluster, found from "), "{checked}");
        for (place, stream) in group.streams.iter().enumerate() {
            let node = group.cluster.node(place).url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
            let expected = format!("ok place at {node}: {stream}: slot {}\n", slot(stream));
            assert!(checked.contains(&expected), "{expected}: {checked}");
        }
        let found = group.json(&["find", "data.order_id:o-1"]).await.to_string();
        let letters = group.json(&["dlq", "list"]).await;
        assert_eq!(letters.as_array().map(Vec::len), Some(6));
        let said = group.ok(&["dlq", "groups"]).await;
        for stream in &group.streams {
            assert!(found.contains(stream) && said.contains(stream), "{stream}: {found} {said}");
            let id = letters.as_array().unwrap().iter().find(|letter| letter["stream"] == **stream).unwrap()["id"].as_str().unwrap();
            group.ok(&["dlq", "note", id, "look at the stock", "--stream", stream]).await;
            group.ok(&["dlq", "edit", id, "--stream", stream, "--set", "subject=o-2", "--unchecked", "-y"]).await;
            group.ok(&["dlq", "replay", id, "--stream", stream]).await;
            group.ok(&["resume", stream]).await;
            assert!(group.ok(&["entry", "once", "--stream", stream]).await.contains(stream));
        }
        group.ok(&["dlq", "purge", "--all", "-y", "--undo-within", "1h"]).await;
        assert_eq!(group.json(&["dlq", "list"]).await, json!([]));
        assert!(group.cli.run(&["dlq", "runs"]).await.code == 0);
        let scheduled = group.json(&["scheduled", "list"]).await;
        assert_eq!(scheduled.as_array().map(Vec::len), Some(3), "{scheduled}");
        for stream in &group.streams {
            group.ok(&["scheduled", "cancel", stream, "later"]).await;
        }
        assert_eq!(group.json(&["scheduled", "list"]).await, json!([]));
        for stream in &group.streams {
            // Nobody is there to take it.
            group.ok(&["publish", stream, "order.created", "{}"]).await;
        }
        let impatient = group.cli.with_env("STREAMHAND_ALERTS__OLDEST", "1s");
        eventually(PATIENCE, "an alert of each stream", async || {
            let checked = impatient.run(&["alerts", "check"]).await;
            let tells = |stream: &String| checked.out.contains(&format!("critical waiting {stream}: "));
            match checked.code == 1 && group.streams.iter().all(tells) {
                true => Ok(()),
                false => Err(format!("{checked:?}")),
            }
        })
        .await;

        let admin = Admin::new(&group.settings()).unwrap();
        let load = admin.load().await.unwrap();
        assert_eq!((load.streams.len(), load.in_trouble.len()), (3, 0));
        assert!(load.streams.iter().all(|of| of.replayed == 1 && of.dead == 0), "{load:?}");
        admin.fleet().await.unwrap();
        admin.audit("alice", "streamhand pause", "stocktaking", None).await.unwrap();
        assert_eq!(admin.audited(None, 10).await.unwrap().len(), 1);
    }

    /// Nobody has asked anything before: the first requests go to all masters at once.
    async fn the_first_requests_of_all_are_to_several_masters(kind: Kind) {
        let group = Group::start(kind).await;
        let publisher = Publisher::new(&group.settings().redis).unwrap();
        let job = Job::new("one", Action::Succeed);
        let each = group.streams.iter().map(|stream| publisher.publish(stream, &job));
        for published in futures_util::future::join_all(each).await {
            published.unwrap();
        }
        let store = RedisEventStore::new(&group.settings().redis, crate::eventstore::shelf::orders()).unwrap();
        let names: Vec<_> = (0..12).map(|n| crate::eventstore::shelf::order(&format!("o-{n}"))).collect();
        let each = names.iter().map(|name| crate::eventstore::shelf::stored(&store, name, 1));
        assert!(futures_util::future::join_all(each).await.iter().all(Vec::is_empty));
    }

    async fn a_node_that_is_away_is_named_and_the_others_are_shown(kind: Kind) {
        let mut group = Group::start(kind).await;
        let event = fields(&[("type", "order.created"), ("id", "e-1"), ("subject", "o-1"), ("data", "{\"order_id\":\"o-1\"}")]);
        for stream in &group.streams {
            let entry = format!("e-of-{stream}");
            group.ok(&["publish", stream, "order.created", "{}", "--id", &entry]).await;
            group.ok(&["publish", stream, "order.created", "{}", "--delay", "1h"]).await;
            let mut redis = group.redis(stream).await;
            for reason in ["failed", "permanent"] {
                bury(&mut redis, stream, &event, reason, "no stock").await;
            }
        }
        let away = group.cluster.node(0).url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
        group.cluster.node_mut(0).stop();
        eventually(PATIENCE, "the others to go on", async || group.cli.run(&["status"]).await.code == 0).await;
        let status = group.json(&["status"]).await;
        assert_eq!(status["streams"].as_array().map(Vec::len), Some(2), "{status}");
        let trouble = &status["in_trouble"][0];
        assert_eq!(trouble["stream"], *group.streams[0], "{status}");
        let said = group.ok(&["status"]).await;
        let expected = format!("{}: can't be looked at: can't reach Redis at {away}", group.streams[0]);
        assert!(said.contains(&expected), "{said}");
        let listed = group.cli.run(&["scheduled", "list"]).await;
        assert!(listed.out.contains(&*group.streams[1]) && listed.out.contains(&*group.streams[2]), "{listed:?}");
        assert!(listed.err.contains(&expected), "{listed:?}");

        // What is shown is that of the others; what is named is why the rest is not.
        let both = |text: &str| group.streams[1..].iter().all(|stream| text.contains(&**stream));
        for args in [&["find", "o-1", "--since", "1h"][..], &["dlq", "list", "--since", "1h"], &["dlq", "stats"], &["dlq", "groups"]] {
            for json in [&[][..], &["--json"]] {
                let found = group.cli.run(&[args, json].concat()).await;
                assert!(found.code == 0 && both(&found.out) && found.err.contains(&expected), "{args:?}: {found:?}");
            }
        }
        let found = group.json(&["find", "o-1"]).await;
        assert_eq!((&found["in_trouble"][0]["stream"], found["hits"].as_array().map(Vec::len)), (&json!(group.streams[0]), Some(8)), "{found}");
        // Where only what is away is left, a search that goes on fails, and nobody asks for ever.
        let further = group.cli.run(&["find", "--from", found["cursor"].as_str().unwrap()]).await;
        assert!(further.code == 1 && further.err.contains(&away), "{further:?}");
        let none = group.cli.run(&["dlq", "list", "--stream", &group.streams[0]]).await.failed(1);
        assert!(none.contains(&away), "{none}");
        for args in [&["dlq", "runs"][..], &["dlq", "undo"]] {
            let listed = group.cli.run(args).await;
            assert!(listed.code == 0 && listed.err.contains(&expected), "{args:?}: {listed:?}");
        }
        let stopped = group.cli.run(&["dlq", "stop", "r-1"]).await.failed(1);
        assert!(stopped.contains("--stream"), "{stopped}");
        let entry = format!("e-of-{}", group.streams[1]);
        let shown = group.cli.run(&["entry", &entry]).await;
        assert!(shown.code == 0 && shown.out.contains(&*group.streams[1]) && shown.err.contains(&expected), "{shown:?}");
        let hidden = group.cli.run(&["entry", &format!("e-of-{}", group.streams[0])]).await.failed(1);
        assert!(hidden.contains(&away), "{hidden}");
        // By its id an entry is found in the stream that has it.
        let id = group.json(&["find", &entry]).await["hits"][0]["id"].as_str().unwrap().to_owned();
        let shown = group.cli.run(&["entry", &id]).await;
        assert!(shown.code == 0 && shown.err.contains(&expected), "{shown:?}");
        // What is to be done with all is done with the others, and is no success.
        let dry = group.cli.run(&["dlq", "replay", "--reason", "failed", "--dry-run"]).await;
        assert!(dry.code == 0 && dry.out.contains("would replay 2 dead letters") && dry.err.contains(&expected), "{dry:?}");
        let replayed = group.cli.run(&["dlq", "replay", "--reason", "failed"]).await;
        assert_eq!((replayed.code, replayed.out.trim()), (1, "replayed 2 dead letters"), "{replayed:?}");
        assert!(replayed.err.contains(&format!("the dead letters of {} were left out", group.streams[0])), "{replayed:?}");
        let purged = group.cli.run(&["dlq", "purge", "--all", "-y", "--undo-within", "1h"]).await;
        assert!(purged.code == 1 && purged.out.starts_with("deleted 2 dead letters"), "{purged:?}");
        let name = group.json(&["dlq", "undo"]).await[0]["name"].as_str().unwrap().to_owned();
        let undone = group.cli.run(&["dlq", "undo", &name]).await;
        assert_eq!((undone.code, undone.out.trim()), (1, "brought back 2 dead letters"), "{undone:?}");
        // From code nothing is left out that was not asked to be.
        let dead = Admin::new(&group.settings()).unwrap().dead_letters().unwrap();
        dead.groups(Filter::new()).await.expect_err("a node is away");
        dead.select(Filter::new()).await.expect_err("a node is away");

        for stream in &group.streams[1..] {
            group.ok(&["publish", stream, "order.created", "{}"]).await;
        }
        let impatient = group.cli.with_env("STREAMHAND_ALERTS__OLDEST", "1s");
        eventually(PATIENCE, "an alert of each stream that is there", async || {
            let checked = impatient.run(&["alerts", "check"]).await;
            match checked.code == 1 && both(&checked.out) {
                true => Ok(()),
                false => Err(format!("{checked:?}")),
            }
        })
        .await;
        let servers = group.json(&["redis"]).await;
        let unreachable = servers.as_array().unwrap().iter().filter(|of| of["software"] == "unreachable");
        let unreachable: Vec<_> = unreachable.map(|of| of["address"].as_str().unwrap()).collect();
        assert_eq!(unreachable, [&away], "{servers}");
        let checked = group.cli.run(&["config", "check", "--connect"]).await;
        assert!(checked.code == 1 && both(&checked.out), "{checked:?}");
        for says in [format!("danger place at {away}: can't reach Redis"), format!("{}: can't be looked at", group.streams[0])] {
            assert!(checked.out.contains(&says), "{says}: {checked:?}");
        }
        let examined = group.cli.run(&["doctor"]).await;
        assert!(examined.code == 1 && examined.out.contains(&format!("danger place at {away}: can't reach Redis")), "{examined:?}");
        let judged = group.cli.run(&["conformance", "--stream", &group.streams[0]]).await;
        assert!(judged.code == 1 && judged.err.contains(&away), "{judged:?}");
        let judged = group.cli.run(&["conformance", "--stream", &group.streams[1], "--json"]).await;
        let judged: serde_json::Value = serde_json::from_str(&judged.out).unwrap();
        assert!(judged["looked_at"].as_u64() > Some(0), "{judged}");
        let load = Admin::new(&group.settings()).unwrap().load().await.unwrap();
        assert_eq!((load.streams.len(), &load.in_trouble[0].stream), (2, &group.streams[0]));
    }
}
