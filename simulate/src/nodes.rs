//! The servers: who reads which partition, what waits there, and who was seen when.

use std::collections::VecDeque;

/// One partition, as its node has it.
#[derive(Debug, Default)]
pub struct Partition {
    pub node: usize,
    /// Places of the fleet's shards that wait for an entry, each with the number of its read.
    pub waiting: VecDeque<(u32, u32)>,
    /// When what waits to be read was published.
    pub backlog: VecDeque<u64>,
    /// Who is on the list of consumers.
    pub consumers: Vec<Consumer>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Consumer {
    /// Which shard it is of; nothing if its worker is gone.
    pub shard: Option<u32>,
    pub rank: u64,
    pub seen_us: u64,
    pub pending: u32,
}
