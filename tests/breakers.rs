//! Circuit breakers: while one is open its handler's entries use up no attempts and stay where they are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::{Context, Event, Failure, Observer, Registry};

use crate::support::letters::fields;
use crate::support::{
    Cli, Clock, Kind, Proxy, Server, Setup, add, dead, eventually, parked, settled,
};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct Charged;

impl Event for Charged {
    const TYPE: &'static str = "card.charged";
}

/// A service behind the handler of `card.charged`, which is up or down.
#[derive(Clone, Default)]
struct Payments {
    is_down: Arc<AtomicBool>,
    /// How long it takes to answer.
    takes: Duration,
    calls: Arc<AtomicUsize>,
    /// When it was called, and the attempt of each call that succeeded.
    at: Arc<Mutex<Vec<Instant>>>,
    attempts: Arc<Mutex<Vec<u32>>>,
}

impl Payments {
    fn down() -> Self {
        let payments = Payments::default();
        payments.is_down.store(true, Ordering::SeqCst);
        payments
    }

    fn up(&self) {
        self.is_down.store(false, Ordering::SeqCst);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn call(&self, ctx: &Context) -> Result<(), &'static str> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.at.lock().unwrap().push(Instant::now());
        if self.is_down.load(Ordering::SeqCst) {
            return Err("payments are down");
        }
        self.attempts.lock().unwrap().push(ctx.attempt());
        Ok(())
    }

    /// Its handler, and one of `mail.sent` that always succeeds and is counted.
    fn registry(&self, sent: &Arc<AtomicUsize>) -> Registry {
        let (payments, sent) = (self.clone(), sent.clone());
        Registry::new()
            .on_raw(Charged::TYPE, move |_, ctx| {
                let payments = payments.clone();
                async move {
                    let answer = payments.call(&ctx);
                    if !payments.takes.is_zero() {
                        tokio::time::sleep(payments.takes).await;
                    }
                    Ok(answer?)
                }
            })
            .on_raw("mail.sent", move |_, _| {
                sent.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            })
    }
}

fn with_breaker(setup: Setup, breaker: &str) -> Setup {
    setup.more(&format!(
        "[handlers.\"card.charged\"]\ncircuit_breaker = {breaker}"
    ))
}

async fn publish(redis: &mut MultiplexedConnection, event_type: &str, count: usize) {
    let mut pipe = redis::pipe();
    for n in 0..count {
        pipe.cmd("XADD")
            .arg("jobs")
            .arg("*")
            .arg(&[("type", event_type), ("id", &n.to_string())])
            .ignore();
    }
    let () = pipe.query_async(redis).await.unwrap();
}

/// What the group knows of breakers that are not closed.
async fn known(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut command = redis::cmd("HKEYS");
    command.arg("{jobs}:workers:breakers");
    let fields: Vec<String> = command.query_async(redis).await.unwrap();
    fields
        .into_iter()
        .filter(|field| field.starts_with("breaker:"))
        .collect()
}

async fn unread(redis: &mut MultiplexedConnection) -> usize {
    let info: redis::streams::StreamInfoGroupsReply = redis::cmd("XINFO")
        .arg("GROUPS")
        .arg("jobs")
        .query_async(redis)
        .await
        .unwrap();
    info.groups[0].lag.unwrap_or_default()
}

/// Notes attempts that were released or failed.
#[derive(Clone, Default)]
struct Outcomes(Arc<Mutex<BTreeMap<String, usize>>>);

impl Observer for Outcomes {
    fn settled(&self, settled: &streamhand::Settled<'_>) {
        *self
            .0
            .lock()
            .unwrap()
            .entry(format!("{:?}", settled.outcome))
            .or_default() += 1;
    }
}

