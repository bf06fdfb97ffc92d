//! Relaying what handlers have emitted to streams of other slots. It waits in an outbox beside the stream whose entries
//! were handled, where the commit has put it in the step that acknowledged. A relay takes it from there, adds it to the
//! other stream with a mark by which a repeat is known, and takes it off.

use std::time::Duration;

use redis::{RedisResult, Value};

use super::connection::Link;
use super::error::{Answer, Trouble, Who, elsewhere, refusal};
use super::keys::{OutboxKeys, StreamKeys};
use super::obstacle::{Need, need};
use super::pool::{Pool, PooledConnection};
use super::reply;
use super::script::script;
use super::topology::Slot;
use crate::error::Result;
use crate::event::EntryId;
use crate::fields::Fields;

script!(TAKE, "outbox_take", behind "common/rights");
script!(DONE, "outbox_done", behind "common/rights");
script!(ADD, "outbox_add", behind "common/rights");

/// The name of the first field of what waits in an outbox.
pub(super) const MARK: &str = "outbox.mark";

/// Most events that are relayed at once, and about how many bytes.
const EVENTS: usize = 100;
const BYTES: usize = 256 << 10;
/// How long it is waited until a replica of the other stream's node has them too.
const REPLICATED: Duration = Duration::from_secs(1);

/// An event that waits in an outbox.
pub(crate) struct Waiting {
    pub id: EntryId,
    /// What it is known by at the other stream.
    pub mark: String,
    /// The event, as it is to be added.
    fields: Fields,
}

impl Waiting {
    /// One that did not wait in an outbox, and is to be known by this mark.
    pub fn of(mark: String, fields: Fields) -> Self {
        Waiting {
            id: EntryId::default(),
            mark,
            fields,
        }
    }
}

/// What taking a turn came to.
pub(crate) enum RelayTurn {
    /// It is another's for so long.
    Anothers(Duration),
    /// These are to be added.
    Mine {
        events: Vec<Waiting>,
        /// Up to this one they were handed to a relay so long ago, and nothing was heard of them since.
        handed_out: Option<(EntryId, Duration)>,
    },
}

/// How much waits for one other stream.
pub(crate) struct OutboxQueue {
    pub target: String,
    pub length: u64,
    /// How long the first of it has.
    pub oldest: Duration,
    /// Why, and for how long that has been known.
    pub why: Option<(Duration, String)>,
}

/// What came of adding events to the other stream.
pub(crate) struct Relayed {
    /// Of so many of the first it is known that they are there, and of each whether it is new.
    pub there: Vec<bool>,
    /// Why those behind them are not.
    pub stopped: Option<Trouble>,
    /// Whether it is known to outlive the node's master, if that has replicas.
    pub is_safe: bool,
}

impl Link {
    /// The streams that something waits for.
    pub async fn outbox(&mut self, keys: &OutboxKeys) -> Result<Vec<String>, Trouble> {
        let mut call = redis::cmd("SMEMBERS");
        let answer = call.arg(&keys.targets).query_async(&mut self.conn).await;
        let doing = || format!("looking into the outbox {}", keys.targets);
        let needs = || vec![need(&keys.targets, "set", "SMEMBERS")];
        self.answered(doing, answer, needs).await
    }

