//! Connections that come and go: for the publisher, for commands and for handlers.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deadpool::managed::{self, Object, PoolError, RecycleError, TimeoutType};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value};

use super::connection::{Connector, Link, OLDEST, Spot};
use super::dial::CONNECT_TIMEOUT;
use super::error::{Answer, Who, refusal};
use super::reply;
use super::topology::{Cluster, Node, Slot};
use super::wire::Wire;
use crate::config::NodeAddress;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::sync::lock;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to tell that a connection is still there.
const ALIVE: Duration = Duration::from_secs(1);
/// After so long without use a connection may have been closed unnoticed.
const IDLE: Duration = Duration::from_millis(500);
/// How many servers in a row may turn out to be no primary.
const TRIES: usize = 3;

/// Connections that come and go. Cheap to clone; clones share them.
#[derive(Clone)]
pub(crate) struct Pool {
    pools: Arc<Pools>,
    connector: Connector,
}

/// One for each node.
struct Pools {
    size: usize,
    whole: managed::Pool<Manager>,
    nodes: Mutex<HashMap<NodeAddress, managed::Pool<Manager>>>,
    /// What waits for replicas has connections of its own, by slot.
    in_turn: Mutex<HashMap<Option<Slot>, Arc<InTurn>>>,
}

/// A connection that requests go over in turns, and when it was last used.
type InTurn = tokio::sync::Mutex<Option<(Link, Instant)>>;

/// A connection from the worker's pool, for a handler's own use. It is a connection of the `redis` crate, and goes back
/// when it is dropped.
pub struct PooledConnection {
    object: Object<Manager>,
    /// Over the same connection, by the slot it was asked for.
    wire: Wire,
}

/// Makes the connections of a pool, and says whether one can be used again.
struct Manager {
    connector: Connector,
    /// A connection was found dead without a word: those that have not been used since may be, too.
    silent: Mutex<Option<Instant>>,
}

/// Why there is no new connection.
enum Failed {
    Redis(RedisError),
    /// What to tell whoever asked.
    Told(Error),
}

/// What a server says to HELLO, which every user may say who may log in.
#[derive(Default)]
struct Hello {
    version: Option<(u32, u32)>,
    is_replica: bool,
    is_sentinel: bool,
    is_cluster: bool,
}

impl Connector {
    /// A pool of at most `size` connections.
    pub fn pool(&self, size: usize) -> Result<Pool> {
        Ok(Pool {
            pools: Arc::new(Pools {
                size,
                whole: pool_of(self.clone(), size)?,
                nodes: Mutex::default(),
                in_turn: Mutex::default(),
            }),
            connector: self.clone(),
        })
    }
}

fn pool_of(connector: Connector, size: usize) -> Result<managed::Pool<Manager>> {
    let manager = Manager {
        connector,
        silent: Mutex::default(),
    };
    managed::Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(ANSWER))
        // The client's own timeout comes first: it says more.
        .create_timeout(Some(2 * CONNECT_TIMEOUT))
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()).with_source(error))
}

impl Pool {
    /// Makes connections to the same server.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The same pool, for what has to do with `key` and with other keys of its hash slot: see [`Connector::at`]. Those of
    /// one node share their connections.
    pub fn at(&self, key: &str) -> Pool {
        Pool {
            connector: self.connector.at(key),
            ..self.clone()
        }
    }

    /// Finds out whether it is a cluster, if that is not known yet, by what every user may ask.
    pub(super) async fn learn(&self) -> Result<()> {
        if !self.connector.is_known() {
            Box::pin(self.get_at_the_only_place()).await?;
        }
        Ok(())
    }

    /// Whether what failed at one node says nothing of what is at others: the node of a cluster is away.
    pub fn is_of_one_node(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::Unreachable && self.connector.is_cluster()
    }

    /// Whether what failed with one stream says nothing of other streams: Redis refuses to say something of it, or the node
    /// it lies at is away.
    pub fn is_of_one_stream(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::Redis || self.is_of_one_node(error)
    }

