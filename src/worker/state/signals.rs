//! What the parts of a worker tell each other: that it stops, and that there is something to look at.
//!
//! Flags have a wake-up beside them. Whoever raises one sets the flag first; whoever is woken takes the flag, and looks
//! after that: so nothing that is raised meanwhile is missed, and what is raised twice before a look is looked at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::duties::Duties;
use crate::delay;
use crate::error::Error;
use crate::sync::{lock, read, write};

/// What the parts of a worker tell each other. What has to do with its end is told to all its shards.
#[derive(Default)]
pub(crate) struct Signals {
    worker: Arc<OfWorker>,
    joined: CancellationToken,
    nudge: Notify,
    adopt: AtomicBool,
    replan: AtomicBool,
    rejoin: AtomicBool,
    /// The fetcher asks for entries, or may.
    takes_up: AtomicBool,
    /// Something was released because of a limit, ever: from then on it is asked how much.
    releases: AtomicBool,
    due: Mutex<Option<Instant>>,
    due_changed: Notify,
    schedule_changed: Notify,
    renew_now: Notify,
    /// Whether this shard reads its stream.
    pub duties: Duties,
}

/// What all shards of a worker hear.
#[derive(Default)]
struct OfWorker {
    stopping: CancellationToken,
    /// The same as `stopping`, without its lock.
    stops: AtomicBool,
    giving_up: CancellationToken,
    /// Handlers that run are to look whether they are dropped.
    interrupts: Notify,
    abandoned: CancellationToken,
    failure: Mutex<Option<Error>>,
    /// Nothing new is taken up, because an operator asks for it.
    quiet: AtomicBool,
    /// A fetcher takes up nothing more because of that.
    rested: Notify,
    /// A stream turned out to be sealed.
    sealed: Notify,
    shards: RwLock<Vec<Weak<Signals>>>,
}

impl Signals {
    /// Those of a worker's first shard.
    pub fn of_worker() -> Arc<Self> {
        Arc::new(Signals::default()).known()
    }

    /// Those of another shard of the same worker.
    pub fn another(&self) -> Arc<Self> {
        let worker = self.worker.clone();
        let signals = Signals {
            worker,
            ..Signals::default()
        };
        Arc::new(signals).known()
    }

    fn known(self: Arc<Self>) -> Arc<Self> {
        write(&self.worker.shards).push(Arc::downgrade(&self));
        self
    }
}

/// The end.
impl Signals {
    /// The worker takes up nothing more: what has not started is released.
    pub fn stop(&self) {
        self.worker.stops.store(true, Ordering::SeqCst);
        self.worker.stopping.cancel();
    }

    /// Whether the worker takes up nothing more. Asked for every entry: costs one load. Relaxed, because nothing else is
    /// read by what it says: one who sees it late starts one entry more.
    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.worker.stops.load(Ordering::Relaxed)
    }

    /// The worker takes up nothing new until it is told to go on. What it has is handled.
    pub fn set_quiet(&self, quiet: bool) {
        self.worker.quiet.store(quiet, Ordering::SeqCst);
        self.replan_all();
    }

    /// Whether the fetcher may take up something new. If so, it counts as taking up until it asks again.
    pub fn may_take_up(&self) -> bool {
        // Said before it is asked: whoever sees that nothing is taken up after the worker was made quiet can rely on it.
        self.takes_up.store(true, Ordering::SeqCst);
        let may = !self.worker.quiet.load(Ordering::SeqCst);
        if !may {
            self.takes_up_nothing();
        }
        may
    }

    /// The fetcher waits for no entries.
    pub fn takes_up_nothing(&self) {
        let took_up = self.takes_up.swap(false, Ordering::SeqCst);
        if took_up && self.worker.quiet.load(Ordering::SeqCst) {
            self.worker.rested.notify_one();
        }
    }

    /// Whether the worker is quiet by now: it was told to be, and no read is under way any more.
    pub fn is_quiet(&self) -> bool {
        let shards = read(&self.worker.shards);
        let takes_up = match shards.is_empty() {
            true => self.takes_up.load(Ordering::SeqCst),
            false => {
                let mut shards = shards.iter().filter_map(Weak::upgrade);
                shards.any(|shard| shard.takes_up.load(Ordering::SeqCst))
            }
        };
        self.worker.quiet.load(Ordering::SeqCst) && !takes_up
    }

    /// Waits until a fetcher takes up nothing more.
    pub fn rested(&self) -> Notified<'_> {
        self.worker.rested.notified()
    }

    /// Waits until it stops.
    pub fn stopped(&self) -> WaitForCancellationFuture<'_> {
        self.worker.stopping.cancelled()
    }

    /// Handlers that still run are dropped.
    pub fn give_up(&self) {
        self.worker.giving_up.cancel();
        self.interrupt();
    }

    /// Whether they are.
    pub fn is_giving_up(&self) -> bool {
        self.worker.giving_up.is_cancelled()
    }

    /// Some handlers that run may have to be dropped: all are to look.
    pub fn interrupt(&self) {
        self.worker.interrupts.notify_waiters();
    }

    /// Waits until a handler is to look, from when this is called.
    pub fn interrupted(&self) -> Notified<'_> {
        self.worker.interrupts.notified()
    }

    /// Waits until they are.
    pub fn given_up(&self) -> WaitForCancellationFuture<'_> {
        self.worker.giving_up.cancelled()
    }

    /// What is not settled by now stays pending, and others reclaim it.
    pub fn abandon(&self) {
        self.worker.abandoned.cancel();
    }

    /// Whether that has come.
    pub fn is_abandoned(&self) -> bool {
        self.worker.abandoned.is_cancelled()
    }

    /// Waits for that.
    pub fn abandoned(&self) -> WaitForCancellationFuture<'_> {
        self.worker.abandoned.cancelled()
    }

    /// Something that waiting can't mend: the worker stops and ends with it.
    pub fn fail(&self, error: Error) {
        tracing::error!("{}", crate::error::chain(&error));
        lock(&self.worker.failure).get_or_insert(error);
        self.stop();
        self.abandon();
    }

    pub fn take_failure(&self) -> Option<Error> {
        lock(&self.worker.failure).take()
    }
}

