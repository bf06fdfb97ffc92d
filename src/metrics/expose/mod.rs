//! What has been counted, as those who scrape it want it: a snapshot becomes bytes. Which bytes is what the request's
//! `Accept` says; without one it is the oldest text format, which everything reads.

mod accept;
#[cfg(feature = "telemetry")]
mod protobuf;
mod text;

use super::snapshot::Snapshot;
use accept::Format;

/// A snapshot as `accept`, the header of a request, wants it: the content type, and the body.
pub fn render(accept: &str, snapshot: &Snapshot) -> (&'static str, Vec<u8>) {
    let format = accept::wanted(accept);
    let body = match format {
        Format::OpenMetrics => text::openmetrics(snapshot).into_bytes(),
        Format::Text => text::prometheus(snapshot).into_bytes(),
        #[cfg(feature = "telemetry")]
        Format::Protobuf => protobuf::encode(snapshot),
    };
    (format.content_type(), body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::histogram::Histogram;
    use crate::metrics::snapshot::{Value, of};
    use crate::metrics::table::Id;

    /// One of each kind.
    pub fn sample() -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut histogram = Histogram::default();
        [0.1, 0.1, 0.5, 100_000.0]
            .iter()
            .for_each(|value| histogram.record(*value));
        let labels = of(&["orders", "g", "t", "acked"]);
        snapshot.add(Id::ProcessDuration, labels, Value::Histogram(histogram));
        snapshot.add(
            Id::Delivered,
            of(&["or\"de\\rs\n", "g", "read"]),
            Value::Counter(7),
        );
        snapshot.add(Id::ProcessCpu, of(&[]), Value::Total(1.25));
        snapshot.gauge(Id::Slots, &["g"], 4.0);
        snapshot
    }

    #[test]
    fn nothing_is_shown_of_nothing() {
        let nothing = Snapshot::default();
        assert_eq!(render("", &nothing).1, b"");
        let (kind, body) = render("application/openmetrics-text", &nothing);
        assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"));
        assert_eq!(body, b"# EOF\n");
    }
}
