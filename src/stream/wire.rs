//! A connection as all use it, whoever asks. The one place that hears every answer, and ends the life of all connections
//! where the server says that it is not the one to ask any more.

use std::time::Instant;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Arg, Cmd, Pipeline, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value};

use super::error::{elsewhere, is_elsewhere, what_failed};
use super::life::Life;
use super::script;

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
}

impl Wire {
    pub fn new(conn: MultiplexedConnection, life: Life, was_replica: bool) -> Self {
        Wire {
            conn,
            life,
            was_replica,
        }
    }

    pub fn was_replica(&self) -> bool {
        self.was_replica
    }

    pub fn life(&self) -> &Life {
        &self.life
    }

    /// The client's connection, for what is none of this module's steps.
    pub fn into_inner(self) -> MultiplexedConnection {
        self.conn
    }

    /// A script has caught an error: it is as if the server had said it.
    pub fn caught(&self, error: &str) {
        if is_elsewhere(error) {
            self.life.end(error);
        }
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
        if let Some(answer) = elsewhere(error) {
            self.life.end(&answer.text);
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
        Box::pin(async move {
            let timed = self.timed(|| name(cmd));
            let answer = self.conn.send_packed_command(cmd).await;
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
        Box::pin(async move {
            let timed = self.timed(|| cmd.cmd_iter().last().map_or(OTHER, name));
            let answers = self.conn.send_packed_commands(cmd, offset, count).await;
            if let Some(timed) = timed {
                timed.all_are_over(&self.life, &answers);
            }
            match &answers {
                Err(error) => self.failed(error),
                Ok(values) => values.iter().for_each(|value| self.heard_in(value)),
            }
            answers
        })
    }

    fn get_db(&self) -> i64 {
        self.conn.get_db()
    }
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
