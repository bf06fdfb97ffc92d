//! What the shop's services tell each other: the contract, and all that they share.

use serde::{Deserialize, Serialize};
use streamhand::Event;

/// The stream of what happens to orders.
pub const ORDERS: &str = "orders";
/// The stream of what happens to the stock.
pub const INVENTORY: &str = "inventory";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderCreated {
    pub order_id: String,
    pub customer_id: String,
    /// In cents.
    pub amount: u64,
    pub items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub sku: String,
    pub quantity: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderCreationFailed {
    pub order_id: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderShipped {
    pub order_id: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderCancelled {
    pub order_id: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InventoryReserved {
    pub order_id: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InventoryReservationFailed {
    pub order_id: String,
    pub reason: String,
}

impl Event for OrderCreated {
    const TYPE: &'static str = "order.created";
}

impl Event for OrderCreationFailed {
    const TYPE: &'static str = "order.creation.failed";
}

impl Event for OrderShipped {
    const TYPE: &'static str = "order.shipped";
}

impl Event for OrderCancelled {
    const TYPE: &'static str = "order.cancelled";
}

impl Event for InventoryReserved {
    const TYPE: &'static str = "inventory.reserved";
}

impl Event for InventoryReservationFailed {
    const TYPE: &'static str = "inventory.reservation.failed";
}
