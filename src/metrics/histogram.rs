//! A histogram whose buckets grow by an eighth of an octave. Whatever is recorded is known to within 4.5 % later, however
//! many histograms were added up meanwhile; and the buckets are those of Prometheus native histograms of schema 3 and of
//! OTLP's exponential histograms of scale 3, so that nothing is lost on the way there.

/// Buckets an octave has are two to the power of this.
pub const SCALE: i32 = 3;
/// Buckets of an octave.
const OCTAVE: i32 = 1 << SCALE;
/// What is no larger counts as zero: 119 ns, of seconds.
pub const ZERO: f64 = 1.0 / (1u64 << -LOWEST_OCTAVE) as f64;
/// The octaves that are told apart: from [`ZERO`] to 97 days, of seconds. What is larger counts to the last bucket.
const LOWEST_OCTAVE: i32 = -23;
const HIGHEST_OCTAVE: i32 = 23;
/// The first and the last bucket there can be.
pub const FIRST: i16 = (LOWEST_OCTAVE * OCTAVE + 1) as i16;
pub const LAST: i16 = (HIGHEST_OCTAVE * OCTAVE) as i16;

/// How often which values came.
///
/// Bucket `i` has what is larger than 2^((i-1)/8) and no larger than 2^(i/8), as Prometheus counts them. OTLP's index of
/// the same bucket is one less.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    zero: u64,
    sum: f64,
    /// Those that are not empty, the lowest first.
    buckets: Vec<(i16, u64)>,
}

impl Histogram {
    /// Made of what was counted elsewhere; the buckets come with the lowest first.
    pub fn of(zero: u64, sum: f64, buckets: impl IntoIterator<Item = (i16, u64)>) -> Self {
        let buckets = buckets.into_iter().filter(|(_, count)| *count > 0);
        let buckets: Vec<_> = buckets.collect();
        debug_assert!(buckets.is_sorted_by_key(|(index, _)| *index));
        Histogram { zero, sum, buckets }
    }

    /// Counts one value. A negative one counts as zero. (Whoever counts what happens has cells for it.)
    #[allow(dead_code)]
    pub fn record(&mut self, value: f64) {
        self.sum += value.max(0.0);
        let Some(index) = index(value) else {
            self.zero += 1;
            return;
        };
        match self.buckets.binary_search_by_key(&index, |(at, _)| *at) {
            Ok(at) => self.buckets[at].1 += 1,
            Err(at) => self.buckets.insert(at, (index, 1)),
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.zero + self.buckets.iter().map(|(_, count)| count).sum::<u64>()
    }

    /// What all of them come to together.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// How many were [`ZERO`] or less.
    pub fn zero(&self) -> u64 {
        self.zero
    }

    /// The buckets that are not empty, each by its index, the lowest first.
    pub fn buckets(&self) -> &[(i16, u64)] {
        &self.buckets
    }

    pub fn is_empty(&self) -> bool {
        self.zero == 0 && self.buckets.is_empty()
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Histogram) {
        self.zero += other.zero;
        self.sum += other.sum;
        self.combine(other, |mine, others| mine + others);
    }

    /// Takes off what had been counted by an earlier time.
    pub fn subtract(&mut self, earlier: &Histogram) {
        self.zero = self.zero.saturating_sub(earlier.zero);
        self.combine(earlier, u64::saturating_sub);
        // What rounding leaves of a sum of nothing is nothing.
        self.sum = match self.is_empty() {
            true => 0.0,
            false => (self.sum - earlier.sum).max(0.0),
        };
    }

    /// The value that this part of all are no larger than, to within 4.5 %; none where nothing was counted.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((part.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = self.zero;
        if seen >= rank {
            return Some(0.0);
        }
        for (index, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return Some(middle(*index));
            }
        }
        None
    }

    /// How many were no larger than two to the power of each of these, the lowest first.
    pub fn up_to_octaves(&self, octaves: impl IntoIterator<Item = i32>) -> Vec<u64> {
        let mut buckets = self.buckets.iter().peekable();
        let mut seen = self.zero;
        let up_to = |octave: i32| {
            while let Some((_, count)) =
                buckets.next_if(|(at, _)| i32::from(*at) <= octave * OCTAVE)
            {
                seen += count;
            }
            seen
        };
        octaves.into_iter().map(up_to).collect()
    }

    fn combine(&mut self, other: &Histogram, with: fn(u64, u64) -> u64) {
        if other.buckets.is_empty() {
            return;
        }
        let mine = std::mem::take(&mut self.buckets);
        self.buckets.reserve(mine.len().max(other.buckets.len()));
        let (mut mine, mut others) = (mine.into_iter().peekable(), other.buckets.iter().peekable());
        loop {
            let at = match (mine.peek(), others.peek()) {
                (None, None) => return,
                (Some((at, _)), None) | (None, Some((at, _))) => *at,
                (Some((mine, _)), Some((others, _))) => *mine.min(others),
            };
            let left = mine.next_if(|(of, _)| *of == at).map_or(0, |(_, n)| n);
            let right = others.next_if(|(of, _)| *of == at).map_or(0, |(_, n)| *n);
            let count = with(left, right);
            if count > 0 {
                self.buckets.push((at, count));
            }
        }
    }
}

