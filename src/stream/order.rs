//! Order of a stream's events: whose the stream is, what is pending of it and of which subject, and what is due because
//! its turn has come.

use std::collections::HashMap;
use std::time::Duration;

use redis::Value;

use super::clock::Expected;
use super::connection::Link;
use super::error::{Trouble, Who, refusal};
use super::keys::Keys;
use super::obstacle::need;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result as OurResult;
use crate::event::EntryId;

script!(ORDER, "order", behind "common/clock");
script!(PENDING, "order_pending", behind "common/ids", behind "common/behind");
script!(CHECK, "order_check");
script!(HELD, "order_held", behind "common/ids");
script!(
    ROUSE,
    "order_rouse",
    behind "common/ids",
    behind "common/reading",
    behind "common/behind"
);

/// Most letters that are named at once as gone.
const NAMED: usize = 500;

/// What a worker says and asks of a stream that one worker has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// It is there to have it.
    pub is_there: bool,
    pub wants: Wants,
    /// The server's clock, as far as it is known.
    pub clock: Option<Expected>,
}

/// What it wants. What it has is renewed in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    Nothing,
    /// To have it if nobody has.
    Free,
    /// The same, and if somebody let the lease lapse.
    Lapsed,
    Release,
}

/// Whose a stream is.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    pub is_mine: bool,
    /// The number of the lease: it goes up with each owner.
    pub epoch: u64,
    /// The owner's consumer; empty if there is none.
    pub owner: String,
    /// The workers that are there to have it.
    pub crew: Vec<String>,
    /// Dead letters hold their subjects, or did a moment ago.
    pub any_held: bool,
}

/// An entry with a subject that is pending.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub id: EntryId,
    pub subject: Vec<u8>,
    pub is: Whereabouts,
}

/// Where an entry is that is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// Some worker has it.
    Worker,
    /// It is parked only because another one of its subject comes before it.
    Behind,
    /// It is parked for another reason.
    Parked,
}

/// What is known of dead letters that hold their subjects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Those that are there: whether each is of the stream itself, its entry, its subject.
    pub there: Vec<(bool, EntryId, Vec<u8>)>,
    /// Letters that are gone.
    pub gone: Vec<String>,
    /// Replayed entries, with their subjects: those that were looked at behind that.
    pub copies: Vec<(EntryId, Vec<u8>)>,
}

/// Whose a stream is, and what is held of it, for those who look.
#[derive(Clone, Debug)]
pub(crate) struct OrderNow {
    /// The owner's consumer, since when it has the stream and until when it surely does, in ms since 1970.
    pub owner: Option<(String, u64, u64)>,
    /// How many workers are there to have it.
    pub crew: usize,
    /// How many dead letters hold their subjects, and some of those.
    pub held: u64,
    pub subjects: Vec<String>,
}

/// So many subjects are named.
const SOME: usize = 5;

impl Pool {
    /// Whose a stream is whose events have an order.
    pub async fn order(&self, keys: &Keys) -> OurResult<OrderNow> {
        let doing = format!("looking in {} whose {:?} is", keys.order, keys.stream);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut pipe = redis::Pipeline::with_capacity(3);
        pipe.cmd("HGETALL").arg(&keys.order);
        pipe.cmd("HLEN").arg(&keys.held);
        pipe.cmd("HSCAN").arg(&keys.held).arg(0);
        pipe.arg("COUNT").arg(SOME);
        type Page = (String, Vec<(String, Vec<u8>)>);
        let answer: (HashMap<String, String>, u64, Page) = pipe
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let (order, held, (_, some)) = answer;
        let of = |name: &str| order.get(name);
        let ms = |name: &str| of(name).and_then(|ms| ms.parse().ok()).unwrap_or(0);
        let subject = |(_, noted): (String, Vec<u8>)| {
            let noted = String::from_utf8_lossy(&noted).into_owned();
            noted.splitn(3, ' ').nth(2).map(str::to_owned)
        };
        let mut subjects: Vec<String> = some.into_iter().filter_map(subject).collect();
        subjects.sort();
        subjects.dedup();
        subjects.truncate(SOME);
        Ok(OrderNow {
            owner: of("owner").map(|owner| (owner.clone(), ms("epoch"), ms("until"))),
            crew: order
                .keys()
                .filter(|name| name.starts_with("worker:"))
                .count(),
            held,
            subjects,
        })
    }
}

