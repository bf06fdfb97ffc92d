//! Moments as they are written on the command line. "Ago" counts from the server's time: this machine's clock may be
//! wrong, and what is looked for has its times from the server.

use std::time::{Duration, SystemTime};

use crate::duration;
use crate::rfc3339;

/// A time, or how long ago it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    At(SystemTime),
    Ago(Duration),
}

impl Moment {
    /// Reads `2026-01-31T12:00:00Z`, with any offset, `2026-01-31` or `2h`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ago) = duration::parse(text) {
            return Ok(Moment::Ago(ago));
        }
        let day = format!("{text}T00:00:00Z");
        rfc3339::parse(text)
            .or_else(|_| rfc3339::parse(&day))
            .map(Moment::At)
            .map_err(|_| {
                "write a time (2026-01-31T12:00:00Z), a day (2026-01-31) or a duration ago (90s, 2h, 7d)"
                    .to_owned()
            })
    }

    /// Whether it takes the server's time to know when it is.
    pub fn is_ago(self) -> bool {
        matches!(self, Moment::Ago(_))
    }

    /// When it is, at this time of the server.
    pub fn from(self, now: SystemTime) -> SystemTime {
        match self {
            Moment::At(time) => time,
            Moment::Ago(ago) => {
                let then = now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
                then.max(SystemTime::UNIX_EPOCH)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_absolute_or_ago() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let at = |text| Moment::parse(text).map(|moment| moment.from(noon));
        assert_eq!(at("2026-01-31T12:00:00Z"), Ok(noon));
        assert_eq!(at("2026-01-31t13:00:00+01:00"), Ok(noon));
        assert_eq!(at("2026-01-31"), Ok(noon - hours(12)));
        assert_eq!(at("2h"), Ok(noon - hours(2)));
        assert_eq!(at("100000d"), Ok(SystemTime::UNIX_EPOCH));
        for wrong in ["", "yesterday", "2", "2026-13-01", "12:00", "-1h"] {
            assert!(Moment::parse(wrong).is_err(), "{wrong}");
        }
    }
}
