//! How fast, how much and when, as it is written on the command line for a run of replays.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use crate::duration;
use crate::rfc3339;

/// What comes behind a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    All,
    Rate(NonZeroU32),
}

/// When a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(SystemTime),
    /// At this time of the day, in UTC.
    Clock(Duration),
    In(Duration),
}

const DAY: u64 = 86_400;

impl Then {
    /// Reads `50/s`, `50` or `all`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Then::All);
        }
        let number = text.strip_suffix("/s").unwrap_or(text).trim();
        match number.parse::<u32>().map(NonZeroU32::new) {
            Ok(Some(rate)) => Ok(Then::Rate(rate)),
            Ok(None) => Err("a rate of 0 would never replay anything: leave --then away, and the run stops behind \
                             its canary"
                .to_owned()),
            Err(_) => Err("write a rate in letters a second (50/s), or all".to_owned()),
        }
    }
}

/// Reads `5%` or `5`.
pub(super) fn per_cent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse();
    match number {
        Ok(share) if (0.0..=100.0).contains(&share) => Ok(share),
        _ => Err("write a percentage from 0 to 100 (5%)".to_owned()),
    }
}

impl When {
    /// Reads `02:00`, `2026-01-31T02:00:00Z` or `30m`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(wait) = duration::parse(text) {
            return Ok(When::In(wait));
        }
        if let Ok(at) = rfc3339::parse(text) {
            return Ok(When::At(at));
        }
        let clock = text.split_once(':').and_then(|(hours, minutes)| {
            let number = |text: &str, below: u64| -> Option<u64> {
                let number: Option<u64> = text.parse().ok();
                let number = number.filter(|number| *number < below);
                number.filter(|_| text.len() == 2)
            };
            Some(number(hours, 24)? * 3600 + number(minutes, 60)? * 60)
        });
        let seconds = clock.ok_or_else(|| {
            "write a time of the day in UTC (02:00), a time (2026-01-31T02:00:00Z) or how long from now (30m)".to_owned()
        })?;
        Ok(When::Clock(Duration::from_secs(seconds)))
    }

    /// When that is, at this time of the server.
    pub fn from(self, now: SystemTime) -> SystemTime {
        match self {
            When::At(at) => at,
            When::In(wait) => now + wait,
            When::Clock(of_day) => {
                let since = now
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default();
                let midnight = since.as_secs() / DAY * DAY;
                let today = Duration::from_secs(midnight) + of_day;
                let next = if today > since { 0 } else { DAY };
                SystemTime::UNIX_EPOCH + today + Duration::from_secs(next)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_read_as_people_write_them() {
        let fifty = Then::Rate(NonZeroU32::new(50).unwrap());
        assert_eq!(Then::parse("50/s"), Ok(fifty));
        assert_eq!(Then::parse("50"), Ok(fifty));
        assert_eq!(Then::parse("all"), Ok(Then::All));
        assert!(Then::parse("0/s").unwrap_err().starts_with("a rate of 0"));
        for wrong in ["", "-1", "fast", "5/m", "1.5"] {
            assert!(Then::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(per_cent("5%"), Ok(5.0));
        assert_eq!(per_cent("0.5"), Ok(0.5));
        for wrong in ["", "%", "101%", "-1", "NaN", "few"] {
            assert!(per_cent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_of_the_day_is_the_next_one() {
        // 2026-01-31T12:00:00Z
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let at = |text| When::parse(text).map(|when| when.from(noon));
        assert_eq!(at("14:00"), Ok(noon + hours(2)));
        assert_eq!(at("02:00"), Ok(noon + hours(14)));
        assert_eq!(at("12:00"), Ok(noon + hours(24)));
        assert_eq!(at("2h"), Ok(noon + hours(2)));
        assert_eq!(at("2026-01-31T13:00:00Z"), Ok(noon + hours(1)));
        for wrong in ["", "24:00", "2:00", "02:60", "tomorrow", "02:00:00"] {
            assert!(When::parse(wrong).is_err(), "{wrong}");
        }
    }
}
