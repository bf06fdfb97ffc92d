//! A test kit for handlers: a worker in memory, or on a server of the test's own, whose time is the test's, that dies where
//! the test says, and of which everything can be asked. Feature `testing`, for `[dev-dependencies]`.
//!
//! ```
//! use std::time::Duration;
//!
//! use streamhand::dead_letters::Reason;
//! use streamhand::{Context, Event, Failure, Registry, testing};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct OrderCreated {
//!     order_id: String,
//! }
//! impl Event for OrderCreated {
//!     const TYPE: &'static str = "order.created";
//! }
//! # #[derive(serde::Serialize, serde::Deserialize)] struct OrderShipped { order_id: String }
//! # impl Event for OrderShipped { const TYPE: &'static str = "order.shipped"; }
//!
//! async fn ship(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
//!     if ctx.attempt() == 1 {
//!         return Err("the carrier does not answer".into());
//!     }
//!     ctx.emit("shipping", OrderShipped { order_id: order.order_id });
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let mut worker = testing::worker(Registry::new().on(ship)).streams(["orders"]).start().await;
//!
//! worker.publish("orders", &OrderCreated { order_id: "o-1".into() }).await;
//! worker.run_until_idle().await;
//! worker.attempts::<OrderCreated>().times(1);
//! worker.emitted::<OrderShipped>().never();
//!
//! worker.advance(Duration::from_secs(2)).await;
//! worker.handled::<OrderCreated>().once();
//! assert_eq!(worker.emitted::<OrderShipped>().only().order_id, "o-1");
//! worker.dead_letters().none();
//! # }
//! ```
//!
//! What decides is a worker's own code: verdicts, backoff and attempts, breakers, rates and limits, upcasters, layers, error
//! types, deduplication, commits. Only where entries are kept is another: in memory, or on a real server by [`on_redis`]. Not
//! part of it are projections, order by subject, trimming and tracing; and in memory what a handler does by
//! [`Context::redis`](crate::Context::redis) or [`Context::publisher`](crate::Context::publisher), which return an error.
//!
//! A failing assertion prints what happened, line by line, and the seed of the jitter: the same seed gives the same run.

mod assert;
mod at;
mod builder;
mod carry_out;
mod clock;
mod driver;
mod idempotent;
mod log;
mod memory;
mod process;
mod server;
mod state;
mod store;
mod terms;
mod unsettled;
mod worker;

pub use assert::{Count, Emissions, Letter, Letters};
pub use at::At;
pub use builder::Builder;
pub use idempotent::{assert_idempotent, effect};
pub use state::State;
pub use worker::TestWorker;

use crate::handler::Registry;

/// A worker in memory with these handlers, to be [started](Builder::start). Time stands still in the test's runtime from
/// then on, and moves when a handler waits for it or the test says so.
///
/// See the [module](self) for an example.
pub fn worker(registry: Registry) -> Builder {
    Builder::new(registry)
}

/// The same worker on a real server, Redis or Valkey, that is the test's own: see [`Builder::server`]. Its streams, keys and
/// scripts are those of production, and time is the test's all the same. [`Context::redis`](crate::Context::redis) and
/// [`Context::publisher`](crate::Context::publisher) lead to it.
///
/// ```
/// # use std::time::Duration;
/// # use streamhand::{Context, Event, Failure, Registry, testing};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated {}
/// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
/// async fn count(_: OrderCreated, ctx: Context) -> Result<(), Failure> {
///     let mut redis = ctx.redis().await?;
///     redis::cmd("INCR").arg("orders so far").query_async::<i64>(&mut redis).await?;
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut worker = testing::on_redis(Registry::new().on(count)).streams(["orders"]).start().await;
/// worker.publish_after("orders", &OrderCreated {}, Duration::from_secs(30 * 24 * 3600)).await;
/// worker.advance(Duration::from_secs(31 * 24 * 3600)).await;
/// worker.handled::<OrderCreated>().once();
/// assert_eq!(worker.state("orders so far").await.number(), Some(1));
/// # }
/// ```
pub fn on_redis(registry: Registry) -> Builder {
    Builder::new(registry).on_redis()
}
