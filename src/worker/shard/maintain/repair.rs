//! Repair: once a lease this mends what hands other than ours have broken: parked entries that no due time
//! names get one, failure records that belong to nothing go. What is to be trimmed is, in between, over the same
//! connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::trimmer::Trimmer;
use crate::stream::{Link, Trouble};
use crate::worker::pace::tidying::mend_in;
use crate::worker::shard::links::Links;
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::identity::Identity;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// Once in so many leases one worker of the group looks whether something is missing though nothing seems to be,
const THOROUGH: u32 = 10;
/// in so many steps: the next one goes on behind them. A million parked entries are gone through in a hundred looks.
const SLICE: usize = 10;
/// How many records are swept by as many steps as ten thousand entries are mended by.
const SWEEPS: usize = 5 * SLICE;
/// Between two steps: what is long is gone through at leisure.
const BREATH: Duration = Duration::from_millis(10);
/// The others say what is wrong with the server; here nothing is in a hurry.
const AFTER_TROUBLE: Duration = Duration::from_secs(2);

/// Mends, and trims in between.
pub(crate) struct Repair {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    trimmer: Trimmer,
    line: TidyLine,
    refusals: Refusals,
}

impl Repair {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        links: Arc<Links>,
        trimmer: Trimmer,
    ) -> Self {
        Repair {
            identity,
            signals,
            sources,
            trimmer,
            line: TidyLine::new(links),
            refusals: Refusals::default(),
        }
    }

    /// Mends until it is dropped. What fails is tried again at the next round: nothing waits for it.
    pub async fn run(mut self) {
        self.signals.joined().await;
        self.signals.duties.on().await;
        if let Err(trouble) = self.line.get().await {
            tracing::debug!("{}", trouble.error());
        }
        let lease = self.identity.lease;
        // What has come about before a worker began is left alone as long as what comes about later.
        let mut thorough_at = Instant::now() + lease * THOROUGH;
        let mut tidy_at = Instant::now() + mend_in(lease);
        loop {
            tokio::time::sleep_until(tidy_at.min(self.trimmer.next()).into()).await;
            self.signals.duties.on().await;
            let mut link = match self.line.get().await {
                Ok(link) => link,
                Err(trouble) => {
                    tracing::debug!("{}", trouble.error());
                    tokio::time::sleep(AFTER_TROUBLE).await;
                    continue;
                }
            };
            let done = if Instant::now() >= tidy_at {
                let thorough = Instant::now() >= thorough_at;
                if thorough {
                    thorough_at = Instant::now() + lease * THOROUGH;
                }
                let done = self.round(&mut link, thorough).await;
                tidy_at = Instant::now() + mend_in(lease);
                done
            } else {
                self.trimmer.round(&mut link).await
            };
            if let Err(trouble) = done {
                tracing::debug!("{}", trouble.error());
                if trouble.ends_the_link() {
                    self.line.broke(&link).await;
                    tokio::time::sleep(AFTER_TROUBLE).await;
                }
            }
        }
    }

    async fn round(&mut self, link: &mut Link, wants: bool) -> Result<(), Trouble> {
        let refusals = &mut self.refusals;
        for source in self.sources.active() {
            let stream = &source.keys.stream;
            let thorough = wants && {
                let rest = self.identity.lease * (THOROUGH - 1);
                let taken = link
                    .takes_turn(&source.keys, &self.identity.name, rest)
                    .await;
                refusals.heard(Chore::Turn, stream, taken)?.unwrap_or(false)
            };
            let to = match thorough {
                true => {
                    let to = link.tidied_to(&source.keys).await;
                    refusals.heard(Chore::Turn, stream, to)?.flatten()
                }
                false => None,
            };
            let (from, cursor) = to.unwrap_or_else(|| ("-".to_owned(), "0".to_owned()));
            let mended = mend(&self.signals, link, &source, thorough.then_some(from)).await;
            let next = refusals.heard(Chore::Mend, stream, mended)?.flatten();
            let swept = sweep(link, &source, thorough.then_some(cursor)).await;
            let cursor = refusals.heard(Chore::Sweep, stream, swept)?;
            if thorough {
                let next = (
                    next.unwrap_or("-".to_owned()),
                    cursor.unwrap_or("0".to_owned()),
                );
                let lasts = self.identity.lease * THOROUGH * 10;
                let noted = link
                    .note_tidied(&source.keys, (&next.0, &next.1), lasts)
                    .await;
                refusals.heard(Chore::Turn, stream, noted)?;
            }
            let unlisted = unlist(link, &source).await;
            refusals.heard(Chore::Unlist, stream, unlisted)?;
        }
        Ok(())
    }
}

