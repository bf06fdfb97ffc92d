//! One connection for all who share it, replaced when it breaks. A pool asks a connection whether it is still there
//! before every use, which would cost each step a second round trip; this one is asked where it has been idle.
//!
//! In a cluster there is one for each hash slot that is used.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as PlainMutex};
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue, RedisError, RedisResult, Value};
use tokio::sync::Mutex;

use super::call::Call;
use super::error::{Trouble, Who, elsewhere, was_cut};
use super::pool::{Pool, is_there};
use super::replicated::Replicas;
use super::script::ScriptInvocation;
use super::topology::Slot;
use super::wire::Wire;
use crate::error::{Error, Result};
use crate::sync::lock;

/// After so long without use a connection may have been closed unnoticed.
const IDLE: Duration = Duration::from_millis(500);

/// What it may mean that the connection is cut whenever a single entry is asked for.
pub(crate) const ONE_TOO_LARGE: &str = "only one entry was asked for: if this goes on, the next one is larger than the \
     server lets through, and its client-output-buffer-limit for normal clients is to be raised";

/// A connection that is shared and replaced. Clones share it.
#[derive(Clone)]
pub(crate) struct Line {
    pool: Pool,
    /// By slot; under None the one of what is no cluster.
    slots: Arc<PlainMutex<HashMap<Option<Slot>, Arc<OfSlot>>>>,
    /// Most entries in one answer, since one was cut off.
    most: Arc<AtomicUsize>,
}

/// The connection for the keys of one slot.
struct OfSlot {
    pool: Pool,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    conn: Option<(Wire, Instant)>,
    /// How many there have been.
    number: u64,
}

/// The connection of a line, for one request.
pub(super) struct OnLine {
    line: Arc<OfSlot>,
    pub conn: Wire,
    pub number: u64,
}

impl Line {
    /// A line whose connections a pool makes.
    pub fn new(pool: Pool) -> Self {
        Line {
            pool,
            slots: Arc::default(),
            most: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How many replicas are to have what is appended, by `[redis]`.
    pub fn replicas(&self) -> Replicas {
        self.pool.connector().replicas()
    }

    /// How many of so many entries to ask for at once.
    pub(super) fn part(&self, wanted: usize) -> usize {
        wanted.min(self.most.load(Ordering::Relaxed))
    }

    /// What became of asking for so many entries. Where the server cut the connection, perhaps because the answer was too
    /// large for its `client-output-buffer-limit`, that is nothing: half as many are to be asked for, down to one, and
    /// later slowly more again.
    pub(super) fn heard<T>(&self, asked: usize, answer: Result<T>) -> Result<Option<T>> {
        match answer {
            Ok(answer) => {
                let more = self.most.load(Ordering::Relaxed).saturating_mul(2);
                self.most.store(more, Ordering::Relaxed);
                Ok(Some(answer))
            }
            // Where the server is gone the next one is not answered either.
            Err(error) if asked > 1 && was_cut(&error) => {
                self.most.store(asked / 2, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) if asked == 1 && was_cut(&error) => {
                let message = format!("{error}; {ONE_TOO_LARGE}");
                Err(error.say(message))
            }
            Err(error) => Err(error),
        }
    }

    /// The connection to whoever has this key.
    pub(super) async fn get(&self, key: &str) -> Result<OnLine> {
        // Else all that is asked for at first would go where the first key is.
        self.pool.learn().await?;
        let slot = self.pool.connector().slot_of(key);
        let line = {
            let mut slots = lock(&self.slots);
            let line = slots.entry(slot).or_insert_with(|| {
                Arc::new(OfSlot {
                    pool: self.pool.at(key),
                    current: Mutex::default(),
                })
            });
            line.clone()
        };
        let (conn, number) = line.get().await?;
        Ok(OnLine { line, conn, number })
    }
}

impl OfSlot {
    async fn get(&self) -> Result<(Wire, u64)> {
        let mut current = self.current.lock().await;
        if let Some((conn, used)) = &mut current.conn
            && !conn.life().is_over()
            && (used.elapsed() < IDLE || is_there(conn).await)
        {
            *used = Instant::now();
            let conn = conn.clone();
            return Ok((conn, current.number));
        }
        current.conn = None;
        let conn = self.pool.get().await?.take();
        current.number += 1;
        current.conn = Some((conn.clone(), Instant::now()));
        Ok((conn, current.number))
    }
}

impl OnLine {
    /// The answer to a command.
    pub async fn query<T: FromRedisValue>(&mut self, doing: &str, command: &Cmd) -> Result<T> {
        let answer = self
            .ask(|mut conn| async move { command.query_async(&mut conn).await })
            .await;
        self.answered(doing, answer).await
    }

    /// The answer of a script.
    pub async fn invoke(&mut self, doing: &str, call: &ScriptInvocation<'_>) -> Result<Value> {
        let answer = self
            .ask(|mut conn| async move { call.invoke_async(&mut conn).await })
            .await;
        self.answered(doing, answer).await
    }

    /// The same of a script that only reads.
    pub async fn read(&mut self, doing: &str, call: &ScriptInvocation<'_>) -> Result<Value> {
        let answer = self
            .ask(|mut conn| async move { call.read_async(&mut conn).await })
            .await;
        self.answered(doing, answer).await
    }

    /// The same, of a call with many arguments.
    pub async fn call(&mut self, doing: &str, call: &Call) -> Result<Value> {
        let answer = self
            .ask(|mut conn| async move { call.invoke(&mut conn).await })
            .await;
        self.answered(doing, answer).await
    }

    /// What the server answers; where it is not the one to ask any more and has done nothing, the one that is.
    async fn ask<T, F>(&mut self, ask: impl Fn(Wire) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let answer = ask(self.conn.clone()).await;
        let is_elsewhere = matches!(&answer, Err(error) if elsewhere(error).is_some());
        if !is_elsewhere {
            return answer;
        }
        let Ok((conn, number)) = self.line.get().await else {
            return answer;
        };
        (self.conn, self.number) = (conn, number);
        ask(self.conn.clone()).await
    }

    async fn answered<T>(&self, doing: &str, answer: RedisResult<T>) -> Result<T> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(doing, error).await),
        }
    }

    /// What an error of its request means. Where the connection broke, the next request has another.
    pub async fn failed(&self, doing: &str, error: RedisError) -> Error {
        let trouble = Trouble::met_by(Who::Publisher, doing, error);
        if trouble.ends_the_link() {
            let mut current = self.line.current.lock().await;
            if current.number == self.number {
                current.conn = None;
            }
        }
        trouble.into_error()
    }
}
