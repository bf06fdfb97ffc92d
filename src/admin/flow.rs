//! The history of a group: what its workers counted, minute by minute for a day, in tens of minutes for a week and in hours
//! for 90 days.

#[cfg(feature = "web")]
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::fleet::{at, configuration};
use super::{Admin, since_1970};
use crate::error::Result;
use crate::metrics::snapshot::{Snapshot, Value};
use crate::metrics::table::{Id, TABLE};
use crate::pulse::history::{self, History};
#[cfg(feature = "web")]
use crate::pulse::live::Live;
use crate::pulse::slot::{Length, Slot};

/// The history of a group, by [`Admin::history`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct GroupHistory {
    /// How long each slot is.
    #[serde(rename = "resolution_ms", serialize_with = "in_ms")]
    pub resolution: Resolution,
    /// The slots in which anything was heard of, the earliest first.
    pub slots: Vec<HistorySlot>,
    /// When versions and configurations came up that had not been seen before, of the same time, the earliest first.
    pub deploys: Vec<Deploy>,
    /// The server's time when this was read.
    #[serde(rename = "now_ms", serialize_with = "since_1970")]
    pub now: SystemTime,
}

/// How long slots of a history are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Resolution {
    /// Kept for a day.
    Minute,
    /// Kept for a week.
    TenMinutes,
    /// Kept for 90 days.
    Hour,
}

/// What a group's workers came to in a slot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HistorySlot {
    /// When it begins, by the server's clock.
    pub at: SystemTime,
    /// How many workers there were, on the average.
    pub workers: f64,
    /// How many handlers they could run at once,
    pub slots: f64,
    /// how many ran,
    pub running: f64,
    /// and how many entries they held.
    pub held: f64,
    /// Memory of all of them, in bytes.
    pub memory: f64,
    /// CPUs that they used.
    pub cpu: f64,
    /// Versions and configurations at work, each with the most workers that had it.
    pub versions: Vec<(String, String, u64)>,
    /// Pulses that told of a longer time than they should, because Redis was away: what they counted is here all the same.
    pub late: u64,
    /// Pulses that could not be read, because a newer release has sent them: what they counted is missing.
    pub unread: u64,
    counted: Snapshot,
}

/// A version or a configuration that had not been seen before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Deploy {
    /// When its first worker was heard of, by the server's clock.
    #[serde(rename = "at_ms", serialize_with = "since_1970")]
    pub at: SystemTime,
    /// The version.
    pub version: String,
    /// A hash of the configuration.
    pub configuration: String,
}

impl Resolution {
    /// How long a slot is.
    pub fn length(self) -> Duration {
        Duration::from_millis(self.of().ms())
    }

    fn of(self) -> Length {
        match self {
            Resolution::Minute => Length::Minute,
            Resolution::TenMinutes => Length::Ten,
            Resolution::Hour => Length::Hour,
        }
    }

    fn is(length: Length) -> Self {
        match length {
            Length::Minute => Resolution::Minute,
            Length::Ten => Resolution::TenMinutes,
            Length::Hour => Resolution::Hour,
        }
    }
}

impl Admin {
    /// The group's pulses as they come, which come each second while somebody looks.
    #[cfg(feature = "web")]
    pub(crate) fn live(&self) -> Arc<Live> {
        Live::new(self.pool.clone(), self.group(), self.streams())
    }

    /// What the group's workers counted between two times, by the server's clock, up to what they told of a moment ago.
    /// How long slots are is chosen by how long that is and how long ago, unless it is given.
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses to say.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// let now = admin.now().await?;
    /// let history = admin.history(now - Duration::from_secs(3600), now, None).await?;
    /// for slot in history.slots {
    ///     let failed = slot.total("failures_total", &[("stream", "orders")]);
    ///     let p99 = slot.quantile("process_duration_seconds", &[], 0.99);
    ///     println!("{:?}: {failed} failed, 99 % took at most {p99:?} s", slot.at);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn history(
        &self,
        from: SystemTime,
        to: SystemTime,
        resolution: Option<Resolution>,
    ) -> Result<GroupHistory> {
        let now = self.pool.now().await?;
        let ms = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis() as u64
        };
        let (from_ms, to_ms) = (ms(from), ms(to));
        let length = match resolution {
            Some(resolution) => resolution.of(),
            None => History::fitting(from_ms, to_ms, ms(now)),
        };
        let history = History::new(self.pool.clone(), self.group());
        let slots = history.slots(from_ms, to_ms, length).await?;
        let deploys = history.deploys().await?.into_iter();
        let is_of_it = |deploy: &history::Deploy| (from_ms..to_ms).contains(&deploy.first_ms);
        Ok(GroupHistory {
            resolution: Resolution::is(length),
            slots: slots.into_iter().map(HistorySlot::of).collect(),
            deploys: deploys.filter(is_of_it).map(Deploy::of).collect(),
            now,
        })
    }
}

