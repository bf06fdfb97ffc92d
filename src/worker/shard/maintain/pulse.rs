//! The worker's pulse: tells through Redis who it is, what it runs, and what it has counted since its last one. Every ten
//! seconds if something happens, every thirty at rest, each second while somebody looks, and once more at its end.
//!
//! Nothing waits for it. It goes over the connection that repair has. What is refused is said once and tried again later;
//! what it counts meanwhile is in the next one. A pulse whose reply got lost is sent again under its number, and what was
//! counted since then goes with the one after.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::select_all;
use tokio_util::sync::CancellationToken;

use crate::config::{PulseSettings, Settings};
use crate::event::EntryId;
use crate::metrics::Metrics;
use crate::metrics::snapshot::Snapshot;
use crate::metrics::table::Id;
use crate::policy::{Breakers, State};
use crate::pulse::merging::{Merged, merge};
use crate::pulse::message::{Breaker, MOST_RUNS, Now, Pulse, Run, Who};
use crate::pulse::process;
use crate::pulse::slot::Length;
use crate::reconnect::Pause;
use crate::stream::{Link, PulseKeys, Sending, Trouble};
use crate::worker::pace::pulses::{AT_REST, LEAST, first_in, is_due_at_rest};
use crate::worker::shard::links::Links;
use crate::worker::state::heard::Heard;
use crate::worker::state::held::Held;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::{Inflight, longest};
use crate::worker::state::signals::Signals;
use crate::worker::state::slots::Slots;

/// How often while somebody looks.
const WATCHED: Duration = Duration::from_secs(1);
/// How long it waits after a refusal, at first and at most.
const REFUSED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// Minutes are merged so many milliseconds after their end, and not by all workers at once.
const MERGE_AFTER_MS: (u64, u64) = (7_000, 15_000);
/// For how long pulses are kept that could not be merged.
const KEPT_UNMERGED: Duration = Duration::from_secs(2 * 3600);
/// How long the last pulse may take.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a pulse tells beside what a shard knows.
pub(crate) struct Told {
    /// The program's version.
    pub version: String,
    /// What the worker counts in.
    pub metrics: Option<Metrics>,
}

/// Pulses.
pub(crate) struct Pulses {
    identity: Arc<Identity>,
    signals: Vec<Arc<Signals>>,
    held: Arc<Held>,
    heard: Arc<Heard>,
    links: Arc<Links>,
    breakers: Arc<Breakers>,
    slots: Arc<Slots>,
    settings: PulseSettings,
    keys: PulseKeys,
    who: Who,
    metrics: Option<Metrics>,
    began: Instant,
    /// What was counted and is told by no pulse yet,
    untold: Snapshot,
    /// and when the last pulse was made that arrived.
    told_at: Instant,
    cpu: Duration,
    number: u64,
    last: Option<EntryId>,
    /// One whose reply got lost.
    unanswered: Option<Made>,
    round_trip: Duration,
    before: Option<Now>,
    pause: Pause,
    said: Option<String>,
    /// When it merges next, by the server's clock.
    merge_at_ms: Option<u64>,
    keep_from_ms: Option<u64>,
}

/// What it tells of: of all shards.
pub(crate) struct Watched {
    pub identity: Arc<Identity>,
    pub signals: Vec<Arc<Signals>>,
    pub held: Arc<Held>,
    pub heard: Arc<Heard>,
    pub breakers: Arc<Breakers>,
    pub slots: Arc<Slots>,
}

/// A pulse that is sent.
struct Made {
    packed: Vec<u8>,
    counted: Snapshot,
    at: Instant,
    cpu: Duration,
    now: Now,
}

