//! What workers tell of themselves: pulses and the slots they are merged to, as bytes that are packed elsewhere; and what
//! is asked of workers.
//!
//! A pulse is one XADD whose id, the server's time, says which minute it belongs to. A slot is one XADD whose id is the
//! slot's time, so that Redis itself refuses a second one.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisResult, Value};

use super::connection::Link;
use super::error::{Answer, Trouble, Who, refusal};
use super::events;
use super::keys::{Keys, PulseKeys};
use super::obstacle::need;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;
use crate::event::EntryId;

script!(ASK, "ask");
script!(PULSE_AGAIN, "pulse_again");
script!(PULSE_TURN, "pulse_turn");
script!(PULSE_SLOT, "pulse_slot");

/// Most pulses or slots in one reply.
const PAGE: usize = 200;
/// How long a follower waits for a pulse: a connection that broke unnoticed is found out by then.
const BLOCK: Duration = Duration::from_secs(5);

/// A pulse as it stands in Redis.
#[derive(Clone, Debug)]
pub(crate) struct RawPulse {
    pub id: EntryId,
    pub worker: String,
    pub number: u64,
    pub packed: Vec<u8>,
}

/// A slot as it stands in Redis.
#[derive(Clone, Debug)]
pub(crate) struct RawSlot {
    pub at_ms: u64,
    pub packed: Vec<u8>,
}

/// A pulse to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Sending<'a> {
    pub worker: &'a str,
    pub number: u64,
    pub packed: &'a [u8],
    /// What is older is merged, and may go.
    pub keep_from_ms: Option<u64>,
}

/// A worker would merge.
pub(crate) struct Turn<'a> {
    pub worker: &'a str,
    /// For how long it is nobody else's turn then.
    pub rest: Duration,
    /// The end of the last minute that is over.
    pub over_ms: u64,
    /// How far before the first minute that is not merged it looks for what may be repeated there.
    pub look_back_ms: u64,
}

/// How far the minutes are.
pub(crate) struct Standing {
    /// When the last one began.
    pub last_ms: Option<u64>,
    /// The first pulses that are not merged, and those before them; none where it is not this worker's turn.
    pub pulses: Option<Vec<RawPulse>>,
    /// Whether there may be more of them.
    pub has_more: bool,
}

/// Follows the pulses of a group on a connection of its own.
pub(crate) struct PulseFollower {
    link: Link,
    after: EntryId,
}

impl Link {
    /// Sends a pulse. Returns the id it was given.
    pub async fn send_pulse(
        &mut self,
        keys: &PulseKeys,
        sending: &Sending<'_>,
    ) -> std::result::Result<EntryId, Trouble> {
        let mut xadd = redis::cmd("XADD");
        xadd.arg(&keys.pulse);
        if let Some(from) = sending.keep_from_ms {
            xadd.arg("MINID").arg("~").arg(from);
        }
        xadd.arg("*").arg("w").arg(sending.worker);
        xadd.arg("n").arg(sending.number);
        xadd.arg("p").arg(sending.packed);
        let answer = xadd.query_async(&mut self.conn).await;
        let answer: Value = self.told(&keys.pulse, answer).await?;
        reply::id(&answer).ok_or_else(|| Trouble::garbled("sending a pulse"))
    }

    /// Sends a pulse once more whose reply got lost, unless it is there behind the worker's one `before`.
    pub async fn send_pulse_again(
        &mut self,
        keys: &PulseKeys,
        sending: &Sending<'_>,
        before: Option<EntryId>,
    ) -> std::result::Result<EntryId, Trouble> {
        let before = before.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let answer = PULSE_AGAIN
            .key(&keys.pulse)
            .arg(before)
            .arg(sending.worker)
            .arg(sending.number)
            .arg(sending.packed)
            .invoke_async(&mut self.conn)
            .await;
        let answer: Value = self.told(&keys.pulse, answer).await?;
        let id = reply::tuple(answer).and_then(|[id, _]| reply::id(&id));
        id.ok_or_else(|| Trouble::garbled("sending a pulse"))
    }

