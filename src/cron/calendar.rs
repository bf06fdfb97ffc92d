//! The calendar: local times as seconds since 1970 on the clock on the wall. The conversions between days and dates are
//! those of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".

/// Seconds on a local clock since 1970-01-01T00:00:00 on it.
pub(super) type Local = i64;

pub(super) const DAY: i64 = 86_400;

/// The year, the month and the day of a day since 1970.
pub(super) fn date(day: i64) -> (i64, u32, u32) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let of_month = of_year - (153 * shifted + 2) / 5 + 1;
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month as u32, of_month as u32)
}

/// The day since 1970 of a date.
pub(super) fn day(year: i64, month: u32, of_month: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let of_year = (153 * shifted + 2) / 5 + i64::from(of_month) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The day of the week of a day since 1970; Sunday is 0.
pub(super) fn weekday(day: i64) -> u32 {
    (day + 4).rem_euclid(7) as u32
}

/// The most days a month can have.
pub(super) fn longest(month: u32) -> u32 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `2026-03-29T02:30:00`.
pub(super) fn text(local: Local) -> String {
    let (year, month, of_month) = date(local.div_euclid(DAY));
    let of_day = local.rem_euclid(DAY);
    format!(
        "{year:04}-{month:02}-{of_month:02}T{:02}:{:02}:{:02}",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_a_thousand_years_is_its_date() {
        let first = day(1500, 1, 1);
        let mut before = date(first - 1);
        for number in first..day(2500, 1, 1) {
            let (year, month, of_month) = date(number);
            assert_eq!(day(year, month, of_month), number);
            assert!((year, month, of_month) > before);
            assert!((1..=longest(month)).contains(&of_month));
            before = (year, month, of_month);
        }
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(weekday(0), 4, "a Thursday");
        assert_eq!(text(day(2024, 2, 29) * DAY + 9_000), "2024-02-29T02:30:00");
    }
}