impl Pulses {
    /// Of what is watched, told over these links. `types` are those it handles.
    pub fn new(
        watched: Watched,
        links: &Arc<Links>,
        types: Vec<String>,
        settings: &Settings,
        told: Told,
    ) -> Self {
        let Watched {
            identity,
            signals,
            held,
            heard,
            breakers,
            slots,
        } = watched;
        let who = Who {
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id().into(),
            version: told.version,
            configuration: hash(&settings.to_toml()),
            started_ms: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
            streams: settings.worker.streams.clone(),
            types,
        };
        let now = Instant::now();
        let keys = PulseKeys::new(&identity.group);
        let connector = &links.connector;
        // In a cluster they are in a slot of their own.
        let links = match connector.is_cluster() {
            true => Arc::new(Links::new(
                connector.at(&keys.pulse),
                identity.clone(),
                Arc::default(),
                Arc::new(Inflight::new(Arc::default(), Arc::default())),
                Arc::default(),
            )),
            false => links.clone(),
        };
        Pulses {
            keys,
            links,
            settings: settings.pulse.clone(),
            identity,
            signals,
            held,
            heard,
            breakers,
            slots,
            who,
            untold: Snapshot::default(),
            metrics: told.metrics,
            began: now,
            told_at: now,
            cpu: process::cpu(),
            number: 0,
            last: None,
            unanswered: None,
            round_trip: Duration::ZERO,
            before: None,
            pause: Pause::between(REFUSED.0, REFUSED.1),
            said: None,
            merge_at_ms: None,
            keep_from_ms: None,
        }
    }

    /// Pulses until it is told that the worker ends, and once more then.
    pub async fn run(mut self, end: CancellationToken) {
        if !self.settings.enabled {
            return;
        }
        let (signals, heard) = (self.signals.clone(), self.heard.clone());
        let joined = signals.iter().map(|signals| Box::pin(signals.joined()));
        tokio::select! {
            _ = select_all(joined) => {}
            () = end.cancelled() => return,
        }
        let mut next = Instant::now() + first_in();
        loop {
            let wanted = heard.pulse_wanted();
            let is_wanted = tokio::select! {
                () = end.cancelled() => break,
                () = wanted => true,
                () = tokio::time::sleep_until(next.into()) => false,
            };
            let earliest = self.told_at + LEAST;
            if is_wanted && Instant::now() < earliest {
                next = next.min(earliest);
                // It is due then, whether anything else happens or not.
                self.before = None;
                continue;
            }
            let waits = tokio::select! {
                waits = self.turn(is_wanted) => waits,
                () = end.cancelled() => break,
            };
            next = Instant::now() + waits;
        }
        let _ = tokio::time::timeout(LAST_WORDS, self.last_words()).await;
    }

    /// Pulses if it is time to, and merges if it is. Returns how long it is until the next look.
    async fn turn(&mut self, is_wanted: bool) -> Duration {
        let is_watched = self.heard.is_watched();
        let since = self.told_at.elapsed();
        let made = self.make(false);
        let is_due = is_wanted
            || is_watched
            || self.unanswered.is_some()
            || is_due_at_rest(since, self.settings.every)
            || self.has_news(&made);
        if !is_due {
            return self.settings.every;
        }
        let mut link = match self.links.tidy_link().await {
            Ok(link) => link,
            Err(error) => {
                tracing::debug!("{error}");
                return self.pause.next().min(self.settings.every);
            }
        };
        let done = match self.send(&mut link, made).await {
            Ok(()) => self.merge(&mut link).await,
            Err(trouble) => Err(trouble),
        };
        match done {
            Ok(()) => {
                self.pause.reset();
                self.said = None;
                match is_watched {
                    true => WATCHED,
                    false => self.settings.every,
                }
            }
            Err(trouble) => self.failed(&link, trouble).await,
        }
    }

    /// A pulse, or a merge, could not be done. Returns how long it waits.
    async fn failed(&mut self, link: &Link, trouble: Trouble) -> Duration {
        if trouble.ends_the_link() {
            tracing::debug!("{}", trouble.error());
            self.links.tidy_link_broke(link).await;
            return self.settings.every.min(Duration::from_secs(2));
        }
        if trouble.is_lasting() {
            let text = format!(
                "{}; there is no history of this worker meanwhile",
                trouble.error()
            );
            self.say(&text);
        } else {
            tracing::debug!("{}", trouble.error());
        }
        self.pause.next()
    }

