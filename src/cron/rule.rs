//! One line of a schedule, and how it follows the clocks of a zone.
//!
//! A pattern that names its hours happens once at each of its local times: at the first instant behind it if that time is
//! left out, at the first of two. Any other follows the time that passes: it happens whenever the clock shows a time that
//! matches, twice if that is shown twice. An interval knows nothing of clocks.

use std::time::Duration;

use super::calendar::Local;
use super::pattern::Pattern;
use super::zone::Zone;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A pattern whose local times happen once each.
    Once(Pattern),
    /// A pattern that follows the time that passes.
    Elapsed(Pattern),
    /// Every so many seconds, counted from 1970 in UTC.
    Every(i64),
}

/// One time at which a rule holds.
pub(super) struct Hit {
    pub instant: i64,
    pub local: Local,
    /// How far the clock is ahead of UTC, if it shows this time twice and this is not the first.
    pub again: Option<i64>,
}

const NAMED: &[(&str, &str)] = &[
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

impl Rule {
    /// Reads a line.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if let Some(interval) = line.strip_prefix("every ") {
            return every(interval.trim());
        }
        let pattern = match line.strip_prefix('@') {
            None => line,
            Some(_) => match NAMED.iter().find(|(name, _)| *name == line) {
                Some((_, pattern)) => pattern,
                None => {
                    let known: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
                    return Err(format!("unknown name; known are {}", known.join(", ")));
                }
            },
        };
        let pattern = Pattern::parse(pattern)?;
        Ok(match pattern.is_fixed() {
            true => Rule::Once(pattern),
            false => Rule::Elapsed(pattern),
        })
    }

    /// The first time after this instant; of a pattern whose local times happen once each, behind this local time too.
    pub fn next(&self, zone: &Zone, after: i64, behind: Option<Local>) -> Option<Hit> {
        match self {
            Rule::Once(pattern) => {
                let from = after + zone.offset(after) + 1;
                let mut local = pattern.from(behind.map_or(from, |behind| from.max(behind + 1)))?;
                loop {
                    let instant = zone.first_instant(local);
                    // It may be the second time that the clock shows this.
                    if instant > after {
                        return Some(Hit {
                            instant,
                            local,
                            again: None,
                        });
                    }
                    local = pattern.from(local + 60)?;
                }
            }
            Rule::Elapsed(pattern) => {
                let mut from = after + 1;
                loop {
                    let offset = zone.offset(from);
                    let local = pattern.from(from + offset)?;
                    match zone.next_change(from) {
                        Some(change) if local - offset >= change => from = change,
                        _ => return Some(Hit::shown(zone, local - offset, offset)),
                    }
                }
            }
            Rule::Every(interval) => {
                let instant = (after.div_euclid(*interval) + 1).checked_mul(*interval)?;
                Some(Hit::shown(zone, instant, zone.offset(instant)))
            }
        }
    }

    /// Further local times that happen at the same instant as this one, for the clock left them out.
    pub fn also(&self, zone: &Zone, hit: &Hit) -> Vec<Local> {
        let Rule::Once(pattern) = self else {
            return Vec::new();
        };
        let mut also = Vec::new();
        let mut local = hit.local;
        while let Some(next) = pattern.from(local + 60) {
            if zone.first_instant(next) != hit.instant {
                break;
            }
            also.push(next);
            local = next;
        }
        also
    }
}

impl Hit {
    fn shown(zone: &Zone, instant: i64, offset: i64) -> Self {
        let local = instant + offset;
        Hit {
            instant,
            local,
            again: (zone.first_instant(local) != instant).then_some(offset),
        }
    }
}

fn every(interval: &str) -> Result<Rule, String> {
    let refused = "an interval is whole seconds, from 1s to 365d, as `every 15m`";
    let read = humantime::parse_duration(interval).map_err(|_| refused.to_owned())?;
    let within = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);
    match within.contains(&read) && read.subsec_nanos() == 0 {
        true => Ok(Rule::Every(read.as_secs() as i64)),
        false => Err(refused.into()),
    }
}
