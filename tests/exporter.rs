//! `exporter`: the gauges of a group agree with what is there, cost Redis little, and are what to scale by.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::support::http::{get, get_with};
use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Cli, CommandStats, Server, Setup, dead, eventually, parked, settled};

const PATIENCE: Duration = Duration::from_secs(30);
const OF_WORKERS: &str = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n";

/// It, killed when dropped.
pub struct Exporter {
    pub at: SocketAddr,
    _process: Child,
}

impl Exporter {
    pub async fn start(cli: &Cli) -> Exporter {
        let mut process = cli
            .command(&["exporter", "--listen", "127.0.0.1:0"])
            .spawn()
            .expect("the program to start");
        let said = process.stderr.take().expect("its standard error");
        let mut lines = BufReader::new(said).lines();
        let reading = async {
            let mut all = Vec::new();
            while let Some(line) = lines.next_line().await.expect("a line") {
                if let Some(rest) = line.strip_prefix("http://") {
                    return rest
                        .trim_end_matches("/metrics")
                        .parse()
                        .expect("an address");
                }
                all.push(line);
            }
            panic!("it has ended: {all:?}");
        };
        let at = tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("its address");
        // Whatever else it says is not to hold it up.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Exporter {
            at,
            _process: process,
        }
    }

    async fn scale(&self) -> Value {
        let got = get(self.at, "/scale").await.expect("an answer");
        assert_eq!(got.status, 200, "{got:?}");
        got.json()
    }

    /// Waits until the load of `jobs` has these numbers.
    async fn shows(&self, wanted: &[(&str, u64)]) -> Value {
        eventually(PATIENCE, format!("{wanted:?}"), async || {
            let scale = self.scale().await;
            let jobs = &scale["streams"]["jobs"];
            let differs = wanted.iter().find(|(name, count)| jobs[name] != *count);
            match differs {
                None => Ok(scale),
                Some((name, _)) => Err(format!("{name} is {}: {jobs}", jobs[name])),
            }
        })
        .await
    }

    async fn metrics(&self) -> String {
        let got = get(self.at, "/metrics").await.expect("an answer");
        assert_eq!(got.status, 200, "{got:?}");
        got.text()
    }
}

async fn run(redis: &mut MultiplexedConnection, command: &str) -> redis::Value {
    let mut words = command.split_whitespace();
    let mut cmd = redis::cmd(words.next().expect("a command"));
    let answer = cmd.arg(words.collect::<Vec<_>>()).query_async(redis).await;
    answer.expect(command)
}

