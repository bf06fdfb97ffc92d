//! Where entries come often and handlers are quick, the workers of a fleet wait for entries in turns; none of that is
//! left to one that does not answer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamhand::{Context, Event, Failure, Registry};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep_until};

use crate::support::{Proxy, Server, Setup, eventually, publisher, settled};

const PATIENCE: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ticked {}

impl Event for Ticked {
    const TYPE: &'static str = "test.ticked";
}

/// Which worker handled each entry, and when.
#[derive(Clone, Default)]
struct Handled(Arc<Mutex<Vec<(usize, Instant)>>>);

impl Handled {
    fn by(&self, worker: usize) -> Registry {
        let handled = self.clone();
        Registry::new().on(move |_: Ticked, _ctx: Context| {
            let handled = handled.clone();
            async move {
                handled.0.lock().unwrap().push((worker, Instant::now()));
                Ok::<(), Failure>(())
            }
        })
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// How many each of so many workers has handled since then.
    fn since(&self, since: Instant, workers: usize) -> Vec<usize> {
        let mut each = vec![0; workers];
        let all = self.0.lock().unwrap();
        let late = all.iter().rev().take_while(|(_, at)| *at >= since);
        late.for_each(|(worker, _)| each[*worker] += 1);
        each
    }
}

/// Publishes about 8,000 events a second until it is told to stop. Answers how many.
fn publishing(server: &Server, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    let publisher = publisher(&server.url());
    tokio::spawn(async move {
        let (mut tick, mut published) = (interval(MS), 0);
        while !stop.load(Ordering::SeqCst) {
            tick.tick().await;
            let some = vec![Ticked {}; 8];
            publisher
                .publish_many("jobs", &some)
                .await
                .expect("published");
            published += some.len();
        }
        published
    })
}

/// Waits until each of so many workers was seen to have nearly everything for a while.
async fn take_turns(handled: &Handled, workers: usize) {
    let alone: Vec<AtomicUsize> = (0..workers).map(|_| AtomicUsize::new(0)).collect();
    eventually(PATIENCE, "each worker to be on duty", async || {
        let each = handled.since(Instant::now() - 200 * MS, workers);
        let all: usize = each.iter().sum();
        if let Some(at) = each
            .iter()
            .position(|mine| all > 100 && mine * 10 > all * 9)
        {
            alone[at].fetch_add(1, Ordering::SeqCst);
        }
        alone.iter().all(|seen| seen.load(Ordering::SeqCst) > 0)
    })
    .await;
}

on_both_servers! {
    async fn workers_take_turns_and_handle_everything_once(server: Server) {
        let mut redis = server.connect().await;
        let (handled, stop) = (Handled::default(), Arc::default());
        let workers: Vec<_> = (0..3).map(|n| Setup::new(&server).start_with(handled.by(n))).collect();
        let publishing = publishing(&server, Arc::clone(&stop));
        take_turns(&handled, 3).await;
        stop.store(true, Ordering::SeqCst);
        let published = publishing.await.unwrap();
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(handled.count(), published);
        for worker in workers {
            worker.stop().await;
        }
    }

    async fn nobody_waits_for_one_whose_turn_it_is_and_who_does_not_answer(server: Server) {
        let proxy = Proxy::start(server.port()).await;
        let (handled, stop) = (Handled::default(), Arc::default());
        let cut_off = Setup::at(proxy.url()).start_with(handled.by(0));
        let others: Vec<_> = (1..3).map(|n| Setup::new(&server).start_with(handled.by(n))).collect();
        let publishing = publishing(&server, Arc::clone(&stop));
        take_turns(&handled, 3).await;
        proxy.pause_replies();
        // Two rounds of turns. Its own make a third of that, in which the others find that something was left.
        let (mut at, mut went_on) = (Instant::now(), 0);
        for _ in 0..30 {
            at += 100 * MS;
            sleep_until(at).await;
            went_on += usize::from(handled.since(at - 100 * MS, 3).iter().sum::<usize>() > 0);
        }
        assert!(went_on >= 26, "in {went_on} of 30 tenths of a second");
        stop.store(true, Ordering::SeqCst);
        let published = publishing.await.unwrap();
        proxy.resume_replies();
        let mut redis = server.connect().await;
        settled(&mut redis, "jobs", PATIENCE).await;
        // What was on its way to the one that was cut off may come to two.
        assert!(handled.count() >= published, "{} of {published}", handled.count());
        for worker in others.into_iter().chain([cut_off]) {
            worker.stop().await;
        }
    }
}
