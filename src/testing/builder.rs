//! What a test's worker is made of.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::clock::Clock;
use super::driver::Driver;
use super::log::Log;
use super::memory::Memory;
use super::process::Process;
use super::server::Server;
use super::store::Store;
use super::worker::TestWorker;
use crate::config::Settings;
use crate::handler::Registry;
use crate::worker::preflight::preflight;

/// The seed of a run, for all tests that set none.
const SEED: &str = "STREAMHAND_TEST_SEED";

/// A worker that is to be started: see [`worker`](super::worker).
#[derive(Debug)]
#[must_use = "it does nothing before it is started"]
pub struct Builder {
    registry: Registry,
    settings: Settings,
    seed: Option<u64>,
    place: Place,
}

/// Where its streams are kept.
#[derive(Debug)]
enum Place {
    Memory,
    /// A server of the test's own, of this program or the one that is found.
    Server(Option<PathBuf>),
}

impl Builder {
    pub(super) fn new(registry: Registry) -> Self {
        Builder {
            registry,
            settings: Settings::default(),
            seed: None,
            place: Place::Memory,
        }
    }

    pub(super) fn on_redis(self) -> Self {
        Builder {
            place: Place::Server(None),
            ..self
        }
    }

    /// The program of the server, for a test [on a real one](super::on_redis): the path to a `redis-server` or a
    /// `valkey-server`. If it is not said it is that of the variable `STREAMHAND_TEST_REDIS`, or what is on the `PATH`.
    pub fn server(self, program: impl Into<PathBuf>) -> Self {
        Builder {
            place: Place::Server(Some(program.into())),
            ..self
        }
    }

    /// The configuration, as it stands in `config.toml`. A group that is not named is called `test`.
    ///
    /// # Panics
    /// If the configuration is wrong.
    #[track_caller]
    pub fn config(self, toml: &str) -> Self {
        match Settings::from_toml_str(toml) {
            Ok(settings) => self.settings(settings),
            Err(error) => panic!("the test's configuration is wrong: {error}"),
        }
    }

    /// The same, of settings that are made in Rust or [read from a file](Settings::from_toml_str).
    pub fn settings(self, settings: Settings) -> Self {
        Builder { settings, ..self }
    }

    /// The streams it reads, in place of those of the configuration.
    pub fn streams<S: Into<String>>(mut self, streams: impl IntoIterator<Item = S>) -> Self {
        self.settings.worker = self.settings.worker.streams(streams);
        self
    }

    /// What the jitter of backoffs and the ids of events follow from. If none is set it is that of the variable
    /// `STREAMHAND_TEST_SEED`, or another one with each run. A failing assertion prints it.
    pub fn seed(self, seed: u64) -> Self {
        Builder {
            seed: Some(seed),
            ..self
        }
    }

    /// Starts it. The groups begin to read with what is published from now on.
    ///
    /// # Panics
    /// If the registry or the configuration is wrong, or the test does not run on one thread: `#[tokio::test]` does if it
    /// does not say otherwise.
    pub async fn start(self) -> TestWorker {
        let Builder {
            registry,
            mut settings,
            seed,
            place,
        } = self;
        if settings.worker.group.is_empty() {
            settings.worker.group = "test".to_owned();
        }
        settings.worker.streams = settings.streams_of(&settings.worker.streams);
        if let Err(error) = preflight(&settings, &registry).passed() {
            panic!("a worker can't begin: {error}");
        }
        let streams = settings.worker.streams.iter();
        let mut ordered = streams.filter(|stream| settings.order(stream).is_some());
        if let Some(stream) = ordered.next() {
            panic!(
                "streams.{stream}.order is set, and a test's worker keeps no order by subject: take it out of the test's \
                 configuration"
            );
        }
        let seed = seed.or_else(|| std::env::var(SEED).ok()?.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(fastrand::u32(..)));
        fastrand::seed(seed);
        stop_time();
        let clock = Clock::of_tokio();
        let (store, pool) = match place {
            Place::Memory => (Store::Memory(Box::new(Memory::new(clock.clone()))), None),
            Place::Server(program) => {
                let server = Server::start(program.as_deref(), &mut settings, clock.clone());
                let pool = Server::pool_of_handlers(&settings);
                (Store::Server(Box::new(server)), Some(pool))
            }
        };
        let log = Log::new(clock.clone(), seed);
        let process = Process::start(1, &settings, registry.copy(), pool.as_ref(), &log);
        let process = process.unwrap_or_else(|error| panic!("a worker can't begin: {error}"));
        let streams = settings.worker.streams.iter().cloned();
        let streams: BTreeSet<String> = streams.collect();
        let mut driver = Driver {
            settings,
            registry,
            clock,
            store,
            pool,
            log,
            process,
            dies: Vec::new(),
            losses: 0,
            away_until: None,
            graves: Vec::new(),
            next: None,
            unsettled: Default::default(),
            streams,
        };
        for source in driver.process.sources.clone() {
            driver.store.join(&source.keys, source.start).await;
        }
        TestWorker::new(driver, seed).await
    }
}

/// From now on tokio's time moves when nothing else can be done, or the test says so.
fn stop_time() {
    let runtime = tokio::runtime::Handle::current();
    if runtime.runtime_flavor() != tokio::runtime::RuntimeFlavor::CurrentThread {
        panic!(
            "a test's worker needs a runtime of one thread: write #[tokio::test], and no flavor"
        );
    }
    if !stands_still() {
        tokio::time::pause();
    }
}

/// Whether it does already: tokio can't be asked.
fn stands_still() -> bool {
    let before = tokio::time::Instant::now();
    let since = std::time::Instant::now();
    while since.elapsed().as_micros() < 2 {
        std::hint::spin_loop();
    }
    tokio::time::Instant::now() == before
}
