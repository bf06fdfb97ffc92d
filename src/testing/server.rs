//! A real server of a test's own: the scripts, commands and keys of a worker, in the test's time. Each step is asked from a
//! thread beside the test's, whose time goes on, and the test stands still until it is answered.

mod steps;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::clock::Clock;
use crate::config::{RedisSettings, RedisUrl, Settings};
use crate::error::Error;
use crate::private_server::{NotStarted, PrivateServer};
use crate::publisher::Publisher;
use crate::stream::{Connector, Link, Pool, TestTime, Trouble};
use crate::sync::lock;

/// The server's program, for all tests that name none.
const PROGRAM: &str = "STREAMHAND_TEST_REDIS";
/// Looked for on the PATH if that is not set either.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// A server, and what speaks to it.
pub(super) struct Server {
    aside: Arc<Aside>,
    link: Link,
    publisher: Publisher,
    pool: Pool,
    group: String,
    time: Arc<Mutex<Time>>,
    _of_handlers: TestTime,
    /// It ends behind all that speaks to it.
    _server: PrivateServer,
}

/// Where steps are done.
struct Aside(Option<Runtime>);

/// What time the server is told it is.
struct Time {
    aside: Arc<Aside>,
    link: Link,
    clock: Clock,
    told_ms: u64,
}

/// What a step came to.
fn done<T>(answer: Result<T, impl Into<Why>>) -> T {
    answer.unwrap_or_else(|error| panic!("the test's server: {}", error.into().0))
}

/// Why a step failed.
struct Why(String);

impl From<Error> for Why {
    fn from(error: Error) -> Self {
        Why(error.to_string())
    }
}

impl From<Trouble> for Why {
    fn from(trouble: Trouble) -> Self {
        trouble.into_error().into()
    }
}

impl Aside {
    /// What it comes to, once it has.
    fn wait<T: Send>(&self, step: impl Future<Output = T> + Send) -> T {
        let runtime = self.0.as_ref().expect("it is there until it is dropped");
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                let _time = TestTime::of_steps();
                runtime.block_on(step)
            });
            match there.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // It may be dropped within another runtime, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Time {
    /// Tells the server what time it is, if it is another one than before.
    fn tell(&mut self) {
        let now = self.clock.now_ms();
        let by = now.saturating_sub(self.told_ms);
        if by > 0 {
            done(self.aside.wait(self.link.time_passes(now, by)));
            self.told_ms = now;
        }
    }
}

impl Server {
    /// Starts one, and says in the settings where it is.
    pub fn start(program: Option<&Path>, settings: &mut Settings, clock: Clock) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("a test's server: {error}"));
        let aside = Arc::new(Aside(Some(runtime)));
        let server = aside
            .wait(start(program))
            .unwrap_or_else(|why| panic!("{why}"));
        // By `[redis]` of the test it would be another one.
        settings.redis = RedisSettings::default().url(done(RedisUrl::parse(&server.url())));
        let connector = done(Connector::new(&settings.redis));
        let link = done(aside.wait(connector.connect("streamhand:test", ANSWER)));
        let pool = || done(connector.pool(settings.redis.pool_size));
        let mut time = Time {
            aside: aside.clone(),
            link: link.clone(),
            told_ms: 0,
            clock,
        };
        time.tell();
        let time = Arc::new(Mutex::new(time));
        let told = time.clone();
        Server {
            link,
            publisher: Publisher::with_pool(pool()),
            pool: pool(),
            group: settings.worker.group.clone(),
            time,
            _of_handlers: TestTime::of_handlers(Arc::new(move || lock(&told).tell())),
            _server: server,
            aside,
        }
    }

    /// Connections for handlers, which are the test's runtime's.
    pub fn pool_of_handlers(settings: &Settings) -> Pool {
        let connector = done(Connector::new(&settings.redis));
        done(connector.pool(settings.redis.pool_size))
    }
}

async fn start(program: Option<&Path>) -> Result<PrivateServer, String> {
    let named = program.map(Path::to_owned);
    let named = named.or_else(|| std::env::var_os(PROGRAM).map(PathBuf::from));
    let tried: Vec<PathBuf> = match named {
        Some(program) => vec![program],
        None => PROGRAMS.map(PathBuf::from).to_vec(),
    };
    for program in &tried {
        match PrivateServer::start(program).await {
            Ok(server) => return Ok(server),
            Err(NotStarted::Failed(why)) => return Err(why),
            Err(NotStarted::NoProgram(why)) if tried.len() == 1 => return Err(why),
            Err(NotStarted::NoProgram(_)) => {}
        }
    }
    Err(format!(
        "there is neither redis-server nor valkey-server on the PATH: a test on a real server needs one, or the path to one in \
         {PROGRAM}, or by Builder::server"
    ))
}
