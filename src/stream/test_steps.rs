//! What the test kit asks of its own server beside a worker's steps: that time passes, and what there is.

use redis::Value;

use super::connection::Link;
use super::error::Trouble;
use super::keys::Keys;
use super::obstacle::need;
use super::read::Read;
use super::reply;
use super::script::script;
use crate::effects::Effect;
use crate::event::{Entry, EntryId};

script!(PASS, "../test_time/pass");
script!(RENEW_ALL, "../test_time/renew_all");
script!(APPLY, "../test_time/apply", behind "common/effects");

/// What a key holds.
pub(crate) enum Content {
    Nothing,
    Text(Vec<u8>),
    /// Fields and values.
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
    Set(Vec<Vec<u8>>),
    /// Members and scores.
    Sorted(Vec<(Vec<u8>, f64)>),
    Other,
}

/// What an effect came to.
pub(crate) enum Applied {
    Done,
    Refused(Option<Vec<u8>>),
    Failed(String),
}

impl Link {
    /// It is so late by now (ms), and so much later (ms) than before.
    pub async fn time_passes(&mut self, now_ms: u64, by_ms: u64) -> Result<(), Trouble> {
        let mut call = PASS.prepare_invoke();
        call.arg(now_ms).arg(by_ms);
        let answer = call.invoke_async(&mut self.conn).await;
        answer.map_err(|error| Trouble::of("letting time pass", error))
    }

    /// The leases of all that a consumer holds begin now.
    pub async fn renew_all(
        &mut self,
        keys: &Keys,
        group: &str,
        consumer: &str,
    ) -> Result<(), Trouble> {
        let mut call = RENEW_ALL.key(&keys.stream);
        call.arg(group).arg(consumer);
        let answer = call.invoke_async(&mut self.conn).await;
        answer.map_err(|error| Trouble::of("renewing leases", error))
    }

    /// Delivers new entries of one stream, as many as there are, at most so many.
    pub async fn read_at_once(
        &mut self,
        keys: &Keys,
        group: &str,
        me: &str,
        most: usize,
    ) -> Result<Vec<Entry>, Trouble> {
        let doing = || format!("reading {:?}", keys.stream);
        let streams = [&keys.stream[..]];
        let read = Read {
            group,
            consumer: me,
            count: most,
            block: None,
            streams: &streams,
        };
        let answer = read.command().query_async(&mut self.conn).await;
        let needs = || vec![need(&keys.stream, "stream", "XREADGROUP")];
        let value: Value = self.answered(doing, answer, needs).await?;
        let entries = match value {
            Value::Nil => return Ok(Vec::new()),
            value => reply::array(value).and_then(of_one_stream),
        };
        entries.ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// All entries of a stream.
    pub async fn all_entries(&mut self, stream: &str) -> Result<Vec<Entry>, Trouble> {
        let doing = format!("reading {stream:?}");
        let mut command = redis::cmd("XRANGE");
        command.arg(stream).arg("-").arg("+");
        let answer: Result<Value, _> = command.query_async(&mut self.conn).await;
        let value = answer.map_err(|error| Trouble::of(&doing, error))?;
        entries(value).ok_or_else(|| Trouble::garbled(&doing))
    }

    /// What is parked, and until when (ms).
    pub async fn all_parked(&mut self, keys: &Keys) -> Result<Vec<(EntryId, u64)>, Trouble> {
        let doing = format!("reading {}", keys.retry);
        let mut command = redis::cmd("ZRANGE");
        command.arg(&keys.retry).arg(0).arg(-1).arg("WITHSCORES");
        let answer: Result<Vec<(String, f64)>, _> = command.query_async(&mut self.conn).await;
        let parked = answer.map_err(|error| Trouble::of(&doing, error))?;
        let parked = parked.into_iter();
        let parked = parked.map(|(id, due)| Some((EntryId::parse(id.as_bytes())?, due as u64)));
        let parked: Option<_> = parked.collect();
        parked.ok_or_else(|| Trouble::garbled(&doing))
    }

    /// What a key holds.
    pub async fn content(&mut self, key: &str) -> Result<Content, Trouble> {
        let doing = format!("reading {key}");
        let trouble = |error| Trouble::of(&doing, error);
        let mut command = redis::cmd("TYPE");
        let kind: String = command
            .arg(key)
            .query_async(&mut self.conn)
            .await
            .map_err(trouble)?;
        let ask = |name: &str| {
            let mut command = redis::cmd(name);
            command.arg(key);
            command
        };
        let conn = &mut self.conn;
        Ok(match &kind[..] {
            "none" => Content::Nothing,
            "string" => Content::Text(ask("GET").query_async(conn).await.map_err(trouble)?),
            "hash" => Content::Hash(ask("HGETALL").query_async(conn).await.map_err(trouble)?),
            "set" => Content::Set(ask("SMEMBERS").query_async(conn).await.map_err(trouble)?),
            "zset" => {
                let mut all = ask("ZRANGE");
                all.arg(0).arg(-1).arg("WITHSCORES");
                Content::Sorted(all.query_async(conn).await.map_err(trouble)?)
            }
            _ => Content::Other,
        })
    }

    /// Does an effect by itself.
    pub async fn apply(&mut self, effect: &Effect) -> Result<Applied, Trouble> {
        let doing = || format!("the effect {effect}");
        let mut call = APPLY.key(&effect.key);
        let asks = effect.asks().unwrap_or_default();
        call.arg(effect.command).arg(&asks[..]);
        effect.args.iter().for_each(|arg| {
            call.arg(&arg[..]);
        });
        let answer = call.invoke_async(&mut self.conn).await;
        let value: Value = answer.map_err(|error| Trouble::of(&doing(), error))?;
        let parse = |value| {
            let mut parts = reply::array(value)?.into_iter();
            Some(match &reply::bytes(parts.next()?)?[..] {
                b"done" => Applied::Done,
                b"refused" => {
                    parts.next();
                    Applied::Refused(parts.next().and_then(reply::bytes))
                }
                _ => Applied::Failed(reply::text(parts.next()?)?),
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }
}

/// The entries of the one stream that was read: a list of pairs, or a map, by the protocol.
fn of_one_stream(mut streams: Vec<Value>) -> Option<Vec<Entry>> {
    match streams.pop()? {
        of if streams.is_empty() => entries(reply::tuple::<2>(of)?.into_iter().nth(1)?),
        of => entries(of),
    }
}

fn entries(value: Value) -> Option<Vec<Entry>> {
    let entry = |entry| {
        let [id, strings] = reply::tuple(entry)?;
        let (id, fields) = (reply::id(&id)?, reply::fields(strings)?);
        Some(Entry { id, fields })
    };
    reply::array(value)?.into_iter().map(entry).collect()
}
