//! Builds a view anew, beside the one that is served, and has it served once it is as far.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Registered;
use super::partition::{Partition, State};
use super::runner::{Alone, Runner, acting};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::reconnect::{self, Pause};
use crate::stream::{Begun, Connector, LeaseStep, Link, Switched, Trouble};

/// Who has just looked up where a view is may read it for so long.
const GRACE: Duration = Duration::from_secs(5);

/// How long what is built may stand where nothing more comes, behind what is served.
const STUCK: Duration = Duration::from_secs(5);

/// How often in a row a broken connection is made anew.
const TRIES: u32 = 20;

/// What is told of a rebuild under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Entries that are in what is built.
    pub built: u64,
    /// Entries in what is served, of the partitions that were begun.
    pub of: u64,
}

/// Builds a projection's view anew in all its partitions, one after the other. `me` names this process, and `stop` ends
/// it between two batches.
///
/// # Errors
/// Where it is stopped, another builds it, a bad event is met and it is to stop there, or Redis can't be reached. What is served stays
/// as it was, but for the partitions that were done.
pub(crate) async fn rebuild(
    projection: Arc<Registered>,
    settings: &Settings,
    me: &str,
    stop: &CancellationToken,
    mut tell: impl FnMut(Progress),
) -> Result<Progress> {
    let connector = Connector::new(&settings.redis)?;
    connector.learn().await?;
    let mut runner = Runner::new(projection, settings, &connector, me, Alone::default())?;
    runner.is_rebuild = true;
    let mut progress = Progress::default();
    let mut link = None;
    let mut served = Vec::new();
    for partition in std::mem::take(&mut runner.partitions) {
        lead_to(&mut runner, &mut link, &connector, &partition);
        runner.partitions = vec![partition];
        let generation = build(&mut runner, &mut link, &mut progress, stop, &mut tell).await?;
        served.push((runner.partitions.remove(0), generation));
    }
    tokio::time::sleep(GRACE).await;
    for (partition, generation) in &served {
        lead_to(&mut runner, &mut link, &connector, partition);
        clear(&mut runner, &mut link, partition, |old| old < *generation).await?;
    }
    Ok(progress)
}

/// Has the connection lead to where a partition is.
fn lead_to(runner: &mut Runner, slot: &mut Option<Link>, all: &Connector, partition: &Partition) {
    runner.connector = all.at(&partition.keys.stream);
    if all.is_cluster() {
        *slot = None;
    }
}

/// Builds one partition's view, until it is served.
async fn build(
    runner: &mut Runner,
    slot: &mut Option<Link>,
    progress: &mut Progress,
    stop: &CancellationToken,
    tell: &mut impl FnMut(Progress),
) -> Result<u64> {
    let keys = runner.partitions[0].keys.clone();
    let name = runner.rules.projection.name;
    let begun = connected(runner, slot)
        .await?
        .begin_rebuild(acting!(runner, &keys))
        .await;
    let (generation, beside) = match begun.map_err(Trouble::into_error)? {
        Begun::Yours {
            generation,
            beside,
            passed,
        } => {
            progress.of += passed;
            (generation, beside)
        }
        Begun::Busy(whose, left) => {
            let message = format!(
                "{whose} builds {name} of {} anew; if it is gone, this can be tried again in {} s",
                keys.stream,
                left.as_secs() + 1
            );
            return Err(Error::new(ErrorKind::Exists, message));
        }
    };
    let partition = Partition::new(runner.partitions[0].number, keys.clone());
    // Left by those who were interrupted.
    clear(runner, slot, &partition, |old| {
        beside < old && old < generation
    })
    .await?;
    let before = progress.built;
    let (mut pause, mut failed, mut stuck) = (Pause::new(), 0, None);
    loop {
        let done = match runner.round(slot).await {
            Ok(()) if stop.is_cancelled() => Err(stopped(name)),
            Ok(()) => step(runner, slot, generation, beside, &mut stuck).await,
            Err(trouble) => Err(trouble),
        };
        progress.built = before + runner.partitions[0].passed;
        tell(*progress);
        match done {
            Ok(true) => return Ok(generation),
            Ok(false) => failed = 0,
            Err(Trouble::Broken(_) | Trouble::Elsewhere(_) | Trouble::Wait(_))
                if failed < TRIES && !stop.is_cancelled() =>
            {
                failed += 1;
                *slot = None;
                tokio::time::sleep(pause.next()).await;
            }
            Err(trouble) => {
                // Whoever begins anew need not wait for our lease.
                if let Some(link) = slot {
                    let _ = link
                        .lease_projection(acting!(runner, &keys), LeaseStep::Leave)
                        .await;
                }
                return Err(trouble.into_error());
            }
        }
    }
}

