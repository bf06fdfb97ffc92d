//! A cluster of the demo's own: three masters and a replica for each, processes that go with the demo however it ends.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult};
use streamhand::cli::{CommandError, PrivateServer};
use tokio::time::sleep;

/// How many masters there are; of each one replica.
const MASTERS: usize = 3;
const SLOTS: usize = 16_384;
/// How long a master may be silent until its replica takes its place.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// What a cluster does by itself takes no longer.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);

/// The nodes: masters first.
pub struct Nodes(Vec<Node>);

struct Node {
    process: Child,
    port: u16,
    id: String,
    runs: bool,
}

impl Nodes {
    /// Starts them beside `base`, with whom they go, and waits until they are a cluster.
    pub async fn start(program: &Path, base: &PrivateServer) -> Result<Self, CommandError> {
        let mut nodes = Nodes(Vec::new());
        for number in 0..2 * MASTERS {
            nodes.0.push(Node::start(program, base, number)?);
        }
        for at in 0..nodes.0.len() {
            let mut conn = nodes.reach(at).await?;
            nodes.0[at].id = ask(&mut conn, &["CLUSTER", "MYID"]).await?;
            let epoch = (at + 1).to_string();
            let () = ask(&mut conn, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await?;
            if at < MASTERS {
                let first = (at * SLOTS / MASTERS).to_string();
                let last = ((at + 1) * SLOTS / MASTERS - 1).to_string();
                let () = ask(&mut conn, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await?;
            }
            for other in &nodes.0[..at] {
                let port = other.port.to_string();
                let () = ask(&mut conn, &["CLUSTER", "MEET", "127.0.0.1", &port]).await?;
            }
        }
        for at in MASTERS..nodes.0.len() {
            let mut conn = nodes.reach(at).await?;
            let master = nodes.0[at - MASTERS].id.clone();
            let words = ["CLUSTER", "REPLICATE", &master];
            eventually("a replica to meet its master", async || {
                ask::<()>(&mut conn, &words).await.is_ok()
            })
            .await?;
        }
        nodes.are_whole().await?;
        Ok(nodes)
    }

    /// As `redis.nodes` has them.
    pub fn addresses(&self) -> Vec<String> {
        let ports = self.0.iter().map(|node| node.port);
        ports.map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// Waits until every replica has what its master has by now.
    pub async fn are_replicated(&self) -> Result<(), CommandError> {
        for at in 0..MASTERS {
            let mut conn = self.reach(at).await?;
            let info: String = ask(&mut conn, &["INFO", "replication"]).await?;
            let offset = number(&info, "master_repl_offset:");
            eventually("replicas to have what is published", async || {
                let info: String = match ask(&mut conn, &["INFO", "replication"]).await {
                    Ok(info) => info,
                    Err(_) => return false,
                };
                let line = info.lines().find(|line| line.starts_with("slave0:"));
                let has = line.and_then(|line| line.split("offset=").nth(1));
                let has = has.and_then(|rest| rest.split(',').next()?.parse().ok());
                has.unwrap_or(0) >= offset
            })
            .await?;
        }
        Ok(())
    }

    /// Kills a master. Returns its address.
    pub fn kill(&mut self, master: usize) -> Result<String, CommandError> {
        let node = &mut self.0[master];
        node.runs = false;
        let killed = node.process.kill().and_then(|()| node.process.wait());
        killed.map_err(|error| CommandError::failed(format!("can't kill a node: {error}")))?;
        Ok(format!("127.0.0.1:{}", node.port))
    }

    /// Waits until the replica of a master that is gone has taken its place. Returns its address.
    pub async fn takes_over_from(&self, master: usize) -> Result<String, CommandError> {
        let mut conn = self.reach(master + MASTERS).await?;
        eventually("the replica to take over", async || {
            let role: RedisResult<Vec<redis::Value>> =
                redis::cmd("ROLE").query_async(&mut conn).await;
            let role = role.ok().and_then(|role| {
                let name = role.into_iter().next()?;
                redis::from_redis_value::<String>(name).ok()
            });
            role.as_deref() == Some("master")
        })
        .await?;
        Ok(format!("127.0.0.1:{}", self.0[master + MASTERS].port))
    }

    async fn are_whole(&self) -> Result<(), CommandError> {
        for at in 0..self.0.len() {
            let mut conn = self.reach(at).await?;
            eventually("the cluster to be whole", async || {
                let info: RedisResult<String> = redis::cmd("CLUSTER")
                    .arg("INFO")
                    .query_async(&mut conn)
                    .await;
                let replication: RedisResult<String> = redis::cmd("INFO")
                    .arg("replication")
                    .query_async(&mut conn)
                    .await;
                let (Ok(info), Ok(replication)) = (info, replication) else {
                    return false;
                };
                let is_linked = match at < MASTERS {
                    true => replication.contains("connected_slaves:1"),
                    false => replication.contains("master_link_status:up"),
                };
                let all = format!("cluster_known_nodes:{}", self.0.len());
                info.contains("cluster_state:ok") && info.contains(&all) && is_linked
            })
            .await?;
        }
        Ok(())
    }

    /// A connection to a node, which may only be about to listen.
    async fn reach(&self, at: usize) -> Result<MultiplexedConnection, CommandError> {
        let url = format!("redis://127.0.0.1:{}", self.0[at].port);
        let client = redis::Client::open(url).map_err(failed)?;
        let begin = Instant::now();
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(conn) => return Ok(conn),
                Err(error) if begin.elapsed() > PATIENCE => return Err(failed(error)),
                Err(_) => sleep(TICK).await,
            }
        }
    }
}

impl Node {
    fn start(program: &Path, base: &PrivateServer, number: usize) -> Result<Self, CommandError> {
        let cannot = |error: std::io::Error| {
            CommandError::failed(format!("can't start {}: {error}", program.display()))
        };
        let dir: PathBuf = base.dir().join(format!("node-{number}"));
        std::fs::create_dir(&dir).map_err(cannot)?;
        let port = free_port().map_err(cannot)?;
        let timeout = NODE_TIMEOUT.as_millis().to_string();
        let process = Command::new(program)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args([
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                &timeout,
            ])
            .args(["--cluster-allow-replica-migration", "no"])
            .args([
                "--repl-diskless-sync-delay",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .arg("--dir")
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(base.process_group())
            .spawn()
            .map_err(cannot)?;
        Ok(Node {
            process,
            port,
            id: String::new(),
            runs: true,
        })
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in self.0.iter_mut().filter(|node| node.runs) {
            // Fails where it has ended already.
            let _ = node.process.kill();
            let _ = node.process.wait();
        }
    }
}

/// A port that is free, and so is the one that nodes speak to each other at, ten thousand above it.
fn free_port() -> std::io::Result<u16> {
    loop {
        let port = fastrand::u16(20_000..30_000);
        let is_free = |port| TcpListener::bind(("127.0.0.1", port));
        match (is_free(port), is_free(port + 10_000)) {
            (Ok(_), Ok(_)) => return Ok(port),
            (Err(error), _) | (_, Err(error)) if error.kind() != std::io::ErrorKind::AddrInUse => {
                return Err(error);
            }
            _ => {}
        }
    }
}

fn number(info: &str, name: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

async fn ask<T: FromRedisValue>(
    conn: &mut MultiplexedConnection,
    words: &[&str],
) -> Result<T, CommandError> {
    let mut cmd = redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    cmd.query_async(conn).await.map_err(failed)
}

async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) -> Result<(), CommandError> {
    let begin = Instant::now();
    while !is().await {
        if begin.elapsed() > PATIENCE {
            let message = format!("waited {PATIENCE:?} in vain for {what}");
            return Err(CommandError::failed(message));
        }
        sleep(TICK).await;
    }
    Ok(())
}

fn failed(error: redis::RedisError) -> CommandError {
    CommandError::failed(format!("a node of the demo's cluster: {error}"))
}
