//! What the parts of a worker share: its names and limits, what it holds, and how they tell each other what to do.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::inflight::{Batch, Inflight, Slot};
use super::inline::Inline;
use super::precedence::Precedence;
use super::quarantine::Quarantine;
use super::recent_acks::RecentAcks;
use super::source::Source;
use crate::config::{Settings, Start};
use crate::delay;
use crate::error::{Error, Result};
use crate::policy::Breakers;
use crate::stream::{Connector, Greeting, Link, Reader};
use crate::worker::observer::Observer;
use crate::worker::run::routes::Routes;
use crate::worker::shard::clock::Clock;
use crate::worker::shard::settle::acker::WORTHWHILE;

/// How long a settlement may take to be answered.
const SETTLE_ANSWER: Duration = Duration::from_secs(10);
/// The least and the most that a third of the lease comes to where the answer to a read is waited for, beyond the time
/// it blocks. An answer that got lost leaves entries pending with this worker: they are to be found before it is over.
const READ_ANSWER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// What the parts of a worker share.
pub(crate) struct Shared {
    pub connector: Connector,
    pub group: String,
    /// This worker's consumer.
    pub consumer: String,
    /// Its consumer for entries that may kill their worker.
    pub alone: String,
    pub sources: Vec<Arc<Source>>,
    pub lease: Duration,
    pub concurrency: usize,
    pub prefetch: usize,
    /// The fewest attempts any handler has.
    pub least_attempts: u32,
    pub observer: Option<Arc<dyn Observer>>,
    pub routes: Routes,
    pub breakers: Arc<Breakers>,
    /// The server's clock as the fetcher last saw it.
    clock: Mutex<Clock>,
    /// What the server's clock showed when this worker began, by its last answers; 0 where it is not known yet.
    server_began_ms: AtomicU64,
    began: Instant,
    pub inflight: Inflight,
    pub recent_acks: RecentAcks,
    pub quarantine: Quarantine,
    pub precedence: Precedence,
    pub inline: Inline,
    /// One permit for each handler that may run.
    pub slots: Arc<Semaphore>,
    /// No new work: what has not started is given back. See [`stop`](Self::stop).
    pub stopping: CancellationToken,
    /// The end: what is not settled stays pending and is reclaimed by others.
    pub abandon: CancellationToken,
    /// The groups are there: set once the fetcher has joined them for the first time.
    pub joined: CancellationToken,
    /// Something came up for the fetcher.
    pub nudge: Notify,
    /// The room is wanted that entries take up until they are acknowledged.
    pub ack_now: Notify,
    /// [`next_due`](Self::next_due) may be sooner now.
    pub due_changed: Notify,
    /// A scheduled event may be due sooner than was known.
    pub schedule_changed: Notify,
    /// An entry waits for its lease to be renewed.
    pub renew_now: Notify,
    starts: Vec<(String, Start)>,
    /// The same as `stopping`, without its lock.
    stops: AtomicBool,
    adopt: AtomicBool,
    /// Something was held back, ever: from then on it is asked how much.
    holds_back: AtomicBool,
    replan: AtomicBool,
    rejoin: AtomicBool,
    due: Mutex<Option<Instant>>,
    health: Mutex<Health>,
    server: Mutex<Server>,
    failure: Mutex<Option<Error>>,
    settle_link: tokio::sync::Mutex<Option<Link>>,
    /// Entries that have succeeded and that the acker has not taken in.
    untaken: AtomicUsize,
}

#[derive(Default)]
struct Health {
    /// Since when every renewal has been answered in time.
    since: Option<Instant>,
    last: Option<Instant>,
}

#[derive(Default)]
struct Server {
    run: Option<String>,
    /// Until then an acknowledgement makes sure that the id is still the entry's.
    fenced_until: Option<Instant>,
}

