//! Every occurrence against a walk from minute to minute that looks at the clock on the wall, and knows nothing of
//! searching. The whole (every zone, 30 years) is `a_walk_through_every_zone`, which is slow.

use std::time::Instant;

use proptest::prelude::*;

use super::calendar::{DAY, Local, day};
use super::occurrence::After;
use super::pattern::Pattern;
use super::schedule::Schedule;
use super::zone::Zone;

/// What the clock on the wall shows, from change to change.
struct Wall {
    changes: Vec<(i64, i64)>,
}

impl Wall {
    fn of(zone: &Zone, from: i64, until: i64) -> Self {
        let mut changes = vec![(from, zone.offset(from))];
        while let Some(change) = zone.next_change(changes[changes.len() - 1].0) {
            changes.push((change, zone.offset(change)));
            if change > until {
                break;
            }
        }
        Wall { changes }
    }
}

/// The instants at which the walk sees a pattern hold.
fn walked(pattern: &Pattern, wall: &Wall, from: i64, until: i64) -> Vec<i64> {
    let mut seen = Vec::new();
    // The latest time the clock has shown: what is behind it and not beyond what it shows now has its turn.
    let mut latest: Local = from + wall.changes[0].1 - 60;
    let within = wall.changes.iter().enumerate();
    for (at, (begin, offset)) in within.take_while(|(_, (begin, _))| *begin < until) {
        let end = wall
            .changes
            .get(at + 1)
            .map_or(until, |next| next.0.min(until));
        let mut instant = begin + (-(begin + offset)).rem_euclid(60);
        if pattern.is_fixed() && begin + offset > latest + 60 && *begin > from {
            // Left out.
            let left_out = (latest + 60..begin + offset).step_by(60);
            if left_out.into_iter().any(|local| pattern.has(local)) {
                seen.push(*begin);
            }
            latest = (begin + offset - 1).div_euclid(60) * 60;
        }
        while instant < end {
            let local = instant + offset;
            if (!pattern.is_fixed() || local > latest) && pattern.has(local) {
                seen.push(instant);
            }
            latest = latest.max(local);
            instant += 60;
        }
    }
    seen.dedup();
    seen
}

fn searched(schedule: &Schedule, from: i64, until: i64) -> Vec<i64> {
    let all = schedule.iter(After::instant(from - 1));
    all.map(|next| next.instant)
        .take_while(|instant| *instant < until)
        .collect()
}

fn compare(text: &str, zone: &Zone, wall: &Wall, from: i64, until: i64) -> usize {
    let pattern = Pattern::parse(text).unwrap();
    let schedule = Schedule::parse([text], zone.clone()).unwrap();
    let (walked, searched) = (
        walked(&pattern, wall, from, until),
        searched(&schedule, from, until),
    );
    if walked != searched {
        let at = walked.iter().zip(&searched).position(|(a, b)| a != b);
        let at = at.unwrap_or(walked.len().min(searched.len()));
        panic!(
            "{text} in {zone:?}: walked {:?}, searched {:?}",
            walked.get(at),
            searched.get(at)
        );
    }
    walked.len()
}

fn any_field(first: u32, last: u32) -> impl Strategy<Value = String> {
    let value = first..=last;
    prop_oneof![
        2 => Just("*".to_owned()),
        2 => value.clone().prop_map(|value| value.to_string()),
        1 => (value.clone(), 1..=last).prop_map(|(value, step)| format!("{value}/{step}")),
        1 => (1..=last).prop_map(|step| format!("*/{step}")),
        1 => proptest::collection::vec(value, 1..4).prop_map(|values| {
            values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
        }),
    ]
}

fn any_pattern() -> impl Strategy<Value = String> {
    let fields = (
        any_field(0, 59),
        any_field(0, 23),
        any_field(1, 31),
        any_field(1, 12),
        any_field(0, 6),
    );
    let text = fields.prop_map(|(minute, hour, of_month, month, of_week)| {
        format!("{minute} {hour} {of_month} {month} {of_week}")
    });
    text.prop_filter("it comes", |text| Pattern::parse(text).is_ok())
}

fn any_zone() -> impl Strategy<Value = Zone> {
    let mut names: Vec<String> = Zone::names().collect();
    names.sort();
    proptest::sample::select(names).prop_map(|name| Zone::named(&name).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_search_finds_what_a_walk_sees(
        text in any_pattern(),
        zone in any_zone(),
        year in 1985_i64..2060,
        month in 1_u32..13,
    ) {
        let from = day(year, month, 1) * DAY;
        let until = from + 40 * DAY;
        let wall = Wall::of(&zone, from, until);
        compare(&text, &zone, &wall, from, until);
    }

    #[test]
    fn the_next_one_is_later_than_what_it_is_to_come_after(
        lines in proptest::collection::vec(any_pattern(), 1..4),
        zone in any_zone(),
        after in day(1975, 1, 1) * DAY..day(2080, 1, 1) * DAY,
    ) {
        let schedule = Schedule::parse(lines.iter().map(String::as_str), zone).unwrap();
        let mut after = After::instant(after);
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let Some(next) = schedule.next(after) else { break };
            prop_assert!(next.instant > after.instant);
            prop_assert!(names.insert(next.name.clone()), "{} twice", next.name);
            after = next.as_before(after);
        }
    }
}

/// Zones whose clocks are set by half an hour, by two, by a day, in the middle of the night, or for Ramadan.
const HARD: &[&str] = &[
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Pacific/Apia",
    "Asia/Gaza",
    "Africa/Casablanca",
    "America/Sao_Paulo",
];
const PATTERNS: &[&str] = &[
    "30 2 * * *",
    "0,59 0,1,2,3,14 * * *",
    "*/30 * * * *",
    "15 */3 1-15/2 * 1-5",
];

#[test]
fn a_walk_through_hard_zones() {
    let (from, until) = (day(2009, 1, 1) * DAY, day(2012, 2, 1) * DAY);
    for name in HARD {
        let zone = Zone::named(name).unwrap();
        let wall = Wall::of(&zone, from, until);
        compare(PATTERNS[1], &zone, &wall, from, until);
        compare(PATTERNS[2], &zone, &wall, from, until);
    }
}

/// `cargo test --release --lib -- --ignored --nocapture a_walk_through_every_zone`.
#[test]
#[ignore = "minutes: every zone, thirty years, every minute of them"]
fn a_walk_through_every_zone() {
    let (from, until) = (day(2006, 1, 1) * DAY, day(2036, 1, 1) * DAY);
    let (mut zones, mut all) = (0, 0);
    for name in Zone::names() {
        let zone = Zone::named(&name).unwrap();
        let wall = Wall::of(&zone, from, until);
        for text in PATTERNS {
            all += compare(text, &zone, &wall, from, until);
        }
        zones += 1;
    }
    let schedule = Schedule::parse(
        PATTERNS[..1].iter().copied(),
        Zone::named("Europe/Berlin").unwrap(),
    );
    let schedule = schedule.unwrap();
    let began = Instant::now();
    let many = searched(&schedule, from, until).len();
    let each = began.elapsed().as_secs_f64() * 1e6 / many as f64;
    println!("{zones} zones, {all} occurrences, as walked; {each:.2} µs each");
}
