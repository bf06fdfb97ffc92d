//! What an entry costs by what becomes of it: a backlog of which every entry is acknowledged, committed, retried, buried or
//! deduplicated, beside the least commands that could do the same, in pipelines of a hundred entries on one connection, with
//! nothing looked at. They take turns in rounds.

use std::collections::BTreeMap;

use redis::Pipeline;
use serde::Serialize;

use super::events::fill;
use super::figures::{median, ratio};
use super::job::{Job, Path, Way};
use super::rig::Rig;
use super::runs::{Figures, backlog};
use super::{Measured, Sizes};
use streamhand::cli::CommandError;

const EVENTS: u64 = 100_000;
/// Entries of a pipeline.
const LOT: usize = 100;
const ERROR: &str = "it is to fail once";

/// What the runs came to; medians.
#[derive(Serialize)]
pub(super) struct Paths {
    events: u64,
    runs: u64,
    paths: BTreeMap<&'static str, Figure>,
}

#[derive(Serialize)]
struct Figure {
    runtime: Figures,
    /// Redis CPU by the entry of the same in pipelines, in µs.
    plain_redis_us: f64,
    /// The runtime's in terms of it.
    redis_cpu_ratio: f64,
    /// The runtime's in terms of what an acknowledged entry costs it.
    to_handled: f64,
}

/// An entry as it was read.
type Entry = (String, Vec<(String, redis::Value)>);

pub(super) async fn run(rig: &mut Rig, sizes: &Sizes) -> Result<Paths, CommandError> {
    let events = sizes.events(EVENTS);
    let takes =
        std::time::Duration::from_secs_f64(sizes.runs as f64 * (5.0 + events as f64 / 6_000.0));
    rig.progress
        .begin("paths", sizes.runs * Path::ALL.len() as u64, takes);
    let mut runs: BTreeMap<&str, Vec<(Figures, f64)>> = BTreeMap::new();
    for round in 1..=sizes.runs {
        for path in sizes.turns(round, Path::ALL) {
            rig.progress.step(round, sizes.runs, path.name());
            let stream = [rig.stream()];
            fill(rig, &stream, events, None).await?;
            let job = Job {
                path,
                ..Job::new(Way::Streamhand, &stream)
            };
            let figures = backlog(rig, &job, 1, events, 0).await?;
            rig.drop_group(&stream[0]).await?;
            let plain = plain(rig, path, &stream[0], events).await?;
            rig.drop_streams(&stream).await?;
            rig.progress.done();
            runs.entry(path.name()).or_default().push((figures, plain));
        }
    }
    let handled: Vec<Figures> = figures_of(&runs[Path::Handled.name()]);
    let figure = |(name, runs): (&&'static str, &Vec<(Figures, f64)>)| {
        let figures = figures_of(runs);
        let figure = Figure {
            plain_redis_us: median(runs.iter().map(|(_, plain)| *plain)),
            redis_cpu_ratio: median(runs.iter().map(|(run, plain)| run.redis_us / plain)),
            to_handled: ratio(&figures, &handled, |run| run.redis_us),
            runtime: Figures::medians(&figures),
        };
        (*name, figure)
    };
    Ok(Paths {
        events,
        runs: sizes.runs,
        paths: runs.iter().map(figure).collect(),
    })
}

fn figures_of(runs: &[(Figures, f64)]) -> Vec<Figures> {
    runs.iter().map(|(figures, _)| figures.clone()).collect()
}