/// The largest value of a bucket.
#[cfg(test)]
pub fn upper_bound(index: i16) -> f64 {
    (f64::from(index) / f64::from(OCTAVE)).exp2()
}

/// The value that is nearest to all of a bucket, by proportion.
fn middle(index: i16) -> f64 {
    ((f64::from(index) - 0.5) / f64::from(OCTAVE)).exp2()
}

/// The bucket of a value; none of one that counts as zero. The octave is the number's exponent. Which eighth it is is
/// found by a table of sixteen parts of an octave, each of which has at most one bound within.
#[inline]
pub fn index(value: f64) -> Option<i16> {
    // What is no number is in none, either.
    if value.is_nan() || value <= ZERO {
        return None;
    }
    let bits = value.to_bits();
    let octave = (bits >> MANTISSA) as i32 - 1023;
    let mantissa = bits & ((1 << MANTISSA) - 1);
    let part = &PARTS[(mantissa >> (MANTISSA - 4)) as usize];
    let index = octave * OCTAVE + part.below + i32::from(mantissa > part.bound);
    Some(index.min(i32::from(LAST)) as i16)
}

const MANTISSA: u32 = 52;

/// The bounds within an octave.
const BOUNDS: [f64; OCTAVE as usize] = [
    1.0,
    1.090_507_732_665_257_7,
    1.189_207_115_002_721,
    1.296_839_554_651_009_6,
    std::f64::consts::SQRT_2,
    1.542_210_825_407_940_7,
    1.681_792_830_507_429,
    1.834_008_086_409_342_4,
];

/// A sixteenth of an octave.
#[derive(Clone, Copy)]
struct Part {
    /// Bounds that lie before it,
    below: i32,
    /// and the mantissa of the one that lies within it, if one does.
    bound: u64,
}

static PARTS: [Part; 16] = parts();

