//! The thread that speaks to Redis. Between two turns of its runtime it handles what the fetcher left to it: see
//! [`super::run::dispatch`]. A second thread watches meanwhile. Where a handler computes or blocks for long, it takes the
//! runtime over, and with it everything that speaks to Redis.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::watchdog::Watchdog;
use crate::error::{Error, ErrorKind, Result};
use crate::worker::run::executor::{Executor, RunInline};
use crate::worker::run::outcome::{Acks, Settlement};
use crate::worker::run::queue::{Receiver, Sender};
use crate::worker::run::work::Run;
use crate::worker::shard::fetch::fetcher::Fetcher;
use crate::worker::shard::leave::Leaving;
use crate::worker::shard::maintain::Maintenance;
use crate::worker::shard::settle::acker::Acker;
use crate::worker::shard::settle::settler::Settler;
use crate::worker::state::inline::Inline;
use crate::worker::state::signals::Signals;

/// What runs on that thread, beside the fetcher.
pub(crate) struct Parts {
    pub acker: Acker,
    pub acks: mpsc::UnboundedReceiver<Acks>,
    pub settler: Settler,
    pub settlements: mpsc::UnboundedReceiver<Settlement>,
    pub maintenance: Maintenance,
    pub leaving: Leaving,
    /// The committer, and the deduplicator if there is one.
    pub committing: BoxFuture<'static, ()>,
}

/// What brings entries.
pub(crate) enum Fetching {
    /// Of a worker with one shard: what it brings may be handled there and then.
    Inline(Box<Inlined>),
    /// Of one with several: each is a task, and lanes handle what they bring.
    Tasks(Vec<Fetcher>),
}

/// What brings a shard's runs there, and what takes them.
pub(crate) struct Inlined {
    pub fetcher: Fetcher,
    pub runs: Receiver<Run>,
    pub hands: Hands,
    pub blocked: Option<Blocked>,
}

impl Fetching {
    /// What brings entries to these shards.
    pub fn of(mut shards: Vec<Inlined>) -> Self {
        match shards.pop() {
            Some(only) if shards.is_empty() => Fetching::Inline(Box::new(only)),
            last => {
                let all = shards.into_iter().chain(last);
                Fetching::Tasks(all.map(|shard| shard.fetcher).collect())
            }
        }
    }
}

/// Is told when a handler holds up the thread that speaks to Redis.
pub(crate) type Blocked = Box<dyn Fn() + Send + Sync>;

/// Who handles it. Executor and lanes do not end as long as it is there.
#[derive(Clone)]
pub(crate) struct Hands {
    pub executor: Arc<Executor>,
    pub lanes: Sender<Run>,
    pub inline: Arc<Inline>,
}

impl Hands {
    fn leave_to_a_lane(&self, run: Run) {
        self.inline.left();
        self.lanes.send(run);
    }
}

/// The thread that speaks to Redis.
pub(crate) struct Io {
    ended: oneshot::Receiver<()>,
    more: mpsc::UnboundedSender<(Parts, Fetcher)>,
}

/// What it has in common with the one that stands by.
struct Threads {
    signals: Arc<Signals>,
    runtime: Runtime,
    callers: Handle,
    blocked: Option<Blocked>,
    watchdog: Watchdog,
    /// Gone once it has ended.
    fetching: Mutex<Option<BoxFuture<'static, ()>>>,
    runs: Option<Receiver<Run>>,
    /// Gone once nothing more can come.
    hands: Mutex<Option<Hands>>,
    /// Everything that speaks to Redis has ended.
    ended: CancellationToken,
}

impl Io {
    /// Has the parts of another shard run there as well.
    pub fn add(&self, parts: Parts, fetcher: Fetcher) {
        // If all has ended, what they would have done is over too.
        let _ = self.more.send((parts, fetcher));
    }

    /// Waits for its end.
    pub async fn ended(self) {
        let _ = self.ended.await;
    }
}

/// Starts everything that speaks to Redis. Handlers belong to the runtime that this is called on.
pub(crate) fn spawn(
    signals: Arc<Signals>,
    parts: Vec<Parts>,
    beside: Vec<BoxFuture<'static, ()>>,
    fetching: Fetching,
) -> Result<Io> {
    let internal = |error: std::io::Error| {
        Error::new(
            ErrorKind::Internal,
            format!("can't start the thread that speaks to Redis: {error}"),
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(internal)?;
    let (end, ended) = oneshot::channel();
    let all_ended = CancellationToken::new();
    let mut blocked = None;
    let (mut inline, mut runs, mut hands) = (None, None, None);
    match fetching {
        Fetching::Inline(inlined) => {
            blocked = inlined.blocked;
            inline = Some(fetch(signals.clone(), inlined.fetcher));
            (runs, hands) = (Some(inlined.runs), Some(inlined.hands));
        }
        Fetching::Tasks(fetchers) => {
            for fetcher in fetchers {
                runtime.spawn(fetch(signals.clone(), fetcher));
            }
        }
    }
    let threads = Arc::new(Threads {
        signals: signals.clone(),
        runtime,
        callers: Handle::current(),
        blocked,
        watchdog: Watchdog::default(),
        fetching: Mutex::new(inline),
        runs,
        hands: Mutex::new(hands),
        ended: all_ended.clone(),
    });
    // Dropped in a panic as well: the worker then ends instead of waiting for ever.
    let guards = (StopsAtLast(signals.clone()), all_ended.drop_guard(), end);
    let all = parts.into_iter().map(|parts| run(signals.clone(), parts));
    // What is dropped is aborted.
    let all: JoinSet<()> = {
        let _there = threads.runtime.enter();
        all.collect()
    };
    let (more, mut added) = mpsc::unbounded_channel();
    threads.runtime.spawn(async move {
        let _guards = guards;
        let beside = JoinSet::from_iter(beside);
        let mut all = all;
        loop {
            tokio::select! {
                // A panic of one of them ends all.
                ended = all.join_next() => match ended {
                    Some(Ok(())) => {}
                    _ => break,
                },
                Some((parts, fetcher)) = added.recv() => {
                    all.spawn(run(signals.clone(), parts));
                    tokio::spawn(fetch(signals.clone(), fetcher));
                }
            }
        }
        drop(beside);
    });
    let start = |name: &str, begin: fn(&Threads)| {
        let threads = threads.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            let _stop = StopsAtLast(threads.signals.clone());
            begin(&threads);
        })
    };
    start("streamhand-io-2", Threads::stand_by).map_err(internal)?;
    match start("streamhand-io", Threads::work) {
        Ok(_) => Ok(Io { ended, more }),
        Err(error) => {
            threads.watchdog.close();
            Err(internal(error))
        }
    }
}

