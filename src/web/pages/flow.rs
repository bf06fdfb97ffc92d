//! Flow: how much comes, is handled, retried and dies a second, and how long it takes; from seconds while somebody looks to
//! 90 days.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::admin::HistorySlot;
use crate::config::Role;
use crate::web::app::App;
use crate::web::chart::{Chart, Series, Unit};
use crate::web::filters;
use crate::web::past::Past;
use crate::web::problem::Problem;
use crate::web::range::{self, Tab};
use crate::web::route::{Route, Scope};
use crate::web::visit::{Frame, Visit};

pub(super) fn routes() -> Vec<Route> {
    vec![Route::page("/flow", (Role::View, Scope::Any), flow)]
}

/// What the page shows.
#[derive(Serialize)]
struct Flow {
    #[serde(flatten)]
    scope: range::Scope,
    /// How long a point stands for, in ms.
    resolution_ms: u64,
    tiles: Vec<Tile>,
    charts: Vec<Chart>,
}

/// A number of the whole range.
#[derive(Serialize)]
struct Tile {
    name: &'static str,
    value: String,
}

#[derive(Template)]
#[template(path = "flow.html")]
struct FlowPage<'a> {
    frame: Frame,
    flow: &'a Flow,
    ranges: Vec<Tab>,
    streams: Vec<Tab>,
}

async fn flow(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    let admin = app.admin();
    let streams = admin.streams();
    let scope = range::Scope::of(&visit, streams);
    let past = app.past(&scope).await?;
    let page = FlowPage {
        frame: visit.frame("Flow"),
        ranges: scope.ranges(&visit, true),
        streams: scope.streams(&visit, streams),
        flow: &Flow::of(scope, &past),
    };
    visit.page(page.flow, &page)
}

/// Values of labels that are meant together.
type Labels = &'static [(&'static str, &'static str)];

/// How much: what it is called, the metric, and the labels that are meant besides the stream.
const AMOUNTS: [(&str, &str, &[Labels]); 4] = [
    (
        "in",
        "delivered_total",
        &[&[("via", "read")], &[("via", "replay")]],
    ),
    (
        "handled",
        "settled_total",
        &[&[("outcome", "acked")], &[("outcome", "committed")]],
    ),
    ("retried", "settled_total", &[&[("outcome", "retried")]]),
    ("dead", "settled_total", &[&[("outcome", "dead")]]),
];

/// How long.
const TIMES: [(&str, &str, &str); 3] = [
    (
        "Wait",
        "wait_seconds",
        "From an entry's time to its first start",
    ),
    (
        "Run",
        "process_duration_seconds",
        "From a handler's start to its end",
    ),
    (
        "End to end",
        "end_to_end_seconds",
        "From an entry's time to its end, retries included",
    ),
];

impl Flow {
    fn of(scope: range::Scope, past: &Past) -> Self {
        let labels = scope.labels();
        let points = past.points();
        let times: Vec<u64> = points.iter().map(|(at, _)| *at).collect();
        let slots: Vec<Option<(&HistorySlot, f64)>> =
            points.into_iter().map(|(_, slot)| slot).collect();
        let amount = |slot: &HistorySlot, metric: &str, of: &[&[(&str, &str)]]| -> f64 {
            let totals = of
                .iter()
                .map(|of| slot.total(metric, &[&labels[..], of].concat()));
            totals.sum()
        };
        let marks = past.marks();
        let rates = Chart {
            title: "Entries a second",
            unit: Unit::PerSecond,
            times: times.clone(),
            series: AMOUNTS
                .iter()
                .map(|(name, metric, of)| Series {
                    name,
                    values: slots
                        .iter()
                        .map(|slot| slot.map(|(slot, seconds)| amount(slot, metric, of) / seconds))
                        .collect(),
                })
                .collect(),
            marks: marks.clone(),
        };
        let took: Vec<Chart> = TIMES
            .iter()
            .map(|(title, metric, _)| Chart {
                title,
                unit: Unit::Seconds,
                times: times.clone(),
                series: [
                    ("half within", 0.5),
                    ("90 % within", 0.9),
                    ("99 % within", 0.99),
                ]
                .map(|(name, part)| Series {
                    name,
                    values: slots
                        .iter()
                        .map(|slot| slot.and_then(|(slot, _)| slot.quantile(metric, &labels, part)))
                        .collect(),
                })
                .into(),
                marks: marks.clone(),
            })
            .collect();
        let slots: Vec<(&HistorySlot, f64)> = slots.into_iter().flatten().collect();
        let all: f64 = slots.iter().map(|(_, seconds)| seconds).sum();
        let merged = past.merged();
        let mut tiles: Vec<Tile> = AMOUNTS
            .iter()
            .map(|(name, metric, of)| {
                let sum: f64 = slots.iter().map(|(slot, _)| amount(slot, metric, of)).sum();
                let value = format!("{}/s", crate::web::sentence::rate(sum / all.max(1.0)));
                Tile { name, value }
            })
            .collect();
        tiles.extend(TIMES.iter().map(|(title, metric, _)| {
            let most = merged
                .as_ref()
                .and_then(|slot| slot.quantile(metric, &labels, 0.99));
            Tile {
                name: match *title {
                    "Wait" => "wait, 99 % within",
                    "Run" => "run, 99 % within",
                    _ => "end to end, 99 %",
                },
                value: most.map_or_else(|| "–".to_owned(), crate::web::chart::seconds),
            }
        }));
        let mut charts = vec![rates];
        charts.extend(took);
        drop(labels);
        Flow {
            scope,
            resolution_ms: past.resolution.as_millis() as u64,
            tiles,
            charts,
        }
    }

    fn explained(&self, title: &str) -> &'static str {
        let known = TIMES.iter().find(|(known, ..)| *known == title);
        known.map_or("By what workers counted", |(.., what)| what)
    }
}
