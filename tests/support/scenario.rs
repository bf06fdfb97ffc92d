//! One test on both kinds of servers.

use std::future::Future;
use std::time::Duration;

use super::{Kind, Server};

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

/// Makes of each `async fn name(server: Server)` one test, on this kind of server: of what looks the same whichever it is, and
/// costs much, as pages in a browser. The bench has none.
#[allow(unused_macros)]
macro_rules! on_one_server {
    ($(
        $(#[$attribute:meta])*
        $kind:ident:
        async fn $name:ident($($parameter:tt)+) $body:block
    )+) => { $(
        $(#[$attribute])*
        async fn $name($($parameter)+) $body

        mod $name {
            #[test]
            fn in_a_browser() {
                $crate::support::run($crate::support::Kind::$kind, super::$name);
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
