//! Times as RFC 3339 writes them: read with their offsets, in capitals or not, and written in UTC. One place does it, so
//! that what is accepted where an event is published means the same where it is handled.

use std::fmt;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why a text is no time. Displayed as the end of a sentence about it: `which …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTime {
    /// It is a time of a place that it does not name.
    NoOffset,
    /// It has a second 60 where no leap second can be.
    NoLeapSecond,
    /// It is none at all.
    Malformed,
}

impl fmt::Display for NoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoTime::NoOffset => {
                "does not say its offset from UTC; write 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00"
            }
            NoTime::NoLeapSecond => {
                "has a second 60, which only the last minute of a month in UTC can have"
            }
            NoTime::Malformed => {
                "is no time as RFC 3339 writes it; write 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00"
            }
        })
    }
}

/// The time that a text says. A leap second is the last nanosecond before it, for no system clock has one.
pub(crate) fn parse(text: &str) -> Result<SystemTime, NoTime> {
    if let Some(time) = read(text) {
        return Ok(time);
    }
    if read(&format!("{text}Z")).is_some() {
        return Err(NoTime::NoOffset);
    }
    // Would it be one a second earlier?
    let seconds = "2026-01-31T12:00:".len();
    let earlier = match (text.get(..seconds), text.get(seconds..)) {
        (Some(before), Some(rest)) => rest
            .strip_prefix("60")
            .map(|rest| format!("{before}59{rest}")),
        _ => None,
    };
    match earlier {
        Some(earlier) if read(&earlier).is_some() => Err(NoTime::NoLeapSecond),
        _ => Err(NoTime::Malformed),
    }
}

/// The same, for what others have written: one without an offset is in UTC, as it most often is.
pub(crate) fn parse_or_utc(text: &str) -> Option<SystemTime> {
    read(text).or_else(|| read(&format!("{text}Z")))
}

/// In UTC, to the millisecond. What lies beyond the years that RFC 3339 has is the first or the last of them.
pub(crate) fn millis(time: SystemTime) -> String {
    within(time).map_or_else(outside, |time| {
        humantime::format_rfc3339_millis(time).to_string()
    })
}

/// In UTC, with as many digits of a second as it has.
pub(crate) fn written(time: SystemTime) -> String {
    within(time).map_or_else(outside, |time| humantime::format_rfc3339(time).to_string())
}

/// In UTC, to the second.
pub(crate) fn seconds(time: SystemTime) -> String {
    within(time).map_or_else(outside, |time| {
        humantime::format_rfc3339_seconds(time).to_string()
    })
}

/// A `T` or a space between date and time, for people write both; the crate would take any character.
fn read(text: &str) -> Option<SystemTime> {
    let separator = text.as_bytes().get("2026-01-31".len())?;
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    Some(OffsetDateTime::parse(text, &Rfc3339).ok()?.into())
}

/// The time, if it can be written by the quick way, which panics at others.
fn within(time: SystemTime) -> Result<SystemTime, i128> {
    const LAST: u64 = 253_402_300_799;
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since.as_secs() <= LAST => Ok(time),
        Ok(since) => Err(since.as_nanos() as i128),
        Err(before) => Err(-(before.duration().as_nanos() as i128)),
    }
}

fn outside(nanos: i128) -> String {
    const FIRST: &str = "0000-01-01T00:00:00Z";
    const LAST: &str = "9999-12-31T23:59:59Z";
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    let millis = |time: OffsetDateTime| time.replace_millisecond(time.millisecond()).ok();
    let written = time
        .and_then(millis)
        .and_then(|time| time.format(&Rfc3339).ok());
    written.unwrap_or_else(|| if nanos < 0 { FIRST } else { LAST }.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800)
    }

    #[test]
    fn times_are_read_with_their_offset() {
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00z",
            "2026-01-31 12:00:00Z",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31T06:30:00-05:30",
            "2026-01-31T12:00:00.000-00:00",
            "2026-02-01T02:00:00+14:00",
        ] {
            assert_eq!(parse(text), Ok(noon()), "{text}");
        }
        let half = noon() - Duration::from_millis(16_199_500);
        assert_eq!(parse("2026-01-31T13:00:00.5+05:30"), Ok(half));
        let nanos = noon() + Duration::from_nanos(123_456_789);
        assert_eq!(parse("2026-01-31T12:00:00.1234567891234Z"), Ok(nanos));
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(parse("1969-12-31T23:59:59Z"), Ok(before));
    }

    #[test]
    fn times_are_those_that_are_published() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../conformance/times.json")).unwrap();
        let times = vectors["times"].as_array().unwrap();
        assert!(times.len() > 20);
        for time in times {
            let text = time["text"].as_str().unwrap();
            let utc = time["utc"].as_str().map(|utc| parse(utc).unwrap());
            assert_eq!(parse_or_utc(text), utc, "{text:?}");
            assert_eq!(time["publisher"], parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_leap_second_is_the_end_of_the_second_before_it() {
        let last = SystemTime::UNIX_EPOCH + Duration::new(1_483_228_799, 999_999_999);
        assert_eq!(parse("2016-12-31T23:59:60Z"), Ok(last));
        assert_eq!(parse("2017-01-01T00:59:60.5+01:00"), Ok(last));
        for wrong in ["2016-12-30T23:59:60Z", "2016-12-31T23:59:60+01:00"] {
            assert_eq!(parse(wrong), Err(NoTime::NoLeapSecond), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_apart_from_one_without_an_offset() {
        for local in ["2026-01-31T12:00:00", "2026-01-31 12:00:00.25"] {
            assert_eq!(parse(local), Err(NoTime::NoOffset), "{local}");
        }
        for wrong in [
            "",
            "noon",
            "10m",
            "2026-01-31",
            "2026-01-31T12:00",
            "2026-01-31T12:00:00+1:00",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+01:60",
            "2026-01-31T12:00:00Z+01:00",
            "2026-13-31T12:00:00+01:00",
            "2026-02-29T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:00:00 +01",
            "2026-01-31x12:00:00Z",
            "ääää",
            "2026-01-3\u{e4}12:00:60Z",
        ] {
            assert_eq!(parse(wrong), Err(NoTime::Malformed), "{wrong}");
        }
        assert_eq!(parse_or_utc("2026-01-31 12:00:00"), Some(noon()));
        assert_eq!(parse_or_utc("noon"), None);
    }

    #[test]
    fn what_can_be_read_can_be_written() {
        for (text, written) in [
            ("2026-01-31T13:00:00.5+01:00", "2026-01-31T12:00:00.500Z"),
            ("1969-07-20T20:17:40Z", "1969-07-20T20:17:40Z"),
            ("0000-01-01T00:00:00+01:00", "0000-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59-01:00", "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(millis(parse(text).unwrap()), written, "{text}");
        }
        assert_eq!(seconds(noon()), "2026-01-31T12:00:00Z");
    }
}
