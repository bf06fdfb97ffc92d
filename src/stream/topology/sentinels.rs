//! Sentinels: who knows where the primary is.
//!
//! Each is kept a connection to, over which it tells of a switch the moment it knows of it; then all connections to what was
//! the primary end at once: it takes writes for seconds more, and nobody will ever see them. Where the primary is, all
//! are asked, and the one counts that knows of the latest failover (its epoch is the highest). One that was away
//! meanwhile may still name the server before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::NodeAddress;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::access::Access;
use crate::stream::dial::{self, CONNECT_TIMEOUT};
use crate::stream::error::{Answer, Who, hint};
use crate::stream::life::{Life, Lives};
use crate::stream::{reply, tls};
use crate::sync::lock;

/// How long a sentinel's answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the others are waited for once one has answered.
const GRACE: Duration = Duration::from_millis(250);
/// How often a sentinel is asked whether it is still there, and what it knows by now.
const EVERY: Duration = Duration::from_secs(3);
/// The first and the longest pause until a sentinel that can't be had is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// For how long an answer is passed over that is older than one that was had. Sentinels that are set up anew count from 0.
const MEMORY: Duration = Duration::from_secs(600);

const LOGIN: &str =
    " (check redis.sentinel.username, and redis.sentinel.password or password_file)";
const CHANNEL: &str = "+switch-master";

/// The sentinels of one primary.
pub(in crate::stream) struct Sentinels {
    known: Arc<Known>,
    /// What speaks to them, one each.
    watching: Mutex<Vec<JoinHandle<()>>>,
}

struct Known {
    master: String,
    nodes: Vec<NodeAddress>,
    access: Access,
    /// All connections to the primary.
    lives: Weak<Lives>,
    state: Mutex<State>,
    /// Something has become known.
    news: watch::Sender<()>,
}

struct State {
    sentinels: Vec<Sentinel>,
    /// The latest answer of all.
    latest: Option<(Said, Instant)>,
}

#[derive(Clone, Default)]
struct Sentinel {
    conn: Option<MultiplexedConnection>,
    /// Why there is no connection, if one was tried.
    trouble: Option<String>,
}

/// What a sentinel says of where the primary is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    /// Counts the failovers it knows of.
    epoch: u64,
    primary: NodeAddress,
}

impl Sentinels {
    /// Those who know the primary as `master`. What they tell ends the present one of `lives`.
    pub fn new(
        master: String,
        nodes: Vec<NodeAddress>,
        access: Access,
        lives: &Arc<Lives>,
    ) -> Self {
        let state = State {
            sentinels: vec![Sentinel::default(); nodes.len()],
            latest: None,
        };
        let known = Known {
            master,
            nodes,
            access,
            lives: Arc::downgrade(lives),
            state: Mutex::new(state),
            news: watch::Sender::new(()),
        };
        Sentinels {
            known: Arc::new(known),
            watching: Mutex::default(),
        }
    }

    /// Where the primary is by what the sentinels know now, and the life of connections to it.
    ///
    /// # Errors
    /// If none can be reached, none knows it, or they do not agree.
    pub async fn primary(&self) -> Result<(NodeAddress, Life)> {
        self.watch();
        let conns = self.known.connected().await?;
        let answers = self.known.ask(conns).await;
        self.known.settle(self.known.decide(answers)?)
    }

    /// What they named is no primary: what was heard before is of no more use.
    pub fn were_wrong(&self) {
        self.known.state().latest = None;
    }

    /// Sees to it that each sentinel is listened to. Cheap if each is.
    pub fn watch(&self) {
        let mut watching = lock(&self.watching);
        if watching.is_empty() {
            *watching = (0..self.known.nodes.len())
                .map(|at| tokio::spawn(watch(Arc::downgrade(&self.known), at)))
                .collect();
        }
        // A runtime that has ended has taken its tasks along.
        for (at, task) in watching.iter_mut().enumerate() {
            if task.is_finished() {
                lock(&self.known.state).sentinels[at] = Sentinel::default();
                *task = tokio::spawn(watch(Arc::downgrade(&self.known), at));
            }
        }
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        lock(&self.watching).iter().for_each(JoinHandle::abort);
    }
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The connections there are, once there is one and the others have had some time.
    async fn connected(&self) -> Result<Vec<(usize, MultiplexedConnection)>> {
        let mut news = self.news.subscribe();
        let end = tokio::time::Instant::now() + CONNECT_TIMEOUT;
        let mut others = None;
        loop {
            let sentinels = self.state().sentinels.clone();
            let is_waited_for =
                |sentinel: &Sentinel| sentinel.conn.is_none() && sentinel.trouble.is_none();
            let is_complete = !sentinels.iter().any(is_waited_for);
            let found: Vec<_> = sentinels
                .into_iter()
                .map(|sentinel| sentinel.conn)
                .enumerate()
                .filter_map(|(at, conn)| Some((at, conn?)))
                .collect();
            let now = tokio::time::Instant::now();
            if !found.is_empty() {
                let until = *others.get_or_insert(now + GRACE);
                if is_complete || now >= until {
                    return Ok(found);
                }
            } else if is_complete || now >= end {
                return Err(self.unreachable());
            }
            let until = others.unwrap_or(end);
            let _ = tokio::time::timeout_at(until, news.changed()).await;
        }
    }

