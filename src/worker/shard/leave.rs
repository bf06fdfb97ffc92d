//! How a worker leaves its groups.

use std::sync::Arc;
use std::time::Duration;

use super::links::Links;
use crate::stream::{Trouble, Wants, Wish};
use crate::worker::state::identity::Identity;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::Sources;

/// Takes the consumers of a worker along when it stops.
pub(crate) struct Leaving {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    links: Arc<Links>,
}

impl Leaving {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        links: Arc<Links>,
    ) -> Self {
        Leaving {
            identity,
            signals,
            sources,
            links,
        }
    }

    /// Leaves the groups. Consumers that still hold something stay.
    pub async fn leave(self) {
        if let Err(trouble) = self.try_to_leave().await {
            tracing::debug!("{}", trouble.error());
        }
    }

    async fn try_to_leave(&self) -> Result<(), Trouble> {
        if !self.signals.duties.is_on() {
            return Ok(());
        }
        let mut link = self
            .links
            .connect("leave", Duration::from_secs(2))
            .await
            .map_err(Trouble::Broken)?;
        for source in self.sources.active() {
            for consumer in [false, true].map(|alone| self.identity.consumer(alone)) {
                match link
                    .forget(&source.keys, &self.identity.group, consumer, None)
                    .await
                {
                    Err(trouble) if trouble.ends_the_link() => return Err(trouble),
                    Err(trouble) => tracing::debug!("{}", trouble.error()),
                    Ok(_) => {}
                }
            }
            if source.order.is_some() && !source.deletes() {
                let (me, lease) = (&self.identity.name, self.identity.lease);
                let leaves = Wish {
                    is_there: false,
                    wants: Wants::Release,
                    clock: None,
                };
                link.own(&source.keys, me, lease, leaves).await?;
            }
            link.note_leaving(&source.keys).await?;
        }
        Ok(())
    }
}