/// Brings entries until the worker stops. A panic stops it, too.
fn fetch(signals: Arc<Signals>, fetcher: Fetcher) -> BoxFuture<'static, ()> {
    let fetching = async move {
        let _stop = StopsAtLast(signals);
        fetcher.run().await;
    };
    AssertUnwindSafe(fetching)
        .catch_unwind()
        .map(|_| ())
        .boxed()
}

/// Everything else of a shard that speaks to Redis, until the worker ends.
async fn run(signals: Arc<Signals>, parts: Parts) {
    let Parts {
        acker,
        acks,
        settler,
        settlements,
        maintenance,
        leaving,
        committing,
    } = parts;
    let maintenance = maintenance.spawn();
    // They end when the executor has: it, and every handler, has a sender. The fetcher ends before it.
    tokio::join!(committing, settler.run(settlements), acker.run(acks));
    if !signals.is_abandoned() {
        maintenance.end().await;
        leaving.leave().await;
    }
}

impl Threads {
    /// Has the runtime, and what is to be handled here, until all is over or it is held up.
    fn work(&self) {
        // Linux lets a thread sleep on for longer than this one ever means to.
        wake_in_time();
        let _callers = self.callers.enter();
        while self.drive() && self.takes_over() {}
    }

    /// Waits until the other one is held up.
    fn stand_by(&self) {
        wake_in_time();
        let _callers = self.callers.enter();
        while self.takes_over() && self.drive() {}
    }

    /// Stands by until a handler holds up the thread that has the runtime. Returns false if all is over.
    fn takes_over(&self) -> bool {
        let takes_over = self.watchdog.stand_by();
        if let (true, Some(blocked)) = (takes_over, &self.blocked) {
            blocked();
        }
        takes_over
    }

    /// Drives the runtime. Answers whether somebody else has taken that over; else all is over.
    fn drive(&self) -> bool {
        let hands = self.hands().clone();
        if let (Some(hands), Some(runs)) = (hands, &self.runs) {
            let mut acks = None;
            while let Some(run) = self.runtime.block_on(self.next(&hands, runs, acks.take())) {
                match self.handle(&hands, run) {
                    Handled::Here(done) => acks = done,
                    Handled::HeldUp => return true,
                }
            }
            *self.hands() = None;
        }
        self.runtime.block_on(self.ended.cancelled());
        self.watchdog.close();
        false
    }

    /// The next run that is to be handled here. What the last one came to is handed in from the runtime, which need not
    /// be woken then. The fetcher is no task, so that nothing comes between it and the handler; and it goes on, which may
    /// mean that it lets the thread sleep, once nothing is to be handled any more.
    async fn next(&self, hands: &Hands, runs: &Receiver<Run>, acks: Option<Acks>) -> Option<Run> {
        if let Some(acks) = acks {
            hands.executor.hand_in(acks);
        }
        let mut run = pin!(runs.recv());
        poll_fn(|cx| {
            if let Poll::Ready(run) = run.as_mut().poll(cx) {
                return Poll::Ready(run);
            }
            let mut fetching = self
                .fetching
                .lock()
                .expect("a panic does not get out of it");
            if let Some(fetcher) = &mut *fetching
                && fetcher.poll_unpin(cx).is_ready()
            {
                *fetching = None;
            }
            run.as_mut().poll(cx)
        })
        .await
    }

    fn handle(&self, hands: &Hands, run: Run) -> Handled {
        let (inline, entries) = (&hands.inline, run.items.len());
        let work = match inline.may_run() {
            true => self.watchdog.begin(),
            false => None,
        };
        let Some(work) = work else {
            hands.leave_to_a_lane(run);
            inline.took(entries, Duration::ZERO);
            return Handled::Here(None);
        };
        let since = Instant::now();
        let RunInline { acks, rest } = hands.executor.run_inline(run);
        match rest {
            Some(rest) => hands.leave_to_a_lane(rest),
            None => inline.handled_one(),
        }
        inline.took(entries, since.elapsed());
        if self.watchdog.end(work) {
            return Handled::Here(acks);
        }
        if let Some(acks) = acks {
            hands.executor.hand_in(acks);
        }
        Handled::HeldUp
    }

    fn hands(&self) -> MutexGuard<'_, Option<Hands>> {
        self.hands.lock().expect("no panic while it is locked")
    }
}

/// What became of a run.
enum Handled {
    Here(Option<Acks>),
    /// It took so long that somebody else has taken the runtime over.
    HeldUp,
}

/// Stops the worker when it is dropped, in a panic too.
struct StopsAtLast(Arc<Signals>);

impl Drop for StopsAtLast {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Linux lets a sleeping thread sleep on for some 50 µs; the one that calls this is woken in time.
fn wake_in_time() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}
