//! How an entry comes to a worker that did not read it as new, and how it stays: wake, reclaim, adopt, renew.

use std::time::Duration;

use redis::Value;

use super::clock::Expected;
use super::connection::Link;
use super::error::{Trouble, is_for_now};
use super::group::Known;
use super::keys::Keys;
use super::obstacle::need;
use super::reply;
use super::script::script;
use super::waiting::Range;
use crate::event::{Entry, EntryId};

script!(WAKE, "wake", behind "common/pending", behind "common/ids", behind "common/rights", behind "common/reading", behind "common/clock");
script!(TAKE_WAITING, "take_waiting", behind "common/ids", behind "common/rights", behind "common/reading");
script!(RECLAIM, "reclaim", behind "common/ids", behind "common/rights", behind "common/known", behind "common/clock");
script!(ADOPT, "adopt", behind "common/ids", behind "common/rights", behind "common/known");
script!(MET_AGAIN, "met_again", behind "common/known");
script!(RENEW, "renew");

/// An entry that was delivered before.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub entry: Entry,
    /// How often it has been delivered, this time included.
    pub count: u32,
    pub record: Option<Record>,
}

/// What the group remembers of an entry that has failed, been released or been reclaimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// When it was first delivered, in the server's milliseconds since 1970.
    pub first_ms: u64,
    /// Deliveries that used up no attempt.
    pub released: u32,
    /// How its last worker died, if it did: what was released since is still on that attempt.
    pub died: Option<Died>,
    /// It is to be buried for this reason, and could not be.
    pub doomed: Option<String>,
    /// The last error.
    pub error: String,
}

/// How a worker died that held an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Died {
    /// The entry was all it ran.
    Alone,
    InCompany,
}

/// What waking found.
pub(crate) struct Woken {
    pub entries: Vec<Delivered>,
    pub trimmed: Vec<EntryId>,
    /// When the next parked entry falls due, from now; zero where some are due already.
    pub next: Option<Duration>,
    pub now_ms: u64,
    /// How many replayed entries wait.
    pub again: u64,
    /// What is paused: `stream`, or `handler:` and a type.
    pub paused: Vec<String>,
    /// When the next scheduled event falls due, from now; zero where one is due already.
    pub scheduled: Option<Duration>,
    /// Entries wait for a worker that can handle them.
    pub waiting: bool,
    /// What is asked of workers, field by field.
    pub asked: Vec<(String, String)>,
}

/// What is to be reclaimed from one holder.
pub(crate) struct Reclaim<'a> {
    pub group: &'a str,
    pub me: &'a str,
    pub holder: &'a str,
    pub lease_ms: u64,
    pub most: usize,
    pub most_bytes: usize,
    /// From this attempt on an entry goes alone,
    pub alone_from: u32,
    /// but those of these types from another one on.
    pub alone_from_of: &'a [(String, u32)],
    pub room_alone: bool,
    pub from: &'a str,
    pub clock: Expected,
}

/// What is to become of an entry that comes as a new one and is not.
pub(crate) enum MetAgain {
    /// Nobody has anything to do with it: it runs once more, as whoever set the group back wished.
    New,
    /// It had failed or been taken over: it goes on at this delivery.
    GoesOn(u32, Option<Record>),
    /// It waits for its due time.
    NotOurs,
}

/// What a look at such entries told.
pub(crate) struct Looked {
    /// What is to become of each.
    pub met: Vec<MetAgain>,
    /// Nothing is known any more of what lies beyond: nothing is parked, has failed, or has been pending since before the
    /// group was set back.
    pub is_new_beyond: bool,
}

/// Most entries in one look.
const CHUNK: usize = 500;

/// What reclaiming brought.
pub(crate) struct Reclaimed {
    pub entries: Vec<Delivered>,
    pub alone: Option<Delivered>,
    pub trimmed: Vec<EntryId>,
    /// How many have to go alone and found no room.
    pub waiting: u64,
    /// Where to go on in the holder's list.
    pub next: Option<String>,
    pub now_ms: u64,
}

/// One kind of what waits for a worker that can handle it.
pub(crate) struct Kind<'a> {
    pub range: &'a Range,
    pub most: usize,
}

/// What was found of those.
pub(crate) struct Found {
    pub entries: Vec<Delivered>,
    pub trimmed: Vec<EntryId>,
    /// For every kind whether there may be more.
    pub more: Vec<bool>,
    pub now_ms: u64,
}

/// What adopting brought.
pub(crate) struct Adopted {
    pub entries: Vec<Delivered>,
    pub trimmed: Vec<EntryId>,
    pub more: bool,
    pub now_ms: u64,
}

