//! Letters that are meant together: counting, replaying and deleting them. `letters.rs` goes through them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::filter::Filter;
use super::letter::DeadLetter;
use super::letters::{Letters, What};
use super::of_group::DeadLetters;
use super::reason::{BuriedFor, Reason};
use crate::error::Result;
use crate::event::EntryId;
use crate::rfc3339;
use crate::stream::{Purged, Ticket};

/// Most letters replayed in one step: between two steps other clients have their turn.
pub(super) const STEP: usize = 100;

/// Letters that are meant together. It does not hold them: each use goes through Redis anew, and finds no letter
/// that was buried after the selection was made.
#[derive(Clone, Debug)]
pub struct Selection {
    pub(super) dead: DeadLetters,
    pub(super) what: Arc<What>,
}

/// How many letters are meant, by [`Selection::count`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counted {
    /// Letters there are.
    pub found: u64,
    /// The ids picked of which there is no letter.
    #[serde(serialize_with = "as_texts")]
    pub missing: Vec<EntryId>,
    /// Entries passed over because no worker wrote them.
    #[serde(skip)]
    pub strangers: u64,
    /// Letters whose own deadline had passed, before they were edited. Replayed with it they are dead letters again.
    #[serde(skip)]
    pub expired: u64,
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Replayed {
    /// Letters whose entries went back to their group.
    pub replayed: u64,
    /// Letters that were gone when their turn came: somebody else had replayed or purged them.
    pub gone: u64,
}

/// What became of letters that were to be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PurgedLetters {
    /// Letters that were deleted.
    pub deleted: u64,
    /// Letters that are held, and stay.
    pub held: u64,
    /// Letters that were gone when their turn came.
    pub gone: u64,
}

/// How many letters there are, and of what kind, by [`Selection::stats`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// The group whose letters they are.
    pub group: String,
    /// How many there are.
    pub total: u64,
    /// Those that are alike, by stream, event type and reason, in this order.
    pub kinds: Vec<Tally>,
}

/// How many letters are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// The stream the entries were read from.
    pub stream: String,
    /// Their event type; None if they have none.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// Why they were buried.
    pub reason: BuriedFor,
    /// How many there are.
    pub count: u64,
    /// When the oldest was buried.
    #[serde(serialize_with = "to_the_second")]
    pub oldest: SystemTime,
    /// When the newest was buried.
    #[serde(serialize_with = "to_the_second")]
    pub newest: SystemTime,
}

impl DeadLetters {
    /// The letters that `filter` lets through and that are there now: the oldest first, stream by stream.
    ///
    /// # Errors
    /// If Redis can't be reached, or the filter names a stream that is none of these.
    pub async fn select(&self, filter: Filter) -> Result<Selection> {
        Selection::filtered(self.clone(), filter).await
    }

    /// These letters of one stream, in this order.
    ///
    /// # Errors
    /// If `stream` is none of these.
    pub fn pick(&self, stream: &str, ids: Vec<EntryId>) -> Result<Selection> {
        let at = self.place(stream)?;
        Ok(Selection::picked(self.clone(), at, ids))
    }

    /// The letter of this id, or, if there is none, those of the entry or the event that has it: what was buried
    /// under it, replayed copies included. None of them if there is nothing of the kind.
    ///
    /// # Errors
    /// If `stream` is none of these, or Redis can't be reached.
    pub async fn find(&self, stream: &str, id: &str) -> Result<Vec<DeadLetter>> {
        if let Ok(id) = id.parse()
            && let Some(letter) = self.pick(stream, vec![id])?.letters().next().await?
        {
            return Ok(vec![letter]);
        }
        let about = self.select(Filter::new().stream(stream).about(id)).await?;
        let (mut letters, mut found) = (about.letters(), Vec::new());
        while let Some(letter) = letters.next().await? {
            found.push(letter);
        }
        Ok(found)
    }
}

impl Selection {
    pub(super) async fn filtered(dead: DeadLetters, filter: Filter) -> Result<Self> {
        filter.check()?;
        let places = match &filter.stream {
            Some(stream) => dead.places(stream)?,
            None => (0..dead.streams.len()).collect(),
        };
        let (mut bounds, mut others) = (Vec::new(), places.len());
        for at in places {
            let newest = dead.pool.newest_letter(&dead.streams[at]).await;
            if let Some(newest) = dead.or_left_out(at, newest, &mut others)?.flatten() {
                bounds.push((at, newest));
            }
        }
        Ok(Selection {
            dead,
            what: Arc::new(What::Filtered(filter, bounds)),
        })
    }

    pub(super) fn picked(dead: DeadLetters, at: usize, ids: Vec<EntryId>) -> Self {
        Selection {
            dead,
            what: Arc::new(What::Picked(at, ids)),
        }
    }

    /// Goes through the letters.
    pub fn letters(&self) -> Letters {
        Letters::of(self.dead.clone(), self.what.clone())
    }

