//! An entry belongs to one worker at a time: as long as its lease is renewed, and no longer.

use std::time::{Duration, Instant};

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Exchange, Proxy, Server, Setup, entries, eventually, pending, settled};

const LEASE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    /// Among the entries of the killed worker are some that run, some that wait their turn, and some that had been
    /// delivered often, but released.
    async fn what_a_killed_worker_held_runs_elsewhere_within_a_lease_and_a_second(server: Server) {
        let mut redis = server.connect().await;
        let mut victim = Setup::new(&server).worker("concurrency = 4").process();
        victim.wait_for_log("the group is new", PATIENCE).await;
        let mut long = many("given-back", 2, &Action::LaterThenTake(3, 60_000));
        let mut ids = jobs::publish(&mut redis, "jobs", &long).await;
        eventually(PATIENCE, "the victim to run them", async || jobs::started(&mut redis).await.len() == 8).await;
        // Fast ones first: the worker learns to read ahead, and then holds what it can't start.
        jobs::publish(&mut redis, "jobs", &many("fast", 4_000, &Action::Nothing)).await;
        long.extend(many("long", 40, &Action::Take(60_000)));
        ids.extend(jobs::publish(&mut redis, "jobs", &long[2..]).await);
        eventually(PATIENCE, "the victim to run four and hold more", async || {
            let held: u64 = pending(&mut redis, "jobs").await.iter().map(|(_, count)| count).sum();
            jobs::started(&mut redis).await.len() == 10 && held > 10
        })
        .await;
        let mut heir = Setup::new(&server).process();
        heir.wait_for_log("worker starts", PATIENCE).await;
        // An heir takes over only after its own renewals have been answered for a lease.
        eventually(PATIENCE, "the heir to read", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
            // The victim has no room to read: whoever waits for entries is the heir.
            clients.lines().any(|client| client.contains("cmd=xreadgroup") && client.contains("flags=b"))
        })
        .await;
        let there = Instant::now();
        eventually(PATIENCE, "a lease to pass", async || there.elapsed() > LEASE).await;

        let of_victim = format!("-{}-", victim.pid());
        let held: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING").arg("jobs").arg("workers")
            .arg("-").arg("+").arg(1_000).query_async(&mut redis).await.unwrap();
        let held: Vec<&Job> = held.iter().filter(|(_, consumer, ..)| consumer.contains(&of_victim))
            .filter_map(|(id, ..)| Some(&long[ids.iter().position(|known| known == id)?]))
            .collect();
        assert!(held.len() > 10, "{} held", held.len());
        victim.kill();
        let killed = jobs::now_ms();
        let limit = LEASE + Duration::from_secs(1);
        eventually(PATIENCE, "the heir to run them all", async || {
            jobs::started(&mut redis).await.len() == long.len() + 10
        })
        .await;
        let elsewhere = jobs::started(&mut redis).await.split_off(10);
        for job in held {
            let trace = elsewhere.iter().find(|trace| trace.id == job.id).unwrap();
            let after = Duration::from_millis(trace.at.saturating_sub(killed));
            assert!(after <= limit, "{} ran elsewhere after {after:?}", trace.id);
            assert_eq!((trace.attempt, trace.pid), (2, heir.pid()), "{trace:?}");
        }
    }

    async fn a_handler_that_runs_for_ten_leases_runs_once_with_idle_workers_around(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"500ms\"");
        let _idle = [setup.start(), setup.start()];
        let worker = setup.start();
        jobs::publish(&mut redis, "jobs", &[Job::new("long", Action::Take(5_000))]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::starts_of(&mut redis, "long").await, 1);
        assert_eq!(jobs::handled(&mut redis).await["long"], 1);
        worker.stop().await;
    }

    /// It computes, too, so that nothing on its thread can renew anything meanwhile.
    async fn a_handler_that_runs_for_ten_leases_runs_once_with_a_thousand_entries_behind_it(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).worker("lease = \"500ms\"").worker("concurrency = 1");
        let mut worker = setup.process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        let mut all = vec![Job::new("long", Action::Compute(5_000))];
        all.extend(many("behind", 1000, &Action::Succeed));
        jobs::publish(&mut redis, "jobs", &all).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let twice: Vec<_> = jobs::handled(&mut redis).await.into_iter().filter(|(_, times)| *times != 1).collect();
        assert!(twice.is_empty(), "not handled once: {twice:?}");
        assert_eq!(jobs::started(&mut redis).await.len(), all.len());
    }

    /// The woken worker's handlers end in every way there is; all of it is the other worker's now.
    async fn a_worker_frozen_past_its_lease_does_nothing_to_what_others_took_over(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server).retry("max_attempts = 4");
        let mut frozen = setup.process();
        frozen.wait_for_log("the group is new", PATIENCE).await;
        let mut held = vec![
            Job::new("told", Action::UntilTold),
            Job::new("parks", Action::TakeThenFail(1_500)),
            Job::new("buries", Action::TakeThenFailForGood(1_500)),
            // Handled by the time the worker is woken.
            Job::new("short-parks", Action::TakeThenFail(1_500)),
            Job::new("short-buries", Action::TakeThenFailForGood(1_500)),
            Job::new("settled-by-hand", Action::TakeThenFailForGood(1_500)),
        ];
        let ids = jobs::publish(&mut redis, "jobs", &held).await;
        eventually(PATIENCE, "the worker to run them", async || jobs::started(&mut redis).await.len() == 6).await;
        // It leaves no trace there, for it waits for nothing, and is frozen in the middle.
        held.push(Job::new("computes", Action::ComputeQuietlyThenFail(1_500)));
        jobs::publish(&mut redis, "jobs", &held[6..]).await;
        eventually(PATIENCE, "the worker to have it", async || pending(&mut redis, "jobs").await[0].1 == 7).await;
        let since = Instant::now();
        eventually(PATIENCE, "it to run for a while", async || since.elapsed() > Duration::from_millis(100)).await;
        frozen.freeze();
        let _: i64 = redis::cmd("XACK").arg("jobs").arg("workers").arg(&ids[5]).query_async(&mut redis).await.unwrap();

        // The other worker holds most of what it took over for the rest of the test.
        let heir = setup.start_with(jobs::holding_registry());
        let starts = 2 * held.len() - 2;
        eventually(PATIENCE, "the other worker to run them all", async || {
            jobs::started(&mut redis).await.len() == starts && jobs::ended(&mut redis).await.len() == 2
        })
        .await;
        eventually(PATIENCE, "the short ones to be acknowledged", async || {
            pending(&mut redis, "jobs").await.iter().map(|(_, count)| count).sum::<u64>() == 4
        })
        .await;
        let before = pending(&mut redis, "jobs").await;

        frozen.thaw();
        let told = eventually(PATIENCE, "the woken worker's handler to be told", async || {
            jobs::ended(&mut redis).await.into_iter().find(|trace| trace.id == "told")
        })
        .await;
        assert_eq!((told.told.as_str(), told.pid), ("LeaseLost", frozen.pid()));
        frozen.wait_for_log("another worker has taken it over", PATIENCE).await;
        // Two rounds of renewals later it has had every chance to do harm.
        frozen.wait_for_log("taken over by another worker", PATIENCE).await;
        let woken = Instant::now();
        eventually(PATIENCE, "a lease to pass", async || woken.elapsed() > LEASE).await;
        assert_eq!(pending(&mut redis, "jobs").await, before);
        let parked: u64 = redis::cmd("ZCARD").arg("{jobs}:workers:retry").query_async(&mut redis).await.unwrap();
        let dead: u64 = redis::cmd("XLEN").arg("{jobs}:workers:dead").query_async(&mut redis).await.unwrap();
        assert_eq!((parked, dead), (0, 0));
        assert_eq!(jobs::started(&mut redis).await.len(), starts);
        let log = frozen.log();
        assert!(!log.contains("failed: ") && !log.contains("to the dead letters"), "reported as its own:\n{log}");
        drop(heir);
    }

    /// The woken worker's success makes it nobody's while it runs here, and a stop cuts that run off: it has succeeded, and does
    /// not come again. Of what was acknowledged by hand nothing is known: it comes back with its attempt. Neither is a dead
    /// letter.
    async fn what_a_late_success_settles_is_not_buried_by_whoever_took_it_over(server: Server) {
        let mut redis = server.connect().await;
        let mut frozen = Setup::new(&server).process();
        frozen.wait_for_log("the group is new", PATIENCE).await;
        let all = [Job::new("late", Action::SleepQuietly(1_500)), Job::new("by-hand", Action::UntilTold)];
        let ids = jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "the worker to run them", async || jobs::started(&mut redis).await.len() == 1).await;
        frozen.freeze();
        let heir = Setup::new(&server).worker("drain = \"300ms\"").start_with(jobs::holding_registry());
        eventually(PATIENCE, "the other worker to run them", async || jobs::started(&mut redis).await.len() == 3).await;
        frozen.thaw();
        eventually(PATIENCE, "the late one to be acknowledged", async || {
            pending(&mut redis, "jobs").await.iter().map(|(_, count)| count).sum::<u64>() == 1
        })
        .await;
        // It must not take what comes back.
        frozen.kill();
        let _: i64 = redis::cmd("XACK").arg("jobs").arg("workers").arg(&ids[1]).query_async(&mut redis).await.unwrap();
        let stopped = heir.stop().await;
        assert_eq!(stopped.unsettled, 0);
        assert_eq!(entries(&mut redis, "{jobs}:workers:dead").await, []);
        let third = Setup::new(&server).start_with(jobs::holding_registry());
        eventually(PATIENCE, "the other one to come back", async || jobs::started(&mut redis).await.len() == 4).await;
        let again = jobs::started(&mut redis).await.pop().unwrap();
        assert_eq!((&again.id[..], again.attempt), ("by-hand", 2));
        assert_eq!(pending(&mut redis, "jobs").await.iter().map(|(_, count)| count).sum::<u64>(), 1);
        drop(third);
    }

    /// It was sent under a lease, and done after another worker had taken the entry over. Whoever sent it sees that when the
    /// answer comes, and tells the other, which a stop then cuts off.
    async fn what_is_acknowledged_behind_a_takeover_does_not_come_again(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let mut late = Setup::at(proxy.url()).worker("lease = \"1s\"").process();
        late.wait_for_log("the group is new", PATIENCE).await;
        let ack = proxy.hold_request(Exchange::of("XACK"));
        jobs::publish(&mut redis, "jobs", &[Job::new("late", Action::SleepQuietly(100))]).await;
        let ack = ack.within(PATIENCE).await;
        late.freeze();
        let heir = Setup::new(&server).worker("lease = \"1s\"").worker("drain = \"300ms\"").start_with(jobs::holding_registry());
        eventually(PATIENCE, "the other worker to run it", async || jobs::started(&mut redis).await.len() == 1).await;
        ack.now();
        eventually(PATIENCE, "it to be acknowledged", async || pending(&mut redis, "jobs").await.is_empty()).await;
        late.thaw();
        eventually(PATIENCE, "it to be told", async || {
            let guards: usize = redis::cmd("ZCARD").arg("{jobs}:workers:guards").query_async(&mut redis).await.unwrap();
            guards == 1
        })
        .await;
        assert_eq!(heir.stop().await.unsettled, 0);
        assert_eq!(entries(&mut redis, "{jobs}:workers:dead").await, []);
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::started(&mut redis).await.len(), 1);
    }

    /// What it held and had not begun is the other worker's as well.
    async fn a_worker_frozen_past_its_lease_begins_nothing_that_others_took_over(server: Server) {
        let mut redis = server.connect().await;
        let mut frozen = Setup::new(&server).worker("concurrency = 1").process();
        frozen.wait_for_log("the group is new", PATIENCE).await;
        // Fast ones first: the worker learns to read ahead, and then holds what it can't start.
        jobs::publish(&mut redis, "jobs", &many("fast", 2_000, &Action::Nothing)).await;
        let slow = jobs::publish(&mut redis, "jobs", &[Job::new("slow", Action::SleepQuietly(1_500))]).await;
        let behind = many("behind", 100, &Action::Succeed);
        jobs::publish(&mut redis, "jobs", &behind).await;
        eventually(PATIENCE, "the worker to run the slow one and to hold more", async || {
            let held: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING").arg("jobs").arg("workers")
                .arg("-").arg("+").arg(200).query_async(&mut redis).await.unwrap();
            held.len() > 10 && held[0].0 == slow[0]
        })
        .await;
        frozen.freeze();
        assert_eq!(jobs::started(&mut redis).await.len(), 0);
        let heir = Setup::new(&server).worker("concurrency = 200").start_with(jobs::holding_registry());
        eventually(PATIENCE, "the other worker to take all of it over", async || {
            jobs::started(&mut redis).await.len() == 1 + behind.len()
        })
        .await;
        frozen.thaw();
        frozen.wait_for_log("taken over by another worker", PATIENCE).await;
        let woken = Instant::now();
        eventually(PATIENCE, "half a lease to pass", async || woken.elapsed() > LEASE / 2).await;
        let begun = jobs::started(&mut redis).await.into_iter().filter(|trace| trace.pid == frozen.pid()).count();
        assert_eq!(begun, 0, "the woken worker began what was not its own");
        drop(heir);
    }

    /// It ages every entry past its lease, and who is back first finds those of the others unrenewed.
    async fn an_outage_of_redis_takes_no_work_away_from_workers_that_are_alive(server: Server) {
        let mut redis = server.connect().await;
        let proxies = [Proxy::start(server.port()).await, Proxy::start(server.port()).await];
        // Each has room for the other's as well.
        let _workers = proxies.each_ref().map(|proxy| Setup::at(proxy.url()).worker("lease = \"1s\"").process());
        eventually(PATIENCE, "both to wait for entries", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
            let waits = |client: &&str| client.contains("cmd=xreadgroup") && client.contains("flags=b");
            clients.lines().filter(waits).count() == 2
        })
        .await;
        let all = many("job", 14, &Action::Take(4_000));
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "both to run some", async || {
            jobs::started(&mut redis).await.len() == all.len() && pending(&mut redis, "jobs").await.len() == 2
        })
        .await;
        // Both would take over by now.
        let passed = async |time: Duration| {
            let since = Instant::now();
            eventually(PATIENCE, "time to pass", async || since.elapsed() >= time).await;
        };
        passed(Duration::from_millis(1_200)).await;
        proxies.iter().for_each(Proxy::pause_replies);
        passed(Duration::from_millis(1_500)).await;
        let reads = || proxies[0].traffic().commands["XREADGROUP"];
        let before = reads();
        proxies[0].resume_replies();
        eventually(PATIENCE, "the first to look around and to read", async || reads() > before).await;
        proxies[1].resume_replies();
        settled(&mut redis, "jobs", PATIENCE).await;
        let handled = jobs::handled(&mut redis).await;
        assert!(handled.len() == all.len() && handled.values().all(|times| *times == 1), "{handled:?}");
        assert_eq!(jobs::started(&mut redis).await.len(), all.len(), "none ran twice");
    }

    /// Its acknowledgement was done before a renewal that names it still: the answers to both are on their way.
    async fn what_ends_while_it_is_renewed_is_not_told_to_be_lost(server: Server) {
        let mut redis = server.connect().await;
        let proxy = Proxy::start(server.port()).await;
        let mut worker = Setup::at(proxy.url()).process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        // By then it has all the connections it needs.
        jobs::publish(&mut redis, "jobs", &many("first", 4, &Action::SleepQuietly(1))).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let mut crossed = 0;
        for round in 0..12 {
            jobs::publish(&mut redis, "jobs", &many(&round.to_string(), 4, &Action::SleepQuietly(300))).await;
            eventually(PATIENCE, "them to be read", async || !pending(&mut redis, "jobs").await.is_empty()).await;
            let since = Instant::now();
            eventually(PATIENCE, "them to have come", async || since.elapsed() > Duration::from_millis(50)).await;
            proxy.pause_replies();
            // Where they had not come, they are not handled now.
            eventually(PATIENCE, "them to be acknowledged", async || {
                pending(&mut redis, "jobs").await.is_empty() || since.elapsed() > LEASE / 2
            })
            .await;
            crossed += u32::from(pending(&mut redis, "jobs").await.is_empty());
            let since = Instant::now();
            eventually(PATIENCE, "a renewal to be asked for", async || since.elapsed() > LEASE / 3).await;
            proxy.resume_replies();
            settled(&mut redis, "jobs", PATIENCE).await;
            if crossed == 5 {
                break;
            }
        }
        assert_eq!(crossed, 5);
        worker.terminate();
        worker.wait(PATIENCE).await;
        let log = worker.log();
        assert!(!log.contains("no longer pending"), "{log}");
    }
}
