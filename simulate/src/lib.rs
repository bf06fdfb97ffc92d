//! A fleet without the fleet: what a thousand workers on a thousand partitions ask of each node of a cluster, and when.
//!
//! Nothing here says when something is asked. That is the library's own code (`streamhand::unstable`): when it looks for
//! what is due and for what dead workers held, how long it reads, when it renews, mends, relays and pulses, who reads which
//! partition, how long it pauses and when it asks for the slot map. It runs in virtual time. What a worker does between
//! two of these decisions is written down in [`worker`], request by request; a run of real workers on a real cluster, in
//! `tests/fleets.rs`, is compared with it.

#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]

mod clock;
mod counts;
mod nodes;
pub mod story;
mod worker;

pub use counts::{Counted, Request};
pub use worker::{Fleet, Simulation};
