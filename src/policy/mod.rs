//! What stands between an entry and its handler, and between a handler and what it calls: time limits, the catching of
//! panics, circuit breakers, limits of rate and of how many run at once. The first two are `tower` layers like a user's
//! own; the others decide before a handler is called at all, because what they hold back is to stay in Redis.

mod blocking;
mod breaker;
mod breakers;
mod gate;
mod panics;
mod rate;
mod timeout;

pub use breakers::{Breaker, CallError};

pub(crate) use blocking::kept_its_thread;
pub(crate) use breaker::{State, Why};
pub(crate) use breakers::{Breakers, Circuit};
pub(crate) use gate::{Gate, Pass, Room};
pub(crate) use panics::{CatchPanics, CaughtFuture};
pub(crate) use rate::{Granted, burst, interval};
pub(crate) use timeout::{TimedFuture, TimeoutLayer};