    /// Takes the turn to relay what waits for `target`, which lasts so long, and the first of it.
    pub async fn outbox_take(
        &mut self,
        keys: &OutboxKeys,
        target: &str,
        me: &str,
        lasts: Duration,
    ) -> Result<RelayTurn, Trouble> {
        let waiting = keys.waiting(target);
        let answer = TAKE
            .key(&keys.targets)
            .key(&keys.turns)
            .key(&waiting)
            .arg(me)
            .arg(target)
            .arg(lasts.as_millis() as u64)
            .arg(EVENTS)
            .arg(BYTES)
            .invoke_async(&mut self.conn)
            .await;
        let doing = || format!("relaying what was emitted to {target:?}");
        let value: Value = self
            .answered(doing, answer, || needs(keys, &waiting))
            .await?;
        turn(value).ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// Takes off what is in the other stream. Nobody tries the rest again for so long, if it was refused because of
    /// `why`. Returns how many are left.
    #[allow(clippy::too_many_arguments)]
    pub async fn outbox_done(
        &mut self,
        keys: &OutboxKeys,
        target: &str,
        me: &str,
        there: &[Waiting],
        is_known: bool,
        rest: Option<(Duration, &str)>,
    ) -> Result<u64, Trouble> {
        let waiting = keys.waiting(target);
        let (rest, why) = rest.unwrap_or_default();
        let mut call = DONE.key(&keys.targets);
        call.key(&keys.turns).key(&waiting);
        call.arg(me)
            .arg(target)
            .arg(rest.as_millis() as u64)
            .arg(why)
            .arg(u8::from(is_known));
        for event in there {
            call.arg(event.id.to_string()).arg(&event.mark);
        }
        let answer = call.invoke_async(&mut self.conn).await;
        let doing = || format!("taking off what was emitted to {target:?}");
        let value: Value = self
            .answered(doing, answer, || needs(keys, &waiting))
            .await?;
        let left = reply::int(&value).and_then(|left| u64::try_from(left).ok());
        left.ok_or_else(|| Trouble::garbled(&doing()))
    }
}

impl Pool {
    /// What waits to be added to streams of other slots.
    pub async fn outbox(&self, keys: &OutboxKeys) -> Result<Vec<OutboxQueue>> {
        let refused = |error| {
            let doing = format!("looking into the outbox {}", keys.targets);
            refusal(Who::Operator, &doing, error)
        };
        let mut conn = self.at(&keys.targets).get().await?;
        let mut members = redis::cmd("SMEMBERS");
        members.arg(&keys.targets);
        let members: RedisResult<Vec<String>> = members.query_async(&mut conn).await;
        let mut targets = match members {
            // What other hands have put there is none.
            Err(error) if Answer::of(&error).is_some_and(|it| it.code == "WRONGTYPE") => Vec::new(),
            members => members.map_err(refused)?,
        };
        targets.sort();
        let mut queues = Vec::new();
        for target in targets {
            let waiting = keys.waiting(&target);
            let mut pipe = redis::Pipeline::with_capacity(4);
            pipe.cmd("TIME");
            pipe.cmd("XLEN").arg(&waiting);
            let range = pipe.cmd("XRANGE").arg(&waiting).arg("-").arg("+");
            range.arg("COUNT").arg(1);
            pipe.cmd("HGET").arg(&keys.turns).arg(why(&target));
            type Looked = ((u64, u64), u64, Vec<(String, Value)>, Option<String>);
            let looked: Looked = pipe.query_async(&mut conn).await.map_err(refused)?;
            let ((seconds, _), length, first, why) = looked;
            let since = |ms: u64| Duration::from_millis((seconds * 1000).saturating_sub(ms));
            let first = first
                .first()
                .and_then(|(id, _)| EntryId::parse(id.as_bytes()));
            let why = why.as_deref().and_then(|why| why.split_once(' '));
            queues.push(OutboxQueue {
                target,
                length,
                oldest: first.map_or(Duration::ZERO, |id| since(id.ms)),
                why: why.and_then(|(at, why)| Some((since(at.parse().ok()?), why.to_owned()))),
            });
        }
        Ok(queues)
    }

