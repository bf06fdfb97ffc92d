//! Where one entry stands with a group, read in one step.

use redis::Value;

use super::error::{Trouble, Who, refusal};
use super::keys::Keys;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;
use crate::event::{Entry, EntryId};

script!(ENTRY, "entry");

/// What Redis knows of an entry and a group.
#[derive(Debug)]
pub(crate) struct EntryStand {
    pub now_ms: u64,
    /// None where it is not in the stream.
    pub entry: Option<Entry>,
    /// The last id that the stream gave out.
    pub last: EntryId,
    /// The last one that the group was given; None where there is no such group.
    pub delivered: Option<EntryId>,
    /// With whom it is pending, since when it was heard of there in ms, and how often it was delivered.
    pub pending: Option<(String, u64, u64)>,
    /// When it comes back, in ms.
    pub due_ms: Option<u64>,
    /// What is noted of its failures.
    pub record: Option<String>,
    /// That it came to its end after a failure is known until then.
    pub guarded_ms: Option<u64>,
}

impl Pool {
    /// Where an entry stands with a group.
    pub async fn entry(&self, keys: &Keys, group: &str, id: EntryId) -> Result<EntryStand> {
        let doing = format!("looking at the entry {id} of {:?}", keys.stream);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = ENTRY
            .key(&keys.stream)
            .key(&keys.retry)
            .key(&keys.failures)
            .key(&keys.guards)
            .arg(group)
            .arg(id.to_string())
            .read_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        stand(value, id).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// The names of all groups of a stream; none where there is no such stream.
    pub async fn group_names(&self, stream: &str) -> Result<Vec<String>> {
        let doing = format!("looking for the groups of {stream:?}");
        let mut conn = self.at(stream).get().await?;
        let groups: redis::RedisResult<Value> = redis::cmd("XINFO")
            .arg("GROUPS")
            .arg(stream)
            .query_async(&mut conn)
            .await;
        let groups = match groups {
            Ok(groups) => groups,
            Err(error) if error.to_string().contains("no such key") => return Ok(Vec::new()),
            Err(error) if error.code() == Some("WRONGTYPE") => return Ok(Vec::new()),
            Err(error) => return Err(refusal(Who::Operator, &doing, error)),
        };
        let name = |group| {
            let mut fields = reply::array(group)?.into_iter();
            while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
                if reply::bytes(name)? == b"name" {
                    return Some(String::from_utf8_lossy(&reply::bytes(value)?).into_owned());
                }
            }
            None
        };
        let names: Option<_> = reply::array(groups).map(|all| all.into_iter().filter_map(name));
        names
            .map(Iterator::collect)
            .ok_or_else(|| Trouble::garbled(&doing).into_error())
    }
}

fn stand(value: Value, id: EntryId) -> Option<EntryStand> {
    let [now, fields, last, delivered, pending, due, record, guarded] = reply::tuple(value)?;
    let ms = |value| Some(reply::text(value)?.parse::<f64>().ok()? as u64);
    let pending = match reply::tuple(pending) {
        None => None,
        Some([consumer, idle, count]) => Some((
            String::from_utf8_lossy(&reply::bytes(consumer)?).into_owned(),
            reply::int(&idle)? as u64,
            reply::int(&count)? as u64,
        )),
    };
    Some(EntryStand {
        now_ms: reply::int(&now)? as u64,
        entry: reply::fields(fields).map(|fields| Entry { id, fields }),
        last: reply::id(&last)?,
        delivered: reply::id(&delivered),
        pending,
        due_ms: ms(due),
        record: reply::bytes(record).map(|record| String::from_utf8_lossy(&record).into_owned()),
        guarded_ms: ms(guarded),
    })
}
