//! Brings entries: new ones, due ones, and those that dead workers held. [`fetcher`] owns the order; every other file is a
//! part that it calls, which returns what has come ([`delivery`]) or what may come.

mod adopt;
pub(crate) mod delivery;
mod due_retries;
pub(crate) mod fetcher;
mod fleet_shift;
mod flow_control;
mod group_rates;
mod hand_over;
mod idle;
mod join;
mod look_ahead;
mod met_again;
mod oversized;
mod prefetch;
mod read_new;
mod read_plan;
mod reading;
mod reclaim;
mod server_clock;
mod shares;
mod stream_rotation;
mod take_waiting;
