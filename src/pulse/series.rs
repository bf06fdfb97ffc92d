//! What was counted, as a section of a packed pulse: metric by metric under a number that never changes, series by series,
//! histograms as their buckets that are not empty. Gauges are not packed: what they say is of one moment, and what of that
//! is worth a history is in a pulse by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::wire::{Garbled, Packed, Reader, Section, number};
use crate::metrics::histogram::{FIRST, Histogram, LAST};
use crate::metrics::snapshot::{Labels, Snapshot, Value};
use crate::metrics::table::{Id, Kind, TABLE, Unit};

/// The number of a metric in what is packed. A number that was given once is never given to another metric: those who
/// read may be of another release, and what they keep is kept for 90 days.
fn code(id: Id) -> Option<u64> {
    Some(match id {
        Id::Delivered => 1,
        Id::Settled => 2,
        Id::DeadLetters => 3,
        Id::Failures => 4,
        Id::ProcessDuration => 5,
        Id::Wait => 6,
        Id::EndToEnd => 7,
        Id::Attempts => 8,
        Id::LeaseMargin => 9,
        Id::LeaseLapsed => 10,
        Id::HeldBack => 11,
        Id::HandlerBlocked => 12,
        Id::RedisRequestDuration => 13,
        Id::RedisErrors => 14,
        Id::RedisReconnects => 15,
        Id::Published => 16,
        Id::PublishDuration => 17,
        Id::ProcessCpu => 18,
        _ => return None,
    })
}

fn id_of(number: u64) -> Option<Id> {
    let mut ids = TABLE.iter().map(|(id, _)| *id);
    ids.find(|id| code(*id) == Some(number))
}

/// Of which part of one a sum is a whole number: nanoseconds, or thousandths.
fn parts(id: Id) -> f64 {
    match id.metric().unit {
        Unit::Seconds => 1e9,
        Unit::One | Unit::Bytes => 1e3,
    }
}

fn whole(id: Id, value: f64) -> u64 {
    // What is no number, or below zero, becomes zero.
    (value * parts(id)).round() as u64
}

fn value_of(id: Id, whole: u64) -> f64 {
    whole as f64 / parts(id)
}

/// Packs what is in it but gauges.
pub(super) fn pack(snapshot: &Snapshot, section: &mut Section<'_>) {
    let mut by_metric: BTreeMap<u64, Vec<(Id, &Labels, &Value)>> = BTreeMap::new();
    for (id, labels, value) in snapshot.iter() {
        if let (Some(code), false) = (code(id), matches!(value, Value::Gauge(_))) {
            by_metric.entry(code).or_default().push((id, labels, value));
        }
    }
    for (code, series) in by_metric {
        // Texts get their places while what stands before them says how long all of it is: they are placed first.
        let id = series[0].0;
        let mut bytes = Vec::new();
        number(&mut bytes, id.metric().labels.len() as u64);
        number(&mut bytes, series.len() as u64);
        for (id, labels, value) in series {
            for label in labels.iter() {
                number(&mut bytes, section.place(label));
            }
            pack_value(id, value, &mut bytes);
        }
        section.number(code).bytes(&bytes);
    }
}

fn pack_value(id: Id, value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Counter(count) => number(bytes, *count),
        Value::Total(total) => number(bytes, whole(id, *total)),
        Value::Gauge(_) => {}
        Value::Histogram(histogram) => {
            number(bytes, histogram.zero());
            number(bytes, whole(id, histogram.sum()));
            let buckets = histogram.buckets();
            number(bytes, buckets.len() as u64);
            let mut before = FIRST;
            for (index, count) in buckets {
                // Most stand beside each other: the gap is a byte.
                number(bytes, u64::from(index.abs_diff(before)));
                number(bytes, *count);
                before = *index;
            }
        }
    }
}

/// What was packed. Metrics that this release does not know are left out.
pub(super) fn unpack(packed: &Packed<'_>, mut section: Reader<'_>) -> Result<Snapshot, Garbled> {
    let mut snapshot = Snapshot::default();
    while !section.is_empty() {
        let (code, long) = (section.number()?, section.number()?);
        let of = section.part(long)?;
        if let Some(id) = id_of(code) {
            unpack_metric(packed, id, of, &mut snapshot)?;
        }
    }
    Ok(snapshot)
}

fn unpack_metric(
    packed: &Packed<'_>,
    id: Id,
    mut of: Reader<'_>,
    into: &mut Snapshot,
) -> Result<(), Garbled> {
    let labels = of.count()?;
    if labels != id.metric().labels.len() {
        // The metric has other labels there: its series can't be told apart here.
        return Ok(());
    }
    for _ in 0..of.count()? {
        let mut values: Vec<Box<str>> = Vec::with_capacity(labels);
        for _ in 0..labels {
            values.push(packed.text_at(of.number()?)?.into());
        }
        let value = match id.metric().kind {
            Kind::Counter if id == Id::ProcessCpu => Value::Total(value_of(id, of.number()?)),
            Kind::Counter => Value::Counter(of.number()?),
            Kind::Histogram => Value::Histogram(unpack_histogram(id, &mut of)?),
            Kind::Gauge => return Err(Garbled),
        };
        into.add(id, Arc::from(values), value);
    }
    Ok(())
}

