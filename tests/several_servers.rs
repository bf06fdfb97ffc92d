//! Where the primary is while that changes: publishers by Sentinel and in a cluster, under load, every event counted.

mod cluster;
mod load;
mod replicated;
mod sentinel;
