//! Hooks: functions that are told of an attempt that failed, and of an event that is a dead letter. They run one after the
//! other on a task of their own, behind a queue with a bound, so that no entry waits for them.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::companion::Companion;
use crate::dead_letters::Reason;
use crate::event::{EntryId, Envelope};
use crate::fields::Fields;
use crate::sync::lock;

/// So many things to tell wait at most; what is more is not told.
const QUEUE: usize = 1024;
/// How long a stop waits for hooks to be told what waits.
const DRAIN: Duration = Duration::from_secs(5);

/// An attempt that failed, for [`Registry::on_failure`](crate::Registry::on_failure).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// The stream the entry was read from.
    pub stream: String,
    /// The worker's group.
    pub group: String,
    /// The event.
    pub event: Envelope,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// What went wrong, with all that caused it.
    pub error: String,
    /// When the next attempt is; none if this was the last.
    pub retry_in: Option<Duration>,
}

/// An event that has become a dead letter, for [`Registry::on_dead`](crate::Registry::on_dead).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BuriedEvent {
    /// The stream the entry was read from.
    pub stream: String,
    /// The worker's group.
    pub group: String,
    /// The entry's id in that stream.
    pub entry: EntryId,
    /// Its fields as they came; none of one that was too large to come.
    pub fields: Fields,
    /// Why it is a dead letter.
    pub reason: Reason,
    /// What the letter says of it.
    pub error: String,
    /// How many attempts it had.
    pub attempts: u32,
}

type Hook<T> = Arc<dyn Fn(T) -> BoxFuture<'static, ()> + Send + Sync>;

enum Told {
    Failed(FailedAttempt),
    Dead(BuriedEvent),
}

/// The hooks of a registry.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    failed: Vec<Hook<FailedAttempt>>,
    dead: Vec<Hook<BuriedEvent>>,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    sender: Mutex<Option<mpsc::Sender<Told>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Something could not be told, and that was said.
    is_full: AtomicBool,
}

impl Hooks {
    pub fn on_failure<F, Fut>(&mut self, hook: F)
    where
        F: Fn(FailedAttempt) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.failed.push(Arc::new(move |told| Box::pin(hook(told))));
    }

    pub fn on_dead<F, Fut>(&mut self, hook: F)
    where
        F: Fn(BuriedEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.dead.push(Arc::new(move |told| Box::pin(hook(told))));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.failed.is_empty() && self.dead.is_empty()
    }

    /// The same functions, for one more worker of the same process.
    #[cfg(feature = "testing")]
    pub fn copy(&self) -> Self {
        Hooks {
            queue: Arc::default(),
            ..self.clone()
        }
    }

    /// An attempt failed. Made only if somebody is to be told.
    pub fn failed(&self, attempt: impl FnOnce() -> FailedAttempt) {
        if !self.failed.is_empty() {
            self.tell(Told::Failed(attempt()));
        }
    }

    /// An event is a dead letter.
    pub fn died(&self, event: impl FnOnce() -> BuriedEvent) {
        if !self.dead.is_empty() {
            self.tell(Told::Dead(event()));
        }
    }

    fn tell(&self, told: Told) {
        let queue = &self.queue;
        let sent = match &*lock(&queue.sender) {
            Some(sender) => sender.try_send(told),
            None => return,
        };
        match sent {
            Ok(()) => queue.is_full.store(false, Ordering::Relaxed),
            Err(_) if queue.is_full.swap(true, Ordering::Relaxed) => {}
            Err(_) => tracing::warn!(
                waiting = QUEUE,
                "hooks are slower than what they are to be told of: some of it is not told"
            ),
        }
    }
}

impl Companion for Hooks {
    fn start(&self, runtime: &Handle) {
        let (sender, mut told) = mpsc::channel(QUEUE);
        let (failed, dead) = (self.failed.clone(), self.dead.clone());
        let task = runtime.spawn(async move {
            while let Some(told) = told.recv().await {
                match told {
                    Told::Failed(attempt) => call_all(&failed, &attempt).await,
                    Told::Dead(event) => call_all(&dead, &event).await,
                }
            }
        });
        *lock(&self.queue.sender) = Some(sender);
        *lock(&self.queue.task) = Some(task);
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            lock(&self.queue.sender).take();
            let task = lock(&self.queue.task).take();
            if let Some(mut task) = task
                && tokio::time::timeout(DRAIN, &mut task).await.is_err()
            {
                task.abort();
                tracing::warn!("the worker stops before its hooks were told everything");
            }
        })
    }
}

async fn call_all<T: Clone>(hooks: &[Hook<T>], told: &T) {
    for hook in hooks {
        let call = AssertUnwindSafe(async { hook(told.clone()).await });
        if call.catch_unwind().await.is_err() {
            tracing::error!(
                "a hook panicked; what it was told of is settled as it would be without it"
            );
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("on_failure", &self.failed.len())
            .field("on_dead", &self.dead.len())
            .finish_non_exhaustive()
    }
}
