//! A cluster: which node is the master of a slot, and what is known of each node.
//!
//! The map of slots is asked for at the first contact, every 15 s, and whenever something says that it is not up to date: a
//! redirection, a node that can't be had, a cluster that is down. One asks at a time, and all others wait for what that
//! one is told. Whoever goes by a slot has a life of that slot's: it ends when the slot has another master, and nothing
//! else ends with it. No lock here is held while anything is waited for.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionAddr, RedisError, RedisResult, Value};
use tokio::task::JoinHandle;

use super::refresh_times::{EVERY, RefreshTimes};
use super::slot::Slot;
use super::slot_map::SlotMap;
use crate::config::NodeAddress;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::stream::access::Access;
use crate::stream::error::Answer;
use crate::stream::life::{Life, Lives};
use crate::stream::outage::Outage;
use crate::stream::replicated::{Replicas, Turns};
use crate::stream::socket::Greeting;
use crate::stream::{dial, reply};
use crate::sync::lock;

/// How long a node's answer to that is waited for, and to a command that is to be asked there.
const ANSWER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// How long a node may take to answer until it is looked whether it has a successor.
const SLOW: Duration = Duration::from_secs(1);
/// How many nodes are asked for the map at most.
const ASKED: usize = 6;

/// The nodes of one cluster.
pub(in crate::stream) struct Cluster {
    access: Arc<Access>,
    seeds: Vec<NodeAddress>,
    map: Mutex<Arc<SlotMap>>,
    refresh: Mutex<Refresh>,
    slots: Mutex<HashMap<Slot, Arc<Lives>>>,
    nodes: Mutex<HashMap<NodeAddress, Arc<Node>>>,
    metrics: Arc<OnceLock<Metrics>>,
    /// What asks every now and then.
    ticking: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Refresh {
    /// The one that is under way.
    under_way: Option<Refreshing>,
    times: RefreshTimes,
    /// The highest epoch that any map came with.
    epoch: u64,
    /// A gap in the map was told of.
    told: bool,
}

type Refreshing = Shared<BoxFuture<'static, Result<(), Arc<Error>>>>;

/// One node, and what is known of it.
pub(in crate::stream) struct Node {
    pub at: NodeAddress,
    /// Of connections that go by the node, not by a slot.
    pub lives: Lives,
    pub outage: Outage,
    /// What is asked here for others: the map, and what a slot that moves to it is asked.
    asking: Mutex<Option<MultiplexedConnection>>,
    /// The same for what waits for replicas.
    asking_in_turn: Mutex<Option<(MultiplexedConnection, Arc<Turns>)>>,
    /// Connections that all have in common who go by slots of it, by what they are for and how long an answer may take.
    shared: Mutex<HashMap<(String, Duration), Arc<Place>>>,
}

/// The place of one shared connection: whoever finds none there makes one, and the others wait for it.
pub(in crate::stream) type Place = tokio::sync::Mutex<Option<SharedConn>>;

/// A connection that several have in common.
#[derive(Clone)]
pub(in crate::stream) struct SharedConn {
    pub conn: MultiplexedConnection,
    pub greeting: Greeting,
    pub is_replica: bool,
    /// What goes over it in turns, if it is for that.
    pub turns: Arc<Turns>,
    /// No more is to be asked over it.
    pub broken: Arc<AtomicBool>,
}

/// A map, and what it is worth.
struct Told {
    map: SlotMap,
    /// Failovers and moves that the node knows of; 0 if it does not say.
    epoch: u64,
    is_ok: bool,
}

impl Cluster {
    /// The cluster that these are nodes of. Lives count where `metrics` says by then.
    pub fn new(
        access: Arc<Access>,
        seeds: Vec<NodeAddress>,
        metrics: Arc<OnceLock<Metrics>>,
    ) -> Self {
        Cluster {
            access,
            seeds,
            map: Mutex::default(),
            refresh: Mutex::default(),
            slots: Mutex::default(),
            nodes: Mutex::default(),
            metrics,
            ticking: Mutex::default(),
        }
    }