impl Shared {
    pub fn new(
        settings: &Settings,
        connector: Connector,
        sources: Vec<Arc<Source>>,
        observer: Option<Arc<dyn Observer>>,
        routes: Routes,
        breakers: Arc<Breakers>,
    ) -> Self {
        let worker = &settings.worker;
        let consumer = consumer_name(worker.lease);
        let policies = settings
            .handlers
            .keys()
            .map(|event_type| settings.policy(event_type));
        let start = |stream: &String| (stream.clone(), settings.start(stream));
        let starts = worker.streams.iter().map(start);
        Shared {
            connector,
            group: worker.group.clone(),
            alone: format!("{consumer}!"),
            consumer,
            sources,
            lease: worker.lease,
            concurrency: worker.concurrency,
            prefetch: worker.prefetch,
            least_attempts: policies
                .map(|policy| policy.max_attempts)
                .fold(settings.retry.max_attempts, u32::min),
            observer,
            routes,
            breakers,
            clock: Mutex::default(),
            server_began_ms: AtomicU64::new(0),
            began: Instant::now(),
            inflight: Inflight::new(),
            recent_acks: RecentAcks::default(),
            quarantine: Quarantine::default(),
            precedence: Precedence::default(),
            inline: Inline::new(),
            slots: Arc::new(Semaphore::new(worker.concurrency)),
            stopping: CancellationToken::new(),
            abandon: CancellationToken::new(),
            joined: CancellationToken::new(),
            nudge: Notify::new(),
            ack_now: Notify::new(),
            due_changed: Notify::new(),
            schedule_changed: Notify::new(),
            renew_now: Notify::new(),
            starts: starts.collect(),
            stops: AtomicBool::new(false),
            adopt: AtomicBool::new(false),
            holds_back: AtomicBool::new(false),
            replan: AtomicBool::new(false),
            rejoin: AtomicBool::new(false),
            due: Mutex::default(),
            health: Mutex::default(),
            server: Mutex::default(),
            failure: Mutex::default(),
            settle_link: tokio::sync::Mutex::default(),
            untaken: AtomicUsize::new(0),
        }
    }

    /// A connection for one part of the worker. Notices when it leads to another server, or to another run of it.
    pub async fn connect(&self, part: &str, response_timeout: Duration) -> Result<Link> {
        let link = self
            .connector
            .connect(
                &format!("streamhand:{}:{part}", self.group),
                response_timeout,
            )
            .await?;
        self.greeted(&link.greeting);
        Ok(link)
    }

    /// The connection that new entries are read on.
    pub async fn connect_reader(&self) -> Result<Reader> {
        let name = format!("streamhand:{}:read", self.group);
        let patience = (self.lease / 3).clamp(READ_ANSWER.0, READ_ANSWER.1);
        let reader = self.connector.reader(&name, patience).await?;
        self.greeted(&reader.greeting);
        Ok(reader)
    }

    /// The connection that entries are settled on.
    pub async fn settle_link(&self) -> Result<Link> {
        let mut known = self.settle_link.lock().await;
        match &*known {
            Some(link) => Ok(link.clone()),
            None => {
                let link = self.connect("settle", SETTLE_ANSWER).await?;
                *known = Some(link.clone());
                Ok(link)
            }
        }
    }

    /// The connection that entries are settled on is of no more use.
    pub async fn settle_link_broke(&self, broken: &Link) {
        let mut known = self.settle_link.lock().await;
        known.take_if(|link| link.greeting.client == broken.greeting.client);
    }

    fn greeted(&self, greeting: &Greeting) {
        let mut server = self.server.lock().expect("no panic while it is locked");
        if server
            .run
            .as_ref()
            .is_some_and(|run| *run != greeting.server)
        {
            server.fenced_until = Some(Instant::now() + self.lease);
            self.inflight.lapse_all();
            self.recent_acks.recall();
            self.renew_now.notify_one();
        }
        server.run = Some(greeting.server.clone());
    }

