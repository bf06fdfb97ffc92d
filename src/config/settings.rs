//! What there is to set, the defaults, and what holds for one handler, one projection and one stream.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::alerts::AlertSettings;
use super::batch::{BatchLimits, BatchSettings};
use super::cron::CronSettings;
use super::hidden;
use super::keep::{Keep, Retention};
use super::redis::RedisSettings;
use super::resilience::{BreakerSettings, Rate, RateScope};
use super::sentinel::RedisMode;
use super::setters::setters;
use super::targets::TargetSettings;
use super::telemetry::TelemetrySettings;
use super::value::{Given, Refusal, Setting, one_of};
use super::web::WebSettings;
use crate::duration;
use crate::partition::Partition;
use crate::retry::Backoff;

/// Everything that can be set.
///
/// `Debug` and [`Settings::to_toml`] hide the secrets.
#[derive(Clone, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct Settings {
    /// `[redis]`: the server.
    pub redis: RedisSettings,
    /// `[worker]`: what a worker reads, and how much of it at once.
    pub worker: WorkerSettings,
    /// `[retry]`: attempts and backoff of every handler that has none of its own.
    pub retry: RetrySettings,
    /// `[defaults]`: everything else of every handler that has none of its own. `max_attempts` and
    /// `backoff` stay unset here; their place is `[retry]`.
    pub defaults: HandlerSettings,
    /// `[handlers."order.created"]`: single handlers, by event type.
    pub handlers: BTreeMap<String, HandlerSettings>,
    /// `[targets.billing]`: who handles events in place of a function of this program, by the name that handlers have for it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, TargetSettings>,
    /// `[breakers.payments]`: circuit breakers for calls from within handlers, by the name they are asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub breakers: BTreeMap<String, BreakerSettings>,
    /// `[cron."nightly"]`: events that are published again and again, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cron: BTreeMap<String, CronSettings>,
    /// `[projections."orders-by-status"]`: single projections, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub projections: BTreeMap<String, ProjectionSettings>,
    /// `[streams.orders]`: single streams, by name.
    pub streams: BTreeMap<String, StreamSettings>,
    /// `[dead_letters]`: how many are kept, and from how many on it is warned of.
    pub dead_letters: DeadLetterSettings,
    /// `[telemetry]`: where a worker tells how it is doing.
    #[serde(skip_serializing_if = "TelemetrySettings::is_unset")]
    pub telemetry: TelemetrySettings,
    /// `[web]`: the pages to watch and operate the group by.
    #[serde(skip_serializing_if = "WebSettings::is_default")]
    pub web: WebSettings,
    /// `[alerts]`: who is told what is wrong, and what counts as wrong.
    #[serde(skip_serializing_if = "AlertSettings::is_unset")]
    pub alerts: AlertSettings,
    /// `[pulse]`: what a worker tells of itself, for history and for `streamhand top`.
    pub pulse: PulseSettings,
    /// `[app]`: the user's own, not looked into: see [`Settings::app`]. Its values are shown by `Debug` and serde as `***`.
    #[serde(
        serialize_with = "hidden::serialize_app",
        skip_serializing_if = "toml::Table::is_empty"
    )]
    pub(crate) app: toml::Table,
}

impl Settings {
    /// What holds for the handler of `event_type`: its own section, then `[defaults]` and
    /// `[retry]`.
    pub fn policy(&self, event_type: &str) -> HandlerPolicy {
        let own = self.handlers.get(event_type);
        let defaults = &self.defaults;
        HandlerPolicy {
            timeout: own
                .and_then(|own| own.timeout)
                .or(defaults.timeout)
                .unwrap_or(HandlerPolicy::TIMEOUT),
            grace: own
                .and_then(|own| own.grace)
                .or(defaults.grace)
                .unwrap_or(HandlerPolicy::GRACE),
            max_attempts: own
                .and_then(|own| own.max_attempts)
                .unwrap_or(self.retry.max_attempts),
            backoff: own
                .and_then(|own| own.backoff)
                .unwrap_or(self.retry.backoff),
            on_crash: own
                .and_then(|own| own.on_crash)
                .unwrap_or(self.retry.on_crash),
            concurrency: own.and_then(|own| own.concurrency).or(defaults.concurrency),
            concurrency_scope: own
                .and_then(|own| own.concurrency_scope)
                .or(defaults.concurrency_scope)
                .unwrap_or_default(),
            rate: own.and_then(|own| own.rate).or(defaults.rate),
            rate_scope: own
                .and_then(|own| own.rate_scope)
                .or(defaults.rate_scope)
                .unwrap_or_default(),
            circuit_breaker: own
                .and_then(|own| own.circuit_breaker)
                .or(defaults.circuit_breaker)
                .filter(|breaker| breaker.enabled),
            deduplicate: own
                .and_then(|own| own.deduplicate)
                .or(defaults.deduplicate)
                .filter(|window| !window.is_zero()),
        }
    }

