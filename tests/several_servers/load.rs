//! Publishers that go on whatever happens, and a count of what became of every event.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamhand::{Envelope, Publisher};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::jobs::{Action, Job};

/// Publishers under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    acked: Arc<Mutex<Vec<Acked>>>,
    /// When each of them was last answered, in ms since the start.
    last: Arc<Vec<AtomicU64>>,
    begun: Instant,
}

/// An event that Redis has taken.
#[derive(Clone)]
pub struct Acked {
    pub stream: String,
    pub id: String,
    pub at: Instant,
}

impl Load {
    /// So many tasks, each of which publishes to one of these streams, over and over.
    pub fn start(publisher: &Publisher, streams: &[String], tasks: usize, pause: Duration) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            tasks: JoinSet::new(),
            acked: Arc::default(),
            last: Arc::new((0..tasks).map(|_| AtomicU64::new(0)).collect()),
            begun: Instant::now(),
        };
        for task in 0..tasks {
            let (publisher, stop) = (publisher.clone(), load.stop.clone());
            let (acked, last) = (load.acked.clone(), load.last.clone());
            let (stream, begun) = (streams[task % streams.len()].clone(), load.begun);
            load.tasks.spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    count += 1;
                    let job = Job::new(format!("{task}-{count}"), Action::Succeed);
                    let event: Envelope = publisher.envelope(&job).unwrap();
                    let id = event.id().into_owned();
                    // The same event until it is in.
                    while let Err(error) = publisher.publish_envelope(&stream, event.clone()).await
                    {
                        if std::env::var_os("SHOW").is_some() {
                            eprintln!("{:?} {task}: {error}", begun.elapsed());
                        }
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        sleep(Duration::from_millis(20)).await;
                    }
                    let at = Instant::now();
                    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap();
                    last[task].store(ms, Ordering::Relaxed);
                    let stream = stream.clone();
                    acked.lock().unwrap().push(Acked { stream, id, at });
                    sleep(pause).await;
                }
            });
        }
        load
    }

    /// Whether every task has been answered within the last `span`.
    pub fn all_go_on(&self, span: Duration) -> bool {
        let now = self.begun.elapsed();
        let since =
            |ms: &AtomicU64| now.saturating_sub(Duration::from_millis(ms.load(Ordering::Relaxed)));
        self.last.iter().all(|last| since(last) < span)
    }

    /// Ends it. Everything that was acknowledged.
    pub async fn end(mut self) -> Vec<Acked> {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.acked.lock().unwrap().clone()
    }
}

/// Those that are in none of these entries.
pub fn lost(acked: &[Acked], kept: &HashSet<String>) -> Vec<Acked> {
    let lost = acked.iter().filter(|event| !kept.contains(&event.id));
    lost.cloned().collect()
}
