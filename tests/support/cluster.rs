//! Private clusters: masters, and a replica for each, on ports of their own, gone with the test.
#![allow(dead_code, reason = "each test needs some of it")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, Value};

use super::scenario::Given;
use super::{Kind, Server, eventually, free_ports};

/// How long a master may be silent until a replica takes its place.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long what a cluster does by itself may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster that runs for one test.
pub struct Cluster {
    nodes: Vec<Node>,
}

/// One server of a cluster.
pub struct Node {
    pub server: Server,
    /// What the cluster calls it.
    pub id: String,
}

/// A slot whose move has begun, and is held open.
#[must_use = "a slot that moves takes no scripts until the move is over"]
pub struct Migration {
    slot: u16,
    from: usize,
    to: usize,
}

impl Given for Cluster {
    async fn given(kind: Kind) -> Cluster {
        Cluster::start(kind, 3, true).await
    }
}

impl Cluster {
    /// So many masters, which share the slots evenly, and a replica of each if `with_replicas`.
    pub async fn start(kind: Kind, masters: usize, with_replicas: bool) -> Cluster {
        Self::start_with(kind, masters, with_replicas, &[]).await
    }

    /// The same with further options of the servers.
    pub async fn start_with(
        kind: Kind,
        masters: usize,
        with_replicas: bool,
        options: &[&str],
    ) -> Cluster {
        let count = if with_replicas { 2 * masters } else { masters };
        let starts = (0..count).map(|_| async {
            let timeout = NODE_TIMEOUT.as_millis().to_string();
            let bus = free_ports().next().expect("a free port").to_string();
            let server = Server::builder(kind).args(["--cluster-enabled", "yes"]);
            let server = server.args(["--cluster-port", &bus, "--cluster-node-timeout", &timeout]);
            // A replica syncs without waiting for others.
            let server = server.args(["--repl-diskless-sync-delay", "0"]);
            let server = server.args(["--cluster-allow-replica-migration", "no"]);
            let server = server.args(options.iter().copied()).start().await;
            let id = ask(&mut server.connect().await, &["CLUSTER", "MYID"]).await;
            let bus: u16 = bus.parse().expect("a port");
            (Node { server, id }, bus)
        });
        let (nodes, buses): (Vec<_>, Vec<_>) = join_all(starts).await.into_iter().unzip();
        let cluster = Cluster { nodes };
        let mut conns = join_all(cluster.nodes.iter().map(|node| node.server.connect())).await;
        for (at, conn) in conns.iter_mut().enumerate() {
            let epoch = (at + 1).to_string();
            let () = ask(conn, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            if at < masters {
                let part = |at: usize| at * usize::from(SLOTS) / masters;
                let (first, last) = (part(at).to_string(), (part(at + 1) - 1).to_string());
                let () = ask(conn, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            }
            // Each meets those before it: gossip alone would take its time.
            for (other, bus) in buses.iter().enumerate().take(at) {
                let port = cluster.nodes[other].server.port().to_string();
                let bus = bus.to_string();
                let () = ask(conn, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
            }
        }
        for (at, conn) in conns.iter_mut().enumerate().skip(masters) {
            let master = &cluster.nodes[at - masters].id;
            eventually(PATIENCE, "a replica to know its master", async || {
                let mut conn = conn.clone();
                let done: RedisResult<()> = cmd(&["CLUSTER", "REPLICATE", master])
                    .query_async(&mut conn)
                    .await;
                done.is_ok()
            })
            .await;
        }
        cluster.is_whole().await;
        cluster
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn node(&self, at: usize) -> &Server {
        &self.nodes[at].server
    }

    pub fn node_mut(&mut self, at: usize) -> &mut Server {
        &mut self.nodes[at].server
    }

    /// Addresses of all nodes, as `redis.nodes` takes them.
    pub fn addresses(&self) -> Vec<String> {
        let ports = self.nodes.iter().map(|node| node.server.port());
        ports.map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// Waits until every node that runs says that all is well, and knows every other as what it is.
    pub async fn is_whole(&self) {
        for node in self.nodes.iter().filter(|node| node.server.is_running()) {
            let conn = node.server.connect().await;
            eventually(PATIENCE, "the cluster to be whole", async || {
                let info: String = ask(&mut conn.clone(), &["CLUSTER", "INFO"]).await;
                let nodes: String = ask(&mut conn.clone(), &["CLUSTER", "NODES"]).await;
                let known = nodes.lines().filter(|line| {
                    let mut words = line.split(' ');
                    let flags = words.nth(2).unwrap_or_default();
                    !flags.contains("handshake") && !flags.contains("noaddr")
                });
                let is_linked = is_replica(&mut conn.clone()).await.unwrap_or(true);
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && known.count() == self.nodes.len()
                    && is_linked
            })
            .await;
        }
    }

    /// The place of the master that has the slot of this key, as the nodes that run say.
    pub async fn master_of(&self, key: &str) -> usize {
        self.master_of_slot(slot(key)).await
    }

    pub async fn master_of_slot(&self, slot: u16) -> usize {
        let node = self.nodes.iter().find(|node| node.server.is_running());
        let mut conn = node.expect("a node that runs").server.connect().await;
        let masters = masters(&mut conn).await;
        let id = masters
            .iter()
            .find(|(_, ranges)| ranges.iter().any(|range| range.contains(&slot)))
            .map(|(id, _)| id)
            .unwrap_or_else(|| panic!("nobody has slot {slot}"));
        self.place(id)
    }

    /// The place of a replica of the master at `master`.
    pub async fn replica_of(&self, master: usize) -> usize {
        let mut conn = self.node(master).connect().await;
        let id = &self.nodes[master].id;
        let nodes: String = ask(&mut conn, &["CLUSTER", "NODES"]).await;
        let line = nodes
            .lines()
            .find(|line| line.split(' ').nth(3) == Some(id))
            .unwrap_or_else(|| panic!("no replica of {id} in\n{nodes}"));
        self.place(line.split(' ').next().unwrap_or_default())
    }

    /// Waits until another node than `old` has the slot of this key, and answers its place.
    pub async fn master_of_is_not(&self, key: &str, old: usize) -> usize {
        let mut master = old;
        eventually(PATIENCE, "a replica to take over", async || {
            let others = self.nodes.iter().enumerate();
            for (at, node) in others.filter(|(at, node)| *at != old && node.server.is_running()) {
                let mut conn = node.server.connect().await;
                let masters = masters(&mut conn).await;
                let slot = slot(key);
                let has = masters
                    .get(&node.id)
                    .is_some_and(|ranges| ranges.iter().any(|range| range.contains(&slot)));
                if has {
                    master = at;
                }
            }
            master != old
        })
        .await;
        master
    }

    /// Has the replica at `replica` take over from its master, which agrees: nothing is lost.
    pub async fn failover(&self, replica: usize) {
        let mut conn = self.node(replica).connect().await;
        let () = ask(&mut conn, &["CLUSTER", "FAILOVER"]).await;
        self.is_master(replica).await;
    }

    /// The same whether its master, or anybody else, agrees or not.
    pub async fn takeover(&self, replica: usize) {
        let mut conn = self.node(replica).connect().await;
        let () = ask(&mut conn, &["CLUSTER", "FAILOVER", "TAKEOVER"]).await;
        self.is_master(replica).await;
    }

    /// Waits until everybody who runs says that it is a master which has slots.
    async fn is_master(&self, at: usize) {
        for node in self.nodes.iter().filter(|node| node.server.is_running()) {
            let conn = node.server.connect().await;
            eventually(PATIENCE, "the replica to be a master", async || {
                let masters = masters(&mut conn.clone()).await;
                let ranges = masters.get(&self.nodes[at].id);
                ranges.is_some_and(|ranges| !ranges.is_empty())
            })
            .await;
        }
    }

    /// Begins to move a slot as it was always done, key by key, and moves none yet.
    pub async fn begin_migration(&self, slot: u16, to: usize) -> Migration {
        let from = self.master_of_slot(slot).await;
        assert_ne!(from, to, "slot {slot} is there");
        let number = slot.to_string();
        let mut conn = self.node(to).connect().await;
        let words = [
            "CLUSTER",
            "SETSLOT",
            &number,
            "IMPORTING",
            &self.nodes[from].id,
        ];
        let () = ask(&mut conn, &words).await;
        let mut conn = self.node(from).connect().await;
        let words = [
            "CLUSTER",
            "SETSLOT",
            &number,
            "MIGRATING",
            &self.nodes[to].id,
        ];
        let () = ask(&mut conn, &words).await;
        Migration { slot, from, to }
    }

    /// Moves some of its keys: those whose names `wants` accepts. Returns which.
    pub async fn migrate_keys(
        &self,
        migration: &Migration,
        wants: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let mut conn = self.node(migration.from).connect().await;
        let slot = migration.slot.to_string();
        let keys: Vec<String> = ask(&mut conn, &["CLUSTER", "GETKEYSINSLOT", &slot, "10000"]).await;
        let keys: Vec<String> = keys.into_iter().filter(|key| wants(key)).collect();
        if !keys.is_empty() {
            let port = self.node(migration.to).port().to_string();
            let mut migrate = cmd(&["MIGRATE", "127.0.0.1", &port, "", "0", "20000", "KEYS"]);
            let _: Value = migrate
                .arg(&keys)
                .query_async(&mut conn)
                .await
                .expect("the keys to move");
        }
        keys
    }

    /// Moves the rest, and says so to everybody.
    pub async fn finish_migration(&self, migration: Migration) {
        let slot = migration.slot.to_string();
        let words = [
            "CLUSTER",
            "SETSLOT",
            &slot,
            "NODE",
            &self.nodes[migration.to].id,
        ];
        // A key may be made at the source until that knows.
        let (mut to, mut from) = (
            self.node(migration.to).connect().await,
            self.node(migration.from).connect().await,
        );
        loop {
            self.migrate_keys(&migration, |_| true).await;
            let () = ask(&mut to, &words).await;
            let done: RedisResult<()> = cmd(&words).query_async(&mut from).await;
            match done {
                Ok(()) => break,
                // `Can't assign hashslot … while I still hold keys for this hash slot.`
                Err(error) if error.to_string().contains("still hold keys") => {}
                Err(error) => panic!("{error}"),
            }
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if at == migration.to || at == migration.from || !node.server.is_running() {
                continue;
            }
            let mut conn = node.server.connect().await;
            if is_replica(&mut conn).await.is_none() {
                let () = ask(&mut conn, &words).await;
            }
        }
        for node in self.nodes.iter().filter(|node| node.server.is_running()) {
            let conn = node.server.connect().await;
            let id = &self.nodes[migration.to].id;
            eventually(
                PATIENCE,
                "everybody to know where the slot is",
                async || {
                    let masters = masters(&mut conn.clone()).await;
                    let ranges = masters.get(id);
                    ranges
                        .is_some_and(|all| all.iter().any(|range| range.contains(&migration.slot)))
                },
            )
            .await;
        }
    }

    /// Takes it back: what has moved returns.
    pub async fn abandon_migration(&self, migration: Migration) {
        let Migration { slot, from, to } = migration;
        let number = slot.to_string();
        let back = Migration {
            slot,
            from: to,
            to: from,
        };
        let stable = ["CLUSTER", "SETSLOT", &number, "STABLE"];
        let () = ask(&mut self.node(from).connect().await, &stable).await;
        self.migrate_keys(&back, |_| true).await;
        let () = ask(&mut self.node(to).connect().await, &stable).await;
    }

    /// Moves a slot whole.
    pub async fn migrate(&self, slot: u16, to: usize) {
        let migration = self.begin_migration(slot, to).await;
        self.finish_migration(migration).await;
    }

    /// Moves a slot in one step, which Valkey 9 can.
    pub async fn migrate_at_once(&self, slot: u16, to: usize) {
        let from = self.master_of_slot(slot).await;
        let mut conn = self.node(from).connect().await;
        let number = slot.to_string();
        let id = &self.nodes[to].id;
        let words = [
            "CLUSTER",
            "MIGRATESLOTS",
            "SLOTSRANGE",
            &number,
            &number,
            "NODE",
            id,
        ];
        let () = ask(&mut conn, &words).await;
        eventually(PATIENCE, "the slot to be there", async || {
            self.master_of_slot(slot).await == to
        })
        .await;
    }

    fn place(&self, id: &str) -> usize {
        let place = self.nodes.iter().position(|node| node.id == id);
        place.unwrap_or_else(|| panic!("no node is called {id}"))
    }
}

const SLOTS: u16 = 16_384;

/// The slot of a key: CRC16 of it, or of its tag.
pub fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let hashed = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    let mut crc: u16 = 0;
    for byte in hashed.unwrap_or(key).bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = match crc & 0x8000 {
                0 => crc << 1,
                _ => (crc << 1) ^ 0x1021,
            };
        }
    }
    crc % SLOTS
}

/// `count` names that begin with `prefix`, whose slots are those of the masters in turn, of so many that share them evenly.
pub fn spread(prefix: &str, count: usize, masters: usize) -> Vec<String> {
    (0..count)
        .map(|at| {
            let wanted = at % masters;
            (0..)
                .map(|number| format!("{prefix}-{at}-{number}"))
                .find(|name| usize::from(slot(name)) * masters / usize::from(SLOTS) == wanted)
                .expect("names without end")
        })
        .collect()
}

/// Masters and their slots, as a node sees them.
async fn masters(
    conn: &mut MultiplexedConnection,
) -> BTreeMap<String, Vec<std::ops::RangeInclusive<u16>>> {
    let nodes: String = ask(conn, &["CLUSTER", "NODES"]).await;
    let master = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let is_master = words[2].contains("master") && !words[2].contains("fail");
        let ranges = words[8..].iter().filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        });
        is_master.then(|| (words[0].to_owned(), ranges.collect()))
    };
    nodes.lines().filter_map(master).collect()
}

/// Of a replica, whether its link is up.
async fn is_replica(conn: &mut MultiplexedConnection) -> Option<bool> {
    let info: String = ask(conn, &["INFO", "replication"]).await;
    let is = info.contains("role:slave");
    is.then(|| info.contains("master_link_status:up"))
}

fn cmd(words: &[&str]) -> redis::Cmd {
    let mut cmd = redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    cmd
}

async fn ask<T: FromRedisValue>(conn: &mut MultiplexedConnection, words: &[&str]) -> T {
    let answer = cmd(words).query_async(conn).await;
    answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}
