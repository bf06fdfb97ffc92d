//! An aggregate of tests: an order, with events of which one has changed over the years.

use serde::{Deserialize, Serialize};
use streamhand::eventstore::Aggregate;
use streamhand::{Event, aggregate_events};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Created {
    pub cents: u64,
}

impl Event for Created {
    const TYPE: &'static str = "order.created";
    const VERSION: u32 = 2;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Added {
    pub cents: u64,
}

impl Event for Added {
    const TYPE: &'static str = "order.added";
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shipped {}

impl Event for Shipped {
    const TYPE: &'static str = "order.shipped";
}

aggregate_events! {
    /// What happens to an order.
    #[derive(Clone, Debug, PartialEq)]
    pub enum OrderEvent {
        Created(Created),
        Added(Added),
        Shipped(Shipped),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub cents: u64,
    pub added: u64,
    pub shipped: bool,
}

impl Aggregate for Order {
    const KIND: &'static str = "order";
    const STREAM: &'static str = "orders";
    type Event = OrderEvent;

    fn initial() -> Self {
        Order::default()
    }

    fn apply(&mut self, event: OrderEvent) {
        match event {
            OrderEvent::Created(event) => self.cents = event.cents,
            OrderEvent::Added(event) => {
                self.cents += event.cents;
                self.added += 1;
            }
            OrderEvent::Shipped(Shipped {}) => self.shipped = true,
        }
    }
}
