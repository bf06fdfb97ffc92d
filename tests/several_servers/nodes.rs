//! Servers that belong together: a primary, its replica and three sentinels; six nodes of a cluster.

use std::process::{Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, FromRedisValue, Value};
use tempfile::TempDir;

use crate::support::replication::a_primary;
use crate::support::{Guarded, Kind, Server, eventually, free_ports, scratch_dir};

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const MASTER: &str = "mymaster";

/// A primary, its replica, and who watches them.
pub struct Trio {
    /// The primary first, at the start.
    pub servers: [Server; 2],
    pub sentinels: Vec<u16>,
    processes: Vec<Guarded>,
    _dir: TempDir,
}

impl Trio {
    pub async fn start(kind: Kind) -> Trio {
        let primary = a_primary(kind).await;
        let of = format!("127.0.0.1 {}", primary.port());
        let replica = Server::builder(kind)
            .args(["--replicaof", &of, "--repl-diskless-sync-delay", "0"])
            .start()
            .await;
        let (dir, mut sentinels, mut processes) = (scratch_dir(), Vec::new(), Vec::new());
        for port in free_ports().take(3) {
            let config = dir.path().join(format!("{port}.conf"));
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {MASTER} 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds {MASTER} 600\nsentinel failover-timeout {MASTER} 3000\n",
                primary.port()
            );
            std::fs::write(&config, text).unwrap();
            let mut command = Command::new(kind.program());
            command.arg(&config).arg("--sentinel");
            command.stdin(Stdio::null()).stdout(Stdio::null());
            processes.push(Guarded::spawn(&mut command).unwrap());
            sentinels.push(port);
        }
        let trio = Trio {
            servers: [primary, replica],
            sentinels,
            processes,
            _dir: dir,
        };
        for port in &trio.sentinels {
            eventually(PATIENCE, "the sentinels to know all", async || {
                let (others, replicas): (String, String) = (
                    trio.field(*port, "num-other-sentinels").await?,
                    trio.field(*port, "num-slaves").await?,
                );
                (others == "2" && replicas == "1").then_some(())
            })
            .await;
        }
        trio
    }

    /// `[redis]` for it.
    pub fn settings(&self) -> String {
        let nodes = self
            .sentinels
            .iter()
            .map(|port| format!("\"127.0.0.1:{port}\""));
        let nodes = nodes.collect::<Vec<_>>().join(", ");
        format!(
            "[redis]\nmode = \"sentinel\"\n[redis.sentinel]\nmaster = \"{MASTER}\"\nnodes = [{nodes}]\n"
        )
    }

    /// The port of the primary, as that sentinel sees it.
    pub async fn primary_by(&self, port: u16) -> Option<u16> {
        let args = ["GET-MASTER-ADDR-BY-NAME", MASTER];
        let answer: Vec<String> = ask(port, "SENTINEL", &args).await?;
        answer.get(1)?.parse().ok()
    }

    /// The port of the primary.
    pub async fn primary(&self) -> u16 {
        let primary = self.primary_by(self.sentinels[0]).await;
        primary.expect("a sentinel that knows it")
    }

    /// Makes the replica the primary. Returns once all sentinels say so.
    pub async fn failover(&self) -> u16 {
        let before = self.primary_by(self.sentinels[0]).await.unwrap();
        eventually(PATIENCE, "a failover to begin", async || {
            let begun: Option<Value> =
                ask(self.sentinels[0], "SENTINEL", &["FAILOVER", MASTER]).await;
            begun.map(drop)
        })
        .await;
        self.switched_from(before).await
    }

    /// Waits until the server at this port follows the other one and has all that it has.
    pub async fn follows(&self, port: u16) {
        eventually(PATIENCE, "the old primary to be a replica", async || {
            let info: String = ask(port, "INFO", &["replication"]).await?;
            let is_replica = info.contains("role:slave") && info.contains("master_link_status:up");
            is_replica.then_some(())
        })
        .await;
    }

    /// Waits until all sentinels name another primary.
    pub async fn switched_from(&self, before: u16) -> u16 {
        for port in &self.sentinels {
            eventually(PATIENCE, "the primary to be another one", async || {
                (self.primary_by(*port).await? != before).then_some(())
            })
            .await;
        }
        self.primary_by(self.sentinels[0]).await.unwrap()
    }

    pub fn at(&mut self, port: u16) -> &mut Server {
        let mut servers = self.servers.iter_mut();
        servers.find(|server| server.port() == port).unwrap()
    }

    pub fn stop_sentinel(&mut self, at: usize) {
        self.processes[at].kill();
    }

    async fn field(&self, port: u16, name: &str) -> Option<String> {
        let fields: std::collections::HashMap<String, String> =
            ask(port, "SENTINEL", &["MASTER", MASTER]).await?;
        fields.get(name).cloned()
    }
}

