//! What the parts of a worker tell each other: that it stops, and that there is something to look at.
//!
//! Flags have a wake-up beside them. Whoever raises one sets the flag first; whoever is woken takes the flag, and looks
//! after that: so nothing that is raised meanwhile is missed, and what is raised twice before a look is looked at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::delay;
use crate::error::Error;
use crate::sync::lock;

/// What the parts of a worker tell each other.
#[derive(Default)]
pub(crate) struct Signals {
    stopping: CancellationToken,
    /// The same as `stopping`, without its lock.
    stops: AtomicBool,
    giving_up: CancellationToken,
    abandoned: CancellationToken,
    joined: CancellationToken,
    failure: Mutex<Option<Error>>,
    nudge: Notify,
    adopt: AtomicBool,
    replan: AtomicBool,
    rejoin: AtomicBool,
    /// Something was released because of a limit, ever: from then on it is asked how much.
    releases: AtomicBool,
    due: Mutex<Option<Instant>>,
    due_changed: Notify,
    schedule_changed: Notify,
    /// Nothing new is taken up, because an operator asks for it.
    quiet: AtomicBool,
    renew_now: Notify,
}

/// The end.
impl Signals {
    /// The worker takes up nothing more: what has not started is released.
    pub fn stop(&self) {
        self.stops.store(true, Ordering::SeqCst);
        self.stopping.cancel();
    }

    /// Whether the worker takes up nothing more. Asked for every entry: costs one load. Relaxed, because nothing else is
    /// read by what it says: one who sees it late starts one entry more.
    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }

    /// The worker takes up nothing new until it is told to go on. What it has is handled.
    pub fn set_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::SeqCst);
        self.replan();
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// Waits until it stops.
    pub fn stopped(&self) -> WaitForCancellationFuture<'_> {
        self.stopping.cancelled()
    }

    /// Handlers that still run are dropped.
    pub fn give_up(&self) {
        self.giving_up.cancel();
    }

    /// Waits until they are.
    pub fn given_up(&self) -> WaitForCancellationFuture<'_> {
        self.giving_up.cancelled()
    }

    /// What is not settled by now stays pending, and others reclaim it.
    pub fn abandon(&self) {
        self.abandoned.cancel();
    }

    /// Whether that has come.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.is_cancelled()
    }

    /// Waits for that.
    pub fn abandoned(&self) -> WaitForCancellationFuture<'_> {
        self.abandoned.cancelled()
    }

    /// Something that waiting can't mend: the worker stops and ends with it.
    pub fn fail(&self, error: Error) {
        tracing::error!("{}", crate::error::chain(&error));
        lock(&self.failure).get_or_insert(error);
        self.stop();
        self.abandon();
    }

    pub fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
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
