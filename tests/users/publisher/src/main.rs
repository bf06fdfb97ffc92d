//! A service of an outside user that only publishes: with `default-features = false` it builds neither workers nor
//! commands. `make check` builds it, and counts the crates that it is made of.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamhand::config::{RedisSettings, RedisUrl};
use streamhand::{Event, Publisher};

#[derive(Serialize, Deserialize)]
struct OrderCreated {
    order_id: String,
    amount: u64,
}

impl Event for OrderCreated {
    const TYPE: &'static str = "order.created";
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "rediss://127.0.0.1:6379".to_owned());
    let redis = RedisSettings::new(RedisUrl::parse(&url)?);
    let publisher = Publisher::new(&redis)?;
    let order = |n: u64| OrderCreated {
        order_id: format!("o-{n}"),
        amount: n,
    };
    publisher.publish("orders", &order(1)).await?;
    publisher
        .publish_many("orders", &[order(2), order(3)])
        .await?;
    let later = Duration::from_secs(600);
    let scheduled = publisher.publish_after("orders", &order(4), later).await?;
    println!("{scheduled:?}");
    Ok(())
}
