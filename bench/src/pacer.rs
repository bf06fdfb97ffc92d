//! A publisher that keeps to a timetable whatever becomes of its events: it sends each when it is due, waits for no
//! answer, and every event tells when it was meant to be sent. Latencies that count from there have no coordinated
//! omission: an event that had to wait because the one before it took long is late by all of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use uuid::Uuid;

use super::events::{Due, Sample};
use super::figures;
use super::measure::{now_ns, refused};
use super::places::Places;
use streamhand::Event;
use streamhand::cli::CommandError;
use streamhand::codec;
use streamhand::config::RedisSettings;
use streamhand::unstable::connect_blocking;

/// What is to be published, and when.
#[derive(Clone)]
pub(super) struct Timetable {
    /// The events go to these in turns.
    pub streams: Vec<String>,
    pub per_second: u64,
    /// How long events come whose latency does not count.
    pub warm_up: Duration,
    /// How long events come whose latency does.
    pub measured: Duration,
    /// The CPUs of publisher, server and workers; None for wherever the kernel puts them.
    pub places: Option<Places>,
}

/// A publisher at work, on a thread of its own.
pub(super) struct Pacer {
    /// When the first event is due, in ns of [`now_ns`].
    pub begins: u64,
    quit: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    ended: tokio::sync::oneshot::Receiver<Result<Published, CommandError>>,
}

/// What was published.
pub(super) struct Published {
    pub events: u64,
    /// How much later than they were due events were sent.
    pub late: Histogram<u64>,
}

impl Timetable {
    pub fn measured_events(&self) -> u64 {
        self.count(self.measured)
    }

    fn warm_up_events(&self) -> u64 {
        self.count(self.warm_up)
    }

    fn count(&self, time: Duration) -> u64 {
        (self.per_second as f64 * time.as_secs_f64()).round() as u64
    }

    /// When the event of this number is due, in ns after the first.
    fn due(&self, n: u64) -> u64 {
        n * 1_000_000_000 / self.per_second
    }
}

impl Pacer {
    pub fn start(settings: &RedisSettings, timetable: &Timetable) -> Result<Self, CommandError> {
        let mut conn = connect_blocking(settings)?;
        // Answers that nobody waits for would pile up.
        let mut silence = redis::cmd("CLIENT");
        silence.arg("REPLY").arg("OFF");
        conn.send_packed_command(&silence.get_packed_command())
            .map_err(refused)?;
        let (quit, begins) = (Arc::new(AtomicBool::new(false)), now_ns() + 20_000_000);
        let (send, ended) = tokio::sync::oneshot::channel();
        let (timetable, asked) = (timetable.clone(), quit.clone());
        let thread = std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || {
                let _ = send.send(publish(&mut conn, &timetable, begins, &asked));
            })
            .map_err(|error| {
                CommandError::failed(format!("can't start a thread to publish on: {error}"))
            })?;
        Ok(Pacer {
            begins,
            quit,
            thread: Some(thread),
            ended,
        })
    }

    /// Waits until all is published.
    pub async fn ended(mut self) -> Result<Published, CommandError> {
        (&mut self.ended)
            .await
            .unwrap_or_else(|_| Err(CommandError::failed("the publisher's thread died")))
    }
}

impl Drop for Pacer {
    /// Nothing is sent any more after it.
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn publish(
    conn: &mut redis::Connection,
    timetable: &Timetable,
    begins: u64,
    quit: &AtomicBool,
) -> Result<Published, CommandError> {
    // Linux lets a sleeping thread sleep on for some 50 µs; this one is woken in time.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    if let Some(places) = &timetable.places {
        places.publisher_here()?;
    }
    let mut published = Published {
        events: 0,
        late: figures::histogram(),
    };
    let warm_up = timetable.warm_up_events();
    let all = warm_up + timetable.measured_events();
    let mut request = Vec::new();
    while published.events < all && !quit.load(Ordering::Relaxed) {
        let due = begins + timetable.due(published.events);
        let now = now_ns();
        if due > now {
            std::thread::sleep(Duration::from_nanos(due - now));
            continue;
        }
        // Everything that is due by now goes out together.
        request.clear();
        while published.events < all {
            let due = begins + timetable.due(published.events);
            if due > now {
                break;
            }
            let n = published.events;
            let stream = &timetable.streams[n as usize % timetable.streams.len()];
            let sample = Sample::due(n, Due(due), n >= warm_up);
            append(stream, &sample)?.write_packed_command(&mut request);
            if n >= warm_up {
                published.late.saturating_record(now - due);
            }
            published.events += 1;
        }
        conn.send_packed_command(&request).map_err(refused)?;
    }
    Ok(published)
}

/// An event with the fields that `publish` writes.
fn append(stream: &str, sample: &Sample) -> Result<redis::Cmd, CommandError> {
    let data = sample.encode()?;
    let time = humantime::format_rfc3339_millis(std::time::SystemTime::now());
    let mut append = redis::cmd("XADD");
    append.arg(stream).arg("*").arg("type").arg(Sample::TYPE);
    append.arg("datacontenttype").arg(codec::MSGPACK);
    append.arg("data").arg(&data[..]);
    append.arg("id").arg(Uuid::now_v7().to_string());
    append.arg("time").arg(time.to_string());
    Ok(append)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timetable_is_even_and_ends_with_its_last_event() {
        let timetable = Timetable {
            streams: vec!["s".to_owned()],
            per_second: 10_000,
            warm_up: Duration::from_millis(500),
            measured: Duration::from_secs(10),
            places: None,
        };
        assert_eq!(
            (timetable.warm_up_events(), timetable.measured_events()),
            (5_000, 100_000)
        );
        assert_eq!(
            (timetable.due(0), timetable.due(1), timetable.due(5_000)),
            (0, 100_000, 500_000_000)
        );
    }
}
