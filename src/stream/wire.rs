//! A connection as all use it, whoever asks. The one place that hears every answer, and ends the life of all connections
//! where the server says that it is not the one to ask any more.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Arg, Cmd, Pipeline, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value};

use super::error::{Answer, what_failed};
use super::life::Life;
use super::replicated::{Replicas, Turns, lesser};
use super::script;
#[cfg(feature = "testing")]
use super::test_time;
use super::topology::{Cluster, Node, Slot};

/// The name of requests that are not ours.
const OTHER: &str = "other";
/// The names of ours that are no scripts.
const COMMANDS: &[(&str, &str)] = &[
    ("CLIENT", "client"),
    ("CONFIG", "config"),
    ("EXISTS", "exists"),
    ("GET", "get"),
    ("HELLO", "hello"),
    ("HGET", "hget"),
    ("HGETALL", "hgetall"),
    ("HMGET", "hmget"),
    ("INFO", "info"),
    ("SCRIPT", "script"),
    ("SET", "set"),
    ("TIME", "time"),
    ("XACK", "xack"),
    ("XADD", "xadd"),
    ("XGROUP", "xgroup"),
    ("XINFO", "xinfo"),
    ("XPENDING", "xpending"),
    ("XRANGE", "xrange"),
    ("XREAD", "xread"),
    ("XREVRANGE", "xrevrange"),
    ("ZRANGE", "zrange"),
];

/// A connection that belongs to a life.
#[derive(Clone)]
pub(super) struct Wire {
    conn: MultiplexedConnection,
    life: Life,
    /// Its server was a replica when it was made.
    was_replica: bool,
    /// Where it is in a cluster.
    place: Option<Place>,
}

/// The node of a cluster that a connection leads to. It is not there for this wire alone.
#[derive(Clone)]
struct Place {
    cluster: Arc<Cluster>,
    node: Arc<Node>,
    /// The connection is of no more use to anybody.
    broken: Arc<AtomicBool>,
    /// Others ask over the same connection.
    is_of_several: bool,
}

impl Wire {
    pub fn new(conn: MultiplexedConnection, life: Life, was_replica: bool) -> Self {
        Wire {
            conn,
            life,
            was_replica,
            place: None,
        }
    }

    /// The same, over a connection to a node of a cluster that does not end with the life of this one.
    pub fn in_a_cluster(
        self,
        cluster: Arc<Cluster>,
        node: Arc<Node>,
        broken: Arc<AtomicBool>,
    ) -> Self {
        let place = Place {
            cluster,
            node,
            broken,
            is_of_several: false,
        };
        Wire {
            place: Some(place),
            ..self
        }
    }

    /// The same, if others ask over the connection as well: nothing that blocks goes over it.
    pub fn of_several(mut self) -> Self {
        if let Some(place) = &mut self.place {
            place.is_of_several = true;
        }
        self
    }

    /// The same connection, as part of another life.
    pub fn under(&self, life: Life) -> Wire {
        Wire {
            life,
            ..self.clone()
        }
    }

    pub fn was_replica(&self) -> bool {
        self.was_replica
    }

    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Whether nobody could take over from the server that this leads to, as far as what goes by a slot is concerned. Where it is no
    /// cluster that is not known, and it is taken for so.
    pub async fn leads_to_one_alone(&self, slot: Slot) -> bool {
        match &self.place {
            Some(place) => place.cluster.is_alone(slot, &place.node.at).await,
            None => true,
        }
    }

    /// What is known of where slots are, and who could take over, may not be so any more.
    pub fn has_doubts(&self) {
        if let Some(place) = &self.place {
            place.cluster.refresh_soon();
        }
    }

    /// The client's connection, for what is none of this module's steps.
    pub fn into_inner(self) -> MultiplexedConnection {
        self.conn
    }

    /// A script has caught an error: it is as if the server had said it.
    pub fn caught(&self, error: &str) {
        if let Some(answer) = Answer::in_words(error) {
            self.said(&answer);
        }
    }

    /// What blocks would hold up whoever else asks over the connection.
    fn holds_up_nobody(&self, command: &Cmd) -> bool {
        let is_of_several = self.place.as_ref().is_some_and(|place| place.is_of_several);
        !is_of_several || !waits(command)
    }

