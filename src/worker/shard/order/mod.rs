//! What keeps a stream's events in order asks of Redis and does: see [`crate::worker::run::orderer`].

pub(crate) mod carrier;
pub(crate) mod known;
