//! What keeps an entry from its handler: circuit breakers and rates. What they let not through stays in
//! Redis.

mod breaker;
mod breakers;
mod gate;
mod limits;
mod rate;

pub(crate) use breaker::{Outcome, State, Ticket, Why};
pub(crate) use breakers::{Breakers, Circuit};
pub(crate) use gate::{Gate, Pass, Room};
pub(crate) use limits::SetLimit;
pub(crate) use rate::Granted;
