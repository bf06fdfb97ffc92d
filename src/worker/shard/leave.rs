//! How a worker leaves its groups.

use std::time::Duration;

use super::unit::Shard;
use crate::stream::Trouble;

/// A stopping worker takes its consumers along, where they hold nothing.
pub(crate) async fn leave(shard: &Shard) {
    let leave = async {
        let mut link = shard
            .links
            .connect("leave", Duration::from_secs(2))
            .await
            .map_err(Trouble::Broken)?;
        for source in shard.sources.active() {
            for consumer in [false, true].map(|alone| shard.identity.consumer(alone)) {
                match link
                    .forget(&source.keys, &shard.identity.group, consumer, None)
                    .await
                {
                    Err(trouble) if trouble.ends_the_link() => return Err(trouble),
                    Err(trouble) => tracing::debug!("{}", trouble.error()),
                    Ok(_) => {}
                }
            }
            link.note_leaving(&source.keys).await?;
        }
        Ok::<(), Trouble>(())
    };
    if let Err(trouble) = leave.await {
        tracing::debug!("{}", trouble.error());
    }
}
