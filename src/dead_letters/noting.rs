//! Noting something of a dead letter: a text, whom it is assigned to, that it is held, an edit.

use super::letter::DeadLetter;
use super::notes::{Edit, LetterNotes, packed, written_at};
use super::of_group::DeadLetters;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::fields::Fields;
use crate::stream::{NotedLetter, Ticket};

/// Most bytes of a note.
const MOST_NOTE_BYTES: usize = 4096;

impl DeadLetters {
    /// What is noted of these letters of one stream, in their order.
    ///
    /// # Errors
    /// If `stream` is none of these, or Redis can't be reached.
    pub async fn notes(&self, stream: &str, letters: &[DeadLetter]) -> Result<Vec<LetterNotes>> {
        let keys = &self.streams[self.place(stream)?];
        let tickets: Vec<Ticket> = letters.iter().map(DeadLetter::ticket).collect();
        let notes = self.pool.notes(keys, &tickets).await?;
        Ok(notes.into_iter().map(LetterNotes::of).collect())
    }

    /// Notes a text of a letter, in the place of the one before; an empty one is none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the letter is gone; [`ErrorKind::Invalid`] if the text is too long.
    pub async fn note(&self, stream: &str, id: EntryId, by: &str, text: &str) -> Result<()> {
        self.remark(stream, id, "note", by, text).await
    }

    /// Assigns a letter to somebody; to nobody if `to` is empty.
    ///
    /// # Errors
    /// As [`note`](Self::note).
    pub async fn assign(&self, stream: &str, id: EntryId, by: &str, to: &str) -> Result<()> {
        self.remark(stream, id, "assigned", by, to).await
    }

    /// Holds a letter: it is neither purged nor dropped because `keep` is over. It can be replayed.
    ///
    /// # Errors
    /// As [`note`](Self::note).
    pub async fn hold(&self, stream: &str, id: EntryId, by: &str, why: &str) -> Result<()> {
        let remark = self.written(by, why).await?;
        self.set(stream, id, None, &[("hold", remark.as_bytes())])
            .await
    }

    /// Holds a letter no longer.
    ///
    /// # Errors
    /// As [`note`](Self::note).
    pub async fn release_hold(&self, stream: &str, id: EntryId) -> Result<()> {
        self.set(stream, id, None, &[("hold", b"")]).await
    }

    /// Has a replay of the letter put these values in the place of its fields of those names, or add them. The letter stays
    /// as it is. `seen` is the edit that this one takes the place of; without fields there is none any more.
    ///
    /// Nothing is looked at here: [`Admin::edit`](crate::admin::Admin::edit) has it validated.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the letter is gone; [`ErrorKind::Exists`] if it was edited otherwise meanwhile.
    pub(crate) async fn set_edit(
        &self,
        letter: &DeadLetter,
        by: &str,
        seen: Option<&Edit>,
        fields: &Fields,
    ) -> Result<()> {
        let seen = seen.map(|edit| written_at(edit.at, &edit.by));
        let (edit, edited) = match fields.is_empty() {
            true => (Vec::new(), String::new()),
            false => (packed(fields), written_at(self.now().await?, by)),
        };
        let values: [(&str, &[u8]); 2] = [("edit", &edit), ("edited", edited.as_bytes())];
        let seen = seen.unwrap_or_default();
        self.set_of(&letter.stream, &letter.ticket(), Some(&seen), &values)
            .await
    }

    async fn remark(
        &self,
        stream: &str,
        id: EntryId,
        what: &str,
        by: &str,
        text: &str,
    ) -> Result<()> {
        if text.len() > MOST_NOTE_BYTES {
            let message = format!(
                "the text has {} bytes: {MOST_NOTE_BYTES} are the most",
                text.len()
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let remark = match text.trim() {
            "" => String::new(),
            text => self.written(by, text).await?,
        };
        self.set(stream, id, None, &[(what, remark.as_bytes())])
            .await
    }

    async fn set(
        &self,
        stream: &str,
        id: EntryId,
        seen: Option<&str>,
        values: &[(&str, &[u8])],
    ) -> Result<()> {
        let letter = self.pick(stream, vec![id])?.letters().next().await?;
        let letter = letter.ok_or_else(|| self.no_letter(stream, id))?;
        self.set_of(stream, &letter.ticket(), seen, values).await
    }

    async fn set_of(
        &self,
        stream: &str,
        ticket: &Ticket,
        seen: Option<&str>,
        values: &[(&str, &[u8])],
    ) -> Result<()> {
        let keys = &self.streams[self.place(stream)?];
        match self.pool.note(keys, ticket, seen, values).await? {
            NotedLetter::Done => Ok(()),
            NotedLetter::Gone => Err(self.no_letter(stream, ticket.id)),
            NotedLetter::Changed => {
                let message = format!(
                    "the dead letter {} was edited by somebody else meanwhile: look at it again",
                    ticket.id
                );
                Err(Error::new(ErrorKind::Exists, message))
            }
        }
    }

    /// A remark as it is kept: when and by whom, and below that the text.
    async fn written(&self, by: &str, text: &str) -> Result<String> {
        let head = written_at(self.now().await?, by);
        Ok(format!("{head}\n{}", text.trim()))
    }
}
