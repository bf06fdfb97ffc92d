//! A pattern of five fields, as crontab has it, on a clock that is never set.

use super::calendar::{DAY, Local, date, day, longest, weekday};
use super::field::{Field, Kind};

const MINUTE: Kind = kind("minute", 0, 59, &[], 0);
const HOUR: Kind = kind("hour", 0, 23, &[], 0);
const OF_MONTH: Kind = kind("day of the month", 1, 31, &[], 0);
const MONTH: Kind = kind(
    "month",
    1,
    12,
    &[
        "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ],
    1,
);
const OF_WEEK: Kind = kind(
    "day of the week",
    0,
    7,
    &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    0,
);

const fn kind(
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
    first_name: u32,
) -> Kind {
    Kind {
        name,
        first,
        last,
        names,
        first_name,
    }
}

/// The last year there is.
const LAST_YEAR: i64 = 9999;

/// Five fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    minute: Field,
    hour: Field,
    of_month: Field,
    month: Field,
    of_week: Field,
}

impl Pattern {
    /// Reads five fields.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, of_month, month, of_week] = fields[..] else {
            return Err(match fields.len() {
                6 | 7 => format!(
                    "{} fields: a pattern has five, and none for seconds; write `every 30s` for what is more often \
                     than each minute",
                    fields.len()
                ),
                some => format!(
                    "{some} field{}: a pattern has five (minute, hour, day of the month, month, day of the week), as \
                     `30 2 * * *`; or write `every 15m`, or `@daily`",
                    if some == 1 { "" } else { "s" }
                ),
            });
        };
        let pattern = Pattern {
            minute: Field::parse(&MINUTE, minute)?,
            hour: Field::parse(&HOUR, hour)?,
            of_month: Field::parse(&OF_MONTH, of_month)?,
            month: Field::parse(&MONTH, month)?,
            of_week: Field::parse(&OF_WEEK, of_week)?.with_sunday_as_0(),
        };
        match pattern.comes() {
            true => Ok(pattern),
            false => Err(format!(
                "a date that never comes: no month of `{month}` has a day `{of_month}`"
            )),
        }
    }

    /// Whether it names its times one by one, so that each is to happen once whatever is done to the clock.
    pub fn is_fixed(&self) -> bool {
        !self.hour.has_star && !self.hour.has_step
    }

    /// The first time that matches, from this one on.
    pub fn from(&self, from: Local) -> Option<Local> {
        let from = from + (-from).rem_euclid(60);
        let (mut number, mut minute) = (from.div_euclid(DAY), from.rem_euclid(DAY) / 60);
        loop {
            let (year, month, of_month) = date(number);
            if year > LAST_YEAR {
                return None;
            }
            if !self.month.has(month) {
                let (year, month) = match self.month.from(month) {
                    Some(month) => (year, month),
                    None => (year + 1, self.month.from(0)?),
                };
                (number, minute) = (day(year, month, 1), 0);
                continue;
            }
            if self.has_day(of_month, weekday(number))
                && let Some(minute) = self.time_from(minute as u32)
            {
                return Some(number * DAY + i64::from(minute) * 60);
            }
            (number, minute) = (number + 1, 0);
        }
    }

    /// Whether this time matches.
    #[cfg(test)]
    pub fn has(&self, local: Local) -> bool {
        let (_, month, of_month) = date(local.div_euclid(DAY));
        let minute = (local.rem_euclid(DAY) / 60) as u32;
        local % 60 == 0
            && self.minute.has(minute % 60)
            && self.hour.has(minute / 60)
            && self.month.has(month)
            && self.has_day(of_month, weekday(local.div_euclid(DAY)))
    }

    /// As crontab has it: if both days are said, one of them is enough.
    fn has_day(&self, of_month: u32, of_week: u32) -> bool {
        let (by_month, by_week) = (self.of_month.has(of_month), self.of_week.has(of_week));
        match self.of_month.has_star || self.of_week.has_star {
            true => by_month && by_week,
            false => by_month || by_week,
        }
    }

    /// The first minute of a day that matches, from this one on.
    fn time_from(&self, minute: u32) -> Option<u32> {
        let hour = minute / 60;
        if self.hour.has(hour)
            && let Some(minute) = self.minute.from(minute % 60)
        {
            return Some(hour * 60 + minute);
        }
        let hour = self.hour.from(hour + 1)?;
        Some(hour * 60 + self.minute.from(0)?)
    }

    /// Whether there is such a date at all. In 400 years every date falls on each day of the week, so that only the
    /// lengths of the months count.
    fn comes(&self) -> bool {
        let by_week = !self.of_month.has_star && !self.of_week.has_star;
        let first = self.of_month.from(1).unwrap_or(1);
        by_week || (1..=12).any(|month| self.month.has(month) && first <= longest(month))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cron::calendar::text;

    fn next(pattern: &str, from: Local) -> String {
        text(Pattern::parse(pattern).unwrap().from(from).unwrap())
    }

    #[test]
    fn the_next_time_is_found_by_the_calendar() {
        let from = day(2026, 3, 29) * DAY + 1;
        assert_eq!(next("30 2 * * *", from), "2026-03-29T02:30:00");
        assert_eq!(next("* * * * *", from), "2026-03-29T00:01:00");
        assert_eq!(next("0 0 29 2 *", from), "2028-02-29T00:00:00");
        assert_eq!(next("0 0 29 2 */5", from), "2032-02-29T00:00:00");
        assert_eq!(next("0 0 31 * *", from), "2026-03-31T00:00:00");
        assert_eq!(next("0 0 13 * FRI", from), "2026-04-03T00:00:00");
        assert_eq!(next("0 0 */13 * FRI", from), "2026-05-01T00:00:00");
        assert_eq!(next("15 8-18/5 * JAN,dec 7", from), "2026-12-06T08:15:00");
        let late = day(9999, 12, 31) * DAY + 1;
        assert_eq!(Pattern::parse("0 0 1 1 *").unwrap().from(late), None);
    }

    #[test]
    fn what_never_comes_is_known_without_a_search() {
        for never in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31 FEB */2"] {
            let refused = Pattern::parse(never).unwrap_err();
            assert!(refused.starts_with("a date that never comes"), "{refused}");
        }
        for comes in ["0 0 29 2 *", "0 0 30 2 MON", "0 0 31 2,3 *"] {
            Pattern::parse(comes).unwrap();
        }
    }

    #[test]
    fn a_field_for_seconds_and_too_few_fields_are_refused() {
        let refused = Pattern::parse("0 30 2 * * *").unwrap_err();
        assert!(refused.contains("none for seconds"), "{refused}");
        assert!(Pattern::parse("30 2").unwrap_err().starts_with("2 fields"));
        assert!(Pattern::parse("").unwrap_err().starts_with("0 fields"));
    }
}
