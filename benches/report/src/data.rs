//! What was measured, as it lies in the directory: a file a part. A part that was not measured is not there.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::machine::Machine;

/// What is measured, a part at a time.
const PARTS: [&str; 8] = [
    "throughput",
    "watched",
    "peers",
    "latency",
    "load",
    "scale",
    "publish",
    "eventstore",
];

pub struct Data {
    /// What each part was measured on, in the parts' order.
    pub machines: Vec<(&'static str, Machine)>,
    pub throughput: Option<Throughput>,
    pub watched: Option<Watched>,
    pub latency: Option<Latency>,
    pub load: Option<Load>,
    pub scale: Option<Scale>,
    pub publish: Option<Publish>,
    pub eventstore: Option<EventStore>,
    pub peers: Option<Peers>,
}

#[derive(Deserialize)]
pub struct Throughput {
    pub server: String,
    pub streamhand: String,
    pub events: u64,
    pub runs: u64,
    pub bare: Figures,
    pub runtime: Figures,
    pub throughput_ratio: f64,
    pub redis_cpu_ratio: f64,
    pub client_cpu_ratio: f64,
    pub redis_busy: f64,
}

#[derive(Deserialize)]
pub struct Watched {
    pub events: u64,
    pub runs: u64,
    pub unwatched: Figures,
    pub pulse: Figures,
    pub scraped: Figures,
    pub pulse_ratio: f64,
    pub scraped_ratio: f64,
    pub pulse_cpu_ratio: f64,
    pub scraped_cpu_ratio: f64,
}

/// Of a message.
#[derive(Deserialize)]
pub struct Figures {
    pub per_second: f64,
    pub redis_us: f64,
    pub client_us: f64,
    pub commands: f64,
    pub peak_mb: Option<f64>,
}

#[derive(Deserialize)]
pub struct Latency {
    pub seconds: f64,
    pub runs: u64,
    pub rates: Vec<Rate>,
    /// One of them once more, with publisher, server and worker wherever the kernel put them.
    pub anywhere: Option<Rate>,
}

#[derive(Deserialize)]
pub struct Rate {
    pub per_second: u64,
    pub bare: Percentiles,
    pub runtime: Percentiles,
    pub p50_ratio: f64,
    pub p99_ratio: f64,
    pub p50_more_us: f64,
    pub p99_more_us: f64,
    pub sent_late_p50_us: f64,
    pub sent_late_p99_us: f64,
    pub curves: Curves,
}

#[derive(Deserialize)]
pub struct Percentiles {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: Option<f64>,
}

/// Shares of the samples, and what they stay below in µs.
#[derive(Deserialize)]
pub struct Curves {
    pub bare: Vec<(f64, f64)>,
    pub runtime: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
pub struct Load {
    pub per_second: u64,
    pub seconds: f64,
    pub runs: u64,
    pub publisher_redis_us: f64,
    pub one_by_one: Way,
    pub bare: Way,
    pub runtime: Way,
    pub redis_cpu_ratio: f64,
    pub p99_ratio: f64,
    pub p99_more_us: f64,
}

#[derive(Deserialize)]
pub struct Way {
    pub redis_us: f64,
    pub client_us: f64,
    pub commands: f64,
    pub by_command: BTreeMap<String, f64>,
    pub kept_up: f64,
    pub latency: Percentiles,
}

#[derive(Deserialize)]
pub struct Scale {
    pub runs: u64,
    pub series: Vec<Series>,
    pub idle: Vec<Idle>,
}

#[derive(Deserialize)]
pub struct Series {
    pub name: String,
    pub about: String,
    pub same_work: bool,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    pub value: f64,
    pub figures: Figures,
    pub latency: Option<Percentiles>,
    pub redis_growth: f64,
    pub commands_growth: f64,
    pub memory_growth: Option<f64>,
    pub redis_to_bare: Option<f64>,
}

#[derive(Deserialize)]
pub struct Idle {
    pub name: String,
    pub redis_ms_per_second: f64,
    pub commands_per_second: f64,
    pub memory_mb: Option<f64>,
}

#[derive(Deserialize)]
pub struct Publish {
    pub events: u64,
    pub runs: u64,
    pub bare: Publishing,
    pub publish_many: Publishing,
    pub ndjson: Publishing,
    pub publish_many_ratio: f64,
    pub ndjson_ratio: f64,
}

#[derive(Deserialize)]
pub struct Publishing {
    pub per_second: f64,
    pub redis_us: f64,
    pub client_us: Option<f64>,
}

#[derive(Deserialize)]
pub struct EventStore {
    pub runs: u64,
    pub appends: u64,
    pub append: Vec<Append>,
    pub events: u64,
    pub load: Loading,
    pub updates: u64,
    pub update: Vec<Update>,
}

#[derive(Deserialize)]
pub struct Append {
    pub at_once: u64,
    pub bare: Rated,
    pub store: Rated,
    pub ratio: f64,
    pub redis_ratio: f64,
}

#[derive(Deserialize)]
pub struct Loading {
    pub bare: Rated,
    pub repository: Rated,
    pub ratio: f64,
}

/// By the event.
#[derive(Deserialize)]
pub struct Rated {
    pub per_second: f64,
    pub redis_us: f64,
    pub client_us: f64,
}

#[derive(Deserialize)]
pub struct Update {
    pub writers: u64,
    pub figures: Updates,
    pub ratio: f64,
}

#[derive(Deserialize)]
pub struct Updates {
    pub per_second: f64,
    pub conflicts: f64,
    pub gave_up: u64,
    pub latency: Percentiles,
}

#[derive(Deserialize)]
pub struct Peers {
    pub server: String,
    pub events: u64,
    pub peers: Vec<Peer>,
    #[serde(default)]
    pub skipped: Vec<Missing>,
    #[serde(default)]
    pub failed: Vec<Missing>,
}

#[derive(Deserialize)]
pub struct Peer {
    pub name: String,
    pub version: String,
    pub settings: String,
    pub per_second: f64,
    pub of_bare: Option<f64>,
    pub of_streamhand: Option<f64>,
    pub client_cpu_us: f64,
    pub redis_cpu_us: f64,
}

#[derive(Deserialize)]
pub struct Missing {
    pub name: String,
    pub reason: String,
}

impl Data {
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let data = Data {
            machines: machines(directory)?,
            throughput: part(directory, "throughput")?,
            watched: part(directory, "watched")?,
            latency: part(directory, "latency")?,
            load: part(directory, "load")?,
            scale: part(directory, "scale")?,
            publish: part(directory, "publish")?,
            eventstore: part(directory, "eventstore")?,
            peers: part(directory, "peers")?,
        };
        if data.is_empty() {
            return Err(format!("nothing was measured in {}", directory.display()).into());
        }
        Ok(data)
    }

    fn is_empty(&self) -> bool {
        self.throughput.is_none()
            && self.watched.is_none()
            && self.latency.is_none()
            && self.load.is_none()
            && self.scale.is_none()
            && self.publish.is_none()
            && self.eventstore.is_none()
            && self.peers.is_none()
    }
}

fn machines(directory: &Path) -> Result<Vec<(&'static str, Machine)>, Error> {
    let mut machines = Vec::new();
    for name in PARTS {
        if let Some(machine) = part(&directory.join("machines"), name)? {
            machines.push((name, machine));
        }
    }
    Ok(machines)
}

impl Peers {
    /// The fastest of those that are neither this project nor the loop it is measured against.
    pub fn fastest(&self) -> Option<&Peer> {
        let others = self.peers.iter();
        others
            .filter(|peer| !["streamhand", "bare"].contains(&&peer.name[..]))
            .max_by(|one, other| one.per_second.total_cmp(&other.per_second))
    }
}

fn part<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>, Error> {
    let path = directory.join(name).with_extension("json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display()).into()),
    };
    let read = serde_json::from_str(&text);
    Ok(Some(
        read.map_err(|error| format!("{}: {error}", path.display()))?,
    ))
}
