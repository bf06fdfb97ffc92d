//! Traces: which trace an event belongs to, which spans tell of it, and where they wait until they are sent.
//!
//! A run of a handler is a span, and so is each request that adds events to a stream. Ids of a run are derived from what it
//! is a run of, so that a retry knows the span before it and nothing has to be kept in Redis for that. What is not sampled
//! makes no span, and nothing but its decision is spent on it.

mod context;
mod run;
mod sampling;
mod span;
mod tracer;

pub use context::TraceContext;
pub(crate) use run::{Ended, Run, RunOf};
pub(crate) use sampling::seed;
pub(crate) use span::{Exception, Kind, Span, Value, attributes, server};
pub(crate) use tracer::{ENOUGH, Tracer};
