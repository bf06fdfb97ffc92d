//! Where the primary of a key is: one server, or one of many.

mod cluster;
mod sentinels;
mod slot;
mod slot_map;

pub(super) use cluster::{Cluster, Node, SharedConn};
pub(super) use sentinels::Sentinels;
pub(crate) use slot::Slot;
