//! Replays as runs: a canary first, the rest at a rate, stopped by themselves or by somebody, gone on with by another.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::dead_letters::{Filter, RunPlan, RunStanding};
use streamhand::{Context, ErrorKind, Event, Failure, Registry};

use crate::support::letters::{AGAIN, DEAD, Working, bury_many, dead_letters, settings};
use crate::support::{Cli, Server, entries, eventually};

const PATIENCE: Duration = Duration::from_secs(40);
const RUNS: &str = "{orders}:fulfilment:runs";
const HANDLED: &str = "test:handled";
const BROKEN: &str = "test:broken";

#[derive(Serialize, Deserialize)]
struct Order {
    order_id: String,
}

impl Event for Order {
    const TYPE: &'static str = "order.created";
}

/// Handles orders; while it is said to be broken they fail for good.
fn registry() -> Registry {
    Registry::new().on(async |order: Order, ctx: Context| {
        let mut redis = ctx.redis().await?;
        if redis.exists::<_, bool>(BROKEN).await? {
            return Err(Failure::permanent("no stock"));
        }
        Ok(redis.rpush::<_, _, ()>(HANDLED, &order.order_id).await?)
    })
}

fn worker(server: &Server) -> Working {
    Working::start(settings(server, ""), registry())
}

async fn length(redis: &mut MultiplexedConnection, stream: &str) -> u64 {
    redis::cmd("XLEN")
        .arg(stream)
        .query_async(redis)
        .await
        .unwrap()
}

