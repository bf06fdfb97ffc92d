//! Dead letters for tests, buried as a worker buries them, and a worker to bury and to be replayed to.

use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use streamhand::dead_letters::DeadLetters;
use streamhand::{Registry, Settings, Summary, Worker};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Fields, Server, add, scripts};

/// The keys of the stream `orders` in the group `fulfilment`.
pub const DEAD: &str = "{orders}:fulfilment:dead";
pub const AGAIN: &str = "{orders}:fulfilment:again";
pub const PROTOCOL: &str = "{orders}:fulfilment:protocol";

/// The default settings for a server, with further lines; the group `fulfilment` of the stream `orders`, unless they say
/// something else.
pub fn settings(server: &Server, toml: &str) -> Settings {
    let text = format!("[redis]\nurl = \"{}\"\n{toml}", server.url());
    let mut settings = Settings::from_toml_str(&text).expect("a right configuration");
    if settings.worker.group.is_empty() {
        settings.worker.group = "fulfilment".to_owned();
    }
    if settings.worker.streams.is_empty() {
        settings.worker.streams = vec!["orders".to_owned()];
    }
    settings
}

/// The dead letters of the default settings.
pub fn dead_letters(server: &Server) -> DeadLetters {
    DeadLetters::new(&settings(server, "")).expect("the address to be one")
}

/// Fields of text.
pub fn fields(pairs: &[(&str, &str)]) -> Fields {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    pairs
        .iter()
        .map(|(name, value)| (bytes(name), bytes(value)))
        .collect()
}

/// An entry, delivered to a consumer of the group `fulfilment` and not settled.
pub struct Delivery {
    pub stream: String,
    pub id: String,
    pub consumer: String,
    pub count: u32,
}

/// Adds an entry and delivers it.
pub async fn deliver(redis: &mut MultiplexedConnection, stream: &str, fields: &Fields) -> Delivery {
    let id = add(redis, stream, fields).await;
    let made: redis::RedisResult<()> = redis::cmd("XGROUP")
        .arg("CREATE")
        .arg(stream)
        .arg("fulfilment")
        .arg("0")
        .query_async(redis)
        .await;
    assert!(made.is_ok() || made.unwrap_err().code() == Some("BUSYGROUP"));
    let consumer = "sh1-30000-test-1-a".to_owned();
    let _: redis::Value = redis::cmd("XREADGROUP")
        .arg("GROUP")
        .arg("fulfilment")
        .arg(&consumer)
        .arg("STREAMS")
        .arg(stream)
        .arg(">")
        .query_async(redis)
        .await
        .expect("the delivery");
    Delivery {
        stream: stream.to_owned(),
        id,
        consumer,
        count: 1,
    }
}

impl Delivery {
    /// Buries it; answers what the script answers.
    pub async fn bury(
        &self,
        redis: &mut MultiplexedConnection,
        own: bool,
        reason: &str,
        error: &str,
    ) -> String {
        // A partition's name is a tag by itself.
        let tag = match self.stream.starts_with('{') {
            true => self.stream.clone(),
            false => format!("{{{}}}", self.stream),
        };
        let prefix = format!("{tag}:fulfilment");
        let mut call = redis::cmd("EVAL");
        call.arg(scripts::text("bury")).arg(7).arg(&self.stream);
        for key in ["retry", "dead", "failures", "guards", "notes"] {
            call.arg(format!("{prefix}:{key}"));
        }
        call.arg(&self.stream);
        let (count, until) = (
            self.count.to_string(),
            if own { u64::MAX >> 12 } else { 0 }.to_string(),
        );
        let of_all = [
            "fulfilment",
            "0",
            &self.stream,
            &self.consumer,
            &self.id,
            &self.id,
        ];
        // Delivered 100 ms ago, the reason, and what was known of it.
        let of_it = [
            &self.consumer[..],
            &self.id,
            &count,
            &until,
            "100",
            reason,
            error,
            "5",
            "order.created",
            "0",
            "0",
            "",
            "0",
        ];
        call.arg(scripts::packed(&[&of_all[..], &of_it[..]].concat()));
        let said: Vec<String> = call.query_async(redis).await.expect("an answer");
        said[0].clone()
    }
}

/// Adds an entry to `stream` and buries it.
pub async fn bury(
    redis: &mut MultiplexedConnection,
    stream: &str,
    fields: &Fields,
    reason: &str,
    error: &str,
) {
    let delivery = deliver(redis, stream, fields).await;
    assert_eq!(delivery.bury(redis, false, reason, error).await, "ok");
}

/// Buries orders `o-0`, `o-1` …
pub async fn bury_many(redis: &mut MultiplexedConnection, count: usize) {
    for n in 0..count {
        let order = fields(&[
            ("type", "order.created"),
            ("data", &format!("{{\"order_id\":\"o-{n}\"}}")),
        ]);
        bury(redis, "orders", &order, "failed", "no stock").await;
    }
}

/// A worker inside the test. Dropped, it stops as if it had been told to.
pub struct Working {
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<streamhand::Result<Summary>>,
}

impl Working {
    pub fn start(settings: Settings, registry: Registry) -> Self {
        let worker = Worker::new(settings, registry).expect("a worker");
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(worker.run(async {
            let _ = stopped.await;
        }));
        Working {
            stop: Some(stop),
            running,
        }
    }

    /// Tells it to stop and waits until it has.
    pub async fn stop(mut self) {
        self.stop.take();
        let ended = tokio::time::timeout(Duration::from_secs(40), self.running).await;
        ended
            .expect("the worker to end")
            .expect("no panic")
            .expect("a clean end");
    }
}
