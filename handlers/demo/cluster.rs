//! `shop demo --cluster`: a topic over the nodes of a cluster, a fleet that works on it, and a node that is killed. What the
//! handlers wrote down outside the cluster says what became of every event.

mod nodes;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use streamhand::cli::{CommandError, PrivateServer, print};
use streamhand::{Publisher, Settings};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::fleet::Fleet;
use super::program::Program;
use super::stage::Stage;
use crate::parcels::{PARCELS, ParcelMoved, STORE, key};
use nodes::Nodes;

const WORKERS: usize = 3;
const PARTITIONS: usize = 12;
/// The steps of a parcel's way.
const STEPS: u64 = 20;
/// From one step of all parcels to the next.
const PACE: Duration = Duration::from_millis(150);
/// For how long an event that was published is known again.
const WINDOW: Duration = Duration::from_secs(600);
/// After so long without any change something is wrong.
const STALLED: Duration = Duration::from_secs(90);
const TICK: Duration = Duration::from_millis(50);
/// The node that is killed.
const VICTIM: usize = 1;

/// What became of the events.
struct Figures {
    published: u64,
    handled: u64,
    again: u64,
    lost: u64,
    /// If events have an order.
    out_of_order: Option<u64>,
}

/// The whole story.
pub async fn story(server: &Path, events: u64) -> Result<(), CommandError> {
    let parcels = events.div_ceil(STEPS);
    let mut stage = Stage::new();
    let base = PrivateServer::start(server).await?;
    let mut nodes = Nodes::start(server, &base).await?;
    stage.say("a cluster of the demo's own runs: three masters, and a replica for each");
    let ordered = config(&nodes, true);
    let (config, is_ordered) = match Settings::from_toml_str(&ordered) {
        Ok(_) => (ordered, true),
        Err(_) => (config(&nodes, false), false),
    };
    let settings = Settings::from_toml_str(&config)?;
    let program = Program::new(&base, &config)?;
    let mut fleet = Fleet::new(program.clone()).with(STORE, base.url());
    for _ in 0..WORKERS {
        fleet.start()?;
    }
    stage.say(format_args!(
        "three workers run, each a process; {PARCELS:?} has {PARTITIONS} partitions{}",
        if is_ordered {
            ", order = \"subject\""
        } else {
            ""
        }
    ));
    let publisher = Publisher::of_settings(&settings)?.source("scanner");
    let (publishing, pauses, step) = publish(publisher, parcels);
    let mut tracked = Tracked::new(&base, parcels).await?;
    let all = parcels * STEPS;
    let mut watching = Watching {
        fleet: &mut fleet,
        stage: &mut stage,
        tracked: &mut tracked,
        all,
    };
    watching.until("a third to be handled", all / 3).await?;

    // Whoever publishes with `replicas = 1` waits for this at each event.
    let pausing = pauses.lock().await;
    nodes.are_replicated().await?;
    let address = nodes.kill(VICTIM)?;
    drop(pausing);
    let killed = Instant::now();
    let at = *step.borrow();
    watching.stage.say(format_args!(
        "SIGKILL for the node {address}, a master, at step {at} of {STEPS}; publishing goes on"
    ));
    let heir = nodes.takes_over_from(VICTIM).await?;
    let after = killed.elapsed().as_secs_f64();
    watching.stage.say(format_args!(
        "its replica {heir} has taken its place, {after:.1} s later"
    ));
    watching.until("every event to be handled", all).await?;
    publishing
        .await
        .map_err(|error| CommandError::failed(error.to_string()))??;
    stage.say("all of them are published and handled");
    stage.clear();
    program.show(&["status"]).await?;
    fleet.disband().await?;
    let figures = tracked.figures(is_ordered).await?;
    print(format_args!(
        "\nWhat the handlers wrote down, outside the cluster:\n\n{figures}"
    ))?;
    figures.check()
}

/// The demo's workers are quicker to take over than any in earnest.
fn config(nodes: &Nodes, is_ordered: bool) -> String {
    let order = if is_ordered {
        "order = \"subject\"\n"
    } else {
        ""
    };
    format!(
        r#"[redis]
mode = "cluster"
nodes = {:?}

[worker]
group = "tracking"
streams = ["{PARCELS}"]
lease = "2s"

[streams.{PARCELS}]
partitions = {PARTITIONS}
{order}
[retry]
max_attempts = 10
backoff = {{ initial = "100ms", factor = 2.0, max = "2s" }}
"#,
        nodes.addresses()
    )
}

type Publishing = (
    JoinHandle<Result<(), CommandError>>,
    Arc<Mutex<()>>,
    watch::Receiver<u64>,
);

/// Publishes, step by step, what happens to all parcels. What can't be published is tried again under its id until it is.
/// Whoever holds the lock holds it up.
fn publish(publisher: Publisher, parcels: u64) -> Publishing {
    let pauses = Arc::new(Mutex::new(()));
    let (tell, step) = watch::channel(0);
    let may = pauses.clone();
    let publishing = tokio::spawn(async move {
        for step in 1..=STEPS {
            let _ = tell.send(step);
            // One after the other would be slow, and all at once would tell nothing of the order they came in.
            let mut lots = tokio::task::JoinSet::new();
            for lot in 0..8 {
                let (publisher, may) = (publisher.clone(), may.clone());
                lots.spawn(async move {
                    for parcel in (0..parcels).filter(|parcel| parcel % 8 == lot) {
                        until_published(&publisher, &may, ParcelMoved { parcel, step }).await?;
                    }
                    Ok::<_, CommandError>(())
                });
            }
            while let Some(done) = lots.join_next().await {
                done.map_err(|error| CommandError::failed(error.to_string()))??;
            }
            sleep(PACE).await;
        }
        Ok(())
    });
    (publishing, pauses, step)
}

