//! How names, numbers and times are shown: filters for templates.

#![allow(clippy::unnecessary_wraps, reason = "what a filter has to return")]

use std::fmt::Display;
use std::time::Duration;

use crate::names;

/// A duration, or a reference to one: templates have either.
pub(super) trait Span {
    fn span(&self) -> Duration;
}

impl Span for Duration {
    fn span(&self) -> Duration {
        *self
    }
}

impl<T: Span> Span for &T {
    fn span(&self) -> Duration {
        (*self).span()
    }
}

/// A name from outside: cut, and with nothing in it that turns the direction of what follows.
#[askama::filter_fn]
pub(super) fn shown(name: impl Display, _: &dyn askama::Values) -> askama::Result<String> {
    Ok(names::shown(&name.to_string()).to_string())
}

/// A number with its thousands apart: 8,112.
#[askama::filter_fn]
pub(super) fn number(number: impl Display, _: &dyn askama::Values) -> askama::Result<String> {
    Ok(thousands(&number.to_string()))
}

/// A duration, roughly: `3 min`, `2 h`.
#[askama::filter_fn]
pub(super) fn rough(duration: impl Span, _: &dyn askama::Values) -> askama::Result<String> {
    Ok(roughly(duration.span()))
}

/// A number with two decimals.
#[askama::filter_fn]
pub(super) fn decimals(number: &f64, _: &dyn askama::Values) -> askama::Result<String> {
    Ok(format!("{number:.2}"))
}

/// A time in seconds since 1970: 2026-11-30 14:02:07, by UTC.
#[askama::filter_fn]
pub(super) fn time_of(seconds: &u64, _: &dyn askama::Values) -> askama::Result<String> {
    let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(*seconds);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    Ok(text.trim_end_matches('Z').replace('T', " "))
}

/// A number's text with its thousands apart.
pub(super) fn thousands(text: &str) -> String {
    let (whole, rest) = match text.find('.') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let (sign, digits) = match whole.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", whole),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return text.to_owned();
    }
    let mut parted = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            parted.push(',');
        }
        parted.push(digit);
    }
    format!("{sign}{parted}{rest}")
}

/// A duration in its largest unit.
pub(super) fn roughly(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0 s".to_owned(),
        0 if duration.as_millis() == 0 => format!("{} µs", duration.as_micros()),
        0 => format!("{} ms", duration.as_millis()),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        let all = ["0", "999", "1000", "8112", "1234567", "-1234.5", "12+"].map(thousands);
        let expected = ["0", "999", "1,000", "8,112", "1,234,567", "-1,234.5", "12+"];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_duration_has_one_unit() {
        let all = [0, 7, 119, 120, 7200, 200_000].map(|s| roughly(Duration::from_secs(s)));
        assert_eq!(all, ["0 s", "7 s", "119 s", "2 min", "2 h", "2 d"]);
        assert_eq!(roughly(Duration::from_millis(12)), "12 ms");
        assert_eq!(roughly(Duration::from_micros(93)), "93 µs");
    }
}
