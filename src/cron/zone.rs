//! A time zone, from the rules that are compiled in: all workers of one release have the same, whatever machine they run on.

use std::fmt;
use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

use super::calendar::Local;

static RULES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone by its name. Instants are seconds since 1970.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Zone {
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// The zone with this name.
    pub fn named(name: &str) -> Result<Self, String> {
        match RULES.get(name) {
            Ok(rules) => Ok(Zone {
                // As the database writes it, whatever its case here.
                name: rules.iana_name().unwrap_or(name).to_owned(),
                rules,
            }),
            Err(_) => Err(match nearest(name) {
                Some(meant) => format!("unknown time zone; did you mean \"{meant}\"?"),
                None => "unknown time zone; they are named as \"Europe/Berlin\" or \"UTC\"".into(),
            }),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far its clocks are ahead of UTC at this instant.
    pub fn offset(&self, instant: i64) -> i64 {
        self.rules.to_offset(timestamp(instant)).seconds().into()
    }

    /// When the clocks are set the next time after this instant, or how they are counted changes.
    pub fn next_change(&self, instant: i64) -> Option<i64> {
        let mut changes = self.rules.following(timestamp(instant));
        Some(changes.next()?.timestamp().as_second())
    }

    /// The first instant at which its clocks show this time, or one behind it.
    pub fn first_instant(&self, local: Local) -> i64 {
        let shown: DateTime = Offset::UTC.to_datetime(timestamp(local));
        match self.rules.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset }
            | AmbiguousOffset::Fold { before: offset, .. } => local - i64::from(offset.seconds()),
            AmbiguousOffset::Gap { after, .. } => {
                let before_it = local - i64::from(after.seconds());
                self.next_change(before_it).unwrap_or(before_it)
            }
        }
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = String> {
        RULES.available().map(|name| name.as_str().to_owned())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn timestamp(second: i64) -> Timestamp {
    let (first, last) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(second.clamp(first, last)).unwrap_or_default()
}

/// The name that was meant: that of the same place, or one that differs by little.
fn nearest(name: &str) -> Option<String> {
    let plain = |text: &str| text.to_lowercase().replace([' ', '-'], "_");
    let meant = plain(name);
    let mut names: Vec<String> = Zone::names().collect();
    names.sort();
    let place = |name: &str| name.rsplit('/').next().map(plain);
    if let Some(at) = names
        .iter()
        .position(|name| place(name).as_ref() == Some(&meant))
    {
        return Some(names.swap_remove(at));
    }
    let far = |name: &String| strsim::damerau_levenshtein(&plain(name), &meant);
    let nearest = names.into_iter().min_by_key(far)?;
    (far(&nearest) <= 3.max(name.len() / 4)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cron::calendar::{DAY, day};

    #[test]
    fn a_name_that_is_none_is_told_the_nearest() {
        assert_eq!(
            Zone::named("europe/berlin").unwrap().name(),
            "Europe/Berlin"
        );
        let meant = |name: &str| Zone::named(name).unwrap_err();
        assert!(meant("Europe/Berln").contains("\"Europe/Berlin\""));
        assert!(meant("Berlin").contains("\"Europe/Berlin\""));
        assert!(meant("New York").contains("\"America/New_York\""));
        assert!(meant("Mars/Olympus Mons Base").contains("they are named as"));
    }

    #[test]
    fn a_time_that_is_left_out_is_the_first_instant_behind_it() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let at = |day: i64, hour: i64, minute: i64| day * DAY + hour * 3600 + minute * 60;
        let (spring, autumn) = (day(2026, 3, 29), day(2026, 10, 25));
        assert_eq!(berlin.first_instant(at(spring, 2, 30)), at(spring, 1, 0));
        assert_eq!(berlin.first_instant(at(spring, 3, 0)), at(spring, 1, 0));
        assert_eq!(berlin.first_instant(at(autumn, 2, 30)), at(autumn, 0, 30));
        assert_eq!(berlin.first_instant(at(autumn, 3, 0)), at(autumn, 2, 0));
        let apia = Zone::named("Pacific/Apia").unwrap();
        let left_out = day(2011, 12, 30);
        let behind = apia.first_instant(at(left_out + 1, 0, 0));
        assert_eq!(apia.first_instant(at(left_out, 14, 0)), behind);
    }
}
