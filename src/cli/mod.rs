//! The program: a clap tree, one file a command. `cli::run(registry())` is a whole program of its own.
//!
//! Data goes to standard output, logs and progress to standard error. Exit codes: 0 done, 1 failed, 2 wrong use or
//! wrong configuration.

mod adding;
mod aggregate;
mod alerts;
mod away;
mod cancel;
mod completions;
mod config;
mod conformance;
mod cron;
mod data;
mod dlq;
mod doctor;
mod entry;
mod exporter;
mod failure;
mod find;
mod globals;
mod health;
mod limit;
mod logging;
mod moment;
mod pause;
mod private_server;
mod program;
mod projection;
mod publish;
mod retention;
mod run;
mod scheduled;
mod server;
mod status;
mod stderr;
mod stop;
mod terminal;
mod text;
mod top;
mod topic;
mod web;
mod worker;

pub use clap;
pub use failure::CommandError;
#[doc(hidden)]
pub use globals::Globals;
pub use private_server::PrivateServer;
pub use program::{Command, Program};
#[doc(hidden)]
pub use stderr::flush;
pub use stop::told_to_stop;
pub use terminal::{print, say};
#[doc(hidden)]
pub use text::table;

use std::process::ExitCode;

use crate::config::Settings;
use crate::handler::Registry;

/// Runs the program with these handlers, by the arguments of the process. It is called like its file, and so is its group
/// where none is set; [`program!`](crate::program) gives it the name, the version and the description of your crate.
///
/// ```no_run
/// # use streamhand::{Context, Event, Failure, Registry};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { order_id: String }
/// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
/// async fn reserve(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
///     Ok(())
/// }
///
/// fn main() -> std::process::ExitCode {
///     streamhand::cli::run(Registry::new().on(reserve))
/// }
/// ```
pub fn run(registry: Registry) -> ExitCode {
    Program::new(registry).main()
}

/// As [`run`], where making the registry needs the configuration or an await (a database pool). `registry` is called
/// by the commands that run handlers or look at aggregates, by `config check`, and by no others.
pub fn run_with<F, Fut, E>(registry: F) -> ExitCode
where
    F: FnOnce(Settings) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Registry, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Program::with(registry).main()
}
