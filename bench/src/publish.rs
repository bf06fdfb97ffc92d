//! Publishing: `Publisher::publish_many` and `streamhand publish` from lines of JSON, against a loop that does nothing
//! but XADD in pipelines of 500, with the same fields, made before the clock starts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::process::Command;
use uuid::Uuid;

use super::crew::without_settings;
use super::events::{Sample, fill};
use super::figures::{median, ratio};
use super::measure::{own_cpu, refused};
use super::rig::Rig;
use super::{Measured, Sizes};
use streamhand::Event;
use streamhand::cli::CommandError;
use streamhand::codec;
use streamhand::unstable::connect;
use streamhand::unstable::table;

const EVENTS: u64 = 1_000_000;
const PIPELINE: u64 = 500;

/// What each way came to; medians.
#[derive(Serialize)]
pub(super) struct Publishing {
    events: u64,
    runs: u64,
    bare: Figures,
    publish_many: Figures,
    ndjson: Figures,
    /// Throughput in terms of the bare loop's.
    publish_many_ratio: f64,
    ndjson_ratio: f64,
    rounds: Vec<Round>,
}

#[derive(Serialize)]
struct Round {
    bare: Figures,
    publish_many: Figures,
    ndjson: Figures,
}

#[derive(Clone, Copy, Serialize)]
struct Figures {
    per_second: f64,
    redis_us: f64,
    /// Not known of the process that publishes lines.
    client_us: Option<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Bare,
    Many,
    Lines,
}

const WAYS: [Way; 3] = [Way::Bare, Way::Many, Way::Lines];

pub(super) async fn run(rig: &mut Rig, sizes: &Sizes) -> Result<Publishing, CommandError> {
    let events = sizes.events(EVENTS);
    let runs = sizes.runs * WAYS.len() as u64;
    let takes = Duration::from_secs_f64(runs as f64 * (0.5 + events as f64 / 200_000.0));
    rig.progress.begin("publishing", runs, takes);
    let lines = write_lines(rig, events)?;
    let mut measured = WAYS.map(|_| Vec::new());
    for round in 1..=sizes.runs {
        for way in sizes.turns(round, WAYS) {
            rig.progress.step(round, sizes.runs, way.name());
            measured[way as usize].push(measure(rig, way, events, &lines).await?);
            rig.progress.done();
        }
    }
    let [bare, many, ndjson] = measured;
    let of_round = |at: usize| Round {
        bare: bare[at],
        publish_many: many[at],
        ndjson: ndjson[at],
    };
    Ok(Publishing {
        events,
        runs: sizes.runs,
        bare: Figures::medians(&bare),
        publish_many: Figures::medians(&many),
        ndjson: Figures::medians(&ndjson),
        publish_many_ratio: ratio(&many, &bare, |run| run.per_second),
        ndjson_ratio: ratio(&ndjson, &bare, |run| run.per_second),
        rounds: (0..bare.len()).map(of_round).collect(),
    })
}

async fn measure(
    rig: &mut Rig,
    way: Way,
    events: u64,
    lines: &Path,
) -> Result<Figures, CommandError> {
    let stream = [rig.stream()];
    let values = ready_made()?;
    let (begun, client) = (rig.meter.begin().await?, own_cpu());
    match way {
        Way::Bare => bare(rig, &stream[0], &values, events).await?,
        Way::Many => fill(rig, &stream, events, None).await?,
        Way::Lines => publish_lines(rig, &stream[0], lines).await?,
    }
    let client = own_cpu() - client;
    let cost = rig.meter.end(begun).await?;
    let there: u64 = rig.meter.ask(redis::cmd("XLEN").arg(&stream[0])).await?;
    rig.drop_streams(&stream).await?;
    if there != events {
        return Err(CommandError::failed(format!(
            "the bench: {there} of {events} events were published"
        )));
    }
    Ok(Figures {
        per_second: events as f64 / cost.wall.as_secs_f64(),
        redis_us: cost.redis_us(events),
        client_us: (way != Way::Lines).then(|| client.as_secs_f64() * 1e6 / events as f64),
    })
}

/// An event's data, id and time.
type Values = (Vec<u8>, String, String);

fn ready_made() -> Result<Vec<Values>, CommandError> {
    let values = |n| {
        let data = Sample::numbered(n).encode()?;
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        Ok((data, Uuid::now_v7().to_string(), time.to_string()))
    };
    (500_000..500_000 + PIPELINE).map(values).collect()
}

async fn bare(rig: &Rig, stream: &str, values: &[Values], events: u64) -> Result<(), CommandError> {
    let mut conn = connect(&rig.redis, "streamhand:bench", Duration::from_secs(60)).await?;
    let mut left = events;
    while left > 0 {
        let some = left.min(PIPELINE) as usize;
        let mut pipe = redis::Pipeline::with_capacity(some);
        for (data, id, time) in &values[..some] {
            pipe.cmd("XADD").arg(stream).arg("*");
            pipe.arg("type").arg(Sample::TYPE);
            pipe.arg("datacontenttype").arg(codec::MSGPACK);
            pipe.arg("data").arg(data);
            pipe.arg("id").arg(id).arg("time").arg(time).ignore();
        }
        let () = pipe.query_async(&mut conn).await.map_err(refused)?;
        left -= some as u64;
    }
    Ok(())
}

fn write_lines(rig: &Rig, events: u64) -> Result<PathBuf, CommandError> {
    let path = rig.files.path("events.ndjson");
    let write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        for n in 0..events {
            serde_json::to_writer(&mut file, &Sample::numbered(n))?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    write().map_err(|error| {
        CommandError::failed(format!("can't write {}: {error}", path.display()))
    })?;
    Ok(path)
}

/// The program's own command, from its start to its end.
async fn publish_lines(rig: &Rig, stream: &str, lines: &Path) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| CommandError::failed(format!("can't publish: {error}"));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["bench-publish", "--", stream, Sample::TYPE, "--file"]);
    command.arg(lines);
    command.arg("--config").arg(rig.client_configuration()?);
    without_settings(&mut command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let output = command.output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(CommandError::failed(format!("publish failed: {said}")))
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Bare => "bare pipelines",
            Way::Many => "publish_many",
            Way::Lines => "publish from NDJSON",
        }
    }
}

impl Figures {
    fn medians(runs: &[Figures]) -> Self {
        let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure));
        let client: Option<Vec<f64>> = runs.iter().map(|run| run.client_us).collect();
        Figures {
            per_second: of(|run| run.per_second),
            redis_us: of(|run| run.redis_us),
            client_us: client.map(median),
        }
    }
}

impl Measured for Publishing {
    fn text(&self) -> String {
        let row = |name: &str, figures: &Figures, ratio: Option<f64>| {
            let client = figures.client_us.map(|us| format!("{us:.2}"));
            vec![
                name.to_owned(),
                format!("{:.0}", figures.per_second),
                format!("{:.2}", figures.redis_us),
                client.unwrap_or_default(),
                ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            ]
        };
        let rows = [
            row("XADD in pipelines of 500", &self.bare, None),
            row(
                "Publisher::publish_many",
                &self.publish_many,
                Some(self.publish_many_ratio),
            ),
            row("publish from NDJSON", &self.ndjson, Some(self.ndjson_ratio)),
        ];
        let header = [
            "WAY",
            "events/s",
            "Redis µs",
            "client µs",
            "of the bare loop",
        ];
        format!(
            "{} events a run, median of {} runs in turns\n\n{}",
            self.events,
            self.runs,
            table(&header, &[], &rows)
        )
    }
}
