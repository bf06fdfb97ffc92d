//! Joins the groups of a worker's streams, and makes those that are not there.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::policy::Breakers;
use crate::stream::{Join, Joined, Link, PROTOCOL, Trouble};
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// Joins groups. What refuses to be joined waits by itself.
pub(crate) struct Joiner {
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    breakers: Arc<Breakers>,
    refusals: Refusals,
}

impl Joiner {
    pub fn new(signals: Arc<Signals>, sources: Arc<Sources>, breakers: Arc<Breakers>) -> Self {
        Joiner {
            signals,
            sources,
            breakers,
            refusals: Refusals::default(),
        }
    }

    /// Joins the group of every stream.
    pub async fn join_all(&mut self, link: &mut Link) -> Result<(), Trouble> {
        for source in self.sources.all() {
            self.try_to_join(link, &source).await?;
        }
        Ok(())
    }

    /// Joins the groups that could not be joined so far.
    pub async fn join_barred(&mut self, link: &mut Link) -> Result<(), Trouble> {
        for source in self.sources.all() {
            if source.is_barred() {
                self.try_to_join(link, &source).await?;
            }
        }
        Ok(())
    }

    /// Joins a group, unless that was refused a moment ago. If it is refused, its stream waits by itself.
    async fn try_to_join(&mut self, link: &mut Link, source: &Source) -> Result<(), Trouble> {
        let stream = &source.keys.stream;
        if self.refusals.wait(Chore::Join, stream).is_some() {
            return Ok(());
        }
        let is_first = source.known().is_none() && !source.deletes();
        let joined = self.join(link, source).await;
        if link.is_over() && joined.is_err() {
            // Not the stream's fault, and nothing more can be had over this link.
            return joined;
        }
        let joined = self.refusals.heard(Chore::Join, stream, joined)?;
        if joined.is_some() && is_first {
            self.inherit_breakers(link, source).await?;
        }
        if source.is_barred() && joined.is_some() {
            tracing::info!(stream, "the group can be joined now");
        }
        source.set_barred(joined.is_none());
        Ok(())
    }

    async fn join(&self, link: &mut Link, source: &Source) -> Result<(), Trouble> {
        let (group, stream) = (&source.surroundings.group, &source.keys.stream);
        let (known, start) = (source.known(), source.start);
        loop {
            let Join {
                how,
                known: now,
                brought,
                more,
            } = link
                .join(&source.keys, group, start, known.as_ref())
                .await?;
            match how {
                Joined::There => {}
                Joined::Created(at) => {
                    tracing::info!(group, stream, begins_at = at, "the group is new")
                }
                Joined::Restored(at) => {
                    tracing::warn!(
                        group,
                        stream,
                        begins_at = at,
                        "the group had been deleted and was made anew"
                    );
                }
                Joined::Foreign(protocol) => return Err(foreign(group, stream, &protocol)),
            }
            if brought > 0 {
                tracing::warn!(
                    group,
                    stream,
                    count = brought,
                    "the group had been deleted, and a worker that could not know it made one that begins at the end: \
                     what came in between comes now"
                );
                self.signals.due_in(Duration::ZERO);
            }
            if !more {
                source.joined(now);
                return Ok(());
            }
        }
    }

    /// The breakers that the group has open as this worker begins: it begins with those. If it can't be told of them, it
    /// begins without.
    async fn inherit_breakers(&self, link: &mut Link, source: &Source) -> Result<(), Trouble> {
        match link.open_breakers(&source.keys).await {
            Ok(open) => self.breakers.inherit(&open),
            Err(Trouble::Refused(refused)) => {
                tracing::warn!("{refused}; circuit breakers begin closed");
            }
            Err(trouble) => return Err(trouble),
        }
        Ok(())
    }
}

fn foreign(group: &str, stream: &str, protocol: &str) -> Trouble {
    Trouble::Refused(Error::new(
        ErrorKind::Protocol,
        format!(
            "the group {group:?} of {stream:?} is worked on by a newer release (protocol {protocol}; this one speaks \
             {PROTOCOL}): update this worker"
        ),
    ))
}
