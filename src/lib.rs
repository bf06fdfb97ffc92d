//! A Redis Streams worker runtime that loses nothing.
//!
//! A worker reads entries of streams through a consumer group, hands each to the handler registered for its event
//! type, and acknowledges it, parks it for a retry with backoff, or moves it to a dead-letter stream. What a dead
//! worker held is taken over by the others.
//!
//! - [`Event`] and [`Registry`]: what events there are, and which function handles which.
//! - [`Failure`]: what a handler's error means.
//! - [`Context`]: what a handler is given beside its event.
//! - [`Effect`] and [`Committed`]: what takes place in Redis together with an event's acknowledgement.
//! - [`Worker`] and [`cli::run`]: a worker inside your program, or as your program.
//! - [`Publisher`]: puts events on streams.
//! - [`eventstore`]: aggregates whose events are the source of truth.
//! - [`admin`]: what the program's commands do, for a dashboard or a tool of your own.
//! - [`Settings`]: the configuration.
//! - `testing`: a worker in memory, for tests of handlers; a feature of that name.
//! - [`Tracing`] and [`TraceContext`]: traces of what is published and handled.
//!
//! # Features
//! `cli`, on by default, has everything: the commands, and with them `worker`, which has handlers and workers. With
//! `default-features = false` there is what publishes, TLS included. `config` adds [`Settings`] from a file and from the
//! environment, `eventstore` adds aggregates, projections and subscriptions, `telemetry` has workers serve and send how they
//! are doing, and `web` has the pages. Each has the one before it:
//! `cli` → `web` → `telemetry` → `worker` → `eventstore` → `config`. `testing`, for `[dev-dependencies]`, has a worker in memory
//! whose time is the test's.
//!
//! The crates whose types appear here are re-exported in the version that is used: [`serde`], [`serde_json`], [`tower`]
//! for layers, [`redis`] for [`Context::redis`], [`tokio_util`] for [`Context::token`],
//! [`futures_util`] for lists that are streams, and [`cli::clap`].
//!
//! ```no_run
//! use streamhand::{Context, Event, Failure, Registry};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct OrderCreated {
//!     order_id: String,
//! }
//!
//! impl Event for OrderCreated {
//!     const TYPE: &'static str = "order.created";
//! }
//!
//! async fn ship(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
//!     println!("{} at attempt {}", order.order_id, ctx.attempt());
//!     Ok(())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     streamhand::cli::run(Registry::new().on(ship))
//! }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]
// Each feature leaves unused what the next one needs: of what speaks to Redis, a publisher does little.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

#[cfg(feature = "eventstore")]
mod about;
#[cfg(feature = "worker")]
pub mod admin;
#[cfg(feature = "eventstore")]
mod aggregate_id;
#[cfg(feature = "telemetry")]
pub mod alerts;
#[cfg(feature = "worker")]
mod breaker;
#[cfg(feature = "config")]
mod called;
#[cfg(feature = "worker")]
mod classify;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "worker")]
mod clock;
pub mod codec;
pub mod config;
#[cfg(feature = "eventstore")]
mod conflict;
#[cfg(feature = "worker")]
mod conformance;
#[cfg(feature = "worker")]
mod context;
#[cfg(feature = "config")]
mod cron;
#[cfg(feature = "testing")]
mod cuts;
#[cfg(feature = "worker")]
pub mod dead_letters;
mod delay;
#[cfg(feature = "worker")]
pub mod doctor;
mod duration;
mod effects;
#[cfg(feature = "worker")]
mod emit;
mod error;
mod event;
mod event_type;
#[cfg(feature = "eventstore")]
pub mod eventstore;
mod failure;
mod fields;
#[cfg(feature = "worker")]
mod group_gauges;
#[cfg(feature = "worker")]
mod handler;
#[cfg(feature = "telemetry")]
mod http_client;
mod identity;
#[cfg(test)]
mod instructions;
pub mod metrics;
#[cfg(feature = "worker")]
mod middleware;
mod names;
#[cfg(feature = "telemetry")]
mod otlp;
#[cfg(feature = "eventstore")]
mod outbox;
mod pages;
mod partition;
#[cfg(feature = "worker")]
mod policy;
#[cfg(any(feature = "cli", feature = "testing"))]
mod private_server;
mod publisher;
#[cfg(feature = "worker")]
mod pulse;
mod reconnect;
pub mod retry;
mod rfc3339;
mod stream;
mod sync;
#[cfg(feature = "telemetry")]
mod targets;
#[cfg(feature = "telemetry")]
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;
mod traceparent;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod unstable;
#[cfg(feature = "eventstore")]
mod upcast;
#[cfg(feature = "web")]
pub mod web;
#[cfg(feature = "worker")]
mod worker;

