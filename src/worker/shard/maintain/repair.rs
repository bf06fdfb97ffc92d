//! Repair: once a lease this mends what hands other than ours have broken: parked entries that no due time
//! names get one, failure records that belong to nothing go. What is to be trimmed is, in between, over the same
//! connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::trimmer::Trimmer;
use crate::stream::{Link, Trouble};
use crate::worker::shard::links::KeptLink;
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::shard::unit::Shard;
use crate::worker::state::source::Source;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Once in so many leases one worker of the group goes through everything, whether something seems to be missing or
/// not: with a million parked entries that takes Redis seconds.
const THOROUGH: u32 = 10;

/// Tidies until it is dropped. What fails is tried again at the next round: nothing waits for it.
pub(crate) async fn run(shard: Arc<Shard>, mut trimmer: Trimmer) {
    let mut link = KeptLink::new(shard.links.clone(), "tidy", ANSWER);
    let (mut refusals, mut said) = (Refusals::default(), None);
    shard.signals.joined().await;
    if let Err(trouble) = connected(&mut link, &mut said).await {
        tracing::debug!("{}", trouble.error());
    }
    // What has come about before a worker began is left alone as long as what comes about later.
    let mut thorough_at = Instant::now() + shard.identity.lease * THOROUGH;
    // Not all workers of a fleet at once.
    let spread = || shard.identity.lease.mul_f64(0.75 + 0.5 * fastrand::f64());
    let mut tidy_at = Instant::now() + spread();
    loop {
        tokio::time::sleep_until(tidy_at.min(trimmer.next()).into()).await;
        let done = match connected(&mut link, &mut said).await {
            Err(trouble) => Err(trouble),
            Ok(link) if Instant::now() >= tidy_at => {
                let thorough = Instant::now() >= thorough_at;
                if thorough {
                    thorough_at = Instant::now() + shard.identity.lease * THOROUGH;
                }
                let done = round(&shard, link, &mut refusals, thorough).await;
                tidy_at = Instant::now() + spread();
                done
            }
            Ok(link) => trimmer.round(&shard, link).await,
        };
        if let Err(trouble) = done {
            tracing::debug!("{}", trouble.error());
            if trouble.ends_the_link() {
                link.broke();
                // The others say what is wrong with the server; here nothing is in a hurry.
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}

/// The connection, made where there is none. Of each server it is said once if it may delete what is needed.
async fn connected<'a>(
    kept: &'a mut KeptLink,
    said: &mut Option<String>,
) -> Result<&'a mut Link, Trouble> {
    if !kept.is_there() {
        let warning = kept.get().await?.eviction().await;
        let warning = match warning {
            Ok(eviction) => eviction.warning(),
            Err(trouble) => {
                kept.broke();
                return Err(trouble);
            }
        };
        if let Some(warning) = warning.as_ref().filter(|_| warning != *said) {
            tracing::warn!("{warning}");
        }
        *said = warning;
    }
    kept.get().await
}

async fn round(
    shard: &Shard,
    link: &mut Link,
    refusals: &mut Refusals,
    wants: bool,
) -> Result<(), Trouble> {
    for source in shard.sources.active() {
        let stream = &source.keys.stream;
        let thorough = wants && {
            let rest = shard.identity.lease * (THOROUGH - 1);
            let taken = link
                .takes_turn(&source.keys, &shard.identity.name, rest)
                .await;
            refusals.heard(Chore::Turn, stream, taken)?.unwrap_or(false)
        };
        let mended = mend(shard, link, &source, thorough).await;
        refusals.heard(Chore::Mend, stream, mended)?;
        let swept = sweep(link, &source, thorough).await;
        refusals.heard(Chore::Sweep, stream, swept)?;
        let unlisted = unlist(link, &source).await;
        refusals.heard(Chore::Unlist, stream, unlisted)?;
    }
    Ok(())
}

async fn mend(
    shard: &Shard,
    link: &mut Link,
    source: &Source,
    thorough: bool,
) -> Result<(), Trouble> {
    let (group, stream) = (&source.surroundings.group, &source.keys.stream);
    let (mut from, mut mended) = (Some("-".to_owned()), 0);
    while let Some(at) = from {
        let (next, count) = link.mend(&source.keys, group, &at, thorough).await?;
        (from, mended) = (next, mended + count);
    }
    if mended > 0 {
        tracing::warn!(
            stream,
            mended,
            "parked entries had lost their due time: they are due now"
        );
        shard.signals.due_in(Duration::ZERO);
    }
    Ok(())
}

async fn sweep(link: &mut Link, source: &Source, thorough: bool) -> Result<(), Trouble> {
    let (group, mut cursor) = (&source.surroundings.group, "0".to_owned());
    loop {
        cursor = link.sweep(&source.keys, group, &cursor, thorough).await?;
        if cursor == "0" {
            return Ok(());
        }
        // A long hash is gone through at leisure.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn unlist(link: &mut Link, source: &Source) -> Result<(), Trouble> {
    let mut cursor = "0".to_owned();
    while source.has_waiting() || cursor != "0" {
        cursor = link.unlist(&source.keys, &cursor).await?;
        if cursor == "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
