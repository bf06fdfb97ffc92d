//! Where a group is heading: what waited when, by what this process has seen, and what history says of failures.

use std::collections::{BTreeMap, VecDeque};

use super::sentence::Trend;

/// How far back it is remembered what waited.
const KEPT_MS: u64 = 2 * 3_600_000;
/// Samples are this far apart at least.
const APART_MS: u64 = 5_000;
/// The slope is that of so long.
const WINDOW_MS: u64 = 60_000;
/// A deploy is what came with a change if it was there so long before it.
const DEPLOY_MS: u64 = 120_000;

/// What waited, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub at_ms: u64,
    pub runnable: u64,
}

/// What waited of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(VecDeque<Sample>);

/// What history says of a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Lately {
    /// Minutes, the earliest first: when each began, how long it is in seconds, and what became of attempts in it.
    pub minutes: Vec<MinuteOf>,
    /// When versions came up, and which.
    pub deploys: Vec<(u64, String)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct MinuteOf {
    pub at_ms: u64,
    pub seconds: f64,
    pub settled: f64,
    pub failed: f64,
    pub dead: f64,
    /// What failed most.
    pub worst: Option<String>,
}

/// What waited of late of each stream. It is of this process: a group has no memory of it.
#[derive(Debug, Default)]
pub(super) struct Waited(VecDeque<(u64, BTreeMap<String, u64>)>);

impl Waited {
    pub fn take(&mut self, at_ms: u64, runnable: BTreeMap<String, u64>) {
        let is_early = |last: &(u64, _)| at_ms < last.0 + APART_MS;
        if self.0.back().is_some_and(is_early) {
            return;
        }
        self.0.push_back((at_ms, runnable));
        while self
            .0
            .front()
            .is_some_and(|first| first.0 + KEPT_MS < at_ms)
        {
            self.0.pop_front();
        }
    }

    /// Of these streams together.
    pub fn of(&self, streams: &[&str]) -> Samples {
        let mut samples = Samples::default();
        for (at_ms, runnable) in &self.0 {
            let of = streams.iter().filter_map(|stream| runnable.get(*stream));
            samples.0.push_back(Sample {
                at_ms: *at_ms,
                runnable: of.sum(),
            });
        }
        samples
    }
}

impl Samples {
    #[cfg(test)]
    pub fn take(&mut self, sample: Sample) {
        if self
            .0
            .back()
            .is_some_and(|last| sample.at_ms < last.at_ms + APART_MS)
        {
            return;
        }
        self.0.push_back(sample);
        while self
            .0
            .front()
            .is_some_and(|first| first.at_ms + KEPT_MS < sample.at_ms)
        {
            self.0.pop_front();
        }
    }

    /// By how much a second more waits than a minute ago; None where that is not known.
    fn slope_at(&self, last: usize) -> Option<f64> {
        let now = self.0.get(last)?;
        let before = self.0.iter().take(last).rev();
        let before = before
            .take_while(|one| one.at_ms + WINDOW_MS >= now.at_ms)
            .last()?;
        let seconds = now.at_ms.saturating_sub(before.at_ms) as f64 / 1000.0;
        (seconds >= 10.0).then(|| (now.runnable as f64 - before.runnable as f64) / seconds)
    }

    pub fn slope(&self) -> Option<f64> {
        self.slope_at(self.0.len().checked_sub(1)?)
    }

    /// Since when ever more waits; None where that began before anything was seen.
    fn growing_since(&self) -> Option<u64> {
        let mut at = self.0.len().checked_sub(1)?;
        while self.slope_at(at)? > 0.0 {
            at = at.checked_sub(1)?;
        }
        // It began within the window of the first that grew.
        self.0.get(at).map(|sample| sample.at_ms)
    }
}

