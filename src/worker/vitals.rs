//! What a worker tells of whether it lives and is ready: to probes over HTTP, to `health`, and to systemd.
//!
//! It lives as long as the thread that speaks to Redis turns: a task there notes each second that it does, answers
//! `health`, and feeds the watchdog of systemd. Whether Redis answers does not count for that: to start a worker again
//! because Redis is away would make things worse. It is ready as long as it has joined its groups, does not stop, and
//! Redis has answered within a lease.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sd_notify::NotifyState;

use crate::config::{Secret, Settings};
use crate::duration;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::telemetry::health::Verdict;
use crate::telemetry::routes::{Probe, Scraped, behind, metrics, probes};
use crate::telemetry::server::{Bound, Limits, Server};
use crate::telemetry::systemd::Systemd;
use crate::worker::shard::unit::{Shard, Shards};
use crate::worker::state::identity::Identity;
use crate::worker::state::slots::Slots;

/// A thread that has not turned for so long is stopped.
const STOPPED: Duration = Duration::from_secs(10);
/// How often it notes that it turns.
const BEAT: Duration = Duration::from_secs(1);
/// How often systemd is told of it at least,
const TELL: Duration = Duration::from_secs(5);
/// and how much longer than it says in the unit's timeouts a start or a stop may take after each time.
const LONGER: Duration = Duration::from_secs(30);

/// What is known of whether a worker lives and is ready.
pub(crate) struct Vitals {
    identity: Arc<Identity>,
    streams: Vec<String>,
    /// Where Redis is, as it was configured.
    address: String,
    slots: Arc<Slots>,
    /// Gone as long as it is not known where the streams are.
    shards: OnceLock<Arc<Shards>>,
    began: Instant,
    /// When the thread that speaks to Redis last turned, in milliseconds since it began.
    turned: AtomicU64,
    /// When all shards had joined, plus one; 0 before.
    joined: AtomicU64,
    is_stopping: AtomicBool,
}

/// Takes the port of `[telemetry] listen`, if there is one: before a worker does anything else, so that it fails at once
/// where that can't be had.
pub(crate) fn port(settings: &Settings) -> Result<Option<Bound>> {
    let listen = settings.telemetry.listen.address();
    let port = listen.map(|address| Bound::to(address, "telemetry.listen"));
    port.transpose()
}

impl Vitals {
    pub fn new(
        identity: Arc<Identity>,
        settings: &Settings,
        address: &str,
        slots: Arc<Slots>,
    ) -> Arc<Self> {
        Arc::new(Vitals {
            identity,
            streams: settings.worker.streams.clone(),
            address: address.to_owned(),
            slots,
            shards: OnceLock::new(),
            began: Instant::now(),
            turned: AtomicU64::new(0),
            joined: AtomicU64::new(0),
            is_stopping: AtomicBool::new(false),
        })
    }

    /// It is known by now where the streams are.
    pub fn are(&self, shards: Arc<Shards>) {
        let _ = self.shards.set(shards);
    }

