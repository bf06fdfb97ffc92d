//! The events that go through a measurement: small, encoded and published as any other.

use serde::{Deserialize, Serialize};

use super::rig::Rig;
use streamhand::Event;
use streamhand::Publisher;
use streamhand::cli::CommandError;

/// Set in the amount of an event that is sent before a measurement begins.
const WARM_UP: u64 = 1 << 63;

/// What [`Sample::filled`] has beside its filling.
const FRAME: usize = 27;

/// A small event. Its amount stands last, so that its eight bytes end the data.
#[derive(Serialize, Deserialize)]
pub(super) struct Sample {
    order_id: String,
    amount: u64,
}

impl Event for Sample {
    const TYPE: &'static str = "bench.sample";
}

/// When an event was meant to be sent, in ns of [`now_ns`](super::measure::now_ns).
#[derive(Clone, Copy)]
pub(super) struct Due(pub u64);

impl Sample {
    pub fn numbered(n: u64) -> Self {
        Sample {
            order_id: format!("o-{n}"),
            amount: n,
        }
    }

    /// One whose data has about so many bytes.
    fn filled(n: u64, bytes: usize) -> Self {
        let mut sample = Self::numbered(n);
        let filling = bytes.saturating_sub(FRAME + sample.order_id.len());
        sample.order_id.extend(std::iter::repeat_n('-', filling));
        sample
    }

    /// One that tells when it was meant to be sent, and whether its latency counts.
    pub fn due(n: u64, due: Due, counts: bool) -> Self {
        Sample {
            order_id: format!("o-{n}"),
            amount: if counts { due.0 } else { due.0 | WARM_UP },
        }
    }

    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Its data, as the publisher encodes it.
    pub fn encode(&self) -> Result<Vec<u8>, CommandError> {
        rmp_serde::to_vec_named(self).map_err(|error| CommandError::failed(error.to_string()))
    }
}

impl Due {
    /// When the event of this amount was due, where its latency counts.
    pub fn of(amount: u64) -> Option<Due> {
        (amount & WARM_UP == 0).then_some(Due(amount))
    }

    /// Likewise by the encoded event, without decoding it.
    pub fn of_data(data: &[u8]) -> Option<Due> {
        Self::of(u64::from_be_bytes(*data.last_chunk()?))
    }
}

/// Puts `events` events on `streams`, the same number on each, with data of `bytes` bytes or else as small as they
/// are.
pub(super) async fn fill(
    rig: &Rig,
    streams: &[String],
    events: u64,
    bytes: Option<usize>,
) -> Result<(), CommandError> {
    let publisher = Publisher::new(&rig.redis)?;
    // So many at once are a few MB, whatever their size.
    let at_once = (4 << 20) / bytes.unwrap_or(64).max(400);
    for (at, stream) in streams.iter().enumerate() {
        let (at, of) = (at as u64, streams.len() as u64);
        let mut rest = at * events / of..(at + 1) * events / of;
        while !rest.is_empty() {
            let some: Vec<Sample> = rest
                .by_ref()
                .take(at_once)
                .map(|n| match bytes {
                    Some(bytes) => Sample::filled(n, bytes),
                    None => Sample::numbered(n),
                })
                .collect();
            publisher.publish_many(stream, &some).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_due_time_is_read_without_decoding_and_not_of_those_that_warm_up() {
        for (counts, wanted) in [(true, Some(1 << 40)), (false, None)] {
            let sample = Sample::due(7, Due(1 << 40), counts);
            let data = sample.encode().unwrap();
            assert_eq!(Due::of_data(&data).map(|due| due.0), wanted);
            assert_eq!(Due::of(sample.amount()).map(|due| due.0), wanted);
        }
        assert!(Due::of_data(b"short").is_none());
    }

    #[test]
    fn a_filled_event_has_about_the_size_wanted() {
        for bytes in [100, 1_000, 100_000] {
            let data = Sample::filled(123_456, bytes).encode().unwrap();
            assert!(
                data.len().abs_diff(bytes) <= 8,
                "{} for {bytes}",
                data.len()
            );
        }
    }
}