    /// Takes the time of a request, where somebody counts those.
    fn timed(&self, name: impl FnOnce() -> &'static str) -> Option<Timed> {
        self.life.metrics()?;
        Some(Timed {
            name: name(),
            since: Instant::now(),
        })
    }

    #[cold]
    fn failed(&self, error: &redis::RedisError) {
        match (Answer::of(error), &self.place) {
            (Some(answer), _) => self.said(&answer),
            (None, Some(place)) => place.broken.store(true, Ordering::Release),
            (None, None) => {}
        }
    }

    /// The server said this instead of what was asked for.
    #[cold]
    fn said(&self, answer: &Answer) {
        if answer.is_half_done() {
            tracing::error!(
                "a script was broken off because a slot of the cluster moved meanwhile, and what it had written until then \
                 stays; it is repeated: {}",
                answer.text
            );
        }
        match &self.place {
            Some(place) if answer.is_about_the_place() => {
                place.cluster.heard(&self.life, &place.node.at, answer);
            }
            None if answer.is_elsewhere() => self.life.end(&answer.text),
            _ => {}
        }
    }

    /// Nothing is to be asked here any more: as if the server had said so, and nothing was done.
    fn left(&self) -> Option<RedisError> {
        self.place.as_ref().filter(|_| self.life.is_over())?;
        let server =
            redis::parse_redis_value(b"-MOVED elsewhere since this connection was made\r\n");
        server.and_then(Value::extract_error).err()
    }

    fn all_heard(&self, timed: Option<Timed>, answers: &RedisResult<Vec<Value>>) {
        if let Some(timed) = timed {
            timed.all_are_over(&self.life, answers);
        }
        match answers {
            Err(error) => self.failed(error),
            Ok(values) => values.iter().for_each(|value| self.heard_in(value)),
        }
    }

    async fn asked_in_a_cluster(&self, cmd: &Cmd) -> RedisResult<Value> {
        if let Some(left) = self.left() {
            return Err(left);
        }
        debug_assert!(self.holds_up_nobody(cmd), "{}", name(cmd));
        let timed = self.timed(|| name(cmd));
        let asking =
            |mut conn: MultiplexedConnection| async move { conn.send_packed_command(cmd).await };
        let mut answer = self.attended(blocks(cmd), asking).await;
        if let Some(error) = asked_elsewhere_by(&answer)
            && let Some(Ok(mut there)) = self.ask_there(&[cmd], &error).await
            && let Some(there) = there.pop()
        {
            answer = Ok(there);
        }
        self.heard(&answer);
        if let Some(timed) = timed {
            timed.ended(&self.life, &answer);
        }
        answer
    }

    async fn all_asked_in_a_cluster(
        &self,
        cmd: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        if let Some(left) = self.left() {
            return Err(left);
        }
        let timed = self.timed(|| cmd.cmd_iter().last().map_or(OTHER, name));
        let asking = |mut conn: MultiplexedConnection| async move {
            conn.send_packed_commands(cmd, offset, count).await
        };
        let may_take_long = cmd.cmd_iter().any(blocks);
        let mut answers = self.attended(may_take_long, asking).await;
        if let Ok(values) = &mut answers {
            self.ask_there_for_some(cmd, offset, values).await;
        }
        self.all_heard(timed, &answers);
        answers
    }

