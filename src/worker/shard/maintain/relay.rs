//! The relay: on a cluster, what handlers have emitted to streams of other slots waits in an outbox beside the stream whose
//! entries were handled, and goes to the other streams from here. Any worker of any group does it; a short turn sees to
//! it that mostly one does, and marks at the other stream see to it that nothing gets there twice if two do.
//!
//! It is told of what its own worker has committed. What others have left behind it finds by looking, every few seconds.
//! Each of the other streams has its own queue and its own turn: one that refuses holds up only what is for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::partition::Partition;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{OutboxKeys, Pool, RelayTurn, Relayed, Trouble, Waiting};
use crate::worker::pace::relays::look_in;
use crate::worker::shard::links::Links;
use crate::worker::state::identity::Identity;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// How long a mark lasts. What waits longer after somebody may have added it is added again: a duplicate, never a loss.
const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a turn lasts without being taken again. If its relay is frozen, or waits for an answer for longer, two may be
/// at it: marks see to that.
const TURN: Duration = Duration::from_secs(4);
/// Other streams that are added to at once, of each stream.
const AT_ONCE: usize = 8;
/// The longest wait before a stream that refuses is tried again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Relays what was emitted to other slots.
pub(crate) struct Relay {
    signals: Arc<Signals>,
    identity: Arc<Identity>,
    sources: Arc<Sources>,
    links: Arc<Links>,
}

/// The outbox of one stream.
struct Outbox {
    signals: Arc<Signals>,
    source: Arc<Source>,
    by: Arc<By>,
    /// The other streams that something waits for, or lately did.
    targets: BTreeMap<String, Standing>,
    running: JoinSet<(Target, Ended)>,
    look_at: Instant,
}

/// What the steps are made by.
struct By {
    identity: Arc<Identity>,
    links: Arc<Links>,
    keys: OutboxKeys,
    pool: Pool,
}

/// How it is with one of the other streams.
enum Standing {
    /// It is the turn of a task; whether more was emitted meanwhile.
    Relaying {
        more: bool,
    },
    Waits(Target, Instant),
}

/// What is known of one of the other streams.
struct Target {
    name: String,
    pause: Pause,
    complaint: Complaint,
}

/// Why a task has ended.
enum Ended {
    /// Nothing waits any more.
    Empty,
    /// There is nothing to do for so long.
    Later(Duration),
}

impl Relay {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        links: Arc<Links>,
    ) -> Self {
        Relay {
            signals,
            identity,
            sources,
            links,
        }
    }

    /// Relays until it is dropped. On one server there is nothing to relay, and this ends.
    pub async fn run(self) {
        self.signals.joined().await;
        let mut pause = Pause::new();
        let is_cluster = loop {
            match self.links.tidy_link().await {
                Ok(link) => break link.greeting.is_cluster,
                // The fetcher says that Redis is away.
                Err(error) => tracing::debug!("{error}"),
            }
            tokio::time::sleep(pause.next()).await;
        };
        if !is_cluster {
            return;
        }
        let named = self.sources.named();
        let outboxes = named.iter().filter_map(|source| {
            let by = By {
                identity: self.identity.clone(),
                links: self.links.clone(),
                keys: source.keys.outbox.clone(),
                pool: source.surroundings.pool.clone()?,
            };
            let outbox = Outbox {
                signals: self.signals.clone(),
                source: source.clone(),
                by: Arc::new(by),
                targets: BTreeMap::new(),
                running: JoinSet::new(),
                look_at: Instant::now(),
            };
            Some(outbox.run())
        });
        join_all(outboxes).await;
    }
}

