//! The event store: appends against a bare script with one XADD, loading a long aggregate against XRANGE with its events
//! decoded, and updates by writers who get in each other's way.

mod ways;

use std::time::Duration;

use serde::Serialize;

use super::figures::{Percentiles, median, ratio};
use super::rig::Rig;
use super::{Measured, Sizes};
use streamhand::cli::CommandError;
use streamhand::unstable::table;

const APPENDS: u64 = 20_000;
/// How many appends are under way at once.
const AT_ONCE: [u64; 2] = [1, 16];
const LONG: u64 = 10_000;
const LOADS: u64 = 20;
const WRITERS: [u64; 3] = [1, 4, 16];
/// Updates of one aggregate, which is loaded for each, and how many aggregates in turn.
const UPDATES: u64 = 320;
const AGGREGATES: u64 = 10;

/// What it came to; medians.
#[derive(Serialize)]
pub(super) struct Store {
    runs: u64,
    appends: u64,
    append: Vec<Appending>,
    events: u64,
    load: Loading,
    updates: u64,
    update: Vec<Updating>,
}

/// Appends of one event, so many at once.
#[derive(Serialize)]
struct Appending {
    at_once: u64,
    bare: Rate,
    store: Rate,
    /// Throughput, and Redis CPU, in terms of the bare script's.
    ratio: f64,
    redis_ratio: f64,
    rounds: Vec<[Rate; 2]>,
}

/// Loads of one long aggregate.
#[derive(Serialize)]
struct Loading {
    /// Events a second.
    bare: Rate,
    repository: Rate,
    ratio: f64,
    rounds: Vec<[Rate; 2]>,
}

/// Updates by so many writers of one aggregate.
#[derive(Serialize)]
struct Updating {
    writers: u64,
    figures: Updates,
    /// Updates a second in terms of those of one writer.
    ratio: f64,
    rounds: Vec<Updates>,
}

#[derive(Clone, Copy, Serialize)]
struct Rate {
    per_second: f64,
    redis_us: f64,
    client_us: f64,
}

#[derive(Clone, Copy, Serialize)]
struct Updates {
    per_second: f64,
    /// Conflicts an update, each of which was resolved by deciding anew.
    conflicts: f64,
    /// How often a writer gave up, having met nothing but conflicts.
    gave_up: u64,
    latency: Percentiles,
}

pub(super) async fn run(rig: &mut Rig, sizes: &Sizes) -> Result<Store, CommandError> {
    let (appends, events) = (sizes.events(APPENDS), sizes.events_of(LONG));
    let (loads, updates) = (sizes.events_of(LOADS).max(2), sizes.events_of(UPDATES));
    let steps = sizes.runs * (2 * AT_ONCE.len() + 2 + WRITERS.len()) as u64;
    let takes = Duration::from_secs_f64(sizes.runs as f64 * appends as f64 / 2_500.0);
    rig.progress.begin("event store", steps, takes);
    let mut append = AT_ONCE.map(|_| Vec::new());
    let mut load = Vec::new();
    let mut update = WRITERS.map(|_| Vec::new());
    for round in 1..=sizes.runs {
        let turn = sizes.turns(round, [false, true]);
        for (at, at_once) in AT_ONCE.into_iter().enumerate() {
            let mut both = [Rate::default(); 2];
            for is_ours in turn {
                let what = if is_ours { "append" } else { "bare XADD" };
                rig.progress.step(round, sizes.runs, what);
                both[usize::from(is_ours)] = match is_ours {
                    true => ways::append(rig, appends, at_once).await?,
                    false => ways::bare_append(rig, appends, at_once).await?,
                };
                rig.progress.done();
            }
            append[at].push(both);
        }
        let long = ways::Long::store(rig, events).await?;
        let mut both = [Rate::default(); 2];
        for is_ours in turn {
            let what = if is_ours { "load" } else { "bare XRANGE" };
            rig.progress.step(round, sizes.runs, what);
            both[usize::from(is_ours)] = long.load(rig, is_ours, loads).await?;
            rig.progress.done();
        }
        long.drop(rig).await?;
        load.push(both);
        for at in sizes.turns(round, [0, 1, 2]) {
            rig.progress.step(round, sizes.runs, "update");
            update[at].push(ways::update(rig, WRITERS[at], updates, AGGREGATES).await?);
            rig.progress.done();
        }
    }
    let [bare, repository] = Rate::medians(&load);
    Ok(Store {
        runs: sizes.runs,
        appends,
        append: AT_ONCE
            .into_iter()
            .zip(append)
            .map(|(at_once, rounds)| Appending::of(at_once, rounds))
            .collect(),
        events,
        load: Loading {
            bare,
            repository,
            ratio: of_bare(&load, |rate| rate.per_second),
            rounds: load,
        },
        updates: updates * AGGREGATES,
        update: WRITERS
            .into_iter()
            .zip(&update)
            .map(|(writers, rounds)| Updating::of(writers, rounds, &update[0]))
            .collect(),
    })
}

