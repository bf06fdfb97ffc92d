//! Snapshots of aggregates: a hash beside each, which holds its state as of one of its events.

use super::error::Trouble;
use super::line::Line;
use super::reply;
use super::script::script;
use crate::error::Result;

script!(KEEP_SNAPSHOT, "keep_snapshot", behind "common/ids");

/// A snapshot as it is kept.
pub(crate) struct KeptSnapshot {
    pub version: u64,
    /// The id of the event at that version.
    pub event: String,
    pub schema: u32,
    pub state: Vec<u8>,
}

impl Line {
    /// The snapshot in a key; None if there is none, or nothing that can be one.
    pub async fn snapshot(&self, key: &str) -> Result<Option<KeptSnapshot>> {
        let doing = format!("reading the snapshot in {key}");
        let mut line = self.get(key).await?;
        let mut command = redis::cmd("HMGET");
        command.arg(&[key, "version", "event", "schema", "state"]);
        let fields: Vec<Option<Vec<u8>>> = match command.query_async(&mut line.conn).await {
            Ok(fields) => fields,
            Err(error) if error.code() == Some("WRONGTYPE") => {
                tracing::debug!(key, "holds something else than a snapshot");
                return Ok(None);
            }
            Err(error) => return Err(line.failed(&doing, error).await),
        };
        let snapshot = parse(fields);
        if let Some(None) = snapshot {
            tracing::debug!(key, "holds nothing that can be a snapshot");
        }
        Ok(snapshot.flatten())
    }

    /// Keeps a snapshot, unless a newer one is there, or the event is not. Returns whether it is kept.
    pub async fn keep_snapshot(
        &self,
        aggregate: &str,
        key: &str,
        snapshot: &KeptSnapshot,
    ) -> Result<bool> {
        let doing = format!("keeping the snapshot in {key}");
        let mut line = self.get(key).await?;
        let mut call = KEEP_SNAPSHOT.key(aggregate);
        call.key(key);
        call.arg(snapshot.version).arg(&snapshot.event);
        call.arg(snapshot.schema).arg(&snapshot.state[..]);
        let answer = line.invoke(&doing, &call).await?;
        match reply::int(&answer) {
            Some(kept) => Ok(kept == 1),
            None => Err(Trouble::garbled(&doing).into_error()),
        }
    }
}

/// None if there are no fields at all.
fn parse(fields: Vec<Option<Vec<u8>>>) -> Option<Option<KeptSnapshot>> {
    if fields.iter().all(Option::is_none) {
        return None;
    }
    let mut fields = fields.into_iter().map(Option::unwrap_or_default);
    let mut text = || String::from_utf8(fields.next()?).ok();
    let (version, event, schema) = (text(), text(), text());
    let state = fields.next();
    Some((|| {
        Some(KeptSnapshot {
            version: version?.parse().ok().filter(|version| *version > 0)?,
            event: event?,
            schema: schema?.parse().ok()?,
            state: state?,
        })
    })())
}
