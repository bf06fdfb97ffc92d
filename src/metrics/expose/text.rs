//! The two text formats: OpenMetrics 1.0, and what Prometheus read before it. Histograms have buckets as wide as octaves
//! there.

use std::fmt::Write;

use super::super::snapshot::{Labels, Snapshot, Value};
use super::super::table::{Id, Kind, Metric, PREFIX, Unit};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenMetrics,
    Prometheus,
}

/// In OpenMetrics 1.0.
pub(super) fn openmetrics(snapshot: &Snapshot) -> String {
    let mut text = write(snapshot, Dialect::OpenMetrics);
    text.push_str("# EOF\n");
    text
}

/// As Prometheus has it since version 0.0.4.
pub(super) fn prometheus(snapshot: &Snapshot) -> String {
    write(snapshot, Dialect::Prometheus)
}

fn write(snapshot: &Snapshot, dialect: Dialect) -> String {
    let mut text = String::new();
    let mut last = None;
    for (id, labels, value) in snapshot.iter() {
        let metric = id.metric();
        if last.replace(id) != Some(id) {
            head(&mut text, metric, dialect);
        }
        series(&mut text, id, metric, labels, value);
    }
    text
}

fn head(text: &mut String, metric: &Metric, dialect: Dialect) {
    let name = match dialect {
        Dialect::OpenMetrics => metric.family(),
        Dialect::Prometheus => metric.name,
    };
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let unit = match metric.unit {
        Unit::One => None,
        Unit::Seconds => Some("seconds"),
        Unit::Bytes => Some("bytes"),
    };
    let help = metric.help;
    // Helps have neither backslashes nor line breaks, which would have to be escaped: see the test of the table.
    let _ = writeln!(text, "# HELP {PREFIX}{name} {help}");
    let _ = writeln!(text, "# TYPE {PREFIX}{name} {kind}");
    if let (Dialect::OpenMetrics, Some(unit)) = (dialect, unit) {
        let _ = writeln!(text, "# UNIT {PREFIX}{name} {unit}");
    }
}

fn series(text: &mut String, id: Id, metric: &Metric, labels: &Labels, value: &Value) {
    let name = metric.name;
    let sample =
        |text: &mut String, suffix: &str, le: Option<f64>, value: &dyn std::fmt::Display| {
            let _ = write!(text, "{PREFIX}{name}{suffix}");
            write_labels(text, metric, labels, le);
            let _ = writeln!(text, " {value}");
        };
    match value {
        Value::Counter(count) => sample(text, "", None, count),
        Value::Total(value) | Value::Gauge(value) => sample(text, "", None, &number(*value)),
        Value::Histogram(histogram) => {
            let counts = histogram.up_to_octaves(id.octaves());
            for (octave, count) in id.octaves().zip(counts) {
                sample(text, "_bucket", Some(f64::from(octave).exp2()), &count);
            }
            sample(text, "_bucket", Some(f64::INFINITY), &histogram.count());
            sample(text, "_sum", None, &number(histogram.sum()));
            sample(text, "_count", None, &histogram.count());
        }
    }
}

fn write_labels(text: &mut String, metric: &Metric, values: &Labels, le: Option<f64>) {
    if metric.labels.is_empty() && le.is_none() {
        return;
    }
    text.push('{');
    let mut separator = "";
    for (name, value) in metric.labels.iter().zip(values.iter()) {
        let _ = write!(text, "{separator}{name}=\"");
        escape(text, value);
        text.push('"');
        separator = ",";
    }
    if let Some(le) = le {
        let _ = write!(text, "{separator}le=\"{}\"", number(le));
    }
    text.push('}');
}

fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

/// A number that says that it need not be whole, as bounds of buckets must.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        return "+Inf".to_owned();
    }
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::expose::tests::sample;

    #[test]
    fn openmetrics_is_as_its_specification_says() {
        let text = openmetrics(&sample());
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        for line in [
            "# TYPE streamhand_delivered counter",
            "streamhand_delivered_total{stream=\"or\\\"de\\\\rs\\n\",group=\"g\",via=\"read\"} 7",
            "# UNIT streamhand_process_duration_seconds seconds",
            "# TYPE streamhand_slots gauge",
            "streamhand_slots{group=\"g\"} 4.0",
            "# TYPE streamhand_process_cpu_seconds counter",
            "streamhand_process_cpu_seconds_total 1.25",
            "streamhand_process_duration_seconds_bucket{stream=\"orders\",group=\"g\",type=\"t\",outcome=\"acked\",le=\"0.25\"} 2",
            "streamhand_process_duration_seconds_bucket{stream=\"orders\",group=\"g\",type=\"t\",outcome=\"acked\",le=\"0.5\"} 3",
            "streamhand_process_duration_seconds_bucket{stream=\"orders\",group=\"g\",type=\"t\",outcome=\"acked\",le=\"+Inf\"} 4",
            "streamhand_process_duration_seconds_sum{stream=\"orders\",group=\"g\",type=\"t\",outcome=\"acked\"} 100000.7",
            "streamhand_process_duration_seconds_count{stream=\"orders\",group=\"g\",type=\"t\",outcome=\"acked\"} 4",
        ] {
            assert!(
                text.lines().any(|one| one == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn the_older_text_names_counters_in_full_and_has_no_units() {
        let text = prometheus(&sample());
        assert!(
            text.contains("# TYPE streamhand_delivered_total counter\n"),
            "{text}"
        );
        assert!(
            !text.contains("# UNIT") && !text.contains("# EOF"),
            "{text}"
        );
    }

    #[test]
    fn buckets_never_sink_and_metrics_come_once() {
        let text = openmetrics(&sample());
        let heads: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let mut once = heads.clone();
        once.dedup();
        assert_eq!(heads, once);
        let buckets: Vec<u64> = text
            .lines()
            .filter(|line| line.contains("duration_seconds_bucket"))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(buckets.len() > 10 && buckets.is_sorted(), "{buckets:?}");
    }
}