    /// What those say who say something in time, by their places.
    async fn ask(
        &self,
        conns: Vec<(usize, MultiplexedConnection)>,
    ) -> Vec<(usize, Result<Option<Said>>)> {
        let mut asked: FuturesUnordered<_> = conns
            .into_iter()
            .map(|(at, conn)| async move { (at, self.ask_one(at, conn).await) })
            .collect();
        let mut answers = Vec::new();
        let mut end = tokio::time::Instant::now() + ANSWER;
        while let Ok(Some(answer)) = tokio::time::timeout_at(end, asked.next()).await {
            if answer.1.is_ok() {
                end = end.min(tokio::time::Instant::now() + GRACE);
            }
            answers.push(answer);
        }
        answers
    }

    /// What one says: None if it knows no such primary.
    async fn ask_one(&self, at: usize, mut conn: MultiplexedConnection) -> Result<Option<Said>> {
        let mut pipe = redis::Pipeline::with_capacity(2);
        pipe.cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&self.master);
        // Its own address of the primary is older than that while it leads a failover.
        pipe.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        pipe.ignore_errors();
        let answers: RedisResult<Vec<RedisResult<Value>>> = pipe.query_async(&mut conn).await;
        let answers = answers.and_then(|answers| {
            let mut answers = answers.into_iter();
            let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
            Ok((next()?, next()))
        });
        match answers {
            Ok((address, fields)) => Ok(said(address, fields)),
            Err(error) => Err(self.explain(at, &error)),
        }
    }

    /// The primary by these answers.
    fn decide(&self, answers: Vec<(usize, Result<Option<Said>>)>) -> Result<Said> {
        let (mut said, mut strangers, mut failed) = (Vec::new(), 0, None);
        for (at, answer) in answers {
            match answer {
                Ok(Some(answer)) => said.push((at, answer)),
                Ok(None) => strangers += 1,
                Err(error) => failed = Some(error),
            }
        }
        let latest = self.state().latest.clone();
        let latest = latest.filter(|(_, at)| at.elapsed() < MEMORY);
        if let Some((latest, _)) = latest {
            said.retain(|(_, said)| said.epoch >= latest.epoch);
            if said.is_empty() {
                said.push((usize::MAX, latest));
            }
        }
        let Some(epoch) = said.iter().map(|(_, said)| said.epoch).max() else {
            return Err(match failed {
                Some(error) if strangers == 0 => error,
                _ if strangers > 0 => self.unknown(),
                _ => self.unreachable(),
            });
        };
        said.retain(|(_, said)| said.epoch == epoch);
        let mut votes = HashMap::<&NodeAddress, usize>::new();
        for (_, said) in &said {
            *votes.entry(&said.primary).or_default() += 1;
        }
        let most = votes.values().copied().max().unwrap_or_default();
        let mut first = votes.iter().filter(|(_, votes)| **votes == most);
        let (Some((primary, _)), None) = (first.next(), first.next()) else {
            return Err(self.disagree(&said));
        };
        let primary = (*primary).clone();
        if votes.len() > 1 {
            let said = self.who_says_what(&said);
            tracing::warn!(
                "the sentinels disagree on where {:?} is; {primary} is taken, which most say: {said}",
                self.master
            );
        }
        Ok(Said { epoch, primary })
    }

    /// Connections are made to this primary, unless a later failover was heard of since it was asked for: what takes long to
    /// be answered may be over by then. A primary that is none any more takes writes for ten seconds.
    fn settle(&self, said: Said) -> Result<(NodeAddress, Life)> {
        let gone = || Error::new(ErrorKind::Internal, "nobody asks any more");
        let lives = self.lives.upgrade().ok_or_else(gone)?;
        let mut state = self.state();
        let said = state.latest_of(said);
        let place = said.primary.to_string();
        let life = lives.settle(&place, "the sentinels name another primary");
        Ok((said.primary, life))
    }

    /// What a sentinel has said counts from now on, unless it is older than what is known: connections to another server end.
    fn heard(&self, said: &Said) {
        let mut state = self.state();
        let latest = state.latest_of(said.clone());
        if latest == *said {
            self.leave_others(&said.primary, "a sentinel names another primary");
        }
    }

    /// The primary is there: all connections to another one end.
    fn leave_others(&self, primary: &NodeAddress, why: &str) {
        if let Some(lives) = self.lives.upgrade() {
            lives.leave_others(&primary.to_string(), why);
        }
    }

    fn explain(&self, at: usize, error: &RedisError) -> Error {
        let node = &self.nodes[at];
        let is_login = error.kind() == redis::ErrorKind::AuthenticationFailed;
        let why = match Answer::of(error) {
            Some(answer) if is_login || answer.is_about_the_login() => {
                format!("{}{LOGIN}", answer.text)
            }
            Some(answer) => format!("{}{}", answer.text, hint(&answer.code, Who::Operator)),
            None if is_login => format!("it does not accept the user or the password{LOGIN}"),
            None => tls::explain(error, self.access.current().tls.is_some())
                .replace("redis.tls_", "redis.sentinel.tls_")
                .replace(
                    "redis.url must begin with rediss://",
                    "redis.sentinel.tls must be true",
                )
                .replace(
                    "redis.url must begin with redis://",
                    "redis.sentinel.tls must be false",
                )
                .replace("redis.url", "redis.sentinel.nodes"),
        };
        let message = format!("the sentinel at {node}: {why}");
        Error::new(ErrorKind::Unreachable, message)
    }

    fn unreachable(&self) -> Error {
        let troubles: Vec<String> = self
            .state()
            .sentinels
            .iter()
            .filter_map(|sentinel| sentinel.trouble.clone())
            .collect();
        let troubles = match &troubles[..] {
            [] => "none has answered in time".to_owned(),
            some => some.join("; "),
        };
        let message = format!(
            "no sentinel of redis.sentinel.nodes says where {:?} is: {troubles}",
            self.master
        );
        Error::new(ErrorKind::Unreachable, message)
    }

    fn unknown(&self) -> Error {
        let message = format!(
            "no sentinel knows a primary called {:?}: redis.sentinel.master must be the name behind `sentinel monitor` in \
             their configuration",
            self.master
        );
        Error::new(ErrorKind::Unreachable, message)
    }

    fn disagree(&self, said: &[(usize, Said)]) -> Error {
        let message = format!(
            "the sentinels of redis.sentinel.nodes disagree on where {:?} is, and none knows of a later failover than the \
             others: are they all of one deployment? ({})",
            self.master,
            self.who_says_what(said)
        );
        Error::new(ErrorKind::Unreachable, message)
    }

    fn who_says_what(&self, said: &[(usize, Said)]) -> String {
        let said = said.iter().filter_map(|(at, said)| {
            let node = self.nodes.get(*at)?;
            Some(format!("{node} says {}", said.primary))
        });
        said.collect::<Vec<_>>().join(", ")
    }
}

