//! The order as an aggregate: what has happened to it, what it is by that, and what may happen next.

use serde::{Deserialize, Serialize};
use streamhand::aggregate_events;
use streamhand::eventstore::Aggregate;

use super::events::{Item, ORDERS, OrderCancelled, OrderCreated, OrderShipped};

aggregate_events! {
    /// What happens to an order.
    pub enum OrderEvent {
        Created(OrderCreated),
        Shipped(OrderShipped),
        Cancelled(OrderCancelled),
    }
}

/// An order, as its events have left it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub status: Status,
    pub customer_id: String,
    /// In cents.
    pub amount: u64,
    pub items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is no such order.
    #[default]
    Unknown,
    Created,
    Shipped,
    Cancelled,
}

impl Aggregate for Order {
    const KIND: &'static str = "order";
    const STREAM: &'static str = ORDERS;
    type Event = OrderEvent;

    fn initial() -> Self {
        Order::default()
    }

    fn apply(&mut self, event: OrderEvent) {
        match event {
            OrderEvent::Created(created) => {
                *self = Order {
                    status: Status::Created,
                    customer_id: created.customer_id,
                    amount: created.amount,
                    items: created.items,
                }
            }
            OrderEvent::Shipped(_) => self.status = Status::Shipped,
            OrderEvent::Cancelled(_) => self.status = Status::Cancelled,
        }
    }
}

/// What is asked of an order, and what comes of it. A request that was carried out already changes nothing more.
impl Order {
    /// An order that is to be.
    pub fn create(&self, order: OrderCreated) -> Result<Vec<OrderEvent>, String> {
        if self.status != Status::Unknown {
            return Err(format!("there is an order {:?} already", order.order_id));
        }
        if order.items.is_empty() || order.items.iter().any(|item| item.quantity == 0) {
            return Err("it has no items, or none of one of them".to_owned());
        }
        Ok(vec![order.into()])
    }

    /// It leaves the house.
    pub fn ship(&self, order_id: &str) -> Result<Vec<OrderEvent>, String> {
        let order_id = order_id.to_owned();
        match self.status {
            Status::Unknown => Err(format!("there is no order {order_id:?}")),
            Status::Created => Ok(vec![OrderShipped { order_id }.into()]),
            Status::Shipped => Ok(Vec::new()),
            Status::Cancelled => Err(format!("{order_id} was cancelled: it can't be shipped")),
        }
    }

    /// Nobody wants it any more.
    pub fn cancel(&self, order_id: &str) -> Result<Vec<OrderEvent>, String> {
        let order_id = order_id.to_owned();
        match self.status {
            Status::Unknown => Err(format!("there is no order {order_id:?}")),
            Status::Created => Ok(vec![OrderCancelled { order_id }.into()]),
            Status::Shipped => Err(format!("{order_id} was shipped: it can't be cancelled")),
            Status::Cancelled => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use streamhand::eventstore::testing::given;

    use super::*;

    fn created(items: &[(&str, u32)]) -> OrderCreated {
        let item = |(sku, quantity): &(&str, u32)| Item {
            sku: (*sku).to_owned(),
            quantity: *quantity,
        };
        OrderCreated {
            order_id: "o-1".to_owned(),
            customer_id: "c-1".to_owned(),
            amount: 1250,
            items: items.iter().map(item).collect(),
        }
    }

    fn shipped() -> OrderEvent {
        let order_id = "o-1".to_owned();
        OrderShipped { order_id }.into()
    }

    fn cancelled() -> OrderEvent {
        let order_id = "o-1".to_owned();
        OrderCancelled { order_id }.into()
    }

    fn an_order() -> OrderEvent {
        created(&[("pot", 1)]).into()
    }

    #[test]
    fn an_order_is_created_once_and_not_of_nothing() {
        given::<Order>([])
            .when(|order| order.create(created(&[("pot", 1)])))
            .then([an_order()])
            .then_state(|order| assert_eq!((order.status, order.amount), (Status::Created, 1250)));
        given::<Order>([an_order()])
            .when(|order| order.create(created(&[("pot", 1)])))
            .then_refused("there is an order \"o-1\" already");
        for items in [&[][..], &[("pot", 0)]] {
            given::<Order>([])
                .when(|order| order.create(created(items)))
                .then_refused("it has no items, or none of one of them");
        }
    }

    #[test]
    fn what_was_cancelled_is_not_shipped_and_what_was_shipped_is_not_cancelled() {
        given::<Order>([an_order()])
            .when(|order| order.ship("o-1"))
            .then([shipped()]);
        given::<Order>([an_order()])
            .when(|order| order.cancel("o-1"))
            .then([cancelled()]);
        given::<Order>([an_order(), cancelled()])
            .when(|order| order.ship("o-1"))
            .then_refused("o-1 was cancelled: it can't be shipped");
        given::<Order>([an_order(), shipped()])
            .when(|order| order.cancel("o-1"))
            .then_refused("o-1 was shipped: it can't be cancelled");
    }

    #[test]
    fn what_is_so_already_happens_no_second_time() {
        given::<Order>([an_order(), shipped()])
            .when(|order| order.ship("o-1"))
            .then_nothing();
        given::<Order>([an_order(), cancelled()])
            .when(|order| order.cancel("o-1"))
            .then_nothing();
        for decide in [Order::ship, Order::cancel] {
            given::<Order>([])
                .when(|order| decide(order, "o-1"))
                .then_refused("there is no order \"o-1\"");
        }
    }
}