/// What the fetcher is told. It alone takes these flags.
impl Signals {
    /// Something came up for the fetcher.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Waits for that.
    pub fn nudged(&self) -> Notified<'_> {
        self.nudge.notified()
    }

    /// The groups are there: they have been joined for the first time.
    pub fn set_joined(&self) {
        self.joined.cancel();
    }

    /// Whether they have been.
    pub fn has_joined(&self) -> bool {
        self.joined.is_cancelled()
    }

    /// Waits until they are.
    pub fn joined(&self) -> WaitForCancellationFuture<'_> {
        self.joined.cancelled()
    }

    /// What may be read has changed: the fetcher looks anew.
    pub fn replan(&self) {
        if !self.replan.swap(true, Ordering::SeqCst) {
            self.nudge();
        }
    }

    /// The same at all shards of the worker.
    pub fn replan_all(&self) {
        let shards = read(&self.worker.shards).clone();
        match shards.len() {
            0 | 1 => self.replan(),
            _ => {
                let shards = shards.iter().filter_map(Weak::upgrade);
                shards.for_each(|shard| shard.replan());
            }
        }
    }

    pub fn take_replan(&self) -> bool {
        self.replan.swap(false, Ordering::SeqCst)
    }

    /// The group seems to be gone: the fetcher joins it anew.
    pub fn rejoin(&self) {
        self.rejoin.store(true, Ordering::SeqCst);
        self.nudge();
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
        self.nudge();
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

    /// An entry was released because of a limit: there is something for the fetcher to plan with.
    pub fn released(&self) {
        self.releases.store(true, Ordering::Relaxed);
        self.replan();
    }

    /// Whether any ever was.
    pub fn has_released(&self) -> bool {
        self.releases.load(Ordering::Relaxed)
    }
}

/// What has to do with the growth of topics.
impl Signals {
    /// A stream turned out to be sealed.
    pub fn sealed(&self) {
        self.worker.sealed.notify_one();
    }

    /// Waits for that.
    pub fn found_sealed(&self) -> Notified<'_> {
        self.worker.sealed.notified()
    }
}

/// What is due, and what has to be renewed.
impl Signals {
    /// Something was parked that falls due after `delay`.
    pub fn due_in(&self, delay: Duration) {
        let at = delay::after(Instant::now(), delay);
        let mut due = lock(&self.due);
        if due.is_none_or(|known| at < known) {
            *due = Some(at);
            self.due_changed.notify_one();
        }
    }

    /// When the first of what was parked here falls due.
    pub fn next_due(&self) -> Option<Instant> {
        *lock(&self.due)
    }

    /// What was due at `now` is being looked for.
    pub fn due_looked_for(&self, now: Instant) {
        let mut due = lock(&self.due);
        if due.is_some_and(|due| due <= now) {
            *due = None;
        }
    }

    /// Waits until [`next_due`](Self::next_due) is sooner.
    pub fn due_sooner(&self) -> Notified<'_> {
        self.due_changed.notified()
    }

    /// A scheduled event may be due sooner than was known.
    pub fn scheduled(&self) {
        self.schedule_changed.notify_one();
    }

    /// Waits for that.
    pub fn scheduled_sooner(&self) -> Notified<'_> {
        self.schedule_changed.notified()
    }

    /// An entry waits for its lease to be renewed.
    pub fn renew_soon(&self) {
        self.renew_now.notify_one();
    }

    /// Waits for one that does.
    pub fn renewal_wanted(&self) -> Notified<'_> {
        self.renew_now.notified()
    }
}
