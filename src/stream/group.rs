//! The group: joining it, who is in it, and leaving it.

use redis::Value;

use super::clock::Expected;
use super::connection::Link;
use super::error::Trouble;
use super::keys::Keys;
use super::obstacle::need;
use super::script::script;
use super::{PROTOCOL, reply};
use crate::config::Start;
use crate::event::EntryId;

/// How a worker came into its group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The group was there.
    There,
    /// There was none; it begins at this id.
    Created(String),
    /// It had been destroyed and was made anew at this id.
    Restored(String),
    /// A newer release's workers are in it, with this protocol number.
    Foreign(String),
}

/// What a worker knows of a group it has joined, should the stream and all that is noted of it be deleted: from then on
/// the group is not new, whoever makes it anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// What it was called when it was made, unlike any other.
    name: String,
    /// How far it had read, as an id.
    last: String,
    /// What that worker's last renewal noted of it.
    note: String,
}

/// What joining came to.
pub(crate) struct Join {
    pub how: Joined,
    pub known: Known,
    /// So many entries come back that a group had passed over that was made as if it were new.
    pub brought: u64,
    /// There are more of them: to be joined once more with what was known before.
    pub more: bool,
}

impl Known {
    /// How far it has read, as far as is known.
    pub fn last(&self) -> Option<EntryId> {
        self.last.parse().ok()
    }

    /// Whether they speak of one group, not of one that was made anew.
    pub fn is_of(&self, other: &Known) -> bool {
        self.name == other.name
    }

    /// As `renew.lua` answers it.
    pub(super) fn of(parts: Vec<Value>) -> Option<Self> {
        let [name, last, note] = parts.try_into().ok()?;
        Some(Known {
            name: reply::text(name).unwrap_or_default(),
            last: reply::text(last)?,
            note: reply::text(note)?,
        })
    }
}

/// A consumer of a group, as Redis lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumerInfo {
    pub name: String,
    pub pending: u64,
    /// Milliseconds since it was last heard of.
    pub idle_ms: u64,
}

impl ConsumerInfo {
    /// All that XINFO CONSUMERS lists.
    pub(super) fn all(value: Value) -> Option<Vec<Self>> {
        let parse = |value: Value| {
            let mut info = ConsumerInfo {
                name: String::new(),
                pending: 0,
                idle_ms: 0,
            };
            let mut items = reply::array(value)?.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                match &reply::bytes(key)?[..] {
                    // A foreign client's name may be any bytes; it only has to be shown.
                    b"name" => {
                        info.name = String::from_utf8_lossy(&reply::bytes(value)?).into_owned()
                    }
                    b"pending" => info.pending = reply::int(&value)? as u64,
                    b"idle" => info.idle_ms = reply::int(&value)? as u64,
                    _ => {}
                }
            }
            Some(info)
        };
        reply::array(value)?.into_iter().map(parse).collect()
    }

    /// Whether entries come to this consumer one at a time because they may have killed their workers.
    pub fn is_alone(&self) -> bool {
        self.name.ends_with('!')
    }

    /// The lease in the name, in milliseconds; None for a consumer that is not ours.
    pub fn lease_ms(&self) -> Option<u64> {
        let rest = self.name.strip_prefix("sh")?;
        let (protocol, rest) = rest.split_once('-')?;
        protocol.parse::<u32>().ok()?;
        rest.split_once('-')?.0.parse().ok()
    }
}

/// Most entries, and about how many bytes, that one step looks at to bring back what a group has passed over.
const BROUGHT: (usize, usize) = (1000, 4 << 20);

script!(JOIN, "join", behind "common/ids", behind "common/rights");
script!(FORGET, "forget", behind "common/rights", behind "common/clock");