    /// Says what is in the way, once.
    fn say(&mut self, text: &str) {
        if self.said.as_deref() != Some(text) {
            tracing::warn!("{text}");
            self.said = Some(text.to_owned());
        }
    }

    async fn last_words(&mut self) -> Result<(), Trouble> {
        let mut link = self.links.tidy_link().await.map_err(Trouble::Broken)?;
        if self.unanswered.is_some() {
            let made = self.make(false);
            self.send(&mut link, made).await?;
        }
        let made = self.make(true);
        self.send(&mut link, made).await
    }

    /// Whether there is more to tell than that it is there.
    fn has_news(&self, made: &Made) -> bool {
        let Some(before) = &self.before else {
            return true;
        };
        let now = &made.now;
        let counts = |id: &Id| made.counted.total(*id, &[]) > 0.0;
        let is_other = now.is_draining != before.is_draining
            || now.is_quiet != before.is_quiet
            || now.slots != before.slots
            || now.breakers.len() != before.breakers.len()
            || now.done != before.done
            || now.debugged != before.debugged;
        let told = [
            Id::Delivered,
            Id::Settled,
            Id::Failures,
            Id::DeadLetters,
            Id::HeldBack,
            Id::Published,
        ];
        is_other || now.running > 0 || now.held > 0 || told.iter().any(counts)
    }

    /// What there is to tell now.
    fn make(&mut self, has_left: bool) -> Made {
        self.count();
        let (at, cpu) = (Instant::now(), process::cpu());
        let now = self.now(has_left, at, cpu);
        let rest = self.settings.every * AT_REST;
        let pulse = Pulse {
            who: self.who.clone(),
            now,
            counted: self.untold.clone(),
            span_ms: at.duration_since(self.told_at).as_millis() as u64,
            every_ms: rest.as_millis() as u64,
        };
        Made {
            packed: pulse.pack(),
            now: pulse.now,
            counted: pulse.counted,
            at,
            cpu,
        }
    }

    /// What was counted since that was asked last is told by the next pulse.
    fn count(&mut self) {
        if let Some(metrics) = &self.metrics {
            let more = metrics.take_untold(&self.identity.group);
            self.untold.merge(&more);
        }
    }

    fn now(&self, has_left: bool, at: Instant, cpu: Duration) -> Now {
        let lasted = at.duration_since(self.told_at).as_micros().max(1);
        let used = cpu.saturating_sub(self.cpu).as_micros();
        let standing = self.heard.standing().0;
        let wanted = standing.wanted_of(&self.identity.name);
        let runs = match has_left {
            true => Vec::new(),
            false => longest(&self.held.all(), MOST_RUNS),
        };
        Now {
            is_draining: self.signals[0].is_stopping(),
            is_quiet: self.signals[0].is_quiet(),
            has_left,
            is_watched: standing.watched_until_ms.is_some(),
            slots: self.slots.all() as u64,
            running: self.slots.running() as u64,
            held: self.held.all().iter().map(|one| one.entries() as u64).sum(),
            memory: process::memory(),
            cpu: (used * 1000 / lasted) as u64,
            round_trip_us: self.round_trip.as_micros() as u64,
            breakers: self.breakers(),
            runs: runs
                .into_iter()
                .map(|run| Run {
                    stream: run.source.surroundings.stream.clone(),
                    id: run.id,
                    event_type: run
                        .ctx
                        .as_ref()
                        .map_or_else(String::new, |ctx| ctx.envelope().event_type().to_owned()),
                    attempt: run.ctx.as_ref().map_or(0, |ctx| ctx.attempt().into()),
                    for_ms: run.lasts.as_millis() as u64,
                })
                .collect(),
            done: self.heard.done(),
            debugged: wanted.debugged,
        }
    }