/// What a renewal says.
pub(crate) struct Renewed {
    pub lost: Vec<Lost>,
    /// How many are pending with this consumer that it does not hold.
    pub unheld: u64,
    pub protocol: Option<u32>,
    /// Where the position was noted.
    pub known: Option<Known>,
    /// Why this worker's position can't be noted.
    pub unnoted: Option<String>,
}

/// An entry that is no longer this worker's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub id: EntryId,
    /// The delivery that is lost.
    pub count: u32,
    pub why: LostWhy,
}

/// Why an entry is no longer this worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostWhy {
    /// Another delivery of it is under way, or it is parked.
    Taken,
    /// It is not pending at all: acknowledged by hand, trimmed and forgotten, or the group was destroyed.
    Nobody,
    /// It was ours until now, and is no longer in the stream.
    Trimmed,
}

impl Link {
    /// Takes up to `most` parked entries whose time has come; none where the clock is off.
    #[allow(clippy::too_many_arguments)]
    pub async fn wake(
        &mut self,
        keys: &Keys,
        group: &str,
        me: &str,
        most: usize,
        most_bytes: usize,
        clock: Option<Expected>,
    ) -> Result<Woken, Trouble> {
        let doing = || {
            format!(
                "waking parked entries of {} and {}",
                keys.retry, keys.failures
            )
        };
        let answer = WAKE
            .key(&keys.stream)
            .key(&keys.retry)
            .key(&keys.failures)
            .key(&keys.again)
            .key(&keys.paused)
            .key(&keys.scheduled)
            .key(&keys.waiting)
            .key(&keys.asked)
            .arg(group)
            .arg(me)
            .arg(most)
            .arg(most_bytes)
            .arg(&Expected::args(clock))
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(
                    &keys.stream,
                    "stream",
                    "XPENDING XCLAIM XRANGE XINFO|GROUPS",
                ),
                need(&keys.retry, "zset", "EXISTS ZRANGE ZRANGEBYSCORE ZREM"),
                need(&keys.failures, "hash", "HLEN HGET HDEL"),
                need(&keys.paused, "hash", "HKEYS HGETALL HDEL"),
                need(&keys.again, "", "XLEN"),
                need(&keys.scheduled, "", "ZRANGE"),
            ]
        };
        let value: Value = self.answered(doing, answer, needs).await?;
        let parse = |value| {
            let [
                entries,
                trimmed,
                next,
                now,
                again,
                paused,
                scheduled,
                waiting,
                asked,
            ] = reply::tuple(value)?;
            let now_ms = reply::int(&now)? as u64;
            Some(Woken {
                entries: delivered(entries)?,
                trimmed: reply::ids(trimmed)?,
                next: reply::until(next, now_ms),
                now_ms,
                again: reply::int(&again)? as u64,
                paused: reply::array(paused)?
                    .into_iter()
                    .filter_map(reply::text)
                    .collect(),
                scheduled: reply::until(scheduled, now_ms),
                waiting: reply::int(&waiting)? == 1,
                asked: reply::pairs(asked)?,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// Takes up to `most` parked entries of these kinds that wait for a worker that can handle them.
    pub async fn take_waiting(
        &mut self,
        keys: &Keys,
        group: &str,
        me: &str,
        most: usize,
        most_bytes: usize,
        kinds: &[Kind<'_>],
    ) -> Result<Found, Trouble> {
        let doing = || format!("taking what {} names", keys.waiting);
        let mut call = TAKE_WAITING.key(&keys.stream);
        call.key(&keys.retry)
            .key(&keys.failures)
            .key(&keys.waiting)
            .arg(group)
            .arg(me)
            .arg(most)
            .arg(most_bytes);
        for kind in kinds {
            let (from, to) = kind.range;
            call.arg(&from[..]).arg(&to[..]).arg(kind.most);
        }
        let answer = call.invoke_async(&mut self.conn).await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING XCLAIM"),
                need(&keys.retry, "zset", "ZCARD ZADD ZREM"),
                need(&keys.failures, "hash", "HLEN HGET HDEL"),
                need(&keys.waiting, "zset", "ZRANGEBYLEX ZREM"),
            ]
        };
        let value: Value = self.answered(doing, answer, needs).await?;
        let parse = |value| {
            let [entries, trimmed, more, now] = reply::tuple(value)?;
            Some(Found {
                entries: delivered(entries)?,
                trimmed: reply::ids(trimmed)?,
                more: reply::array(more)?
                    .iter()
                    .map(|more| Some(reply::int(more)? == 1))
                    .collect::<Option<_>>()?,
                now_ms: reply::int(&now)? as u64,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// Takes over what `holder` let lapse.
    pub async fn reclaim(
        &mut self,
        keys: &Keys,
        reclaim: &Reclaim<'_>,
    ) -> Result<Reclaimed, Trouble> {
        let doing = "reclaiming what a worker left";
        let answer = RECLAIM
            .key(&keys.stream)
            .key(&keys.failures)
            .key(&keys.retry)
            .arg(reclaim.group)
            .arg(reclaim.me)
            .arg(reclaim.holder)
            .arg(reclaim.lease_ms)
            .arg(reclaim.most)
            .arg(reclaim.most_bytes)
            .arg(reclaim.alone_from)
            .arg(u8::from(reclaim.room_alone))
            .arg(reclaim.from)
            .arg(&Expected::args(Some(reclaim.clock)))
            .arg(reclaim.alone_from_of)
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING XCLAIM XRANGE"),
                need(&keys.failures, "hash", "HLEN HGET HSET HDEL"),
            ]
        };
        let value: Value = self.answered(|| doing.to_owned(), answer, needs).await?;
        let parse = |value| {
            let [entries, alone, trimmed, waiting, next, now] = reply::tuple(value)?;
            Some(Reclaimed {
                entries: delivered(entries)?,
                alone: delivered(alone)?.pop(),
                trimmed: reply::ids(trimmed)?,
                waiting: reply::int(&waiting)? as u64,
                next: reply::text(next),
                now_ms: reply::int(&now)? as u64,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(doing))
    }

    /// Takes what is pending with `consumer` and not among `held`.
    pub async fn adopt(
        &mut self,
        keys: &Keys,
        group: &str,
        consumer: &str,
        most: usize,
        most_bytes: usize,
        held: &[EntryId],
    ) -> Result<Adopted, Trouble> {
        let doing = "adopting entries whose delivery got lost";
        let mut call = ADOPT.key(&keys.stream);
        call.key(&keys.failures)
            .key(&keys.retry)
            .arg(group)
            .arg(consumer)
            .arg(most)
            .arg(most_bytes);
        for id in held {
            call.arg(id.to_string());
        }
        let answer = call.invoke_async(&mut self.conn).await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING XCLAIM"),
                need(&keys.failures, "hash", "HLEN HGET HDEL"),
            ]
        };
        let value: Value = self.answered(|| doing.to_owned(), answer, needs).await?;
        Adopted::parse(value).ok_or_else(|| Trouble::garbled(doing))
    }

    /// Looks at entries that came as new ones though the group had read that far before.
    pub async fn met_again(
        &mut self,
        keys: &Keys,
        group: &str,
        me: &str,
        ids: &[EntryId],
    ) -> Result<Looked, Trouble> {
        let doing = "looking at entries of a group that was set back";
        let mut looked = Looked {
            met: Vec::with_capacity(ids.len()),
            is_new_beyond: false,
        };
        for chunk in ids.chunks(CHUNK) {
            let mut call = MET_AGAIN.key(&keys.stream);
            call.key(&keys.retry).key(&keys.failures).arg(group).arg(me);
            for id in chunk {
                call.arg(id.to_string());
            }
            let value: Value = call
                .invoke_async(&mut self.conn)
                .await
                .map_err(|error| Trouble::of(doing, error))?;
            let mut parts = reply::array(value).unwrap_or_default().into_iter();
            let met = parts.next().and_then(reply::array).unwrap_or_default();
            looked.met.extend(met.into_iter().map_while(met_one));
            let mut told = parts.map_while(|id| reply::text(id)?.parse::<EntryId>().ok());
            // What was delivered since then is at most as far as the group is.
            looked.is_new_beyond = told
                .next()
                .zip(told.next())
                .is_some_and(|(at, last)| last <= at);
        }
        match looked.met.len() == ids.len() {
            true => Ok(looked),
            false => Err(Trouble::garbled(doing)),
        }
    }

    /// Renews what `consumer` holds from `from` to `to`, both as Redis writes ranges. With `note`, this
    /// worker's position is noted.
    #[allow(clippy::too_many_arguments)]
    pub async fn renew(
        &mut self,
        keys: &Keys,
        group: &str,
        consumer: &str,
        from: &str,
        to: &str,
        note: bool,
        held: &[(EntryId, u32)],
    ) -> Result<Renewed, Trouble> {
        let doing = "renewing leases";
        let mut call = RENEW.key(&keys.stream);
        call.key(&keys.position).key(&keys.protocol);
        call.arg(group)
            .arg(consumer)
            .arg(from)
            .arg(to)
            .arg(u8::from(note));
        for (id, count) in held {
            call.arg(id.to_string()).arg(count);
        }
        let answer = call.invoke_async(&mut self.conn).await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING XCLAIM"),
                need(&keys.position, "hash", "HSET"),
                need(&keys.protocol, "string", "GET"),
            ]
        };
        let value: Value = self.answered(|| doing.to_owned(), answer, needs).await?;
        let lost = |value: Value| {
            let [id, why, count] = reply::tuple(value)?;
            let why = match &reply::bytes(why)?[..] {
                b"taken" => LostWhy::Taken,
                b"trimmed" => LostWhy::Trimmed,
                _ => LostWhy::Nobody,
            };
            Some(Lost {
                id: reply::id(&id)?,
                count: reply::int(&count)? as u32,
                why,
            })
        };
        let parse = |value| {
            let mut items = reply::array(value)?;
            let known = (items.len() > 4).then(|| items.split_off(4));
            let [list, unheld, protocol, unnoted] = items.try_into().ok()?;
            Some(Renewed {
                known: match known {
                    Some(known) => Some(Known::of(known)?),
                    None => None,
                },
                lost: reply::array(list)?
                    .into_iter()
                    .map(lost)
                    .collect::<Option<_>>()?,
                unheld: reply::int(&unheld)? as u64,
                protocol: reply::int(&protocol).map(|number| number as u32),
                unnoted: reply::text(unnoted),
            })
        };
        let renewed: Option<Renewed> = parse(value);
        let mut renewed = renewed.ok_or_else(|| Trouble::garbled(doing))?;
        // With nothing to renew it is the only thing that is written.
        renewed.unnoted.iter().for_each(|why| self.conn.caught(why));
        renewed.unnoted = renewed.unnoted.filter(|why| !is_for_now(why));
        Ok(renewed)
    }
}

impl Adopted {
    fn parse(value: Value) -> Option<Self> {
        let [entries, trimmed, more, now] = reply::tuple(value)?;
        Some(Adopted {
            entries: delivered(entries)?,
            trimmed: reply::ids(trimmed)?,
            more: reply::int(&more)? == 1,
            now_ms: reply::int(&now)? as u64,
        })
    }
}

fn met_one(value: Value) -> Option<MetAgain> {
    let mut parts = reply::array(value)?.into_iter();
    Some(match &reply::bytes(parts.next()?)?[..] {
        b"new" => MetAgain::New,
        b"again" => MetAgain::GoesOn(
            u32::try_from(reply::int(&parts.next()?)?).ok()?,
            parts
                .next()
                .and_then(reply::bytes)
                .and_then(|record| Record::parse(&record)),
        ),
        _ => MetAgain::NotOurs,
    })
}

fn delivered(value: Value) -> Option<Vec<Delivered>> {
    let one = |value| {
        let [id, count, fields, record] = reply::tuple(value)?;
        Some(Delivered {
            entry: Entry {
                id: reply::id(&id)?,
                fields: reply::fields(fields)?,
            },
            count: reply::int(&count)? as u32,
            record: reply::bytes(record).and_then(|bytes| Record::parse(&bytes)),
        })
    };
    reply::array(value)?.into_iter().map(one).collect()
}

impl Record {
    /// As `park.lua` writes it: first delivery, attempts released, delivery count, `!` for a lone death and `+` for
    /// one in company, `-` or the reason to bury or `?` for what waits for a worker that can handle it, the last error.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut parts = text.splitn(6, ' ');
        Some(Record {
            first_ms: parts.next()?.parse().ok()?,
            released: parts.next()?.parse().ok()?,
            died: match parts.next().and_then(|_| parts.next()) {
                Some("!") => Some(Died::Alone),
                Some("+") => Some(Died::InCompany),
                _ => None,
            },
            doomed: parts
                .next()
                .filter(|reason| !matches!(*reason, "-" | "?"))
                .map(str::to_owned),
            // Behind the last error stand those before it: see `common/errors.lua`.
            error: parts
                .next()
                .and_then(|errors| errors.split('\u{1e}').next())
                .unwrap_or_default()
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_the_script_writes_it() {
        let record = Record::parse(b"1732360000000 2 4 - - no stock: a b").unwrap();
        assert_eq!(
            (record.first_ms, record.released, record.doomed),
            (1_732_360_000_000, 2, None)
        );
        assert_eq!(
            (record.error.as_str(), record.died),
            ("no stock: a b", None)
        );
        let died = |text: &[u8]| Record::parse(text).unwrap().died;
        assert_eq!(died(b"1 0 3 ! - "), Some(Died::Alone));
        assert_eq!(died(b"1 0 3 + - "), Some(Died::InCompany));
        assert_eq!(
            Record::parse(b"1 0 3 ! crashed ")
                .unwrap()
                .doomed
                .as_deref(),
            Some("crashed")
        );
        let several =
            Record::parse(b"1 0 3 - crashed no stock\x1e3 5000 2\x1e1 1000 1 early: x").unwrap();
        assert_eq!(
            (several.error.as_str(), several.doomed.as_deref()),
            ("no stock", Some("crashed"))
        );
        assert_eq!(Record::parse(b"by hand"), None);
    }
}