async fn until_published(
    publisher: &Publisher,
    may: &Mutex<()>,
    moved: ParcelMoved,
) -> Result<(), CommandError> {
    let event = publisher
        .envelope(&moved)?
        .with("id", format!("{}-{}", moved.parcel, moved.step))
        .with("subject", key(moved.parcel));
    let begin = Instant::now();
    loop {
        drop(may.lock().await);
        let published = publisher.publish_envelope_once(PARCELS, event.clone(), WINDOW);
        match published.await {
            Ok(_) => return Ok(()),
            Err(error) if begin.elapsed() > STALLED => return Err(error.into()),
            // Its node is away: the next one takes over soon.
            Err(_) => sleep(TICK).await,
        }
    }
}

/// What is waited for, and shown meanwhile.
struct Watching<'a> {
    fleet: &'a mut Fleet,
    stage: &'a mut Stage,
    tracked: &'a mut Tracked,
    all: u64,
}

impl Watching<'_> {
    async fn until(&mut self, what: &str, handled: u64) -> Result<(), CommandError> {
        let (mut last, mut changed) = (0, Instant::now());
        loop {
            let said = self.fleet.listen()?;
            let (retried, reclaimed) = (said.retried(), said.reclaimed);
            let now = self.tracked.handled().await?;
            let besides = format!("{retried} retried, {reclaimed} reclaimed");
            self.stage.progress(now, self.all, besides);
            if now >= handled {
                return Ok(());
            }
            if now != last {
                (last, changed) = (now, Instant::now());
            }
            if changed.elapsed() > STALLED {
                return Err(CommandError::failed(format!(
                    "nothing has moved for {STALLED:?} while waiting for {what}"
                )));
            }
            sleep(TICK).await;
        }
    }
}

/// What the handlers wrote down.
struct Tracked {
    store: MultiplexedConnection,
    parcels: u64,
}

impl Tracked {
    async fn new(base: &PrivateServer, parcels: u64) -> Result<Self, CommandError> {
        let client = redis::Client::open(base.url()).map_err(unread)?;
        let store = client.get_multiplexed_async_connection().await;
        Ok(Tracked {
            store: store.map_err(unread)?,
            parcels,
        })
    }

    /// Of each parcel, its steps as they were written down.
    async fn steps(&mut self) -> Result<Vec<Vec<u64>>, CommandError> {
        let mut all = redis::pipe();
        for parcel in 0..self.parcels {
            all.lrange(key(parcel), 0, -1);
        }
        all.query_async(&mut self.store).await.map_err(unread)
    }

    /// How many events have been handled, each once.
    async fn handled(&mut self) -> Result<u64, CommandError> {
        let steps = self.steps().await?;
        Ok(steps.iter().map(|steps| firsts(steps).len() as u64).sum())
    }

    async fn figures(&mut self, is_ordered: bool) -> Result<Figures, CommandError> {
        let steps = self.steps().await?;
        let written: u64 = steps.iter().map(|steps| steps.len() as u64).sum();
        let handled: u64 = steps.iter().map(|steps| firsts(steps).len() as u64).sum();
        let published = self.parcels * STEPS;
        Ok(Figures {
            published,
            handled,
            again: written - handled,
            lost: published - handled,
            out_of_order: is_ordered.then(|| steps.iter().map(|steps| overtakes(steps)).sum()),
        })
    }
}

impl Figures {
    fn check(&self) -> Result<(), CommandError> {
        if self.lost == 0 && self.out_of_order.unwrap_or(0) == 0 {
            return Ok(());
        }
        Err(CommandError::failed("events are lost, or out of order"))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "published {}", self.published)?;
        writeln!(f, "handled {}", self.handled)?;
        writeln!(f, "handled more than once {}", self.again)?;
        write!(f, "lost {}", self.lost)?;
        match self.out_of_order {
            Some(count) => write!(f, "\nout of order {count}"),
            None => Ok(()),
        }
    }
}

/// Each step where it stands first: what a worker that was cut off had handled is handled again.
fn firsts(steps: &[u64]) -> Vec<u64> {
    let mut firsts = Vec::new();
    for step in steps {
        if !firsts.contains(step) {
            firsts.push(*step);
        }
    }
    firsts
}

/// How many steps were first handled after a later one.
fn overtakes(steps: &[u64]) -> u64 {
    let mut highest = 0;
    let mut overtaken = 0;
    for step in firsts(steps) {
        overtaken += u64::from(step < highest);
        highest = highest.max(step);
    }
    overtaken
}

fn unread(error: redis::RedisError) -> CommandError {
    CommandError::failed(format!("can't read what the handlers wrote down: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handled_again_is_not_out_of_order_and_what_is_overtaken_is() {
        assert_eq!(overtakes(&[1, 2, 3, 2, 3, 4]), 0);
        assert_eq!(firsts(&[1, 2, 3, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(overtakes(&[1, 3, 2, 4]), 1);
        assert_eq!(overtakes(&[3, 1, 2]), 2);
    }
}