impl State {
    /// What counts from now on: this, unless it is older than what is known.
    fn latest_of(&mut self, said: Said) -> Said {
        match &self.latest {
            Some((latest, at)) if said.epoch < latest.epoch && at.elapsed() < MEMORY => {
                latest.clone()
            }
            _ => {
                self.latest = Some((said.clone(), Instant::now()));
                said
            }
        }
    }
}

/// What a sentinel answers to where the primary is, and to how that is.
fn said(address: Value, fields: RedisResult<Value>) -> Option<Said> {
    let mut address = reply::array(address)?.into_iter();
    let host = reply::text(address.next()?)?;
    let port = reply::text(address.next()?)?.parse().ok()?;
    let fields = reply::pairs(fields.ok()?)?;
    let epoch = fields.iter().find(|(name, _)| name == "config-epoch");
    let epoch = epoch.and_then(|(_, epoch)| epoch.parse().ok());
    Some(Said {
        // Services that play sentinel may not count.
        epoch: epoch.unwrap_or(0),
        primary: NodeAddress { host, port },
    })
}

/// Keeps a connection to one sentinel for as long as somebody asks.
async fn watch(known: Weak<Known>, at: usize) {
    let mut pause = PAUSES.0;
    loop {
        let Some(here) = known.upgrade() else { return };
        let since = Instant::now();
        let ended = listen(here, &known, at).await;
        let Some(here) = known.upgrade() else { return };
        here.state().sentinels[at] = Sentinel {
            conn: None,
            trouble: Some(ended.to_string()),
        };
        here.news.send_replace(());
        drop(here);
        if since.elapsed() > EVERY {
            pause = PAUSES.0;
        }
        tracing::debug!("listening to a sentinel has ended: {ended}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Listens to one sentinel until that breaks. Returns why.
async fn listen(known: Arc<Known>, weak: &Weak<Known>, at: usize) -> Error {
    let (pushes, mut pushed) = mpsc::unbounded_channel::<PushInfo>();
    let config = dial::config(ANSWER).set_push_sender(pushes);
    let address = known.access.address_of(&known.nodes[at]);
    // What it tells by itself comes between answers only in RESP3.
    let login = dial::log_in_as(&known.access, &address, config, |login| {
        login.says().clone().set_protocol(ProtocolVersion::RESP3)
    });
    let mut conn = match login.await {
        Ok((conn, _)) => conn,
        Err(error) => return known.explain(at, &error),
    };
    if let Err(error) = conn.subscribe(CHANNEL).await {
        return known.explain(at, &error);
    }
    known.state().sentinels[at] = Sentinel {
        conn: Some(conn.clone()),
        trouble: None,
    };
    known.news.send_replace(());
    drop(known);
    loop {
        // What was said while nobody listened, and whether it is still there.
        let Some(here) = weak.upgrade() else {
            return Error::new(ErrorKind::Internal, "nobody asks any more");
        };
        match here.ask_one(at, conn.clone()).await {
            Ok(Some(said)) => here.heard(&said),
            Ok(None) => {}
            Err(error) => return error,
        }
        let master = here.master.clone();
        drop(here);
        let next = tokio::time::sleep(EVERY);
        tokio::pin!(next);
        loop {
            let push = tokio::select! {
                push = pushed.recv() => push,
                () = &mut next => break,
            };
            let push = match push {
                Some(push) if push.kind != PushKind::Disconnection => push,
                _ => {
                    return Error::new(
                        ErrorKind::Unreachable,
                        "the sentinel has closed the connection",
                    );
                }
            };
            let Some(here) = weak.upgrade() else { break };
            if let Some(primary) = switched(push, &master) {
                here.leave_others(&primary, "a sentinel has made another server the primary");
                break;
            }
        }
    }
}

/// The primary there is now, by what a sentinel tells: `name old-host old-port new-host new-port`.
fn switched(push: PushInfo, master: &str) -> Option<NodeAddress> {
    let message = reply::text(push.data.into_iter().nth(1)?)?;
    let mut words = message.split(' ');
    if push.kind != PushKind::Message || words.next()? != master {
        return None;
    }
    let mut words = words.skip(2);
    let (host, port) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    Some(NodeAddress { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RedisSettings;

    #[test]
    fn an_answer_that_took_long_leads_to_no_server_that_was_left_meanwhile() {
        let lives = Arc::new(Lives::counting("orders-db", Arc::default()));
        let settings = RedisSettings::default();
        let access = Access::new(&settings, "redis.sentinel").expect("settings");
        let sentinels = Sentinels::new("orders-db".to_owned(), Vec::new(), access, &lives);
        let at = |port| NodeAddress {
            host: "redis".to_owned(),
            port,
        };
        let said = |epoch, port| Said {
            epoch,
            primary: at(port),
        };
        let known = &sentinels.known;
        let (primary, first) = known.settle(said(1, 1)).unwrap();
        assert_eq!(primary, at(1));
        // It is asked for by somebody, who is told the old one late.
        known.heard(&said(2, 2));
        assert!(first.is_over());
        let (primary, second) = known.settle(said(1, 1)).unwrap();
        assert_eq!(primary, at(2));
        assert!(second.is_at("redis:2") && !second.is_over());
        // Who says something old ends nothing.
        known.heard(&said(1, 1));
        assert!(!second.is_over());
        let (primary, third) = known.settle(said(3, 1)).unwrap();
        assert!(primary == at(1) && second.is_over() && !third.is_over());
    }
}