    /// The places of `items` by the slots of their keys, each with the pool that leads there. If it is no cluster all of them
    /// are together.
    ///
    /// # Errors
    /// If it is not known yet whether it is one, and Redis can't be reached.
    pub async fn by_slot<T>(
        &self,
        items: &[T],
        key: impl Fn(&T) -> &str,
    ) -> Result<Vec<(Pool, Vec<usize>)>> {
        self.learn().await?;
        let lots = self.connector.by_slot(items, &key).into_iter();
        let with_pool = |places: Vec<usize>| (self.at(key(&items[places[0]])), places);
        Ok(lots.map(with_pool).collect())
    }

    /// A pool for each master: see [`Connector::masters`].
    #[allow(dead_code)]
    pub async fn masters(&self) -> Result<Vec<Pool>> {
        self.learn().await?;
        let masters = self.connector.masters().await?.into_iter();
        let pool = |connector| Pool {
            connector,
            ..self.clone()
        };
        Ok(masters.map(pool).collect())
    }

    /// Requests of its connections are counted there, and of all others to the same server.
    pub fn counted_in(&self, metrics: &Metrics) {
        self.connector.counted_in(metrics);
    }

    /// The server's address without its secrets, for messages.
    pub fn address(&self) -> &str {
        &self.connector.address
    }

    pub async fn get(&self) -> Result<PooledConnection> {
        let got = self.get_wherever();
        #[cfg(feature = "testing")]
        let got = super::test_time::awaited(got);
        got.await
    }

    async fn get_wherever(&self) -> Result<PooledConnection> {
        if let Some(conn) = self.get_at_the_only_place().await? {
            return Ok(conn);
        }
        // Futures that make connections are large, and are kept where they do not make every other one so.
        Box::pin(self.get_at_a_node()).await
    }

    /// The connection on which what is written at `key` waits for replicas: none of the pool's, which others need.
    pub(super) async fn in_turn(&self, key: &str) -> Result<Link> {
        self.learn().await?;
        let place = self.place_in_turn(key);
        let mut place = place.lock().await;
        if let Some((link, used)) = &mut *place
            && !link.is_over()
            && (used.elapsed() < IDLE
                || link.turns.are_under_way()
                || is_there(&mut link.conn).await)
        {
            *used = Instant::now();
            return Ok(link.clone());
        }
        *place = None;
        let connector = self.connector.at(key);
        let link = connector.connect("streamhand:replicated", ANSWER).await?;
        *place = Some((link.clone(), Instant::now()));
        Ok(link)
    }

    /// That connection is of no more use.
    pub(super) async fn in_turn_broke(&self, key: &str, broken: &Link) {
        let place = self.place_in_turn(key);
        let is_it = |(link, _): &mut (Link, Instant)| Arc::ptr_eq(&link.turns, &broken.turns);
        place.lock().await.take_if(is_it);
    }

    fn place_in_turn(&self, key: &str) -> Arc<InTurn> {
        let slot = self.connector.slot_of(key);
        lock(&self.pools.in_turn).entry(slot).or_default().clone()
    }

    async fn get_at_a_node(&self) -> Result<PooledConnection> {
        let (spot, cluster, node) = self.place().await?;
        let first = match spot.attend(self.get_at(&spot, &node.at)).await {
            Some(Ok(conn)) => return Ok(conn),
            first => first,
        };
        // Another node may have taken over.
        cluster.refreshed().await?;
        let (spot, _, next) = self.place().await?;
        match first {
            Some(Err(error)) if next.at == node.at => Err(error),
            _ => self.get_at(&spot, &next.at).await,
        }
    }

    /// Unless it is a node of a cluster that is meant.
    async fn get_at_the_only_place(&self) -> Result<Option<PooledConnection>> {
        if self.connector.goes_by_node() {
            return Ok(None);
        }
        let got = self.pools.whole.get().await;
        let object = got.map_err(|error| self.failed(error))?;
        // It may have become known by this connection that there is a cluster.
        Ok((!self.connector.goes_by_node()).then(|| PooledConnection {
            wire: object.clone(),
            object,
        }))
    }

