//! What grows with a fleet and with what lies around: the same work with more processes, more streams, more handlers at
//! once, more parked, more pending elsewhere, larger payloads, a longer backlog. What a message costs Redis should stay
//! as it is.

mod idle;
mod piles;
mod series;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::figures::{Percentiles, ratio};
use super::load::publish_to_nobody;
use super::rig::Rig;
use super::runs::Figures;
use super::{Measured, Sizes};
use idle::Idle;
use series::{Case, Series};
use streamhand::cli::CommandError;
use streamhand::unstable::table;

/// By how much a cost may grow.
const FLAT: f64 = 1.2;

/// What is made larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Worker processes, with a backlog
    Workers,
    /// Worker processes, at 10,000 events a second
    Fleet,
    /// Streams of one worker, with a backlog
    Streams,
    /// Streams of one worker, at 10,000 events a second
    Trickle,
    /// Handlers that run at once
    Concurrency,
    /// Parked entries, with a backlog
    Parked,
    /// Entries pending at a dead worker, with a backlog
    Dead,
    /// Bytes of an event
    Payload,
    /// The backlog
    Backlog,
    /// What a worker that has nothing to do costs, and its memory
    Idle,
}

/// Every series, and how each case of it compares with the first.
#[derive(Serialize)]
pub(super) struct Scale {
    runs: u64,
    series: Vec<Told>,
    idle: Vec<Idle>,
}

#[derive(Serialize)]
struct Told {
    name: String,
    about: String,
    /// Whether the work per entry is the same in all cases.
    same_work: bool,
    cases: Vec<ToldCase>,
}

#[derive(Serialize)]
struct ToldCase {
    name: String,
    /// The case's size, for a plot.
    value: f64,
    figures: Figures,
    /// From an event's due time to its handler, where events come by a timetable.
    latency: Option<Percentiles>,
    /// In terms of the first case.
    redis_growth: f64,
    commands_growth: f64,
    memory_growth: Option<f64>,
    /// Redis CPU per message in terms of the bare loop's in the same case, where that was measured.
    redis_to_bare: Option<f64>,
    rounds: Vec<Figures>,
}

/// What one run of a case came to.
pub(super) struct Ran {
    pub figures: Figures,
    pub latency: Option<Percentiles>,
}

pub(super) async fn run(
    rig: &mut Rig,
    sizes: &Sizes,
    only: &[Kind],
) -> Result<Scale, CommandError> {
    let all = Kind::value_variants();
    let wanted = |kind: &&Kind| only.is_empty() || only.contains(kind);
    let kinds: Vec<Kind> = all.iter().filter(wanted).copied().collect();
    let mut scale = Scale {
        runs: sizes.runs,
        series: Vec::new(),
        idle: Vec::new(),
    };
    for kind in kinds {
        if kind == Kind::Idle {
            scale.idle = idle::run(rig, sizes).await?;
        } else {
            let series = Series::of(kind, sizes);
            scale.series.push(measure(rig, sizes, series).await?);
        }
    }
    Ok(scale)
}

async fn measure(rig: &mut Rig, sizes: &Sizes, mut series: Series) -> Result<Told, CommandError> {
    let runs = sizes.runs * series.cases.len() as u64;
    let publishing: BTreeMap<usize, Duration> = series
        .cases
        .iter()
        .filter_map(|case| Some((case.streams, case.paced()?)))
        .collect();
    let round: Duration = series.cases.iter().map(Case::takes).sum();
    let round = round + publishing.values().sum::<Duration>();
    let takes = round * sizes.runs as u32 + series.setting_up;
    rig.progress
        .begin(&format!("scale, {}", series.name), runs, takes);
    let mut measured: Vec<Vec<Ran>> = series.cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=sizes.runs {
        // By how many streams it publishes to, for many cost Redis more than one.
        let mut publishing_us = BTreeMap::new();
        for (streams, seconds) in &publishing {
            rig.progress.step(round, sizes.runs, "publishing to nobody");
            let (streams, rate) = (*streams, series::PER_SECOND);
            let cost = publish_to_nobody(rig, sizes, streams, rate, *seconds).await?;
            publishing_us.insert(streams, cost);
        }
        for (case, measured) in series.cases.iter_mut().zip(&mut measured) {
            rig.progress.step(round, sizes.runs, &case.name);
            let publisher_us = publishing_us.get(&case.streams).copied().unwrap_or(0.0);
            measured.push(case.run(rig, sizes, publisher_us).await?);
            rig.progress.done();
        }
    }
    for case in &mut series.cases {
        case.tidy(rig).await?;
    }
    Ok(Told::of(series, measured))
}

