//! What a handler is given beside its event: the envelope, the attempt, a way to hear that it should stop, and Redis.

pub(crate) mod notes;

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::notes::Notes;
use crate::effects::{CommitError, Committed};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Envelope;
use crate::identity::which;
use crate::outbox::{Items, Outbox};
use crate::partition::epoch;
use crate::policy::Breakers;
use crate::publisher::Publisher;
use crate::stream::{Pool, PooledConnection};
use crate::sync::lock;
use crate::trace::{Run, TraceContext, Tracer};

/// What a handler is given beside its event. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

/// Why a handler is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancelled {
    /// The worker is stopping. It waits for running handlers until its drain time is over.
    Stopping,
    /// The entry is no longer this worker's: another one has taken it over.
    LeaseLost,
    /// The handler's timeout has passed; after a grace period it is dropped.
    TimedOut,
    /// An operator has cancelled the entry; after a grace period the handler is dropped. If it fails its entry ends as
    /// cancelled, and does not come again. If it succeeds it has succeeded.
    Requested,
}

/// What all entries of one stream have in common.
pub(crate) struct Surroundings {
    pub stream: String,
    pub group: String,
    pub pool: Option<Pool>,
    pub publisher: Option<Publisher>,
    pub breakers: Arc<Breakers>,
    /// Who traces runs of handlers, if anybody does.
    pub tracer: Option<Tracer>,
    /// Who carries commits out, as long as the worker runs.
    pub commits: Option<mpsc::WeakUnboundedSender<Ask>>,
}

/// A handler asks for its commit.
pub(crate) struct Ask {
    pub ctx: Context,
    pub items: Items,
    pub reply: oneshot::Sender<Result<Committed, CommitError>>,
}

/// Where a worker holds the entry: which batch, by its serial number, which is 0 for none, and the place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub batch: u64,
    pub index: u32,
    /// Which delivery of the entry before this one ran its handler; 0 if none is known to.
    pub after: u32,
    /// Since its first delivery, in seconds.
    pub age: u32,
    /// The number of the lease under which the stream is this worker's; 0 where its events have no order.
    pub lease: u64,
}

/// What tells those who are asked from outside of Redis that a later owner of a stream has asked them already: see
/// [`Context::fence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Fence<'a> {
    /// The stream, or the partition of a topic. Numbers of different ones have nothing to do with each other, but for those
    /// of a topic that has grown: those of a later generation are higher than all of the ones before.
    pub partition: &'a str,
    /// The number of the worker's lease. Each owner's is higher than that of the one before.
    pub epoch: u64,
}

/// A run that is traced, or that has asked where in which trace it is.
struct Traced {
    run: Run,
    /// What publishes from within it; made when it is asked for.
    publisher: OnceLock<Publisher>,
}

struct Inner {
    envelope: Envelope,
    attempt: u32,
    max_attempts: u32,
    surroundings: Arc<Surroundings>,
    place: Place,
    /// 0, or a [`Cancelled`] as a number.
    cancelled: AtomicU8,
    /// Since when its handler waits, if it does: nanoseconds since the worker began.
    waits_since: AtomicU64,
    /// Made when somebody asks for it: most handlers never do.
    token: OnceLock<CancellationToken>,
    /// Made when something is emitted, or an effect asked for: most handlers never do.
    outbox: OnceLock<Box<Outbox>>,
    traced: OnceLock<Box<Traced>>,
    /// The events that are handled at once, if these are several.
    members: Option<Box<Members>>,
}

impl Context {
    pub(crate) fn new(
        envelope: Envelope,
        attempt: u32,
        max_attempts: u32,
        surroundings: Arc<Surroundings>,
    ) -> Self {
        Self::placed(
            envelope,
            attempt,
            max_attempts,
            surroundings,
            Place::default(),
        )
    }

    /// The same, of an entry that is held at `place`.
    pub(crate) fn placed(
        envelope: Envelope,
        attempt: u32,
        max_attempts: u32,
        surroundings: Arc<Surroundings>,
        place: Place,
    ) -> Self {
        Self::made(envelope, (attempt, max_attempts), surroundings, place, None)
    }

    /// The one context of all these, which are handled at once. Its event is the first of them.
    pub(crate) fn of_batch(members: Vec<Context>) -> Self {
        let first = &members[0].inner;
        let lease = members.iter().map(|ctx| ctx.inner.place.lease).min();
        let place = Place {
            lease: lease.unwrap_or_default(),
            ..first.place
        };
        let (envelope, surroundings) = (first.envelope.clone(), first.surroundings.clone());
        let attempts = (first.attempt, first.max_attempts);
        let members = Some(Box::new(Members::new(members)));
        Self::made(envelope, attempts, surroundings, place, members)
    }

