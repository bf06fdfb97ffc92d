//! Letters that are meant together: going through them, counting, replaying and deleting them.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{DeadLetter, DeadLetters, Filter};
use crate::error::Result;
use crate::event::EntryId;
use crate::stream::{Browse, Ticket};

/// Most letters replayed in one step: between two steps other clients have their turn.
const STEP: usize = 100;

/// Letters that are meant together. It does not hold them: each use goes through Redis anew, and finds no letter
/// that was buried after the selection was made.
#[derive(Clone)]
pub struct Selection {
    pub(super) dead: DeadLetters,
    what: What,
}

#[derive(Clone)]
enum What {
    /// What the filter lets through of these streams, each up to an id.
    Filtered(Filter, Vec<(usize, EntryId)>),
    /// These letters of one stream.
    Picked(usize, Vec<EntryId>),
}

/// The letters of a [`Selection`], one after the other.
pub struct Letters<'a> {
    selection: &'a Selection,
    /// Which stream, or which id, is looked at.
    turn: usize,
    /// Where to go on within it; None to begin.
    from: Option<String>,
    page: VecDeque<(usize, DeadLetter)>,
    left: u64,
    strangers: u64,
    missing: Vec<EntryId>,
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// Letters that were given back to their group.
    pub replayed: u64,
    /// Letters that were gone when their turn came: somebody else had replayed or purged them.
    pub gone: u64,
}

/// How many letters there are, by stream, event type (empty where there is none) and reason.
pub type Stats = BTreeMap<(String, String, String), Tally>;

/// How many letters are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// How many there are.
    pub count: u64,
    /// When the oldest was buried.
    pub oldest: SystemTime,
    /// When the newest was buried.
    pub newest: SystemTime,
}

impl Selection {
    pub(super) async fn filtered(dead: DeadLetters, filter: Filter) -> Result<Self> {
        filter.check()?;
        let places = match &filter.stream {
            Some(stream) => vec![dead.place(stream)?],
            None => (0..dead.streams.len()).collect(),
        };
        let mut bounds = Vec::new();
        for at in places {
            if let Some(newest) = dead.pool.newest_letter(&dead.streams[at]).await? {
                bounds.push((at, newest));
            }
        }
        Ok(Selection {
            dead,
            what: What::Filtered(filter, bounds),
        })
    }

    pub(super) fn picked(dead: DeadLetters, at: usize, ids: Vec<EntryId>) -> Self {
        Selection {
            dead,
            what: What::Picked(at, ids),
        }
    }

    /// Goes through the letters.
    pub fn letters(&self) -> Letters<'_> {
        let left = match &self.what {
            What::Filtered(filter, _) => filter.limit.unwrap_or(u64::MAX),
            What::Picked(..) => u64::MAX,
        };
        Letters {
            selection: self,
            turn: 0,
            from: None,
            page: VecDeque::new(),
            left,
            strangers: 0,
            missing: Vec::new(),
        }
    }

    /// Counts the letters by stream, event type and reason.
    ///
    /// # Errors
    /// Where Redis can't be reached.
    pub async fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::new();
        let mut letters = self.letters();
        while let Some(letter) = letters.next().await? {
            let at = letter.at;
            let key = (
                letter.stream,
                letter.event_type.unwrap_or_default(),
                letter.reason,
            );
            let tally = stats.entry(key).or_insert(Tally {
                count: 0,
                oldest: at,
                newest: at,
            });
            tally.count += 1;
            tally.oldest = tally.oldest.min(at);
            tally.newest = tally.newest.max(at);
        }
        Ok(stats)
    }

    /// Gives all the letters back to their group, and to it alone: its workers handle them as new entries with fresh
    /// attempts, whatever has become of the originals. At most `rate` a second; `by` is noted in each copy. Each
    /// letter for itself is replayed wholly or not at all, so that it can be dropped at any time and run again.
    ///
    /// `progress` is told what has been done so far.
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses it; what had been replayed by then is replayed.
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

    /// Deletes all the letters for good. `progress` is told how many have been deleted so far. Answers how many that
    /// were in the end.
    ///
    /// # Errors
    /// Where Redis can't be reached; what had been deleted by then is deleted.
    pub async fn purge(&self, progress: impl FnMut(u64)) -> Result<u64> {
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
            progress.more(there.iter().filter(|there| **there).count() as u64);
            tickets = &tickets[there.len()..];
        }
        Ok(())
    }
}

