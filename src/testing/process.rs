//! One worker of a test: the parts of a real one that run handlers and judge them, wired as a real one's are, up to where
//! outcomes leave for Redis. What comes out is carried out by [`super::carry_out`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::log::{Log, Watch};
use crate::clock;
use crate::config::Settings;
use crate::context::{Ask, Surroundings};
use crate::error::Result;
use crate::event::EntryId;
use crate::handler::{Companion, Registry};
use crate::identity::Identity as Event;
use crate::policy::Breakers;
use crate::publisher::Publisher;
use crate::stream::{Claim, Connector, Pool};
use crate::worker::Observer;
use crate::worker::run::attempt::Attempts;
use crate::worker::run::commit_handle::CommitHandle;
use crate::worker::run::dedup::{Answer, Copies, Deduplicator};
use crate::worker::run::dedup_windows::Windows;
use crate::worker::run::dispatch::{Arrivals, Dispatcher};
use crate::worker::run::executor::Executor;
use crate::worker::run::outcome::{Acks, Committing, Outcomes, Settlement};
use crate::worker::run::report::Reporter;
use crate::worker::run::routes::Routes;
use crate::worker::run::work::{Item, Run};
use crate::worker::shard::clock::ServerClock;
use crate::worker::shard::fetch::delivery::Delivery;
use crate::worker::shard::links::Links;
use crate::worker::shard::settle::commit_requests::CommitRequests;
use crate::worker::shard::settle::committer::Committer;
use crate::worker::shard::settle::requests::Requests;
use crate::worker::shard::settle::settler::Settler;
use crate::worker::state::capacity::Capacity;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::{Coming, Inflight, Slot};
use crate::worker::state::recent_acks::RecentAcks;
use crate::worker::state::signals::Signals;
use crate::worker::state::slots::Slots;
use crate::worker::state::source::Source;

/// A worker that lives renews what it holds: in a test no lease of it runs out.
const LEASE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A worker that lives.
pub(super) struct Process {
    /// The first one has the number 1.
    pub number: u32,
    pub identity: Arc<Identity>,
    pub inflight: Arc<Inflight>,
    pub routes: Arc<Routes>,
    pub slots: Arc<Slots>,
    pub clock: Arc<ServerClock>,
    /// The streams it was told to read.
    pub sources: Vec<Arc<Source>>,
    pub settler: Settler,
    pub requests: Requests,
    pub committer: Committer,
    pub commit_requests: CommitRequests,
    /// Of the last commit.
    pub commits: u64,
    pub inbox: Inbox,
    /// What waits for a free slot.
    pub rest: VecDeque<Run>,
    signals: Arc<Signals>,
    executor: Arc<Executor>,
    dispatcher: Dispatcher,
    door: Option<JoinHandle<()>>,
    is_dead: Arc<AtomicBool>,
    /// While it is there nothing is missing that the executor may send.
    _outcomes: Outcomes,
}

/// What comes out of handlers.
pub(super) struct Inbox {
    pub runs: Arrivals,
    pub acks: mpsc::UnboundedReceiver<Acks>,
    pub settlements: mpsc::UnboundedReceiver<Settlement>,
    pub committing: mpsc::UnboundedReceiver<Committing>,
    pub asks: mpsc::UnboundedReceiver<Ask>,
    pub questions: mpsc::UnboundedReceiver<Question>,
}

/// Which of these entries are copies of others?
pub(super) struct Question {
    pub source: String,
    pub claims: Vec<(EntryId, Event, Duration)>,
    pub reply: oneshot::Sender<Vec<Answer>>,
}

/// Asks the test.
struct AskTest(mpsc::UnboundedSender<Question>);

