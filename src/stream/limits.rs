//! Limits of a whole group: permits to run, of which each worker has a part for a time, and limits that operators set.

use std::time::Duration;

use redis::{RedisResult, Value};

use super::connection::Link;
use super::error::{Trouble, Who, refusal};
use super::keys::Keys;
use super::obstacle::need;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;

script!(PERMITS, "permits");
script!(LIMIT, "limit");

/// What a worker asks of a group's permits.
pub(crate) struct PermitsAsked<'a> {
    pub key: &'a str,
    pub me: &'a str,
    /// How many the group may run.
    pub most: usize,
    pub running: usize,
    /// Those that run among them.
    pub wanted: usize,
    pub lasts: Duration,
}

/// Where the permits of a group's handler are. Not of any one stream: the handler may have entries of several.
pub(crate) fn permits_key(group: &str, handler: &str) -> String {
    format!("streamhand:{group}:permits:{handler}")
}

impl Link {
    /// How many runs of a handler this worker may have at once.
    pub async fn permits(
        &mut self,
        asked: &PermitsAsked<'_>,
    ) -> std::result::Result<usize, Trouble> {
        let doing = || format!("counting runs in {}", asked.key);
        let answer = PERMITS
            .key(asked.key)
            .arg(asked.me)
            .arg(asked.most)
            .arg(asked.running)
            .arg(asked.wanted)
            .arg(asked.lasts.as_millis() as u64)
            .invoke_async(&mut self.conn)
            .await;
        let needs = || vec![need(asked.key, "hash", "HGETALL HSET HDEL PEXPIRE")];
        let may: i64 = self.answered(doing, answer, needs).await?;
        Ok(may.max(0) as usize)
    }
}

impl Pool {
    /// Sets a limit by its field's name, or takes it back. Returns how many were taken back.
    pub async fn set_limit(
        &self,
        keys: &Keys,
        handler: &str,
        field: Option<&str>,
        note: &str,
    ) -> Result<u64> {
        let doing = format!("setting a limit in {}", keys.paused);
        let mut conn = self.at(&keys.stream).get().await?;
        let answer: RedisResult<u64> = LIMIT
            .key(&keys.paused)
            .arg(format!(":{handler}"))
            .arg(field.unwrap_or_default())
            .arg(note)
            .invoke_async(&mut conn)
            .await;
        answer.map_err(|error| refusal(Who::Operator, &doing, error))
    }

    /// What stands beside what is paused: names of fields, and what is noted of them.
    pub async fn set_limits(&self, keys: &Keys) -> Result<Vec<(String, String)>> {
        let doing = format!("asking for limits in {}", keys.paused);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut hgetall = redis::cmd("HGETALL");
        let answer: RedisResult<Value> = hgetall.arg(&keys.paused).query_async(&mut conn).await;
        let value = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        reply::pairs(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }
}