    /// The master of a slot, and the life of what goes by it there.
    ///
    /// # Errors
    /// If no node says which one it is, or it has none.
    pub async fn owner(self: &Arc<Self>, slot: Slot) -> Result<(Arc<Node>, Life)> {
        self.tick();
        if self.map().owner(slot).is_none() {
            self.refreshed().await?;
        }
        let lives = self.lives_of(slot);
        // Under its lock: who changes the map ends what is elsewhere after that.
        let map = lock(&self.map);
        match map.owner(slot) {
            Some(owner) => {
                let life = lives.settle(&owner.to_string(), "the slot has another master");
                Ok((self.node(owner), life))
            }
            None => Err(Error::new(
                ErrorKind::Unreachable,
                format!("no master of the cluster has the slot {}", slot.number()),
            )),
        }
    }

    /// All masters that have slots.
    ///
    /// # Errors
    /// If no node says who they are.
    pub async fn masters(self: &Arc<Self>) -> Result<Vec<NodeAddress>> {
        self.tick();
        if self.map().masters().is_empty() {
            self.refreshed().await?;
        }
        Ok(self.map().masters())
    }

    /// Whether a slot is at this node by what others say now, and it has no replica that could take over. A node alone can't
    /// tell: it loses its replica in the moment in which that takes over, and hears of it later.
    pub async fn is_alone(self: &Arc<Self>, slot: Slot, node: &NodeAddress) -> bool {
        self.map().is_alone(slot, node)
            && self.refreshed().await.is_ok()
            && self.map().is_alone(slot, node)
    }

    /// What goes by a slot, one life after the other.
    pub fn lives_of(&self, slot: Slot) -> Arc<Lives> {
        let mut slots = lock(&self.slots);
        let lives = slots.entry(slot).or_insert_with(|| {
            let name = format!("the cluster, for slot {}", slot.number());
            Arc::new(Lives::counting(&name, self.metrics.clone()))
        });
        lives.clone()
    }

    /// What is known of the node there.
    pub fn node(&self, at: &NodeAddress) -> Arc<Node> {
        let mut nodes = lock(&self.nodes);
        let node = nodes.entry(at.clone()).or_insert_with(|| {
            Arc::new(Node {
                at: at.clone(),
                lives: Lives::counting(&at.to_string(), self.metrics.clone()),
                outage: Outage::default(),
                asking: Mutex::default(),
                asking_in_turn: Mutex::default(),
                shared: Mutex::default(),
            })
        });
        node.clone()
    }

    /// How that node is reached.
    pub fn address(&self, node: &Node) -> ConnectionAddr {
        self.access.address_of(&node.at)
    }

    /// What comes of asking a node, unless the life it is done under ends before. Where it takes long it may be that the node
    /// hangs, and has a successor: that is looked after meanwhile, unless it is to take long.
    pub async fn attend<T>(
        self: &Arc<Self>,
        life: &Life,
        may_take_long: bool,
        asking: impl Future<Output = T>,
    ) -> Option<T> {
        let mut asking = pin!(asking);
        let mut wait = SLOW;
        loop {
            tokio::select! {
                biased;
                answer = &mut asking => return Some(answer),
                () = life.ended() => return None,
                () = tokio::time::sleep(wait), if !may_take_long => self.refresh_soon(),
            }
            wait *= 2;
        }
    }

    /// What a node said, over a connection of `life`, instead of what was asked for. Ends the lives of what is to be looked
    /// for elsewhere.
    pub fn heard(self: &Arc<Self>, life: &Life, at: &NodeAddress, answer: &Answer) {
        self.node(at).is_changed();
        if answer.code == "MOVED" {
            let redirection = self.map().redirection(&answer.text, at);
            if let Some((slot, to)) = redirection {
                self.moved(slot, &to, &answer.text);
                return;
            }
        }
        if answer.code != "CLUSTERDOWN" {
            life.end(&answer.text);
        }
        self.refresh_soon();
    }

    fn moved(self: &Arc<Self>, slot: Slot, to: &NodeAddress, why: &str) {
        {
            let mut map = lock(&self.map);
            if map.owner(slot) != Some(to) {
                Arc::make_mut(&mut map).moved(slot, to);
            }
        }
        let lives = lock(&self.slots).get(&slot).cloned();
        if let Some(lives) = lives {
            lives.leave_others(&to.to_string(), &format!("the slot has moved ({why})"));
        }
        self.refresh_soon();
    }

    /// The map has been asked for anew, a moment ago at most.
    ///
    /// # Errors
    /// If no node has told it.
    pub async fn refreshed(self: &Arc<Self>) -> Result<()> {
        match self.refresh() {
            Some(refresh) => refresh
                .await
                .map_err(|error| Error::new(error.kind(), error.to_string())),
            None => Ok(()),
        }
    }

