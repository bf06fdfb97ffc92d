//! Prometheus' own messages, `io.prometheus.client.MetricFamily`, each behind its length. Histograms come as native ones,
//! without any loss, and with buckets as wide as octaves for servers that do not take those.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::super::histogram::{self, Histogram};
use super::super::snapshot::{Labels, Snapshot, Value};
use super::super::table::{Id, Kind, Metric, PREFIX, Unit};

/// All metrics of a snapshot.
pub(super) fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let mut families: Vec<(Id, proto::MetricFamily)> = Vec::new();
    for (id, labels, value) in snapshot.iter() {
        if families.last().is_none_or(|(last, _)| *last != id) {
            families.push((id, family(id.metric())));
        }
        let (_, family) = families.last_mut().expect("one was pushed");
        family
            .metric
            .push(series(id, labels, value, snapshot.since));
    }
    let mut bytes = Vec::new();
    for (_, family) in families {
        // A vector grows as it has to.
        let _ = family.encode_length_delimited(&mut bytes);
    }
    bytes
}

fn family(metric: &Metric) -> proto::MetricFamily {
    let unit = match metric.unit {
        Unit::One => None,
        Unit::Seconds => Some("seconds"),
        Unit::Bytes => Some("bytes"),
    };
    let kind = match metric.kind {
        Kind::Counter => proto::MetricType::Counter,
        Kind::Gauge => proto::MetricType::Gauge,
        Kind::Histogram => proto::MetricType::Histogram,
    };
    proto::MetricFamily {
        name: Some(format!("{PREFIX}{}", metric.name)),
        help: Some(metric.help.to_owned()),
        r#type: Some(kind.into()),
        metric: Vec::new(),
        unit: unit.map(str::to_owned),
    }
}

fn series(id: Id, labels: &Labels, value: &Value, since: SystemTime) -> proto::Metric {
    let names = id.metric().labels.iter();
    let label = names
        .zip(labels.iter())
        .map(|(name, value)| proto::LabelPair {
            name: Some((*name).to_owned()),
            value: Some(value.to_string()),
        });
    let mut metric = proto::Metric {
        label: label.collect(),
        ..proto::Metric::default()
    };
    let counter = |value| proto::Counter {
        value: Some(value),
        created_timestamp: timestamp(since),
    };
    match value {
        Value::Counter(count) => metric.counter = Some(counter(*count as f64)),
        Value::Total(value) => metric.counter = Some(counter(*value)),
        Value::Gauge(value) => {
            metric.gauge = Some(proto::Gauge {
                value: Some(*value),
            })
        }
        Value::Histogram(histogram) => {
            metric.histogram = Some(of_histogram(id, histogram, since));
        }
    }
    metric
}

fn of_histogram(id: Id, histogram: &Histogram, since: SystemTime) -> proto::Histogram {
    let counts = histogram.up_to_octaves(id.octaves());
    let bucket = id
        .octaves()
        .zip(counts)
        .map(|(octave, count)| proto::Bucket {
            cumulative_count: Some(count),
            upper_bound: Some(f64::from(octave).exp2()),
        });
    let (positive_span, positive_delta) = spans(histogram.buckets());
    proto::Histogram {
        sample_count: Some(histogram.count()),
        sample_sum: Some(histogram.sum()),
        bucket: bucket.collect(),
        schema: Some(histogram::SCALE),
        zero_threshold: Some(histogram::ZERO),
        zero_count: Some(histogram.zero()),
        positive_span: match positive_span.is_empty() {
            // By a span it is known that this is a native histogram.
            true => vec![proto::BucketSpan {
                offset: Some(0),
                length: Some(0),
            }],
            false => positive_span,
        },
        positive_delta,
        created_timestamp: timestamp(since),
    }
}

/// Buckets as runs of neighbours, each so far behind the last one; and each count as what it differs from the one before.
fn spans(buckets: &[(i16, u64)]) -> (Vec<proto::BucketSpan>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<proto::BucketSpan>, _) = (Vec::new(), Vec::new());
    let (mut next, mut last) = (0_i32, 0_i64);
    for (index, count) in buckets {
        let offset = i32::from(*index) - next;
        match spans.last_mut() {
            Some(span) if offset == 0 => span.length = span.length.map(|length| length + 1),
            _ => spans.push(proto::BucketSpan {
                offset: Some(offset),
                length: Some(1),
            }),
        }
        deltas.push(*count as i64 - last);
        (next, last) = (i32::from(*index) + 1, *count as i64);
    }
    (spans, deltas)
}

fn timestamp(time: SystemTime) -> Option<proto::Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(proto::Timestamp {
        seconds: since.as_secs() as i64,
        nanos: since.subsec_nanos() as i32,
    })
}

