//! Dead letters as lines of JSON, to be kept where they are purged.
//!
//! A line is a [`DeadLetter`](super::DeadLetter) as JSON with its fields: `"fields": [["type", "order.created"],
//! ["data", {"base64": "3gAB…"}]]`, in their order. A name or value that is text is a string; one that is not UTF-8
//! is `{"base64": "…"}` (RFC 4648, with padding). `replay` has the four fields of the last replay in the same form.

use std::io::Write;

use super::letter::{DeadLetter, WholeLetter};
use super::notes::LetterNotes;
use super::selection::{Progress, PurgedLetters, Selection};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::Ticket;

/// Most letters and about most bytes that are read at once.
const LETTERS: usize = 100;
const BYTES: u64 = 1 << 20;

/// Letters that have been exported, and that nothing has become of yet.
#[derive(Debug)]
#[must_use = "they are exported and not deleted"]
pub struct Exported {
    selection: Selection,
    /// Of which stream, and which letter.
    tickets: Vec<(usize, Ticket)>,
}

impl Selection {
    /// Writes all letters of it to `to`, a line of JSON each. A letter that goes meanwhile is left out.
    ///
    /// `progress` is told how many there are so far. What is exported stays; see [`Exported::purge`].
    ///
    /// # Errors
    /// If Redis can't be reached, or `to` fails.
    pub async fn export(
        &self,
        to: &mut (dyn Write + Send),
        mut progress: impl FnMut(u64),
    ) -> Result<Exported> {
        let mut tickets = Vec::new();
        let mut letters = self.letters();
        let mut batch: Vec<(usize, DeadLetter)> = Vec::new();
        loop {
            let next = letters.next_with_place().await?;
            let ends = match (&next, batch.first()) {
                (None, _) => true,
                (Some((at, _)), Some((of, _))) => at != of,
                _ => false,
            };
            let bytes: u64 = batch.iter().map(|(_, letter)| letter.bytes).sum();
            if (ends || batch.len() >= LETTERS || bytes >= BYTES) && !batch.is_empty() {
                for (at, ticket) in self.write(to, &batch).await? {
                    tickets.push((at, ticket));
                }
                progress(tickets.len() as u64);
                batch.clear();
            }
            match next {
                Some(letter) => batch.push(letter),
                None => break,
            }
        }
        to.flush().map_err(failed)?;
        Ok(Exported {
            selection: self.clone(),
            tickets,
        })
    }

    /// Writes letters of one stream, and answers for those that were still there.
    async fn write(
        &self,
        to: &mut (dyn Write + Send),
        batch: &[(usize, DeadLetter)],
    ) -> Result<Vec<(usize, Ticket)>> {
        let Some((at, _)) = batch.first() else {
            return Ok(Vec::new());
        };
        let keys = &self.dead.streams[*at];
        let ids: Vec<_> = batch.iter().map(|(_, letter)| letter.id).collect();
        let tickets: Vec<_> = batch.iter().map(|(_, letter)| letter.ticket()).collect();
        let mut written = Vec::with_capacity(batch.len());
        let entries = self.dead.pool.letters(keys, &ids).await?;
        let notes = self.dead.pool.notes(keys, &tickets).await?;
        for ((entry, notes), (_, head)) in entries.into_iter().zip(notes).zip(batch) {
            let letter = entry.and_then(|entry| WholeLetter::parse(entry, &keys.stream));
            let Some(mut letter) = letter else {
                continue;
            };
            letter.head.fingerprint.clone_from(&head.fingerprint);
            letter.notes = LetterNotes::of(notes);
            serde_json::to_writer(&mut *to, &letter).map_err(|error| failed(error.into()))?;
            to.write_all(b"\n").map_err(failed)?;
            written.push((*at, letter.head.ticket()));
        }
        Ok(written)
    }
}

impl Exported {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.tickets.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Deletes these letters and no others. See to it before that what was written lasts ([`std::fs::File::sync_all`]).
    ///
    /// `progress` is told how many have been deleted so far. Returns how many that were in the end.
    ///
    /// # Errors
    /// If Redis can't be reached; what had been deleted by then is deleted.
    pub async fn purge(self, progress: impl FnMut(u64)) -> Result<u64> {
        Ok(self.purge_letters(progress).await?.deleted)
    }

    /// As [`purge`](Self::purge). Returns what became of all of them.
    ///
    /// # Errors
    /// As [`purge`](Self::purge).
    pub async fn purge_letters(self, progress: impl FnMut(u64)) -> Result<PurgedLetters> {
        let mut progress = Progress::new(progress);
        for lot in self.tickets.chunk_by(|(a, _), (b, _)| a == b) {
            let tickets: Vec<Ticket> = lot.iter().map(|(_, ticket)| ticket.clone()).collect();
            self.selection
                .purge_tickets(lot[0].0, &tickets, &mut progress)
                .await?;
        }
        Ok(progress.done)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("can't write the export: {error}"),
    )
    .with_source(error)
}