    /// What comes of asking. In a cluster others use the connection as well, so that it does not end with this life.
    async fn attended<T, F: Future<Output = RedisResult<T>>>(
        &self,
        may_take_long: bool,
        ask: impl FnOnce(MultiplexedConnection) -> F,
    ) -> RedisResult<T> {
        let asking = ask(self.conn.clone());
        let Some(place) = &self.place else {
            return asking.await;
        };
        let answer = place
            .cluster
            .attend(&self.life, may_take_long, asking)
            .await;
        // Whether it was done nobody knows.
        answer.unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::NotConnected).into()))
    }

    /// The answers to commands that go over the connection in turns, and the one that tells how many replicas have what
    /// they wrote, wherever they were asked.
    pub async fn ask_in_turn(
        &self,
        turns: &Arc<Turns>,
        pipe: &Pipeline,
        replicas: Replicas,
    ) -> RedisResult<(Vec<Value>, Value)> {
        if let Some(left) = self.left() {
            return Err(left);
        }
        let timed = self.timed(|| pipe.cmd_iter().last().map_or(OTHER, name));
        let asking = |conn: MultiplexedConnection| async move {
            turns.ask(&conn, pipe.clone(), replicas).await
        };
        let answers = self.attended(false, asking).await;
        let (mut values, mut waited) = match answers {
            Ok(answers) => answers,
            Err(error) => {
                self.all_heard(timed, &Err(error.clone()));
                return Err(error);
            }
        };
        let commands: Vec<&Cmd> = pipe.cmd_iter().collect();
        for at in 0..values.len() {
            let (Some((places, error)), Some(place)) = (asked_alike(&values, at), &self.place)
            else {
                continue;
            };
            let commands: Vec<&Cmd> = places.iter().map(|at| commands[*at]).collect();
            let Some(answer) = to_ask_there(&commands, &error) else {
                continue;
            };
            let (cluster, node) = (&place.cluster, &place.node.at);
            let asked = cluster.ask_in_turn(&answer, node, &commands, replicas);
            if let Ok((answers, there)) = asked.await {
                waited = lesser(waited, there);
                for (at, answer) in places.into_iter().zip(answers) {
                    values[at] = answer;
                }
            }
        }
        self.heard_in(&waited);
        let answers = Ok(values);
        self.all_heard(timed, &answers);
        answers.map(|values| (values, waited))
    }

    /// Asks once more what a node has for an answer of this kind to: the slot is on its way to another one, and this key is
    /// there already, or will be once it is written.
    #[cold]
    async fn ask_there(
        &self,
        commands: &[&Cmd],
        error: &RedisError,
    ) -> Option<RedisResult<Vec<Value>>> {
        let (place, answer) = (self.place.as_ref()?, to_ask_there(commands, error)?);
        Some(place.cluster.ask(&answer, &place.node.at, commands).await)
    }

    /// The same for those commands of a pipeline that got this answer.
    async fn ask_there_for_some(&self, cmd: &Pipeline, offset: usize, values: &mut [Value]) {
        if self.place.is_none() || cmd.is_transaction() {
            return;
        }
        for at in 0..values.len() {
            let Some((same, error)) = asked_alike(values, at) else {
                continue;
            };
            let commands: Vec<&Cmd> = cmd.cmd_iter().skip(offset).collect();
            let commands: Vec<&Cmd> = same
                .iter()
                .filter_map(|at| commands.get(*at).copied())
                .collect();
            if let Some(Ok(answers)) = self.ask_there(&commands, &error).await {
                for (at, answer) in same.into_iter().zip(answers) {
                    values[at] = answer;
                }
            }
        }
    }

    fn heard(&self, answer: &RedisResult<Value>) {
        match answer {
            Err(error) => self.failed(error),
            Ok(value) => self.heard_in(value),
        }
    }

    fn heard_in(&self, value: &Value) {
        if let Value::ServerError(error) = value {
            self.failed(&error.clone().into());
        }
    }
}

