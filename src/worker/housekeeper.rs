//! The housekeeper: once a lease it mends what hands other than ours have broken: parked entries that no due time
//! names get one, failure records that belong to nothing go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::stream::{Link, Trouble};

/// Once in so many leases one worker of the group goes through everything, whether something seems to be missing or
/// not: with a million parked entries that takes Redis seconds.
const THOROUGH: u32 = 10;

/// Tidies until it is dropped. What fails is tried again at the next round: nothing waits for it.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut link = None;
    shared.joined.cancelled().await;
    // What has come about before a worker began is left alone as long as what comes about later.
    let mut thorough_at = Instant::now() + shared.lease * THOROUGH;
    loop {
        // Not all workers of a fleet at once.
        tokio::time::sleep(shared.lease.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
        let thorough = Instant::now() >= thorough_at;
        if thorough {
            thorough_at = Instant::now() + shared.lease * THOROUGH;
        }
        if let Err(trouble) = round(&shared, &mut link, thorough).await {
            tracing::debug!("{}", trouble.error());
            if let Trouble::Broken(_) = trouble {
                link = None;
            }
        }
    }
}

async fn round(shared: &Shared, slot: &mut Option<Link>, wants: bool) -> Result<(), Trouble> {
    let link = match slot {
        Some(link) => link,
        None => slot.insert(
            shared
                .connect("tidy", Duration::from_secs(10))
                .await
                .map_err(Trouble::Broken)?,
        ),
    };
    for source in shared.active_sources() {
        let group = &source.surroundings.group;
        let rest = shared.lease * (THOROUGH - 1);
        let thorough = wants
            && link
                .takes_turn(&source.keys, &shared.consumer, rest)
                .await?;
        let (mut from, mut mended) = (Some("-".to_owned()), 0);
        while let Some(at) = from {
            let (next, count) = link.mend(&source.keys, group, &at, thorough).await?;
            (from, mended) = (next, mended + count);
        }
        if mended > 0 {
            let stream = &source.keys.stream;
            tracing::warn!(
                stream,
                mended,
                "parked entries had lost their due time: they are due now"
            );
            shared.due_in(Duration::ZERO);
        }
        let mut cursor = "0".to_owned();
        loop {
            cursor = link.sweep(&source.keys, group, &cursor, thorough).await?;
            if cursor == "0" {
                break;
            }
            // A long hash is gone through at leisure.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}