    /// How many events of a type its batch handler is given at once, which was registered with these limits.
    pub(crate) fn batch(&self, event_type: &str, registered: BatchLimits) -> BatchLimits {
        let own = self.handlers.get(event_type);
        own.map_or(registered, |own| own.batch.over(registered))
    }

    /// What becomes of events that a projection can't apply.
    pub fn on_bad_event(&self, projection: &str) -> OnBadEvent {
        let own = self.projections.get(projection);
        own.and_then(|own| own.on_bad_event).unwrap_or_default()
    }

    /// Where a new group begins to read `stream`: its own section, then `[worker]`.
    pub fn start(&self, stream: &str) -> Start {
        let own = self.of_stream(stream);
        own.and_then(|own| own.start).unwrap_or(self.worker.start)
    }

    /// What holds for a stream: its own section, or that of the topic it is a partition of.
    pub(crate) fn of_stream(&self, stream: &str) -> Option<&StreamSettings> {
        self.streams.get(stream).or_else(|| {
            let topic = self.streams.get(Partition::parse(stream)?.topic)?;
            topic.partitions.is_some().then_some(topic)
        })
    }

    /// The partitioned topics, and how many partitions each is to have.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, u32)> {
        let all = self.streams.iter();
        all.filter_map(|(name, of)| Some((&name[..], of.partitions?)))
    }

    /// The streams that these names stand for: those of a partitioned topic are its partitions.
    pub(crate) fn streams_of(&self, names: &[String]) -> Vec<String> {
        let streams = |name: &String| {
            let of = self.streams.get(name);
            let Some((of, partitions)) = of.and_then(|of| Some((of, of.partitions?))) else {
                return vec![name.clone()];
            };
            let first = [partitions];
            let generations = match &of.generations[..] {
                [] => &first,
                known => known,
            };
            let all = (1..).zip(generations).flat_map(|(generation, partitions)| {
                let partition = move |number| Partition {
                    topic: name,
                    generation,
                    number,
                };
                (0..*partitions).map(move |number| partition(number).to_string())
            });
            all.collect()
        };
        names.iter().flat_map(streams).collect()
    }

    /// The order of the events of `stream`, which may be a partition of a topic.
    pub(crate) fn order(&self, stream: &str) -> Option<Order> {
        self.of_stream(stream).and_then(|own| own.order)
    }

    /// Whether a dead letter of `stream` holds its subject.
    pub(crate) fn holds(&self, stream: &str) -> bool {
        let on_dead = self.of_stream(stream).and_then(|own| own.on_dead);
        on_dead.unwrap_or(OnDead::Hold) == OnDead::Hold
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            redis: RedisSettings::default(),
            worker: WorkerSettings::default(),
            retry: RetrySettings::default(),
            defaults: HandlerSettings {
                timeout: Some(HandlerPolicy::TIMEOUT),
                grace: Some(HandlerPolicy::GRACE),
                ..HandlerSettings::default()
            },
            handlers: BTreeMap::new(),
            targets: BTreeMap::new(),
            breakers: BTreeMap::new(),
            cron: BTreeMap::new(),
            projections: BTreeMap::new(),
            streams: BTreeMap::new(),
            dead_letters: DeadLetterSettings::default(),
            telemetry: TelemetrySettings::default(),
            web: WebSettings::default(),
            alerts: AlertSettings::default(),
            pulse: PulseSettings::default(),
            app: toml::Table::new(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("redis", &self.redis)
            .field("worker", &self.worker)
            .field("retry", &self.retry)
            .field("defaults", &self.defaults)
            .field("handlers", &self.handlers)
            .field("targets", &self.targets)
            .field("breakers", &self.breakers)
            .field("cron", &self.cron)
            .field("projections", &self.projections)
            .field("streams", &self.streams)
            .field("dead_letters", &self.dead_letters)
            .field("telemetry", &self.telemetry)
            .field("web", &self.web)
            .field("alerts", &self.alerts)
            .field("pulse", &self.pulse)
            .field("app", &hidden::without_secrets(&self.app, &[]))
            .finish()
    }
}

