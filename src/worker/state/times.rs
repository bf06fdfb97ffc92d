//! What is noted of entries until they are settled, if somebody counts: when their handlers started, for how long they
//! ran, and of which type they are. Notes lie beside their batch, and are made for all of it at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::event::EntryId;
use crate::metrics::entries::{Entry, Outcome};

/// The low bits of `what`: the place of its type and one more, or nothing.
const PLACE: u32 = 0xffff;
/// Its event had been done before.
const DUPLICATE: u32 = 1 << 16;
/// It was no longer ours, as Redis said of its acknowledgement.
const LOST: u32 = 1 << 17;

/// Notes of a batch.
pub(crate) enum Times {
    /// Where entries come one by one nothing is made for each.
    One(Note),
    Many(Box<[Note]>),
}

/// Notes of one entry.
#[derive(Default)]
pub(crate) struct Note {
    /// In ns since the worker began; 0 if its handler has not started.
    since: AtomicU64,
    ran: AtomicU64,
    what: AtomicU32,
    /// 0 if it is the delivery's number.
    attempt: AtomicU32,
}

impl Times {
    pub fn new(entries: usize) -> Self {
        match entries {
            1 => Times::One(Note::default()),
            _ => Times::Many((0..entries).map(|_| Note::default()).collect()),
        }
    }

    #[inline]
    fn of(&self, index: u32) -> &Note {
        match self {
            Times::One(note) => note,
            Times::Many(notes) => &notes[index as usize],
        }
    }

    /// Its handler starts at `now`; its type has this place.
    #[inline]
    pub fn started(&self, index: u32, now: u64, place: usize) {
        let note = self.of(index);
        note.since.store(now, Ordering::Relaxed);
        note.what.store(what(place), Ordering::Relaxed);
    }

    /// Its handler has ended.
    #[inline]
    pub fn ended(&self, index: u32, now: u64) {
        let note = self.of(index);
        let ran = now.saturating_sub(note.since.load(Ordering::Relaxed));
        note.ran.store(ran, Ordering::Relaxed);
    }

    /// No handler starts for it; its type may have a place.
    pub fn is_of(&self, index: u32, place: Option<usize>) {
        let place = place.map_or(0, what);
        self.of(index).what.fetch_or(place, Ordering::Relaxed);
    }

    /// It is at another attempt than its delivery.
    pub fn is_at(&self, index: u32, attempt: u32) {
        self.of(index).attempt.store(attempt, Ordering::Relaxed);
    }

    /// Its event had been done before.
    pub fn is_duplicate(&self, index: u32) {
        self.of(index).what.fetch_or(DUPLICATE, Ordering::Relaxed);
    }

    /// It was no longer ours when it was acknowledged.
    pub fn is_lost(&self, index: u32) {
        self.of(index).what.fetch_or(LOST, Ordering::Relaxed);
    }

    /// The place of its type, if it has one.
    pub fn place(&self, index: u32) -> Option<usize> {
        let what = self.of(index).what.load(Ordering::Relaxed) & PLACE;
        (what > 0).then(|| what as usize - 1)
    }

    /// The entry as it is counted, with what became of it; it was delivered so often.
    #[inline]
    pub fn entry(&self, index: u32, id: EntryId, count: u32, outcome: Outcome) -> Entry {
        let note = self.of(index);
        let what = note.what.load(Ordering::Relaxed);
        let outcome = match outcome {
            _ if what & !PLACE == 0 => outcome,
            Outcome::Acked if what & LOST != 0 => Outcome::Lost,
            Outcome::Acked | Outcome::Committed if what & DUPLICATE != 0 => Outcome::Duplicate,
            outcome => outcome,
        };
        let since = note.since.load(Ordering::Relaxed);
        Entry {
            // Beyond all places is whatever has none.
            place: ((what & PLACE) as usize).wrapping_sub(1),
            outcome,
            attempt: match note.attempt.load(Ordering::Relaxed) {
                0 => count,
                attempt => attempt,
            },
            ms: id.ms,
            ran: (since > 0).then(|| (since, note.ran.load(Ordering::Relaxed))),
        }
    }
}

fn what(place: usize) -> u32 {
    (place as u32 + 1).min(PLACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_what_is_counted() {
        let id = EntryId { ms: 5, seq: 0 };
        for times in [Times::new(1), Times::new(3)] {
            let new = times.entry(0, id, 2, Outcome::Released);
            assert_eq!(
                (new.ran, new.attempt, new.ms, new.place),
                (None, 2, 5, usize::MAX)
            );
            times.started(0, 100, 7);
            times.ended(0, 140);
            times.is_at(0, 1);
            let entry = times.entry(0, id, 2, Outcome::Acked);
            assert_eq!(
                (entry.ran, entry.attempt, entry.place),
                (Some((100, 40)), 1, 7)
            );
            assert_eq!((entry.outcome, times.place(0)), (Outcome::Acked, Some(7)));
            times.is_duplicate(0);
            assert_eq!(
                times.entry(0, id, 2, Outcome::Acked).outcome,
                Outcome::Duplicate
            );
            assert_eq!(
                times.entry(0, id, 2, Outcome::Retried).outcome,
                Outcome::Retried
            );
            times.is_lost(0);
            let lost = times.entry(0, id, 2, Outcome::Acked);
            assert_eq!((lost.outcome, lost.place), (Outcome::Lost, 7));
        }
        let times = Times::new(2);
        times.is_of(1, Some(3));
        times.is_of(0, None);
        assert_eq!((times.place(0), times.place(1)), (None, Some(3)));
    }
}
