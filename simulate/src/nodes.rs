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
    /// If its events have an order: whose it is, and until when.
    pub owner: Option<(u32, u64)>,
    /// And who is there to have it.
    pub crew: Vec<Standby>,
}

/// A worker that is there to have a partition: its rank, which tells it from the others, and until when it counts.
#[derive(Clone, Copy, Debug)]
pub struct Standby {
    pub rank: u64,
    pub until_us: u64,
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