impl HistorySlot {
    pub(crate) fn of(slot: Slot) -> Self {
        let levels = slot.levels;
        let average = |sum: u64| sum as f64 / levels.minutes.max(1) as f64;
        let versions = slot.deploys.into_iter();
        HistorySlot {
            at: at(slot.at_ms),
            workers: average(levels.workers),
            slots: average(levels.slots),
            running: average(levels.running),
            held: average(levels.held),
            memory: average(levels.memory_kib) * 1024.0,
            cpu: average(levels.cpu) / 1000.0,
            versions: versions
                .map(|((version, hash), workers)| (version, configuration(hash), workers))
                .collect(),
            late: slot.late,
            unread: slot.unread,
            counted: slot.counted,
        }
    }

    /// Several in one: what was counted is added up, and what was measured averaged. It begins with the first of them; None
    /// of none.
    pub fn merged<'a>(slots: impl IntoIterator<Item = &'a HistorySlot>) -> Option<HistorySlot> {
        let mut slots = slots.into_iter();
        let mut all = slots.next()?.clone();
        let mut many = 1.0;
        for slot in slots {
            many += 1.0;
            let averages = [
                (&mut all.workers, slot.workers),
                (&mut all.slots, slot.slots),
                (&mut all.running, slot.running),
                (&mut all.held, slot.held),
                (&mut all.memory, slot.memory),
                (&mut all.cpu, slot.cpu),
            ];
            for (all, one) in averages {
                *all += (one - *all) / many;
            }
            for (version, configuration, workers) in &slot.versions {
                let known = all.versions.iter_mut();
                let mut known = known.filter(|one| (&one.0, &one.1) == (version, configuration));
                match known.next() {
                    Some(known) => known.2 = known.2.max(*workers),
                    None => all
                        .versions
                        .push((version.clone(), configuration.clone(), *workers)),
                }
            }
            all.late += slot.late;
            all.unread += slot.unread;
            all.counted.merge(&slot.counted);
        }
        Some(all)
    }

    /// What a metric came to, of all series that have these labels: `total("settled_total", &[("outcome", "dead")])`. Of a
    /// histogram: how many it counted. The page on metrics has their names and labels; zero of one that is not in it.
    pub fn total(&self, metric: &str, with: &[(&str, &str)]) -> f64 {
        Id::of(metric).map_or(0.0, |id| self.counted.total(id, with))
    }

    /// What this part of all that a histogram counted is no larger than, to within 4.5 %; None where it counted nothing.
    pub fn quantile(&self, metric: &str, with: &[(&str, &str)], part: f64) -> Option<f64> {
        self.counted.histogram(Id::of(metric)?, with).quantile(part)
    }

    /// What a histogram's values came to together.
    pub fn sum(&self, metric: &str, with: &[(&str, &str)]) -> f64 {
        Id::of(metric).map_or(0.0, |id| self.counted.histogram(id, with).sum())
    }

    /// The values that a label has in it, of a metric: `values("settled_total", "type")`.
    pub fn values(&self, metric: &str, label: &str) -> Vec<String> {
        let Some(id) = Id::of(metric) else {
            return Vec::new();
        };
        let Some(place) = id.metric().labels.iter().position(|name| *name == label) else {
            return Vec::new();
        };
        let series = self.counted.iter().filter(|(of, ..)| *of == id);
        let mut values: Vec<String> = series
            .map(|(_, labels, _)| labels[place].to_string())
            .collect();
        values.sort();
        values.dedup();
        values
    }
}

impl Deploy {
    fn of(deploy: history::Deploy) -> Self {
        Deploy {
            at: at(deploy.first_ms),
            version: deploy.version,
            configuration: configuration(deploy.configuration),
        }
    }
}

/// Series as a list: each with its metric, its labels, and its value or its count, sum and percentiles.
impl Serialize for HistorySlot {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut slot = to.serialize_map(None)?;
        let at_ms = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        slot.serialize_entry("at_ms", &(at_ms.as_millis() as u64))?;
        slot.serialize_entry("workers", &self.workers)?;
        slot.serialize_entry("slots", &self.slots)?;
        slot.serialize_entry("running", &self.running)?;
        slot.serialize_entry("held", &self.held)?;
        slot.serialize_entry("memory", &self.memory)?;
        slot.serialize_entry("cpu", &self.cpu)?;
        slot.serialize_entry("versions", &self.versions)?;
        slot.serialize_entry("late", &self.late)?;
        slot.serialize_entry("unread", &self.unread)?;
        let series: Vec<serde_json::Value> = self.counted.iter().map(series).collect();
        slot.serialize_entry("series", &series)?;
        slot.end()
    }
}

fn series(
    (id, labels, value): (Id, &crate::metrics::snapshot::Labels, &Value),
) -> serde_json::Value {
    let metric = &TABLE[id as usize].1;
    let names = metric.labels.iter().zip(labels.iter());
    let labels: serde_json::Map<String, serde_json::Value> = names
        .map(|(name, value)| ((*name).to_owned(), value.to_string().into()))
        .collect();
    let mut series = serde_json::json!({ "metric": metric.name, "labels": labels });
    match value {
        Value::Counter(count) => series["value"] = (*count).into(),
        Value::Total(total) | Value::Gauge(total) => series["value"] = (*total).into(),
        Value::Histogram(histogram) => {
            series["count"] = histogram.count().into();
            series["sum"] = histogram.sum().into();
            for (name, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
                series[name] = histogram.quantile(part).into();
            }
        }
    }
    series
}

fn in_ms<S: Serializer>(resolution: &Resolution, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(resolution.of().ms())
}