    #[inline]
    fn made(
        envelope: Envelope,
        (attempt, max_attempts): (u32, u32),
        surroundings: Arc<Surroundings>,
        place: Place,
        members: Option<Box<Members>>,
    ) -> Self {
        let (cancelled, waits_since) = (AtomicU8::new(0), AtomicU64::new(0));
        let (token, outbox) = (OnceLock::new(), OnceLock::new());
        let traced = OnceLock::new();
        Context {
            inner: Arc::new(Inner {
                envelope,
                attempt,
                max_attempts,
                surroundings,
                place,
                cancelled,
                waits_since,
                token,
                outbox,
                traced,
                members,
            }),
        }
    }

    /// The same of another attempt, for an entry whose handler does not start.
    pub(crate) fn with_attempt(&self, attempt: u32) -> Self {
        let inner = &self.inner;
        Self::placed(
            inner.envelope.clone(),
            attempt,
            inner.max_attempts,
            inner.surroundings.clone(),
            inner.place,
        )
    }

    /// A context for a handler's unit test: first attempt of five, an event without data, no Redis.
    ///
    /// ```
    /// # use streamhand::{Context, Event, Failure};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct OrderCreated { order_id: String }
    /// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
    /// async fn reserve(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
    ///     println!("attempt {} at {}", ctx.attempt(), order.order_id);
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let order = OrderCreated { order_id: "o-1".into() };
    /// assert!(reserve(order, Context::for_test()).await.is_ok());
    /// # }
    /// ```
    pub fn for_test() -> Self {
        Self::for_test_with(Envelope::new("test.event"), None)
    }

    /// The same with an envelope of your own, and with a Redis for [`redis`](Self::redis) and
    /// [`publisher`](Self::publisher) if the handler needs one.
    pub fn for_test_with(envelope: Envelope, publisher: Option<Publisher>) -> Self {
        let pool = publisher.as_ref().map(|publisher| publisher.pool().clone());
        let surroundings = Surroundings {
            stream: "test".to_owned(),
            group: "test".to_owned(),
            pool,
            publisher,
            breakers: Arc::default(),
            tracer: None,
            commits: None,
        };
        Self::new(envelope, 1, 5, Arc::new(surroundings))
    }

    /// The event as it came, with its type, id, time and undecoded data.
    pub fn envelope(&self) -> &Envelope {
        &self.inner.envelope
    }

    /// Which attempt this is: 1 the first time. Deliveries that reached no handler do not count, and neither does a
    /// [crash check](Self::is_crash_check): there this is the last attempt once more.
    pub fn attempt(&self) -> u32 {
        self.inner.attempt.min(self.inner.max_attempts)
    }

