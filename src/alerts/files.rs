//! The same rules for a Prometheus, and a dashboard for Grafana, as files: made from the tables of rules and of metrics.

use std::fmt::Write;

use serde_json::{Value, json};

use super::rule::RULES;
use crate::config::AlertSettings;
#[cfg(test)]
use crate::metrics::table::TABLE;
use crate::metrics::table::{Id, Kind, Metric, PREFIX, Unit};

/// Rules for Prometheus, as YAML.
pub(crate) fn rules(settings: &AlertSettings) -> String {
    let mut yaml = "# Made by `alerts rules`, from the settings of [alerts]. What Prometheus can't know is left to the workers.\n\
                    groups:\n  - name: streamhand\n    rules:\n"
        .to_owned();
    for rule in RULES {
        if settings.off.iter().any(|off| off == rule.name) {
            continue;
        }
        let Some(expr) = (rule.expr)(settings) else {
            continue;
        };
        // A text of JSON is one of YAML.
        let text = |text: &str| Value::from(text).to_string();
        let _ = write!(
            yaml,
            "      - alert: {}\n        expr: {}\n        for: {}s\n        labels:\n          severity: {}\n        \
             annotations:\n          summary: {}\n          description: {}\n",
            rule.alert,
            text(&expr),
            rule.lasting.as_secs(),
            rule.severity.name(),
            text(rule.summary),
            text(rule.help),
        );
    }
    yaml
}

/// A dashboard for Grafana, as JSON.
pub(crate) fn dashboard() -> String {
    let mut panels = Vec::new();
    let mut at = Place::default();
    for (title, ids) in ROWS {
        panels.push(json!({
            "type": "row", "title": title, "collapsed": false, "panels": [], "id": panels.len() + 1,
            "gridPos": at.row(),
        }));
        for id in *ids {
            let panel = panel(id.metric(), panels.len() + 1, at.panel());
            panels.push(panel);
        }
    }
    let dashboard = json!({
        "uid": "streamhand",
        "title": "streamhand",
        "tags": ["streamhand", "redis"],
        "schemaVersion": 39,
        "timezone": "browser",
        "editable": true,
        "refresh": "30s",
        "time": { "from": "now-3h", "to": "now" },
        "templating": { "list": [
            { "name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus" },
            variable("group", "Group", "label_values(streamhand_settled_total, group)"),
            variable("stream", "Stream", "label_values(streamhand_settled_total{group=~\"$group\"}, stream)"),
        ] },
        "panels": panels,
    });
    let mut text = serde_json::to_string_pretty(&dashboard).expect("JSON");
    text.push('\n');
    text
}

/// What is drawn, from what matters most to what is looked at last.
const ROWS: &[(&str, &[Id])] = &[
    (
        "How the group stands",
        &[
            Id::GroupRunnable,
            Id::GroupLag,
            Id::GroupOldestUnread,
            Id::GroupDead,
            Id::GroupPending,
            Id::GroupOldestPending,
            Id::GroupParked,
            Id::GroupParkedDue,
            Id::GroupReplayed,
            Id::GroupWorkers,
            Id::GroupScheduledOverdue,
            Id::GroupPaused,
        ],
    ),
    (
        "Flow",
        &[Id::Delivered, Id::Settled, Id::Published, Id::HeldBack],
    ),
    (
        "Time",
        &[
            Id::EndToEnd,
            Id::Wait,
            Id::ProcessDuration,
            Id::Attempts,
            Id::PublishDuration,
        ],
    ),
    (
        "Failures",
        &[
            Id::Failures,
            Id::DeadLetters,
            Id::BreakerState,
            Id::HandlerBlocked,
            Id::GroupOldestDead,
        ],
    ),
    (
        "Workers",
        &[
            Id::Running,
            Id::Held,
            Id::Slots,
            Id::LeaseMargin,
            Id::LeaseLapsed,
            Id::ProcessMemory,
            Id::ProcessCpu,
            Id::ProcessFds,
            Id::BuildInfo,
        ],
    ),
    (
        "Redis",
        &[
            Id::RedisRequestDuration,
            Id::RedisErrors,
            Id::RedisReconnects,
            Id::RedisEvicts,
            Id::RedisAppendOnly,
            Id::StreamLength,
            Id::StreamOutbox,
            Id::StreamOutboxOldest,
            Id::RetentionBlocked,
        ],
    ),
    ("Projections", &[Id::ProjectionLagEvents, Id::ProjectionLag]),
];

/// Where the next panel goes: three beside each other.
#[derive(Default)]
struct Place {
    column: u32,
    line: u32,
}

impl Place {
    fn row(&mut self) -> Value {
        if self.column > 0 {
            (self.column, self.line) = (0, self.line + 8);
        }
        self.line += 1;
        json!({ "x": 0, "y": self.line - 1, "w": 24, "h": 1 })
    }

    fn panel(&mut self) -> Value {
        let place = json!({ "x": self.column * 8, "y": self.line, "w": 8, "h": 8 });
        self.column += 1;
        if self.column == 3 {
            (self.column, self.line) = (0, self.line + 8);
        }
        place
    }
}