impl Copies for AskTest {
    async fn ask(&mut self, source: &Source, claims: &[Claim<'_>]) -> Option<Vec<Answer>> {
        let (reply, answer) = oneshot::channel();
        let claims = claims
            .iter()
            .map(|claim| (claim.id, claim.event.clone(), claim.lasts))
            .collect();
        let source = source.keys.stream.clone();
        let question = Question {
            source,
            claims,
            reply,
        };
        self.0.send(question).ok()?;
        answer.await.ok()
    }
}

impl Process {
    /// A worker by these settings. With a pool its handlers have a Redis.
    pub fn start(
        number: u32,
        settings: &Settings,
        registry: Registry,
        pool: Option<&Pool>,
        log: &Log,
    ) -> Result<Self> {
        let identity = Arc::new(Identity::new(settings));
        log.calls(&identity.name, number);
        let breakers = Arc::new(Breakers::new(settings.breakers.clone()));
        let windows = Arc::new(Windows::new(settings, &registry));
        registry.hooks().start(&tokio::runtime::Handle::current());
        let routes = Arc::new(Routes::new(settings, registry, &breakers));
        let slots = Arc::new(Slots::new(settings.worker.concurrency));
        let capacity = Capacity::new(slots.clone(), LEASE);
        let signals = Signals::of_worker();
        let inflight = Arc::new(Inflight::new(capacity.quarantine.clone(), signals.clone()));
        let told = log.clock();
        inflight.tells_time(move || told.now_ms());
        let recent_acks = Arc::<RecentAcks>::default();
        let links = Arc::new(Links::new(
            Connector::new(&settings.redis)?,
            identity.clone(),
            signals.clone(),
            inflight.clone(),
            recent_acks.clone(),
        ));
        let (ask, asks) = mpsc::unbounded_channel();
        let source = |stream: &String| {
            let publisher = pool.map(|pool| Publisher::with_pool(pool.clone()));
            let surroundings = Surroundings {
                stream: stream.clone(),
                group: identity.group.clone(),
                pool: pool.cloned(),
                publisher,
                breakers: breakers.clone(),
                tracer: None,
                commits: Some(ask.downgrade()),
            };
            let start = settings.start(stream);
            Source::new(surroundings, start, routes.is_limited(), None, None)
        };
        let sources = settings.worker.streams.iter().map(source).collect();
        let (acknowledge, acks) = mpsc::unbounded_channel();
        let (settle, settlements) = mpsc::unbounded_channel();
        let (commit, committing) = mpsc::unbounded_channel();
        let (commit_batch, _) = mpsc::unbounded_channel();
        let (question, questions) = mpsc::unbounded_channel();
        let outcomes = Outcomes::new(inflight.clone(), acknowledge.clone(), settle.clone());
        let is_dead = Arc::<AtomicBool>::default();
        let observer: Arc<dyn Observer> = Arc::new(Watch {
            log: log.clone(),
            is_dead: is_dead.clone(),
        });
        let reporter = Arc::new(Reporter::new(
            Some(observer),
            routes.clone(),
            inflight.clone(),
            None,
        ));
        let clock = Arc::new(ServerClock::new(Arc::default()));
        let requests = Requests::new(
            identity.clone(),
            signals.clone(),
            routes.clone(),
            clock.clone(),
            windows.clone(),
        );
        let commit_requests = CommitRequests::new(identity.clone(), clock.clone(), windows.clone());
        let to_commit = CommitRequests::new(identity.clone(), clock.clone(), windows.clone());
        let committer = Committer::new(
            signals.clone(),
            inflight.clone(),
            routes.clone(),
            links.clone(),
            to_commit,
            reporter.clone(),
            settle,
        );
        let to_settle = Requests::new(
            identity.clone(),
            signals.clone(),
            routes.clone(),
            clock.clone(),
            windows.clone(),
        );
        let settler = Settler::new(
            signals.clone(),
            inflight.clone(),
            links,
            to_settle,
            acknowledge,
        );
        let attempts = Attempts {
            signals: signals.clone(),
            inflight: inflight.clone(),
            reporter: reporter.clone(),
            outcomes: outcomes.clone(),
            commit_handle: CommitHandle::new(
                routes.clone(),
                reporter.clone(),
                outcomes.clone(),
                commit,
                commit_batch,
                ask,
            ),
        };
        // Batch handlers are given one event after the other here.
        let executor = Executor::new(attempts, routes.clone(), recent_acks, capacity, None);
        let (to_executor, runs) = Dispatcher::to_deduplicator();
        let (dispatcher, door) = if windows.is_empty() {
            (to_executor, None)
        } else {
            let (to_deduplicator, at_deduplicator) = Dispatcher::to_deduplicator();
            let deduplicator = Deduplicator::new(
                AskTest(question),
                windows,
                routes.clone(),
                signals.clone(),
                to_executor,
                outcomes.clone(),
                reporter,
            );
            let door = tokio::spawn(deduplicator.run(at_deduplicator));
            (to_deduplicator, Some(door))
        };
        Ok(Process {
            number,
            commit_requests,
            identity,
            inflight,
            routes,
            slots,
            clock,
            sources,
            settler,
            requests,
            committer,
            commits: 0,
            inbox: Inbox {
                runs,
                acks,
                settlements,
                committing,
                asks,
                questions,
            },
            rest: VecDeque::new(),
            signals,
            executor: Arc::new(executor),
            dispatcher,
            door,
            is_dead,
            _outcomes: outcomes,
        })
    }

