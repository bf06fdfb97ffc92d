//! Where the primary of a key is: one server, or one of many.

mod cluster;
mod refresh_times;
mod sentinels;
mod slot;
mod slot_map;

pub(super) use cluster::{Cluster, Node, SharedConn};
pub use refresh_times::{EVERY as SLOT_MAP_EVERY, RefreshTimes};
pub(super) use sentinels::Sentinels;
pub(crate) use slot::Slot;
