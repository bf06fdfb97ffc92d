//! The runtime as a user runs it, with everything on that is on by default, and a typed handler that does nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::measure::{Meter, Run};
use crate::cli::CommandError;
use crate::config::{RedisSettings, Settings};
use crate::context::Context;
use crate::handler::{Event, Registry};
use crate::publisher::Publisher;
use crate::worker::Worker;

/// A small event, encoded and published as any other.
#[derive(Serialize, Deserialize)]
struct Sample {
    order_id: String,
    amount: u64,
}

impl Event for Sample {
    const TYPE: &'static str = "bench.sample";
}

/// Puts `events` events on `stream`.
pub(super) async fn fill(
    settings: &RedisSettings,
    stream: &str,
    events: u64,
) -> Result<(), CommandError> {
    let publisher = Publisher::new(settings)?;
    let mut rest = 0..events;
    while !rest.is_empty() {
        let some: Vec<Sample> = rest
            .by_ref()
            .take(10_000)
            .map(|n| Sample {
                order_id: format!("o-{n}"),
                amount: n,
            })
            .collect();
        publisher.publish_many(stream, &some).await?;
    }
    Ok(())
}

pub(super) async fn run(
    meter: &mut Meter,
    redis: &RedisSettings,
    stream: &str,
    events: u64,
) -> Result<Run, CommandError> {
    let mut settings = Settings {
        redis: redis.clone(),
        ..Settings::default()
    };
    settings.worker.streams = vec![stream.to_owned()];
    settings.worker.group = "bench".to_owned();
    let (handled, all) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let (counter, done) = (handled.clone(), all.clone());
    let registry = Registry::new().on(move |sample: Sample, _: Context| {
        std::hint::black_box(sample.amount);
        if counter.fetch_add(1, Ordering::Relaxed) + 1 == events {
            done.notify_one();
        }
        async { Ok(()) }
    });
    let worker = Worker::new(settings, registry)?;
    let begun = meter.begin().await?;
    // Ends when all that was handled is acknowledged.
    let summary = worker.run(async move { all.notified().await }).await?;
    let run = meter.end(begun, events).await?;
    if summary.unsettled > 0 || handled.load(Ordering::Relaxed) != events {
        return Err(CommandError::failed(
            "the bench: not every event was handled once; is somebody else in its group?",
        ));
    }
    Ok(run)
}
