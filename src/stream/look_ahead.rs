//! Looking at new entries of a group without taking them: of which types they are.

use redis::Value;

use super::connection::Link;
use super::error::Trouble;
use super::keys::Keys;
use super::reply;
use super::script::script;
use crate::event::EntryId;

script!(LOOK_AHEAD, "look_ahead", behind "common/ids");

/// Most entries, and about most bytes, that one look takes in.
const MOST: usize = 1000;
const BYTES: usize = 1 << 20;

/// What a look found.
pub(crate) struct Seen {
    /// What stands there, in its order.
    pub runs: Vec<Run>,
    /// The last one that was looked at.
    pub upto: EntryId,
    /// There may be more behind it.
    pub more: bool,
    /// How far the group has read.
    pub read: EntryId,
    /// That is further than was known, or it was set back: what was known is of no more use.
    pub passed: bool,
}

/// Entries of one type that follow each other.
pub(crate) struct Run {
    pub kind: Vec<u8>,
    pub length: usize,
    pub last: EntryId,
}

impl Link {
    /// Looks at the next new entries, those behind `known`, of a group that had read up to `read`.
    pub async fn look_ahead(
        &mut self,
        keys: &Keys,
        group: &str,
        (read, known): (EntryId, EntryId),
    ) -> Result<Seen, Trouble> {
        let doing = || format!("looking ahead in {}", keys.stream);
        let value: Value = LOOK_AHEAD
            .key(&keys.stream)
            .arg(group)
            .arg(read.to_string())
            .arg(known.to_string())
            .arg(MOST)
            .arg(BYTES)
            .invoke_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(&doing(), error))?;
        let parse = |value| {
            let [runs, upto, more, read, passed] = reply::tuple(value)?;
            let mut runs = reply::array(runs)?.into_iter();
            let mut of = Vec::new();
            while let Some(kind) = runs.next() {
                of.push(Run {
                    kind: reply::bytes(kind)?.to_vec(),
                    length: reply::int(&runs.next()?)? as usize,
                    last: reply::id(&runs.next()?)?,
                });
            }
            Some(Seen {
                runs: of,
                upto: reply::id(&upto)?,
                more: reply::int(&more)? == 1,
                read: reply::id(&read)?,
                passed: reply::int(&passed)? == 1,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }
}