    /// Whether it is this worker's turn to merge, and what there is; then nobody else's is for `rest`.
    pub async fn turn_to_merge(
        &mut self,
        keys: &PulseKeys,
        turn: &Turn<'_>,
    ) -> std::result::Result<Standing, Trouble> {
        let answer = PULSE_TURN
            .key(&keys.turn)
            .key(&keys.minutes)
            .key(&keys.pulse)
            .arg(turn.worker)
            .arg(turn.rest.as_millis() as u64)
            .arg(turn.over_ms)
            .arg(turn.look_back_ms)
            .arg(PAGE)
            .invoke_async(&mut self.conn)
            .await;
        let answer: Value = self.told(&keys.minutes, answer).await?;
        let parse = |answer| {
            let [is_ours, last, pulses] = reply::tuple(answer)?;
            let pulses = pulses_in(pulses)?;
            Some(Standing {
                last_ms: reply::int(&last).map(|ms| ms as u64),
                has_more: pulses.len() == PAGE,
                pulses: (reply::int(&is_ours)? == 1).then_some(pulses),
            })
        };
        parse(answer).ok_or_else(|| Trouble::garbled("merging pulses"))
    }

    /// Up to a page of pulses from one time on, before another, and whether there may be more.
    pub async fn pulses(
        &mut self,
        keys: &PulseKeys,
        from: EntryId,
        before_ms: u64,
    ) -> std::result::Result<(Vec<RawPulse>, bool), Trouble> {
        let answer = range(&keys.pulse, from, before_ms)
            .query_async(&mut self.conn)
            .await;
        let answer: Value = self.told(&keys.pulse, answer).await?;
        let pulses = pulses_in(answer).ok_or_else(|| Trouble::garbled("reading pulses"))?;
        let has_more = pulses.len() == PAGE;
        Ok((pulses, has_more))
    }

    /// Up to a page of slots from one time on, before another.
    pub async fn slots(
        &mut self,
        key: &str,
        from_ms: u64,
        before_ms: u64,
    ) -> std::result::Result<Vec<RawSlot>, Trouble> {
        let from = EntryId {
            ms: from_ms,
            seq: 0,
        };
        let answer = range(key, from, before_ms)
            .query_async(&mut self.conn)
            .await;
        let answer: Value = self.told(key, answer).await?;
        slots_in(answer).ok_or_else(|| Trouble::garbled("reading the history"))
    }

    /// When the last slot begins.
    pub async fn last_slot(&mut self, key: &str) -> std::result::Result<Option<u64>, Trouble> {
        let answer = last(key).query_async(&mut self.conn).await;
        let answer: Value = self.told(key, answer).await?;
        let slots = slots_in(answer).ok_or_else(|| Trouble::garbled("reading the history"))?;
        Ok(slots.first().map(|slot| slot.at_ms))
    }

    /// Writes a minute, and lets go what is older than is kept; remembers when versions were first heard of, by the name
    /// each has there, and what was last heard of workers. Returns whether it was not there yet: else nothing is done.
    pub async fn add_minute(
        &mut self,
        keys: &PulseKeys,
        minute: &RawSlot,
        keep_from_ms: u64,
        deploys: &[(String, u64)],
        workers: &[(String, Vec<u8>)],
    ) -> std::result::Result<bool, Trouble> {
        let mut call = PULSE_SLOT.key(&keys.minutes);
        call.key(&keys.workers).key(&keys.deploys);
        call.arg(minute.at_ms).arg(keep_from_ms).arg(&minute.packed);
        call.arg(deploys.len());
        for (name, first_ms) in deploys {
            call.arg(name).arg(first_ms);
        }
        for (name, packed) in workers {
            call.arg(name).arg(packed);
        }
        let answer = call.invoke_async(&mut self.conn).await;
        let answer: Value = self.told(&keys.minutes, answer).await?;
        Ok(reply::int(&answer) == Some(1))
    }

    /// Writes a slot, and lets go what is older than is kept. Returns whether it was not there yet.
    pub async fn add_slot(
        &mut self,
        key: &str,
        slot: &RawSlot,
        keep_from_ms: u64,
    ) -> std::result::Result<bool, Trouble> {
        let mut xadd = redis::cmd("XADD");
        xadd.arg(key).arg("MINID").arg("~").arg(keep_from_ms);
        xadd.arg(format!("{}-0", slot.at_ms))
            .arg("p")
            .arg(&slot.packed);
        let answer: RedisResult<Value> = xadd.query_async(&mut self.conn).await;
        match answer {
            Err(error) if is_there_already(&error) => Ok(false),
            answer => self.told(key, answer).await.map(|_| true),
        }
    }

    /// What is remembered of workers.
    pub async fn remembered_workers(
        &mut self,
        keys: &PulseKeys,
    ) -> std::result::Result<HashMap<String, Vec<u8>>, Trouble> {
        let answer = redis::cmd("HGETALL")
            .arg(&keys.workers)
            .query_async(&mut self.conn)
            .await;
        self.told(&keys.workers, answer).await
    }