    /// Goes through all of it, to know how much is meant before anything is done. `progress` is told how many letters
    /// were found so far.
    ///
    /// # Errors
    /// If Redis can't be reached.
    pub async fn count(&self, mut progress: impl FnMut(u64)) -> Result<Counted> {
        let (mut letters, mut found, mut expired) = (self.letters(), 0, 0);
        while let Some(letter) = letters.next().await? {
            found += 1;
            expired += u64::from(letter.reason == BuriedFor::Known(Reason::Expired));
            progress(found);
        }
        Ok(Counted {
            found,
            missing: letters.missing().to_vec(),
            strangers: letters.strangers(),
            expired,
        })
    }

    /// Counts the letters by stream, event type and reason.
    ///
    /// # Errors
    /// If Redis can't be reached.
    pub async fn stats(&self) -> Result<Stats> {
        let mut kinds = BTreeMap::new();
        let (mut letters, mut total) = (self.letters(), 0);
        while let Some(letter) = letters.next().await? {
            let at = letter.at;
            let event_type = letter.event_type.filter(|name| !name.is_empty());
            let key = (letter.stream, event_type, letter.reason);
            let (count, oldest, newest) = kinds.entry(key).or_insert((0, at, at));
            *count += 1;
            total += 1;
            *oldest = at.min(*oldest);
            *newest = at.max(*newest);
        }
        let kinds = kinds.into_iter().map(|(key, (count, oldest, newest))| {
            let (stream, event_type, reason) = key;
            Tally {
                stream,
                event_type,
                reason,
                count,
                oldest,
                newest,
            }
        });
        Ok(Stats {
            group: self.dead.group().to_owned(),
            total,
            kinds: kinds.collect(),
        })
    }

    /// Gives all the letters back to their group, and to it alone: its workers handle them as new entries with fresh
    /// attempts, whatever has become of the originals. At most `rate` a second; `by` is noted in each copy. Each
    /// letter for itself is replayed wholly or not at all, so that it can be dropped at any time and run again.
    ///
    /// `progress` is told what has been done so far.
    ///
    /// # Errors
    /// If Redis can't be reached or refuses it; what had been replayed by then is replayed.
    pub async fn replay(
        &self,
        by: &str,
        rate: Option<NonZeroU32>,
        mut progress: impl FnMut(&Replayed),
    ) -> Result<Replayed> {
        let step = rate.map_or(STEP, |rate| (rate.get() as usize / 10).clamp(1, STEP));
        let began = Instant::now();
        let mut run = Replayed::default();
        let mut letters = self.letters();
        while let Some((at, mut tickets)) = letters.lot(step).await? {
            while !tickets.is_empty() {
                if let Some(rate) = rate {
                    let due = Duration::from_secs_f64(run.replayed as f64 / f64::from(rate.get()));
                    tokio::time::sleep_until(began + due).await;
                }
                let keys = &self.dead.streams[at];
                let (copies, result) = self.dead.pool.replay(keys, by, &tickets).await;
                let replayed = copies.iter().flatten().count() as u64;
                run.replayed += replayed;
                run.gone += copies.len() as u64 - replayed;
                progress(&run);
                result?;
                tickets.drain(..copies.len());
            }
        }
        Ok(run)
    }

    /// Deletes all the letters for good. `progress` is told how many have been deleted so far. Returns how many that
    /// were in the end.
    ///
    /// # Errors
    /// If Redis can't be reached; what had been deleted by then is deleted.
    pub async fn purge(&self, progress: impl FnMut(u64)) -> Result<u64> {
        Ok(self.purge_letters(progress).await?.deleted)
    }

    /// As [`purge`](Self::purge). Returns what became of all of them: those that are held stay.
    ///
    /// # Errors
    /// As [`purge`](Self::purge).
    pub async fn purge_letters(&self, progress: impl FnMut(u64)) -> Result<PurgedLetters> {
        let mut progress = Progress::new(progress);
        let mut letters = self.letters();
        while let Some((at, tickets)) = letters.lot(STEP).await? {
            self.purge_tickets(at, &tickets, &mut progress).await?;
        }
        Ok(progress.done)
    }

    /// Deletes letters of one stream.
    pub(super) async fn purge_tickets<F: FnMut(u64)>(
        &self,
        at: usize,
        mut tickets: &[Ticket],
        progress: &mut Progress<F>,
    ) -> Result<()> {
        while !tickets.is_empty() {
            let keys = &self.dead.streams[at];
            let there = self.dead.pool.purge(keys, tickets).await?;
            progress.more(&there);
            tickets = &tickets[there.len()..];
        }
        Ok(())
    }
}

/// How far something has come, and who wants to know.
pub(super) struct Progress<F> {
    pub done: PurgedLetters,
    tell: F,
}

impl<F: FnMut(u64)> Progress<F> {
    pub fn new(tell: F) -> Self {
        let done = PurgedLetters::default();
        Progress { done, tell }
    }

    pub fn more(&mut self, purged: &[Purged]) {
        for one in purged {
            match one {
                Purged::Deleted => self.done.deleted += 1,
                Purged::Held => self.done.held += 1,
                Purged::Gone => self.done.gone += 1,
            }
        }
        (self.tell)(self.done.deleted);
    }
}

fn as_texts<S: Serializer>(ids: &[EntryId], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ids.iter().map(ToString::to_string))
}

fn to_the_second<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339::seconds(*time))
}