    /// Adds events to `target` that waited for it, each once within the window of its mark, and waits until a replica has
    /// them, where there are replicas.
    pub async fn relay(
        &self,
        target: &str,
        window: Duration,
        events: &[Waiting],
    ) -> Result<Relayed, Trouble> {
        let doing = format!("adding to {target:?} what was emitted to it");
        let keys = StreamKeys::new(target);
        let pool = self.at(target);
        let mut conn = pool.get().await.map_err(Trouble::Broken)?;
        let mut call = ADD.key(target);
        call.arg(window.as_millis() as u64);
        for event in events {
            call.key(keys.published(&event.mark));
            call.arg(2 * event.fields.len());
            for (name, value) in &event.fields {
                call.arg(name).arg(value);
            }
        }
        let met = |error| Trouble::of(&doing, error);
        let value: Value = call.invoke_async(&mut conn).await.map_err(met)?;
        let garbled = || Trouble::garbled(&doing);
        let answers = reply::array(value).ok_or_else(garbled)?;
        let (mut there, mut stopped) = (Vec::with_capacity(events.len()), None);
        for answer in answers {
            match reply::int(&answer) {
                Some(is_new) => there.push(is_new == 1),
                None => {
                    let why = reply::text(answer).ok_or_else(garbled)?;
                    stopped = Some(Trouble::caught(&doing, &why));
                }
            }
        }
        if there.len() > events.len() || stopped.is_none() && there.len() < events.len() {
            return Err(garbled());
        }
        let is_safe = there.is_empty() || is_replicated(&mut conn, target).await.map_err(met)?;
        Ok(Relayed {
            there,
            stopped,
            is_safe,
        })
    }
}

impl Pool {
    /// Where a waiting event goes whose stream is sealed; None if its topic has no later generation yet.
    #[cfg(feature = "worker")]
    pub async fn grown_for(&self, target: &str, event: &Waiting) -> Result<Option<String>> {
        let field = |name: &str| {
            let mut fields = event.fields.iter();
            let says =
                |(known, value): &(&[u8], &[u8])| *known == name.as_bytes() && !value.is_empty();
            fields.find(says).map(|(_, value)| value)
        };
        let id = field("id").unwrap_or_default();
        self.grown_from(target, field("subject"), id).await
    }
}

/// Whether a replica has what was written on this connection to `target`. If there is none, or the server does not say, it is as
/// safe as it gets. Whether there is one the other nodes are asked as well: the server itself has none from the moment in which
/// its replica takes over, and hears of that later.
async fn is_replicated(conn: &mut PooledConnection, target: &str) -> RedisResult<bool> {
    let wire = conn.wire();
    if wire.leads_to_one_alone(Slot::of(target)).await {
        let mut info = redis::cmd("INFO");
        let asking = info.arg("replication").query_async::<String>(conn);
        let info = unless_refused(asking.await)?.unwrap_or_default();
        let replicas = info
            .lines()
            .find_map(|line| line.strip_prefix("connected_slaves:"));
        if replicas.is_none_or(|count| count.trim() == "0") {
            return Ok(true);
        }
    }
    let mut wait = redis::cmd("WAIT");
    wait.arg(1).arg(REPLICATED.as_millis() as u64);
    let have: Option<u64> = unless_refused(wait.query_async(conn).await)?;
    let has_it = have.is_none_or(|have| have > 0);
    if !has_it {
        // The replica may be gone for good.
        wire.has_doubts();
    }
    Ok(has_it)
}

/// An answer, if the server does not refuse to give one.
fn unless_refused<T>(answer: RedisResult<T>) -> RedisResult<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if Answer::of(&error).is_some() && elsewhere(&error).is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The field that says why something waits for a stream, as scripts name it.
fn why(target: &str) -> String {
    format!("why:{target}")
}

fn needs<'a>(keys: &'a OutboxKeys, waiting: &'a str) -> Vec<Need<'a>> {
    vec![
        need(&keys.targets, "set", "SCARD SREM"),
        need(&keys.turns, "hash", "HGET HSET HDEL"),
        need(waiting, "stream", "XLEN XRANGE XDEL DEL"),
    ]
}

fn turn(value: Value) -> Option<RelayTurn> {
    let mut parts = reply::array(value)?.into_iter();
    let theirs = reply::int(&parts.next()?)?;
    if theirs > 0 {
        let left = Duration::from_millis(theirs as u64);
        return Some(RelayTurn::Anothers(left));
    }
    let ago = u64::try_from(reply::int(&parts.next()?)?).ok();
    let last = parts.next()?;
    let handed_out = match ago {
        Some(ago) => Some((reply::id(&last)?, Duration::from_millis(ago))),
        None => None,
    };
    let events = reply::array(parts.next()?)?.into_iter().map(waiting);
    Some(RelayTurn::Mine {
        events: events.collect::<Option<_>>()?,
        handed_out,
    })
}

fn waiting(value: Value) -> Option<Waiting> {
    let [id, fields] = reply::tuple(value)?;
    let mut fields = reply::array(fields)?;
    let id = reply::id(&id)?;
    let mark = match (fields.first(), fields.get(1)) {
        (Some(Value::BulkString(name)), Some(Value::BulkString(mark))) => {
            let text = String::from_utf8(mark.clone()).ok()?;
            // What other hands have put there goes on as it is, and is known by its first value.
            if name == MARK.as_bytes() && fields.len() > 2 {
                fields.drain(..2);
            }
            text
        }
        _ => return None,
    };
    Some(Waiting {
        id,
        mark,
        fields: reply::fields(Value::Array(fields))?,
    })
}