/// `[worker]`: what a worker reads, and how much of it at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct WorkerSettings {
    /// The consumer group whose workers share the entries. Empty is unset: a program of [`cli`](crate::cli) takes its own
    /// name, and a [`Worker`](crate::Worker) is refused.
    pub group: String,
    /// The streams to read. Empty is unset, and a worker is refused.
    pub streams: Vec<String>,
    /// Handlers running at once in this process; 64.
    pub concurrency: usize,
    /// Entries held at most, running or not; 1000. This and `concurrency` are both upper limits,
    /// so that a `prefetch` below it holds for the handlers too.
    pub prefetch: usize,
    /// How long an entry may go without a renewal before others may reclaim it; 30 s, at least
    /// 500 ms. Renewed every third of it.
    #[serde(serialize_with = "duration::serialize")]
    pub lease: Duration,
    /// How long a stop waits for running handlers; 25 s. Zero waits for none.
    #[serde(serialize_with = "duration::serialize")]
    pub drain: Duration,
    /// What becomes of an entry whose type nobody handles; buried.
    pub unhandled: Unhandled,
    /// How long workers that know its type may take to appear; 10 min.
    #[serde(serialize_with = "duration::serialize")]
    pub unhandled_after: Duration,
    /// Where a group begins that is new to a stream; at the stream's beginning.
    pub start: Start,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            group: String::new(),
            streams: Vec::new(),
            concurrency: 64,
            prefetch: 1000,
            lease: Duration::from_secs(30),
            drain: Duration::from_secs(25),
            unhandled: Unhandled::Bury,
            unhandled_after: Duration::from_secs(600),
            start: Start::Beginning,
        }
    }
}

/// What becomes of an entry whose type nobody handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Unhandled {
    /// `"bury"`: it goes to the dead letters once `unhandled_after` has passed.
    Bury,
    /// `"ack"`: it is acknowledged.
    Ack,
}

/// Where a group begins that is new to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Start {
    /// `"beginning"`: with the oldest entry.
    Beginning,
    /// `"end"`: with the first entry added after the group. What came before is never read.
    End,
}

/// `[retry]`: how often and how soon a failed entry is tried again.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct RetrySettings {
    /// Attempts at most, the first one counting; 5.
    pub max_attempts: u32,
    /// The wait between them.
    pub backoff: Backoff,
    /// What becomes of an entry whose worker dies in its last attempt.
    pub on_crash: OnCrash,
}

/// What becomes of an entry whose worker dies in its last attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnCrash {
    /// `"run_again"`: it runs once more, with nothing else starting beside it, for something else may have killed its
    /// worker. That run is a crash check and no attempt; whatever comes of it, it is the last one.
    #[default]
    RunAgain,
    /// `"bury"`: it is buried as `crashed`. So an entry never runs more often than it has attempts, and one with a
    /// single attempt at most once.
    Bury,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            backoff: Backoff::default(),
            on_crash: OnCrash::default(),
        }
    }
}

/// `[handlers."order.created"]` or `[defaults]`: what is unset is inherited.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct HandlerSettings {
    /// The target that handles it, by its name in `[targets]`; a function of this program if it is unset.
    pub target: Option<String>,
    /// How long an attempt may take; 5 min.
    #[serde(serialize_with = "duration::serialize_option")]
    pub timeout: Option<Duration>,
    /// How long a cancelled handler may go on before its task is dropped; 1 s.
    #[serde(serialize_with = "duration::serialize_option")]
    pub grace: Option<Duration>,
    /// Attempts at most, the first one counting.
    pub max_attempts: Option<u32>,
    /// The wait between attempts. A file may give a part of it, and the rest is that of `[retry]`.
    pub backoff: Option<Backoff>,
    /// What becomes of an entry whose worker dies in its last attempt.
    pub on_crash: Option<OnCrash>,
    /// Runs of this handler at once, in this process or in the whole group; as many as `worker.concurrency` allows.
    pub concurrency: Option<usize>,
    /// Whose runs `concurrency` counts; this worker's.
    pub concurrency_scope: Option<RateScope>,
    /// How often it may start; as often as there is something to handle.
    pub rate: Option<Rate>,
    /// Whose starts `rate` counts; this worker's.
    pub rate_scope: Option<RateScope>,
    /// When to give the service behind it a rest; never. A file may give a part of it, and the rest is that of
    /// `[defaults]`.
    pub circuit_breaker: Option<BreakerSettings>,
    /// For how long an event that has succeeded is known by its id: a copy of it is acknowledged without running. Zero
    /// turns it off.
    #[serde(serialize_with = "duration::serialize_option")]
    pub deduplicate: Option<Duration>,
    /// How many of its events a batch handler is given at once; as it was registered with.
    #[serde(skip_serializing_if = "BatchSettings::is_unset")]
    pub batch: BatchSettings,
}

