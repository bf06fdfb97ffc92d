//! The history of a group: slots of a range of time, whatever they stand in by now, up to the last pulse. What is not
//! merged yet is merged here, by the same code as at a worker, so that nobody waits for a minute to be over.

use std::collections::BTreeMap;

use super::merging::{deploy_of, read};
use super::slot::{Came, Gather, Length, Minute, Slot, longer};
use crate::error::Result;
use crate::stream::{Pool, PulseKeys};

/// Most slots that are worth showing side by side.
const MOST_SLOTS: u64 = 1100;
/// How far back it is looked for what a pulse may be a repeat of.
const LOOK_BACK_MS: u64 = 120_000;

/// The history of a group, as Redis has it.
#[derive(Clone)]
pub(crate) struct History {
    pool: Pool,
    keys: PulseKeys,
}

/// A version and a configuration that had not been seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deploy {
    /// When its first pulse came, by the server's clock.
    pub first_ms: u64,
    pub version: String,
    /// A hash of its configuration.
    pub configuration: u64,
}

impl History {
    pub fn new(pool: Pool, group: &str) -> Self {
        History {
            pool,
            keys: PulseKeys::new(group),
        }
    }

    /// How long slots are best for a range of time: as short as are kept for so long, and not too many.
    pub fn fitting(from_ms: u64, to_ms: u64, now_ms: u64) -> Length {
        let span = to_ms.saturating_sub(from_ms);
        let age = now_ms.saturating_sub(from_ms);
        let fits = |length: &Length| span / length.ms() <= MOST_SLOTS && age <= length.kept_ms();
        let lengths = [Length::Minute, Length::Ten];
        lengths.into_iter().find(fits).unwrap_or(Length::Hour)
    }

    /// Slots of this length, those in which anything was heard of, from the one that has `from_ms` to before `to_ms`.
    pub async fn slots(&self, from_ms: u64, to_ms: u64, length: Length) -> Result<Vec<Slot>> {
        let keys = &self.keys;
        let start = length.of(from_ms);
        let (mut at, mut slots) = (start, Vec::new());
        let stands_in = [
            (Length::Hour, &keys.hours),
            (Length::Ten, &keys.tens),
            (Length::Minute, &keys.minutes),
        ];
        for (of, key) in stands_in {
            if of > length {
                continue;
            }
            let raw = self.pool.slots_between(key, at, to_ms).await?;
            if let Some(last) = raw.last() {
                at = last.at_ms + of.ms();
            }
            slots.extend(raw.iter().filter_map(read));
        }
        if at < to_ms {
            let tail = self.minutes_since(at).await?.into_iter();
            slots.extend(
                tail.map(|minute| minute.slot)
                    .filter(|slot| slot.at_ms < to_ms),
            );
        }
        Ok(longer(slots, length))
    }

    /// Minutes made of pulses that are not merged yet.
    async fn minutes_since(&self, from_ms: u64) -> Result<Vec<Minute>> {
        let look_back = from_ms.saturating_sub(LOOK_BACK_MS);
        let (mut gather, mut minutes) = (Gather::default(), Vec::new());
        for raw in self.pool.pulses_since(&self.keys, look_back).await? {
            let came = Came::of(&raw);
            match came.ms < from_ms {
                true => gather.before(&came),
                false => minutes.extend(gather.take(came)),
            }
        }
        minutes.extend(gather.end());
        Ok(minutes)
    }

    /// When each version and configuration was first seen, the earliest first.
    pub async fn deploys(&self) -> Result<Vec<Deploy>> {
        let mut first: BTreeMap<(String, u64), u64> = BTreeMap::new();
        for (name, ms) in self.pool.remembered(&self.keys.deploys).await? {
            let ms = std::str::from_utf8(&ms).ok().and_then(|ms| ms.parse().ok());
            if let (Some(deploy), Some(ms)) = (deploy_of(&name), ms) {
                first.insert(deploy, ms);
            }
        }
        let merged = self.pool.last_slot_of(&self.keys.minutes).await?;
        let from = merged.map_or(0, |at| at + Length::Minute.ms());
        for minute in self.minutes_since(from).await? {
            for (deploy, ms) in minute.deploys {
                first.entry(deploy).or_insert(ms);
            }
        }
        let deploys = first.into_iter();
        let mut deploys: Vec<Deploy> = deploys
            .map(|((version, configuration), first_ms)| Deploy {
                first_ms,
                version,
                configuration,
            })
            .collect();
        deploys.sort_by_key(|deploy| deploy.first_ms);
        Ok(deploys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_slots_fits_the_range_and_what_is_kept() {
        const HOUR: u64 = 3_600_000;
        let now = 100 * 24 * HOUR;
        let of_last = |span: u64| History::fitting(now - span, now, now);
        assert_eq!(of_last(HOUR), Length::Minute);
        assert_eq!(of_last(18 * HOUR), Length::Minute);
        assert_eq!(of_last(20 * HOUR), Length::Ten);
        assert_eq!(of_last(7 * 24 * HOUR), Length::Ten);
        assert_eq!(of_last(8 * 24 * HOUR), Length::Hour);
        // An hour of two days ago.
        let long_ago = now - 48 * HOUR;
        assert_eq!(
            History::fitting(long_ago, long_ago + HOUR, now),
            Length::Ten
        );
    }
}