    /// The streams, and those of replayed entries that are read.
    pub fn all_sources(&self) -> Vec<Arc<Source>> {
        let again = self
            .sources
            .iter()
            .filter_map(|source| source.again.clone());
        let again = again.filter(|again| again.is_active());
        self.sources.iter().cloned().chain(again).collect()
    }

    /// Entries have come: from here on it holds them.
    pub fn deliver(&self, source: &Arc<Source>, coming: Coming, entries: Vec<Delivery>) {
        source.coming(entries.len());
        let slots: Vec<Slot> = entries.iter().map(Delivery::slot).collect();
        let batch = self
            .inflight
            .add(source, coming, clock::now(), LEASE, slots);
        let items = entries.into_iter().enumerate();
        let items = items.map(|(index, delivery)| Item {
            index: index as u32,
            entry: delivery.entry,
            past: delivery.past,
        });
        self.dispatcher.send(&batch, items);
    }

    /// Starts the handlers of what has come, as many as may run. Returns whether any was there.
    pub fn start_handlers(&mut self) -> bool {
        let mut any = false;
        loop {
            let next = self.rest.pop_front();
            let next = next.or_else(|| self.inbox.runs.lanes.try_recv());
            let Some(run) = next else { break };
            if !self.run(run) {
                return any;
            }
            any = true;
        }
        // What may kill its worker runs with nothing beside it.
        if self.slots.running() == 0
            && let Ok(run) = self.inbox.runs.quarantine.try_recv()
        {
            any |= self.run(run);
        }
        any
    }

    /// False if nothing of it could start.
    fn run(&mut self, run: Run) -> bool {
        let before = run.items.len();
        let done = self.executor.run_inline(run);
        if let Some(acks) = done.acks {
            self.executor.hand_in(acks);
        }
        let Some(rest) = done.rest else { return true };
        let left = rest.items.len();
        self.rest.push_front(rest);
        left < before
    }

    /// Whether it holds anything.
    pub fn is_busy(&self) -> bool {
        self.inflight.entries() > 0
    }

    /// It dies: handlers are dropped where they wait, and nothing that they leave goes anywhere.
    pub async fn die(self) {
        let Process {
            signals,
            door,
            inbox,
            is_dead,
            ..
        } = self;
        is_dead.store(true, Ordering::SeqCst);
        drop(inbox);
        // Nothing that waits for its turn has it any more.
        signals.stop();
        signals.give_up();
        if let Some(door) = door {
            door.abort();
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
}
