//! What a server says when a connection to it is made: who it is, and what it does not do. Services refuse commands that
//! servers know (CLIENT, INFO), and say less of themselves; what can be done without them is.

use std::sync::atomic::{AtomicI64, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

use super::error::Answer;
use super::life::ServerIdentity;
use super::reply;
use super::socket::Greeting;

/// What a server says of itself.
pub(super) struct Introduction {
    /// None if it does not say.
    pub version: Option<(u32, u32)>,
    pub greeting: Greeting,
    pub is_sentinel: bool,
    pub is_replica: bool,
}

/// Asks a server who it is, and tells it what the connection is called. `is_for_reading`: whether its reads are to be woken.
pub(super) async fn introduce(
    conn: &mut MultiplexedConnection,
    name: &str,
    is_for_reading: bool,
) -> RedisResult<Introduction> {
    let mut pipe = redis::Pipeline::with_capacity(3);
    pipe.ignore_errors();
    // One question for several sections: servers before 7.0 know no other way.
    pipe.cmd("INFO").cmd("CLIENT").arg("ID");
    pipe.cmd("CLIENT").arg("SETNAME").arg(name);
    let answers: Vec<RedisResult<Value>> = pipe.query_async(conn).await?;
    let mut answers = answers.into_iter();
    // Who may not ask for it may do all the rest: HELLO tells what has to be known.
    let info: Option<String> = match answers.next() {
        Some(Err(error)) if is_not_allowed(&error) => None,
        info => known(info)?,
    };
    let client: Option<i64> = known(answers.next())?;
    let _: Option<Value> = known(answers.next())?;
    let has_number = client.is_some();
    let mut told = Introduction::of(
        &info.unwrap_or_default(),
        client.unwrap_or_else(own_number),
        has_number,
    );
    if told.version.is_none()
        && let Ok(hello) = redis::cmd("HELLO").query_async::<Value>(conn).await
    {
        told.say(hello);
    }
    if is_for_reading && has_number && !told.is_replica {
        let mut unblock = redis::cmd("CLIENT");
        // No connection has this number.
        let probe: RedisResult<Value> = unblock.arg("UNBLOCK").arg(0).query_async(conn).await;
        told.greeting.can_unblock = match probe {
            Err(error) if Answer::of(&error).is_none() => return Err(error),
            probe => probe.is_ok(),
        };
    }
    Ok(told)
}

/// An answer; None if the server does not know the command. Any other refusal is an error: the user's rights are to be mended.
fn known<T: FromRedisValue>(answer: Option<RedisResult<Value>>) -> RedisResult<Option<T>> {
    match answer {
        Some(Ok(value)) => Ok(Some(T::from_redis_value(value)?)),
        Some(Err(error)) if is_unknown(&error) => Ok(None),
        Some(Err(error)) => Err(error),
        None => Ok(None),
    }
}

/// Whether a server does not do this, whoever asks.
fn is_unknown(error: &RedisError) -> bool {
    Answer::of(error).is_some_and(|answer| answer.code == "ERR")
}

fn is_not_allowed(error: &RedisError) -> bool {
    Answer::of(error).is_some_and(|answer| answer.code == "NOPERM")
}

/// A number for a connection whose server gives it none. Servers give none below zero.
fn own_number() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(-1);
    NEXT.fetch_sub(1, Ordering::Relaxed)
}

impl Introduction {
    /// What `INFO` tells.
    fn of(info: &str, client: i64, can_unblock: bool) -> Self {
        let field = |name: &str| {
            let value = info
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or("").trim().to_owned()
        };
        Introduction {
            version: version(&field("redis_version")),
            greeting: Greeting {
                server: ServerIdentity {
                    run: field("run_id"),
                    replication: (field("master_replid"), field("master_replid2")),
                },
                client,
                can_unblock,
                // Valkey has its own word for it.
                is_cluster: ["redis_mode", "server_mode"]
                    .iter()
                    .any(|mode| field(mode) == "cluster"),
            },
            is_sentinel: field("redis_mode") == "sentinel",
            // One that can be written to is as good as a primary.
            is_replica: field("role") == "slave" && field("slave_read_only") != "0",
        }
    }

    /// What HELLO tells, in place of INFO.
    fn say(&mut self, hello: Value) {
        let mut items = reply::array(hello).unwrap_or_default().into_iter();
        while let (Some(name), Some(value)) = (items.next(), items.next()) {
            let value = reply::text(value).unwrap_or_default();
            match reply::text(name).as_deref() {
                Some("version") => self.version = version(&value),
                Some("role") => self.is_replica = matches!(&value[..], "replica" | "slave"),
                Some("mode") => {
                    self.greeting.is_cluster = value == "cluster";
                    self.is_sentinel = value == "sentinel";
                }
                _ => {}
            }
        }
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    Some((parts.next()?, parts.next().unwrap_or(0))).filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_and_the_run_are_read_from_info() {
        let info = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nrun_id:abc\r\n";
        let replication =
            "role:slave\r\nslave_read_only:1\r\nmaster_replid:x\r\nmaster_replid2:y\r\n";
        let told = Introduction::of(&(info.to_owned() + replication), 7, true);
        let server = &told.greeting.server;
        assert_eq!((told.version, &server.run[..]), (Some((7, 2)), "abc"));
        assert_eq!(server.replication, ("x".to_owned(), "y".to_owned()));
        assert!(told.is_replica && !told.greeting.is_cluster);
        assert!(!Introduction::of("role:slave\r\nslave_read_only:0\r\n", 1, true).is_replica);
        for mode in ["server_mode:cluster\r\n", "redis_mode:cluster\r\n"] {
            assert!(Introduction::of(mode, 1, true).greeting.is_cluster);
        }
        let silent = Introduction::of("", 1, true);
        assert!(silent.version.is_none() && !silent.greeting.server.is_known());
    }
}
