//! What being watched costs: a backlog as fast as it goes, by a worker that counts nothing, by one that tells of itself by
//! the pulse, as all do by default, and by one whose metrics are scraped as well, in turns through the same stream.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::events::fill;
use super::figures::ratio;
use super::job::{Job, Watch, Way};
use super::rig::Rig;
use super::runs::{Figures, backlog};
use super::{Measured, Sizes};
use streamhand::cli::CommandError;

const EVENTS: u64 = 1_000_000;
/// Prometheus asks every 15 s or so.
const SCRAPES: Duration = Duration::from_millis(500);
/// When it is asked again that has not begun to listen.
const SOON: Duration = Duration::from_millis(10);

/// What the runs came to; medians.
#[derive(Serialize)]
pub(super) struct Watched {
    events: u64,
    runs: u64,
    unwatched: Figures,
    pulse: Figures,
    scraped: Figures,
    /// The throughput of each in terms of that of who counts nothing.
    pulse_ratio: f64,
    scraped_ratio: f64,
    /// The worker's CPU per message, likewise.
    pulse_cpu_ratio: f64,
    scraped_cpu_ratio: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum By {
    Nobody,
    Pulse,
    Scrapes,
}

pub(super) async fn run(rig: &mut Rig, sizes: &Sizes) -> Result<Watched, CommandError> {
    let events = sizes.events(EVENTS);
    let takes = Duration::from_secs_f64(sizes.runs as f64 * (1.0 + events as f64 / 90_000.0));
    rig.progress.begin("watched", 3 * sizes.runs, takes);
    let mut found: [Vec<Figures>; 3] = Default::default();
    for round in 1..=sizes.runs {
        let stream = [rig.stream()];
        rig.progress.step(round, sizes.runs, "publishing");
        fill(rig, &stream, events, None).await?;
        for by in sizes.turns(round, [By::Nobody, By::Pulse, By::Scrapes]) {
            rig.progress.step(round, sizes.runs, by.name());
            let figures = by.watch(rig, &stream, events).await?;
            rig.drop_group(&stream[0]).await?;
            rig.progress.done();
            found[by as usize].push(figures);
        }
        rig.drop_streams(&stream).await?;
    }
    let [unwatched, pulse, scraped] = &found;
    let per_second = |run: &Figures| run.per_second;
    let client = |run: &Figures| run.client_us;
    Ok(Watched {
        events,
        runs: sizes.runs,
        pulse_ratio: ratio(pulse, unwatched, per_second),
        scraped_ratio: ratio(scraped, unwatched, per_second),
        pulse_cpu_ratio: ratio(pulse, unwatched, client),
        scraped_cpu_ratio: ratio(scraped, unwatched, client),
        unwatched: Figures::medians(unwatched),
        pulse: Figures::medians(pulse),
        scraped: Figures::medians(scraped),
    })
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Nobody => "by nobody",
            By::Pulse => "by its pulse",
            By::Scrapes => "by scrapes as well",
        }
    }

    async fn watch(
        self,
        rig: &mut Rig,
        stream: &[String],
        events: u64,
    ) -> Result<Figures, CommandError> {
        let mut job = Job::new(Way::Streamhand, stream);
        let at = match self {
            By::Nobody => {
                job.watch = Watch::Off;
                return backlog(rig, &job, 1, events, 0).await;
            }
            By::Pulse => return backlog(rig, &job, 1, events, 0).await,
            By::Scrapes => free_address()?,
        };
        job.watch = Watch::Metrics(at);
        let mut scrapes = 0;
        let scraping = async {
            loop {
                let is_there = scrape(at).await.is_ok();
                scrapes += u64::from(is_there);
                tokio::time::sleep(if is_there { SCRAPES } else { SOON }).await;
            }
        };
        let figures = tokio::select! {
            figures = backlog(rig, &job, 1, events, 0) => figures?,
            () = scraping => unreachable!("it goes on"),
        };
        match scrapes {
            0 => Err(CommandError::failed(
                "the bench: the worker's metrics could not be asked for",
            )),
            _ => Ok(figures),
        }
    }
}

/// An address that nobody listens at.
fn free_address() -> Result<SocketAddr, CommandError> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| CommandError::failed(format!("the bench: no port is free: {error}")))
}

/// Asks for the metrics as a scraper does.
async fn scrape(at: SocketAddr) -> std::io::Result<()> {
    let mut worker = TcpStream::connect(at).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
    worker.write_all(request.as_bytes()).await?;
    let mut metrics = Vec::new();
    worker.read_to_end(&mut metrics).await?;
    match metrics.starts_with(b"HTTP/1.1 200") {
        true => Ok(()),
        false => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

impl Measured for Watched {
    fn text(&self) -> String {
        let row = |name: &str, figures: &Figures, ratio: f64| {
            format!(
                "{name:<36}{:>12.0}{:>16.2}{:>16.2}{ratio:>16.2}\n",
                figures.per_second, figures.redis_us, figures.client_us
            )
        };
        format!(
            "{} events a run, median of {} runs in turns\n\n{:<36}{:>12}{:>16}{:>16}{:>16}\n{}{}{}",
            self.events,
            self.runs,
            "watched",
            "messages/s",
            "Redis µs/msg",
            "client µs/msg",
            "of unwatched",
            row("by nobody", &self.unwatched, 1.0),
            row("by its pulse", &self.pulse, self.pulse_ratio),
            row(
                "by its pulse, metrics scraped",
                &self.scraped,
                self.scraped_ratio
            ),
        )
    }
}