    /// The same, and nobody waits for it.
    pub fn refresh_soon(self: &Arc<Self>) {
        if let Some(refresh) = self.refresh() {
            tokio::spawn(refresh);
        }
    }

    /// The refresh that is under way, or a new one; None if the map is new.
    fn refresh(self: &Arc<Self>) -> Option<Refreshing> {
        let mut refresh = lock(&self.refresh);
        if let Some(under_way) = &refresh.under_way
            && under_way.peek().is_none()
        {
            return Some(under_way.clone());
        }
        if !refresh.times.may_ask(Instant::now()) {
            return None;
        }
        let cluster = self.clone();
        let refreshing = async move {
            let told = cluster.ask_for_the_map().await;
            // Set here, so that it is not asked over and over by those who can't have it either.
            lock(&cluster.refresh).times.asked(Instant::now());
            cluster.take(told.map_err(Arc::new)?);
            Ok(())
        };
        let refreshing = refreshing.boxed().shared();
        refresh.under_way = Some(refreshing.clone());
        Some(refreshing)
    }

    /// Goes by this map from now on.
    fn take(&self, told: Told) {
        let map = Arc::new(told.map);
        {
            let mut refresh = lock(&self.refresh);
            refresh.epoch = told.epoch;
            // The future holds what it was made of.
            refresh.under_way = None;
            let gap = map.gap();
            if let (Some(slot), false) = (gap, refresh.told) {
                tracing::warn!(
                    "the cluster has no master for slot {slot}, and perhaps for others: what lies there waits"
                );
            }
            refresh.told = gap.is_some();
        }
        *lock(&self.map) = map.clone();
        let slots: Vec<_> = lock(&self.slots)
            .iter()
            .map(|(slot, lives)| (*slot, lives.clone()))
            .collect();
        for (slot, lives) in slots {
            if let Some(owner) = map.owner(slot) {
                lives.leave_others(&owner.to_string(), "the slot has another master");
            }
        }
    }

    /// The map of the first node that is up to date; of those that are not, what the best of them says.
    async fn ask_for_the_map(&self) -> Result<Told> {
        let known = lock(&self.refresh).epoch;
        let mut nodes = self.map().nodes().to_vec();
        fastrand::shuffle(&mut nodes);
        let new = |seed: &&NodeAddress| !nodes.contains(seed);
        let seeds: Vec<NodeAddress> = self.seeds.iter().filter(new).cloned().collect();
        nodes.extend(seeds);
        let (mut best, mut failed) = (None::<Told>, None);
        for at in nodes.iter().take(ASKED.max(self.seeds.len())) {
            match self.ask_one_for_the_map(at).await {
                Ok(told) if told.is_ok && told.epoch >= known => return Ok(told),
                Ok(told) => {
                    let is_better =
                        |best: &Told| (told.is_ok, told.epoch) > (best.is_ok, best.epoch);
                    if best.as_ref().is_none_or(is_better) {
                        best = Some(told);
                    }
                }
                Err(error) => failed = Some(format!("{at}: {error}")),
            }
        }
        best.ok_or_else(|| {
            let why = failed.unwrap_or_else(|| "no node is known".to_owned());
            let message = format!("no node of the cluster says who its masters are: {why}");
            Error::new(ErrorKind::Unreachable, message)
        })
    }