/// The median over the rounds of the second way's figure in terms of the first one's.
fn of_bare(rounds: &[[Rate; 2]], figure: impl Fn(&Rate) -> f64) -> f64 {
    let of = |way: usize| -> Vec<Rate> { rounds.iter().map(|round| round[way]).collect() };
    ratio(&of(1), &of(0), figure)
}

impl Appending {
    fn of(at_once: u64, rounds: Vec<[Rate; 2]>) -> Self {
        let [bare, store] = Rate::medians(&rounds);
        Appending {
            at_once,
            bare,
            store,
            ratio: of_bare(&rounds, |rate| rate.per_second),
            redis_ratio: of_bare(&rounds, |rate| rate.redis_us),
            rounds,
        }
    }
}

impl Updating {
    fn of(writers: u64, rounds: &[Updates], alone: &[Updates]) -> Self {
        let of = |figure: fn(&Updates) -> f64| median(rounds.iter().map(figure));
        let latencies: Vec<_> = rounds.iter().map(|round| round.latency).collect();
        Updating {
            writers,
            figures: Updates {
                per_second: of(|round| round.per_second),
                conflicts: of(|round| round.conflicts),
                gave_up: rounds.iter().map(|round| round.gave_up).sum(),
                latency: Percentiles::medians(&latencies),
            },
            ratio: ratio(rounds, alone, |round| round.per_second),
            rounds: rounds.to_vec(),
        }
    }
}

impl Rate {
    fn medians(rounds: &[[Rate; 2]]) -> [Rate; 2] {
        [0, 1].map(|way| Rate {
            per_second: median(rounds.iter().map(|round| round[way].per_second)),
            redis_us: median(rounds.iter().map(|round| round[way].redis_us)),
            client_us: median(rounds.iter().map(|round| round[way].client_us)),
        })
    }
}

impl Default for Rate {
    fn default() -> Self {
        Rate {
            per_second: f64::NAN,
            redis_us: f64::NAN,
            client_us: f64::NAN,
        }
    }
}

impl Measured for Store {
    fn text(&self) -> String {
        let row = |name: String, rate: &Rate, ratios: Option<(f64, f64)>| {
            let told = |ratio: f64| format!("{ratio:.2}");
            vec![
                name,
                format!("{:.0}", rate.per_second),
                format!("{:.2}", rate.redis_us),
                format!("{:.2}", rate.client_us),
                ratios.map(|(speed, _)| told(speed)).unwrap_or_default(),
                ratios.map(|(_, redis)| told(redis)).unwrap_or_default(),
            ]
        };
        let mut rows = Vec::new();
        for appending in &self.append {
            let at_once = appending.at_once;
            rows.push(row(
                format!("EVALSHA with one XADD, {at_once} at once"),
                &appending.bare,
                None,
            ));
            let ratios = (appending.ratio, appending.redis_ratio);
            let name = format!("EventStore::append, {at_once} at once");
            rows.push(row(name, &appending.store, Some(ratios)));
        }
        let load = &self.load;
        rows.push(row("XRANGE, decoded".to_owned(), &load.bare, None));
        let redis = of_bare(&load.rounds, |rate| rate.redis_us);
        rows.push(row(
            "Repository::load".to_owned(),
            &load.repository,
            Some((load.ratio, redis)),
        ));
        let header = [
            "WAY",
            "events/s",
            "Redis µs",
            "client µs",
            "of bare",
            "Redis of bare",
        ];
        let updates: Vec<_> = self
            .update
            .iter()
            .map(|update| {
                let figures = &update.figures;
                vec![
                    update.writers.to_string(),
                    format!("{:.0}", figures.per_second),
                    format!("{:.2}", update.ratio),
                    format!("{:.2}", figures.conflicts),
                    figures.gave_up.to_string(),
                    format!("{:.0}", figures.latency.p50_us),
                    format!("{:.0}", figures.latency.p99_us),
                ]
            })
            .collect();
        let of_updates = [
            "WRITERS",
            "updates/s",
            "of one's",
            "conflicts an update",
            "gave up",
            "p50 µs",
            "p99 µs",
        ];
        format!(
            "{} appends, loads of {} events, median of {} runs in turns\n\n{}\n\n{} updates, all writers on one \
             aggregate\n\n{}",
            self.appends,
            self.events,
            self.runs,
            table(&header, &[], &rows),
            self.updates,
            table(&of_updates, &[], &updates)
        )
    }
}