    pub(super) async fn place(&self) -> Result<(Spot, Arc<Cluster>, Arc<Node>)> {
        let spot = self.connector.spot().await?;
        let (cluster, node) = spot.node.clone().ok_or_else(|| {
            let message = format!("no node of the cluster is known at {}", self.address());
            Error::new(ErrorKind::Internal, message)
        })?;
        Ok((spot, cluster, node))
    }

    async fn get_at(&self, spot: &Spot, at: &NodeAddress) -> Result<PooledConnection> {
        let pool = {
            let mut nodes = lock(&self.pools.nodes);
            match nodes.get(at) {
                Some(pool) => pool.clone(),
                None => {
                    let pool = pool_of(self.connector.at_node(at), self.pools.size)?;
                    nodes.insert(at.clone(), pool.clone());
                    pool
                }
            }
        };
        let object = pool.get().await.map_err(|error| self.failed(error))?;
        Ok(PooledConnection {
            wire: object.under(spot.life.clone()),
            object,
        })
    }

    fn failed(&self, error: PoolError<Failed>) -> Error {
        let address = &self.connector.address;
        let message = match error {
            // Only one that was to be used again has failed by itself, and that one was replaced.
            PoolError::Backend(Failed::Redis(error)) => {
                return refusal(Who::Publisher, "connecting to Redis", error);
            }
            PoolError::Backend(Failed::Told(error)) => return error,
            PoolError::Timeout(TimeoutType::Wait) => {
                format!("all connections to Redis at {address} are in use: raise redis.pool_size")
            }
            PoolError::Timeout(_) => format!(
                "can't reach Redis at {address}: no connection within {} s",
                2 * CONNECT_TIMEOUT.as_secs()
            ),
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                format!("no connection to Redis at {address}")
            }
        };
        Error::new(ErrorKind::Unreachable, message)
    }
}

impl PooledConnection {
    /// Takes it from its pool for good.
    pub(super) fn take(self) -> Wire {
        drop(Object::take(self.object));
        self.wire
    }

    pub(super) fn wire(&self) -> Wire {
        self.wire.clone()
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConnection").finish_non_exhaustive()
    }
}

impl ConnectionLike for PooledConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        self.wire.req_packed_command(cmd)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.wire.req_packed_commands(cmd, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.wire.get_db()
    }
}

impl managed::Manager for Manager {
    type Type = Wire;
    type Error = Failed;

    async fn create(&self) -> Result<Wire, Failed> {
        let mut last = None;
        for _ in 0..TRIES {
            if last.is_some() {
                tokio::time::sleep(ALIVE / 10).await;
            }
            let spot = self.connector.spot().await?;
            let explain = |error| self.connector.explain(&spot, error, Who::Publisher);
            let Some(login) = spot
                .attend(Box::pin(self.connector.log_in(&spot, ANSWER)))
                .await
            else {
                last = Some(self.connector.was_left(&spot));
                continue;
            };
            let (mut conn, driver) = login.map_err(explain)?;
            // It is not taken along where its life ends, for it may still have answers to give; it is not used again. A server
            // that was looked up is left at once: what it answers is lost.
            if self.connector.is_looked_up() {
                spot.life.takes_along(driver);
            }
            is_let_in(&mut conn).await.map_err(explain)?;
            let hello = hello(&mut conn).await.unwrap_or_default();
            match hello.version {
                Some(version) if version < OLDEST => {
                    return Err(self.connector.too_old(&spot, version).into());
                }
                _ if hello.is_sentinel => return Err(self.connector.is_a_sentinel(&spot).into()),
                _ => {}
            }
            if self.connector.is_looked_up() && hello.is_replica {
                last = Some(self.connector.is_a_replica(&spot));
                continue;
            }
            if self.connector.is_looked_up() && spot.life.is_over() {
                last = Some(self.connector.was_left(&spot));
                continue;
            }
            self.connector.learns(hello.is_cluster);
            let wire = self
                .connector
                .wire(&spot, conn, hello.is_replica, Arc::default());
            return Ok(wire);
        }
        let none = || Error::new(ErrorKind::Internal, "no connection was tried");
        Err(last.unwrap_or_else(none).into())
    }