    async fn ask_one_for_the_map(&self, at: &NodeAddress) -> Result<Told, String> {
        let node = self.node(at);
        let mut pipe = redis::Pipeline::with_capacity(2);
        pipe.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
        pipe.ignore_errors();
        let asking = async {
            let mut conn = self.asking(&node).await?;
            let answers: Vec<RedisResult<Value>> = pipe.query_async(&mut conn).await?;
            Ok::<_, RedisError>(answers)
        };
        let answers = match tokio::time::timeout(ANSWER.0, asking).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                node.forget();
                return Err(error.to_string());
            }
            Err(_) => {
                node.forget();
                return Err("it does not answer".to_owned());
            }
        };
        let mut answers = answers.into_iter();
        let info = answers.next().and_then(Result::ok).and_then(reply::text);
        let info = info.unwrap_or_default();
        let field = |name: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| {
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim()
                    .to_owned()
                    .into()
            })
        };
        let slots = answers.next().unwrap_or(Ok(Value::Nil));
        let slots = slots.map_err(|error| error.to_string())?;
        let by_name = matches!(self.access.address_of(at), ConnectionAddr::TcpTls { .. });
        let map = SlotMap::of(slots, at, by_name).ok_or("an answer that can't be understood")?;
        let epoch: Option<String> = field("cluster_current_epoch");
        let state: Option<String> = field("cluster_state");
        Ok(Told {
            map,
            epoch: epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
            // Who does not say is believed.
            is_ok: state.is_none_or(|state| state == "ok"),
        })
    }

    /// Asks commands, each of one key, of the node that an `ASK` names: it has the keys of a slot that is on its way to it.
    pub async fn ask(
        &self,
        redirected: &Answer,
        said_by: &NodeAddress,
        commands: &[&Cmd],
    ) -> RedisResult<Vec<Value>> {
        let node = self.named(redirected, said_by)?;
        let mut conn = self.asking(&node).await?;
        let pipe = asking_before_each(commands);
        let answers = conn
            .send_packed_commands(&pipe, 0, 2 * commands.len())
            .await;
        if answers.is_err() {
            node.forget();
        }
        answers.map(every_other)
    }

    /// The same, and how many replicas of that node have what they wrote.
    pub async fn ask_in_turn(
        &self,
        redirected: &Answer,
        said_by: &NodeAddress,
        commands: &[&Cmd],
        replicas: Replicas,
    ) -> RedisResult<(Vec<Value>, Value)> {
        let node = self.named(redirected, said_by)?;
        let known = lock(&node.asking_in_turn).clone();
        let (conn, turns) = match known {
            Some(known) => known,
            None => {
                let address = self.address(&node);
                let (conn, _) = dial::log_in(&self.access, &address, ANSWER.1).await?;
                let new = (conn, Arc::default());
                lock(&node.asking_in_turn).insert(new).clone()
            }
        };
        let answers = turns
            .ask(&conn, asking_before_each(commands), replicas)
            .await;
        if answers.is_err() {
            *lock(&node.asking_in_turn) = None;
        }
        answers.map(|(values, waited)| (every_other(values), waited))
    }

    fn named(&self, redirected: &Answer, said_by: &NodeAddress) -> RedisResult<Arc<Node>> {
        match self.map().redirection(&redirected.text, said_by) {
            Some((_, to)) => Ok(self.node(&to)),
            None => {
                let why = "a redirection that can't be understood";
                Err((redis::ErrorKind::Client, why).into())
            }
        }
    }

    async fn asking(&self, node: &Node) -> RedisResult<MultiplexedConnection> {
        let known = lock(&node.asking).clone();
        if let Some(conn) = known {
            return Ok(conn);
        }
        let address = self.address(node);
        let (conn, _) = dial::log_in(&self.access, &address, ANSWER.1).await?;
        *lock(&node.asking) = Some(conn.clone());
        Ok(conn)
    }

    /// Sees to it that the map is asked for now and then.
    fn tick(self: &Arc<Self>) {
        let mut ticking = lock(&self.ticking);
        if ticking.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let cluster = Arc::downgrade(self);
        *ticking = Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(cluster) = cluster.upgrade() else {
                    return;
                };
                if let Err(error) = cluster.refreshed().await {
                    tracing::debug!("{error}");
                }
            }
        }));
    }

    fn map(&self) -> Arc<SlotMap> {
        lock(&self.map).clone()
    }
}

fn asking_before_each(commands: &[&Cmd]) -> redis::Pipeline {
    let mut pipe = redis::Pipeline::with_capacity(2 * commands.len());
    for command in commands {
        pipe.cmd("ASKING").add_command((*command).clone());
    }
    pipe
}

/// The answers to the commands behind each ASKING.
fn every_other(values: Vec<Value>) -> Vec<Value> {
    values.into_iter().skip(1).step_by(2).collect()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.ticking).take() {
            task.abort();
        }
    }
}

impl Node {
    /// The place of the connection that is for this.
    pub fn shared(&self, name: &str, response_timeout: Duration) -> Arc<Place> {
        let mut shared = lock(&self.shared);
        let key = (name.to_owned(), response_timeout);
        shared.entry(key).or_default().clone()
    }

    /// It may be another server by now, or have another part: who connects to it is to ask it anew who it is.
    pub fn is_changed(&self) {
        lock(&self.shared).clear();
    }

    /// The connection for asking is of no more use.
    fn forget(&self) {
        *lock(&self.asking) = None;
    }
}