impl ConnectionLike for Wire {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        // What is to be done in a cluster makes the future larger, and no other one's.
        if self.place.is_some() {
            return Box::pin(self.asked_in_a_cluster(cmd));
        }
        Box::pin(async move {
            let timed = self.timed(|| name(cmd));
            let asked = self.conn.send_packed_command(cmd);
            #[cfg(feature = "testing")]
            let asked = test_time::awaited(asked);
            let answer = asked.await;
            self.heard(&answer);
            if let Some(timed) = timed {
                timed.ended(&self.life, &answer);
            }
            answer
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        if self.place.is_some() {
            return Box::pin(self.all_asked_in_a_cluster(cmd, offset, count));
        }
        Box::pin(async move {
            let timed = self.timed(|| cmd.cmd_iter().last().map_or(OTHER, name));
            let asked = self.conn.send_packed_commands(cmd, offset, count);
            #[cfg(feature = "testing")]
            let asked = test_time::awaited(asked);
            let answers = asked.await;
            self.all_heard(timed, &answers);
            answers
        })
    }

    fn get_db(&self) -> i64 {
        self.conn.get_db()
    }
}

/// Whether a command may wait for something to come.
fn blocks(command: &Cmd) -> bool {
    let first = command.args_iter().next();
    matches!(first, Some(Arg::Simple(name)) if name.starts_with(b"XREAD"))
}

/// Whether a command makes those behind it on its connection wait.
fn waits(command: &Cmd) -> bool {
    let mut args = command.args_iter();
    let is_wait = matches!(args.next(), Some(Arg::Simple(b"WAIT" | b"WAITAOF")));
    is_wait || blocks(command) && args.any(|arg| matches!(arg, Arg::Simple(b"BLOCK")))
}

/// The error of a node that wants a command to be asked elsewhere.
fn asked_elsewhere(value: &Value) -> Option<RedisError> {
    match value {
        Value::ServerError(error) => Some(RedisError::from(error.clone())).filter(is_ask),
        _ => None,
    }
}

/// The places of all that were sent to the same place as this one, if it was: they go there in one request, in their order.
fn asked_alike(values: &[Value], at: usize) -> Option<(Vec<usize>, RedisError)> {
    let error = asked_elsewhere(&values[at])?;
    let is_same = |at: &usize| asked_elsewhere(&values[*at]).is_some_and(|other| other == error);
    Some(((at..values.len()).filter(is_same).collect(), error))
}

/// Where these are to be asked, if they can be. A script has several keys, and is refused at both ends until all of them are at
/// one.
fn to_ask_there(commands: &[&Cmd], error: &RedisError) -> Option<Answer> {
    let is_script = |command: &&Cmd| {
        let first = command.args_iter().next();
        matches!(first, Some(Arg::Simple(name)) if name.starts_with(b"EVAL"))
    };
    let answer = Answer::of(error)?;
    (answer.code == "ASK" && !commands.iter().any(is_script)).then_some(answer)
}

fn asked_elsewhere_by(answer: &RedisResult<Value>) -> Option<RedisError> {
    match answer {
        Ok(value) => asked_elsewhere(value),
        Err(error) => Some(error.clone()).filter(is_ask),
    }
}

fn is_ask(error: &RedisError) -> bool {
    error.kind() == ServerErrorKind::Ask.into()
}

/// A request under way.
struct Timed {
    name: &'static str,
    since: Instant,
}

impl Timed {
    fn ended(self, life: &Life, answer: &RedisResult<Value>) {
        match answer {
            Err(error) => self.failed(life, error),
            Ok(Value::ServerError(error)) => self.failed(life, &error.clone().into()),
            Ok(_) => {}
        }
        self.took(life);
    }

    /// Of a pipeline that counts as one request.
    fn all_are_over(self, life: &Life, answers: &RedisResult<Vec<Value>>) {
        match answers {
            Err(error) => self.failed(life, error),
            Ok(answers) => {
                for answer in answers {
                    if let Value::ServerError(error) = answer {
                        self.failed(life, &error.clone().into());
                    }
                }
            }
        }
        self.took(life);
    }

    #[cold]
    fn failed(&self, life: &Life, error: &RedisError) {
        // A script that the server has not seen yet is sent to it.
        if error.kind() == ServerErrorKind::NoScript.into() {
            return;
        }
        if let Some(metrics) = life.metrics() {
            metrics.requests().failed(self.name, what_failed(error));
        }
    }

    fn took(self, life: &Life) {
        // One that blocks says how long nothing came, which is no fault of the server's.
        if let Some(metrics) = life.metrics().filter(|_| self.name != "xread") {
            metrics.requests().took(self.name, self.since.elapsed());
        }
    }
}

/// The name of a request: its script's, or its command's.
fn name(command: &Cmd) -> &'static str {
    let mut args = command.args_iter();
    let (Some(Arg::Simple(first)), second) = (args.next(), args.next()) else {
        return OTHER;
    };
    if let (b"EVALSHA" | b"EVALSHA_RO", Some(Arg::Simple(hash))) = (first, second) {
        return script::named(hash).unwrap_or(OTHER);
    }
    let mut known = COMMANDS.iter();
    let known = known.find(|(name, _)| name.as_bytes() == first);
    known.map_or(OTHER, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_called_by_their_scripts_or_their_commands() {
        script::script!(PARK, "park", behind "common/rights");
        let park = redis::cmd("EVALSHA").arg(PARK.get_hash()).to_owned();
        assert_eq!(name(&park), "park");
        assert_eq!(name(&redis::cmd("XACK").arg("orders").to_owned()), "xack");
        let of_a_handler = redis::cmd("FT.SEARCH").arg("index").to_owned();
        assert_eq!((name(&of_a_handler), name(&Cmd::new())), (OTHER, OTHER));
        assert!(
            COMMANDS
                .iter()
                .all(|(name, called)| name.to_lowercase() == *called)
        );
    }
}
