//! The event that everybody handles: a small order, about a hundred bytes of MessagePack.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub order_id: String,
    pub amount: u64,
}

impl streamhand::Event for Order {
    const TYPE: &'static str = "order.created";
}

impl Order {
    /// The orders that are published, a chunk at a time.
    pub fn chunks(events: u64) -> impl Iterator<Item = Vec<Order>> {
        const CHUNK: u64 = 1_000;
        (0..events.div_ceil(CHUNK)).map(move |chunk| {
            let first = chunk * CHUNK;
            (first..events.min(first + CHUNK))
                .map(Order::numbered)
                .collect()
        })
    }

    /// What their amounts add up to.
    pub fn total(events: u64) -> u64 {
        events * events.saturating_sub(1) / 2
    }

    fn numbered(number: u64) -> Self {
        Order {
            order_id: format!("order-{number:064}"),
            amount: number,
        }
    }

    pub fn encode(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }
}