impl Letters<'_> {
    /// The next letter; None after the last.
    ///
    /// # Errors
    /// Where Redis can't be reached.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>> {
        Ok(self.next_with_place().await?.map(|(_, letter)| letter))
    }

    /// Entries passed over so far because no worker wrote them.
    pub fn strangers(&self) -> u64 {
        self.strangers
    }

    /// The ids picked, so far, of which there is no letter.
    pub fn missing(&self) -> &[EntryId] {
        &self.missing
    }

    /// The next letter, and of which stream it is.
    pub(super) async fn next_with_place(&mut self) -> Result<Option<(usize, DeadLetter)>> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            if let Some(letter) = self.page.pop_front() {
                self.left -= 1;
                return Ok(Some(letter));
            }
            if !self.fetch().await? {
                return Ok(None);
            }
        }
    }

    /// Some letters of one stream; None after the last. What is left of a page makes a smaller lot.
    async fn lot(&mut self, most: usize) -> Result<Option<(usize, Vec<Ticket>)>> {
        let Some((at, first)) = self.next_with_place().await? else {
            return Ok(None);
        };
        let mut lot = vec![first.ticket()];
        while lot.len() < most && self.page.front().is_some_and(|(of, _)| *of == at) {
            match self.next_with_place().await? {
                Some((_, letter)) => lot.push(letter.ticket()),
                None => break,
            }
        }
        Ok(Some((at, lot)))
    }

    /// Fetches the next page. Answers whether there was one to fetch, not whether anything is on it.
    async fn fetch(&mut self) -> Result<bool> {
        let dead = &self.selection.dead;
        match &self.selection.what {
            What::Picked(at, ids) => {
                let Some(id) = ids.get(self.turn) else {
                    return Ok(false);
                };
                self.turn += 1;
                let id_text = id.to_string();
                let browse = Browse {
                    from: &id_text,
                    to: &id_text,
                    event_type: None,
                    reason: None,
                    about: None,
                    brief: false,
                };
                let keys = &dead.streams[*at];
                let page = dead.pool.browse(keys, &browse).await?;
                self.strangers += page.strangers;
                let heads = page.heads.into_iter();
                let letters = heads.filter_map(|head| DeadLetter::new(&keys.stream, head));
                self.page.extend(letters.map(|letter| (*at, letter)));
                if self.page.is_empty() {
                    self.missing.push(*id);
                }
            }
            What::Filtered(filter, bounds) => {
                let Some((at, newest)) = bounds.get(self.turn) else {
                    return Ok(false);
                };
                let keys = &dead.streams[*at];
                let last = filter.until.map_or(*newest, |until| {
                    let ms = millis(until);
                    (*newest).min(EntryId { ms, seq: u64::MAX })
                });
                let first = filter.since.map_or(0, millis);
                let from = match self.from.take() {
                    Some(from) => from,
                    None => format!("{first}-0"),
                };
                let browse = Browse {
                    from: &from,
                    to: &last.to_string(),
                    event_type: filter.event_type.as_deref(),
                    reason: filter.reason.as_deref(),
                    about: filter.about.as_deref(),
                    brief: filter.brief,
                };
                let page = dead.pool.browse(keys, &browse).await?;
                self.strangers += page.strangers;
                let heads = page.heads.into_iter();
                let letters = heads
                    .filter_map(|head| DeadLetter::new(&keys.stream, head))
                    .filter(|letter| {
                        let regex = filter.error.as_ref();
                        regex.is_none_or(|regex| regex.is_match(&letter.error))
                    });
                self.page.extend(letters.map(|letter| (*at, letter)));
                self.from = page.next;
                if self.from.is_none() {
                    self.turn += 1;
                }
            }
        }
        Ok(true)
    }
}

/// How far something has come, and who wants to know.
pub(super) struct Progress<F> {
    pub done: u64,
    tell: F,
}

impl<F: FnMut(u64)> Progress<F> {
    pub fn new(tell: F) -> Self {
        Progress { done: 0, tell }
    }

    fn more(&mut self, count: u64) {
        self.done += count;
        (self.tell)(self.done);
    }
}

/// Milliseconds since 1970.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}
