//! What every behaviour stands on: private servers, workers as processes, and patience.

mod cli;
mod clock;
mod eventually;
mod guarded;
pub mod jobs;
mod kind;
pub mod letters;
pub mod marks;
mod port;
mod process;
mod publisher;
mod resp;
mod resp_proxy;
mod resp_traps;
pub mod scripts;
mod server;
mod streams;
mod tls;
pub mod trim;
mod worker;

use std::future::Future;
use std::time::Duration;

pub use cli::{Cli, masked, run_program};
pub use clock::Clock;
pub use eventually::eventually;
pub use guarded::Guarded;
pub use kind::Kind;
pub use port::free_ports;
pub use process::{Builder as ProcessBuilder, WorkerProcess, most_memory, run_worker};
pub use publisher::{publisher, publisher_with};
pub use resp_proxy::Proxy;
pub use resp_traps::{Caught, Exchange};
pub use server::Server;
pub use streams::{Entry, Fields, add, entries};
pub use tls::{Authority, Identity, TlsServer};
pub use worker::{InProcess, Setup, all_pending, dead, parked, pending, settled};

/// Longer than any test should take: one that hangs says so instead of hanging the run.
const TEST_LIMIT: Duration = Duration::from_secs(120);

/// Makes of each `async fn name(server: Server)` the tests `name::redis` and `name::valkey`.
///
/// A test that starts its server itself, to set it up, takes `kind: Kind` instead.
macro_rules! on_both_servers {
    ($(
        $(#[$attribute:meta])*
        async fn $name:ident($($parameter:tt)+) $body:block
    )+) => { $(
        $(#[$attribute])*
        async fn $name($($parameter)+) $body

        mod $name {
            #[test]
            fn redis() {
                $crate::support::run($crate::support::Kind::Redis, super::$name);
            }

            #[test]
            fn valkey() {
                $crate::support::run($crate::support::Kind::Valkey, super::$name);
            }
        }
    )+ };
}

/// Runs one test on one kind of server: what [`on_both_servers!`] expands to.
pub fn run<G: Given, F: Future<Output = ()>>(kind: Kind, scenario: impl FnOnce(G) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let given = G::given(kind).await;
        tokio::time::timeout(TEST_LIMIT, scenario(given))
            .await
            .unwrap_or_else(|_| panic!("the test was not done after {TEST_LIMIT:?}"));
    });
}

/// What a test of [`on_both_servers!`] can ask for.
pub trait Given {
    async fn given(kind: Kind) -> Self;
}

impl Given for Kind {
    async fn given(kind: Kind) -> Kind {
        kind
    }
}

impl Given for Server {
    async fn given(kind: Kind) -> Server {
        Server::start(kind).await
    }
}