const fn parts() -> [Part; 16] {
    let nothing = Part {
        below: 0,
        bound: u64::MAX,
    };
    let mut parts = [nothing; 16];
    let (mut at, mut bound) = (0, 0);
    while at < parts.len() {
        parts[at].below = bound as i32;
        if bound < BOUNDS.len() {
            let mantissa = BOUNDS[bound].to_bits() & ((1 << MANTISSA) - 1);
            if mantissa >> (MANTISSA - 4) == at as u64 {
                parts[at].bound = mantissa;
                bound += 1;
            }
        }
        at += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram() -> impl Strategy<Value = Histogram> {
        proptest::collection::vec(prop_oneof![Just(0.0), 1e-9..1e-3, 1e-3..1e8], 0..200)
            .prop_map(|values| of(&values))
    }

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    /// Sums are rounded each by themselves; all else is the same.
    fn assert_same(left: &Histogram, right: &Histogram) {
        assert_eq!((left.zero, &left.buckets), (right.zero, &right.buckets));
        assert!((left.sum - right.sum).abs() <= 1e-9 * left.sum.max(right.sum));
    }

    #[test]
    fn bounds_belong_to_the_bucket_below_them() {
        for octave in LOWEST_OCTAVE..HIGHEST_OCTAVE {
            for (eighth, bound) in BOUNDS.iter().enumerate() {
                let (value, at) = (
                    bound * f64::from(octave).exp2(),
                    octave * OCTAVE + eighth as i32,
                );
                let next = f64::from_bits(value.to_bits() + 1);
                if value > ZERO {
                    assert_eq!(index(value), Some(at as i16), "{value}");
                }
                assert_eq!(index(next), Some(at as i16 + 1), "{next}");
            }
        }
    }

    #[test]
    fn the_range_has_ends() {
        assert_eq!(
            (index(0.0), index(-1.0), index(f64::NAN)),
            (None, None, None)
        );
        assert_eq!((index(ZERO), ZERO), (None, upper_bound(FIRST - 1)));
        assert_eq!(index(f64::from_bits(ZERO.to_bits() + 1)), Some(FIRST));
        assert_eq!(
            (index(1e30), index(f64::INFINITY)),
            (Some(LAST), Some(LAST))
        );
    }

    #[test]
    fn octaves_add_up() {
        let histogram = of(&[0.0, 0.5, 0.51, 1.0, 1.01, 3.0, 100.0]);
        assert_eq!(histogram.up_to_octaves([-1, 0, 1, 2, 3]), [2, 4, 5, 6, 6]);
        assert_eq!((histogram.count(), histogram.zero()), (7, 1));
    }

    proptest! {
        #[test]
        fn a_value_lies_within_its_bucket_which_is_narrow(value in ZERO * 1.01..8e6) {
            let index = index(value).unwrap();
            prop_assert!((FIRST..=LAST).contains(&index));
            let rounding = 1.0 + 1e-12;
            prop_assert!(value <= upper_bound(index) * rounding);
            prop_assert!(value * rounding >= upper_bound(index - 1));
            prop_assert!((middle(index) / value - 1.0).abs() <= 0.045);
        }

        #[test]
        fn quantiles_are_near(mut values in proptest::collection::vec(1e-6..1e6, 1..200), part in 0.0..=1.0) {
            let found = of(&values).quantile(part).unwrap();
            values.sort_by(f64::total_cmp);
            let rank = ((part * values.len() as f64).ceil() as usize).max(1);
            prop_assert!((found / values[rank - 1] - 1.0).abs() <= 0.045);
        }

        #[test]
        fn merging_is_recording_all_in_any_order(a in histogram(), b in histogram(), c in histogram()) {
            let merged = |parts: [&Histogram; 3]| {
                let mut all = Histogram::default();
                parts.iter().for_each(|part| all.merge(part));
                all
            };
            let left = merged([&a, &b, &c]);
            let mut right = b.clone();
            right.merge(&c);
            right.merge(&a);
            assert_same(&left, &right);
            prop_assert_eq!(left.count(), a.count() + b.count() + c.count());
        }

        #[test]
        fn subtracting_undoes_merging(a in histogram(), b in histogram()) {
            let mut all = a.clone();
            all.merge(&b);
            all.subtract(&b);
            prop_assert_eq!((all.zero, &all.buckets), (a.zero, &a.buckets));
            prop_assert!((all.sum - a.sum).abs() <= 1e-9 * (a.sum + b.sum));
            all.subtract(&a);
            prop_assert_eq!(all, Histogram::default());
        }
    }
}
