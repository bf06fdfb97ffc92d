//! A group whose streams lie on all masters of a cluster, by the program, which finds out from one node that it is a
//! cluster, and by the library: what is asked first, and what is shown while a node is away.

use std::time::Duration;

use serde_json::Value;
use streamhand::admin::Admin;
use streamhand::eventstore::RedisEventStore;
use streamhand::{Publisher, Settings};

use crate::support::cluster::{Cluster, spread};
use crate::support::jobs::{Action, Job};

use crate::support::{Cli, Kind, eventually};

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
        let cli = Cli::at(&cluster.node(2).url(), &config);
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

    async fn ok(&self, args: &[&str]) -> String {
        self.cli.run(args).await.ok()
    }

    async fn json(&self, args: &[&str]) -> Value {
        self.cli.run(&[args, &["--json"]].concat()).await.json()
    }
}

on_both_servers! {
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
        for stream in &group.streams {
            group.ok(&["publish", stream, "order.created", "{}"]).await;
            group.ok(&["publish", stream, "order.created", "{}", "--delay", "1h"]).await;
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
        let servers = group.json(&["redis"]).await;
        let unreachable = servers.as_array().unwrap().iter().filter(|of| of["software"] == "unreachable");
        let unreachable: Vec<_> = unreachable.map(|of| of["address"].as_str().unwrap()).collect();
        assert_eq!(unreachable, [away], "{servers}");
        let load = Admin::new(&group.settings()).unwrap().load().await.unwrap();
        assert_eq!((load.streams.len(), &load.in_trouble[0].stream), (2, &group.streams[0]));
    }
}
