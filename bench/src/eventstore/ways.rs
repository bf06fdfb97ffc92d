//! What takes turns: the store as its users use it, and the least that could be done in its place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Script, Value};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Rate, Updates};
use crate::events::Sample;
use crate::figures::{Percentiles, histogram};
use crate::measure::{own_cpu, refused};
use crate::rig::Rig;
use streamhand::Envelope;
use streamhand::Error;
use streamhand::aggregate_events;
use streamhand::cli::CommandError;
use streamhand::codec::Format;
use streamhand::eventstore::{
    Aggregate, AggregateId, EventKind, EventStore, Expected, PublicStreams, RedisEventStore,
    Repository, UpdateError,
};

/// Over so many aggregates appends are spread.
const SPREAD: u64 = 100;

static BARE: LazyLock<Script> =
    LazyLock::new(|| Script::new("return redis.call('XADD', KEYS[1], '*', unpack(ARGV))"));

aggregate_events! {
    enum Counted { Sample(Sample) }
}

/// The sum of its events.
struct Counter {
    sum: u64,
}

impl Aggregate for Counter {
    const KIND: &'static str = "counter";
    const STREAM: &'static str = "counters";
    type Event = Counted;

    fn initial() -> Self {
        Counter { sum: 0 }
    }

    fn apply(&mut self, event: Counted) {
        let Counted::Sample(sample) = event;
        self.sum = self.sum.wrapping_add(sample.amount());
    }
}

fn store_on(rig: &Rig, stream: &str) -> Result<RedisEventStore, CommandError> {
    Ok(RedisEventStore::new(
        &rig.redis,
        PublicStreams::new(stream)?,
    )?)
}

fn counter(n: u64) -> AggregateId {
    AggregateId::new(Counter::KIND, &format!("c-{n}")).expect("an id")
}

fn sample(n: u64) -> Result<Envelope, Error> {
    EventKind::encode(&Sample::numbered(n), Format::MessagePack)
}

async fn connect(rig: &Rig) -> Result<MultiplexedConnection, CommandError> {
    let timeout = std::time::Duration::from_secs(60);
    Ok(streamhand::unstable::connect(&rig.redis, "streamhand:bench", timeout).await?)
}

/// Runs one task for each that is to be under way at once, and measures until all have ended.
async fn together<F>(
    rig: &mut Rig,
    tasks: impl IntoIterator<Item = F>,
    events: u64,
) -> Result<Rate, CommandError>
where
    F: Future<Output = Result<(), CommandError>> + Send + 'static,
{
    let (begun, client) = (rig.meter.begin().await?, own_cpu());
    let mut running: JoinSet<_> = tasks.into_iter().collect();
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| CommandError::failed(format!("the bench: {error}")))??;
    }
    let client = own_cpu() - client;
    let cost = rig.meter.end(begun).await?;
    Ok(Rate {
        client_us: client.as_secs_f64() * 1e6 / events as f64,
        per_second: events as f64 / cost.wall.as_secs_f64(),
        redis_us: cost.redis_us(events),
    })
}

/// Appends of one event each, encoded before the clock starts, at the version known of the aggregate; the store gives
/// each an id, a time and a subject.
pub(super) async fn append(
    rig: &mut Rig,
    appends: u64,
    at_once: u64,
) -> Result<Rate, CommandError> {
    let stream = rig.stream();
    let store = store_on(rig, &stream)?;
    // The connection stands before the clock starts.
    store.version(&counter(0)).await?;
    let event = sample(appends / 2)?;
    let tasks = (0..at_once).map(|task| {
        let (store, event) = (store.clone(), event.clone());
        async move {
            let mine: Vec<u64> = (0..SPREAD).filter(|n| n % at_once == task).collect();
            let each = appends / SPREAD;
            for version in 0..each {
                for n in &mine {
                    let expected = Expected::Exact(version);
                    store
                        .append(&counter(*n), vec![event.clone()], expected)
                        .await
                        .map_err(|error| CommandError::failed(error.to_string()))?;
                }
            }
            Ok(())
        }
    });
    let appends = appends / SPREAD * SPREAD;
    let rate = together(rig, tasks, appends).await?;
    all_there(rig, stream, appends).await?;
    Ok(rate)
}

/// The same fields, made before the clock starts, by a script that does nothing but XADD.
pub(super) async fn bare_append(
    rig: &mut Rig,
    appends: u64,
    at_once: u64,
) -> Result<Rate, CommandError> {
    let stream = rig.stream();
    let conn = connect(rig).await?;
    let now = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
    let event = sample(appends / 2)?
        .with("id", Uuid::now_v7().to_string())
        .with("subject", counter(SPREAD / 2).as_str())
        .with("time", now);
    let each = appends / SPREAD * SPREAD / at_once;
    let tasks = (0..at_once).map(|_| {
        let (mut conn, stream, event) = (conn.clone(), stream.clone(), event.clone());
        async move {
            for _ in 0..each {
                let mut call = BARE.key(&stream[..]);
                for (name, value) in event.fields() {
                    call.arg(name).arg(value);
                }
                let _: Value = call.invoke_async(&mut conn).await.map_err(refused)?;
            }
            Ok(())
        }
    });
    let rate = together(rig, tasks, each * at_once).await?;
    all_there(rig, stream, each * at_once).await?;
    Ok(rate)
}

