//! A chart: a picture that needs no JavaScript, and the numbers for one that does.

use serde::Serialize;

use super::sentence::rate;

/// Series over time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Chart {
    #[serde(skip)]
    pub title: &'static str,
    pub unit: Unit,
    /// Seconds since 1970.
    pub times: Vec<u64>,
    pub series: Vec<Series>,
    /// What happened, and when: deploys.
    pub marks: Vec<(u64, String)>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Series {
    pub name: &'static str,
    /// None where there is nothing to say.
    pub values: Vec<Option<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    PerSecond,
    Seconds,
}

/// The picture's size; it is stretched to its place.
const WIDE: f64 = 600.0;
const HIGH: f64 = 120.0;

impl Chart {
    /// A line of the picture for each series, in `d` of an SVG path.
    pub fn paths(&self) -> Vec<String> {
        let (first, last) = self.span();
        let x = |time: u64| (time - first) as f64 / (last - first).max(1) as f64 * WIDE;
        let most = self.most().max(f64::MIN_POSITIVE);
        let y = |value: f64| HIGH - 2.0 - value / most * (HIGH - 6.0);
        let path = |series: &Series| {
            let (mut path, mut pen) = (String::new(), 'M');
            for (time, value) in self.times.iter().zip(&series.values) {
                match value {
                    Some(value) => {
                        path += &format!("{pen}{:.1} {:.1}", x(*time), y(*value));
                        pen = 'L';
                    }
                    None => pen = 'M',
                }
            }
            path
        };
        self.series.iter().map(path).collect()
    }

    /// Where marks are, across.
    pub fn marked(&self) -> Vec<String> {
        let (first, last) = self.span();
        let marks = self
            .marks
            .iter()
            .filter(|(at, _)| (first..=last).contains(at));
        let x = |at: u64| (at - first) as f64 / (last - first).max(1) as f64 * WIDE;
        marks.map(|(at, _)| format!("{:.1}", x(*at))).collect()
    }

    /// The highest value, which is the top of the picture.
    pub fn most(&self) -> f64 {
        let values = self.series.iter().flat_map(|series| &series.values);
        values.flatten().copied().fold(0.0, f64::max)
    }

    /// What a listener is told of it.
    pub fn summary(&self) -> String {
        let mut said = Vec::new();
        for series in &self.series {
            let known: Vec<f64> = series.values.iter().flatten().copied().collect();
            let Some(last) = known.last() else { continue };
            let most = known.iter().copied().fold(0.0, f64::max);
            said.push(format!(
                "{}: last {}, at most {}",
                series.name,
                self.said(*last),
                self.said(most)
            ));
        }
        match said.is_empty() {
            true => "nothing yet".to_owned(),
            false => said.join("; "),
        }
    }

    pub fn said(&self, value: f64) -> String {
        match self.unit {
            Unit::PerSecond => format!("{}/s", rate(value)),
            Unit::Seconds => seconds(value),
        }
    }

    /// The numbers, for the script.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Rows for a table: so many points at most, the latest first.
    pub fn rows(&self, most: usize) -> Vec<(u64, Vec<String>)> {
        let step = self.times.len().div_ceil(most.max(1)).max(1);
        let indexes = (0..self.times.len()).rev().step_by(step);
        let row = |at: usize| {
            let value = |series: &Series| match series.values.get(at).copied().flatten() {
                Some(value) => self.said(value),
                None => "–".to_owned(),
            };
            (self.times[at], self.series.iter().map(value).collect())
        };
        indexes.map(row).collect()
    }

    fn span(&self) -> (u64, u64) {
        let first = self.times.first().copied().unwrap_or(0);
        (first, self.times.last().copied().unwrap_or(0))
    }
}

/// A time that something took.
pub(super) fn seconds(value: f64) -> String {
    match value {
        value if value >= 7200.0 => format!("{:.1} h", value / 3600.0),
        value if value >= 120.0 => format!("{:.1} min", value / 60.0),
        value if value >= 1.0 => format!("{value:.1} s"),
        value if value >= 0.001 => format!("{:.0} ms", value * 1e3),
        value if value > 0.0 => format!("{:.0} µs", value * 1e6),
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            title: "Entries",
            unit: Unit::PerSecond,
            times: vec![100, 110, 120, 130],
            series: vec![Series {
                name: "handled",
                values: vec![Some(0.0), Some(10.0), None, Some(5.0)],
            }],
            marks: vec![(115, "0.2".to_owned()), (99, "0.1".to_owned())],
        }
    }

    #[test]
    fn a_gap_is_a_gap() {
        assert_eq!(chart().paths(), ["M0.0 118.0L200.0 4.0M600.0 61.0"]);
        assert_eq!(chart().marked(), ["300.0"]);
    }

    #[test]
    fn it_can_be_told_in_words_and_in_rows() {
        assert_eq!(chart().summary(), "handled: last 5.0/s, at most 10/s");
        let rows = chart().rows(2);
        assert_eq!(
            rows,
            [
                (130, vec!["5.0/s".to_owned()]),
                (110, vec!["10/s".to_owned()])
            ]
        );
        let empty = Chart {
            times: Vec::new(),
            series: Vec::new(),
            ..chart()
        };
        assert_eq!(empty.summary(), "nothing yet");
        assert!(empty.paths().is_empty());
    }

    #[test]
    fn a_time_has_the_unit_that_suits_it() {
        let all = [0.0, 0.000_05, 0.012, 1.25, 180.0, 9000.0].map(seconds);
        assert_eq!(all, ["0", "50 µs", "12 ms", "1.2 s", "3.0 min", "2.5 h"]);
    }
}