    /// Whether ids may by now be other entries': after a failover, for a lease.
    pub fn is_fenced(&self) -> bool {
        let server = self.server.lock().expect("no panic while it is locked");
        server
            .fenced_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// The streams there is something to look for in.
    pub fn active_sources(&self) -> Vec<Arc<Source>> {
        let mut active = self.all_sources();
        active.retain(|source| !source.is_barred());
        active
    }

    /// The streams that entries may be held of: those as well whose group was joined once and can't be joined now.
    pub fn joined_sources(&self) -> Vec<Arc<Source>> {
        let mut joined = self.all_sources();
        joined.retain(|source| !source.is_barred() || source.known().is_some());
        joined
    }

    /// The same with those whose group can't be joined.
    pub fn all_sources(&self) -> Vec<Arc<Source>> {
        let mut all = self.sources.clone();
        all.extend(
            self.sources
                .iter()
                .filter_map(|source| source.again.clone())
                .filter(|again| again.is_active()),
        );
        all
    }

    /// Where the group of a stream begins if there is none.
    pub fn start_of(&self, source: &Source) -> Start {
        if source.deletes() {
            return Start::Beginning;
        }
        let own = self
            .starts
            .iter()
            .find(|(name, _)| *name == source.keys.stream);
        own.map_or(Start::Beginning, |(_, start)| *start)
    }

    pub fn is_me(&self, consumer: &str) -> bool {
        consumer == self.consumer || consumer == self.alone
    }

    /// So many entries of a batch have succeeded, and are about to be handed to the acker. It is told once there are
    /// enough of them to be sent at once.
    pub fn succeeded(&self, entries: usize) {
        self.inflight.succeed(entries);
        let before = self.untaken.fetch_add(entries, Ordering::SeqCst);
        if before < WORTHWHILE && before + entries >= WORTHWHILE {
            self.ack_now.notify_one();
        }
    }

    /// The acker has taken so many in.
    pub fn taken_in(&self, entries: usize) {
        self.untaken.fetch_sub(entries, Ordering::SeqCst);
    }

    /// Redis has settled these entries, or they are no longer ours to settle.
    pub fn settled<'a>(&self, batch: &Batch, slots: impl IntoIterator<Item = &'a Slot>) {
        self.inflight.settle(batch, slots);
        self.left(batch);
    }