/// The connection that is shared with all that no entry waits for. Of each server it is said once if it may delete what is
/// needed.
struct TidyLine {
    links: Arc<Links>,
    /// The connection whose server was asked last.
    asked: Option<i64>,
    said: Option<String>,
}

impl TidyLine {
    fn new(links: Arc<Links>) -> Self {
        TidyLine {
            links,
            asked: None,
            said: None,
        }
    }

    async fn get(&mut self) -> Result<Link, Trouble> {
        let mut link = self.links.tidy_link().await.map_err(Trouble::Broken)?;
        let client = Some(link.greeting.client);
        if self.asked == client {
            return Ok(link);
        }
        match link.eviction().await {
            Ok(eviction) => {
                let warning = eviction.warning();
                if let Some(warning) = warning.as_ref().filter(|_| warning != self.said) {
                    tracing::warn!("{warning}");
                }
                (self.said, self.asked) = (warning, client);
                Ok(link)
            }
            Err(trouble) => {
                self.broke(&link).await;
                Err(trouble)
            }
        }
    }

    async fn broke(&self, link: &Link) {
        self.links.tidy_link_broke(link).await;
    }
}

/// Mends everything if something seems to be missing; `from` somewhere on a slice, whether it does or not. Returns where
/// the next slice begins.
async fn mend(
    signals: &Signals,
    link: &mut Link,
    source: &Source,
    from: Option<String>,
) -> Result<Option<String>, Trouble> {
    let (group, stream) = (&source.surroundings.group, &source.keys.stream);
    let thorough = from.is_some();
    let steps = if thorough { SLICE } else { usize::MAX };
    let (mut from, mut mended) = (from.or_else(|| Some("-".to_owned())), 0);
    for _ in 0..steps {
        let Some(at) = from else { break };
        let (next, count) = link.mend(&source.keys, group, &at, thorough).await?;
        (from, mended) = (next, mended + count);
        if from.is_some() {
            tokio::time::sleep(BREATH).await;
        }
    }
    if mended > 0 {
        tracing::warn!(
            stream,
            mended,
            "parked entries had lost their due time: they are due now"
        );
        signals.due_in(Duration::ZERO);
    }
    Ok(from)
}

/// Sweeps everything if there seem to be too many records; `from` somewhere on a slice, whether there do or not. Returns
/// where the next slice begins.
async fn sweep(link: &mut Link, source: &Source, from: Option<String>) -> Result<String, Trouble> {
    let group = &source.surroundings.group;
    let thorough = from.is_some();
    let steps = if thorough { SWEEPS } else { usize::MAX };
    let mut cursor = from.unwrap_or_else(|| "0".to_owned());
    for _ in 0..steps {
        cursor = link.sweep(&source.keys, group, &cursor, thorough).await?;
        if cursor == "0" {
            break;
        }
        tokio::time::sleep(BREATH).await;
    }
    Ok(cursor)
}

async fn unlist(link: &mut Link, source: &Source) -> Result<(), Trouble> {
    let mut cursor = "0".to_owned();
    while source.has_waiting() || cursor != "0" {
        cursor = link.unlist(&source.keys, &cursor).await?;
        if cursor == "0" {
            break;
        }
        tokio::time::sleep(BREATH).await;
    }
    Ok(())
}