/// `[streams.orders]`: what is unset is inherited from `[worker]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct StreamSettings {
    /// Where a group begins that is new to this stream.
    pub start: Option<Start>,
    /// What it is trimmed to; unset, nothing is trimmed. What a group has not settled is never trimmed.
    pub retention: Option<Retention>,
    /// Trims to `retention` even what a group has not settled. That is lost to it.
    pub force: Option<bool>,
    /// Spreads it over so many streams, by subject; unset, it is one stream. It is what a topic begins with: what it has
    /// grown to since is kept in Redis.
    pub partitions: Option<u32>,
    /// What of its events is handled one after the other, across the fleet; unset, nothing is.
    pub order: Option<Order>,
    /// What becomes of a subject when one of its events has become a dead letter; unset, it is held.
    pub on_dead: Option<OnDead>,
    /// How many partitions each of its generations has, as Redis knows; empty as long as it was not asked.
    #[serde(skip)]
    pub(crate) generations: Vec<u32>,
}

/// What becomes of a subject whose events have an order when one of them has become a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnDead {
    /// `"hold"`: those behind it wait until it was replayed and has succeeded, or is purged.
    Hold,
    /// `"release"`: those behind it go on.
    Release,
}

/// What of a stream's events is handled one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Order {
    /// `"subject"`: those of one subject, in the order of the stream. Those without one have none.
    Subject,
}

/// `[projections."orders-by-status"]`: one projection.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct ProjectionSettings {
    /// What becomes of an event that can't be applied; it is buried.
    pub on_bad_event: Option<OnBadEvent>,
}

/// What becomes of an event that a projection can't apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OnBadEvent {
    /// `"bury"`: it goes to the dead letters, and the projection goes on.
    #[default]
    Bury,
    /// `"stop"`: the projection stops before it.
    Stop,
}

/// `[dead_letters]`: those of every stream, each for itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct DeadLetterSettings {
    /// What is kept of them; unset, all are.
    pub keep: Option<Keep>,
    /// From so many on it is warned of them; 10,000.
    pub warn_at: u64,
}

impl Default for DeadLetterSettings {
    fn default() -> Self {
        Self {
            keep: None,
            warn_at: 10_000,
        }
    }
}

/// `[pulse]`: what a worker tells of itself through Redis: what it has counted, and how it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct PulseSettings {
    /// Whether it does; it does. Without it there is no history of this worker, and nobody knows what it runs.
    pub enabled: bool,
    /// How often, if something happens; 10 s. A third as often at rest, and each second while somebody looks.
    #[serde(serialize_with = "duration::serialize")]
    pub every: Duration,
}

impl Default for PulseSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            every: Duration::from_secs(10),
        }
    }
}

setters!(Settings {
    plain redis: RedisSettings,
    plain worker: WorkerSettings,
    plain retry: RetrySettings,
    plain defaults: HandlerSettings,
    plain dead_letters: DeadLetterSettings,
    plain alerts: AlertSettings,
    plain telemetry: TelemetrySettings,
    plain web: WebSettings,
    plain pulse: PulseSettings,
});

impl Settings {
    /// The same settings, with these for the handler of `event_type`.
    pub fn handler(mut self, event_type: impl Into<String>, settings: HandlerSettings) -> Self {
        self.handlers.insert(event_type.into(), settings);
        self
    }

    /// The same settings, with this target, which handlers name.
    pub fn target(mut self, name: impl Into<String>, settings: TargetSettings) -> Self {
        self.targets.insert(name.into(), settings);
        self
    }

    /// The same settings, with these for the circuit breaker of that name.
    pub fn breaker(mut self, name: impl Into<String>, settings: BreakerSettings) -> Self {
        self.breakers.insert(name.into(), settings);
        self
    }

