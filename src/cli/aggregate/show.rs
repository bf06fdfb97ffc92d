//! `aggregate show`: an aggregate's state, and the version it is of.

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::CommandError;
use super::meant::{IdArgs, failed, kind};
use crate::cli::data::laid_out;
use crate::cli::terminal::print;
use crate::cli::text::printable_json;
use crate::config::Settings;
use crate::eventstore::{AggregateId, EventStore, RedisEventStore, Registered};

#[derive(Args)]
#[command(after_help = "\
Examples:
  streamhand aggregate show order:o-1
  streamhand aggregate show order:o-1 | jq .state.status")]
pub(super) struct ShowArgs {
    #[command(flatten)]
    aggregate: IdArgs,
}

#[derive(Serialize)]
struct Shown<'a> {
    aggregate: &'a str,
    version: u64,
    state: &'a RawValue,
}

pub(super) async fn run(
    args: ShowArgs,
    settings: &Settings,
    kinds: &Registered,
) -> Result<(), CommandError> {
    let id = args.aggregate.id;
    let kind = kind(kinds, id.kind())?;
    let store = RedisEventStore::new(&settings.redis, kind.public.clone())?;
    let (mut events, mut replay, mut version) = (store.read(&id, 1), kind.begin(id.clone()), 0);
    while let Some(event) = events.next().await.map_err(|error| failed(&error))? {
        replay.apply(&event).map_err(|error| failed(&error))?;
        version = event.version;
    }
    if version == 0 {
        return Err(missing(&id));
    }
    let state = replay.state().map_err(|error| failed(&error))?;
    let shown = Shown {
        aggregate: id.as_str(),
        version,
        state: &state,
    };
    let json =
        serde_json::to_string(&shown).map_err(|error| CommandError::failed(error.to_string()))?;
    print(printable_json(&laid_out(&json)))
}

/// Says that there is no such aggregate.
pub(super) fn missing(id: &AggregateId) -> CommandError {
    CommandError::failed(format!("{id} does not exist: it has no events"))
}
