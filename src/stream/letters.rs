//! Dead letters: reading their heads and their bodies, giving them back to their group, deleting them.

use redis::Value;
use redis::aio::ConnectionLike;

use super::error::{Trouble, Who, refusal, refusal_in};
use super::keys::Keys;
use super::pool::Pool;
use super::script::script;
use super::{PROTOCOL, reply};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Entry, EntryId};
use crate::fields::Fields;

script!(BROWSE, "browse", behind "common/ids", behind "common/death", behind "common/fingerprint");
script!(
    REPLAY,
    "replay",
    behind "common/ids",
    behind "common/death",
    behind "common/fingerprint",
    behind "common/left",
    behind "common/replay_letter",
    behind "common/rights"
);
script!(
    PURGE,
    "purge",
    behind "common/ids",
    behind "common/death",
    behind "common/fingerprint",
    behind "common/left",
    behind "common/rights"
);
script!(NEWEST, "newest");

/// The values every dead letter ends in, in their order, by their names without `dead.`. Letters of an earlier release
/// lack [`CRASH_CHECKS`].
pub(crate) const DEATH: [&str; 12] = [
    "reason",
    "error",
    "attempts",
    CRASH_CHECKS,
    "handler",
    "stream",
    "group",
    "entry",
    "consumer",
    "first_delivered",
    "at",
    "replays",
];

/// How many of its runs were made to find out whether it kills its worker.
const CRASH_CHECKS: &str = "crash_checks";

/// Most letters a script deals with at once, and the bytes after which it stops: another client waits meanwhile.
pub(super) const LETTERS: usize = 100;
pub(super) const BYTES: usize = 1 << 20;

/// Bytes of a name in a brief answer: more than are shown of it.
const BRIEF: &str = "1024";

/// A dead letter without its data.
#[derive(Debug)]
pub(crate) struct Head {
    pub id: EntryId,
    pub event_type: Option<String>,
    /// How many fields the event had.
    pub fields: usize,
    /// Bytes of all that is kept of it.
    pub bytes: u64,
    /// The values of [`DEATH`].
    pub death: Vec<String>,
    /// What it has in common with letters that are alike; empty where that was not asked for.
    pub fingerprint: String,
    /// The error without what differs among them, where that was asked for.
    pub masked: Option<String>,
    /// The event's schema version, as it says it.
    pub version: Option<String>,
}

/// The newest id that a stream has ever given out; None if there is no such key.
pub(super) async fn newest(
    conn: &mut (impl ConnectionLike + Send),
    key: &str,
) -> redis::RedisResult<Option<EntryId>> {
    let id: Value = NEWEST.key(key).read_async(conn).await?;
    Ok(reply::id(&id))
}

/// Takes the values of [`DEATH`] off the end of a letter; None where they are not there.
pub(crate) fn split_death(fields: &mut Fields) -> Option<Vec<String>> {
    let named = |names: &[&str], fields: &Fields| {
        let at = fields.len().checked_sub(names.len())?;
        let is_named = |((field, _), name): ((&[u8], &[u8]), &&str)| {
            field.strip_prefix(b"dead.") == Some(name.as_bytes())
        };
        fields
            .iter()
            .skip(at)
            .zip(names)
            .all(is_named)
            .then_some(at)
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let place = DEATH.iter().position(|name| *name == CRASH_CHECKS)?;
    if let Some(at) = named(&DEATH, fields) {
        let death = fields.split_off(at);
        return Some(death.iter().map(|(_, value)| text(value)).collect());
    }
    let mut earlier = DEATH.to_vec();
    earlier.remove(place);
    let at = named(&earlier, fields)?;
    let death = fields.split_off(at);
    let mut values: Vec<String> = death.iter().map(|(_, value)| text(value)).collect();
    values.insert(place, "0".to_owned());
    Some(values)
}

/// What is to be read of the dead letters.
pub(crate) struct Browse<'a> {
    /// The id to begin at, as Redis writes ranges.
    pub from: &'a str,
    /// The id to end at.
    pub to: &'a str,
    pub event_type: Option<&'a str>,
    pub reason: Option<&'a str>,
    /// Only letters of the entry or the event of this id.
    pub about: Option<&'a str>,
    /// Only letters of this fingerprint.
    pub fingerprint: Option<&'a str>,
    /// For lists that people read: names are cut.
    pub brief: bool,
    /// Errors are told masked as well.
    pub masked: bool,
}

/// Some dead letters.
#[derive(Debug)]
pub(crate) struct Page {
    pub heads: Vec<Head>,
    /// Where to go on.
    pub next: Option<String>,
    /// Entries passed over: nothing a worker wrote.
    pub strangers: u64,
}

/// One letter that is meant: its id, and what tells it from another that got the same id after a failover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub id: EntryId,
    /// Its `dead.entry` and `dead.at`.
    pub mark: Box<str>,
}

/// What became of a letter that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purged {
    Deleted,
    /// It was not there any more.
    Gone,
    /// It is held.
    Held,
}

impl Purged {
    /// As the scripts say it.
    pub(super) fn of(answer: &Value) -> Self {
        match reply::int(answer) {
            Some(1) => Purged::Deleted,
            Some(2) => Purged::Held,
            _ => Purged::Gone,
        }
    }
}

