//! The stream of a group in which stands who did what with it by hand.

use redis::Value;

use super::error::{Trouble, Who, refusal};
use super::pool::Pool;
use super::reply;
use crate::error::Result;
use crate::event::EntryId;

/// Older notes are dropped, a block of them at a time.
const KEPT: usize = 10_000;

/// The key: of the group, and of none of its streams.
pub(crate) fn audit_key(group: &str) -> String {
    format!("streamhand:{{{group}}}:audit")
}

/// What somebody did: its fields in the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuditNote {
    pub who: String,
    pub command: String,
    pub reason: String,
    /// Why it was not done after all.
    pub failed: Option<String>,
}

impl Pool {
    /// Adds a note.
    pub async fn add_audit_note(&self, group: &str, note: &AuditNote) -> Result<EntryId> {
        let key = audit_key(group);
        let doing = format!("writing to the audit {key}");
        let mut command = redis::cmd("XADD");
        command.arg(&key).arg("MAXLEN").arg("~").arg(KEPT).arg("*");
        command.arg("who").arg(&note.who);
        command.arg("command").arg(&note.command);
        command.arg("reason").arg(&note.reason);
        if let Some(failed) = &note.failed {
            command.arg("failed").arg(failed);
        }
        let mut conn = self.at(&key).get().await?;
        let id: Value = command
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        reply::id(&id).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// The last notes before an id, the newest first.
    pub async fn audit_notes(
        &self,
        group: &str,
        before: Option<EntryId>,
        most: usize,
    ) -> Result<Vec<(EntryId, AuditNote)>> {
        let key = audit_key(group);
        let doing = format!("reading the audit {key}");
        let from = before.map_or_else(|| "+".to_owned(), |before| format!("({before}"));
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&key).arg(from).arg("-").arg("COUNT").arg(most);
        let mut conn = self.at(&key).get().await?;
        let answer: Value = command
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let notes = reply::array(answer).map(|notes| notes.into_iter().map(note).collect());
        let notes: Option<Option<Vec<_>>> = notes;
        notes
            .flatten()
            .ok_or_else(|| Trouble::garbled(&doing).into_error())
    }
}

fn note(entry: Value) -> Option<(EntryId, AuditNote)> {
    let [id, fields] = reply::tuple(entry)?;
    let id = reply::id(&id)?;
    let mut fields = reply::array(fields)?.into_iter();
    let mut note = AuditNote::default();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let (name, value) = (reply::text(name)?, reply::bytes(value)?);
        let value = String::from_utf8_lossy(&value).into_owned();
        match &name[..] {
            "who" => note.who = value,
            "command" => note.command = value,
            "reason" => note.reason = value,
            "failed" => note.failed = Some(value),
            _ => {}
        }
    }
    Some((id, note))
}