impl Link {
    /// Makes sure that the group is there and speaks this release's protocol. `known`: what was known of it since it was
    /// joined the last time.
    pub async fn join(
        &mut self,
        keys: &Keys,
        group: &str,
        start: Start,
        known: Option<&Known>,
    ) -> Result<Join, Trouble> {
        let doing = format!("joining the group {group:?} of {:?}", keys.stream);
        let begin = match start {
            Start::Beginning => "0",
            Start::End => "$",
        };
        let answer = JOIN
            .key(&keys.stream)
            .key(&keys.position)
            .key(&keys.protocol)
            .key(&keys.failures)
            .key(&keys.retry)
            .arg(group)
            .arg(begin)
            .arg(PROTOCOL)
            .arg(format!("{:016x}", fastrand::u64(..)))
            .arg(known.map_or("", |known| &known.name))
            .arg(known.map_or("", |known| &known.last))
            .arg(known.map_or("", |known| &known.note))
            .arg(BROUGHT.0)
            .arg(BROUGHT.1)
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XINFO|GROUPS XGROUP|CREATE"),
                need(&keys.position, "hash", "HGETALL HSET DEL"),
                need(&keys.protocol, "string", "GET SET"),
                need(&keys.failures, "hash", "HKEYS"),
                need(&keys.retry, "zset", "ZCARD ZADD"),
            ]
        };
        let value: Value = self.answered(|| doing.clone(), answer, needs).await?;
        let parse = |value| {
            let [how, at, name, brought, more] = reply::tuple(value)?;
            let (how, last) = (reply::text(how)?, reply::text(at)?);
            let how = match &how[..] {
                "joined" => Joined::There,
                "created" => Joined::Created(last.clone()),
                "restored" => Joined::Restored(last.clone()),
                "foreign" => Joined::Foreign(last.clone()),
                _ => return None,
            };
            let name = reply::text(name)?;
            let of_it = known.filter(|known| known.name == name);
            let note = of_it.map_or(String::new(), |known| known.note.clone());
            Some(Join {
                how,
                known: Known { name, last, note },
                brought: reply::int(&brought)? as u64,
                more: reply::int(&more)? == 1,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing))
    }

    /// The group's consumers.
    pub async fn consumers(
        &mut self,
        keys: &Keys,
        group: &str,
    ) -> Result<Vec<ConsumerInfo>, Trouble> {
        let doing = "listing the group's consumers";
        let answer = redis::cmd("XINFO")
            .arg("CONSUMERS")
            .arg(&keys.stream)
            .arg(group)
            .query_async(&mut self.conn)
            .await;
        let needs = || vec![need(&keys.stream, "stream", "XINFO|CONSUMERS")];
        let value: Value = self.answered(|| doing.to_owned(), answer, needs).await?;
        ConsumerInfo::all(value).ok_or_else(|| Trouble::garbled(doing))
    }

    /// Deletes a consumer that has nothing pending. Returns whether it was deleted.
    pub async fn forget(
        &mut self,
        keys: &Keys,
        group: &str,
        consumer: &str,
        clock: Option<Expected>,
    ) -> Result<bool, Trouble> {
        let answer = FORGET
            .key(&keys.stream)
            .key(&keys.position)
            .key(&keys.breakers)
            .key(&keys.commits)
            .arg(group)
            .arg(consumer)
            .arg(&Expected::args(clock))
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING XGROUP|DELCONSUMER"),
                need(&keys.position, "hash", "HDEL"),
                need(&keys.breakers, "hash", "HDEL"),
                need(&keys.commits, "hash", "HDEL"),
            ]
        };
        let doing = || "forgetting a consumer".to_owned();
        self.answered(doing, answer, needs).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumers_name_tells_its_lease() {
        let named = |name: &str| ConsumerInfo {
            name: name.to_owned(),
            pending: 0,
            idle_ms: 0,
        };
        assert_eq!(named("sh1-30000-web-3-4711-x8f2").lease_ms(), Some(30_000));
        assert_eq!(named("sh1-2000-h-1-a!").lease_ms(), Some(2_000));
        for foreign in [
            "(parked)",
            "shop-1",
            "sh1",
            "shx-30000-a",
            "c1",
            "sh1-long-a",
        ] {
            assert_eq!(named(foreign).lease_ms(), None, "{foreign}");
        }
    }
}
