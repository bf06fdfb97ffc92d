//! Brings entries: new ones, due ones, and those that dead workers held.

pub(crate) mod delivery;
pub(crate) mod due_retries;
pub(crate) mod fetcher;
pub(crate) mod fleet_shift;
pub(crate) mod flow_control;
pub(crate) mod group_rates;
mod join;
pub(crate) mod oversized;
pub(crate) mod prefetch;
pub(crate) mod read_new;
pub(crate) mod read_plan;
pub(crate) mod reclaim;
pub(crate) mod shares;
pub(crate) mod stream_rotation;