fn stopped(name: &str) -> Trouble {
    let message = format!("stopped; the view of {name} that is served stays as it was");
    Trouble::Refused(Error::new(ErrorKind::Internal, message))
}

/// Has the view served where it is as far as the one that is. Answers whether it is by now.
async fn step(
    runner: &mut Runner,
    slot: &mut Option<Link>,
    generation: u64,
    beside: u64,
    stuck: &mut Option<(EntryId, EntryId, Instant)>,
) -> Result<bool, Trouble> {
    let (name, partition) = (runner.rules.projection.name, &runner.partitions[0]);
    let stream = &partition.keys.stream;
    let gone = || {
        let message = format!("another has begun to build {name} of {stream} anew meanwhile");
        Trouble::Refused(Error::new(ErrorKind::Exists, message))
    };
    if let Some((at, why)) = &partition.halted {
        let message = format!(
            "stopped before the bad event {at} of {stream}, as projections.{name:?}.on_bad_event says; what was served \
             still is: {why}"
        );
        return Err(Trouble::Refused(Error::new(ErrorKind::Invalid, message)));
    }
    // Where it stands is not known while it is looked up anew.
    let is_anothers = partition
        .stand()
        .is_some_and(|stand| stand.generation != generation);
    if partition.lost || is_anothers {
        return Err(gone());
    }
    if !matches!(partition.state, State::Live(_)) || !runner.is_at_end {
        return Ok(false);
    }
    let link = slot.as_mut().ok_or_else(gone)?;
    match link
        .switch_over(acting!(runner, &partition.keys), generation, beside)
        .await?
    {
        Switched::Done => Ok(true),
        // All that there is to read is in it. Where that does not lead to what is served, nothing will.
        Switched::Behind { at, served } => match stuck {
            Some((was, then, since)) if (*was, *then) == (at, served) => {
                if since.elapsed() < STUCK.max(runner.lease * 2) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    return Ok(false);
                }
                let message = format!(
                    "{name} can't be built anew: what is served stands at {served} of {stream}, and all that there is to \
                     read leads to {at}; what was served still is"
                );
                Err(Trouble::Refused(Error::new(ErrorKind::Invalid, message)))
            }
            _ => {
                *stuck = Some((at, served, Instant::now()));
                Ok(false)
            }
        },
        Switched::Gone => Err(gone()),
    }
}

/// Deletes views of generations that nobody reads.
async fn clear(
    runner: &mut Runner,
    slot: &mut Option<Link>,
    partition: &Partition,
    is_old: impl Fn(u64) -> bool,
) -> Result<()> {
    let mut cursor = 0;
    loop {
        let link = connected(runner, slot).await?;
        let cleared = link.clear_views(&partition.keys, cursor, &is_old).await;
        cursor = cleared.map_err(Trouble::into_error)?;
        if cursor == 0 {
            return Ok(());
        }
    }
}

async fn connected<'a>(runner: &Runner, slot: &'a mut Option<Link>) -> Result<&'a mut Link> {
    let patience = Duration::from_secs(30);
    reconnect::connected(slot, runner.connector.connect_alone(&runner.me, patience)).await
}
