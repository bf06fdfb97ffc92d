//! Everything that speaks to one server: one unit with one life. Its connections are made by [`links`] alone, through one
//! connector: whichever of them hears that the server is not the one to ask, or leads to another server, ends all of them,
//! those of handlers, publishers and projections among them, and the next ones look everything up anew.
//!
//! A worker has one shard, or, in a cluster, one for each hash slot of its streams: a read takes streams of one slot, and
//! where a slot moves or its master dies, that shard alone leaves and comes back. What belongs to a server is here: links,
//! health, clock and refusals. What shards share (who this worker is, how many handlers run, how much is held, the
//! handlers) is in `state` and `run`.

pub(super) mod claims;
pub(crate) mod clock;
pub(crate) mod fetch;
pub(super) mod health;
pub(super) mod hold_up;
pub(super) mod leave;
pub(crate) mod links;
pub(super) mod maintain;
pub(super) mod order;
pub(super) mod refusals;
pub(crate) mod settle;
pub(super) mod unit;
