//! A schedule: one or more rules in one zone, and its occurrences one after the other.

use super::occurrence::{self, After, Occurrence};
use super::rule::{Hit, Rule};
use super::zone::Zone;

/// How many occurrences tell how close together two of them come.
const SAMPLE: usize = 500;

/// How often a clock shows a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Once,
    /// It is left out.
    LeftOut,
    /// Twice, and this is the first.
    First,
    /// Twice, and this is the second.
    Second,
}

/// Rules, and the zone whose clocks they go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    rules: Vec<Rule>,
    zone: Zone,
}

impl Schedule {
    /// Reads a schedule, one rule a line.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>, zone: Zone) -> Result<Self, String> {
        let rules = lines.into_iter().map(|line| {
            let rule = Rule::parse(line);
            rule.map_err(|why| format!("`{line}`: {why}"))
        });
        let rules = rules.collect::<Result<Vec<_>, _>>()?;
        match rules.is_empty() {
            true => Err("an empty list: a schedule says at least one time".into()),
            false => Ok(Schedule { rules, zone }),
        }
    }

    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The first occurrence after that; None behind the year 9999.
    pub fn next(&self, after: After) -> Option<Occurrence> {
        let hits = self.rules.iter().filter_map(|rule| {
            let hit = rule.next(&self.zone, after.instant, after.behind)?;
            Some((rule, hit))
        });
        let hits: Vec<(&Rule, Hit)> = hits.collect();
        let instant = hits.iter().map(|(_, hit)| hit.instant).min()?;
        let mut all = Vec::new();
        let mut behind = None;
        for (rule, hit) in hits.iter().filter(|(_, hit)| hit.instant == instant) {
            let also = rule.also(&self.zone, hit);
            if matches!(rule, Rule::Once(_)) {
                behind = behind.max(also.last().copied()).max(Some(hit.local));
            }
            all.push((hit.local, hit.again));
            all.extend(also.into_iter().map(|local| (local, None)));
        }
        all.sort_unstable();
        all.dedup();
        let mut names = all
            .into_iter()
            .map(|(local, again)| occurrence::name(local, again, self.zone.name()));
        Some(Occurrence {
            instant,
            name: names.next()?,
            also: names.collect(),
            behind,
        })
    }

    /// The occurrences after that, one after the other.
    pub fn iter(&self, mut after: After) -> impl Iterator<Item = Occurrence> {
        std::iter::from_fn(move || {
            let next = self.next(after)?;
            after = next.as_before(after);
            Some(next)
        })
    }

    /// What would happen at this instant, by the zone's clock.
    pub fn at(&self, instant: i64) -> Occurrence {
        let local = instant + self.zone.offset(instant);
        Occurrence {
            instant,
            name: occurrence::name(local, None, self.zone.name()),
            also: Vec::new(),
            behind: None,
        }
    }

    /// An occurrence as it is kept: what it is known by, when it happens, and the names of all that happen then.
    pub fn named(&self, name: &str, instant: i64, names: &str) -> Occurrence {
        let also = names.split(',').skip(1);
        Occurrence {
            instant,
            name: name.to_owned(),
            also: also.map(str::to_owned).collect(),
            behind: None,
        }
    }

    /// How often the clock shows the time of an occurrence.
    pub fn shown(&self, occurrence: &Occurrence) -> Shown {
        let Occurrence { instant, name, .. } = occurrence;
        let offset = self.zone.offset(*instant);
        let local = instant + offset;
        let (time, zone) = name.split_at(name.find('[').unwrap_or(name.len()));
        if time.len() > occurrence::TIME {
            return Shown::Second;
        }
        if format!("{time}{zone}") != occurrence::name(local, None, self.zone.name()) {
            return Shown::LeftOut;
        }
        // The clock goes back after it to a time before it.
        let change = self.zone.next_change(*instant);
        let is_again = change.is_some_and(|change| change + self.zone.offset(change) <= local);
        if is_again { Shown::First } else { Shown::Once }
    }

    /// The last occurrence after that which is not later than this instant.
    pub fn last(&self, after: After, until: i64) -> Option<Occurrence> {
        // Looks back further and further, so that what is passed over is no more than what lies in one such step.
        let mut back = 1;
        loop {
            let from = After {
                instant: (until - back).max(after.instant),
                ..after
            };
            let not_later = |next: &Occurrence| next.instant <= until;
            if let Some(last) = self.iter(from).take_while(not_later).last() {
                return Some(last);
            }
            if from.instant == after.instant {
                return None;
            }
            back *= 2;
        }
    }

    /// The least time between two of its next occurrences, in seconds.
    pub fn least_interval(&self, now: i64) -> Option<i64> {
        let next: Vec<i64> = self
            .iter(After::instant(now))
            .take(SAMPLE)
            .map(|next| next.instant)
            .collect();
        next.windows(2).map(|two| two[1] - two[0]).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cron::calendar::{DAY, day};

    fn schedule(lines: &[&str], zone: &str) -> Schedule {
        let zone = Zone::named(zone).unwrap();
        Schedule::parse(lines.iter().copied(), zone).unwrap()
    }

    /// The occurrences of a day and the next, in Berlin: local time, and hours and minutes of UTC.
    fn of_day(lines: &[&str], first: i64) -> Vec<(String, String)> {
        let schedule = schedule(lines, "Europe/Berlin");
        let begin = After::instant(first * DAY - 3601);
        // Its hours that are looked at are early ones, or in the afternoon.
        let until = |next: &Occurrence| next.instant < (first + 1) * DAY - 4 * 3600;
        let clock = |instant: i64| format!("{:02}:{:02}", instant / 3600 % 24, instant / 60 % 60);
        let all = schedule.iter(begin).take_while(until);
        let short = |names: String| names.replace("[Europe/Berlin]", "").replace(":00,", ",");
        all.map(|next| {
            let names = short(next.names());
            let names = names.split(',').map(|name| name[5..].to_owned());
            (names.collect::<Vec<_>>().join(" "), clock(next.instant))
        })
        .collect()
    }

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter()
            .map(|(name, clock)| ((*name).to_owned(), (*clock).to_owned()))
            .collect()
    }

    #[test]
    fn what_a_clock_leaves_out_happens_behind_it_and_once() {
        let spring = day(2026, 3, 29);
        assert_eq!(
            of_day(&["30 2 * * *"], spring),
            pairs(&[("03-29T02:30:00", "01:00")])
        );
        assert_eq!(
            of_day(&["30 2,14 * * *"], spring),
            pairs(&[("03-29T02:30:00", "01:00"), ("03-29T14:30:00", "12:30")])
        );
        // It shares its instant with another.
        assert_eq!(
            of_day(&["30 2 * * *", "0 3 * * *"], spring),
            pairs(&[("03-29T02:30 03-29T03:00:00", "01:00")])
        );
    }

    #[test]
    fn what_a_clock_shows_twice_happens_the_first_time() {
        let autumn = day(2026, 10, 25);
        assert_eq!(
            of_day(&["30 2,14 * * *"], autumn),
            pairs(&[("10-25T02:30:00", "00:30"), ("10-25T14:30:00", "13:30")])
        );
    }

    #[test]
    fn what_follows_the_time_that_passes_happens_twice_then_and_in_order() {
        let autumn = of_day(&["*/30 1-3/1 * * *"], day(2026, 10, 25));
        assert_eq!(
            autumn,
            pairs(&[
                ("10-25T01:00:00", "23:00"),
                ("10-25T01:30:00", "23:30"),
                ("10-25T02:00:00", "00:00"),
                ("10-25T02:30:00", "00:30"),
                ("10-25T02:00:00+01:00", "01:00"),
                ("10-25T02:30:00+01:00", "01:30"),
                ("10-25T03:00:00", "02:00"),
                ("10-25T03:30:00", "02:30"),
            ])
        );
        let spring = of_day(&["*/30 1-3/1 * * *"], day(2026, 3, 29));
        assert_eq!(
            spring,
            pairs(&[
                ("03-29T01:00:00", "00:00"),
                ("03-29T01:30:00", "00:30"),
                ("03-29T03:00:00", "01:00"),
                ("03-29T03:30:00", "01:30"),
            ])
        );
    }

    #[test]
    fn an_interval_knows_nothing_of_clocks() {
        let hourly = schedule(&["every 90m"], "Europe/Berlin");
        let all = hourly.iter(After::instant(day(2026, 3, 28) * DAY)).take(40);
        let all: Vec<i64> = all.map(|next| next.instant).collect();
        assert!(all.windows(2).all(|two| two[1] - two[0] == 5400));
        for wrong in [
            "every",
            "every 0s",
            "every 500ms",
            "every 1500ms",
            "every x",
            "@nightly",
        ] {
            let zone = Zone::named("UTC").unwrap();
            assert!(Schedule::parse([wrong], zone).is_err(), "{wrong}");
        }
        let empty = Schedule::parse([], Zone::named("UTC").unwrap());
        assert!(empty.unwrap_err().starts_with("an empty list"));
    }

    #[test]
    fn other_rules_for_a_zone_do_not_run_a_day_twice() {
        // Planned by a worker whose rules have it an hour earlier: by those here, the day's time is yet to come.
        let nightly = schedule(&["30 2 * * *"], "Europe/Berlin");
        let today = nightly.next(After::instant(day(2026, 7, 1) * DAY)).unwrap();
        let earlier = After {
            instant: today.instant - 3600,
            behind: today.behind,
        };
        assert_eq!(nightly.next(earlier).unwrap().name[..10], *"2026-07-02");
        assert_eq!(today.name[..10], *"2026-07-01");
    }

    #[test]
    fn the_last_one_is_found_from_behind() {
        let yearly = schedule(&["0 0 1 1 *"], "UTC");
        let (since, until) = (day(2020, 6, 1) * DAY, day(2026, 6, 1) * DAY);
        let last = yearly.last(After::instant(since), until).unwrap();
        assert_eq!(last.name, "2026-01-01T00:00:00[UTC]");
        let none = yearly.last(After::instant(day(2026, 1, 2) * DAY), until);
        assert_eq!(none, None);
        let often = schedule(&["every 1s"], "UTC");
        assert_eq!(often.last(After::instant(0), until).unwrap().instant, until);
        assert_eq!(often.least_interval(until), Some(1));
    }
}