impl Pool {
    /// Reads the heads of some dead letters.
    pub async fn browse(&self, keys: &Keys, browse: &Browse<'_>) -> Result<Page> {
        let doing = format!("reading the dead letters in {}", keys.dead);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = BROWSE
            .key(&keys.dead)
            .arg(browse.from)
            .arg(browse.to)
            .arg(LETTERS)
            .arg(BYTES)
            .arg(browse.event_type.unwrap_or_default())
            .arg(browse.reason.unwrap_or_default())
            .arg(browse.about.unwrap_or_default())
            .arg(if browse.brief { BRIEF } else { "" })
            .arg(browse.fingerprint.unwrap_or_default())
            .arg(if browse.masked { "1" } else { "" })
            .read_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let parse = |value| {
            let [heads, next, strangers] = reply::tuple(value)?;
            Some(Page {
                heads: reply::array(heads)?
                    .into_iter()
                    .map(head)
                    .collect::<Option<_>>()?,
                next: reply::text(next),
                strangers: reply::int(&strangers)? as u64,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// Entries of the dead letters, whole; None for each that is not there.
    pub async fn letters(&self, keys: &Keys, ids: &[EntryId]) -> Result<Vec<Option<Entry>>> {
        let doing = format!("reading dead letters in {}", keys.dead);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut pipe = redis::Pipeline::with_capacity(ids.len());
        for id in ids {
            let id = id.to_string();
            pipe.cmd("XRANGE").arg(&keys.dead).arg(&id).arg(&id);
        }
        let values: Vec<Value> = pipe
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let parse = |(value, id): (Value, &EntryId)| {
            let Some(entry) = reply::array(value)?.pop() else {
                return Some(None);
            };
            let [_, strings] = reply::tuple(entry)?;
            let fields: Fields = reply::fields(strings)?;
            Some(Some(Entry { id: *id, fields }))
        };
        let entries: Option<_> = values.into_iter().zip(ids).map(parse).collect();
        entries.ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// The newest id the dead letters have ever had; None where there have never been any.
    pub async fn newest_letter(&self, keys: &Keys) -> Result<Option<EntryId>> {
        let doing = format!("looking for dead letters in {}", keys.dead);
        let mut conn = self.at(&keys.stream).get().await?;
        newest(&mut conn, &keys.dead)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))
    }

    /// Gives letters back to their group. Answers for those it came to, which is at least the first, the id of the
    /// copy; None where the letter is gone.
    pub async fn replay(
        &self,
        keys: &Keys,
        by: &str,
        tickets: &[Ticket],
    ) -> (Vec<Option<EntryId>>, Result<()>) {
        let doing = format!("replaying dead letters in {}", keys.dead);
        let mut call = REPLAY.key(&keys.dead);
        call.key(&keys.again)
            .key(&keys.protocol)
            .key(&keys.notes)
            .key(&keys.groups)
            .key(&keys.runs)
            .key(&keys.out)
            .arg(PROTOCOL)
            .arg(by)
            .arg(BYTES);
        for ticket in tickets.iter().take(LETTERS) {
            call.arg(ticket.id.to_string()).arg(&ticket.mark[..]);
        }
        let value: Result<Value> = async {
            let mut conn = self.at(&keys.stream).get().await?;
            call.invoke_async(&mut conn)
                .await
                .map_err(|error| refusal(Who::Operator, &doing, error))
        }
        .await;
        let value = match value {
            Ok(value) => value,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let parse = |value| {
            let [copies, error, newer] = reply::tuple(value)?;
            let copies: Vec<Option<EntryId>> =
                reply::array(copies)?.iter().map(reply::id).collect();
            Some((copies, reply::text(error), reply::text(newer)))
        };
        match parse(value) {
            Some((copies, None, None)) if copies.is_empty() != tickets.is_empty() => {
                (copies, Err(Trouble::garbled(&doing).into_error()))
            }
            Some((copies, None, None)) => (copies, Ok(())),
            Some((copies, _, Some(protocol))) => (copies, Err(newer(&protocol))),
            Some((copies, Some(error), _)) => {
                (copies, Err(refusal_in(Who::Operator, &doing, &error)))
            }
            None => (Vec::new(), Err(Trouble::garbled(&doing).into_error())),
        }
    }

    /// Deletes letters. Answers for those it came to, which is at least the first, what became of them.
    pub async fn purge(&self, keys: &Keys, tickets: &[Ticket]) -> Result<Vec<Purged>> {
        let doing = format!("deleting dead letters in {}", keys.dead);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut call = PURGE.key(&keys.dead);
        call.key(&keys.protocol)
            .key(&keys.notes)
            .key(&keys.groups)
            .key(&keys.runs)
            .key(&keys.out)
            .arg(PROTOCOL)
            .arg(BYTES);
        for ticket in tickets.iter().take(LETTERS) {
            call.arg(ticket.id.to_string()).arg(&ticket.mark[..]);
        }
        let value: Value = call
            .invoke_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        match reply::array(value.clone()) {
            Some(items) if items.is_empty() != tickets.is_empty() => {
                Err(Trouble::garbled(&doing).into_error())
            }
            Some(items) => Ok(items.iter().map(Purged::of).collect()),
            None => Err(newer(&reply::text(value).unwrap_or_default())),
        }
    }
}

fn head(value: Value) -> Option<Head> {
    let [
        id,
        event_type,
        fields,
        bytes,
        death,
        fingerprint,
        version,
        masked,
    ] = reply::tuple(value)?;
    let lossy = |value| Some(String::from_utf8_lossy(&reply::bytes(value)?).into_owned());
    Some(Head {
        id: reply::id(&id)?,
        event_type: lossy(event_type),
        fields: reply::int(&fields)? as usize,
        bytes: reply::int(&bytes)? as u64,
        death: reply::array(death)?
            .into_iter()
            .map(lossy)
            .collect::<Option<_>>()?,
        fingerprint: reply::text(fingerprint)?,
        version: lossy(version),
        masked: lossy(masked),
    })
}

pub(super) fn newer(protocol: &str) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!(
            "a newer release works on this group (protocol {protocol}; this one speaks {PROTOCOL}): use its program"
        ),
    )
}
