//! Brings entries: new ones, due ones, and those that dead workers held. [`fetcher`] keeps the connections and
//! [`rounds`] the order; every other file is a part that is called there, which returns what has come ([`delivery`]) or what
//! may come.

mod adopt;
mod clock_steps;
pub(crate) mod delivery;
mod due_retries;
pub(crate) mod fetcher;
mod fleet_shift;
pub(crate) mod flow_control;
mod group_rates;
mod hand_over;
mod idle;
mod in_order;
mod join;
mod look_ahead;
mod met_again;
mod others_in_sight;
mod oversized;
mod prefetch;
mod read_new;
mod read_plan;
mod reading;
mod reclaim;
pub(crate) mod rounds;
mod shares;
mod stream_rotation;
mod take_waiting;
mod takeover;
mod visit;
