//! What there is besides handling what comes, with streams on all masters of a cluster: schedules, deduplication, retention, a
//! group's rate; aggregates and their views; the exporter, and the pages, also while a node is away.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use streamhand::web::Web;
use streamhand::{Context, Failure, Publisher, Registry, Settings};
use tokio::sync::oneshot;

use crate::exporter::Exporter;
use crate::projections::views::{
    ByStatus, InFour, any_event, by_aggregates, checkpoint, happens, names, store, view,
};
use crate::support::cluster::{Cluster, spread};
use crate::support::http::{get, get_with};
use crate::support::jobs::{Action, Job};
use crate::support::letters::{bury, fields};
use crate::support::{Cli, Kind, Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(40);
const RATE: usize = 40;

/// Which job began when.
type Begun = Arc<Mutex<Vec<(String, Instant)>>>;

fn noting(begun: &Begun) -> Registry {
    let begun = begun.clone();
    Registry::new().on(move |job: Job, _: Context| {
        begun.lock().unwrap().push((job.id, Instant::now()));
        async { Ok::<_, Failure>(()) }
    })
}

on_both_servers! {
    async fn schedules_copies_retention_and_a_groups_rate_are_kept_on_every_master(kind: Kind) {
        let cluster = Cluster::start(kind, 3, false).await;
        let streams = spread("work", 3, 3);
        let mut setup = Setup::new(cluster.node(0)).worker(&format!("streams = {streams:?}")).defaults("deduplicate = \"1h\"")
            .defaults(&format!("rate = \"{RATE}/s\"")).defaults("rate_scope = \"group\"");
        for stream in &streams {
            setup = setup.more(&format!("[streams.{stream}]\nretention = \"acked\""));
        }
        let begun = Begun::default();
        let workers = [setup.start_with(noting(&begun)), setup.start_with(noting(&begun))];
        let publisher = Publisher::connect(&cluster.node(1).url()[..]).await.expect("a cluster");
        let mut expected = BTreeSet::new();
        for stream in &streams {
            for number in 0..20 {
                let id = format!("{stream}-{number}");
                let envelope = publisher.envelope(&Job::new(&id, Action::Nothing)).unwrap();
                for _ in 0..if number % 4 == 0 { 2 } else { 1 } {
                    publisher.publish_envelope(stream, envelope.clone()).await.unwrap();
                }
                expected.insert(id);
            }
            let later = format!("{stream}-later");
            publisher.publish_after(stream, &Job::new(&later, Action::Nothing), Duration::from_millis(200)).await.unwrap();
            expected.insert(later);
        }
        eventually(PATIENCE, "all to be handled", async || {
            let ids: BTreeSet<String> = begun.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
            let left: Vec<_> = expected.difference(&ids).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        for stream in &streams {
            let mut redis = cluster.node(cluster.master_of(stream).await).connect().await;
            eventually(PATIENCE, format!("all of {stream} to be settled and trimmed"), async || {
                let length: usize = redis.xlen(stream).await.unwrap();
                if length == 0 { Ok(()) } else { Err(format!("{length} are left")) }
            })
            .await;
            let dead: usize = redis.xlen(format!("{{{stream}}}:workers:dead")).await.unwrap();
            assert_eq!(dead, 0);
        }
        let mut times: Vec<Instant> = begun.lock().unwrap().iter().map(|(_, at)| *at).collect();
        assert_eq!(times.len(), expected.len(), "of copies one runs");
        times.sort();
        // Counted by one for all slots: by each for itself it would be three times as many.
        let second = Duration::from_secs(1);
        let most = times.iter().enumerate().map(|(at, begin)| times[at..].iter().take_while(|time| **time - *begin < second).count()).max();
        assert!(most <= Some(RATE * 5 / 4), "{most:?} in a second");
        for worker in workers {
            worker.stop().await;
        }
    }

    async fn aggregates_and_their_views_are_whole_on_every_master(kind: Kind) {
        let cluster = Cluster::start(kind, 3, false).await;
        let (store, ids) = (store(cluster.node(0), 4), names(12));
        let worker = Setup::new(cluster.node(1)).start_with(Registry::new().projection(InFour(ByStatus::default())));
        for number in 0..60 {
            happens(&store, &ids[number % ids.len()], [any_event()]).await;
        }
        let mut masters = BTreeSet::new();
        for (partition, stream) in store.public().names().enumerate() {
            let master = cluster.master_of(stream).await;
            masters.insert(master);
            let mut redis = cluster.node(master).connect().await;
            let expected = by_aggregates(&store, &ids, partition, &[]).await;
            eventually(PATIENCE, format!("the view of {stream} to be right"), async || {
                let seen = view(&mut redis, stream).await;
                match seen == expected {
                    true => Ok(()),
                    false => Err(format!("is {seen:?}\nfor {expected:?}\nat {:?}", checkpoint(&mut redis, stream).await)),
                }
            })
            .await;
        }
        assert!(masters.len() > 1, "{masters:?}");
        worker.stop().await;

        // By commands, which find the node of each.
        let shop = Cli::at(&cluster.node(2).url(), "");
        for id in ["o-1", "o-2", "o-3"] {
            shop.run(&["order", "create", id, "--item", "tea=4"]).await.ok();
            let history = shop.run(&["aggregate", "history", &format!("order:{id}")]).await.ok();
            assert!(history.contains("order.created"), "{history}");
        }
        let listed = shop.run(&["projection", "list"]).await.ok();
        assert!(listed.contains("orders-by-status"), "{listed}");
    }

    async fn the_exporter_and_the_pages_show_all_masters_and_name_one_that_is_away(kind: Kind) {
        let mut cluster = Cluster::start_with(kind, 3, false, &["--cluster-require-full-coverage", "no"]).await;
        let streams = spread("work", 3, 3);
        let config = format!("[worker]\ngroup = \"fulfilment\"\nstreams = {streams:?}\n");
        let url = cluster.node(2).url();
        let letter = fields(&[("type", "order.created"), ("id", "e-1"), ("subject", "o-1"), ("data", "{}")]);
        for stream in &streams {
            let mut redis = cluster.node(cluster.master_of(stream).await).connect().await;
            bury(&mut redis, stream, &letter, "failed", "no stock").await;
            let _: String = redis.xadd(stream, "*", &[("type", "order.created"), ("subject", "o-1")]).await.unwrap();
        }
        let exporter = Exporter::start(&Cli::at(&url, &config)).await;
        let toml = format!("[redis]\nurl = \"{url}\"\n{config}[web]\nlisten = \"127.0.0.1:0\"\n");
        let pages = Web::new(&Settings::from_toml_str(&toml).unwrap()).unwrap();
        let web: SocketAddr = pages.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(pages.run(async { let _ = stopped.await; }));
        let scaled = async || {
            let told = get(exporter.at, "/scale").await?;
            let told = if told.status == 200 { told.json() } else { return Err(format!("{told:?}")) };
            let of = |stream: &String| told["streams"][&stream[..]]["dead"].as_u64();
            Ok::<_, String>((streams.iter().map(of).collect::<Vec<_>>(), told["in_trouble"].to_string()))
        };
        let page = async |path: &str| {
            let got = get_with(web, path, &[("accept", "text/html")]).await.unwrap();
            (got.status, got.text().replace("&#39;", "'"))
        };
        assert_eq!(scaled().await.unwrap().0, [Some(1); 3]);
        let all = ["/", "/flow", "/types", "/workers", "/dead", "/find?q=o-1", "/scheduled", "/limits", "/projections", "/redis", "/audit"];
        for path in all {
            let (status, text) = page(path).await;
            assert_eq!(status, 200, "{path}: {text}");
        }
        for path in ["/", "/dead", "/find?q=o-1"] {
            let text = page(path).await.1;
            assert!(streams.iter().all(|stream| text.contains(&**stream)), "{path}: {text}");
        }

        // The node that has what workers tell of themselves as well: who only looks at streams does without.
        let away = 1;
        assert_eq!(cluster.master_of("streamhand:{fulfilment}:pulse").await, away);
        cluster.node_mut(away).stop();
        eventually(PATIENCE, "the exporter to name it", async || {
            let (dead, trouble) = scaled().await?;
            let is_named = dead == [Some(1), None, Some(1)] && trouble.contains(&*streams[away]);
            if is_named { Ok(()) } else { Err(format!("{dead:?} {trouble}")) }
        })
        .await;
        for path in ["/", "/dead", "/find?q=o-1"] {
            eventually(PATIENCE, format!("{path} to name it"), async || {
                let (status, text) = page(path).await;
                let is_named = text.contains(&format!("<strong>{}</strong> can't be looked at: can't reach Redis at ", streams[away]));
                let others = [0, 2].iter().all(|at| text.contains(&*streams[*at]));
                if status == 200 && is_named && others { Ok(()) } else { Err(format!("{status}: {text}")) }
            })
            .await;
        }
        let cli = Cli::at(&url, &config).with_env("STREAMHAND_ALERTS__OLDEST", "1s");
        eventually(PATIENCE, "alerts of the others", async || {
            let checked = cli.run(&["alerts", "check"]).await;
            let tells = |at: usize| checked.out.contains(&format!("critical waiting {}: ", streams[at]));
            if checked.code == 1 && tells(0) && tells(2) { Ok(()) } else { Err(format!("{checked:?}")) }
        })
        .await;
        // What is the workers' own needs it.
        let listed = cli.run(&["worker", "list"]).await.failed(1);
        assert!(listed.contains("can't reach Redis at "), "{listed}");
        drop(stop);
        served.await.unwrap().unwrap();
    }
}