impl Outbox {
    async fn run(mut self) {
        loop {
            self.begin_what_may();
            let source = self.source.clone();
            let next = self.next();
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = source.emits.more() => self.emitted(source.emits.take()),
                Some(ended) = self.running.join_next(), if !self.running.is_empty() => {
                    // If it panicked, another worker goes on, and this one after its next look.
                    if let Ok((target, ended)) = ended {
                        self.ended(target, ended);
                    }
                }
            }
            if Instant::now() >= self.look_at {
                self.look().await;
            }
        }
    }

    /// When to do something though nothing happens.
    fn next(&self) -> Instant {
        let is_full = self.running.len() >= AT_ONCE;
        let waits = self.targets.values().filter_map(|standing| match standing {
            Standing::Waits(target, at) if !is_full && !self.comes_behind(&target.name) => {
                Some(*at)
            }
            _ => None,
        });
        waits.chain([self.look_at]).min().unwrap_or(self.look_at)
    }

    fn emitted(&mut self, targets: BTreeSet<String>) {
        for name in targets {
            match self.targets.get_mut(&name) {
                Some(Standing::Relaying { more }) => *more = true,
                // Whoever has the turn finds it, and who was refused waits.
                Some(Standing::Waits(..)) => {}
                None => self.waits(Target::new(name), Instant::now()),
            }
        }
    }

    fn waits(&mut self, target: Target, at: Instant) {
        let name = target.name.clone();
        self.targets.insert(name, Standing::Waits(target, at));
    }

    fn begin_what_may(&mut self) {
        let now = Instant::now();
        let is_due = |standing: &Standing| matches!(standing, Standing::Waits(_, at) if *at <= now);
        while self.running.len() < AT_ONCE {
            let due = self.targets.iter();
            let due = due
                .filter(|(_, standing)| is_due(standing))
                .find(|(name, _)| !self.comes_behind(name));
            let Some(name) = due.map(|(name, _)| name.clone()) else {
                return;
            };
            let Some(standing) = self.targets.get_mut(&name) else {
                return;
            };
            let begun = std::mem::replace(standing, Standing::Relaying { more: false });
            let Standing::Waits(mut target, _) = begun else {
                return;
            };
            let by = self.by.clone();
            self.running.spawn(async move {
                let ended = by.relay(&mut target).await;
                (target, ended)
            });
        }
    }

    /// Whether something waits for an older generation of the topic that this stream is of: that is relayed first, for it
    /// goes to where the topic has grown to.
    fn comes_behind(&self, name: &str) -> bool {
        let Some(of) = Partition::parse(name).filter(|of| of.generation > 1) else {
            return false;
        };
        let mut others = self
            .targets
            .keys()
            .filter_map(|name| Partition::parse(name));
        others.any(|other| other.topic == of.topic && other.generation < of.generation)
    }

    fn ended(&mut self, target: Target, ended: Ended) {
        let before = self.targets.remove(&target.name);
        let more = matches!(before, Some(Standing::Relaying { more: true }));
        match ended {
            Ended::Empty if more => self.waits(target, Instant::now()),
            Ended::Empty => {}
            Ended::Later(wait) => self.waits(target, Instant::now() + wait),
        }
    }

    /// Looks for what others have left behind.
    async fn look(&mut self) {
        self.look_at = Instant::now() + look_in();
        if !self.signals.duties.is_on() {
            // Those do who read the stream.
            return;
        }
        match self.by.waits_for().await {
            Ok(targets) => self.emitted(targets.into_iter().collect()),
            Err(trouble) => tracing::debug!("{}", trouble.error()),
        }
    }
}

impl Target {
    fn new(name: String) -> Self {
        Target {
            name,
            pause: Pause::between(Duration::from_millis(100), PATIENCE),
            complaint: Complaint::default(),
        }
    }

    /// What stands in its way holds up nothing else.
    fn held_up(&mut self, trouble: &Trouble) -> Duration {
        self.complaint.warn(format!(
            "what was emitted to {:?} waits in the outbox: {}",
            self.name,
            trouble.error()
        ));
        self.pause.next()
    }
}

impl By {
    async fn waits_for(&self) -> Result<Vec<String>, Trouble> {
        let mut link = self.links.tidy_link().await.map_err(Trouble::Broken)?;
        let answer = link.outbox(&self.keys).await;
        if answer.as_ref().is_err_and(Trouble::ends_the_link) {
            self.links.tidy_link_broke(&link).await;
        }
        answer
    }

    /// Relays what waits for one of the other streams.
    async fn relay(&self, target: &mut Target) -> Ended {
        loop {
            match self.step(target).await {
                Ok(Some(ended)) => return ended,
                Ok(None) => {}
                Err(trouble) => return Ended::Later(target.held_up(&trouble)),
            }
        }
    }

