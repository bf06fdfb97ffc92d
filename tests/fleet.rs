//! A fleet loses nothing, whatever happens to its workers and to Redis.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, many};
use crate::support::{Kind, Server, Setup, WorkerProcess, dead, entries, pending, settled};

const EVENTS: usize = 20_000;
const WORKERS: usize = 4;
const STORM: Duration = Duration::from_secs(15);
const KILLS: u64 = STORM.as_secs();
const PATIENCE: Duration = Duration::from_secs(60);

on_both_servers! {
    /// Every second a worker is killed and replaced; in the middle Redis itself is killed and restarted.
    async fn it_loses_nothing_when_workers_die_every_second_and_redis_restarts(kind: Kind) {
        let mut server = Server::builder(kind).persistent(true).start().await;
        let setup = Setup::new(&server);
        let all = many("event", EVENTS, &Action::Succeed);
        let mut fleet: Vec<WorkerProcess> = (0..WORKERS).map(|_| setup.process()).collect();
        let mut redis = server.connect().await;
        let begin = Instant::now();
        let (mut published, mut kills) = (Vec::new(), 0);
        // How often an entry was in flight when something was killed.
        let mut in_flight: BTreeMap<String, usize> = BTreeMap::new();
        let mut count = |ids: Vec<String>| ids.into_iter().for_each(|id| *in_flight.entry(id).or_default() += 1);
        let mut restarted = false;
        while published.len() < EVENTS || begin.elapsed() < STORM {
            let due = EVENTS as f64 * begin.elapsed().as_secs_f64() / STORM.as_secs_f64();
            // Nothing is published while the server is down, and an answer that is lost ends the test: nothing is
            // published twice.
            let next = &all[published.len()..EVENTS.min(due as usize)];
            published.extend(jobs::publish(&mut redis, "jobs", next).await);
            if begin.elapsed().as_secs() > kills && kills < KILLS {
                let victim = &mut fleet[kills as usize % WORKERS];
                victim.kill();
                count(with(&mut redis, victim).await);
                *victim = setup.process();
                kills += 1;
            }
            if !restarted && begin.elapsed() > STORM / 2 {
                count(at_a_standstill(&mut redis).await);
                server.restart().await;
                redis = server.connect().await;
                restarted = true;
            }
            tokio::task::yield_now().await;
        }
        assert!(restarted && kills == KILLS, "{kills} kills");
        assert!(begin.elapsed() < STORM + Duration::from_secs(5), "published in {:?}", begin.elapsed());
        settled(&mut redis, "jobs", PATIENCE).await;

        let stored: Vec<String> = entries(&mut redis, "jobs").await.iter().map(|entry| entry.id.to_string()).collect();
        assert!(stored == published, "{} published, {} in the stream", published.len(), stored.len());
        assert_eq!((stored.len(), pending(&mut redis, "jobs").await, dead(&mut redis).await), (EVENTS, vec![], 0));
        let parked: u64 = redis::cmd("ZCARD").arg("{jobs}:workers:retry").query_async(&mut redis).await.unwrap();
        assert_eq!(parked, 0);
        let handled = jobs::handled(&mut redis).await;
        let lost: Vec<_> = jobs::ids(&all).into_iter().filter(|id| !handled.contains_key(id)).collect();
        assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
        let (mut again, mut unasked) = (0, Vec::new());
        for (job, entry) in all.iter().zip(&published) {
            let repeats = handled[&job.id] - 1;
            again += repeats;
            if repeats > in_flight.get(entry).copied().unwrap_or(0) {
                unasked.push(&job.id);
            }
        }
        println!(
            "{kind:?}: {EVENTS} published, {kills} kills, one restart, lost 0, handled more than once {again}, \
             in flight at the faults {}",
            in_flight.values().sum::<usize>()
        );
        assert!(unasked.is_empty(), "handled again without having been in flight: {unasked:?}");
    }
}

/// The ids of what a worker that was just killed held, unsettled.
async fn with(redis: &mut MultiplexedConnection, victim: &WorkerProcess) -> Vec<String> {
    let pid = format!("-{}-", victim.pid());
    let pending: Vec<Pending> = all_that_is_pending().query_async(redis).await.unwrap();
    of(pending, |consumer| consumer.contains(&pid))
}

/// The ids of what all workers hold at a moment after which the server does nothing any more: it takes both commands
/// in one go, and no client's after that.
async fn at_a_standstill(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut pipe = redis::pipe();
    pipe.add_command(all_that_is_pending());
    pipe.cmd("CLIENT")
        .arg("PAUSE")
        .arg(10_000)
        .arg("ALL")
        .ignore();
    let (pending,): (Vec<Pending>,) = pipe.query_async(redis).await.unwrap();
    of(pending, |consumer| consumer != "(parked)")
}

/// Id, consumer, idle time and deliveries.
type Pending = (String, String, u64, u64);

fn all_that_is_pending() -> redis::Cmd {
    let mut command = redis::cmd("XPENDING");
    command
        .arg("jobs")
        .arg("workers")
        .arg("-")
        .arg("+")
        .arg(EVENTS);
    command
}

fn of(pending: Vec<Pending>, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
    let meant = pending
        .into_iter()
        .filter(|(_, consumer, ..)| is_meant(consumer));
    meant.map(|(id, ..)| id).collect()
}
