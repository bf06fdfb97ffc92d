//! A fleet loses nothing, whatever happens to its workers and to Redis.

use std::time::{Duration, Instant};

use crate::support::jobs::{self, Action, many};
use crate::support::{Kind, Server, Setup, WorkerProcess, eventually, pending, settled};

const EVENTS: usize = 20_000;
const WORKERS: usize = 4;
const STORM: Duration = Duration::from_secs(15);
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
        let (mut published, mut kills, mut held_at_kills) = (0, 0, 0);
        let mut restarted = false;
        while published < EVENTS || begin.elapsed() < STORM {
            let due = (EVENTS as f64 * begin.elapsed().as_secs_f64() / STORM.as_secs_f64()) as usize;
            let upto = due.min(EVENTS);
            if upto > published {
                // Only once, even where the answer is lost: the stream tells how far it got.
                published += jobs::publish(&mut redis, "jobs", &all[published..upto]).await.len();
            }
            if begin.elapsed().as_secs() > kills && kills < STORM.as_secs() {
                let victim = kills as usize % WORKERS;
                held_at_kills += in_flight(&mut redis).await;
                fleet[victim].kill();
                fleet[victim] = setup.process();
                kills += 1;
            }
            if !restarted && begin.elapsed() > STORM / 2 {
                held_at_kills += in_flight(&mut redis).await;
                server.restart().await;
                redis = server.connect().await;
                restarted = true;
            }
            tokio::task::yield_now().await;
        }
        assert!(restarted && kills == STORM.as_secs(), "{kills} kills");
        settled(&mut redis, "jobs", PATIENCE).await;
        eventually(PATIENCE, "nothing to be parked", async || {
            let parked: u64 = redis::cmd("ZCARD").arg("{jobs}:workers:retry").query_async(&mut redis).await.unwrap();
            parked == 0
        })
        .await;
        assert_eq!(pending(&mut redis, "jobs").await, []);
        let dead: u64 = redis::cmd("XLEN").arg("{jobs}:workers:dead").query_async(&mut redis).await.unwrap();
        assert_eq!(dead, 0, "dead letters");
        let handled = jobs::handled(&mut redis).await;
        let lost: Vec<_> = jobs::ids(&all).into_iter().filter(|id| !handled.contains_key(id)).collect();
        assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
        let twice: usize = handled.values().map(|times| times - 1).sum();
        println!("{kind:?}: {EVENTS} published, {kills} kills, lost 0, handled more than once {twice}, in flight at the faults {held_at_kills}");
        assert!(twice <= held_at_kills, "{twice} handled again, with {held_at_kills} in flight");
    }
}

/// What all workers together hold, unsettled.
async fn in_flight(redis: &mut redis::aio::MultiplexedConnection) -> usize {
    let held = pending(redis, "jobs").await;
    held.into_iter()
        .filter(|(consumer, _)| consumer != "(parked)")
        .map(|(_, count)| count as usize)
        .sum()
}