fn unpack_histogram(id: Id, of: &mut Reader<'_>) -> Result<Histogram, Garbled> {
    let (zero, sum) = (of.number()?, value_of(id, of.number()?));
    let mut buckets = Vec::new();
    let mut at = FIRST;
    for n in 0..of.count()? {
        let gap = of.number()?;
        if (gap == 0 && n > 0) || gap > LAST.abs_diff(FIRST).into() {
            return Err(Garbled);
        }
        at = at
            .checked_add(gap as i16)
            .filter(|at| *at <= LAST)
            .ok_or(Garbled)?;
        buckets.push((at, of.number()?));
    }
    Ok(Histogram::of(zero, sum, buckets))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec as many;
    use proptest::prelude::*;

    use super::super::wire::Packer;
    use super::*;
    use crate::metrics::table::Scope;

    pub fn labels(values: &[&str]) -> Labels {
        values.iter().map(|value| Box::from(*value)).collect()
    }

    /// What workers may have counted.
    pub fn snapshots() -> impl Strategy<Value = Snapshot> {
        let kind = prop_oneof![Just("order.created"), Just("order.paid"), Just("other")];
        let counter = (kind.clone(), 0u64..1 << 40);
        let histogram = (
            kind,
            proptest::collection::vec(prop_oneof![Just(0.0), 1e-6..1e-3, 1e-3..1e5], 1..40),
        );
        (many(counter, 0..6), many(histogram, 0..6), 0u64..10_000).prop_map(
            |(counters, histograms, cpu)| {
                let mut snapshot = Snapshot::default();
                for (kind, count) in counters {
                    let labels = labels(&["orders", "shop", kind, "acked"]);
                    snapshot.add(Id::Settled, labels, Value::Counter(count + 1));
                }
                for (kind, values) in histograms {
                    let mut histogram = Histogram::default();
                    values.iter().for_each(|value| histogram.record(*value));
                    let sum = value_of(Id::Wait, whole(Id::Wait, histogram.sum()));
                    let histogram =
                        Histogram::of(histogram.zero(), sum, histogram.buckets().to_vec());
                    snapshot.add(
                        Id::Wait,
                        labels(&["orders", "shop", kind]),
                        Value::Histogram(histogram),
                    );
                }
                snapshot.add(
                    Id::ProcessCpu,
                    labels(&[]),
                    Value::Total(cpu as f64 / 1000.0),
                );
                snapshot
            },
        )
    }

    pub fn assert_same(left: &Snapshot, right: &Snapshot) {
        let of = |snapshot: &Snapshot| {
            snapshot
                .iter()
                .map(|(id, labels, value)| {
                    let value = match value {
                        Value::Histogram(histogram) => {
                            format!("{} {:?}", histogram.zero(), histogram.buckets())
                        }
                        Value::Total(total) => format!("{total:.6}"),
                        value => format!("{value:?}"),
                    };
                    (id, labels.to_vec(), value)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(of(left), of(right));
        for (id, labels, value) in left.iter() {
            let labels: Vec<&str> = labels.iter().map(|label| &**label).collect();
            if let (Value::Histogram(left), Some(Value::Histogram(right))) =
                (value, right.get(id, &labels))
            {
                assert!(
                    (left.sum() - right.sum()).abs() <= 1e-6 * left.sum().max(1.0),
                    "{} {}",
                    left.sum(),
                    right.sum()
                );
            }
        }
    }

    fn through(snapshot: &Snapshot) -> Snapshot {
        let mut packer = Packer::default();
        packer.section(1, |section| pack(snapshot, section));
        let bytes = packer.finish();
        let packed = Packed::open(&bytes).unwrap();
        unpack(&packed, packed.section(1)).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(snapshot in snapshots()) {
            assert_same(&through(&snapshot), &snapshot);
        }

        #[test]
        fn bytes_of_others_are_refused_or_read_and_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut packer = Packer::default();
            packer.section(1, |section| { section.text("orders").bytes_as_they_are(&bytes); });
            let bytes = packer.finish();
            let packed = Packed::open(&bytes).unwrap();
            let _ = unpack(&packed, packed.section(1));
        }
    }

    #[test]
    fn every_metric_of_a_process_has_a_number_but_gauges_and_no_two_the_same() {
        let mut seen = std::collections::HashSet::new();
        for (id, metric) in TABLE {
            let is_packed = metric.scope == Scope::Process && metric.kind != Kind::Gauge;
            assert_eq!(
                code(*id).is_some(),
                is_packed,
                "{}: give it a number that was never given",
                metric.name
            );
            if let Some(code) = code(*id) {
                assert!(seen.insert(code), "{}", metric.name);
                assert_eq!(id_of(code), Some(*id));
            }
        }
    }

    #[test]
    fn gauges_are_left_out_and_so_is_what_a_newer_release_counts() {
        let mut snapshot = Snapshot::default();
        snapshot.gauge(Id::Slots, &["shop"], 4.0);
        assert!(through(&snapshot).is_empty());

        let mut packer = Packer::default();
        packer.section(1, |section| {
            section.number(999).bytes(&[1, 2, 3]);
            section.number(code(Id::RedisReconnects).unwrap());
            let place = section.place("read");
            section.bytes(&[1, 1, place as u8, 5]);
        });
        let bytes = packer.finish();
        let packed = Packed::open(&bytes).unwrap();
        let read = unpack(&packed, packed.section(1)).unwrap();
        assert_eq!(
            read.get(Id::RedisReconnects, &["read"]),
            Some(&Value::Counter(5))
        );
        assert_eq!(read.len(), 1);
    }
}
