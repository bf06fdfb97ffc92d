//! The scheduler: adds scheduled events to their streams when their time has come. Whichever worker of whichever group
//! comes first adds them, and the others find nothing.
//!
//! When the next one is due is told by every wake, so that a worker at rest asks for nothing more, and has no
//! connection for it. A worker without room wakes nothing, nor does one that stops: where no wake was answered for a
//! while, this looks by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::crons::Crons;
use crate::cron::{GRACE, SUSPENDED};
use crate::error::Result;
use crate::handler::Cron;
use crate::names::shown;
use crate::reconnect::sleep_until;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{Link, StreamKeys, Trouble, time};
use crate::worker::shard::links::{KeptLink, Links};
use crate::worker::state::next_due::SILENCE;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// And then so often: less than a second, by which an event may be late that was scheduled meanwhile.
const LOOK: Duration = Duration::from_millis(800);
/// The least time between two looks: due times close together are met together.
const LEAST: Duration = Duration::from_millis(50);
/// The same where more is due than one look brings: others are to have their turn at Redis.
const BETWEEN: Duration = Duration::from_millis(2);
/// How long it is known what was added to a later generation of a topic.
const MARK: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest wait between two attempts.
const PATIENCE: Duration = Duration::from_secs(1);

/// One stream, and how often adding to it was refused.
struct Stream {
    source: Arc<Source>,
    keys: StreamKeys,
    /// Those whose occurrences stand on its schedule.
    crons: Crons,
    pause: Pause,
    complaint: Complaint,
}

/// Adds events when they are due.
pub(crate) struct Scheduler {
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    link: KeptLink,
    crons: Arc<[(String, Arc<Cron>)]>,
}

impl Scheduler {
    pub fn new(
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        links: Arc<Links>,
        crons: Arc<[(String, Arc<Cron>)]>,
    ) -> Self {
        Scheduler {
            signals,
            sources,
            link: KeptLink::new(links, "schedule", ANSWER),
            crons,
        }
    }

    /// Adds what is due until it is dropped.
    pub async fn run(mut self) {
        self.signals.joined().await;
        let crons = self.crons.clone();
        let stream = |source: &Arc<Source>| Stream::new(source, &crons);
        let mut streams: Vec<Stream> = self.sources.named().iter().map(stream).collect();
        let mut pause = Pause::new();
        loop {
            // More come when a topic grows.
            let named = self.sources.named();
            if named.len() > streams.len() {
                streams.extend(named[streams.len()..].iter().map(stream));
            }
            let next = streams.iter().filter_map(Stream::next);
            tokio::select! {
                () = sleep_until(next.min()) => {}
                () = self.signals.scheduled_sooner() => continue,
            }
            self.signals.duties.on().await;
            match round(&mut self.link, &mut streams).await {
                Ok(()) => pause.reset(),
                Err(trouble) => {
                    // The fetcher says that Redis is away.
                    tracing::debug!("{}", trouble.error());
                    self.link.broke();
                    tokio::time::sleep(pause.next().min(PATIENCE)).await;
                }
            }
        }
    }
}

/// Looks at every stream whose time it is. Fails where the connection is of no more use.
async fn round(link: &mut KeptLink, streams: &mut [Stream]) -> std::result::Result<(), Trouble> {
    for stream in streams {
        if stream.next() > Some(Instant::now()) {
            continue;
        }
        stream.look(link.get().await?).await?;
    }
    Ok(())
}

impl Stream {
    fn new(source: &Arc<Source>, crons: &[(String, Arc<Cron>)]) -> Self {
        let now = Instant::now();
        // The first wake is about to come, or has.
        source.schedule.known().look.get_or_insert(now + SILENCE);
        Stream {
            source: source.clone(),
            crons: Crons::of(crons, &source.keys.stream),
            keys: StreamKeys::new(&source.keys.stream),
            pause: Pause::new(),
            complaint: Complaint::default(),
        }
    }

    /// When to look next.
    fn next(&self) -> Option<Instant> {
        let next = self.source.schedule.next();
        next.into_iter().chain(self.crons.next()).min()
    }

    async fn look(&mut self, link: &mut Link) -> std::result::Result<(), Trouble> {
        let stream = &self.keys.stream;
        // What a worker declares is known before it adds anything: it may have been suspended.
        let planned = self.crons.plan(link, &self.keys).await?;
        let due = match link.add_due(&self.keys, (GRACE, SUSPENDED)).await {
            Ok(due) => due,
            Err(trouble) if trouble.ends_the_link() => return Err(trouble),
            Err(sealed) if sealed.is_sealed() => {
                // What is paused is taken off before the rest is moved on.
                self.crons.look();
                self.crons.plan(link, &self.keys).await?;
                let moved = self.move_on().await;
                if let Err(refused) = &moved {
                    self.complaint.warn(refused.to_string());
                }
                let mut known = self.source.schedule.known();
                known.learn(None, LOOK);
                let pause = match moved {
                    Ok(()) => BETWEEN,
                    Err(_) => self.pause.next().min(PATIENCE),
                };
                known.not_before = Some(Instant::now() + pause);
                return Ok(());
            }
            Err(refused) => {
                self.complaint.warn(refused.error().to_string());
                let mut known = self.source.schedule.known();
                known.learn(None, LOOK);
                known.not_before = Some(Instant::now() + self.pause.next().min(PATIENCE));
                return Ok(());
            }
        };
        self.pause.reset();
        self.complaint.clear();
        if due.added > 0 {
            tracing::debug!(stream, added = due.added, "scheduled events were due");
        }
        if let Some(first) = due.gone.first() {
            let count = due.gone.len();
            tracing::error!(
                stream,
                count,
                first = %shown(first),
                "LOST: deleted from {}",
                self.keys.events
            );
        }
        self.crons.added(due.now_ms);
        let again = self.crons.plan(link, &self.keys).await?;
        let next = due.next.into_iter().chain(planned).chain(again).min();
        let more = due.added > 0 && next == Some(Duration::ZERO);
        let mut known = self.source.schedule.known();
        known.learn(next, LOOK);
        known.not_before = Some(Instant::now() + if more { BETWEEN } else { LEAST });
        Ok(())
    }

    /// Adds what is due to where the topic has grown to: the stream is sealed that it was scheduled for. Each is added
    /// with a mark by which a repeat is known, and taken off after that.
    async fn move_on(&self) -> Result<()> {
        let Some(pool) = &self.source.surroundings.pool else {
            return Ok(());
        };
        let now = pool.now().await?;
        let (kept, _) = pool.scheduled(&self.keys, None).await?;
        for event in kept.iter().take_while(|event| time(event.due_ms) <= now) {
            pool.move_on(&self.keys, event, MARK).await?;
        }
        Ok(())
    }
}
