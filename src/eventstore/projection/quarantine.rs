//! Events that kill the process that applies them. Nobody lives to tell, so what is known is in the checkpoint: how many
//! have died who ran it, one after the other, and where it stood then.
//!
//! From the third on the events that follow are applied one at a time, and each is noted before: nothing else of a
//! projection is applied in that process meanwhile. Should it die, the next one knows of what; and once an event has so
//! used up its attempts it is a bad one. A process dies of other things, too: of an innocent event it would have to do so
//! again and again in the moment in which that is applied.

use std::time::{Duration, Instant};

use super::Registered;
use super::batch::Rules;
use crate::event::{Entry, EntryId};
use crate::stream::{Deaths, From, Noted};

/// Deaths that are put up with before events go one at a time.
const UNNOTED: u32 = 2;

/// Most entries behind the position that one of them may have had in its batch.
pub(super) const ZONE: usize = 500;

/// How a partition is gone on with where those who ran it before have died.
pub(super) struct Quarantine {
    deaths: Deaths,
    /// Entries that may be the one, behind where the last one stood.
    left: usize,
    since: Instant,
    /// What there was to apply has been since.
    has_applied: bool,
}

/// What is to be applied now of some entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Portion {
    /// So many of them, from the first one on.
    pub entries: usize,
    /// The last one is to be noted before, and to be applied alone.
    pub noted: Option<Noted>,
    /// It is not to be applied: so many have died of it.
    pub killed: Option<u32>,
}

impl Portion {
    /// All of them at once, as ever.
    pub fn whole(entries: &[Entry]) -> Self {
        Portion {
            entries: entries.len(),
            ..Portion::default()
        }
    }
}

impl Quarantine {
    /// None if nobody has died.
    pub fn of(deaths: Deaths) -> Option<Self> {
        (deaths.count > 0).then(|| Quarantine {
            deaths,
            left: ZONE,
            since: Instant::now(),
            has_applied: false,
        })
    }

    /// How much is to be applied of entries that come next.
    pub fn portion(&self, from: From, entries: &[Entry], rules: &Rules) -> Portion {
        let is_again = from == From::Again;
        if !self.is_careful(rules) || self.left == 0 && !is_again {
            return Portion::whole(entries);
        }
        // Up to there it has been applied before, by those who died. What is built anew comes by it once more.
        let known = entries.partition_point(|entry| entry.id <= self.deaths.at);
        if known > 0 && !is_again {
            return Portion::whole(&entries[..known]);
        }
        let runs = |entry: &Entry| is_again || rules.projection.concerns(entry);
        let Some(place) = entries.iter().position(runs) else {
            return Portion::whole(entries);
        };
        let noted = Noted {
            is_again,
            id: entries[place].id,
        };
        let killed = self.deaths.suspect.and_then(|(suspect, killed)| {
            (suspect == noted && killed >= rules.retry.max_attempts.saturating_sub(UNNOTED).max(1))
                .then_some(self.deaths.count.max(killed))
        });
        Portion {
            entries: place + 1,
            noted: Some(noted),
            killed,
        }
    }

    /// So many entries have been applied.
    pub fn passed(&mut self, from: From, entries: usize, position: EntryId) {
        if from != From::Again && position > self.deaths.at {
            self.left = self.left.saturating_sub(entries);
        }
    }

    /// All that there was to apply has been; `is_all`: nothing was left.
    pub fn applied(&mut self, is_all: bool) {
        self.has_applied = true;
        if is_all {
            self.left = 0;
        }
    }

    /// Whether what has killed the others is behind it: what there was to apply has been, and for so long it has lived.
    pub fn is_over(&self, rules: &Rules, lease: Duration) -> bool {
        self.has_applied
            && self.since.elapsed() >= lease
            && (self.left == 0 || !self.is_careful(rules))
    }

    fn is_careful(&self, rules: &Rules) -> bool {
        let unnoted = UNNOTED
            .min(rules.retry.max_attempts.saturating_sub(1))
            .max(1);
        self.deaths.count >= unnoted || self.deaths.suspect.is_some()
    }
}

impl Registered {
    /// Whether an entry of its public stream is more than passed over unseen: then it runs code that is not ours.
    pub fn concerns(&self, entry: &Entry) -> bool {
        self.whose(entry).is_some()
    }
}
