//! Sends spans and metrics to a collector by OTLP over HTTP, as `[telemetry.otlp]` says. On a thread of its own: neither a
//! handler that blocks nor a collector that hangs holds up the other.

mod exporter;
mod messages;
mod metrics;
mod resource;
mod spans;
mod tracing;

pub(crate) use exporter::{Exporter, Sources, check};
pub(crate) use resource::Resource;
pub use tracing::Tracing;
