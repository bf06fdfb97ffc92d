//! A primary, its replica, and three sentinels that watch them, gone with the test.
#![allow(dead_code, reason = "each test needs some of it")]

use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use redis::aio::MultiplexedConnection;

use super::scenario::Given;
use super::{Kind, Server, eventually};

/// What the sentinels call it.
pub const NAME: &str = "orders-db";

/// How long a primary may be silent until another takes its place.
pub const DOWN_AFTER: Duration = Duration::from_secs(1);

const PATIENCE: Duration = Duration::from_secs(40);

/// Two servers, of which one is the primary, and their sentinels.
pub struct Trio {
    kind: Kind,
    pub servers: Vec<Server>,
    pub sentinels: Vec<Server>,
}

impl Given for Trio {
    async fn given(kind: Kind) -> Trio {
        Trio::start(kind).await
    }
}

impl Trio {
    pub async fn start(kind: Kind) -> Trio {
        let start = || {
            let server = Server::builder(kind).args(["--repl-diskless-sync-delay", "0"]);
            server.start()
        };
        let servers = join_all([start(), start()]).await;
        let port = servers[0].port().to_string();
        let mut replica = servers[1].connect().await;
        let () = redis::cmd("REPLICAOF")
            .arg("127.0.0.1")
            .arg(&port)
            .query_async(&mut replica)
            .await
            .expect("a replica");
        let sentinels = (0..3).map(|_| Server::builder(kind).sentinel().start());
        let trio = Trio {
            kind,
            servers,
            sentinels: join_all(sentinels).await,
        };
        trio.is_replicated(1).await;
        for sentinel in &trio.sentinels {
            let down_after = DOWN_AFTER.as_millis().to_string();
            for words in [
                vec!["MONITOR", NAME, "127.0.0.1", &port, "2"],
                vec!["SET", NAME, "down-after-milliseconds", &down_after],
                vec!["SET", NAME, "failover-timeout", "3000"],
            ] {
                let mut conn = sentinel.connect().await;
                let _: Value = redis::cmd("SENTINEL")
                    .arg(words)
                    .query_async(&mut conn)
                    .await
                    .expect("a sentinel that watches");
            }
        }
        for sentinel in &trio.sentinels {
            let conn = sentinel.connect().await;
            eventually(PATIENCE, "the sentinels to know all", async || {
                let mut conn = conn.clone();
                let master: Vec<String> = redis::cmd("SENTINEL")
                    .arg("MASTER")
                    .arg(NAME)
                    .query_async(&mut conn)
                    .await
                    .expect("what it knows");
                let of = |name: &str| {
                    let at = master.iter().position(|word| word == name);
                    at.map(|at| master[at + 1].clone())
                };
                of("num-other-sentinels").as_deref() == Some("2")
                    && of("num-slaves").as_deref() == Some("1")
                    && of("flags").as_deref() == Some("master")
            })
            .await;
        }
        trio
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Addresses of the sentinels, as `redis.sentinel.nodes` takes them.
    pub fn addresses(&self) -> Vec<String> {
        let ports = self.sentinels.iter().map(Server::port);
        ports.map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// The place of the primary, as the first sentinel that runs says.
    pub async fn primary(&self) -> usize {
        let sentinel = self.sentinels.iter().find(|sentinel| sentinel.is_running());
        let mut conn = sentinel.expect("a sentinel that runs").connect().await;
        let port = port_of_primary(&mut conn).await;
        let place = self
            .servers
            .iter()
            .position(|server| server.port().to_string() == port);
        place.expect("one of the two")
    }

    /// Has the sentinels make the other one the primary, as an operator does.
    pub async fn failover(&self) -> usize {
        let old = self.primary().await;
        self.ask_for_failover(&[]).await;
        self.primary_is_not(old).await
    }

    /// The same with both servers' help, which Valkey 9 can: nothing is lost.
    pub async fn failover_coordinated(&self) -> usize {
        let old = self.primary().await;
        self.ask_for_failover(&["COORDINATED"]).await;
        self.primary_is_not(old).await
    }

    async fn ask_for_failover(&self, how: &[&str]) {
        // Right after another one it is refused for a while.
        let conn = self.sentinels[0].connect().await;
        eventually(PATIENCE, "a sentinel to begin", async || {
            let mut conn = conn.clone();
            let asked: redis::RedisResult<()> = redis::cmd("SENTINEL")
                .arg("FAILOVER")
                .arg(NAME)
                .arg(how)
                .query_async(&mut conn)
                .await;
            asked.is_ok()
        })
        .await;
    }

    /// Waits until all sentinels name another primary than `old`, and answers its place.
    pub async fn primary_is_not(&self, old: usize) -> usize {
        for sentinel in self.sentinels.iter().filter(|one| one.is_running()) {
            let conn = sentinel.connect().await;
            eventually(PATIENCE, "the sentinels to name another", async || {
                let port = port_of_primary(&mut conn.clone()).await;
                self.servers[old].port().to_string() != port
            })
            .await;
        }
        self.primary().await
    }

    /// Waits until the server at this place is a replica whose link is up.
    pub async fn is_replicated(&self, at: usize) {
        eventually(PATIENCE, "the replica to be linked", async || {
            // Who changes sides closes connections, also one that is just made.
            let asking = async {
                let client = redis::Client::open(self.servers[at].url())?;
                let mut conn = client.get_multiplexed_async_connection().await?;
                let info = redis::cmd("INFO").arg("replication").to_owned();
                info.query_async::<String>(&mut conn).await
            };
            let info = asking.await.unwrap_or_default();
            info.contains("role:slave") && info.contains("master_link_status:up")
        })
        .await;
    }
}

/// The port of the primary, as a sentinel says.
async fn port_of_primary(sentinel: &mut MultiplexedConnection) -> String {
    let (_, port): (String, String) = redis::cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(NAME)
        .query_async(sentinel)
        .await
        .expect("what it knows");
    port
}
