//! The past of a group as pages show it: slots of a history, or the last seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::trend::{Lately, MinuteOf};
use crate::admin::{Deploy, GroupHistory, HistorySlot};

/// Slots of a range of time, the earliest first.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub resolution: Duration,
    pub slots: Vec<HistorySlot>,
    pub deploys: Vec<Deploy>,
    pub now: SystemTime,
}

impl From<GroupHistory> for Past {
    fn from(history: GroupHistory) -> Self {
        Past {
            resolution: history.resolution.length(),
            slots: history.slots,
            deploys: history.deploys,
            now: history.now,
        }
    }
}

impl Past {
    /// Each with how many seconds it stands for: the last one is not over.
    pub fn slots_with_seconds(&self) -> impl Iterator<Item = (&HistorySlot, f64)> {
        self.slots.iter().map(|slot| {
            let age = self.now.duration_since(slot.at).unwrap_or_default();
            let long = age.min(self.resolution).as_secs_f64();
            (slot, long.max(1.0))
        })
    }

    /// When versions came up, and which.
    pub fn marks(&self) -> Vec<(u64, String)> {
        let deploys = self.deploys.iter();
        let at = |deploy: &Deploy| deploy.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        deploys
            .map(|deploy| (at(deploy).as_secs(), deploy.version.clone()))
            .collect()
    }

    /// What became of attempts at entries of these streams, slot by slot, and which versions came up when.
    pub fn lately(&self, streams: &[&str]) -> Lately {
        let total = |slot: &HistorySlot, metric: &str, of: &[(&str, &str)]| -> f64 {
            let streams = streams.iter();
            let one = |stream: &&str| slot.total(metric, &[&[("stream", *stream)], of].concat());
            streams.map(one).sum()
        };
        let minutes = self.slots_with_seconds().map(|(slot, seconds)| {
            let settled = |outcome| total(slot, "settled_total", &[("outcome", outcome)]);
            let types = slot.values("failures_total", "type").into_iter();
            let failed =
                types.map(|name| (total(slot, "failures_total", &[("type", &name)]), name));
            let worst = failed
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(failed, _)| *failed > 0.0);
            MinuteOf {
                at_ms: slot
                    .at
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_millis() as u64,
                seconds,
                settled: ["acked", "committed", "duplicate", "cancelled"]
                    .map(&settled)
                    .iter()
                    .sum(),
                failed: total(slot, "failures_total", &[]),
                dead: settled("dead"),
                worst: worst.map(|(_, name)| name),
            }
        });
        let marks = self.marks().into_iter();
        Lately {
            minutes: minutes.collect(),
            deploys: marks.map(|(at, version)| (at * 1000, version)).collect(),
        }
    }

    /// Seconds since 1970 at which there is something to say or, where nobody was heard of, that there is not; with the slot
    /// and how long it is.
    pub fn points(&self) -> Vec<(u64, Option<(&HistorySlot, f64)>)> {
        let at = |slot: &HistorySlot| slot.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut points: Vec<(u64, Option<(&HistorySlot, f64)>)> = Vec::new();
        let mut next = None;
        for (slot, seconds) in self.slots_with_seconds() {
            let begins = at(slot);
            if let Some(next) = next.filter(|next: &Duration| *next + self.resolution / 2 < begins)
            {
                points.push((next.as_secs(), None));
            }
            points.push((begins.as_secs(), Some((slot, seconds))));
            next = Some(begins + self.resolution);
        }
        points
    }

    /// All of it in one.
    pub fn merged(&self) -> Option<HistorySlot> {
        HistorySlot::merged(&self.slots)
    }

    /// What was before a time, and what after it, each in one.
    pub fn around(&self, time: SystemTime) -> (Option<HistorySlot>, Option<HistorySlot>) {
        let (before, after): (Vec<&HistorySlot>, Vec<&HistorySlot>) = self
            .slots
            .iter()
            .partition(|slot| slot.at + self.resolution <= time);
        (HistorySlot::merged(before), HistorySlot::merged(after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pulse::slot::Slot;

    #[test]
    fn what_came_before_a_deploy_is_not_counted_as_after_it() {
        let minute = |n: u64| UNIX_EPOCH + Duration::from_secs(60 * n);
        let slot = |n: u64, workers: f64| {
            let slot = Slot {
                at_ms: n * 60_000,
                ..Slot::default()
            };
            let mut slot = HistorySlot::of(slot);
            slot.workers = workers;
            slot
        };
        let past = Past {
            resolution: Duration::from_secs(60),
            slots: vec![slot(1, 2.0), slot(2, 4.0), slot(3, 8.0), slot(4, 10.0)],
            deploys: Vec::new(),
            now: minute(5),
        };
        let workers = |slot: Option<HistorySlot>| slot.map(|slot| slot.workers);
        // The minute that it falls into is after it, as far as it is any.
        let (before, after) = past.around(minute(3) + Duration::from_secs(30));
        assert_eq!((workers(before), workers(after)), (Some(3.0), Some(9.0)));
        let (before, after) = past.around(minute(3));
        assert_eq!((workers(before), workers(after)), (Some(3.0), Some(9.0)));
        let (before, after) = past.around(minute(1));
        assert_eq!((workers(before), workers(after)), (None, Some(6.0)));
        let (before, after) = past.around(minute(9));
        assert_eq!((workers(before), workers(after)), (Some(6.0), None));
    }
}
