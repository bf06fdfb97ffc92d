//! Connections: how they are made, and what the server at the other end must be able to do.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, RedisError, RedisResult};
use tokio::task::AbortHandle;

use super::access::Access;
use super::dial::{self, CONNECT_TIMEOUT};
use super::error::{Answer, Found, Trouble, Who, cause, hint};
use super::introduction::{Introduction, introduce};
use super::life::{Life, Lives};
use super::outage::Outage;
use super::reader::Reader;
use super::replicated::{Replicas, Turns};
use super::socket::Greeting;
use super::tls;
use super::topology::{Cluster, Node, Sentinels, SharedConn, Slot};
use super::wire::Wire;
use crate::config::redact::redacted;
use crate::config::topology::{Topology, of_sentinels, topology};
use crate::config::{NodeAddress, RedisSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;

/// The oldest servers this works on: Redis 7.0, and Valkey 7.2, which calls itself Redis 7.2.
pub(crate) const OLDEST: (u32, u32) = (7, 0);

/// How many servers are met in a row, each of them another, until that counts as being unreachable.
const SERVERS: usize = 3;

/// Makes connections to one server, or to the one among several where it has something to do. Clones share what is known
/// of the servers, and the connections to one of them end together.
#[derive(Clone)]
pub(crate) struct Connector {
    home: Arc<Home>,
    target: Target,
    /// What was configured, without its secrets, for messages.
    pub address: String,
}

/// What all connectors of one configuration have in common.
struct Home {
    access: Arc<Access>,
    lives: Arc<Lives>,
    outage: Outage,
    metrics: Arc<OnceLock<Metrics>>,
    replicas: Replicas,
    sentinels: Option<Sentinels>,
    cluster: OnceLock<Arc<Cluster>>,
    /// It is known whether it is a cluster.
    is_known: AtomicBool,
}

/// Which server of a cluster is meant.
#[derive(Clone)]
enum Target {
    /// Whichever is configured.
    Any,
    /// The master of a slot.
    Slot(Slot),
    Node(NodeAddress),
}

/// Who has a connection.
#[derive(Clone, Copy)]
enum Sharing {
    /// All who name it alike at a node of a cluster. On one server everybody has one of their own.
    ByName,
    Alone,
}

/// Where a connection is to be made, and the life it belongs to.
#[derive(Clone)]
pub(super) struct Spot {
    pub address: ConnectionAddr,
    pub life: Life,
    /// The node of a cluster.
    pub node: Option<(Arc<Cluster>, Arc<Node>)>,
}

/// One connection of a worker.
#[derive(Clone)]
pub(crate) struct Link {
    pub(super) conn: Wire,
    pub greeting: Greeting,
    pub(super) found: Found,
    /// What goes over it in turns, if it is for that.
    pub(super) turns: Arc<Turns>,
}

impl Connector {
    /// By `[redis]`.
    ///
    /// # Errors
    /// If its settings do not go together, or files of it can't be read.
    pub fn new(settings: &RedisSettings) -> Result<Self> {
        let topology = topology(settings).map_err(|wrong| {
            let wrong = wrong.iter();
            let wrong = wrong.map(|wrong| format!("redis.{} {}", wrong.key, wrong.message));
            Error::new(ErrorKind::Invalid, wrong.collect::<Vec<_>>().join("; "))
        })?;
        let access = Arc::new(Access::new(settings, "redis")?);
        let address = match &topology {
            Topology::Sentinel { master, nodes } => {
                format!("{master} by the sentinels {}", listed(nodes))
            }
            Topology::Cluster { nodes } if !nodes.is_empty() => listed(nodes),
            _ => access.address().to_string(),
        };
        let metrics = Arc::<OnceLock<Metrics>>::default();
        let lives = Arc::new(Lives::counting(&address, metrics.clone()));
        let (mut sentinels, mut is_known) = (None, true);
        let cluster = OnceLock::new();
        match topology {
            Topology::Sentinel { master, nodes } => {
                let access = Access::new(&of_sentinels(settings), "redis.sentinel")?;
                sentinels = Some(Sentinels::new(master, nodes, access, &lives));
            }
            Topology::Cluster { mut nodes } => {
                if nodes.is_empty() {
                    nodes.extend(node_at(&access.address()));
                }
                let the = Cluster::new(access.clone(), nodes, metrics.clone());
                let _ = cluster.set(Arc::new(the));
            }
            Topology::Single { may_be_a_cluster } => {
                // What is behind a socket in the file system has no address by which the others know it.
                is_known = !may_be_a_cluster || node_at(&access.address()).is_none();
            }
        }
        let home = Home {
            access,
            lives,
            outage: Outage::default(),
            metrics,
            replicas: Replicas {
                count: settings.replicas,
                timeout: settings.replicas_timeout,
            },
            sentinels,
            cluster,
            is_known: AtomicBool::new(is_known),
        };
        Ok(Connector {
            home: Arc::new(home),
            target: Target::Any,
            address,
        })
    }

    /// The same, for what has to do with `key` and with other keys of its hash slot. Its connections lead to the slot's
    /// master, wherever that is by the time they are made, and end when the slot moves. On one server, and with Sentinel,
    /// that is the server that all keys are at.
    ///
    /// It is cheap, and asks nobody anything.
    pub fn at(&self, key: &str) -> Connector {
        self.to(Target::Slot(Slot::of(key)))
    }

    fn to(&self, target: Target) -> Connector {
        Connector {
            target,
            ..self.clone()
        }
    }

    /// Whether keys lie on several nodes by their hash slots. Where `redis.mode` leaves that to be found out it is false
    /// until [`learn`](Self::learn) or any connection has found it out.
    pub fn is_cluster(&self) -> bool {
        self.home.cluster.get().is_some()
    }

    /// Finds out whether it is a cluster, if that is not known yet, and returns it.
    pub async fn learn(&self) -> Result<bool> {
        if !self.is_known() {
            let any = self.to(Target::Any);
            any.connect_to_any("streamhand:mode", CONNECT_TIMEOUT)
                .await?;
        }
        Ok(self.is_cluster())
    }

    /// How many replicas are to have what is published or appended, by `[redis]`.
    pub fn replicas(&self) -> Replicas {
        self.home.replicas
    }

    /// Whether it is known if it is a cluster.
    pub(super) fn is_known(&self) -> bool {
        self.home.is_known.load(Ordering::Acquire)
    }

    /// A server says whether it is a node of a cluster. Returns whether that is news to this connector.
    pub(super) fn learns(&self, is_cluster: bool) -> bool {
        if self.is_known() {
            return false;
        }
        if is_cluster {
            let seeds = node_at(&self.home.access.address()).into_iter().collect();
            let (access, metrics) = (self.home.access.clone(), self.home.metrics.clone());
            let cluster = Cluster::new(access, seeds, metrics);
            let _ = self.home.cluster.set(Arc::new(cluster));
        }
        self.home.is_known.store(true, Ordering::Release);
        is_cluster
    }

    /// The hash slot of a key, in a cluster.
    pub fn slot_of(&self, key: &str) -> Option<Slot> {
        self.is_cluster().then(|| Slot::of(key))
    }

    /// The places of `items` by the slots of their keys, in the order in which those come. If it is no cluster all of them are
    /// together.
    pub fn by_slot<T>(&self, items: &[T], key: impl Fn(&T) -> &str) -> Vec<Vec<usize>> {
        let mut lots: Vec<(_, Vec<usize>)> = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let slot = self.slot_of(key(item));
            match lots.iter_mut().find(|(known, _)| *known == slot) {
                Some((_, places)) => places.push(place),
                None => lots.push((slot, vec![place])),
            }
        }
        lots.into_iter().map(|(_, places)| places).collect()
    }

    /// One for each master, for what all of them are to be asked: SCAN and INFO. On one server it is that.
    pub async fn masters(&self) -> Result<Vec<Connector>> {
        self.learn().await?;
        let Some(cluster) = self.home.cluster.get() else {
            return Ok(vec![self.clone()]);
        };
        let masters = cluster.masters().await?.into_iter();
        Ok(masters.map(|node| self.at_node(&node)).collect())
    }

    /// The same for one node.
    pub(super) fn at_node(&self, node: &NodeAddress) -> Connector {
        Connector {
            address: node.to_string(),
            ..self.to(Target::Node(node.clone()))
        }
    }

    /// Whom the server knows us as.
    #[cfg(feature = "worker")]
    pub fn user(&self) -> String {
        let login = self.home.access.current();
        login.says().username().unwrap_or("default").to_owned()
    }

    /// Requests are counted there, on all connections there are and will be.
    pub fn counted_in(&self, metrics: &Metrics) {
        let _ = self.home.metrics.set(metrics.clone());
    }

    /// A connection to a primary, whose answers are waited for at most `response_timeout`. Those of one name have it in
    /// common at a node of a cluster, whatever slots they go by: nothing may be asked over it that blocks.
    pub async fn connect(&self, name: &str, response_timeout: Duration) -> Result<Link> {
        self.primary(name, response_timeout, Sharing::ByName).await
    }

    /// The same, which nobody else has: what blocks on it holds up nobody.
    pub async fn connect_alone(&self, name: &str, response_timeout: Duration) -> Result<Link> {
        self.primary(name, response_timeout, Sharing::Alone).await
    }

    async fn primary(
        &self,
        name: &str,
        response_timeout: Duration,
        sharing: Sharing,
    ) -> Result<Link> {
        self.meet(|spot: Spot| async move {
            let link = match (&spot.node, sharing) {
                (Some((_, node)), Sharing::ByName) => {
                    self.shared_link(&spot, node, name, response_timeout).await
                }
                _ => self.link(&spot, name, response_timeout).await,
            }?;
            self.needs_a_primary(&spot, link.conn.was_replica())?;
            Ok(link)
        })
        .await
    }

    /// A connection to any server, for reading, which nobody else has: what blocks on it holds up nobody.
    pub async fn connect_to_any(&self, name: &str, response_timeout: Duration) -> Result<Link> {
        let mut link = self.link_there(name, response_timeout).await?;
        if self.learns(link.greeting.is_cluster) && self.goes_by_node() {
            link = self.link_there(name, response_timeout).await?;
        }
        Ok(link)
    }

    async fn link_there(&self, name: &str, response_timeout: Duration) -> Result<Link> {
        let spot = self.spot().await?;
        self.link(&spot, name, response_timeout).await
    }

    async fn link(&self, spot: &Spot, name: &str, response_timeout: Duration) -> Result<Link> {
        if let Some((_, node)) = &spot.node {
            node.outage.lets_try()?;
        }
        let (conn, driver, introduction) = self.greeted(spot, name, response_timeout).await?;
        spot.life.takes_along(driver);
        Ok(Link {
            conn: self.wire(spot, conn, introduction.is_replica, Arc::default()),
            greeting: introduction.greeting,
            found: Found::default(),
            turns: Arc::default(),
        })
    }

    /// A connection to a node that others have as well who go by other slots of it: it does not end with one of them.
    async fn shared_link(
        &self,
        spot: &Spot,
        node: &Arc<Node>,
        name: &str,
        response_timeout: Duration,
    ) -> Result<Link> {
        let place = node.shared(name, response_timeout);
        let mut place = place.lock().await;
        place.take_if(|shared| shared.broken.load(Ordering::Acquire));
        let shared = match &*place {
            Some(shared) => shared.clone(),
            None => {
                // Whoever waited here for one that could not be made need not try the same at once.
                node.outage.lets_try()?;
                let (conn, _, introduction) = self.greeted(spot, name, response_timeout).await?;
                let shared = SharedConn {
                    conn,
                    greeting: introduction.greeting,
                    is_replica: introduction.is_replica,
                    turns: Arc::default(),
                    broken: Arc::default(),
                };
                place.insert(shared).clone()
            }
        };
        Ok(Link {
            conn: self
                .wire(spot, shared.conn, shared.is_replica, shared.broken)
                .of_several(),
            greeting: shared.greeting,
            found: Found::default(),
            turns: shared.turns,
        })
    }

    /// What goes over a connection to a node of a cluster, under the life of the spot.
    pub(super) fn wire(
        &self,
        spot: &Spot,
        conn: MultiplexedConnection,
        is_replica: bool,
        broken: Arc<AtomicBool>,
    ) -> Wire {
        let wire = Wire::new(conn, spot.life.clone(), is_replica);
        match &spot.node {
            Some((cluster, node)) => wire.in_a_cluster(cluster.clone(), node.clone(), broken),
            None => wire,
        }
    }

    async fn greeted(
        &self,
        spot: &Spot,
        name: &str,
        response_timeout: Duration,
    ) -> Result<(MultiplexedConnection, AbortHandle, Introduction)> {
        let explain = |error| self.explain(spot, error, Who::Worker);
        let (mut conn, driver) = self.log_in(spot, response_timeout).await.map_err(explain)?;
        let introduction = self.greet(spot, &mut conn, name, false).await?;
        spot.life.connected(name);
        Ok((conn, driver, introduction))
    }

    /// A connection that is logged in, and what drives it.
    pub(super) async fn log_in(
        &self,
        spot: &Spot,
        response_timeout: Duration,
    ) -> RedisResult<(MultiplexedConnection, AbortHandle)> {
        dial::log_in(&self.home.access, &spot.address, response_timeout).await
    }

    /// Where a connection is to be made now.
    pub(super) async fn spot(&self) -> Result<Spot> {
        match (self.home.cluster.get(), &self.home.sentinels) {
            (Some(cluster), _) => Box::pin(self.spot_in(cluster)).await,
            (None, Some(sentinels)) => {
                let (primary, life) = Box::pin(sentinels.primary()).await?;
                Ok(Spot {
                    address: self.home.access.address_of(&primary),
                    life,
                    node: None,
                })
            }
            (None, None) => Ok(self.only_spot()),
        }
    }

    fn only_spot(&self) -> Spot {
        Spot {
            address: self.home.access.address(),
            life: self.home.lives.current(),
            node: None,
        }
    }

    async fn spot_in(&self, cluster: &Arc<Cluster>) -> Result<Spot> {
        let (node, life) = match &self.target {
            Target::Slot(slot) => {
                let (node, life) = cluster.owner(*slot).await?;
                tokio::time::sleep(life.pause()).await;
                (node, life)
            }
            Target::Node(at) => {
                let node = cluster.node(at);
                let life = node.lives.current();
                (node, life)
            }
            Target::Any => {
                let configured = node_at(&self.home.access.address());
                let mut spot = self.only_spot();
                // Where nodes are listed the address is none of theirs.
                if configured.is_none_or(|node| node.to_string() != self.address)
                    && let Some(node) = cluster.masters().await?.first()
                {
                    spot.address = self.home.access.address_of(node);
                }
                return Ok(spot);
            }
        };
        Ok(Spot {
            address: self.home.access.address_of(&node.at),
            life,
            node: Some((cluster.clone(), node)),
        })
    }

    /// Makes a connection under the present life, or under a new one where it leads to another server than before.
    async fn meet<T: Greeted, F>(&self, make: impl Fn(Spot) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        for _ in 0..SERVERS {
            let spot = self.spot_to_try().await?;
            let Some(made) = spot.attend(Box::pin(make(spot.clone()))).await else {
                continue;
            };
            let made = match &spot.node {
                Some((cluster, node)) => {
                    if made.is_err() {
                        // Another node may have taken over.
                        cluster.refresh_soon();
                    }
                    node.outage.heard(made)?
                }
                None => self.home.outage.heard(made)?,
            };
            let is_news = self.learns(made.greeting().is_cluster);
            if spot.life.is_over() || is_news && !matches!(self.target, Target::Any) {
                continue;
            }
            if spot.life.meets(&made.greeting().server) {
                return Ok(made);
            }
            spot.life
                .end("another server is there now, or another run of it");
        }
        let message = format!("another server is at {} each time", self.address);
        Err(Error::new(ErrorKind::Unreachable, message))
    }

    /// Where to try now, if it may be tried.
    async fn spot_to_try(&self) -> Result<Spot> {
        if let (Some(cluster), false) =
            (self.home.cluster.get(), matches!(self.target, Target::Any))
        {
            let spot = Box::pin(self.spot_in(cluster)).await?;
            if let Some((_, node)) = &spot.node
                && let Err(error) = node.outage.is_over()
            {
                // It may have a successor by now.
                cluster.refresh_soon();
                return Err(error);
            }
            return Ok(spot);
        }
        let outage = &self.home.outage;
        outage.lets_try()?;
        // To know where it is is not to have met it.
        match self.spot().await {
            Ok(spot) => Ok(spot),
            Err(error) => outage.heard(Err(error)),
        }
    }

    /// Looks after whom to ask where the primary is, if anybody. To be called now and then by whoever keeps connections.
    pub(super) fn looks_after(&self) {
        if let Some(sentinels) = &self.home.sentinels {
            sentinels.watch();
        }
    }

    /// Whether the server is looked up, so that what is found to be no primary is not the one to ask.
    pub(super) fn is_looked_up(&self) -> bool {
        self.home.sentinels.is_some() || matches!(self.target, Target::Node(_))
    }

    /// Whether a node of a cluster is meant, by a slot or by itself.
    pub(super) fn goes_by_node(&self) -> bool {
        self.is_cluster() && !matches!(self.target, Target::Any)
    }

    /// A connection on a blocking socket, for measurements: no part of the runtime has one.
    pub fn connect_blocking(&self) -> Result<redis::Connection> {
        let login = self.home.access.current();
        login
            .client
            .get_connection_with_timeout(CONNECT_TIMEOUT)
            .map_err(|error| self.explain(&self.only_spot(), error, Who::Operator))
    }

    /// A connection for reading new entries. An answer may take `patience` longer than the read may block.
    pub async fn reader(&self, name: &str, patience: Duration) -> Result<Reader> {
        self.meet(|spot| self.make_reader(spot, name, patience))
            .await
    }

    async fn make_reader(&self, spot: Spot, name: &str, patience: Duration) -> Result<Reader> {
        if let Some((_, node)) = &spot.node {
            node.outage.lets_try()?;
        }
        let unreachable = |error: RedisError| self.explain(&spot, error, Who::Worker);
        let (lent, mut conn, driver) =
            dial::log_in_lending(&self.home.access, &spot.address, patience)
                .await
                .map_err(unreachable)?;
        let Introduction {
            greeting,
            is_replica,
            ..
        } = tokio::select! {
            greeting = self.greet(&spot, &mut conn, name, true) => greeting?,
            () = driver => return Err(unreachable(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
        };
        self.needs_a_primary(&spot, is_replica)?;
        spot.life.connected(name);
        // Everything asked so far has been answered: nothing that belongs to the client is on its way.
        let socket = lent.take_back().expect("it is taken once");
        Ok(Reader::new(
            socket, greeting, patience, spot.life, spot.node,
        ))
    }

    /// A worker has nothing to do at a replica: all it does changes something.
    fn needs_a_primary(&self, spot: &Spot, is_replica: bool) -> Result<()> {
        if !is_replica {
            return Ok(());
        }
        Err(self.is_a_replica(spot))
    }

    /// What is said of a server that was left while it was connected to.
    pub(super) fn was_left(&self, spot: &Spot) -> Error {
        let message = format!("another server took over from {} each time", spot.address);
        Error::new(ErrorKind::Unreachable, message)
    }

    /// What is said of a replica where a primary is to be.
    pub(super) fn is_a_replica(&self, spot: &Spot) -> Error {
        let address = &spot.address;
        if let Some(sentinels) = &self.home.sentinels {
            sentinels.were_wrong();
            let message = format!(
                "Redis at {address} is a replica, and the sentinels name it as the primary: one of them is not up to date"
            );
            return Error::new(ErrorKind::Unreachable, message);
        }
        if let Some((cluster, _)) = &spot.node {
            cluster.refresh_soon();
            let message = format!("the node at {address} is a replica by now, or still");
            return Error::new(ErrorKind::Unreachable, message);
        }
        let message =
            format!("Redis at {address} is a read-only replica: redis.url must name the primary");
        Error::new(ErrorKind::Refused, message)
    }

    /// Makes sure that the server is one this works on.
    async fn greet(
        &self,
        spot: &Spot,
        conn: &mut MultiplexedConnection,
        name: &str,
        is_for_reading: bool,
    ) -> Result<Introduction> {
        let introducing = introduce(conn, &client_name(name), is_for_reading).await;
        let introduction = introducing.map_err(|error| self.explain(spot, error, Who::Worker))?;
        if let Some(version) = introduction.version.filter(|version| *version < OLDEST) {
            return Err(self.too_old(spot, version));
        }
        if introduction.is_sentinel {
            return Err(self.is_a_sentinel(spot));
        }
        Ok(introduction)
    }

    pub(super) fn is_a_sentinel(&self, spot: &Spot) -> Error {
        let message = format!(
            "what is at {} is a sentinel: name it in redis.sentinel.nodes, and in redis.sentinel.master what it calls the primary",
            spot.address
        );
        Error::new(ErrorKind::Unsupported, message)
    }

    pub(super) fn too_old(&self, spot: &Spot, (major, minor): (u32, u32)) -> Error {
        let message = format!(
            "the server at {} is Redis {major}.{minor}; streamhand needs Redis 7.0 or Valkey 7.2, or later",
            spot.address
        );
        Error::new(ErrorKind::Unsupported, message)
    }

    /// Why there is no connection.
    pub(super) fn explain(&self, spot: &Spot, error: RedisError, who: Who) -> Error {
        let address = &spot.address;
        let (kind, message) = match Answer::of(&error) {
            Some(answer) => {
                let hint = hint(&answer.code, who);
                let message = format!("Redis at {address} refuses us: {}{hint}", answer.text);
                (ErrorKind::Refused, message)
            }
            // The client keeps to itself what the server said.
            None if error.kind() == redis::ErrorKind::AuthenticationFailed => {
                let what = "it does not accept the user or the password";
                let hint = hint("WRONGPASS", who);
                let message = format!("Redis at {address} refuses us: {what}{hint}");
                (ErrorKind::Refused, message)
            }
            None => {
                let why = tls::explain(&error, self.home.access.current().tls.is_some());
                let why = redacted(&why);
                let message = format!("can't reach Redis at {address}: {why}");
                (ErrorKind::Unreachable, message)
            }
        };
        Error::new(kind, message).with_source(cause(error))
    }
}

impl Link {
    /// The client's connection, for what is none of this module's steps.
    pub fn into_inner(self) -> MultiplexedConnection {
        self.conn.into_inner()
    }

    /// Whether nothing more can be had over it: what it belongs to has ended.
    pub fn is_over(&self) -> bool {
        self.conn.life().is_over()
    }

    /// Wakes a blocked read of the connection `client`. Answers whether it was blocked.
    pub async fn unblock(&mut self, client: i64) -> Result<bool, Trouble> {
        let mut cmd = redis::cmd("CLIENT");
        cmd.arg("UNBLOCK").arg(client);
        cmd.query_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of("waking the reader", error))
    }
}

/// The name of a connection as servers take it, who want printable ASCII without spaces: of a group called `lager-süd`
/// it is `lager-s%C3%BCd`.
fn client_name(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Cow::Borrowed(name);
    }
    let bytes = name.bytes().map(|byte| match byte {
        byte if byte.is_ascii_graphic() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    Cow::Owned(bytes.collect())
}

impl Spot {
    /// What comes of doing something there, unless it turns out meanwhile that it is to be done elsewhere.
    pub async fn attend<T>(&self, doing: impl Future<Output = T>) -> Option<T> {
        match &self.node {
            Some((cluster, _)) => cluster.attend(&self.life, false, doing).await,
            None => tokio::select! {
                biased;
                done = doing => Some(done),
                () = self.life.ended() => None,
            },
        }
    }
}

fn listed(nodes: &[NodeAddress]) -> String {
    let nodes: Vec<String> = nodes.iter().map(NodeAddress::to_string).collect();
    nodes.join(", ")
}

/// The host and the port of an address, if it has any.
fn node_at(address: &ConnectionAddr) -> Option<NodeAddress> {
    let (host, port) = match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host, port),
        _ => return None,
    };
    Some(NodeAddress {
        host: host.clone(),
        port: *port,
    })
}

/// What has a greeting.
trait Greeted {
    fn greeting(&self) -> &Greeting;
}

impl Greeted for Link {
    fn greeting(&self) -> &Greeting {
        &self.greeting
    }
}

impl Greeted for Reader {
    fn greeting(&self) -> &Greeting {
        &self.greeting
    }
}
