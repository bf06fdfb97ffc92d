//! A program of an outside user that does all there is: handlers, commands of its own beside those of the library, and
//! a worker inside a program that does other things as well. `make check` builds it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Args, FromArgMatches};
use serde::{Deserialize, Serialize};
use streamhand::cli::{self, Command, CommandError};
use streamhand::{Context, Event, Failure, FailureExt, Publisher, Registry, Settings, Worker};

#[derive(Serialize, Deserialize)]
struct OrderCreated {
    order_id: String,
    amount: u64,
}

impl Event for OrderCreated {
    const TYPE: &'static str = "order.created";
}

async fn ship(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
    if order.amount == 0 {
        return Err(Failure::permanent("an order of nothing"));
    }
    let weight: u64 = "12".parse().permanent()?;
    cli::say(format_args!(
        "{} weighs {weight}, attempt {}",
        order.order_id,
        ctx.attempt()
    ));
    Ok(())
}

fn registry() -> Registry {
    Registry::new().on(ship)
}

/// Creates an order.
#[derive(Args)]
struct OrderArgs {
    order_id: String,
    #[arg(long, default_value_t = 1)]
    amount: u64,
}

fn order() -> Command {
    let clap = OrderArgs::augment_args(clap::Command::new("order"));
    Command::new(clap, |settings, matches| async move {
        let args = OrderArgs::from_arg_matches(&matches)
            .map_err(|error| CommandError::usage(error.to_string()))?;
        let event = OrderCreated {
            order_id: args.order_id,
            amount: args.amount,
        };
        let entry = Publisher::new(&settings.redis)?
            .publish("orders", &event)
            .await?;
        cli::print(entry)
    })
}

/// Works beside whatever else the program does, until told to stop.
fn beside() -> Command {
    let clap = clap::Command::new("serve").about("Work beside a server of one's own");
    Command::new(clap, |settings, _| async move {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let working = tokio::spawn(work(settings, async {
            let _ = stopped.await;
        }));
        serve().await?;
        drop(stop);
        working
            .await
            .map_err(|error| CommandError::failed(error.to_string()))?
    })
}

async fn work(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), CommandError> {
    let summary = Worker::new(settings, registry())?.run(stop).await?;
    match summary.unsettled {
        0 => Ok(()),
        unsettled => Err(CommandError::failed(format!("{unsettled} are left"))),
    }
}

/// In place of a web server.
async fn serve() -> Result<(), CommandError> {
    cli::told_to_stop("")?.await;
    Ok(())
}

fn main() -> ExitCode {
    streamhand::program!(registry())
        .command(order())
        .command(beside())
        .main()
}
