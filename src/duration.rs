//! Durations as humans write them: `500ms`, `30s`, `1h 30m`.

use std::fmt;
use std::time::Duration;

use serde::Serializer;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a duration; an error completes a sentence about the text and says what to write.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    const ADVICE: &str = "write a number and a unit, as in \"500ms\", \"30s\" or \"1h 30m\"";
    if text.trim().is_empty() {
        return Err(format!("is empty; {ADVICE}"));
    }
    let number = text.trim();
    if number.parse::<f64>().is_ok() && number != "0" {
        return Err(format!("{text:?} has no unit; write \"{number}s\""));
    }
    if is_longer_than_any_sensible(text) {
        return Err(format!("{text:?} is too long for a duration"));
    }
    match humantime::parse_duration(text) {
        Ok(duration) => Ok(duration),
        Err(humantime::DurationError::UnknownUnit { unit, .. }) if !unit.is_empty() => Err(
            format!("{text:?} has the unknown unit {unit:?}; the units are ms, s, m, h and d"),
        ),
        Err(humantime::DurationError::NumberOverflow) => {
            Err(format!("{text:?} is too large or too fine for a duration"))
        }
        Err(_) => Err(format!("{text:?} is not a duration; {ADVICE}")),
    }
}

/// A duration as [`parse`] reads it: `1d 2h 5m`, days being the largest unit.
pub(crate) fn format(duration: Duration) -> impl fmt::Display {
    Formatted(duration)
}

/// The same of what was measured or reckoned, to the millisecond: for lines of the log and messages.
pub(crate) fn rounded(duration: Duration) -> impl fmt::Display {
    Formatted(Duration::from_millis(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    ))
}

struct Formatted(Duration);

impl fmt::Display for Formatted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The printer below would go on to months of 30.44 days.
        let days = self.0.as_secs() / DAY.as_secs();
        if days == 0 {
            return write!(f, "{}", humantime::format_duration(self.0));
        }
        write!(f, "{days}d")?;
        let rest = self.0 - Duration::from_secs(days * DAY.as_secs());
        if !rest.is_zero() {
            write!(f, " {}", humantime::format_duration(rest))?;
        }
        Ok(())
    }
}

/// For `#[serde(serialize_with)]`.
pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format(*value))
}

/// For `#[serde(serialize_with)]` on fields that are left out when unset.
pub(super) fn serialize_option<S: Serializer>(
    value: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serialize(value, to),
        None => to.serialize_none(),
    }
}

/// Guards the parser below, which panics where the parts of a duration sum up to exactly the last
/// second a `u64` can count. Numbers of ten digits in a text of this length stay far below it.
fn is_longer_than_any_sensible(text: &str) -> bool {
    let mut digits = 0;
    text.len() > 64
        || text.chars().filter(|c| !c.is_whitespace()).any(|c| {
            digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
            digits > 10
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_humans_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1.5s", 1_500),
            ("5m", 300_000),
            ("1h 30m", 5_400_000),
            ("2d", 172_800_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_refused_duration_says_what_to_write() {
        let refusals = [
            "",
            "30",
            "1.5",
            "-5s",
            "5 parsecs",
            "soon",
            "5s!",
            "99999999999s",
            "0.1ns",
        ]
        .map(|text| parse(text).expect_err(text))
        .join("\n");
        insta::assert_snapshot!(refusals, @r#"
        is empty; write a number and a unit, as in "500ms", "30s" or "1h 30m"
        "30" has no unit; write "30s"
        "1.5" has no unit; write "1.5s"
        "-5s" is not a duration; write a number and a unit, as in "500ms", "30s" or "1h 30m"
        "5 parsecs" has the unknown unit "parsecs"; the units are ms, s, m, h and d
        "soon" is not a duration; write a number and a unit, as in "500ms", "30s" or "1h 30m"
        "5s!" is not a duration; write a number and a unit, as in "500ms", "30s" or "1h 30m"
        "99999999999s" is too long for a duration
        "0.1ns" is too large or too fine for a duration
        "#);
    }

    #[test]
    fn the_largest_sum_of_parts_is_refused_and_does_not_panic() {
        assert!(parse("18446744073709551615s 500ms 500ms").is_err());
        assert!(parse("1 8 4 4 6 7 4 4 0 7 3 7 0 9 5 5 1 6 1 5s 500ms 500ms").is_err());
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back_equal(
            seconds in 0..100_000_000_u64, nanos in 0..1_000_000_000_u32
        ) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&format(duration).to_string()), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9]{0,22}(s|ms|y|w|h)( ?[0-9.]{0,12}(ns|s|ms|y|)){0,4}|.{0,20}") {
            let _ = parse(&text);
        }
    }
}