    /// The same settings, with this cron.
    pub fn cron(mut self, name: impl Into<String>, settings: CronSettings) -> Self {
        self.cron.insert(name.into(), settings);
        self
    }

    /// The same settings, with these for the projection of that name.
    pub fn projection(mut self, name: impl Into<String>, settings: ProjectionSettings) -> Self {
        self.projections.insert(name.into(), settings);
        self
    }

    /// The same settings, with these for the stream of that name.
    pub fn stream(mut self, name: impl Into<String>, settings: StreamSettings) -> Self {
        self.streams.insert(name.into(), settings);
        self
    }
}

setters!(WorkerSettings {
    into group: String,
    plain concurrency: usize,
    plain prefetch: usize,
    plain lease: Duration,
    plain drain: Duration,
    plain unhandled: Unhandled,
    plain unhandled_after: Duration,
    plain start: Start,
});

impl WorkerSettings {
    /// The same settings with `streams`, in place of those that were there.
    pub fn streams<S: Into<String>>(mut self, streams: impl IntoIterator<Item = S>) -> Self {
        self.streams = streams.into_iter().map(Into::into).collect();
        self
    }
}

setters!(RetrySettings {
    plain max_attempts: u32,
    plain backoff: Backoff,
    plain on_crash: OnCrash,
});

setters!(HandlerSettings {
    some_into target: String,
    some timeout: Duration,
    some grace: Duration,
    some max_attempts: u32,
    some backoff: Backoff,
    some on_crash: OnCrash,
    some concurrency: usize,
    some concurrency_scope: RateScope,
    some rate: Rate,
    some rate_scope: RateScope,
    some circuit_breaker: BreakerSettings,
    some deduplicate: Duration,
    plain batch: BatchSettings,
});

setters!(StreamSettings {
    some start: Start,
    some retention: Retention,
    some force: bool,
    some partitions: u32,
    some order: Order,
    some on_dead: OnDead,
});

setters!(ProjectionSettings {
    some on_bad_event: OnBadEvent,
});

setters!(PulseSettings {
    plain enabled: bool,
    plain every: Duration,
});

setters!(DeadLetterSettings {
    some keep: Keep,
    plain warn_at: u64,
});

/// What holds for one handler, everything inherited. See [`Settings::policy`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct HandlerPolicy {
    /// How long an attempt may take.
    pub timeout: Duration,
    /// How long a cancelled handler may go on before its task is dropped.
    pub grace: Duration,
    /// Attempts at most, the first one counting.
    pub max_attempts: u32,
    /// The wait between attempts.
    pub backoff: Backoff,
    /// What becomes of an entry whose worker dies in its last attempt.
    pub on_crash: OnCrash,
    /// Runs at once, if that is limited beyond `worker.concurrency`.
    pub concurrency: Option<usize>,
    /// Whose runs `concurrency` counts.
    pub concurrency_scope: RateScope,
    /// How often it may start, if that is limited.
    pub rate: Option<Rate>,
    /// Whose starts `rate` counts.
    pub rate_scope: RateScope,
    /// When to give the service behind it a rest, if ever.
    pub circuit_breaker: Option<BreakerSettings>,
    /// For how long an event that has succeeded is known by its id, if it is.
    pub deduplicate: Option<Duration>,
}

impl HandlerPolicy {
    const TIMEOUT: Duration = Duration::from_secs(300);
    const GRACE: Duration = Duration::from_secs(1);
}

impl Setting for Unhandled {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(given, &[("bury", Self::Bury), ("ack", Self::Ack)])
    }
}

impl Setting for RedisMode {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        let modes = [Self::Auto, Self::Single, Self::Sentinel, Self::Cluster];
        one_of(given, &modes.map(|mode| (mode.name(), mode)))
    }
}

impl Setting for OnBadEvent {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(given, &[("bury", Self::Bury), ("stop", Self::Stop)])
    }
}

impl Setting for OnCrash {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(
            given,
            &[("run_again", Self::RunAgain), ("bury", Self::Bury)],
        )
    }
}

impl Setting for OnDead {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(given, &[("hold", Self::Hold), ("release", Self::Release)])
    }
}

impl Setting for Order {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(given, &[("subject", Self::Subject)])
    }
}

impl Setting for Start {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(given, &[("beginning", Self::Beginning), ("end", Self::End)])
    }
}
