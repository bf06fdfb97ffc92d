//! A pool of processes that live for many events: `mode = "pool"`. Each seat of the pool has a child, and starts another
//! when that is gone. An event waits here until a child has a hand free, and is its until it has answered.
//!
//! What goes wrong costs who was part of it. A child's death is an attempt of the events it had in hand; the worker and
//! the other children go on. What no child has seen comes back without an attempt. A command that can't be started says
//! nothing about any event.
//!
//! The order of things in a child's life: it is started, says hello, takes events, is drained, and goes.

mod desk;
mod ended;
mod frames;
mod keeper;
mod outbox;
mod recycling;
mod shared;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use self::desk::Whereabouts;
pub(crate) use self::ended::Ended;
use self::frames::{Reason, ToChild};
use self::keeper::Left;
pub(crate) use self::recycling::Recycling;
pub(crate) use self::shared::PoolSettings;
use self::shared::Shared;
use crate::context::{Cancelled, Context};
use crate::reconnect::Pause;
use crate::sync::lock;

/// So many children in a row that die before their hello make a command one that can't be started.
const DEATHS: u32 = 3;

/// Children that handle events.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    seats: Mutex<JoinSet<()>>,
}

/// How a pool is.
#[cfg(test)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolHealth {
    /// Children that take events.
    pub children: usize,
    /// Events that wait for one.
    pub waiting: usize,
    /// Why no child can be started.
    pub broken: Option<String>,
}

/// An event that has been handed in. Dropped before its end it is asked back.
struct HandedIn<'a> {
    shared: &'a Shared,
    ctx: &'a Context,
    id: u64,
    has_ended: bool,
}

impl Pool {
    /// Starts the children, which live on `runtime`.
    pub fn start(settings: PoolSettings, runtime: &Handle) -> Self {
        let processes = settings.processes.max(1);
        let shared = Arc::new(Shared::new(settings));
        let mut seats = JoinSet::new();
        for _ in 0..processes {
            seats.spawn_on(keep_seat(shared.clone()), runtime);
        }
        Pool {
            shared,
            seats: Mutex::new(seats),
        }
    }

    /// Has a child handle an event. `request` is given a number and makes of it what the child is sent: a JSON object that
    /// begins with that `id`, on one line.
    pub async fn handle(&self, ctx: &Context, request: impl FnOnce(u64) -> Vec<u8>) -> Ended {
        let id = self.shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let mut reply = match self.shared.hand_in(ctx, id, request) {
            Ok(reply) => reply,
            Err(ended) => return ended,
        };
        let mut handed_in = HandedIn {
            shared: &self.shared,
            ctx,
            id,
            has_ended: false,
        };
        let mut cancelled = pin!(ctx.token().cancelled());
        let mut is_told = None;
        let ended = std::future::poll_fn(|cx| {
            if let Poll::Ready(reply) = Pin::new(&mut reply).poll(cx) {
                return Poll::Ready(
                    reply.unwrap_or_else(|_| Ended::NotBegun("the pool is gone".to_owned())),
                );
            }
            if is_told.is_none() && cancelled.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // A stop may be followed by the end of its time: whoever tells of that polls this.
            match ctx.cancellation() {
                reason if reason == is_told => Poll::Pending,
                Some(why) => {
                    is_told = Some(why);
                    match handed_in.is_cancelled(why) {
                        Some(ended) => Poll::Ready(ended),
                        None => Poll::Pending,
                    }
                }
                None => Poll::Pending,
            }
        })
        .await;
        handed_in.has_ended = true;
        ended
    }

    /// Stops the children: what they have in hand is theirs to end; whoever does not go in time is killed.
    pub async fn stop(&self) {
        self.shared.stop();
        let mut seats = std::mem::take(&mut *lock(&self.seats));
        while seats.join_next().await.is_some() {}
    }

    #[cfg(test)]
    pub fn health(&self) -> PoolHealth {
        let state = lock(&self.shared.state);
        PoolHealth {
            children: state.desk.children(),
            waiting: state.desk.waits(),
            broken: state.broken.clone(),
        }
    }
}

impl HandedIn<'_> {
    /// The handler is to stop. Returns what the event came to, if that is known now.
    fn is_cancelled(&self, why: Cancelled) -> Option<Ended> {
        let reason = match why {
            Cancelled::Stopping => Reason::Stopping,
            Cancelled::LeaseLost => Reason::LeaseLost,
            Cancelled::TimedOut => Reason::TimedOut,
            Cancelled::Requested => Reason::Requested,
        };
        match self.ask_back(reason, None) {
            Whereabouts::Withdrawn => Some(Ended::NotBegun(match why {
                Cancelled::Stopping => "the worker stops".to_owned(),
                Cancelled::LeaseLost => "the event is another worker's".to_owned(),
                Cancelled::Requested => "an operator has cancelled it".to_owned(),
                Cancelled::TimedOut => format!(
                    "no process of the target {} was free for it in time",
                    self.shared.settings.target
                ),
            })),
            Whereabouts::WithChild(_) | Whereabouts::Gone => None,
        }
    }

    fn ask_back(&self, reason: Reason, grace: Option<Duration>) -> Whereabouts {
        let mut state = lock(&self.shared.state);
        let is_at = state.desk.cancel(self.id, grace, Instant::now());
        match is_at {
            Whereabouts::WithChild(child) => {
                if let Some(hands) = state.desk.hands(child) {
                    hands.out.send(
                        &ToChild::Cancel {
                            cancel: self.id,
                            reason,
                        }
                        .line(),
                    );
                    hands.out.stir();
                }
            }
            Whereabouts::Withdrawn => state.assign(),
            Whereabouts::Gone => {}
        }
        is_at
    }
}

impl Drop for HandedIn<'_> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        match self.ctx.cancellation() {
            // The pool is stopped as well: it is drained, and then killed.
            Some(Cancelled::Stopping) => {
                self.ask_back(Reason::Stopping, None);
            }
            // It had its grace. The event's next attempt is not to run beside this one.
            _ => {
                self.ask_back(Reason::TimedOut, Some(Duration::ZERO));
            }
        }
    }
}

/// Has a child in one seat, as long as the pool is there.
async fn keep_seat(shared: Arc<Shared>) {
    let target = &shared.settings.target;
    let mut pause = Pause::between(Duration::from_millis(100), Duration::from_secs(30));
    let mut deaths = 0;
    while !shared.is_stopping() {
        let child = shared.children.fetch_add(1, Ordering::Relaxed) + 1;
        match keeper::live(shared.clone(), child).await {
            Left::Went { why } => {
                tracing::info!(
                    target,
                    "a process of the target {target} {why}, and is replaced"
                );
                pause.reset();
                deaths = 0;
                continue;
            }
            Left::Stopped => return,
            Left::Died { why, has_answered } => {
                deaths = 0;
                if has_answered {
                    pause.reset();
                }
                tracing::warn!(
                    target,
                    "a process of the target {target} died and is started again: {why}"
                );
            }
            Left::NeverCame { why, is_certain } => {
                deaths += 1;
                if is_certain || deaths >= DEATHS {
                    shared.is_broken(&format!("it can't be started: {why}"));
                }
                tracing::warn!(
                    target,
                    "the command of the target {target} can't be started: {why}"
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => {}
            () = shared.stopping.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests;