/// The messages, as far as they are used: `io.prometheus.client` in `metrics.proto` of `prometheus/client_model`.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricFamily {
        #[prost(string, optional, tag = "1")]
        pub name: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub help: Option<String>,
        #[prost(enumeration = "MetricType", optional, tag = "3")]
        pub r#type: Option<i32>,
        #[prost(message, repeated, tag = "4")]
        pub metric: Vec<Metric>,
        #[prost(string, optional, tag = "5")]
        pub unit: Option<String>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum MetricType {
        Counter = 0,
        Gauge = 1,
        Histogram = 4,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub label: Vec<LabelPair>,
        #[prost(message, optional, tag = "2")]
        pub gauge: Option<Gauge>,
        #[prost(message, optional, tag = "3")]
        pub counter: Option<Counter>,
        #[prost(message, optional, tag = "7")]
        pub histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct LabelPair {
        #[prost(string, optional, tag = "1")]
        pub name: Option<String>,
        #[prost(string, optional, tag = "2")]
        pub value: Option<String>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Gauge {
        #[prost(double, optional, tag = "1")]
        pub value: Option<f64>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Counter {
        #[prost(double, optional, tag = "1")]
        pub value: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub created_timestamp: Option<Timestamp>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Histogram {
        #[prost(uint64, optional, tag = "1")]
        pub sample_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub bucket: Vec<Bucket>,
        #[prost(sint32, optional, tag = "5")]
        pub schema: Option<i32>,
        #[prost(double, optional, tag = "6")]
        pub zero_threshold: Option<f64>,
        #[prost(uint64, optional, tag = "7")]
        pub zero_count: Option<u64>,
        #[prost(message, repeated, tag = "12")]
        pub positive_span: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "13")]
        pub positive_delta: Vec<i64>,
        #[prost(message, optional, tag = "15")]
        pub created_timestamp: Option<Timestamp>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Bucket {
        #[prost(uint64, optional, tag = "1")]
        pub cumulative_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub upper_bound: Option<f64>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct BucketSpan {
        #[prost(sint32, optional, tag = "1")]
        pub offset: Option<i32>,
        #[prost(uint32, optional, tag = "2")]
        pub length: Option<u32>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct Timestamp {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::expose::tests::sample;

    fn decoded(mut bytes: &[u8]) -> Vec<proto::MetricFamily> {
        let mut families = Vec::new();
        while !bytes.is_empty() {
            families.push(proto::MetricFamily::decode_length_delimited(&mut bytes).unwrap());
        }
        families
    }

    /// The buckets that spans and deltas stand for.
    fn unpacked(histogram: &proto::Histogram) -> Vec<(i16, u64)> {
        let (mut at, mut count, mut deltas) = (0, 0, histogram.positive_delta.iter());
        let mut buckets = Vec::new();
        for span in &histogram.positive_span {
            at += span.offset.unwrap();
            for _ in 0..span.length.unwrap() {
                count += deltas.next().unwrap();
                buckets.push((at as i16, count as u64));
                at += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        buckets
    }

    #[test]
    fn families_carry_what_the_snapshot_has() {
        let snapshot = sample();
        let families = decoded(&encode(&snapshot));
        let names: Vec<&str> = families
            .iter()
            .filter_map(|family| family.name.as_deref())
            .collect();
        let expected = [
            "streamhand_delivered_total",
            "streamhand_process_duration_seconds",
            "streamhand_slots",
            "streamhand_process_cpu_seconds_total",
        ];
        assert_eq!(names, expected);
        let counter = families[0].metric[0].counter.unwrap();
        assert_eq!((counter.value, families[0].r#type), (Some(7.0), Some(0)));
        assert_eq!(
            families[0].metric[0].label[0].value.as_deref(),
            Some("or\"de\\rs\n")
        );
        let histogram = families[1].metric[0].histogram.as_ref().unwrap();
        assert_eq!(
            (histogram.schema, histogram.sample_count),
            (Some(3), Some(4))
        );
        assert!(histogram.bucket.len() > 10);
    }

    proptest! {
        #[test]
        fn a_native_histogram_is_the_same_one(values in proptest::collection::vec(prop_oneof![Just(0.0), 1e-6..1e6], 0..300)) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            let sent = of_histogram(Id::ProcessDuration, &histogram, UNIX_EPOCH);
            let back = Histogram::of(sent.zero_count.unwrap(), sent.sample_sum.unwrap(), unpacked(&sent));
            prop_assert_eq!(back, histogram);
            prop_assert!(!sent.positive_span.is_empty());
        }
    }
}