// Crates that appear in this one's public face, in the version that is used here.
#[cfg(feature = "worker")]
pub use tower;
pub use {futures_util, redis, serde, serde_json, tokio_util};

#[cfg(feature = "worker")]
pub use breaker::{Breaker, CallError};
pub use codec::{Decodable, DecodeError, Encodable, Format};
#[cfg(feature = "config")]
pub use config::Settings;
#[cfg(feature = "worker")]
pub use context::{Cancelled, Context, Fence};
pub use effects::{CommitError, Committed, Effect, Refusal};
pub use error::{Error, ErrorKind, Result};
pub use event::{Entry, EntryId, Envelope, Event};
pub use failure::{Failure, FailureExt, FailureKind, FailureReason};
pub use fields::Fields;
#[cfg(feature = "worker")]
pub use handler::{
    Batch, BatchBytes, BatchWait, Batches, BuriedEvent, FailedAttempt, Registry, Validity,
};
#[cfg(feature = "worker")]
pub use middleware::{Handler, Handling};
#[cfg(feature = "telemetry")]
pub use otlp::Tracing;
#[cfg(feature = "worker")]
pub use outbox::{CancelledEmit, Emitted, EmittedLater, When};
pub use publisher::{
    Once, PublishError, Published, Publisher, Scheduled, ScheduledEvent, ScheduledEvents,
};
pub use stream::NotReplicated;
pub use stream::PooledConnection;
pub use trace::TraceContext;
#[cfg(feature = "worker")]
pub use worker::{Observer, Outcome, Settled, Summary, Unstarted, Worker};

/// A [`Program`](cli::Program) with the name, the version and the description of the crate that writes this.
///
/// ```no_run
/// # use streamhand::Registry;
/// fn main() -> std::process::ExitCode {
///     streamhand::program!(Registry::new()).main()
/// }
/// ```
#[cfg(feature = "cli")]
#[macro_export]
macro_rules! program {
    ($registry:expr) => {
        $crate::cli::Program::new($registry)
            .name(::core::option_env!("CARGO_BIN_NAME").unwrap_or(::core::env!("CARGO_PKG_NAME")))
            .version(::core::env!("CARGO_PKG_VERSION"))
            .about(::core::env!("CARGO_PKG_DESCRIPTION"))
    };
}

/// The code of the README and of every page of the book is compiled, and run like any other example.
#[cfg(doctest)]
mod book {
    macro_rules! pages {
        ($($name:ident: $file:literal),* $(,)?) => {
            $(#[doc = include_str!($file)] struct $name;)*
        };
    }
    pages! {
        Readme: "../README.md",
        Axum: "../docs/axum.md",
        Batches: "../docs/batches.md",
        Cron: "../docs/cron.md",
        Deduplication: "../docs/deduplication.md",
        Effects: "../docs/effects.md",
        EventSourcing: "../docs/event-sourcing.md",
        GettingStarted: "../docs/getting-started.md",
        Metrics: "../docs/metrics.md",
        Observing: "../docs/observing.md",
        OperatingFromCode: "../docs/operating-from-code.md",
        OwnCommands: "../docs/own-commands.md",
        Projections: "../docs/projections.md",
        Resilience: "../docs/resilience.md",
        Scheduling: "../docs/scheduling.md",
        Testing: "../docs/testing.md",
        Tracing: "../docs/tracing.md",
        Upgrading: "../docs/upgrading.md",
        Versions: "../docs/versions.md",
    }
}
