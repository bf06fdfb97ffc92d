//! What comes in: a stock, and the events of a shop's day with a few of every kind that goes wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use streamhand::Event;
use streamhand::cli::CommandError;
use tokio::time::{MissedTickBehavior, interval};

use super::program::Program;
use crate::events::{Item, ORDERS, OrderCancelled, OrderCreated};

/// What the shop sells, and of which there is enough.
const SOLD: [&str; 6] = ["assam", "cup", "oolong", "pot", "rooibos", "sencha"];
/// Of this there is too little. That is an answer, and not a failure.
const SCARCE: &str = "first-flush";
/// Its stock is no number, until that is mended while the orders come in.
pub const MENDED: &str = "kettle";
/// Its stock is no number, until that is repaired when its orders are dead letters.
pub const BROKEN: &str = "strainer";
/// Nobody has heard of it, until it is added.
pub const UNKNOWN: &str = "unicorn";

/// The files that the events come in.
const PORTIONS: u64 = 10;
/// The time from one to the next.
const PACE: Duration = Duration::from_millis(400);

/// The events, in files.
pub struct Orders {
    files: Vec<PathBuf>,
}

/// The units of each sku that the demo begins with; of some it is not known how many there are.
pub fn stock(events: u64) -> BTreeMap<&'static str, Option<u64>> {
    let mut stock = BTreeMap::from(SOLD.map(|sku| (sku, Some(events * 10))));
    stock.insert(SCARCE, Some(events / 100));
    stock.insert(MENDED, None);
    stock.insert(BROKEN, None);
    stock
}

impl Orders {
    /// Writes `count` events to files in `dir`, a line each.
    pub fn write(dir: &Path, count: u64) -> std::io::Result<Self> {
        // The same day every time.
        let mut random = fastrand::Rng::with_seed(7);
        let files = (0..PORTIONS)
            .map(|portion| {
                let lines = (count * portion / PORTIONS..count * (portion + 1) / PORTIONS)
                    .map(|n| format!("{}\n", event(n, &mut random)));
                let file = dir.join(format!("orders-{portion}.ndjson"));
                std::fs::write(&file, lines.collect::<String>())?;
                Ok(file)
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Orders { files })
    }

    /// Publishes one file after the other.
    pub async fn publish(self, program: Program) -> Result<(), CommandError> {
        let mut next = interval(PACE);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for file in &self.files {
            next.tick().await;
            let file = file.to_string_lossy();
            program
                .run(&["publish", ORDERS, "--envelopes", "--file", &file])
                .await?;
        }
        Ok(())
    }
}

/// The `n`th event of the day, whole.
fn event(n: u64, random: &mut fastrand::Rng) -> Value {
    let order_id = order_id(n);
    let items = match n % 200 {
        7 | 107 => vec![item(UNKNOWN, 1)],
        43 => vec![item(BROKEN, 1)],
        11 | 61 | 111 | 161 => vec![item(MENDED, 1), item("cup", 1)],
        31 => return envelope(n, OrderCreated::TYPE, &order_id, malformed(n, &order_id)),
        97 => {
            return envelope(
                n,
                "order.returned",
                &order_id,
                json!({ "order_id": order_id }),
            );
        }
        19 | 69 | 119 | 169 => {
            let order_id = self::order_id(n - 15);
            let data = json!(OrderCancelled {
                order_id: order_id.clone()
            });
            return envelope(n, OrderCancelled::TYPE, &order_id, data);
        }
        _ => (0..random.u8(1..=3))
            .map(|_| match random.u8(..) {
                0..=3 => item(SCARCE, 1),
                _ => item(SOLD[random.usize(..SOLD.len())], random.u32(1..=4)),
            })
            .collect(),
    };
    let order = OrderCreated {
        order_id: order_id.clone(),
        customer_id: format!("c-{}", random.u32(1..1000)),
        amount: random.u64(500..20_000),
        items,
    };
    envelope(n, OrderCreated::TYPE, &order_id, json!(order))
}

/// Data that is no order: of what a program with another idea of orders might write.
fn malformed(n: u64, order_id: &str) -> Value {
    match n / 200 % 3 {
        0 => json!({ "order_id": order_id, "customer_id": "c-1", "amount": "twelve", "items": [] }),
        1 => json!({ "order": order_id, "lines": 2 }),
        _ => json!(format!("{order_id}: 2 x sencha, please")),
    }
}

fn envelope(n: u64, event_type: &str, subject: &str, data: Value) -> Value {
    json!({ "type": event_type, "id": format!("e-{n}"), "source": "demo", "subject": subject, "data": data })
}

fn order_id(n: u64) -> String {
    format!("o-{n}")
}

fn item(sku: &str, quantity: u32) -> Item {
    Item {
        sku: sku.to_owned(),
        quantity,
    }
}
