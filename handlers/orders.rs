//! The order service: stores orders and says what happened to them. It knows nothing of the stock, nor of who listens.

use std::fmt;
use std::sync::LazyLock;

use clap::{Args, FromArgMatches, Subcommand};
use redis::Script;
use streamhand::cli::{Command, CommandError, print};
use streamhand::{Event, Publisher, Result, Settings};

use super::events::{Item, ORDERS, OrderCancelled, OrderCreated, OrderCreationFailed};

/// Stores an order that is not there. Answers whether it was stored by this call, or by an earlier one whose event
/// was not published.
/// KEYS: order. ARGV: fields and values.
static STORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) return 1 end
        return redis.call('HEXISTS', KEYS[1], 'published') == 0 and redis.call('HGET', KEYS[1], 'order') == ARGV[2]
          and 1 or 0
        ",
    )
});

/// Creates and cancels orders.
pub struct Orders {
    publisher: Publisher,
}

/// Why an order was not created or cancelled.
#[derive(Debug)]
pub enum OrderError {
    /// It can't be as it is asked for.
    Refused(String),
    /// Redis could not be asked. What was asked for can be asked again.
    Unavailable(streamhand::Error),
}

impl Orders {
    pub fn new(publisher: Publisher) -> Self {
        Orders {
            publisher: publisher.source("orders"),
        }
    }

    /// Stores an order and publishes `order.created`; where it can't be stored, `order.creation.failed`. Asked again
    /// after [`OrderError::Unavailable`] it goes on where it was, and the event has the same id.
    pub async fn create(&self, order: &OrderCreated) -> Result<(), OrderError> {
        match self.store(order).await {
            Ok(()) => {}
            Err(OrderError::Refused(reason)) => {
                let failed = OrderCreationFailed {
                    order_id: order.order_id.clone(),
                    reason: reason.clone(),
                };
                self.publisher.publish(ORDERS, &failed).await?;
                return Err(OrderError::Refused(reason));
            }
            Err(unavailable) => return Err(unavailable),
        }
        self.publish(order, &order.order_id).await?;
        self.note(&order.order_id, "published").await
    }

    /// Publishes `order.cancelled` for an order that exists.
    pub async fn cancel(&self, order_id: &str) -> Result<(), OrderError> {
        let mut redis = self.publisher.redis().await?;
        let known: bool = redis::cmd("EXISTS")
            .arg(key(order_id))
            .query_async(&mut redis)
            .await
            .map_err(unavailable)?;
        if !known {
            return Err(OrderError::Refused(format!(
                "there is no order {order_id:?}"
            )));
        }
        let cancelled = OrderCancelled {
            order_id: order_id.to_owned(),
        };
        self.publish(&cancelled, order_id).await?;
        self.note(order_id, "cancelled").await
    }

    async fn store(&self, order: &OrderCreated) -> Result<(), OrderError> {
        let id = &order.order_id;
        if id.is_empty()
            || id.contains(|c: char| c.is_whitespace() || c.is_control() || "{}".contains(c))
        {
            return Err(OrderError::Refused(format!(
                "{id:?} is no order id: it has spaces, braces, or nothing in it"
            )));
        }
        if order.items.is_empty() || order.items.iter().any(|item| item.quantity == 0) {
            return Err(OrderError::Refused(
                "it has no items, or none of one of them".to_owned(),
            ));
        }
        let json =
            serde_json::to_string(order).map_err(|error| OrderError::Refused(error.to_string()))?;
        let mut redis = self.publisher.redis().await?;
        let stored: i64 = STORE
            .key(key(id))
            .arg("order")
            .arg(json)
            .invoke_async(&mut redis)
            .await
            .map_err(unavailable)?;
        if stored == 1 {
            Ok(())
        } else {
            Err(OrderError::Refused(format!(
                "there is an order {id:?} already"
            )))
        }
    }

    /// One event of an order, under an id that is the same whenever it is published again.
    async fn publish<E: Event + serde::Serialize>(
        &self,
        event: &E,
        order_id: &str,
    ) -> Result<(), OrderError> {
        let id = format!("{}/{order_id}", E::TYPE);
        let envelope = self
            .publisher
            .envelope(event)?
            .with("id", id)
            .with("subject", order_id);
        self.publisher.publish_envelope(ORDERS, envelope).await?;
        Ok(())
    }

    async fn note(&self, order_id: &str, what: &str) -> Result<(), OrderError> {
        let mut redis = self.publisher.redis().await?;
        let mut note = redis::cmd("HSET");
        note.arg(key(order_id))
            .arg(what)
            .arg(1)
            .query_async::<()>(&mut redis)
            .await
            .map_err(unavailable)
    }
}

fn key(order_id: &str) -> String {
    format!("{{orders}}:order:{order_id}")
}

fn unavailable(error: redis::RedisError) -> OrderError {
    OrderError::Unavailable(
        streamhand::Error::new(
            streamhand::ErrorKind::Redis,
            format!("storing an order: {error}"),
        )
        .with_source(error),
    )
}

impl From<streamhand::Error> for OrderError {
    fn from(error: streamhand::Error) -> Self {
        OrderError::Unavailable(error)
    }
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrderError::Refused(reason) => f.write_str(reason),
            OrderError::Unavailable(error) => error.fmt(f),
        }
    }
}

/// Create or cancel an order of the shop
#[derive(Args)]
struct OrderArgs {
    #[command(subcommand)]
    command: OrderCommand,
}

#[derive(Subcommand)]
enum OrderCommand {
    /// Store an order and publish order.created
    Create {
        /// What the order is to be called, such as o-1
        order_id: String,
        /// Who orders
        #[arg(long, default_value = "c-1")]
        customer: String,
        /// In cents
        #[arg(long, default_value_t = 0)]
        amount: u64,
        /// What is ordered, and how many of it
        #[arg(long = "item", value_name = "SKU=QUANTITY", required = true, value_parser = item)]
        items: Vec<Item>,
    },
    /// Publish order.cancelled
    Cancel {
        /// What the order was called
        order_id: String,
    },
}

/// The command that the shop adds to the program.
pub fn command() -> Command {
    let clap = OrderArgs::augment_args(clap::Command::new("order"));
    Command::new(clap, |settings, matches| async move {
        let args = OrderArgs::from_arg_matches(&matches)
            .map_err(|error| CommandError::usage(error.to_string()))?;
        run(settings, args.command).await
    })
}

async fn run(settings: Settings, command: OrderCommand) -> Result<(), CommandError> {
    let orders = Orders::new(Publisher::new(&settings.redis)?);
    let result = match command {
        OrderCommand::Create {
            order_id,
            customer,
            amount,
            items,
        } => {
            let order = OrderCreated {
                order_id: order_id.clone(),
                customer_id: customer,
                amount,
                items,
            };
            orders
                .create(&order)
                .await
                .map(|()| format!("created {order_id}"))
        }
        OrderCommand::Cancel { order_id } => orders
            .cancel(&order_id)
            .await
            .map(|()| format!("cancelled {order_id}")),
    };
    match result {
        Ok(done) => print(done),
        Err(error) => Err(CommandError::failed(error.to_string())),
    }
}

fn item(text: &str) -> Result<Item, String> {
    let wrong = || format!("{text:?} is no item: write SKU=QUANTITY, like tea=2");
    let (sku, quantity) = text.split_once('=').ok_or_else(wrong)?;
    match quantity.parse() {
        Ok(quantity) if quantity > 0 && !sku.is_empty() => Ok(Item {
            sku: sku.to_owned(),
            quantity,
        }),
        _ => Err(wrong()),
    }
}
