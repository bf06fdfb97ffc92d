//! Which traces are kept. Who publishes an event decides for all that comes of it; of what nobody has decided, a part is
//! kept, by the entry's id: all attempts of an entry are kept or none, whichever worker makes them.

use super::context::{TraceContext, is_unsampled};
use crate::event::{EntryId, Envelope};

/// What is kept of what nobody has decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampling {
    /// A hash that is less is kept; None keeps all.
    below: Option<u64>,
}

/// What was decided of an entry.
pub(super) enum Decision {
    Dropped,
    /// It is kept, and belongs to this trace if it belongs to one.
    Kept(Option<TraceContext>),
}

impl Sampling {
    /// Keeps such a part, from 0 to 1.
    pub fn new(part: f64) -> Self {
        let below = (part < 1.0).then_some((part.max(0.0) * u64::MAX as f64) as u64);
        Sampling { below }
    }

    /// Decides on an entry of the stream and the group with that seed.
    #[inline]
    pub fn decide(self, envelope: &Envelope, seed: u64) -> Decision {
        let said = envelope.traceparent_as_it_came();
        if let Some(said) = said {
            // Most of what is not kept ends here, and it must cost next to nothing.
            if is_unsampled(said) {
                return Decision::Dropped;
            }
            let parent = std::str::from_utf8(said).ok().and_then(TraceContext::parse);
            match parent {
                Some(parent) if parent.is_sampled() => return Decision::Kept(Some(parent)),
                Some(_) => return Decision::Dropped,
                None => {}
            }
        }
        match self.keeps(hash(seed, envelope.entry_id())) {
            true => Decision::Kept(None),
            false => Decision::Dropped,
        }
    }

    /// Whether what has this hash is kept.
    #[inline]
    pub fn keeps(self, hash: u64) -> bool {
        self.below.is_none_or(|below| hash < below)
    }
}

/// What tells entries of a stream and a group from those of others that have the same id.
pub(crate) fn seed(stream: &str, group: &str) -> u64 {
    let bytes = stream.bytes().chain([0]).chain(group.bytes());
    bytes.fold(0, |seed, byte| scatter(seed ^ u64::from(byte)))
}

/// Near ids have hashes far from each other.
#[inline]
fn hash(seed: u64, id: EntryId) -> u64 {
    scatter(seed ^ scatter(id.ms ^ id.seq.rotate_left(42)))
}

/// The last steps of splitmix64. Source: <https://prng.di.unimi.it/splitmix64.c>.
#[inline]
fn scatter(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Entry;

    fn event(ms: u64, seq: u64, traceparent: Option<&str>) -> Envelope {
        let fields = [
            ("type", "a.b"),
            ("traceparent", traceparent.unwrap_or_default()),
        ];
        let entry = Entry {
            id: EntryId { ms, seq },
            fields: fields.into_iter().collect(),
        };
        Envelope::decode(entry).expect("an event")
    }

    fn is_kept(part: f64, event: &Envelope) -> bool {
        let decision = Sampling::new(part).decide(event, seed("orders", "workers"));
        matches!(decision, Decision::Kept(_))
    }

    #[test]
    fn of_what_nobody_has_decided_such_a_part_is_kept() {
        for part in [0.0, 0.1, 0.5, 1.0] {
            // Whether they come one a millisecond or many.
            for near in [|n| (1_700_000_000_000 + n, 0), |n| (1_700_000_000_000, n)] {
                let kept = (0..20_000)
                    .map(near)
                    .filter(|(ms, seq)| is_kept(part, &event(*ms, *seq, None)));
                let kept = kept.count() as f64 / 20_000.0;
                assert!((kept - part).abs() < 0.01, "{kept} of {part}");
            }
        }
    }

    #[test]
    fn who_has_published_it_decides() {
        let sampled = crate::traceparent::EXAMPLE;
        let unsampled = sampled.replace("-01", "-00");
        for n in 0..100 {
            assert!(is_kept(0.0, &event(n, 0, Some(sampled))));
            assert!(!is_kept(1.0, &event(n, 0, Some(&unsampled))));
            // What is none says nothing.
            assert!(is_kept(1.0, &event(n, 0, Some("00-1-2-00"))));
        }
    }
}
