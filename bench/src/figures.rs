//! From what was measured to what is told: medians, ratios of runs that followed each other, percentiles.

use hdrhistogram::Histogram;
use serde::Serialize;

/// A run needs so many samples for its p99.9 to mean something.
const SAMPLES_FOR_P999: u64 = 100_000;

/// The longest latency that is told apart from longer ones, in ns.
const LONGEST: u64 = 60_000_000_000;

/// The middle one; of an even number the mean of the two in the middle.
pub(super) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => figures[n / 2],
        n => f64::midpoint(figures[n / 2 - 1], figures[n / 2]),
    }
}

/// The median over all rounds of what `of` came to in terms of what `to` did in the same round: a machine that is slower
/// in one round than in another is so for both.
pub(super) fn ratio<T>(of: &[T], to: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| figure(of) / figure(to)))
}

/// Likewise, by how much it was more.
pub(super) fn difference<T>(of: &[T], to: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| figure(of) - figure(to)))
}

/// An empty histogram of latencies in ns.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LONGEST, 3).expect("the bounds are right")
}

/// A run's latencies, in µs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub samples: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Where there were enough samples.
    pub p999_us: Option<f64>,
    pub max_us: f64,
}

impl Percentiles {
    pub fn of(latencies: &Histogram<u64>) -> Self {
        let us = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            samples: latencies.len(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: (latencies.len() >= SAMPLES_FOR_P999).then(|| us(0.999)),
            max_us: latencies.max() as f64 / 1e3,
        }
    }

    /// The median of each.
    pub fn medians(runs: &[Percentiles]) -> Self {
        let of = |figure: fn(&Percentiles) -> f64| median(runs.iter().map(figure));
        let p999: Option<Vec<f64>> = runs.iter().map(|run| run.p999_us).collect();
        Percentiles {
            samples: runs.iter().map(|run| run.samples).min().unwrap_or(0),
            p50_us: of(|run| run.p50_us),
            p99_us: of(|run| run.p99_us),
            p999_us: p999.filter(|all| !all.is_empty()).map(median),
            max_us: of(|run| run.max_us),
        }
    }
}

/// The latency in µs below which each of these shares of the samples lies, for a plot.
pub(super) fn curve(latencies: &Histogram<u64>) -> Vec<(f64, f64)> {
    // Evenly spread over the number of nines.
    let shares = (0..=80).map(|n| 1.0 - 10f64.powf(-f64::from(n) / 20.0));
    let told = shares.filter(|share| (1.0 - share) * latencies.len() as f64 >= 1.0);
    told.map(|share| (share, latencies.value_at_quantile(share) as f64 / 1e3))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median([9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 100.0]), 3.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_not_between_the_medians() {
        // The second round met a busy machine: both ways took ten times as long.
        let (ours, bare) = ([2.0, 20.0, 3.0], [1.0, 10.0, 2.0]);
        assert_eq!(ratio(&ours, &bare, |run| *run), 2.0);
        assert_eq!(difference(&ours, &bare, |run| *run), 1.0);
    }

    #[test]
    fn percentiles_are_those_of_the_samples_and_p999_needs_many() {
        let mut latencies = histogram();
        for us in 1..=1_000 {
            latencies.record(us * 1_000).unwrap();
        }
        let told = Percentiles::of(&latencies);
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted / 500.0;
        assert_eq!(told.samples, 1_000);
        assert!(
            near(told.p50_us, 500.0) && near(told.p99_us, 990.0),
            "{told:?}"
        );
        assert!(near(told.max_us, 1_000.0), "{told:?}");
        assert_eq!(told.p999_us, None);
        latencies.record_n(2_000_000, 99_000).unwrap();
        assert!(
            Percentiles::of(&latencies)
                .p999_us
                .is_some_and(|us| near(us, 2_000.0))
        );
    }

    #[test]
    fn medians_have_a_p999_only_where_every_run_has_one() {
        let run = |p50_us, p999_us| Percentiles {
            samples: 10,
            p50_us,
            p99_us: 2.0 * p50_us,
            p999_us,
            max_us: 9.0,
        };
        let all = Percentiles::medians(&[
            run(3.0, Some(7.0)),
            run(1.0, Some(8.0)),
            run(2.0, Some(9.0)),
        ]);
        assert_eq!((all.p50_us, all.p99_us, all.p999_us), (2.0, 4.0, Some(8.0)));
        assert_eq!(
            Percentiles::medians(&[run(1.0, Some(7.0)), run(1.0, None)]).p999_us,
            None
        );
    }

    #[test]
    fn a_curve_rises_and_ends_where_single_samples_begin() {
        let mut latencies = histogram();
        for us in 1..=1_000 {
            latencies.record(us * 1_000).unwrap();
        }
        let curve = curve(&latencies);
        assert!(
            curve
                .windows(2)
                .all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1)
        );
        assert!(
            curve
                .last()
                .is_some_and(|(share, _)| (0.998..=0.999).contains(share)),
            "{curve:?}"
        );
    }
}