impl Lately {
    /// Where the group is heading; None where nothing is known of how fast it is.
    pub fn trend(&self, samples: &Samples) -> Option<Trend> {
        let slope = samples.slope()?;
        // The last minute is not over; with the one before there is enough to go by.
        let last = &self.minutes[self.minutes.len().saturating_sub(2)..];
        let sum = |of: fn(&MinuteOf) -> f64| last.iter().map(of).sum::<f64>();
        let seconds = sum(|minute| minute.seconds).max(1.0);
        let (settled, failed, dead) = (
            sum(|minute| minute.settled),
            sum(|minute| minute.failed),
            sum(|minute| minute.dead),
        );
        let going = settled / seconds;
        let failing = match settled + failed {
            0.0 => 0.0,
            all => failed / all,
        };
        let since_ms = match failing >= 0.5 {
            true => self.failing_since(),
            false if slope > 0.0 => samples.growing_since(),
            false => None,
        };
        let with_version = since_ms.and_then(|since| self.deployed_before(since));
        Some(Trend {
            coming: (going + slope).max(0.0),
            going,
            failing,
            failing_type: last.last().and_then(|minute| minute.worst.clone()),
            dying: dead / seconds,
            since_ms,
            with_version,
        })
    }

    fn failing_since(&self) -> Option<u64> {
        let is_failing =
            |minute: &&MinuteOf| minute.failed > 0.0 && minute.failed >= minute.settled;
        let failing = self.minutes.iter().rev().take_while(is_failing);
        failing.last().map(|minute| minute.at_ms)
    }

    fn deployed_before(&self, since: u64) -> Option<String> {
        let near = |at: &u64| *at <= since + WINDOW_MS && at + DEPLOY_MS >= since;
        let deploy = self.deploys.iter().rev().find(|(at, _)| near(at));
        deploy.map(|(_, version)| version.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 10_000_000;

    /// Ten minutes, of which the last four grow by ten a second.
    fn samples() -> Samples {
        let mut samples = Samples::default();
        for at in (0..=600_u64).step_by(5) {
            let runnable = 1000 + at.saturating_sub(360) * 10;
            let at_ms = NOW - 600_000 + at * 1000;
            samples.take(Sample { at_ms, runnable });
        }
        samples
    }

    fn lately(settled: f64, failed: f64) -> Lately {
        let minute = |back: u64| MinuteOf {
            at_ms: NOW - back * 60_000,
            seconds: 60.0,
            settled: if back < 4 { settled } else { 6000.0 },
            failed: if back < 4 { failed } else { 0.0 },
            dead: failed / 10.0,
            worst: Some("order.created".to_owned()),
        };
        Lately {
            minutes: (0..8).rev().map(minute).collect(),
            deploys: vec![
                (NOW - 8_000_000, "0.3.0".to_owned()),
                (NOW - 250_000, "0.3.1".to_owned()),
            ],
        }
    }

    #[test]
    fn what_grows_does_so_since_a_time() {
        let trend = lately(6000.0, 0.0).trend(&samples()).expect("a trend");
        assert_eq!((trend.going, trend.coming), (100.0, 110.0));
        let since = trend.since_ms.expect("a time");
        assert!(since.abs_diff(NOW - 240_000) <= 10_000, "{}", NOW - since);
        assert_eq!(trend.with_version.as_deref(), Some("0.3.1"));
    }

    #[test]
    fn what_grew_before_it_was_looked_at_has_no_beginning() {
        let mut samples = Samples::default();
        for at in 0..20 {
            samples.take(Sample {
                at_ms: NOW + at * 5000,
                runnable: at * 50,
            });
        }
        let trend = lately(6000.0, 0.0).trend(&samples).expect("a trend");
        assert_eq!((trend.since_ms, trend.with_version), (None, None));
        assert_eq!(trend.coming, 110.0);
    }

    #[test]
    fn what_fails_does_so_since_the_first_minute_of_it() {
        let trend = lately(600.0, 5400.0).trend(&samples()).expect("a trend");
        assert_eq!(trend.failing, 0.9);
        assert_eq!(trend.since_ms, Some(NOW - 180_000));
        assert_eq!(trend.failing_type.as_deref(), Some("order.created"));
        assert_eq!(trend.with_version.as_deref(), Some("0.3.1"));
    }

    #[test]
    fn nothing_is_said_of_what_was_not_seen() {
        assert_eq!(Lately::default().trend(&Samples::default()), None);
        let mut one = Samples::default();
        one.take(Sample {
            at_ms: NOW,
            runnable: 5,
        });
        assert_eq!(Lately::default().trend(&one), None);
        let steady = Lately::default().trend(&samples()).expect("a trend");
        assert_eq!(steady.going, 0.0);
    }
}