    /// Under which lease this worker has the stream, if the stream's events have an order (`order = "subject"`). A worker
    /// that froze may go on with a handler when another one has taken the stream over. What is outside of Redis can know
    /// that: it keeps the highest epoch it has seen of a subject, and refuses a lower one. When a topic has grown, a subject is
    /// in another partition, and its epochs there are higher than all before.
    ///
    /// ```
    /// # use streamhand::{Context, Failure};
    /// # async fn example(ctx: Context) -> Result<(), Failure> {
    /// if let Some(fence) = ctx.fence() {
    ///     println!("UPDATE accounts SET … WHERE epoch <= {} -- of {}", fence.epoch, fence.partition);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn fence(&self) -> Option<Fence<'_>> {
        let (partition, lease) = (&self.inner.surroundings.stream[..], self.inner.place.lease);
        (lease > 0).then(|| Fence {
            partition,
            epoch: epoch(partition, lease),
        })
    }

    /// Whether the event runs once more, behind its last attempt: its worker died in that, and something else may have
    /// killed it. It is buried if this fails.
    pub fn is_crash_check(&self) -> bool {
        self.crash_checks() > 0
    }

    /// How many of its runs were crash checks.
    pub(crate) fn crash_checks(&self) -> u32 {
        self.inner.attempt.saturating_sub(self.inner.max_attempts)
    }

    /// After how many attempts the event is buried.
    pub fn max_attempts(&self) -> u32 {
        self.inner.max_attempts
    }

    /// Whether the event is buried if this attempt fails.
    pub fn is_last_attempt(&self) -> bool {
        self.inner.attempt >= self.inner.max_attempts
    }

    /// The stream the entry was read from.
    pub fn stream(&self) -> &str {
        &self.inner.surroundings.stream
    }

    /// The worker's group.
    pub fn group(&self) -> &str {
        &self.inner.surroundings.group
    }

    /// Why this handler should stop, if it should.
    pub fn cancellation(&self) -> Option<Cancelled> {
        match self.inner.cancelled.load(Ordering::SeqCst) {
            1 => Some(Cancelled::Stopping),
            2 => Some(Cancelled::LeaseLost),
            3 => Some(Cancelled::TimedOut),
            REQUESTED | CUT => Some(Cancelled::Requested),
            _ => None,
        }
    }

    /// Waits until this handler should stop, and says why. Useful in a `select!` beside long work.
    pub async fn cancelled(&self) -> Cancelled {
        self.token().cancelled().await;
        self.cancellation().unwrap_or(Cancelled::Stopping)
    }

    /// The token that is cancelled when this handler should stop, to pass on to other libraries.
    pub fn token(&self) -> &CancellationToken {
        let token = self.inner.token.get_or_init(CancellationToken::new);
        // `stops_for` notes the reason first and looks for a token then: one of the two sees the other.
        if self.cancellation().is_some() {
            token.cancel();
        }
        token
    }

    /// A connection to the worker's Redis, from its pool.
    ///
    /// # Errors
    /// If Redis can't be reached, or in a test without one.
    pub async fn redis(&self) -> Result<PooledConnection> {
        self.inner
            .surroundings
            .pool
            .as_ref()
            .ok_or_else(without_redis)?
            .get()
            .await
    }

    /// Publishes events to the worker's Redis. What it publishes is not tied to the event's acknowledgement: a
    /// crash between the two publishes again when the event is handled again.
    ///
    /// # Errors
    /// In a test without Redis.
    pub fn publisher(&self) -> Result<&Publisher> {
        let publisher = self.surroundings().publisher.as_ref();
        let publisher = publisher.ok_or_else(without_redis)?;
        let Some((tracer, traced)) = self.surroundings().tracer.as_ref().zip(self.traced()) else {
            return Ok(publisher);
        };
        let within = || {
            publisher
                .clone()
                .part_of(tracer.clone(), traced.run.context)
        };
        Ok(traced.publisher.get_or_init(within))
    }

    /// Where in which trace the handler runs, to hand on to whom it calls: its `to_string()` is a `traceparent`. If runs
    /// are traced it is the run's own span; if this one is not kept, or none are, it is what the event came with. None if
    /// there is nothing to hand on.
    pub fn trace(&self) -> Option<TraceContext> {
        match self.traced() {
            Some(traced) => Some(traced.run.context),
            None => self.known_trace(),
        }
    }

    /// The run has begun as a span.
    #[cold]
    pub(crate) fn runs_in(&self, run: Run) {
        let publisher = OnceLock::new();
        let _ = self.inner.traced.set(Box::new(Traced { run, publisher }));
    }

    /// The run as a span, if it is one that is kept.
    #[inline]
    pub(crate) fn run(&self) -> Option<&Run> {
        let traced = self.inner.traced.get()?;
        Some(&traced.run).filter(|run| run.is_traced())
    }

    /// Where in which trace it runs, if runs are traced.
    fn traced(&self) -> Option<&Traced> {
        let tracer = self.surroundings().tracer.as_ref()?;
        let untraced = || {
            let (run, publisher) = (tracer.untraced(self.envelope()), OnceLock::new());
            Box::new(Traced { run, publisher })
        };
        Some(self.inner.traced.get_or_init(untraced))
    }

    /// The context that an event emitted here carries, if runs are traced.
    pub(crate) fn trace_of_emitted(&self) -> Option<TraceContext> {
        let tracer = self.surroundings().tracer.as_ref()?;
        let run = &self.traced()?.run;
        Some(match run.is_traced() {
            true => run.context.with_span(tracer.new_span()),
            false => run.context,
        })
    }

    /// The trace that the event belongs to, if any is known.
    pub(crate) fn known_trace(&self) -> Option<TraceContext> {
        match self.run() {
            Some(run) => Some(run.context),
            None => self.envelope().traceparent().and_then(TraceContext::parse),
        }
    }

    /// What it emitted and wants to take effect, if there is any.
    pub(crate) fn outbox(&self) -> Option<&Outbox> {
        self.inner.outbox.get().map(|outbox| &**outbox)
    }

    pub(crate) fn outbox_or_new(&self) -> &Outbox {
        self.inner.outbox.get_or_init(Box::default)
    }

    /// The events that are handled at once, in a batch handler.
    pub(crate) fn members(&self) -> Option<&Members> {
        self.inner.members.as_deref()
    }

    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.inner.surroundings
    }

    /// How long ago it was first delivered, in whole seconds.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_secs(self.inner.place.age.into())
    }

    pub(crate) fn place(&self) -> Place {
        self.inner.place
    }

    /// Its handler has started and waits, at this time of the worker's.
    pub(crate) fn waits(&self, since: u64) {
        self.inner.waits_since.store(since, Ordering::Relaxed);
    }

    pub(crate) fn waits_since(&self) -> u64 {
        self.inner.waits_since.load(Ordering::Relaxed)
    }

    /// Its handler has ended: what it is told from now on is not why it ended so.
    pub(crate) fn has_ended(&self) {
        let cancelled = &self.inner.cancelled;
        let _ = cancelled.compare_exchange(0, ENDED, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// The grace period of a cancelled handler is over: it is dropped, should it still run.
    pub(crate) fn is_to_be_cut(&self) {
        let cancelled = &self.inner.cancelled;
        let _ = cancelled.compare_exchange(REQUESTED, CUT, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.inner.cancelled.load(Ordering::SeqCst) == CUT
    }

    pub(crate) fn stops_for(&self, why: Cancelled) {
        self.is_told(why);
    }

    /// Says why its handler should stop. Returns whether that is the reason from now on.
    pub(crate) fn is_told(&self, why: Cancelled) -> bool {
        let number = match why {
            Cancelled::Stopping => 1,
            Cancelled::LeaseLost => 2,
            Cancelled::TimedOut => 3,
            Cancelled::Requested => REQUESTED,
        };
        // What came first stays, but for a stop, which is the mildest reason.
        let noted = self
            .inner
            .cancelled
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
                (old <= 1 && number > old).then_some(number)
            });
        if let Some(token) = self.inner.token.get() {
            token.cancel();
        }
        noted.is_ok()
    }
}