    fn breakers(&self) -> Vec<Breaker> {
        let all = self.breakers.all();
        let not_closed = all.iter().filter_map(|circuit| {
            let open_for_ms = match circuit.state() {
                State::Closed => return None,
                State::HalfOpen => None,
                State::Open { until } => {
                    let left = until.saturating_duration_since(Instant::now());
                    Some(left.as_millis() as u64)
                }
            };
            Some(Breaker {
                name: circuit.name.clone(),
                open_for_ms,
            })
        });
        not_closed.collect()
    }

    /// Sends a pulse, or the one whose reply got lost: what was counted since then waits for the next.
    async fn send(&mut self, link: &mut Link, made: Made) -> Result<(), Trouble> {
        let is_again = self.unanswered.is_some();
        if !is_again {
            self.number += 1;
            // It goes with this one, and comes back if this is refused.
            self.untold = Snapshot::default();
        }
        // Kept from here on: this may be dropped while it waits.
        let packed = &self.unanswered.get_or_insert(made).packed.clone();
        let sending = Sending {
            worker: &self.identity.name,
            number: self.number,
            packed,
            keep_from_ms: self.keeps_from(),
        };
        let sent = Instant::now();
        let answer = match is_again {
            false => link.send_pulse(&self.keys, &sending).await,
            true => link.send_pulse_again(&self.keys, &sending, self.last).await,
        };
        match answer {
            Ok(id) => {
                self.round_trip = sent.elapsed();
                self.last = Some(id);
                if let Some(made) = self.unanswered.take() {
                    (self.told_at, self.cpu) = (made.at, made.cpu);
                    self.before = Some(made.now);
                }
                Ok(())
            }
            Err(trouble) => {
                // Whether it was done is not known, unless the server says that it was not.
                let is_undone = !is_again && !matches!(trouble, Trouble::Broken(_));
                if let Some(made) = self.unanswered.take_if(|_| is_undone) {
                    self.number -= 1;
                    self.untold.merge(&made.counted);
                }
                Err(trouble)
            }
        }
    }

    /// From when on pulses are to be kept: what is merged may go. If nobody can merge they are not kept for ever.
    fn keeps_from(&self) -> Option<u64> {
        let now_ms = self.last?.ms + self.told_at.elapsed().as_millis() as u64;
        let unmerged = now_ms.saturating_sub(KEPT_UNMERGED.as_millis() as u64);
        match self.keep_from_ms {
            Some(from) => Some(from.max(unmerged)),
            None if self.began.elapsed() > KEPT_UNMERGED => Some(unmerged),
            None => None,
        }
    }

    /// Merges what is over, if it is time to and this worker's turn.
    async fn merge(&mut self, link: &mut Link) -> Result<(), Trouble> {
        // What the server stamped the last pulse with is what time it is.
        let Some(now_ms) = self.last.map(|id| id.ms) else {
            return Ok(());
        };
        let next = Length::Minute.of(now_ms) + Length::Minute.ms();
        let next = next + MERGE_AFTER_MS.0 + fastrand::u64(..MERGE_AFTER_MS.1);
        // Set back by much, the clock would hold it up.
        match self.merge_at_ms {
            Some(at) if now_ms >= at || at > next + Length::Hour.ms() => {}
            Some(_) => return Ok(()),
            None => {
                self.merge_at_ms = Some(next);
                return Ok(());
            }
        }
        self.merge_at_ms = Some(next);
        let Merged {
            keep_from_ms,
            unread,
            newer,
        } = merge(link, &self.keys, &self.identity.name, now_ms).await?;
        self.keep_from_ms = Some(keep_from_ms);
        if let Some(form) = newer {
            let text = format!(
                "{unread} pulses of workers of a newer release (form {form}) can't be merged here: what they counted is \
                 missing in the history until this one is updated"
            );
            self.say(&text);
        }
        Ok(())
    }
}

/// A hash that is the same in every process and in every release (FNV-1a).
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_configuration_never_changes() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
