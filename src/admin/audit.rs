//! Who did what with a group by hand, and why.

use std::time::SystemTime;

use serde::Serialize;

use super::{Admin, since_1970, text};
use crate::error::Result;
use crate::event::EntryId;
use crate::stream::AuditNote;

/// Something that was done by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Audited {
    /// Its id in the audit's stream.
    #[serde(serialize_with = "text")]
    pub id: EntryId,
    /// When, by the server's clock.
    #[serde(rename = "at_ms", serialize_with = "since_1970")]
    pub at: SystemTime,
    /// Who did it.
    pub who: String,
    /// The command line that does the same.
    pub command: String,
    /// Why.
    pub reason: String,
    /// Why it was not done after all; None where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Admin {
    /// Notes that `who` does what `command` does, and why: before it is done, and once more with `failed` if it could not
    /// be. The last 10,000 notes or so are kept.
    ///
    /// # Errors
    /// Where Redis can't be reached, or this user may not write.
    pub async fn audit(
        &self,
        who: &str,
        command: &str,
        reason: &str,
        failed: Option<&str>,
    ) -> Result<()> {
        let note = AuditNote {
            who: who.to_owned(),
            command: command.to_owned(),
            reason: reason.to_owned(),
            failed: failed.map(str::to_owned),
        };
        self.pool.add_audit_note(self.group(), &note).await?;
        Ok(())
    }

    /// What was done by hand, the newest first: so many, before an id if one is given.
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses to say.
    pub async fn audited(&self, before: Option<EntryId>, most: usize) -> Result<Vec<Audited>> {
        let notes = self.pool.audit_notes(self.group(), before, most).await?;
        let audited = notes.into_iter().map(|(id, note)| Audited {
            id,
            at: id.time(),
            who: note.who,
            command: note.command,
            reason: note.reason,
            failed: note.failed,
        });
        Ok(audited.collect())
    }
}
