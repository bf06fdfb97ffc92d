//! Entries that are larger than what the server lets through to a client: it cuts the connection at each, however little
//! is asked for. They must not be in the way of the others. So if adopting is cut, the next one asks for a single
//! entry, and first looks which one that is and how large: if the server tells its limit, that decides; if it
//! doesn't, the same entry has to be cut off a few times alone. Then the server buries it, whole: nothing of it has to
//! come here for that.

use crate::event::EntryId;
use crate::stream::Unheld;

/// So often in a row an entry that was asked for alone is cut off before it is taken to be too large, if the server
/// tells no limit.
const CUTS: u32 = 3;
/// What a server lets through in any case: the part of a client's buffer that no limit counts.
const ALWAYS: u64 = 16 << 10;

/// What may be too large to come through.
#[derive(Default)]
pub(crate) struct Oversized(Option<Suspect>);

struct Suspect {
    stream: String,
    alone: bool,
    entry: Option<EntryId>,
    /// How often it was cut off, asked for alone.
    cuts: u32,
}

impl Oversized {
    /// Whether the last answer that was to bring a consumer's entries was cut off.
    pub fn is_suspected(&self, stream: &str, alone: bool) -> bool {
        self.0
            .as_ref()
            .is_some_and(|suspect| suspect.stream == stream && suspect.alone == alone)
    }

    /// The answer that was to bring a consumer's entries was cut off.
    pub fn cut(&mut self, stream: &str, alone: bool) {
        match &mut self.0 {
            Some(suspect) if suspect.stream == stream && suspect.alone == alone => {
                suspect.cuts += u32::from(suspect.entry.is_some());
            }
            suspect => {
                *suspect = Some(Suspect {
                    stream: stream.to_owned(),
                    alone,
                    entry: None,
                    cuts: 0,
                });
            }
        }
    }

    /// A consumer's entries have come.
    pub fn came(&mut self, stream: &str, alone: bool) {
        if self.is_suspected(stream, alone) {
            self.0 = None;
        }
    }

    /// Whether the entry that is next can't come, going by the server's limit if that is known.
    pub fn is_too_large(&mut self, next: &Unheld, limit: Option<u64>) -> bool {
        let Some(suspect) = &mut self.0 else {
            return false;
        };
        if suspect.entry != Some(next.id) {
            (suspect.entry, suspect.cuts) = (Some(next.id), 0);
        }
        match limit {
            // What is near it may be over it, with what an answer has beside names and values.
            Some(limit) => {
                next.bytes > limit || (suspect.cuts >= CUTS && next.bytes > limit / 4 * 3)
            }
            None => suspect.cuts >= CUTS && next.bytes > ALWAYS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_too_large_by_the_limit_or_after_some_cuts() {
        let next = |ms, bytes| Unheld {
            id: EntryId { ms, seq: 0 },
            count: 1,
            bytes,
        };
        let mut oversized = Oversized::default();
        assert!(!oversized.is_too_large(&next(1, 8 << 20), Some(4 << 20)));
        oversized.cut("a", false);
        assert!(oversized.is_suspected("a", false));
        assert!(!oversized.is_suspected("a", true) && !oversized.is_suspected("b", false));
        assert!(oversized.is_too_large(&next(1, 8 << 20), Some(4 << 20)));
        assert!(!oversized.is_too_large(&next(1, 1 << 20), Some(4 << 20)));
        // If the limit is not told the same one has to be cut off alone.
        for _ in 0..CUTS {
            assert!(!oversized.is_too_large(&next(2, 8 << 20), None));
            oversized.cut("a", false);
        }
        assert!(oversized.is_too_large(&next(2, 8 << 20), None));
        assert!(!oversized.is_too_large(&next(3, 8 << 20), None));
        oversized.came("a", false);
        assert!(!oversized.is_suspected("a", false));
    }
}