/// What is known behind a read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    pub is_mine: bool,
    /// How many are pending with other workers.
    pub others: u64,
}

impl Link {
    /// Says whether a worker is there to have a stream, renews its lease, and does what it wants.
    pub async fn own(
        &mut self,
        keys: &Keys,
        me: &str,
        lease: Duration,
        wish: Wish,
    ) -> Result<Ownership, Trouble> {
        let doing = || format!("looking in {} whose {} is", keys.order, keys.stream);
        let answer = ORDER
            .key(&keys.order)
            .key(&keys.held)
            .arg(me)
            .arg(lease.as_millis() as u64)
            .arg(u8::from(wish.is_there))
            .arg(match wish.wants {
                Wants::Nothing => "-",
                Wants::Free => "free",
                Wants::Lapsed => "lapsed",
                Wants::Release => "release",
            })
            .arg(&Expected::args(wish.clock))
            .invoke_async(&mut self.conn)
            .await;
        let needs = || vec![need(&keys.order, "hash", "HGETALL HSET HDEL")];
        let value: Value = self.answered(doing, answer, needs).await?;
        let parse = |value| {
            let [mine, epoch, owner, crew, held] = reply::tuple(value)?;
            Some(Ownership {
                is_mine: reply::int(&mine)? == 1,
                epoch: reply::text(epoch)?.parse().ok()?,
                owner: reply::text(owner)?,
                crew: reply::array(crew)?
                    .into_iter()
                    .filter_map(reply::text)
                    .collect(),
                any_held: reply::int(&held)? > 0,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// What is pending with whomever, a page from `from` on, and where the next one begins.
    pub async fn order_pending(
        &mut self,
        keys: &Keys,
        group: &str,
        from: &str,
        behind: &str,
    ) -> Result<(Vec<Pending>, Option<String>), Trouble> {
        let doing = || format!("looking what is pending of {}", keys.stream);
        let answer = PENDING
            .key(&keys.stream)
            .key(&keys.failures)
            .arg(group)
            .arg(from)
            .arg(behind)
            .read_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING XRANGE"),
                need(&keys.failures, "hash", "HGET"),
            ]
        };
        let value: Value = self.answered(doing, answer, needs).await?;
        let pending = |value| {
            let [id, subject, behind] = reply::tuple(value)?;
            Some(Pending {
                id: reply::id(&id)?,
                subject: reply::bytes(subject)?,
                is: match reply::int(&behind)? {
                    1 => Whereabouts::Behind,
                    2 => Whereabouts::Parked,
                    _ => Whereabouts::Worker,
                },
            })
        };
        let parse = |value| {
            let [all, next] = reply::tuple(value)?;
            let all = reply::array(all)?.into_iter().map(pending);
            Some((all.collect::<Option<_>>()?, reply::text(next)))
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// Behind a read: whether the stream is still `me`'s under this lease, and what others have pending.
    pub async fn order_check(
        &mut self,
        keys: &Keys,
        group: &str,
        me: &str,
        epoch: u64,
    ) -> Result<Checked, Trouble> {
        let doing = || format!("looking whether {} is still this worker's", keys.stream);
        let answer = CHECK
            .key(&keys.stream)
            .key(&keys.order)
            .arg(group)
            .arg(me)
            .arg(epoch)
            .read_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING"),
                need(&keys.order, "hash", "HMGET"),
            ]
        };
        let value: Value = self.answered(doing, answer, needs).await?;
        let parse = |value| {
            let [mine, others] = reply::tuple(value)?;
            Some(Checked {
                is_mine: reply::int(&mine)? == 1,
                others: reply::int(&others)? as u64,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// Which dead letters hold their subjects, and which of those that were noted to are gone.
    pub async fn order_held(&mut self, keys: &Keys) -> Result<Held, Trouble> {
        let one = |value| {
            let [is_new, id, subject] = reply::tuple(value)?;
            Some((
                reply::int(&is_new)? == 1,
                reply::id(&id)?,
                reply::bytes(subject)?,
            ))
        };
        let (mut held, mut at) = (Held::default(), "0".to_owned());
        loop {
            let (there, gone, next) = self.held_page(keys, &["held", &at]).await?;
            let there: Option<Vec<_>> = there.into_iter().map(one).collect();
            held.there
                .extend(there.ok_or_else(|| Trouble::garbled(&keys.held))?);
            held.gone.extend(gone);
            if next == "0" {
                return Ok(held);
            }
            at = next;
        }
    }

    /// All replayed entries that have a subject, read or not.
    pub async fn order_copies(&mut self, keys: &Keys) -> Result<Vec<(EntryId, Vec<u8>)>, Trouble> {
        let one = |value| {
            let [id, subject] = reply::tuple(value)?;
            Some((reply::id(&id)?, reply::bytes(subject)?))
        };
        let (mut copies, mut at) = (Vec::new(), "-".to_owned());
        loop {
            let (page, _, next) = self.held_page(keys, &["copies", &at]).await?;
            let page: Option<Vec<_>> = page.into_iter().map(one).collect();
            copies.extend(page.ok_or_else(|| Trouble::garbled(&keys.again))?);
            if next == "0" {
                return Ok(copies);
            }
            at = next;
        }
    }

    /// What was to follow from these letters' being gone is done.
    pub async fn order_held_done(&mut self, keys: &Keys, gone: &[String]) -> Result<(), Trouble> {
        for gone in gone.chunks(NAMED) {
            let args: Vec<&str> = std::iter::once("done")
                .chain(gone.iter().map(String::as_str))
                .collect();
            self.held_page(keys, &args).await?;
        }
        Ok(())
    }

    /// A page of what is found, letters that are gone, and where the next one begins.
    async fn held_page(
        &mut self,
        keys: &Keys,
        args: &[&str],
    ) -> Result<(Vec<Value>, Vec<String>, String), Trouble> {
        let doing = || {
            format!(
                "looking which dead letters hold their subjects in {}",
                keys.held
            )
        };
        let mut call = HELD.key(&keys.dead);
        call.key(&keys.held).key(&keys.again);
        for arg in args {
            call.arg(*arg);
        }
        let answer = call.invoke_async(&mut self.conn).await;
        let needs = || {
            vec![
                need(&keys.dead, "stream", "XRANGE"),
                need(&keys.held, "hash", "HLEN HSCAN HDEL"),
                need(&keys.again, "stream", "XRANGE"),
            ]
        };
        let value: Value = self.answered(doing, answer, needs).await?;
        let parse = |value| {
            let [found, gone, next] = reply::tuple(value)?;
            let gone = reply::array(gone)?.into_iter().filter_map(reply::text);
            Some((reply::array(found)?, gone.collect(), reply::text(next)?))
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// Looks at the first entries of subjects: what only waited behind another is due now. Returns which are done with, and
    /// whether any is due.
    pub async fn order_rouse(
        &mut self,
        keys: &Keys,
        group: &str,
        behind: &str,
        ids: &[EntryId],
    ) -> Result<(Vec<EntryId>, bool), Trouble> {
        let doing = || format!("waking what waits its turn in {}", keys.retry);
        let mut call = ROUSE.key(&keys.stream);
        call.key(&keys.failures).key(&keys.retry);
        call.arg(group).arg(behind);
        for id in ids {
            call.arg(id.to_string());
        }
        let answer = call.invoke_async(&mut self.conn).await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING"),
                need(&keys.failures, "hash", "HLEN HGET"),
                need(&keys.retry, "zset", "ZCARD ZADD ZSCORE"),
            ]
        };
        let value: Value = self.answered(doing, answer, needs).await?;
        let parse = |value| {
            let [gone, due] = reply::tuple(value)?;
            Some((reply::ids(gone)?, reply::int(&due)? > 0))
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }
}