    /// It stops before that was known.
    pub fn stops(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    fn parts(&self) -> Vec<Arc<Shard>> {
        let shards = self.shards.get();
        shards.map(|shards| shards.all()).unwrap_or_default()
    }

    fn is_stopping(&self) -> bool {
        let is = self.parts().first().map(|part| part.signals.is_stopping());
        is.unwrap_or_else(|| self.is_stopping.load(Ordering::Relaxed))
    }

    /// Waits until it stops, or has joined all groups; both are looked for anew now and then.
    async fn changes(&self) {
        let parts = self.parts();
        let Some(first) = parts.first() else {
            return std::future::pending().await;
        };
        let joins = async {
            for part in &parts {
                part.signals.joined().await;
            }
            if self.joined.load(Ordering::Relaxed) > 0 {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = first.signals.stopped() => {}
            () = joins => {}
        }
    }

    /// Serves the probes, and the metrics for who shows the token if there is one. The server ends when it is dropped.
    pub fn serve(
        self: &Arc<Self>,
        port: Option<Bound>,
        counted: Option<Metrics>,
        token: Option<&Secret>,
    ) -> Result<Option<Server>> {
        let (Some(port), Some(counted)) = (port, counted) else {
            return Ok(None);
        };
        let scraped: Scraped = Arc::new(move |accept| counted.render(accept));
        let probe = |look: fn(&Vitals) -> Verdict| -> Probe {
            let vitals = self.clone();
            Arc::new(move || look(&vitals))
        };
        let router = probes(probe(Vitals::lives), probe(Vitals::is_ready))
            .merge(behind(token, metrics(scraped)));
        tracing::info!(address = %port.address, "telemetry is served");
        port.serve(router, Limits::default(), "streamhand-telemetry")
            .map(Some)
    }

    /// What the thread that speaks to Redis does for it, beside its work, until it is dropped.
    pub fn tasks(self: &Arc<Self>, systemd: Option<Systemd>) -> Vec<BoxFuture<'static, ()>> {
        let mut tasks: Vec<BoxFuture<'static, ()>> = vec![Box::pin(self.clone().beat())];
        #[cfg(target_os = "linux")]
        tasks.extend(self.answering());
        tasks.extend(systemd.map(|systemd| Box::pin(self.clone().report(systemd)) as _));
        tasks
    }

    async fn beat(self: Arc<Self>) {
        loop {
            self.turned.store(self.now(), Ordering::Relaxed);
            if self.joined.load(Ordering::Relaxed) == 0 && self.all_joined() {
                self.joined.store(self.now() + 1, Ordering::Relaxed);
            }
            let stops = self.is_stopping();
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                () = self.changes(), if !stops => {}
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn answering(&self) -> Option<BoxFuture<'static, ()>> {
        use crate::telemetry::ask::{Answer, answer, listen};
        let identity = &self.identity;
        let listener = match listen(&identity.group) {
            Ok(listener) => listener,
            // Where sockets are forbidden, a worker works all the same.
            Err(error) => {
                tracing::debug!("`health` can't ask this worker: {error}");
                return None;
            }
        };
        let answered = Answer {
            group: identity.group.clone(),
            consumer: identity.name.clone(),
            streams: self.streams.clone(),
        };
        Some(Box::pin(answer(listener, answered)))
    }

    /// Tells systemd how it is, and that the thread turns.
    async fn report(self: Arc<Self>, systemd: Systemd) {
        let every = systemd.watchdog.map_or(TELL, |limit| (limit / 2).min(TELL));
        let longer = NotifyState::ExtendTimeoutUsec(LONGER.as_micros() as u32);
        let (mut is_ready, mut is_stopping) = (false, false);
        loop {
            let mut states = vec![NotifyState::Watchdog];
            if self.has_joined() && !is_ready {
                is_ready = true;
                states.push(NotifyState::Ready);
            }
            if self.is_stopping() && !is_stopping {
                is_stopping = true;
                states.push(NotifyState::Stopping);
            }
            // Who waits for Redis, or for handlers, is not stuck: a thread that is would not say so.
            if is_stopping || !is_ready {
                states.push(longer.clone());
            }
            let status = self.status();
            states.push(NotifyState::Status(&status));
            systemd.tell(&states);
            let every = match self.shards.get() {
                Some(_) => every,
                None => every.min(BEAT),
            };
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.changes(), if !is_stopping => {}
            }
        }
    }

    /// Whether the thread that speaks to Redis turns.
    fn lives(&self) -> Verdict {
        let turned = self.turned.load(Ordering::Relaxed);
        let since = Duration::from_millis(self.now().saturating_sub(turned));
        let why = (since >= STOPPED).then(|| {
            let since = seconds(since);
            format!(
                "the thread that speaks to Redis has not turned for {since}: something blocks it"
            )
        });
        Verdict::of(why.into_iter().collect())
    }

    /// Whether it takes entries.
    fn is_ready(&self) -> Verdict {
        let mut why = Vec::new();
        if self.is_stopping() {
            why.push("the worker stops".to_owned());
        }
        if !self.has_joined() {
            why.push("the groups have not been joined yet".to_owned());
        } else if let Some(silent) = self.silent() {
            let lease = duration::format(self.identity.lease);
            let silent = seconds(silent);
            why.push(format!(
                "Redis has not answered for {silent}, longer than the lease of {lease}"
            ));
        }
        // One that is left alone waits by itself, and others are worked on.
        let left = self.worked_on(|is_barred| is_barred);
        let mut notes: Vec<String> = left
            .iter()
            .map(|stream| {
                format!("the group of {stream:?} can't be joined: the log says why; its other streams are worked on")
            })
            .collect();
        if why.is_empty() {
            let parts = self.on_duty();
            let silent = parts.iter();
            let silent = silent.filter_map(|part| Some((part, self.silent_for(part)?)));
            notes.extend(silent.map(|(part, silent)| {
                let streams = streams_of(part).join(", ");
                let silent = seconds(silent);
                format!("the node of {streams} has not answered for {silent}; its other streams are worked on")
            }));
        }
        Verdict::of(why).noting(notes)
    }

    fn has_joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed) > 0 || self.all_joined()
    }

    fn all_joined(&self) -> bool {
        let parts = self.parts();
        !parts.is_empty() && parts.iter().all(|part| part.signals.has_joined())
    }

    /// For how long no server has answered, if that is longer than a lease.
    fn silent(&self) -> Option<Duration> {
        let mut shortest = None::<Duration>;
        for part in self.on_duty() {
            let silent = self.silent_for(&part)?;
            shortest = Some(shortest.map_or(silent, |known| known.min(silent)));
        }
        shortest
    }

    /// Those that read their streams: the others ask for so little that their silence says nothing.
    fn on_duty(&self) -> Vec<Arc<Shard>> {
        let mut parts = self.parts();
        parts.retain(|part| part.signals.duties.is_on());
        parts
    }

    fn silent_for(&self, part: &Shard) -> Option<Duration> {
        let joined = self.joined.load(Ordering::Relaxed);
        let joined = (joined > 0).then(|| self.began + Duration::from_millis(joined - 1));
        let answered = part.health.last_answer().max(joined)?;
        let silent = answered.elapsed();
        (silent > self.identity.lease).then_some(silent)
    }

    /// How it is, in a line.
    fn status(&self) -> String {
        let address = &self.address;
        if self.is_stopping() {
            let held: usize = self
                .parts()
                .iter()
                .map(|part| part.inflight.entries())
                .sum();
            let running = self.slots.running();
            return format!("stops: {running} handlers run, {held} entries are not settled yet");
        }
        if !self.has_joined() {
            return format!("waits for Redis at {address}");
        }
        if let Some(silent) = self.silent() {
            let silent = seconds(silent);
            return format!("Redis at {address} has not answered for {silent}");
        }
        let streams = self.worked_on(|is_barred| !is_barred).join(", ");
        format!("works on {streams} for the group {}", self.identity.group)
    }

    /// Its streams, by whether their group can't be joined.
    fn worked_on(&self, is_wanted: impl Fn(bool) -> bool) -> Vec<String> {
        let mut wanted = Vec::new();
        for part in self.parts() {
            let named = part.sources.named();
            let named = named.iter();
            let these = named.filter(|source| is_wanted(source.is_barred()));
            wanted.extend(these.map(|source| source.keys.stream.clone()));
        }
        wanted
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

fn streams_of(part: &Shard) -> Vec<String> {
    let named = part.sources.named();
    let streams = named.iter().map(|source| source.keys.stream.clone());
    streams.collect()
}

/// In whole seconds.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}