async fn all_there(rig: &mut Rig, stream: String, events: u64) -> Result<(), CommandError> {
    let there: u64 = rig.meter.ask(::redis::cmd("XLEN").arg(&stream[..])).await?;
    rig.drop_streams(&[stream]).await?;
    if there == events {
        return Ok(());
    }
    Err(CommandError::failed(format!(
        "the bench: {there} of {events} events were stored"
    )))
}

/// An aggregate with many events.
pub(super) struct Long {
    stream: String,
    events: u64,
    repository: Repository<Counter>,
    bare: MultiplexedConnection,
}

impl Long {
    pub async fn store(rig: &mut Rig, events: u64) -> Result<Self, CommandError> {
        let stream = rig.stream();
        let store = store_on(rig, &stream)?;
        for from in (0..events).step_by(500) {
            let some = (from..events.min(from + 500)).map(sample);
            let some = some.collect::<Result<_, Error>>()?;
            store
                .append(&counter(0), some, Expected::Exact(from))
                .await
                .map_err(|error| CommandError::failed(error.to_string()))?;
        }
        Ok(Long {
            stream,
            events,
            repository: Repository::new(store),
            bare: connect(rig).await?,
        })
    }

    /// Loads it so often, one after the other; each load must come to the same.
    pub async fn load(
        &self,
        rig: &mut Rig,
        is_ours: bool,
        loads: u64,
    ) -> Result<Rate, CommandError> {
        let sum = self.events * (self.events - 1) / 2;
        let (repository, conn) = (self.repository.clone(), self.bare.clone());
        let key = format!("{{{}}}:{}", self.stream, counter(0));
        let load = async move {
            for _ in 0..loads {
                let loaded = match is_ours {
                    true => repository.load("c-0").await?.into_state().sum,
                    false => bare_load(conn.clone(), &key).await?,
                };
                if loaded != sum {
                    let message = format!("the bench: events add up to {loaded}, not {sum}");
                    return Err(CommandError::failed(message));
                }
            }
            Ok(())
        };
        together(rig, [load], loads * self.events).await
    }

    pub async fn drop(self, rig: &mut Rig) -> Result<(), CommandError> {
        rig.drop_streams(&[self.stream]).await
    }
}

/// All entries in one reply, each with its data decoded, and nothing else looked at.
async fn bare_load(mut conn: MultiplexedConnection, key: &str) -> Result<u64, CommandError> {
    let entries: Vec<(Value, Vec<Value>)> = ::redis::cmd("XRANGE")
        .arg(&[key, "-", "+"])
        .query_async(&mut conn)
        .await
        .map_err(refused)?;
    let mut sum = 0u64;
    for (_, fields) in entries {
        for pair in fields.chunks_exact(2) {
            if let [Value::BulkString(name), Value::BulkString(data)] = pair
                && name == b"data"
            {
                let sample: Sample = rmp_serde::from_slice(data)
                    .map_err(|error| CommandError::failed(error.to_string()))?;
                sum = sum.wrapping_add(sample.amount());
            }
        }
    }
    Ok(sum)
}

/// Updates of an aggregate by writers who share nothing, and so of some aggregates one after the other. Who gives up
/// begins once more, and that counts.
pub(super) async fn update(
    rig: &mut Rig,
    writers: u64,
    updates: u64,
    aggregates: u64,
) -> Result<Updates, CommandError> {
    let stream = rig.stream();
    let (decided, gave_up) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let each = (updates / writers).max(1);
    let mut repositories = Vec::new();
    for _ in 0..writers {
        let store = store_on(rig, &stream)?;
        store.version(&counter(0)).await?;
        repositories.push(Repository::<Counter>::new(store));
    }
    let (mut latencies, begun) = (histogram(), Instant::now());
    for n in 0..aggregates {
        let mut running = JoinSet::new();
        for repository in &repositories {
            let repository = repository.clone();
            let (decided, gave_up) = (decided.clone(), gave_up.clone());
            running.spawn(async move {
                let mut took = Vec::new();
                for _ in 0..each {
                    let begun = Instant::now();
                    let decide = |counter: &Counter| {
                        decided.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, String>(vec![Sample::numbered(counter.sum).into()])
                    };
                    while let Err(error) = repository.update(counter(n).id(), decide).await {
                        if error.conflict().is_none() {
                            return Err(error);
                        }
                        gave_up.fetch_add(1, Ordering::Relaxed);
                    }
                    took.push(begun.elapsed());
                }
                Ok::<_, UpdateError<String>>(took)
            });
        }
        while let Some(ended) = running.join_next().await {
            let took = ended
                .map_err(|error| CommandError::failed(format!("the bench: {error}")))?
                .map_err(|error| CommandError::failed(error.to_string()))?;
            for took in took {
                latencies.saturating_record(took.as_nanos() as u64);
            }
        }
    }
    let wall = begun.elapsed();
    let done = each * writers * aggregates;
    all_there(rig, stream, done).await?;
    Ok(Updates {
        per_second: done as f64 / wall.as_secs_f64(),
        conflicts: decided.load(Ordering::Relaxed) as f64 / done as f64 - 1.0,
        gave_up: gave_up.load(Ordering::Relaxed),
        latency: Percentiles::of(&latencies),
    })
}
