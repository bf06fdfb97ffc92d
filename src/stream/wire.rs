//! A connection as all use it, whoever asks. The one place that hears every answer, and ends the life of all connections
//! where the server says that it is not the one to ask any more.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};

use super::error::{elsewhere, is_elsewhere};
use super::life::Life;

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
            let answer = self.conn.send_packed_command(cmd).await;
            self.heard(&answer);
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
            let answers = self.conn.send_packed_commands(cmd, offset, count).await;
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