impl Told {
    fn of(series: Series, measured: Vec<Vec<Ran>>) -> Self {
        let figures = |at: usize| -> Vec<Figures> {
            measured[at].iter().map(|ran| ran.figures.clone()).collect()
        };
        let first = figures(0);
        let told = |(at, case): (usize, &Case)| {
            let rounds = figures(at);
            let latencies: Option<Vec<_>> = measured[at].iter().map(|ran| ran.latency).collect();
            let bare = case.bare.map(figures);
            ToldCase {
                name: case.name.clone(),
                value: case.value,
                latency: latencies.map(|all| Percentiles::medians(&all)),
                redis_growth: ratio(&rounds, &first, |run| run.redis_us),
                commands_growth: ratio(&rounds, &first, |run| run.commands),
                memory_growth: Some(ratio(&rounds, &first, |run| {
                    run.peak_mb.unwrap_or(f64::NAN)
                }))
                .filter(|growth| growth.is_finite()),
                redis_to_bare: bare.map(|bare| ratio(&rounds, &bare, |run| run.redis_us)),
                figures: Figures::medians(&rounds),
                rounds,
            }
        };
        Told {
            cases: series.cases.iter().enumerate().map(told).collect(),
            name: series.name.to_owned(),
            about: series.about,
            same_work: series.same_work,
        }
    }

    fn text(&self) -> String {
        let mut header = vec![
            "",
            "messages/s",
            "Redis µs/msg",
            "growth",
            "commands/msg",
            "growth",
            "client µs/msg",
            "peak MiB",
        ];
        let latencies = self.cases.iter().any(|case| case.latency.is_some());
        if latencies {
            header.extend(["P50 µs", "P99 µs"]);
        }
        let to_bare = self.cases.iter().any(|case| case.redis_to_bare.is_some());
        if to_bare {
            header.push("Redis, of bare");
        }
        let grew = |growth: f64| {
            let mark = if self.same_work && growth > FLAT {
                " !"
            } else {
                ""
            };
            format!("{growth:.2}{mark}")
        };
        let row = |case: &ToldCase| {
            let figures = &case.figures;
            let mut row = vec![
                case.name.clone(),
                format!("{:.0}", figures.per_second),
                format!("{:.2}", figures.redis_us),
                grew(case.redis_growth),
                format!("{:.4}", figures.commands),
                grew(case.commands_growth),
                format!("{:.2}", figures.client_us),
                figures
                    .peak_mb
                    .map(|mb| format!("{mb:.1}"))
                    .unwrap_or_default(),
            ];
            if let Some(latency) = &case.latency {
                row.push(format!("{:.0}", latency.p50_us));
                row.push(format!("{:.0}", latency.p99_us));
            }
            if to_bare {
                row.push(
                    case.redis_to_bare
                        .map(|ratio| format!("{ratio:.2}"))
                        .unwrap_or_default(),
                );
            }
            row
        };
        let rows: Vec<Vec<String>> = self.cases.iter().map(row).collect();
        format!(
            "{}: {}\n{}",
            self.name,
            self.about,
            table(&header, &[], &rows)
        )
    }
}

impl Measured for Scale {
    fn text(&self) -> String {
        let runs = self.runs;
        let mut parts = vec![format!(
            "median of {runs} runs in turns; growth is in terms of the first case, and ! marks more than {FLAT}"
        )];
        parts.extend(self.series.iter().map(Told::text));
        if !self.idle.is_empty() {
            parts.push(idle::text(&self.idle));
        }
        parts.join("\n\n")
    }
}