    /// Relays some of it. Returns None if there is more; what was met at the own slot is an error.
    async fn step(&self, target: &mut Target) -> Result<Option<Ended>, Trouble> {
        let (keys, me) = (&self.keys, &self.identity.name);
        let mut link = self.links.tidy_link().await.map_err(Trouble::Broken)?;
        let taken = link.outbox_take(keys, &target.name, me, TURN).await;
        if taken.as_ref().is_err_and(Trouble::ends_the_link) {
            self.links.tidy_link_broke(&link).await;
        }
        let (mut events, handed_out) = match taken? {
            RelayTurn::Anothers(left) => return Ok(Some(Ended::Later(left))),
            RelayTurn::Mine { events, handed_out } => (events, handed_out),
        };
        if events.is_empty() {
            target.is_well();
            return Ok(Some(Ended::Empty));
        }
        let (is_known, met) = match self.add(&target.name, &events).await {
            Ok(relayed) => {
                tell_of_duplicates(target, &events, &relayed, handed_out);
                let Relayed {
                    there,
                    stopped,
                    is_safe,
                } = relayed;
                events.truncate(if is_safe { there.len() } else { 0 });
                let not_safe = || Trouble::not_replicated(&target.name);
                (is_safe, stopped.or_else(|| (!is_safe).then(not_safe)))
            }
            Err(trouble) => {
                events.clear();
                (!matches!(trouble, Trouble::Broken(_)), Some(trouble))
            }
        };
        let wait = met.as_ref().map(|trouble| target.held_up(trouble));
        let why = met.as_ref().map(|trouble| trouble.error().to_string());
        let rest = wait.zip(why.as_deref());
        let done = link.outbox_done(keys, &target.name, me, &events, is_known, rest);
        let left = match done.await {
            Ok(left) => left,
            Err(trouble) => {
                if trouble.ends_the_link() {
                    self.links.tidy_link_broke(&link).await;
                }
                return Err(trouble);
            }
        };
        match wait {
            Some(wait) => return Ok(Some(Ended::Later(wait))),
            None => target.is_well(),
        }
        Ok((left == 0).then_some(Ended::Empty))
    }
}

impl By {
    /// Adds events to the stream they are for. If that is sealed, what is left goes to where its topic has grown to.
    async fn add(&self, target: &str, events: &[Waiting]) -> Result<Relayed, Trouble> {
        let mut relayed = self.pool.relay(target, WINDOW, events).await?;
        while relayed.stopped.as_ref().is_some_and(Trouble::is_sealed) {
            let Some(event) = events.get(relayed.there.len()) else {
                break;
            };
            let grown = self.pool.grown_for(target, event).await;
            let Some(grown) = grown.map_err(Trouble::Refused)? else {
                // Whoever grows it has not got as far.
                break;
            };
            let event = std::slice::from_ref(event);
            let next = self.pool.relay(&grown, WINDOW, event).await?;
            relayed.is_safe &= next.is_safe;
            // Those behind it go to their own streams.
            relayed.stopped = match next.there.len() + relayed.there.len() < events.len() {
                true if next.stopped.is_none() => relayed.stopped,
                _ => next.stopped,
            };
            relayed.there.extend(next.there);
        }
        Ok(relayed)
    }
}

impl Target {
    fn is_well(&mut self) {
        self.pause.reset();
        if self.complaint.clear() {
            tracing::info!(
                stream = self.name,
                "what was emitted to it and waited is relayed again"
            );
        }
    }
}

/// Says if what is new may have been added before its mark was gone.
fn tell_of_duplicates(
    target: &Target,
    events: &[Waiting],
    relayed: &Relayed,
    handed_out: Option<(crate::event::EntryId, Duration)>,
) {
    let Some((last, ago)) = handed_out.filter(|(_, ago)| *ago >= WINDOW) else {
        return;
    };
    let added = events.iter().zip(&relayed.there);
    let doubtful = added.filter(|(event, is_new)| **is_new && event.id <= last);
    let count = doubtful.count();
    if count > 0 {
        let ago = crate::duration::format(Duration::from_secs(ago.as_secs()));
        tracing::error!(
            stream = target.name,
            count,
            "MAY BE THERE TWICE: emitted events were first relayed {ago} ago, and whether they got there was not known \
             until their marks were gone; they have the same ids"
        );
    }
}
