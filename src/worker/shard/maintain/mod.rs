//! Keeps things as they should be: leases, due events, the length of streams, what others have broken.

pub(crate) mod breaker_report;
pub(crate) mod lease_renewer;
pub(crate) mod projections;
pub(crate) mod repair;
pub(crate) mod scheduler;
pub(crate) mod trimmer;