on_both_servers! {
    /// Many more than are parked: they stay unread. Nobody calls the service meanwhile, and nothing is sent to Redis
    /// for the entries.
    async fn while_it_is_open_nothing_is_called_and_entries_stay_where_they_are(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, Charged::TYPE, 20_000).await;
        let payments = Payments::down();
        let proxy = Proxy::start(server.port()).await;
        let setup = Setup::at(proxy.url()).worker("lease = \"30s\"").worker("concurrency = 4");
        let setup = with_breaker(setup, "{ failures = 3, open_for = \"6s\" }");
        let outcomes = Outcomes::default();
        let worker = setup.start_observed(payments.registry(&Arc::default()), outcomes.clone());
        eventually(PATIENCE, "the breaker to open", async || payments.calls() >= 3).await;
        let opened = Instant::now();
        eventually(PATIENCE, "what came before to be put back", async || {
            parked(&mut redis).await > 0 && opened.elapsed() > Duration::from_millis(500)
        })
        .await;
        // What was called when the breaker opened had been let through before: with four at once that is three more.
        let (calls, requests) = (payments.calls(), proxy.traffic().requests());
        assert!((3..=6).contains(&calls), "{calls} calls");
        eventually(PATIENCE, "some seconds to pass", async || opened.elapsed() > Duration::from_millis(4_500)).await;
        assert_eq!(payments.calls(), calls, "called while it was open");
        let sent = proxy.traffic().requests() - requests;
        assert!(sent < 20, "{sent} requests in four seconds");
        let (unread, parked) = (unread(&mut redis).await, parked(&mut redis).await);
        println!("{calls} calls, {parked} parked, {unread} unread, {sent} requests in four seconds");
        assert!(unread > 19_000, "{unread} unread, {parked} parked");

        payments.up();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(payments.calls(), 20_000 + calls);
        // The failed calls were attempts; nothing else was.
        let attempts = payments.attempts.lock().unwrap().clone();
        let second: usize = attempts.iter().filter(|attempt| **attempt == 2).count();
        assert_eq!(attempts.iter().filter(|attempt| **attempt > 2).count(), 0);
        assert_eq!(second, calls);
        assert_eq!(dead(&mut redis).await, 0);
        worker.stop().await;
    }

    async fn half_open_lets_just_the_probes_through(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, Charged::TYPE, 500).await;
        // Slow, so that more could be under way before the first of them fails.
        let payments = Payments { takes: Duration::from_millis(150), ..Payments::down() };
        let setup = Setup::new(&server).worker("concurrency = 16").retry("max_attempts = 50");
        let setup = with_breaker(setup, "{ failures = 2, open_for = \"1s\", probes = 2 }");
        let worker = setup.start_with(payments.registry(&Arc::default()));
        eventually(PATIENCE, "the breaker to have opened five times", async || {
            let at = payments.at.lock().unwrap();
            at.last().is_some_and(|last| *last - at[0] > Duration::from_secs(5))
        })
        .await;
        // Calls come in groups a second apart; all groups but the first are of probes.
        let at = payments.at.lock().unwrap().clone();
        let mut groups = vec![1];
        for pair in at.windows(2) {
            if pair[1] - pair[0] > Duration::from_millis(500) {
                groups.push(0);
            }
            *groups.last_mut().unwrap() += 1;
        }
        println!("calls: {groups:?}");
        assert!(groups.len() >= 5, "{groups:?}");
        assert!(groups[1..].iter().all(|probes| (1..=2).contains(probes)), "{groups:?}");
        payments.up();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(dead(&mut redis).await, 0);
        worker.stop().await;
    }

    /// What shares a stream with the handler whose breaker is open is handled all the same, behind hundreds of that
    /// handler's entries.
    async fn other_handlers_of_the_stream_go_on(server: Server) {
        let mut redis = server.connect().await;
        let (payments, sent) = (Payments::down(), Arc::<AtomicUsize>::default());
        let setup = with_breaker(Setup::new(&server), "{ failures = 2, open_for = \"20s\" }");
        publish(&mut redis, "mail.sent", 1).await;
        let worker = setup.start_with(payments.registry(&sent));
        eventually(PATIENCE, "it to be seen", async || sent.load(Ordering::SeqCst) == 1).await;
        publish(&mut redis, Charged::TYPE, 700).await;
        publish(&mut redis, "mail.sent", 100).await;
        let since = Instant::now();
        eventually(PATIENCE, "the others to be handled", async || sent.load(Ordering::SeqCst) == 101).await;
        assert!(since.elapsed() < Duration::from_secs(15), "they waited {:?}", since.elapsed());
        // Where there is nothing of the others behind them, they stay where they are, but for what was on its way.
        publish(&mut redis, Charged::TYPE, 3_000).await;
        let since = Instant::now();
        eventually(PATIENCE, "two seconds to pass", async || since.elapsed() > Duration::from_secs(2)).await;
        let parked = parked(&mut redis).await;
        assert!(parked <= 700 + 1_000, "{parked} parked");
        assert!(payments.calls() < 70, "{} calls", payments.calls());
        payments.up();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(dead(&mut redis).await, 0);
        worker.stop().await;
    }

    async fn a_permanent_failure_and_one_that_comes_back_later_say_nothing_of_the_service(server: Server) {
        let mut redis = server.connect().await;
        let calls = Arc::<AtomicUsize>::default();
        let counted = calls.clone();
        let registry = Registry::new().on_raw(Charged::TYPE, move |event, _| {
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                match event.field("id") {
                    Some("0") if nth < 10 => Err(Failure::later(Duration::from_millis(1), "not yet")),
                    Some("0") => Ok(()),
                    Some("1") => Err(Failure::retry("no such card").uncounted()),
                    _ => Err(Failure::permanent("no card")),
                }
            }
        });
        let setup = Setup::new(&server).retry("max_attempts = 1");
        let worker = with_breaker(setup, "{ failures = 1, open_for = \"60s\" }").start_with(registry);
        publish(&mut redis, Charged::TYPE, 20).await;
        settled(&mut redis, "jobs", Duration::from_secs(20)).await;
        assert_eq!(dead(&mut redis).await, 19);
        worker.stop().await;
    }

    async fn it_opens_by_the_rate_of_failures_too_and_timeouts_count(server: Server) {
        let mut redis = server.connect().await;
        let calls = Arc::<AtomicUsize>::default();
        let counted = calls.clone();
        let registry = Registry::new().on_raw(Charged::TYPE, move |_, _| {
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                if nth % 2 == 0 {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        let setup = Setup::new(&server)
            .worker("concurrency = 1")
            .defaults("timeout = \"20ms\"")
            .defaults("grace = \"0s\"");
        let breaker = "{ failures = 0, failure_rate = 0.4, minimum = 20, open_for = \"60s\" }";
        let worker = with_breaker(setup, breaker).start_with(registry);
        publish(&mut redis, Charged::TYPE, 200).await;
        eventually(PATIENCE, "twenty calls", async || calls.load(Ordering::SeqCst) >= 20).await;
        let since = Instant::now();
        eventually(PATIENCE, "a second to pass", async || since.elapsed() > Duration::from_secs(1)).await;
        assert!((20..=21).contains(&calls.load(Ordering::SeqCst)), "{} calls", calls.load(Ordering::SeqCst));
        worker.stop().await;
    }

    /// Called from two handlers, it has one state; what meets it open has not used up an attempt.
    async fn a_breaker_within_handlers_is_one_for_all_of_them_and_costs_no_attempt(server: Server) {
        let mut redis = server.connect().await;
        let payments = Payments::down();
        let handler = || {
            let payments = payments.clone();
            move |_, ctx: Context| {
                let payments = payments.clone();
                async move {
                    let call = async { payments.call(&ctx) };
                    ctx.breaker("payments").call(call).await?;
                    Ok(())
                }
            }
        };
        let registry = Registry::new().on_raw("card.charged", handler()).on_raw("card.refunded", handler());
        let setup = Setup::new(&server)
            .worker("concurrency = 1")
            .retry("max_attempts = 2")
            .more("[breakers.payments]\nfailures = 3\nopen_for = \"2s\"");
        publish(&mut redis, "card.charged", 2).await;
        publish(&mut redis, "card.refunded", 2_500).await;
        let worker = setup.start_with(registry);
        eventually(PATIENCE, "it to open", async || payments.calls() >= 3).await;
        let since = Instant::now();
        eventually(PATIENCE, "a second to pass", async || since.elapsed() > Duration::from_millis(1_200)).await;
        assert_eq!(payments.calls(), 3);
        let parked = parked(&mut redis).await;
        assert!(parked <= 2_100, "{parked} parked");
        payments.up();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(dead(&mut redis).await, 0);
        let attempts = payments.attempts.lock().unwrap().clone();
        assert_eq!(attempts.iter().filter(|attempt| **attempt > 1).count(), 3, "only the failures were attempts");
        worker.stop().await;
    }

    /// A half-open breaker that nobody called for a while: how long that was says nothing of how long the next ones
    /// have to wait.
    async fn what_meets_a_half_open_breaker_after_a_calm_waits_no_longer_than_it_opens_for(server: Server) {
        const CALM: Duration = Duration::from_secs(6);
        let mut redis = server.connect().await;
        let payments = Payments { takes: Duration::from_millis(300), ..Payments::down() };
        let service = payments.clone();
        let registry = Registry::new().on_raw(Charged::TYPE, move |_, ctx: Context| {
            let payments = service.clone();
            async move {
                let call = async {
                    let answer = payments.call(&ctx);
                    tokio::time::sleep(payments.takes).await;
                    answer
                };
                Ok(ctx.breaker("payments").call(call).await?)
            }
        });
        let setup = Setup::new(&server).more("[breakers.payments]\nfailures = 1\nopen_for = \"500ms\"\nprobes = 2");
        let worker = setup.start_with(registry);
        publish(&mut redis, Charged::TYPE, 1).await;
        eventually(PATIENCE, "it to open", async || payments.calls() == 1).await;
        payments.up();
        settled(&mut redis, "jobs", PATIENCE).await;
        // One probe of two has succeeded: it stays half-open.
        let calm = Instant::now();
        eventually(PATIENCE, "a calm", async || calm.elapsed() > CALM).await;
        let before = payments.calls();
        publish(&mut redis, Charged::TYPE, 2).await;
        let since = Instant::now();
        settled(&mut redis, "jobs", PATIENCE).await;
        let took = since.elapsed();
        assert_eq!(payments.calls(), before + 2);
        assert!(took < CALM - Duration::from_secs(1), "they took {took:?}");
        worker.stop().await;
    }

    /// Each worker that starts while it is open begins so, and spends no attempt; one that starts when its time has
    /// passed sends a probe, and no more.
    async fn a_worker_that_starts_again_begins_with_what_was_open(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, Charged::TYPE, 100).await;
        let payments = Payments { takes: Duration::from_millis(100), ..Payments::down() };
        let setup = Setup::new(&server).worker("concurrency = 2").retry("max_attempts = 3");
        let setup = with_breaker(setup, "{ failures = 2, open_for = \"3s\" }");
        let mut opened = Instant::now();
        for restart in 0..4 {
            let before = payments.calls();
            let worker = setup.start_with(payments.registry(&Arc::default()));
            if restart == 0 {
                eventually(PATIENCE, "it to open", async || known(&mut redis).await.len() == 1).await;
                opened = Instant::now();
            } else {
                let since = Instant::now();
                eventually(PATIENCE, "it to work a while", async || since.elapsed() > Duration::from_millis(400)).await;
                let is_open = opened.elapsed() < Duration::from_secs(3);
                assert!(!is_open || payments.calls() == before, "{} calls after restart {restart}", payments.calls() - before);
            }
            worker.stop().await;
        }
        eventually(PATIENCE, "its time to pass", async || opened.elapsed() > Duration::from_millis(3_200)).await;
        let before = payments.calls();
        let worker = setup.start_with(payments.registry(&Arc::default()));
        eventually(PATIENCE, "a probe", async || payments.calls() > before).await;
        let since = Instant::now();
        eventually(PATIENCE, "time for more", async || since.elapsed() > Duration::from_millis(900)).await;
        assert_eq!(payments.calls(), before + 1);
        payments.up();
        settled(&mut redis, "jobs", PATIENCE).await;
        eventually(PATIENCE, "the group to know that it is closed", async || known(&mut redis).await.is_empty()).await;
        assert_eq!(dead(&mut redis).await, 0);
        worker.stop().await;
    }

    async fn where_it_is_the_groups_all_stop_and_one_of_them_probes(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, Charged::TYPE, 300).await;
        let payments = Payments { takes: Duration::from_millis(100), ..Payments::down() };
        let setup = Setup::new(&server).worker("concurrency = 2").retry("max_attempts = 50");
        let setup = with_breaker(setup, "{ failures = 3, open_for = \"2s\", scope = \"group\" }");
        let fleet: Vec<_> = (0..3).map(|_| setup.start_with(payments.registry(&Arc::default()))).collect();
        eventually(PATIENCE, "it to have opened four times", async || {
            let at = payments.at.lock().unwrap();
            at.last().is_some_and(|last| *last - at[0] > Duration::from_secs(7))
        })
        .await;
        let at = payments.at.lock().unwrap().clone();
        let mut groups = vec![1];
        for pair in at.windows(2) {
            if pair[1] - pair[0] > Duration::from_millis(1_200) {
                groups.push(0);
            }
            *groups.last_mut().unwrap() += 1;
        }
        println!("calls: {groups:?}");
        assert!(groups.len() >= 3 && groups[1..].iter().all(|probes| *probes == 1), "{groups:?}");
        payments.up();
        let since = Instant::now();
        settled(&mut redis, "jobs", PATIENCE).await;
        println!("all handled {:?} after it was up", since.elapsed());
        assert_eq!(dead(&mut redis).await, 0);
        assert!(known(&mut redis).await.is_empty());
        for worker in fleet {
            worker.stop().await;
        }
    }

    async fn where_it_is_the_groups_it_probes_and_closes_for_a_topic_too(server: Server) {
        let mut redis = server.connect().await;
        let streams = ["{jobs:0}", "{jobs:1}"];
        for stream in streams {
            add(&mut redis, stream, &fields(&[("type", Charged::TYPE)])).await;
        }
        let payments = Payments::down();
        let setup = Setup::new(&server).stream("partitions = 2").retry("max_attempts = 50");
        let setup = with_breaker(setup, "{ failures = 1, open_for = \"1s\", scope = \"group\" }");
        let worker = setup.start_with(payments.registry(&Arc::default()));
        eventually(PATIENCE, "it to have opened", async || !payments.at.lock().unwrap().is_empty()).await;
        payments.up();
        for stream in streams {
            settled(&mut redis, stream, PATIENCE).await;
        }
        worker.stop().await;
    }

    async fn its_state_is_seen_in_status_and_gone_with_its_worker(kind: Kind) {
        // The worker's clock is an hour behind the server's.
        let clock = Clock::new();
        clock.ahead(Duration::from_secs(60 * 60));
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        let payments = Payments::down();
        let setup = Setup::new(&server);
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n");
        let worker = with_breaker(setup, "{ failures = 1, open_for = \"60s\" }").start_with(payments.registry(&Arc::default()));
        add(&mut redis, "jobs", &fields(&[("type", Charged::TYPE)])).await;
        let status = async || cli.run(&["status", "--json"]).await.json()["streams"][0]["circuit_breakers"].clone();
        let breakers = eventually(PATIENCE, "status to show it", async || {
            let breakers = status().await;
            (breakers[0]["state"] == "open").then_some(breakers)
        })
        .await;
        assert_eq!((&breakers[0]["name"], &breakers[0]["opened"]), (&Charged::TYPE.into(), &1.into()));
        let text = cli.run(&["status"]).await.ok();
        let left = text.split("circuit breaker card.charged is open for another ").nth(1);
        assert!(left.is_some_and(|left| left.split(' ').next().unwrap().ends_with('s')), "{text}");
        worker.stop().await;
        assert_eq!(status().await, serde_json::json!([]));
        // What the group knows of it outlives the worker.
        assert_eq!(known(&mut redis).await, ["breaker:handler:card.charged"]);
    }

    /// The worker has seen nothing but that handler's entries since it started.
    async fn others_behind_an_open_breakers_entries_come_at_once(server: Server) {
        let mut redis = server.connect().await;
        let (payments, sent) = (Payments::down(), Arc::<AtomicUsize>::default());
        let setup = with_breaker(Setup::new(&server), "{ failures = 2, open_for = \"20s\" }");
        publish(&mut redis, Charged::TYPE, 300).await;
        publish(&mut redis, "mail.sent", 5).await;
        let since = Instant::now();
        let worker = setup.start_with(payments.registry(&sent));
        eventually(PATIENCE, "the others to be handled", async || sent.load(Ordering::SeqCst) == 5).await;
        assert!(since.elapsed() < Duration::from_secs(6), "they waited {:?}", since.elapsed());
        worker.stop().await;
    }
}