fn panel(metric: &Metric, id: usize, place: Value) -> Value {
    let targets: Vec<Value> = expressions(metric)
        .into_iter()
        .zip('A'..)
        .map(|((expr, legend), name)| {
            json!({ "refId": name, "expr": expr, "legendFormat": legend, "datasource": source() })
        })
        .collect();
    json!({
        "id": id,
        "type": "timeseries",
        "title": title(metric),
        "description": metric.help,
        "datasource": source(),
        "gridPos": place,
        "fieldConfig": {
            "defaults": { "unit": unit(metric), "min": 0, "custom": { "fillOpacity": 10, "showPoints": "never" } },
            "overrides": [],
        },
        "options": {
            "legend": { "displayMode": "list", "placement": "bottom" },
            "tooltip": { "mode": "multi", "sort": "desc" },
        },
        "targets": targets,
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${source}" })
}

fn variable(name: &str, label: &str, query: &str) -> Value {
    json!({
        "name": name, "label": label, "type": "query", "datasource": source(), "query": query, "refresh": 2,
        "multi": true, "includeAll": true, "allValue": ".*", "current": { "text": "All", "value": "$__all" },
    })
}

/// What is drawn of a metric, and what its lines are called.
fn expressions(metric: &Metric) -> Vec<(String, String)> {
    let name = format!("{PREFIX}{}", metric.name);
    let known = |label: &&&str| matches!(**label, "group" | "stream");
    let only: Vec<String> = metric
        .labels
        .iter()
        .filter(known)
        .map(|label| format!("{label}=~\"${label}\""))
        .collect();
    let only = match only.is_empty() {
        true => String::new(),
        false => format!("{{{}}}", only.join(",")),
    };
    // The group is chosen above, and its streams where they make no difference.
    let by: Vec<&str> = metric
        .labels
        .iter()
        .filter(|label| **label != "group")
        .copied()
        .collect();
    let legend: Vec<String> = by.iter().map(|label| format!("{{{{{label}}}}}")).collect();
    let legend = match legend.is_empty() {
        true => "all".to_owned(),
        false => legend.join(" "),
    };
    let by_these = |by: &[&str]| match by.is_empty() {
        true => String::new(),
        false => format!(" by ({})", by.join(", ")),
    };
    match metric.kind {
        Kind::Counter => {
            let expr = format!("sum{} (rate({name}{only}[$__rate_interval]))", by_these(&by));
            vec![(expr, legend)]
        }
        Kind::Gauge => {
            // A group's is told once, and a process' own adds up, but for what is the same of each.
            let how = match metric.unit {
                Unit::One => "sum",
                Unit::Seconds | Unit::Bytes => "max",
            };
            vec![(format!("{how}{} ({name}{only})", by_these(&by)), legend)]
        }
        Kind::Histogram => [("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99")]
            .into_iter()
            .map(|(quantile, called)| {
                let by: Vec<&str> = by.iter().filter(|label| **label == "type" || **label == "request").copied().collect();
                let lines = [&by[..], &["le"]].concat();
                let expr = format!(
                    "histogram_quantile({quantile}, sum{} (rate({name}_bucket{only}[$__rate_interval])))",
                    by_these(&lines)
                );
                let by: Vec<String> = by.iter().map(|label| format!(" {{{{{label}}}}}")).collect();
                (expr, format!("{called}{}", by.concat()))
            })
            .collect(),
    }
}

fn title(metric: &Metric) -> String {
    let name = metric
        .family()
        .strip_prefix("group_")
        .unwrap_or(metric.family());
    let name = name.trim_end_matches("_seconds").trim_end_matches("_bytes");
    let name = name.replace('_', " ");
    let mut letters = name.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    let name: String = first.into_iter().chain(letters).collect();
    match metric.kind {
        Kind::Counter if metric.unit == Unit::One => format!("{name} a second"),
        _ => name,
    }
}

fn unit(metric: &Metric) -> &'static str {
    match (metric.unit, metric.kind) {
        (Unit::Seconds, Kind::Counter) => "percentunit",
        (Unit::Seconds, _) if metric.name == "process_start_time_seconds" => "dateTimeAsIso",
        (Unit::Seconds, _) => "s",
        (Unit::Bytes, _) => "bytes",
        (Unit::One, Kind::Counter) => "cps",
        (Unit::One, _) => "short",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares a file with what it should be; `STREAMHAND_RENEW=1` writes it.
    fn is_kept_in(file: &str, right: &str) {
        let path = format!("{}/deploy/{file}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("STREAMHAND_RENEW").is_some() {
            std::fs::write(&path, right).expect(&path);
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == right,
            "deploy/{file} is not what the tables say; renew it: STREAMHAND_RENEW=1 cargo test --lib alerts::files"
        );
    }

    #[test]
    fn the_files_are_made_from_the_tables() {
        let settings = AlertSettings::default().end_to_end(std::time::Duration::from_secs(60));
        is_kept_in("prometheus/streamhand.rules.yaml", &rules(&settings));
        is_kept_in("grafana/streamhand.json", &dashboard());
    }

    #[test]
    fn every_metric_is_drawn_once() {
        let drawn: Vec<Id> = ROWS
            .iter()
            .flat_map(|(_, ids)| ids.iter().copied())
            .collect();
        let is_drawn = |id: &Id| drawn.iter().filter(|drawn| *drawn == id).count() == 1;
        let missing: Vec<Id> = TABLE
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| !is_drawn(id))
            .collect();
        // When a process began is for reckoning, and a lease for comparing.
        assert_eq!(missing, [Id::Lease, Id::ProcessStart]);
    }
}