    async fn recycle(
        &self,
        wire: &mut Wire,
        metrics: &managed::Metrics,
    ) -> managed::RecycleResult<Failed> {
        self.connector.looks_after();
        // A replica will do as long as no primary is known.
        if wire.life().is_over() || wire.was_replica() && wire.life().has_met_one() {
            return Err(RecycleError::message(
                "the server is not the one to ask any more",
            ));
        }
        let used = metrics.recycled.unwrap_or(metrics.created);
        if lock(&self.silent).is_some_and(|silent| used < silent) {
            return Err(RecycleError::message("another one was found dead"));
        }
        match tokio::time::timeout(ALIVE, can_be_used_again(wire)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(RecycleError::message("its server is a replica now")),
            Ok(Err(error)) => Err(Failed::Redis(error).into()),
            Err(_) => {
                *lock(&self.silent) = Some(Instant::now());
                Err(RecycleError::message("it does not answer"))
            }
        }
    }
}

/// Whether a connection can be used again, as if nobody had used it before.
async fn can_be_used_again(wire: &mut Wire) -> RedisResult<bool> {
    let mut pipe = redis::Pipeline::with_capacity(2);
    pipe.cmd("UNWATCH").cmd("HELLO").ignore_errors();
    let answers: Vec<RedisResult<Value>> = pipe.query_async(wire).await?;
    let mut answers = answers.into_iter();
    answers.next().transpose()?;
    // Who does not know HELLO answers as well.
    let hello = answers.next().and_then(Result::ok).and_then(Hello::of);
    Ok(is_still_what_it_was(wire, &hello.unwrap_or_default()))
}

/// Whether a connection that nobody has used for a while is still there, and leads to the server to ask.
pub(super) async fn is_there(wire: &mut Wire) -> bool {
    let hello = tokio::time::timeout(ALIVE, hello(wire)).await;
    matches!(hello, Ok(Ok(hello)) if is_still_what_it_was(wire, &hello))
}

/// A primary that has become a replica is not the one to ask any more.
fn is_still_what_it_was(wire: &Wire, hello: &Hello) -> bool {
    if hello.is_replica && !wire.was_replica() {
        wire.life().end("it is a read-only replica now");
    }
    !wire.life().is_over()
}

async fn hello(conn: &mut impl ConnectionLike) -> RedisResult<Hello> {
    match redis::cmd("HELLO").query_async::<Value>(conn).await {
        Ok(hello) => Ok(Hello::of(hello).unwrap_or_default()),
        // It is there, and does not say.
        Err(error) if Answer::of(&error).is_some() => Ok(Hello::default()),
        Err(error) => Err(error),
    }
}

impl Hello {
    fn of(answer: Value) -> Option<Self> {
        let (mut items, mut hello) = (reply::array(answer)?.into_iter(), Hello::default());
        while let (Some(name), Some(value)) = (items.next(), items.next()) {
            match reply::bytes(name).as_deref() {
                Some(b"version") => hello.version = version(&reply::text(value)?),
                Some(b"role") => {
                    hello.is_replica = matches!(&reply::text(value)?[..], "replica" | "slave");
                }
                Some(b"mode") => {
                    let mode = reply::text(value)?;
                    (hello.is_sentinel, hello.is_cluster) = (mode == "sentinel", mode == "cluster");
                }
                _ => {}
            }
        }
        Some(hello)
    }
}

fn version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map_while(|part| part.parse().ok());
    Some((parts.next()?, parts.next()?))
}

/// Whether a server that asks for a password has been told it. One that has not is deaf to all but short commands, and
/// closes the connection on a longer one, which says nothing of a password.
async fn is_let_in(conn: &mut MultiplexedConnection) -> RedisResult<()> {
    match redis::cmd("PING").query_async::<()>(conn).await {
        Err(error) if Answer::of(&error).is_none_or(|answer| answer.code == "NOAUTH") => Err(error),
        // Who may not PING may do other things.
        _ => Ok(()),
    }
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Failed::Redis(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Told(error)
    }
}
