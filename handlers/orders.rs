//! The order service: keeps orders, and says what happened to them in the same step. It knows nothing of the stock, nor
//! of who listens.

use std::fmt;

use clap::{Args, FromArgMatches, Subcommand};
use streamhand::cli::{Command, CommandError, print};
use streamhand::eventstore::{
    AppendError, Loaded, PublicStreams, RedisEventStore, Repository, UpdateError,
};
use streamhand::{Error, ErrorKind, Publisher, Result, Settings};

use super::counts;
use super::events::{Item, ORDERS, OrderCreated, OrderCreationFailed};
use super::order::{Order, OrderEvent};

/// Creates, ships and cancels orders.
pub struct Orders {
    repository: Repository<Order>,
    publisher: Publisher,
}

/// Why nothing happened to an order.
#[derive(Debug)]
pub enum OrderError {
    /// It can't be as it is asked for.
    Refused(String),
    /// It could not be stored. What was asked for can be asked again.
    Unavailable(AppendError),
}

impl Orders {
    pub fn new(publisher: Publisher) -> Result<Self> {
        let public = PublicStreams::of_kind::<Order>()?;
        Ok(Orders {
            repository: Repository::new(RedisEventStore::with_publisher(&publisher, public)),
            publisher: publisher.source("orders"),
        })
    }

    /// Creates an order; where it can't be, publishes `order.creation.failed`.
    pub async fn create(&self, order: &OrderCreated) -> Result<(), OrderError> {
        let order_id = &order.order_id;
        let created = self.update(order_id, |state| state.create(order.clone()));
        let reason = match created.await {
            Ok(_) => return Ok(()),
            Err(OrderError::Refused(reason)) => reason,
            Err(unavailable) => return Err(unavailable),
        };
        let failed = OrderCreationFailed {
            order_id: order_id.clone(),
            reason: reason.clone(),
        };
        self.publisher.publish(ORDERS, &failed).await?;
        Err(OrderError::Refused(reason))
    }

    pub async fn ship(&self, order_id: &str) -> Result<(), OrderError> {
        self.update(order_id, |order| order.ship(order_id))
            .await
            .map(drop)
    }

    pub async fn cancel(&self, order_id: &str) -> Result<(), OrderError> {
        self.update(order_id, |order| order.cancel(order_id))
            .await
            .map(drop)
    }

    /// Has `decide` say what happens to an order, again where somebody else was faster.
    pub async fn update(
        &self,
        order_id: &str,
        decide: impl FnMut(&Order) -> Result<Vec<OrderEvent>, String>,
    ) -> Result<Loaded<Order>, OrderError> {
        Ok(self.repository.update(order_id, decide).await?)
    }
}

impl From<UpdateError<String>> for OrderError {
    fn from(error: UpdateError<String>) -> Self {
        match error {
            UpdateError::Refused(reason) => OrderError::Refused(reason),
            // What can't be an order's id, for instance.
            UpdateError::Failed(AppendError::Failed(error))
                if error.kind() == ErrorKind::Invalid =>
            {
                OrderError::Refused(error.to_string())
            }
            UpdateError::Failed(error) => OrderError::Unavailable(error),
            other => OrderError::Refused(other.to_string()),
        }
    }
}

impl From<Error> for OrderError {
    fn from(error: Error) -> Self {
        OrderError::Unavailable(error.into())
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

/// Create, ship or cancel an order of the shop, and count them
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
    /// Store that it was shipped, and publish order.shipped
    Ship {
        /// What the order was called
        order_id: String,
    },
    /// Store that it was cancelled, and publish order.cancelled
    Cancel {
        /// What the order was called
        order_id: String,
    },
    /// Show how many orders there are in each status, as the workers' projection has it
    Counts {
        /// Print one JSON value
        #[arg(long)]
        json: bool,
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
    let orders = Orders::new(Publisher::new(&settings.redis)?)?;
    let (result, done) = match command {
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
            (orders.create(&order).await, format!("created {order_id}"))
        }
        OrderCommand::Ship { order_id } => {
            (orders.ship(&order_id).await, format!("shipped {order_id}"))
        }
        OrderCommand::Cancel { order_id } => (
            orders.cancel(&order_id).await,
            format!("cancelled {order_id}"),
        ),
        OrderCommand::Counts { json } => return show_counts(&settings, json).await,
    };
    match result {
        Ok(()) => print(done),
        Err(error) => Err(CommandError::failed(error.to_string())),
    }
}

async fn show_counts(settings: &Settings, json: bool) -> Result<(), CommandError> {
    let counts = counts::read(settings).await?;
    if json {
        return print(serde_json::json!(counts));
    }
    if counts.is_empty() {
        return print("there are no orders, or no worker has counted them yet");
    }
    let lines: Vec<String> = counts
        .iter()
        .map(|(status, count)| format!("{status:<10} {count:>6}"))
        .collect();
    print(lines.join("\n"))
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
