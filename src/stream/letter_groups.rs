//! How many dead letters are alike, counted in Redis as they come and go.

use redis::Value;

use super::error::{Trouble, Who, refusal};
use super::keys::Keys;
use super::letters::BYTES;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result as OurResult;
use crate::event::EntryId;

script!(
    GROUPS,
    "groups",
    behind "common/ids",
    behind "common/death",
    behind "common/fingerprint",
    behind "common/rights"
);

/// Letters counted in one step: another client waits meanwhile.
const LETTERS: usize = 200;

/// Letters that are alike.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CountedGroup {
    pub fingerprint: String,
    pub count: u64,
    pub reason: String,
    pub event_type: Option<String>,
    pub handler: String,
    /// The error without what differs among them.
    pub masked: String,
    /// The error of one of them.
    pub example: String,
    pub first: Option<EntryId>,
    pub last: Option<EntryId>,
    /// Schema versions of their events.
    pub versions: Vec<u32>,
}

/// How far the counting is.
#[derive(Debug)]
pub(crate) enum Counting {
    /// So many are counted, and there are more.
    On(u64),
    Done(Vec<CountedGroup>),
}

impl Pool {
    /// Counts letters that are alike, a step further. At most so many groups are told apart.
    pub async fn count_groups(&self, keys: &Keys, most: usize) -> OurResult<Counting> {
        let doing = format!("counting the dead letters in {}", keys.dead);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = GROUPS
            .key(&keys.dead)
            .key(&keys.groups)
            .arg(LETTERS)
            .arg(BYTES)
            .arg(most)
            .invoke_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        counting(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }
}

fn counting(value: Value) -> Option<Counting> {
    let mut items = reply::array(value)?.into_iter();
    let (more, counted) = (items.next()?, items.next()?);
    if reply::int(&more)? == 1 {
        return Some(Counting::On(reply::int(&counted)? as u64));
    }
    let mut groups: Vec<CountedGroup> = Vec::new();
    let mut pairs = reply::array(items.next()?)?.into_iter();
    let mut places = std::collections::HashMap::new();
    while let (Some(name), Some(value)) = (pairs.next(), pairs.next()) {
        let name = reply::text(name)?;
        let Some((fingerprint, what)) = name.split_once(':') else {
            continue;
        };
        let at = *places.entry(fingerprint.to_owned()).or_insert(groups.len());
        if at == groups.len() {
            groups.push(CountedGroup {
                fingerprint: fingerprint.to_owned(),
                ..CountedGroup::default()
            });
        }
        let group = &mut groups[at];
        match what {
            "n" => group.count = reply::int(&value).unwrap_or(0).max(0) as u64,
            "first" => group.first = reply::id(&value),
            "last" => group.last = reply::id(&value),
            "versions" => {
                let text = reply::text(value).unwrap_or_default();
                group.versions = text.split(' ').filter_map(|one| one.parse().ok()).collect();
                group.versions.sort_unstable();
            }
            "is" => group.describe(&reply::bytes(value)?),
            _ => {}
        }
    }
    groups.retain(|group| group.count > 0);
    Some(Counting::Done(groups))
}

impl CountedGroup {
    /// What its letters have in common, as the script packs it.
    fn describe(&mut self, packed: &[u8]) {
        let Ok(parts) = rmp_serde::from_slice::<Vec<Part>>(packed) else {
            return;
        };
        let mut texts = parts.into_iter().map(|part| part.0);
        self.reason = texts.next().flatten().unwrap_or_default();
        self.event_type = texts.next().flatten();
        self.handler = texts.next().flatten().unwrap_or_default();
        self.masked = texts.next().flatten().unwrap_or_default();
        self.example = texts.next().flatten().unwrap_or_default();
    }
}

/// A text, of any bytes; `false` where there is none.
struct Part(Option<String>);

impl<'de> serde::Deserialize<'de> for Part {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Texts;
        impl serde::de::Visitor<'_> for Texts {
            type Value = Part;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text, or false")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Part, E> {
                Ok(Part(None))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Part, E> {
                Ok(Part(Some(String::from_utf8_lossy(bytes).into_owned())))
            }
            fn visit_str<E>(self, text: &str) -> Result<Part, E> {
                Ok(Part(Some(text.to_owned())))
            }
        }
        from.deserialize_any(Texts)
    }
}