    /// When each version was first seen.
    pub async fn remembered_deploys(
        &mut self,
        keys: &PulseKeys,
    ) -> std::result::Result<HashMap<String, u64>, Trouble> {
        let answer = redis::cmd("HGETALL")
            .arg(&keys.deploys)
            .query_async(&mut self.conn)
            .await;
        self.told(&keys.deploys, answer).await
    }

    /// Forgets these fields of one of the two.
    pub async fn forget_remembered(
        &mut self,
        key: &str,
        fields: &[String],
    ) -> std::result::Result<(), Trouble> {
        if fields.is_empty() {
            return Ok(());
        }
        let answer = redis::cmd("HDEL")
            .arg(key)
            .arg(fields)
            .query_async::<Value>(&mut self.conn)
            .await;
        self.told(key, answer).await.map(|_| ())
    }

    async fn told<T: redis::FromRedisValue>(
        &mut self,
        key: &str,
        answer: RedisResult<T>,
    ) -> std::result::Result<T, Trouble> {
        let doing = || "telling of this worker (its pulse)".to_owned();
        let needs = || vec![need(key, "", "XADD XRANGE")];
        self.answered(doing, answer, needs).await
    }
}

/// For who reads: the dashboard, `top`, the commands.
impl Pool {
    /// All pulses from one time on.
    pub async fn pulses_since(&self, keys: &PulseKeys, from_ms: u64) -> Result<Vec<RawPulse>> {
        let mut conn = self.at(&keys.pulse).get().await?;
        let mut from = EntryId {
            ms: from_ms,
            seq: 0,
        };
        let mut all = Vec::new();
        loop {
            let page = read(&mut conn, &range(&keys.pulse, from, u64::MAX)).await?;
            let page = pulses_in(page).ok_or_else(garbled)?;
            let is_last = page.len() < PAGE;
            if let Some(last) = page.last() {
                from = last.id.next();
            }
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// All slots from one time on, before another.
    pub async fn slots_between(
        &self,
        key: &str,
        from_ms: u64,
        before_ms: u64,
    ) -> Result<Vec<RawSlot>> {
        let mut conn = self.at(key).get().await?;
        let (mut from, mut all) = (
            EntryId {
                ms: from_ms,
                seq: 0,
            },
            Vec::new(),
        );
        loop {
            let page = read(&mut conn, &range(key, from, before_ms)).await?;
            let page = slots_in(page).ok_or_else(garbled)?;
            let is_last = page.len() < PAGE;
            if let Some(last) = page.last() {
                from.ms = last.at_ms + 1;
            }
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// When the last slot begins.
    pub async fn last_slot_of(&self, key: &str) -> Result<Option<u64>> {
        let mut conn = self.at(key).get().await?;
        let slots = slots_in(read(&mut conn, &last(key)).await?).ok_or_else(garbled)?;
        Ok(slots.first().map(|slot| slot.at_ms))
    }

    /// The id of the last pulse.
    pub async fn last_pulse(&self, keys: &PulseKeys) -> Result<Option<EntryId>> {
        let mut conn = self.at(&keys.pulse).get().await?;
        let pulses = pulses_in(read(&mut conn, &last(&keys.pulse)).await?).ok_or_else(garbled)?;
        Ok(pulses.first().map(|pulse| pulse.id))
    }

    /// A hash of names and packed bytes, or numbers.
    pub async fn remembered(&self, key: &str) -> Result<HashMap<String, Vec<u8>>> {
        let mut conn = self.at(key).get().await?;
        let answer = redis::cmd("HGETALL").arg(key).query_async(&mut conn).await;
        answer.map_err(|error| refusal(Who::Operator, READING, error))
    }

    /// What is asked of a stream's workers, field by field.
    pub async fn asked(&self, keys: &Keys) -> Result<Vec<(String, String)>> {
        let mut conn = self.at(&keys.asked).get().await?;
        let answer = read(&mut conn, redis::cmd("HGETALL").arg(&keys.asked)).await?;
        reply::pairs(answer).ok_or_else(garbled)
    }

    /// Asks something of a stream's workers for so long. Returns until when it stands, in milliseconds since 1970; none
    /// where too much is asked of them already.
    pub async fn ask(
        &self,
        keys: &Keys,
        field: &str,
        value: &str,
        lasts: Duration,
    ) -> Result<Option<u64>> {
        let doing = format!("asking workers through {}", keys.asked);
        let mut conn = self.at(&keys.asked).get().await?;
        let answer: RedisResult<Value> = ASK
            .key(&keys.asked)
            .arg(field)
            .arg(value)
            .arg(lasts.as_millis() as u64)
            .invoke_async(&mut conn)
            .await;
        let answer = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        Ok(reply::int(&answer).map(|until| until as u64))
    }

    /// Takes back what was asked. Returns whether it stood.
    pub async fn take_back(&self, keys: &Keys, field: &str) -> Result<bool> {
        let doing = format!("taking back what workers are asked through {}", keys.asked);
        let mut conn = self.at(&keys.asked).get().await?;
        let answer: RedisResult<i64> = ASK
            .key(&keys.asked)
            .arg(field)
            .invoke_async(&mut conn)
            .await;
        let taken = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        Ok(taken == 1)
    }

    /// A connection of its own on which pulses are followed, those behind `after`.
    pub async fn follow_pulses(&self, after: EntryId) -> Result<PulseFollower> {
        let patience = BLOCK + Duration::from_secs(3);
        let connecting = self
            .connector()
            .connect_to_any("streamhand:watch", patience);
        Ok(PulseFollower {
            link: connecting.await?,
            after,
        })
    }
}

impl PulseFollower {
    /// The next pulses; none where none came for a while.
    pub async fn next(&mut self, keys: &PulseKeys) -> Result<Vec<RawPulse>> {
        let mut xread = redis::cmd("XREAD");
        xread
            .arg("COUNT")
            .arg(PAGE)
            .arg("BLOCK")
            .arg(BLOCK.as_millis() as u64);
        xread
            .arg("STREAMS")
            .arg(&keys.pulse)
            .arg(self.after.to_string());
        let answer = read(&mut self.link.conn, &xread).await?;
        // A list of streams, each with its entries; nothing where none came.
        let stream = reply::array(answer).and_then(|streams| streams.into_iter().next());
        let Some([_, entries]) = stream.and_then(reply::tuple) else {
            return Ok(Vec::new());
        };
        let pulses = pulses_in(entries).ok_or_else(garbled)?;
        if let Some(last) = pulses.last() {
            self.after = last.id;
        }
        Ok(pulses)
    }
}

const READING: &str = "reading what workers tell of themselves";

async fn read(conn: &mut impl ConnectionLike, command: &Cmd) -> Result<Value> {
    let answer = command.query_async(conn).await;
    answer.map_err(|error| refusal(Who::Operator, READING, error))
}

fn garbled() -> crate::error::Error {
    Trouble::garbled(READING).into_error()
}

fn range(key: &str, from: EntryId, before_ms: u64) -> Cmd {
    let mut xrange = redis::cmd("XRANGE");
    xrange.arg(key).arg(from.to_string());
    match before_ms {
        u64::MAX => xrange.arg("+"),
        before => xrange.arg(format!("({before}-0")),
    };
    xrange.arg("COUNT").arg(PAGE);
    xrange
}

fn last(key: &str) -> Cmd {
    let mut xrevrange = redis::cmd("XREVRANGE");
    xrevrange.arg(key).arg("+").arg("-").arg("COUNT").arg(1);
    xrevrange
}

fn pulses_in(answer: Value) -> Option<Vec<RawPulse>> {
    let entries = events::entries(answer)?;
    // What somebody else has put there is a pulse that can't be read.
    let pulse = |entry: crate::event::Entry| {
        let text = |name: &str| {
            let value = entry.fields.value(name).unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        RawPulse {
            id: entry.id,
            worker: text("w"),
            number: text("n").parse().unwrap_or_default(),
            packed: entry.fields.value("p").unwrap_or_default().to_vec(),
        }
    };
    Some(entries.into_iter().map(pulse).collect())
}

fn slots_in(answer: Value) -> Option<Vec<RawSlot>> {
    let entries = events::entries(answer)?.into_iter();
    let slot = |entry: crate::event::Entry| RawSlot {
        at_ms: entry.id.ms,
        packed: entry.fields.value("p").unwrap_or_default().to_vec(),
    };
    Some(entries.map(slot).collect())
}

/// A slot of this time or a later one stands there.
fn is_there_already(error: &redis::RedisError) -> bool {
    Answer::of(error).is_some_and(|answer| answer.text.contains("equal or smaller"))
}
