//! Purges that can be undone: the letters are moved, not deleted, to a key that expires.
//!
//! They take as much memory as before until then, so it is not what to do where memory is short:
//! [`Selection::purge`] deletes at once. What comes back is the letters as they were, their fields byte for byte, under
//! new ids behind those that are there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::of_group::DeadLetters;
use super::selection::{Progress, PurgedLetters, STEP, Selection};
use crate::error::{Error, ErrorKind, Result};
use crate::rfc3339;
use crate::stream::Undoable;

/// The longest a purge can be undone.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A purge that can be undone: one that is begun, or one that is known of, by [`DeadLetters::purges`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PurgeRun {
    /// What it is undone by.
    pub name: String,
    /// Who purges.
    pub by: String,
    /// How long it can be undone, from its last letter on.
    #[serde(skip)]
    pub within: Duration,
    /// When it began, by the server's clock.
    #[serde(serialize_with = "as_time")]
    pub at: SystemTime,
    /// Until when it can be undone, by the server's clock.
    #[serde(serialize_with = "as_time")]
    pub until: SystemTime,
    /// How many letters it took.
    pub letters: u64,
}

/// What came of undoing a purge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Undone {
    /// Letters that are back.
    pub restored: u64,
}

impl PurgeRun {
    /// Names a purge that is to be undone within this time, at most 30 days.
    ///
    /// # Errors
    /// If that is no time, or longer.
    pub fn begin(by: impl Into<String>, within: Duration) -> Result<Self> {
        if within.is_zero() || within > LONGEST {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "a purge can't be undone within {}: give it from 1ms to 30d",
                    crate::duration::format(within)
                ),
            ));
        }
        let name = std::iter::repeat_with(|| fastrand::alphanumeric().to_ascii_lowercase());
        Ok(PurgeRun {
            name: name.take(10).collect(),
            by: by.into(),
            within,
            at: UNIX_EPOCH,
            until: UNIX_EPOCH,
            letters: 0,
        })
    }
}

impl Selection {
    /// Purges all the letters so that [`DeadLetters::undo_purge`] can bring them back for a while. `progress` is told
    /// how many have been purged so far. Returns how many that were in the end.
    ///
    /// # Errors
    /// If Redis can't be reached or refuses it, as it does if its memory is full; what had been purged by then is, and
    /// can be brought back.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use streamhand::dead_letters::{DeadLetters, Filter, PurgeRun};
    /// # async fn example(dead: &DeadLetters) -> streamhand::Result<()> {
    /// let run = PurgeRun::begin("alice@ops", Duration::from_secs(3600))?;
    /// dead.select(Filter::new()).await?.purge_undoably(&run, |_| ()).await?;
    /// assert!(dead.undo_purge(&run.name, |_| ()).await?.restored > 0);
    /// # Ok(()) }
    /// ```
    pub async fn purge_undoably(&self, run: &PurgeRun, progress: impl FnMut(u64)) -> Result<u64> {
        Ok(self.purge_letters_undoably(run, progress).await?.deleted)
    }

    /// As [`purge_undoably`](Self::purge_undoably). Returns what became of all of them: those that are held stay.
    ///
    /// # Errors
    /// As [`purge_undoably`](Self::purge_undoably).
    pub async fn purge_letters_undoably(
        &self,
        run: &PurgeRun,
        progress: impl FnMut(u64),
    ) -> Result<PurgedLetters> {
        let undoable = Undoable {
            run: run.name.clone(),
            by: run.by.clone(),
            within: run.within,
        };
        let mut progress = Progress::new(progress);
        let mut letters = self.letters();
        while let Some((at, mut tickets)) = letters.lot(STEP).await? {
            let keys = &self.dead.streams[at];
            while !tickets.is_empty() {
                let (there, result) = self.dead.pool.purge_kept(keys, &tickets, &undoable).await;
                progress.more(&there);
                result?;
                tickets.drain(..there.len());
            }
        }
        Ok(progress.done)
    }
}

impl DeadLetters {
    /// The purges that can be undone now, the latest first.
    ///
    /// # Errors
    /// If Redis can't be reached.
    pub async fn purges(&self) -> Result<Vec<PurgeRun>> {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        let (mut purges, mut others): (Vec<PurgeRun>, _) = (Vec::new(), self.streams.len());
        for (place, keys) in self.streams.iter().enumerate() {
            let notes = self.pool.purges(keys).await;
            let notes = self.or_left_out(place, notes, &mut others)?;
            for note in notes.unwrap_or_default() {
                let (began, until) = (at(note.at_ms), at(note.until_ms));
                // One purge may take letters of several streams.
                match purges.iter_mut().find(|known| known.name == note.run) {
                    Some(known) => {
                        known.letters += note.letters;
                        known.at = known.at.min(began);
                        known.until = known.until.min(until);
                    }
                    None => purges.push(PurgeRun {
                        name: note.run,
                        by: note.by,
                        within: until.duration_since(began).unwrap_or_default(),
                        at: began,
                        until,
                        letters: note.letters,
                    }),
                }
            }
        }
        purges.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.name.cmp(&b.name)));
        Ok(purges)
    }

    /// Brings back what a purge has taken, by its name. `progress` is told how many letters are back so far. Stopped
    /// half-way it goes on where it is begun again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is nothing of this name to bring back: its time is over, or it was undone. If
    /// Redis can't be reached or refuses it; what is back by then is.
    pub async fn undo_purge(&self, name: &str, mut progress: impl FnMut(u64)) -> Result<Undone> {
        let (mut restored, mut others) = (0, self.streams.len());
        for (place, keys) in self.streams.iter().enumerate() {
            loop {
                let undone = self.pool.undo_purge(keys, name).await;
                let undone = self.or_left_out(place, undone, &mut others)?;
                // Nothing is left of a stream that is left out.
                let (back, left) = undone.unwrap_or_default();
                if back > 0 {
                    restored += back;
                    progress(restored);
                }
                if left == 0 {
                    break;
                }
            }
        }
        match restored {
            0 => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "there is no purge {name:?} of the group {:?} to undo: its time is over, or it was undone before",
                    self.group()
                ),
            )),
            restored => Ok(Undone { restored }),
        }
    }
}

fn as_time<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&rfc3339::millis(*time))
}