/// The events that a batch handler is given at once, each with a context of its own. The handler has one context for all of
/// them, which knows them.
pub(crate) struct Members {
    all: Box<[Context]>,
    notes: Mutex<Notes>,
    /// Which events these are, made when something is emitted.
    seed: OnceLock<String>,
}

impl Members {
    pub fn new(all: Vec<Context>) -> Self {
        Members {
            all: all.into(),
            notes: Mutex::default(),
            seed: OnceLock::new(),
        }
    }

    pub fn all(&self) -> &[Context] {
        &self.all
    }

    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }

    pub fn take_notes(&self) -> Notes {
        std::mem::take(&mut self.notes())
    }

    /// What stands for all of them: the same events have the same, others another.
    pub fn seed(&self) -> &str {
        self.seed.get_or_init(|| {
            let of_one = |ctx: &Context| {
                let envelope = ctx.envelope();
                let (id, of) = (envelope.id(), envelope.type_bytes());
                which(envelope.source_bytes(), id.as_bytes(), of)
            };
            let all: Vec<String> = self.all.iter().map(of_one).collect();
            which(b"", all.join(" ").as_bytes(), b"")
        })
    }

    /// What all of them have in common, if they have.
    pub fn shared<'a>(&'a self, of: impl Fn(&'a Context) -> Option<&'a str>) -> Option<&'a str> {
        let mut all = self.all.iter().map(of);
        let first = all.next()??;
        all.all(|other| other == Some(first)).then_some(first)
    }
}

/// In place of a reason to stop: the handler has ended without one.
const ENDED: u8 = 4;
/// [`Cancelled::Requested`] as a number.
const REQUESTED: u8 = 5;
/// The same once its grace period is over.
const CUT: u8 = 6;

fn without_redis() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "this context has no Redis: it is one of a test in memory; testing::on_redis(registry) runs a worker, and \
         Context::for_test_with(envelope, Some(publisher)) makes a context, that have one",
    )
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("stream", &self.stream())
            .field("envelope", self.envelope())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_is_told_why_it_should_stop_whenever_it_asks() {
        let ctx = Context::for_test();
        assert_eq!(ctx.cancellation(), None);
        assert!(!ctx.token().is_cancelled());
        ctx.stops_for(Cancelled::Stopping);
        ctx.stops_for(Cancelled::LeaseLost);
        ctx.stops_for(Cancelled::TimedOut);
        assert_eq!(ctx.cancelled().await, Cancelled::LeaseLost);

        let late = Context::for_test();
        late.stops_for(Cancelled::TimedOut);
        assert!(late.token().is_cancelled());

        let ended = Context::for_test();
        ended.has_ended();
        ended.stops_for(Cancelled::Stopping);
        assert_eq!(ended.cancellation(), None);
        assert!(!ended.token().is_cancelled());
    }
}