/// Every order that is a letter, waits to be handled again, or was handled, and how often.
async fn everywhere(redis: &mut MultiplexedConnection) -> BTreeMap<String, usize> {
    // One moment: what is on its way from one place to another is in one of them.
    let mut places = BTreeMap::new();
    let script = redis::Script::new(
        "local out = redis.call('LRANGE', KEYS[3], 0, -1)
         for i = 1, 2 do
           for _, e in ipairs(redis.call('XRANGE', KEYS[i], '-', '+')) do out[#out + 1] = string.match(e[2][4], 'o%-%d+') end
         end
         return out",
    );
    let orders: Vec<String> = script
        .key(DEAD)
        .key(AGAIN)
        .key(HANDLED)
        .invoke_async(redis)
        .await
        .unwrap();
    for order in orders {
        *places.entry(order).or_default() += 1;
    }
    places
}

fn each_once(count: usize) -> BTreeMap<String, usize> {
    (0..count).map(|n| (format!("o-{n}"), 1)).collect()
}

async fn field(redis: &mut MultiplexedConnection, name: &str) -> String {
    let value: Option<String> = redis.hget(RUNS, name).await.unwrap();
    value.unwrap_or_default()
}

on_both_servers! {
    async fn a_canary_goes_first_and_never_more_of_it_are_unsettled(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 40).await;
        let cli = Cli::new(&server, "");
        let mut child = cli.command(&["dlq", "replay", "--all", "--canary", "5", "--then", "all", "--stop-at", "5%", "--by", "alice"]).spawn().unwrap();
        eventually(PATIENCE, "the canary", async || length(&mut redis, AGAIN).await == 5).await;
        // Nobody settles them: it looks again and again, and sends no more.
        let mut looks = std::collections::BTreeSet::new();
        eventually(PATIENCE, "it to look four times more", async || {
            assert_eq!(length(&mut redis, AGAIN).await, 5);
            looks.insert(field(&mut redis, "1:until").await);
            looks.len() > 4
        })
        .await;
        // A second driver would send more of them, and is told.
        let err = cli.run(&["dlq", "resume", "r-1"]).await.failed(1);
        assert!(err.contains("the run r-1 is driven by alice"), "{err}");
        let worker = worker(&server);
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
        assert!(ended.success());
        let run = dead_letters(&server).run("orders", 1).await.unwrap();
        assert_eq!((run.state, run.replayed, run.succeeded, run.died, run.unsettled, run.gone), (RunStanding::Done, 40, 40, 0, 0, 0));
        assert_eq!(everywhere(&mut redis).await, each_once(40));
        worker.stop().await;
        let left: u64 = redis.hlen("{orders}:fulfilment:runs:out").await.unwrap();
        assert_eq!(left, 0);
    }

    async fn a_run_stops_by_itself_and_the_rest_is_untouched(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 40).await;
        let untouched = entries(&mut redis, DEAD).await.split_off(5);
        let () = redis.set(BROKEN, 1).await.unwrap();
        let worker = worker(&server);
        let cli = Cli::new(&server, "");
        let ran = cli.run(&["dlq", "replay", "--all", "--canary", "5", "--then", "1000/s", "--stop-at", "5%", "--by", "alice"]).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains("died again, more than 5 %") && ran.err.contains("dlq resume r-1 goes on with it"), "{ran:?}");
        eventually(PATIENCE, "the canary to be settled", async || length(&mut redis, AGAIN).await == 0).await;
        let letters = entries(&mut redis, DEAD).await;
        assert_eq!(letters[..35], untouched);
        assert_eq!(everywhere(&mut redis).await, each_once(40));
        let by: Vec<_> = letters[35..].iter().flat_map(|letter| letter.fields.iter().find(|(name, _)| &name[..] == b"replay.by")).collect();
        assert!(by.len() == 5 && by.iter().all(|(_, value)| &value[..] == b"alice (r-1)"), "{by:?}");
        let runs = cli.run(&["dlq", "runs", "--json"]).await.json();
        assert_eq!((&runs[0]["state"], &runs[0]["died"], &runs[0]["replayed"], &runs[0]["run"]), (&"stopped".into(), &5.into(), &5.into(), &"r-1".into()));

        // Mended, somebody else goes on with what is left. What died again is not of this run.
        let _: u64 = redis.del(BROKEN).await.unwrap();
        let out = cli.run(&["dlq", "resume", "r-1", "--by", "bob"]).await.ok();
        assert_eq!(out, "r-1: replayed 40 of 40 dead letters: 35 succeeded, 5 died again\n");
        assert_eq!(length(&mut redis, DEAD).await, 5);
        assert_eq!(everywhere(&mut redis).await, each_once(40));
        worker.stop().await;
    }

    async fn a_run_is_stopped_from_anywhere_and_gone_on_with_by_another(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 60).await;
        let worker = worker(&server);
        let cli = Cli::new(&server, "");
        let child = cli.command(&["dlq", "replay", "--all", "--then", "15/s", "--note", "after the fix", "--by", "alice"]).spawn().unwrap();
        eventually(PATIENCE, "some to be replayed", async || length(&mut redis, DEAD).await < 55).await;
        let out = cli.run(&["dlq", "stop", "r-1", "--by", "bob"]).await.ok();
        assert!(out.starts_with("stopped r-1: replayed "), "{out}");
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
        let err = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.code() == Some(1) && err.contains("stopped by bob"), "{err}");
        eventually(PATIENCE, "what was replayed to be settled", async || length(&mut redis, AGAIN).await == 0).await;
        let left = length(&mut redis, DEAD).await;
        assert!(left > 0 && everywhere(&mut redis).await == each_once(60), "{left}");
        let ran = cli.run(&["dlq", "stop", "1"]).await;
        assert_eq!((ran.code, &ran.err[..]), (0, "r-1 did not go on: stopped by bob\n"));
        assert_eq!(length(&mut redis, DEAD).await, left);
        let out = cli.run(&["dlq", "resume", "r-1", "--by", "carol"]).await.ok();
        assert_eq!(out, "r-1: replayed 60 of 60 dead letters: 60 succeeded, 0 died again\n");
        assert_eq!(everywhere(&mut redis).await, each_once(60));
        let err = cli.run(&["dlq", "resume", "r-1"]).await.failed(1);
        assert!(err.contains("the run r-1 is over: begin another one"), "{err}");
        worker.stop().await;
    }

    async fn after_kill_9_of_the_driver_another_goes_on_and_none_is_replayed_twice(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 80).await;
        let worker = worker(&server);
        let cli = Cli::new(&server, "");
        let mut child = cli.command(&["dlq", "replay", "--all", "--canary", "3", "--then", "25/s"]).spawn().unwrap();
        eventually(PATIENCE, "some to be replayed", async || length(&mut redis, DEAD).await < 70).await;
        child.kill().await.unwrap();
        let left = length(&mut redis, DEAD).await;
        assert!(left > 0);
        // The one who died is waited out.
        let out = cli.run(&["dlq", "resume", "r-1", "--by", "bob"]).await.ok();
        assert_eq!(out, "r-1: replayed 80 of 80 dead letters: 80 succeeded, 0 died again\n");
        assert_eq!((everywhere(&mut redis).await, length(&mut redis, DEAD).await), (each_once(80), 0));
        worker.stop().await;
    }

    async fn a_canary_alone_waits_for_somebody_to_look(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 5).await;
        let worker = worker(&server);
        let cli = Cli::new(&server, "");
        let out = cli.run(&["dlq", "replay", "--all", "--canary", "2"]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(out, @r"
        r-1: replayed 2 of 5 dead letters: 2 succeeded, 0 died again
        the canary is through: 2 succeeded, 0 died again; resume it for the next 2
        ") };
        assert_eq!(length(&mut redis, DEAD).await, 3);
        cli.run(&["dlq", "resume", "r-1"]).await.ok();
        let out = cli.run(&["dlq", "resume", "r-1"]).await.ok();
        assert_eq!(out, "r-1: replayed 5 of 5 dead letters: 5 succeeded, 0 died again\n");
        worker.stop().await;
    }

    async fn the_second_of_two_runs_over_the_same_letters_is_told(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 6).await;
        let dead = dead_letters(&server);
        let all = dead.select(Filter::new()).await.unwrap();
        let plan = RunPlan::new().canary(2).canary_only();
        let first = dead.begin_run(&all, "alice", "", plan, None, 6).await.unwrap();
        assert!(first.shared.is_empty());
        let ids: Vec<_> = entries(&mut redis, DEAD).await.iter().map(|letter| letter.id.to_string()).collect();
        let worker = worker(&server);
        let ran = Cli::new(&server, "").run(&["dlq", "replay", &ids[0], &ids[4], &ids[5], "--then", "all", "--by", "bob"]).await;
        assert_eq!(ran.err, "3 of these letters are of r-1 as well, which alice began (running): whichever comes first replays each\n\
                             r-2 begins: 3 dead letters\n");
        assert_eq!(ran.out, "r-2: replayed 3 of 3 dead letters: 3 succeeded, 0 died again\n");
        // The first one finds what is left.
        dead.drive_run("orders", 1, "alice", |_| ()).await.unwrap();
        let run = dead.resume_run("orders", 1, "alice", |_| ()).await.unwrap();
        assert_eq!((run.state, run.replayed, run.succeeded), (RunStanding::Done, 3, 3));
        assert_eq!(everywhere(&mut redis).await, each_once(6));
        worker.stop().await;
    }

    async fn a_letter_that_dies_again_counts_once_whoever_takes_it_away_before_it_is_looked_at(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 4).await;
        let () = redis.set(BROKEN, 1).await.unwrap();
        let dead = dead_letters(&server);
        let all = dead.select(Filter::new()).await.unwrap();
        let run = dead.begin_run(&all, "alice", "", RunPlan::new().canary(4).canary_only(), None, 4).await.unwrap().run;
        let driving = tokio::spawn({
            let dead = dead.clone();
            async move { dead.drive_run("orders", 1, "alice", |_| ()).await }
        });
        eventually(PATIENCE, "all to be replayed", async || length(&mut redis, AGAIN).await == 4).await;
        driving.abort();
        // Nobody looks while they die again, and are purged, replayed and left.
        let worker = worker(&server);
        eventually(PATIENCE, "all to die again", async || length(&mut redis, DEAD).await == 4).await;
        let cli = Cli::new(&server, "");
        let ids: Vec<_> = entries(&mut redis, DEAD).await.iter().map(|letter| letter.id.to_string()).collect();
        cli.run(&["dlq", "purge", &ids[0], "--yes"]).await.ok();
        let _: u64 = redis.del(BROKEN).await.unwrap();
        cli.run(&["dlq", "replay", &ids[1]]).await.ok();
        eventually(PATIENCE, "the one to succeed", async || redis.llen::<_, u64>(HANDLED).await.unwrap() == 1).await;
        for _ in 0..2 {
            let run = dead.run("orders", run.number).await.unwrap();
            assert_eq!((run.replayed, run.died, run.succeeded, run.unsettled), (4, 4, 0, 0));
        }
        worker.stop().await;
    }

    async fn a_worker_drives_what_nobody_else_does_once_its_time_has_come(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 12).await;
        let cli = Cli::new(&server, "");
        let out = cli.run(&["dlq", "replay", "--limit", "6", "--canary", "3", "--then", "all", "--at", "1s", "--by", "alice"]).await.ok();
        assert!(out.starts_with("r-1 begins at ") && out.ends_with("when a worker of the group fulfilment drives it: 6 dead letters\n"), "{out}");
        // One that was begun, and whose driver never came or is gone.
        let dead = dead_letters(&server);
        let all = dead.select(Filter::new()).await.unwrap();
        dead.begin_run(&all, "bob", "", RunPlan::new(), None, 12).await.unwrap();
        let far = dead.now().await.unwrap() + Duration::from_secs(3600);
        dead.begin_run(&all, "carol", "", RunPlan::new(), Some(far), 12).await.unwrap();
        assert_eq!(length(&mut redis, DEAD).await, 12);
        eventually(PATIENCE, "its time", async || {
            let now = dead.now().await.unwrap();
            dead.run("orders", 1).await.unwrap().at.is_some_and(|at| at <= now)
        })
        .await;
        // A look for each, and each at a worker's first turn.
        let short = || settings(&server, "[worker]\nlease = \"1s\"");
        for number in 1..=2 {
            let worker = Working::start(short(), registry());
            eventually(PATIENCE, "the run to be driven", async || dead.run("orders", number).await.unwrap().state == RunStanding::Done).await;
            worker.stop().await;
        }
        let runs = dead.runs().await.unwrap();
        assert_eq!((runs[0].succeeded, runs[1].succeeded, runs[2].state), (6, 6, RunStanding::Waiting));
        assert_eq!(everywhere(&mut redis).await, each_once(12));
        assert!(dead.stop_run("orders", 3, "carol").await.unwrap());
    }

    async fn what_makes_no_run_is_refused(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 2).await;
        crate::support::letters::bury(&mut redis, "payments", &crate::support::letters::fields(&[("type", "payment.taken")]), "failed", "no card").await;
        let cli = Cli::new(&server, "[worker]\nstreams = [\"orders\", \"payments\"]");
        let mut said = String::new();
        for (code, args) in [
            (2, &["replay", "--all", "--canary", "0"][..]),
            (2, &["replay", "--all", "--canary", "1", "--then", "0/s"]),
            (2, &["replay", "--all", "--canary", "1", "--then", "fast"]),
            (2, &["replay", "--all", "--stop-at", "120%"]),
            (2, &["replay", "--all", "--at", "tomorrow"]),
            (2, &["replay", "--all", "--rate", "5", "--then", "5/s"]),
            (2, &["replay", "--all", "--note", "both"]),
            (2, &["stop", "seven"]),
            (1, &["stop", "r-7"]),
            (1, &["resume", "r-7", "--stream", "orders"]),
            (2, &["resume", "r-7", "--stream", "ordres"]),
            (2, &["runs", "--stream", "ordres"]),
        ] {
            let ran = cli.run(&[&["dlq"], args].concat()).await;
            assert_eq!(ran.code, code, "{args:?}: {ran:?}");
            said += &format!("$ dlq {}\n{}\n", args.join(" "), ran.err.split("\n\n").next().unwrap().trim_end());
        }
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r#"
        $ dlq replay --all --canary 0
        error: invalid value '0' for '--canary <NUMBER>': 0 is not in 1..18446744073709551615
        $ dlq replay --all --canary 1 --then 0/s
        error: invalid value '0/s' for '--then <RATE>': a rate of 0 would never replay anything: leave --then away, and the run stops behind its canary
        $ dlq replay --all --canary 1 --then fast
        error: invalid value 'fast' for '--then <RATE>': write a rate in letters a second (50/s), or all
        $ dlq replay --all --stop-at 120%
        error: invalid value '120%' for '--stop-at <SHARE>': write a percentage from 0 to 100 (5%)
        $ dlq replay --all --at tomorrow
        error: invalid value 'tomorrow' for '--at <TIME>': write a time of the day in UTC (02:00), a time (2026-01-31T02:00:00Z) or how long from now (30m)
        $ dlq replay --all --rate 5 --then 5/s
        error: the argument '--rate <NUMBER>' cannot be used with '--then <RATE>'
        $ dlq replay --all --note both
        error: a run is of one stream, and the letters meant are of several: name the stream, and begin a run for each
        $ dlq stop seven
        error: invalid value 'seven' for '<RUN>': a run is named r-7, as dlq runs shows it
        $ dlq stop r-7
        error: there is no run r-7 in the group fulfilment: dlq runs shows which there are
        $ dlq resume r-7 --stream orders
        error: there is no run r-7 of "orders" in the group "fulfilment": see dlq runs
        $ dlq resume r-7 --stream ordres
        error: the stream "ordres" is none of those that the group "fulfilment" reads: "orders", "payments"
        $ dlq runs --stream ordres
        error: the stream "ordres" is none of those that the group "fulfilment" reads: "orders", "payments"
        "#) };
        assert_eq!((length(&mut redis, DEAD).await, length(&mut redis, AGAIN).await), (2, 0));
        let dead = dead_letters(&server);
        let none = dead.begin_run(&dead.select(Filter::new()).await.unwrap(), "a", "", RunPlan::new().canary_only(), None, 0).await;
        assert_eq!(none.unwrap_err().kind(), ErrorKind::Invalid);
    }
}