/// Redis CPU by the entry of the least commands that do the same, in µs.
async fn plain(rig: &mut Rig, path: Path, stream: &str, events: u64) -> Result<f64, CommandError> {
    rig.make_groups(&[stream.to_owned()]).await?;
    let (group, key) = (rig.group().to_owned(), |name: &str| {
        format!("{{{stream}}}:{name}")
    });
    let begun = rig.meter.begin().await?;
    let mut read = 0;
    while read < events {
        let mut ask = redis::cmd("XREADGROUP");
        ask.arg("GROUP")
            .arg(&group)
            .arg("plain")
            .arg("COUNT")
            .arg(LOT);
        ask.arg("STREAMS").arg(stream).arg(">");
        let reply: Vec<(String, Vec<Entry>)> = rig.meter.ask(&ask).await?;
        let entries = reply
            .into_iter()
            .flat_map(|(_, entries)| entries)
            .collect::<Vec<_>>();
        let ids: Vec<&str> = entries.iter().map(|(id, _)| &id[..]).collect();
        let mut pipe = redis::pipe();
        for (at, id) in ids.iter().enumerate() {
            let number = read + at as u64;
            match path {
                Path::Handled => {}
                Path::Committed => {
                    let (order, last) = (format!("o-{number}"), format!("last:{number}"));
                    with_entry(&mut pipe, &key("out"), &entries[at], &[]);
                    pipe.cmd("HINCRBY")
                        .arg(key("stock"))
                        .arg(number % 50)
                        .arg(1)
                        .ignore();
                    pipe.cmd("HSET")
                        .arg(key("orders"))
                        .arg(order)
                        .arg("x")
                        .ignore();
                    pipe.cmd("SET").arg(key(&last)).arg("1").ignore();
                }
                Path::Retried => {
                    pipe.cmd("XCLAIM")
                        .arg(stream)
                        .arg(&group)
                        .arg("parked")
                        .arg(0)
                        .arg(id);
                    pipe.arg("JUSTID").ignore();
                    pipe.cmd("ZADD")
                        .arg(key("retry"))
                        .arg(number)
                        .arg(id)
                        .ignore();
                    pipe.cmd("HSET")
                        .arg(key("failures"))
                        .arg(id)
                        .arg(ERROR)
                        .ignore();
                }
                Path::Buried => with_entry(
                    &mut pipe,
                    &key("dead"),
                    &entries[at],
                    &["dead.entry", id, "dead.error", ERROR],
                ),
                Path::Deduplicated => {
                    let mark = key(&format!("seen:{number}"));
                    pipe.cmd("SET")
                        .arg(&mark)
                        .arg("runs")
                        .arg("NX")
                        .arg("PX")
                        .arg(3_600_000)
                        .ignore();
                    pipe.cmd("SET")
                        .arg(&mark)
                        .arg("done")
                        .arg("PX")
                        .arg(3_600_000)
                        .ignore();
                }
            }
        }
        if path == Path::Retried {
            // Those that are due, taken back in one command each.
            pipe.cmd("ZRANGEBYSCORE")
                .arg(key("retry"))
                .arg("-inf")
                .arg("+inf")
                .ignore();
            pipe.cmd("XCLAIM")
                .arg(stream)
                .arg(&group)
                .arg("plain")
                .arg(0)
                .arg(&ids)
                .ignore();
            pipe.cmd("HMGET").arg(key("failures")).arg(&ids).ignore();
            pipe.cmd("ZREM").arg(key("retry")).arg(&ids).ignore();
            pipe.cmd("HDEL").arg(key("failures")).arg(&ids).ignore();
        }
        pipe.cmd("XACK").arg(stream).arg(&group).arg(&ids).ignore();
        rig.meter.ask_all(&pipe).await?;
        read += entries.len() as u64;
    }
    Ok(rig.meter.end(begun).await?.redis_us(events))
}

/// Adds a copy of an entry with more fields.
fn with_entry(pipe: &mut Pipeline, to: &str, (_, fields): &Entry, more: &[&str]) {
    pipe.cmd("XADD").arg(to).arg("*");
    for (name, value) in fields {
        let value: Vec<u8> = redis::from_redis_value(value.clone()).unwrap_or_default();
        pipe.arg(name).arg(value);
    }
    pipe.arg(more).ignore();
}

impl Measured for Paths {
    fn text(&self) -> String {
        let row = |path: &Path| {
            let name = path.name();
            let figure = &self.paths[name];
            let run = &figure.runtime;
            format!(
                "\n{name:<14}{:>12.0}{:>16.2}{:>16.2}{:>14.2}{:>18.2}{:>8.2}",
                run.per_second,
                run.redis_us,
                run.client_us,
                run.commands,
                figure.plain_redis_us,
                figure.redis_cpu_ratio
            )
        };
        format!(
            "{} events a run, median of {} runs in turns\n\n{:<14}{:>12}{:>16}{:>16}{:>14}{:>18}{:>8}{}",
            self.events,
            self.runs,
            "",
            "messages/s",
            "Redis µs/msg",
            "client µs/msg",
            "commands/msg",
            "plain Redis µs",
            "ratio",
            Path::ALL.iter().map(row).collect::<String>()
        )
    }
}
