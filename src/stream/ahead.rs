//! Looking at new entries of a group without taking them: of which types they are.

use redis::Value;

use super::connection::{Link, Trouble};
use super::keys::Keys;
use super::reply;
use super::settle::script;
use crate::event::EntryId;

script!(LOOK_AHEAD, "look_ahead", behind "common/ids");

/// Most entries, and about most bytes, that one look takes in.
const MOST: usize = 1000;
const BYTES: usize = 1 << 20;

/// What a look found.
pub(crate) struct Seen {
    /// Types in their order, each with how many entries of it follow each other.
    pub runs: Vec<(Vec<u8>, usize)>,
    /// The last one that was looked at.
    pub upto: EntryId,
    /// There may be more behind it.
    pub more: bool,
    /// The group has read further than was known: what was known is of no more use.
    pub passed: bool,
}

impl Link {
    /// Looks at the next new entries, those behind `known`.
    pub async fn look_ahead(
        &mut self,
        keys: &Keys,
        group: &str,
        known: EntryId,
    ) -> Result<Seen, Trouble> {
        let doing = || format!("looking ahead in {}", keys.stream);
        let value: Value = LOOK_AHEAD
            .key(&keys.stream)
            .arg(group)
            .arg(known.to_string())
            .arg(MOST)
            .arg(BYTES)
            .invoke_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(&doing(), error))?;
        let parse = |value| {
            let [runs, upto, more, passed] = reply::tuple(value)?;
            let mut runs = reply::array(runs)?.into_iter();
            let mut of = Vec::new();
            while let Some(kind) = runs.next() {
                let length = reply::int(&runs.next()?)? as usize;
                of.push((reply::bytes(kind)?.to_vec(), length));
            }
            Some(Seen {
                runs: of,
                upto: reply::id(&upto)?,
                more: reply::int(&more)? == 1,
                passed: reply::int(&passed)? == 1,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }
}
