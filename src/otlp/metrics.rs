//! Metrics as messages: counters as sums since the beginning, histograms as exponential ones, bucket by bucket.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};

use super::messages::{nanos, text};
use super::resource::{Resource, scope};
use crate::metrics::histogram::{Histogram, SCALE, ZERO};
use crate::metrics::snapshot::{Labels, Snapshot, Value};
use crate::metrics::table::{Id, Kind, PREFIX, Unit};

/// One request with all there is.
pub(super) fn request(resource: &Resource, snapshot: &Snapshot) -> ExportMetricsServiceRequest {
    let mut metrics: Vec<(Id, Metric)> = Vec::new();
    for (id, labels, value) in snapshot.iter() {
        if metrics.last().is_none_or(|(last, _)| *last != id) {
            metrics.push((id, empty(id)));
        }
        if let Some((_, metric)) = metrics.last_mut() {
            add(metric, id, labels, value, snapshot);
        }
    }
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.message()),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics: metrics.into_iter().map(|(_, metric)| metric).collect(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

/// A metric without series.
fn empty(id: Id) -> Metric {
    let row = id.metric();
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let data = match row.kind {
        Kind::Counter => Data::Sum(Sum {
            aggregation_temporality,
            is_monotonic: true,
            ..Sum::default()
        }),
        Kind::Gauge => Data::Gauge(Gauge::default()),
        Kind::Histogram => Data::ExponentialHistogram(ExponentialHistogram {
            aggregation_temporality,
            ..ExponentialHistogram::default()
        }),
    };
    let unit = match row.unit {
        Unit::One => "1",
        Unit::Seconds => "s",
        Unit::Bytes => "By",
    };
    Metric {
        name: format!("{PREFIX}{}", row.family()),
        description: row.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn add(metric: &mut Metric, id: Id, labels: &Labels, value: &Value, of: &Snapshot) {
    let names = id.metric().labels.iter();
    let attributes: Vec<_> = names
        .zip(labels.iter())
        .map(|(name, value)| text(name, value))
        .collect();
    let (since, at) = (nanos(of.since), nanos(of.at));
    let point = |value| NumberDataPoint {
        attributes: attributes.clone(),
        start_time_unix_nano: since,
        time_unix_nano: at,
        value: Some(value),
        ..NumberDataPoint::default()
    };
    let number = |value: f64| number_data_point::Value::AsDouble(value);
    let whole =
        |value: u64| number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX));
    match (&mut metric.data, value) {
        (Some(Data::Sum(sum)), Value::Counter(count)) => sum.data_points.push(point(whole(*count))),
        (Some(Data::Sum(sum)), Value::Total(total)) => sum.data_points.push(point(number(*total))),
        (Some(Data::Gauge(gauge)), Value::Gauge(now)) => gauge.data_points.push(NumberDataPoint {
            // What is now has not begun at any time.
            start_time_unix_nano: 0,
            ..point(number(*now))
        }),
        (Some(Data::ExponentialHistogram(all)), Value::Histogram(histogram)) => {
            all.data_points.push(ExponentialHistogramDataPoint {
                attributes,
                start_time_unix_nano: since,
                time_unix_nano: at,
                count: histogram.count(),
                sum: Some(histogram.sum()),
                scale: SCALE,
                zero_count: histogram.zero(),
                zero_threshold: ZERO,
                positive: buckets(histogram),
                ..ExponentialHistogramDataPoint::default()
            });
        }
        // The table says which kind of value there is: see `Snapshot::add`.
        _ => {}
    }
}

/// All buckets from the first that is not empty to the last. What is bucket `i` here is `i - 1` there.
fn buckets(histogram: &Histogram) -> Option<Buckets> {
    let (first, last) = (
        histogram.buckets().first()?.0,
        histogram.buckets().last()?.0,
    );
    let mut bucket_counts = vec![0; usize::try_from(last - first).unwrap_or(0) + 1];
    for (index, count) in histogram.buckets() {
        bucket_counts[usize::try_from(index - first).unwrap_or(0)] = *count;
    }
    Some(Buckets {
        offset: i32::from(first) - 1,
        bucket_counts,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::metrics::snapshot::of;

    fn resource() -> Resource {
        Resource {
            service: "shop".to_owned(),
            instance: "one".to_owned(),
        }
    }

    #[test]
    fn each_kind_keeps_what_it_has_counted() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let mut snapshot = Snapshot::new(since, since + Duration::from_secs(1));
        snapshot.add(
            Id::Delivered,
            of(&["orders", "workers", "read"]),
            Value::Counter(7),
        );
        snapshot.add(
            Id::Delivered,
            of(&["orders", "workers", "wake"]),
            Value::Counter(2),
        );
        snapshot.gauge(Id::Slots, &["workers"], 64.0);
        let mut histogram = Histogram::default();
        let values = [0.0, 0.001, 0.001, 0.5, 3.0];
        values.iter().for_each(|value| histogram.record(*value));
        snapshot.add(
            Id::Wait,
            of(&["orders", "workers", "a.b"]),
            Value::Histogram(histogram),
        );
        let request = request(&resource(), &snapshot);
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let names: Vec<&str> = metrics.iter().map(|metric| &metric.name[..]).collect();
        assert_eq!(
            names,
            [
                "streamhand_delivered",
                "streamhand_wait_seconds",
                "streamhand_slots"
            ]
        );
        let Some(Data::Sum(sum)) = &metrics[0].data else {
            panic!("{metrics:?}")
        };
        assert!(sum.is_monotonic && sum.data_points.len() == 2);
        assert_eq!(sum.data_points[0].start_time_unix_nano, 1_000_000_000);
        let Some(Data::ExponentialHistogram(wait)) = &metrics[1].data else {
            panic!("{metrics:?}")
        };
        let point = &wait.data_points[0];
        assert_eq!((point.count, point.zero_count, point.scale), (5, 1, 3));
        let buckets = point.positive.as_ref().expect("some");
        assert_eq!(
            buckets.bucket_counts.iter().sum::<u64>() + point.zero_count,
            point.count
        );
        // Each value lies within its bucket, as OTLP counts them: above 2^(i/8), and up to 2^((i+1)/8).
        for value in &values[1..] {
            let index = (value.log2() * 8.0).ceil() as i32 - 1;
            let at = usize::try_from(index - buckets.offset).expect("not before the first");
            assert!(buckets.bucket_counts[at] > 0, "{value}");
        }
    }
}