/// Three masters, each with a replica.
pub struct Cluster {
    /// The masters first, at the start.
    pub servers: Vec<Server>,
}

impl Cluster {
    pub async fn start(kind: Kind) -> Cluster {
        let mut servers = Vec::new();
        for _ in 0..6 {
            let args = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--repl-diskless-sync-delay",
                "0",
            ];
            // Its bus is at a port 10,000 higher.
            servers.push(Server::builder(kind).args(args).start().await);
        }
        let cluster = Cluster { servers };
        for (at, slots) in [
            (0, ["0", "5460"]),
            (1, ["5461", "10922"]),
            (2, ["10923", "16383"]),
        ] {
            cluster
                .ask::<Value>(at, &["ADDSLOTSRANGE", slots[0], slots[1]])
                .await;
        }
        for at in 1..6 {
            let port = cluster.servers[0].port().to_string();
            cluster
                .ask::<Value>(at, &["MEET", "127.0.0.1", &port])
                .await;
        }
        for at in 0..6 {
            eventually(PATIENCE, "the nodes to know each other", async || {
                let nodes: String = cluster.try_ask(at, &["NODES"]).await?;
                let known = nodes
                    .lines()
                    .filter(|line| !line.contains("handshake"))
                    .count();
                (known == 6).then_some(())
            })
            .await;
        }
        for at in 3..6 {
            let master = cluster.id(at - 3).await;
            eventually(PATIENCE, "a replica", async || {
                cluster
                    .try_ask::<Value>(at, &["REPLICATE", &master])
                    .await
                    .map(drop)
            })
            .await;
        }
        for at in 0..6 {
            eventually(PATIENCE, "the cluster to be up", async || {
                let info: String = cluster.try_ask(at, &["INFO"]).await?;
                let slots: Value = cluster.try_ask(at, &["SLOTS"]).await?;
                let Value::Array(ranges) = slots else {
                    return None;
                };
                // Each range: two numbers, a master and a replica.
                let has_replica =
                    |range: &Value| matches!(range, Value::Array(parts) if parts.len() == 4);
                let is_whole = ranges.len() == 3 && ranges.iter().all(has_replica);
                (info.contains("cluster_state:ok") && is_whole).then_some(())
            })
            .await;
        }
        for at in 3..6 {
            eventually(PATIENCE, "the replicas to have everything", async || {
                let info: String =
                    ask(cluster.servers[at].port(), "INFO", &["replication"]).await?;
                info.contains("master_link_status:up").then_some(())
            })
            .await;
        }
        cluster
    }

    /// `[redis]` for it.
    pub fn settings(&self) -> String {
        let nodes = self
            .servers
            .iter()
            .map(|server| format!("\"127.0.0.1:{}\"", server.port()));
        let nodes = nodes.collect::<Vec<_>>().join(", ");
        format!("[redis]\nmode = \"cluster\"\nnodes = [{nodes}]\n")
    }

    pub async fn id(&self, at: usize) -> String {
        self.ask(at, &["MYID"]).await
    }

    /// The place of the master of a slot, as the node `by` sees it.
    pub async fn master_of(&self, by: usize, slot: u16) -> Option<usize> {
        let slots: Vec<Value> = self.try_ask(by, &["SLOTS"]).await?;
        slots.into_iter().find_map(|range| {
            let Value::Array(range) = range else {
                return None;
            };
            let mut parts = range.into_iter();
            let (first, last) = (parts.next()?, parts.next()?);
            let first = u16::from_redis_value(first).ok()?;
            let last = u16::from_redis_value(last).ok()?;
            let Value::Array(master) = parts.next()? else {
                return None;
            };
            let port = u16::from_redis_value(master.into_iter().nth(1)?).ok()?;
            let at = self
                .servers
                .iter()
                .position(|server| server.port() == port)?;
            (first..=last).contains(&slot).then_some(at)
        })
    }

    pub async fn ask<T: FromRedisValue>(&self, at: usize, args: &[&str]) -> T {
        let answer = self.try_ask(at, args).await;
        answer.unwrap_or_else(|| panic!("{args:?} of node {at} failed"))
    }

    pub async fn try_ask<T: FromRedisValue>(&self, at: usize, args: &[&str]) -> Option<T> {
        ask(self.servers[at].port(), "CLUSTER", args).await
    }
}

/// The answer of the server at a port, if it is there and has one.
pub async fn ask<T: FromRedisValue>(port: u16, command: &str, args: &[&str]) -> Option<T> {
    let mut conn = connect(port).await?;
    redis::cmd(command)
        .arg(args)
        .query_async(&mut conn)
        .await
        .ok()
}

pub async fn connect(port: u16) -> Option<MultiplexedConnection> {
    let client = Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    client.get_multiplexed_async_connection().await.ok()
}