    /// Redis has acknowledged these entries.
    pub fn acknowledged<'a>(&self, batch: &Batch, slots: impl ExactSizeIterator<Item = &'a Slot>) {
        self.inflight.acknowledge(batch, slots);
        self.left(batch);
    }

    fn left(&self, batch: &Batch) {
        if batch.alone {
            self.quarantine.leave();
            self.nudge.notify_one();
        }
    }

    /// So many entries of a stream have come, and are on their way to their handlers.
    pub fn coming(&self, source: &Source, entries: usize) {
        if self.routes.is_limited() {
            source.on_the_way.fetch_add(entries, Ordering::Relaxed);
        }
    }

    /// One of them has got there.
    pub fn arrived(&self, batch: &Batch) {
        if self.routes.is_limited() {
            batch.source.on_the_way.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// An entry was put back because of a limit.
    pub fn held_back(&self) {
        self.holds_back.store(true, Ordering::Relaxed);
        self.replan();
    }

    /// Whether any ever was.
    pub fn holds_back(&self) -> bool {
        self.holds_back.load(Ordering::Relaxed)
    }

    /// What may be read has changed: the fetcher looks anew.
    pub fn replan(&self) {
        if !self.replan.swap(true, Ordering::SeqCst) {
            self.nudge.notify_one();
        }
    }

    pub fn take_replan(&self) -> bool {
        self.replan.swap(false, Ordering::SeqCst)
    }

    /// The worker takes up nothing more.
    pub fn stop(&self) {
        self.stops.store(true, Ordering::SeqCst);
        self.stopping.cancel();
    }

    /// Whether the worker takes up nothing more. Asked for every entry: costs one load.
    pub fn is_stopping(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }

    /// The group seems to be gone: the fetcher joins it anew.
    pub fn rejoin(&self) {
        self.rejoin.store(true, Ordering::SeqCst);
        self.nudge.notify_one();
    }

    pub fn wants_to_join(&self) -> bool {
        self.rejoin.load(Ordering::SeqCst)
    }

    pub fn take_rejoin(&self) -> bool {
        self.rejoin.swap(false, Ordering::SeqCst)
    }

    /// Something may be pending with us that is not held: the fetcher looks.
    pub fn adopt_soon(&self) {
        self.adopt.store(true, Ordering::SeqCst);
        self.nudge.notify_one();
    }

    pub fn take_adopt(&self) -> bool {
        self.adopt.swap(false, Ordering::SeqCst)
    }

    /// Whether the fetcher has something to do that no delivery may be under way at.
    pub fn is_wanted(&self) -> bool {
        self.is_stopping()
            || self.replan.load(Ordering::SeqCst)
            || self.adopt.load(Ordering::SeqCst)
            || self.rejoin.load(Ordering::SeqCst)
    }

    /// Something was parked that falls due after `delay`.
    pub fn due_in(&self, delay: Duration) {
        let at = delay::after(Instant::now(), delay);
        let mut due = self.due.lock().expect("no panic while it is locked");
        if due.is_none_or(|known| at < known) {
            *due = Some(at);
            self.due_changed.notify_one();
        }
    }

    /// When the first of what was parked here falls due.
    pub fn next_due(&self) -> Option<Instant> {
        *self.due.lock().expect("no panic while it is locked")
    }

    /// What was due at `now` is being looked for.
    pub fn due_looked_for(&self, now: Instant) {
        let mut due = self.due.lock().expect("no panic while it is locked");
        if due.is_some_and(|due| due <= now) {
            *due = None;
        }
    }

    /// A renewal sent at `sent` was answered.
    pub fn renewed(&self, sent: Instant, in_time: bool) {
        let mut health = self.health.lock().expect("no panic while it is locked");
        if !in_time || health.since.is_none() {
            health.since = Some(sent);
        }
        health.last = Some(sent);
    }

    /// The server's clock was seen.
    pub fn saw_clock(&self, clock: Clock) {
        *self.clock.lock().expect("no panic while it is locked") = clock;
    }

    /// The server's clock as it was last seen.
    pub fn clock(&self) -> Clock {
        *self.clock.lock().expect("no panic while it is locked")
    }

    /// The server's clock shows this now, or did a moment ago.
    pub fn server_shows(&self, ms: u64) {
        let began = ms.saturating_sub(self.began.elapsed().as_millis() as u64);
        self.server_began_ms.store(began, Ordering::Relaxed);
    }

    /// When `left` will be over by the server's clock, and not later than that (ms); in the past where the clock is not
    /// known yet, so that the server says so.
    pub fn by_the_server_in(&self, left: Duration) -> u64 {
        let began = self.server_began_ms.load(Ordering::Relaxed);
        let after = self.began.elapsed() + left;
        (began + after.as_millis() as u64).max(1)
    }

    /// A renewal got no answer.
    pub fn not_renewed(&self) {
        self.health
            .lock()
            .expect("no panic while it is locked")
            .since = None;
    }

    /// Whether renewals have been answered in time for a whole lease: only then do the ages of others' entries mean
    /// that they, and not Redis, were away.
    pub fn is_healthy(&self) -> bool {
        let health = self.health.lock().expect("no panic while it is locked");
        health
            .since
            .is_some_and(|since| since.elapsed() >= self.lease)
            && health
                .last
                .is_some_and(|last| last.elapsed() < self.lease * 2 / 3)
    }

    /// Something that waiting can't mend: the worker stops and ends with it.
    pub fn fail(&self, error: Error) {
        tracing::error!("{}", crate::error::chain(&error));
        self.failure
            .lock()
            .expect("no panic while it is locked")
            .get_or_insert(error);
        self.stop();
        self.abandon.cancel();
    }

    pub fn take_failure(&self) -> Option<Error> {
        self.failure
            .lock()
            .expect("no panic while it is locked")
            .take()
    }
}

/// `sh<protocol>-<lease in ms>-<host>-<pid>-<random>`: unlike any other's, and it tells the lease to those who may
/// have to reclaim what it holds.
fn consumer_name(lease: Duration) -> String {
    let host: String = gethostname::gethostname()
        .to_string_lossy()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(64)
        .collect();
    let random: u64 = fastrand::u64(..);
    format!(
        "sh{}-{}-{host}-{}-{random:016x}",
        crate::stream::PROTOCOL,
        lease.as_millis(),
        std::process::id()
    )
}

/// Waits until `at`, or for ever.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