on_both_servers! {
    async fn every_gauge_agrees_with_what_is_there(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("backoff = { initial = \"1h\", max = \"1h\", jitter = 0.0 }");
        let config = setup.toml();
        let cli = Cli::new(&server, &config[config.find("[worker]").expect("a section")..]);
        let exporter = Exporter::start(&cli).await;
        let nothing = exporter.shows(&[("runnable", 0), ("length", 0)]).await;
        assert_eq!(nothing["runnable"], 0);

        let mut worker = setup.process();
        let mut all = many("bad", 2, &Action::FailForGood);
        all.extend(many("later", 3, &Action::Fail(9)));
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "the letters and the retries", async || {
            dead(&mut redis).await == 2 && parked(&mut redis).await == 3
        })
        .await;
        jobs::publish(&mut redis, "jobs", &[Job::new("long", Action::Take(60_000))]).await;
        eventually(PATIENCE, "it to run", async || jobs::starts_of(&mut redis, "long").await == 1).await;
        exporter.shows(&[("held", 1), ("parked", 3), ("dead", 2), ("runnable", 1), ("lapsed", 0)]).await;
        let busy = exporter.scale().await;
        assert_eq!(busy["streams"]["jobs"]["workers"], serde_json::json!({"working": 1, "lapsed": 0, "foreign": 0}));
        worker.kill();

        jobs::publish(&mut redis, "jobs", &many("unread", 5, &Action::Succeed)).await;
        cli.run(&["dlq", "replay", "--limit", "1"]).await.ok();
        cli.run(&["publish", "jobs", "test.job", "{}", "--delay", "50ms"]).await.ok();
        let retries: Vec<String> = redis::cmd("ZRANGE").arg("{jobs}:workers:retry").arg(0).arg(-1)
            .query_async(&mut redis).await.expect("the retries");
        run(&mut redis, &format!("ZADD {{jobs}}:workers:retry XX 1 {}", retries[0])).await;
        run(&mut redis, "XREADGROUP GROUP workers somebody COUNT 1 STREAMS jobs >").await;
        let scale = exporter
            .shows(&[
                ("length", 11), ("lag", 4), ("pending", 5), ("parked", 3), ("due", 1), ("replayed", 1), ("dead", 1),
                ("lapsed", 1), ("held", 0), ("scheduled_overdue", 1), ("runnable", 4 + 1 + 1 + 1),
            ])
            .await;
        assert_eq!(scale["runnable"], 7);
        let of_jobs = &scale["streams"]["jobs"];
        assert_eq!(of_jobs["workers"], serde_json::json!({"working": 0, "lapsed": 1, "foreign": 1}));
        for age in ["oldest_unread_seconds", "oldest_pending_seconds", "oldest_dead_seconds"] {
            let age = of_jobs[age].as_f64().expect(age);
            assert!(age > 0.0 && age < 60.0, "{age}");
        }
        let text = exporter.metrics().await;
        for line in [
            "streamhand_group_runnable{stream=\"jobs\",group=\"workers\"} 7",
            "streamhand_group_lag{stream=\"jobs\",group=\"workers\"} 4",
            "streamhand_group_pending{stream=\"jobs\",group=\"workers\"} 5",
            "streamhand_group_parked{stream=\"jobs\",group=\"workers\"} 3",
            "streamhand_group_parked_due{stream=\"jobs\",group=\"workers\"} 1",
            "streamhand_group_replayed{stream=\"jobs\",group=\"workers\"} 1",
            "streamhand_group_dead{stream=\"jobs\",group=\"workers\"} 1",
            "streamhand_group_scheduled_overdue{stream=\"jobs\",group=\"workers\"} 1",
            "streamhand_group_workers{stream=\"jobs\",group=\"workers\",state=\"lapsed\"} 1",
            "streamhand_group_workers{stream=\"jobs\",group=\"workers\",state=\"working\"} 0",
            "streamhand_stream_length{stream=\"jobs\"} 11",
            "streamhand_redis_evicts{policy=\"noeviction\"} 0",
            "streamhand_redis_append_only 0",
        ] {
            assert!(text.lines().any(|known| known.trim_end_matches(".0") == line), "{line}: {text}");
        }

        // Nobody could work on what is paused: a scaler need not start anybody.
        cli.run(&["pause", "jobs"]).await.ok();
        exporter.shows(&[("runnable", 0), ("lag", 4)]).await;
        let text = exporter.metrics().await;
        assert!(text.contains("streamhand_group_paused_seconds{stream=\"jobs\",group=\"workers\",what=\"stream\"} "), "{text}");
        cli.run(&["resume", "jobs"]).await.ok();
        exporter.shows(&[("runnable", 7)]).await;
    }

    /// What others count as pending and scale to zero by: parked entries do not count, until they are due.
    async fn what_is_due_brings_workers_back_and_what_is_not_does_not(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, OF_WORKERS);
        let exporter = Exporter::start(&cli).await;
        let setup = Setup::new(&server).retry("backoff = { initial = \"4s\", jitter = 0.0 }");
        let worker = setup.start();
        jobs::publish(&mut redis, "jobs", &many("job", 3, &Action::Fail(1))).await;
        eventually(PATIENCE, "them to be parked", async || parked(&mut redis).await == 3).await;
        let since = Instant::now();
        worker.stop().await;
        exporter.shows(&[("parked", 3), ("runnable", 0), ("pending", 3)]).await;
        assert!(since.elapsed() < Duration::from_secs(4), "too slow to see it");
        exporter.shows(&[("due", 3), ("runnable", 3)]).await;
        let worker = setup.start();
        settled(&mut redis, "jobs", PATIENCE).await;
        exporter.shows(&[("runnable", 0), ("pending", 0)]).await;
        worker.stop().await;
    }

    async fn a_long_stream_costs_what_a_short_one_does_and_many_scrapes_what_one_does(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, &format!("{OF_WORKERS}[streams.jobs]\nretention = \"7d\"\n"));
        let exporter = Exporter::start(&cli).await;
        run(&mut redis, "XGROUP CREATE jobs workers 0 MKSTREAM").await;
        let look = async |redis: &mut MultiplexedConnection| {
            // The last look is not shown any more.
            let last = CommandStats::of(redis).await.calls("evalsha_ro");
            eventually(PATIENCE, "a new look", async || {
                exporter.metrics().await;
                CommandStats::of(redis).await.calls("evalsha_ro") > last
            })
            .await;
            let before = CommandStats::of(redis).await.all_calls();
            let last = CommandStats::of(redis).await.calls("zcount");
            eventually(PATIENCE, "one look more", async || {
                exporter.metrics().await;
                CommandStats::of(redis).await.calls("zcount") > last
            })
            .await;
            CommandStats::of(redis).await.all_calls() - before
        };
        let fill = async |redis: &mut MultiplexedConnection, count: usize| {
            let script = "for i = 1, tonumber(ARGV[1]) do redis.call('XADD', 'jobs', '*', 'type', 'test.job', 'data', '{}') end";
            for _ in 0..count.div_ceil(50_000) {
                let filled = redis::cmd("EVAL").arg(script).arg(0).arg(count.min(50_000)).query_async::<()>(redis).await;
                filled.expect("to fill it");
            }
        };
        fill(&mut redis, 10).await;
        let short = look(&mut redis).await;
        fill(&mut redis, 500_000).await;
        run(&mut redis, "XREADGROUP GROUP workers somebody COUNT 100000 STREAMS jobs >").await;
        let long = look(&mut redis).await;
        println!("{short} commands for 10 entries, {long} for 500,000");
        // An answer may be counted before what asks for the next.
        assert!(short < 60 && long < short + 2_100, "{short} commands for 10 entries, {long} for 500,000");

        let last = CommandStats::of(&mut redis).await.calls("zcount");
        let since = Instant::now();
        let scrapes = (0..50).map(|_| exporter.metrics());
        futures_util::future::join_all(scrapes).await;
        let looks = (CommandStats::of(&mut redis).await.calls("zcount") - last) / 3;
        let most = 2 + since.elapsed().as_secs();
        assert!(looks <= most, "{looks} looks in {:?}", since.elapsed());
    }

    async fn a_redis_away_is_no_empty_group_and_a_token_is_asked_for(server: Server) {
        let mut server = server;
        let config = format!("{OF_WORKERS}[telemetry]\ntoken = \"tr0ub4dor\"\n");
        let exporter = Exporter::start(&Cli::new(&server, &config)).await;
        for path in ["/metrics", "/scale"] {
            assert_eq!(get(exporter.at, path).await.expect("an answer").status, 401);
        }
        assert_eq!(get(exporter.at, "/livez").await.expect("an answer").status, 200);
        let shown = [("authorization", "Bearer tr0ub4dor")];
        let got = get_with(exporter.at, "/scale", &shown).await.expect("an answer");
        assert_eq!((got.status, &got.json()["runnable"]), (200, &Value::from(0)));
        server.stop();
        eventually(PATIENCE, "it to say that Redis is away", async || {
            let got = get_with(exporter.at, "/scale", &shown).await?;
            let is_so = got.status == 503 && got.text().contains("can't reach Redis");
            is_so.then_some(()).ok_or(format!("{got:?}"))
        })
        .await;
        server.start_again().await;
        eventually(PATIENCE, "it to be back", async || {
            get_with(exporter.at, "/metrics", &shown).await.expect("an answer").status == 200
        })
        .await;
        let open = Cli::new(&server, OF_WORKERS).run(&["exporter", "--listen", "0.0.0.0:0"]).await.failed(2);
        assert!(open.contains("set telemetry.token_file"), "{open}");
        let taken = exporter.at.to_string();
        let said = Cli::new(&server, OF_WORKERS).run(&["exporter", "--listen", &taken]).await.failed(1);
        assert!(said.contains("Address already in use"), "{said}");
    }
}
