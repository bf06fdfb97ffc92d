//! Types: the same as Flow by event type, before and after each deploy.

use std::time::{SystemTime, UNIX_EPOCH};

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::admin::HistorySlot;
use crate::config::Role;
use crate::web::app::App;
use crate::web::chart::seconds;
use crate::web::filters;
use crate::web::past::Past;
use crate::web::problem::Problem;
use crate::web::range::{self, Tab};
use crate::web::route::{Route, Scope};
use crate::web::sentence::moment;
use crate::web::visit::parameter;
use crate::web::visit::{Frame, Visit};

pub(super) fn routes() -> Vec<Route> {
    vec![Route::page("/types", (Role::View, Scope::Any), types)]
}

/// What the page shows.
#[derive(Serialize)]
struct Types {
    #[serde(flatten)]
    scope: range::Scope,
    /// The deploys of the range, the latest first.
    deploys: Vec<DeployOf>,
    types: Vec<TypeOf>,
}

#[derive(Serialize)]
struct DeployOf {
    at_ms: u64,
    version: String,
    configuration: String,
    #[serde(skip)]
    said: String,
    #[serde(skip)]
    address: String,
    /// Whether the page compares what was before it with what came after.
    is_chosen: bool,
}

#[derive(Serialize)]
struct TypeOf {
    name: String,
    all: Measures,
    /// Before and after the deploy that is chosen.
    before: Option<Measures>,
    after: Option<Measures>,
}

/// What became of a type's entries, and how long it took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Measures {
    handled: f64,
    failed: f64,
    retried: f64,
    dead: f64,
    /// Seconds that 99 of 100 were within.
    wait: Option<f64>,
    run_half: Option<f64>,
    run: Option<f64>,
    end_to_end: Option<f64>,
}

#[derive(Template)]
#[template(path = "types.html")]
struct TypesPage<'a> {
    frame: Frame,
    types: &'a Types,
    ranges: Vec<Tab>,
    streams: Vec<Tab>,
}

async fn types(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    let admin = app.admin();
    let streams = admin.streams();
    let scope = range::Scope::of(&visit, streams);
    let past = app.past(&scope).await?;
    let page = TypesPage {
        frame: visit.frame("Types"),
        ranges: scope.ranges(&visit, false),
        streams: scope.streams(&visit, streams),
        types: &Types::of(scope, &past, &visit),
    };
    visit.page(page.types, &page)
}

impl Types {
    fn of(scope: range::Scope, past: &Past, visit: &Visit) -> Self {
        let wanted = parameter(&visit.query, "deploy").and_then(|ms| ms.parse::<u64>().ok());
        let last = past.deploys.last().map(|deploy| ms(deploy.at));
        let chosen = wanted.or(last);
        let here = visit.to(&visit.path);
        let deploys = past.deploys.iter().rev().map(|deploy| {
            let at_ms = ms(deploy.at);
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("range", scope.range);
            if let Some(stream) = &scope.stream {
                query.append_pair("of", stream);
            }
            query.append_pair("deploy", &at_ms.to_string());
            DeployOf {
                said: moment(at_ms, ms(past.now)),
                address: format!("{here}?{}", query.finish()),
                version: deploy.version.clone(),
                configuration: deploy.configuration.clone(),
                is_chosen: chosen == Some(at_ms),
                at_ms,
            }
        });
        let deploys: Vec<DeployOf> = deploys.collect();
        let chosen = past
            .deploys
            .iter()
            .find(|deploy| Some(ms(deploy.at)) == chosen);
        let (before, after) = chosen.map_or((None, None), |deploy| past.around(deploy.at));
        let labels = scope.labels();
        let mut types: Vec<TypeOf> = match past.merged() {
            None => Vec::new(),
            Some(all) => names(&all, &labels)
                .into_iter()
                .map(|name| TypeOf {
                    all: Measures::of(&all, &labels, &name),
                    before: before
                        .as_ref()
                        .map(|slot| Measures::of(slot, &labels, &name)),
                    after: after
                        .as_ref()
                        .map(|slot| Measures::of(slot, &labels, &name)),
                    name,
                })
                .collect(),
        };
        // What fails is what one looks for.
        types.sort_by(|a, b| {
            let worst = |one: &TypeOf| (one.all.failing(), one.all.handled);
            worst(b)
                .partial_cmp(&worst(a))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        drop(labels);
        Types {
            scope,
            deploys,
            types,
        }
    }

    fn chosen(&self) -> Option<&DeployOf> {
        self.deploys.iter().find(|deploy| deploy.is_chosen)
    }
}

impl Measures {
    fn of(slot: &HistorySlot, labels: &[(&str, &str)], name: &str) -> Self {
        let of_type = [labels, &[("type", name)]].concat();
        let settled = |outcome: &'static str| {
            let with = [&of_type[..], &[("outcome", outcome)]].concat();
            slot.total("settled_total", &with)
        };
        let within = |metric: &str, part: f64| slot.quantile(metric, &of_type, part);
        Measures {
            handled: settled("acked") + settled("committed"),
            failed: slot.total("failures_total", &of_type),
            retried: settled("retried"),
            dead: settled("dead"),
            wait: within("wait_seconds", 0.99),
            run_half: within("process_duration_seconds", 0.5),
            run: within("process_duration_seconds", 0.99),
            end_to_end: within("end_to_end_seconds", 0.99),
        }
    }

    /// The part of attempts that failed.
    fn failing(&self) -> f64 {
        match self.handled + self.failed {
            0.0 => 0.0,
            all => self.failed / all,
        }
    }

    fn failing_said(&self) -> String {
        match self.failing() * 100.0 {
            0.0 => "0 %".to_owned(),
            part if part < 0.1 => "< 0.1 %".to_owned(),
            part => format!("{part:.1} %"),
        }
    }

    fn mood(&self) -> &'static str {
        match self.failing() {
            part if part >= 0.5 => "failing",
            part if part >= 0.05 => "behind",
            _ => "fine",
        }
    }
}

/// What is said of a time that may not be known.
fn took(time: &Option<f64>) -> String {
    time.map_or_else(|| "–".to_owned(), seconds)
}

fn whole(count: &f64) -> String {
    filters::thousands(&format!("{count:.0}"))
}

/// The types of which anything was counted.
fn names(slot: &HistorySlot, labels: &[(&str, &str)]) -> Vec<String> {
    let mut names: Vec<String> = ["settled_total", "failures_total"]
        .iter()
        .flat_map(|metric| slot.values(metric, "type"))
        .collect();
    names.sort();
    names.dedup();
    names.retain(|name| {
        let with = [labels, &[("type", name)]].concat();
        slot.total("settled_total", &with) + slot.total("failures_total", &with) > 0.0
    });
    names
}

fn ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_failed_is_said_as_such() {
        let of = |handled: f64, failed: f64| Measures {
            handled,
            failed,
            ..Measures::default()
        };
        assert_eq!(of(0.0, 0.0).failing_said(), "0 %");
        assert_eq!(of(99_999.0, 1.0).failing_said(), "< 0.1 %");
        assert_eq!(of(95.0, 5.0).failing_said(), "5.0 %");
        assert_eq!(of(95.0, 5.0).mood(), "behind");
        assert_eq!(of(1.0, 9.0).mood(), "failing");
        assert_eq!(took(&None), "–");
    }
}
