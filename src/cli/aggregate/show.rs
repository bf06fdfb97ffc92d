//! `aggregate show`: an aggregate's state, and the version it is of.

use clap::Args;

use super::CommandError;
use super::meant::{IdArgs, failed};
use crate::admin::Aggregates;
use crate::cli::data::laid_out;
use crate::cli::terminal::print;
use crate::cli::text::printable_json;

#[derive(Args)]
#[command(after_help = "\
Examples:
  streamhand aggregate show order:o-1
  streamhand aggregate show order:o-1 --at 3
  streamhand aggregate show order:o-1 | jq .state.status")]
pub(super) struct ShowArgs {
    #[command(flatten)]
    aggregate: IdArgs,
    /// Show the state that it had at this version [default: the last one]
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    at: Option<u64>,
}

pub(super) async fn run(args: ShowArgs, aggregates: &Aggregates) -> Result<(), CommandError> {
    let state = aggregates.show_at(&args.aggregate.id, args.at).await;
    let json = serde_json::to_string(&state.map_err(|error| failed(&error))?);
    let json = json.map_err(|error| CommandError::failed(error.to_string()))?;
    print(printable_json(&laid_out(&json)))
}
