//! What the measurements came to.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// The costs of one run, each in terms of a message but for the time it took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    pub seconds: f64,
    pub per_second: f64,
    pub client_cpu_us: f64,
    pub redis_cpu_us: f64,
    /// How much of the time Redis was busy, from 0 to 1; all its threads together.
    pub redis_busy: f64,
}

impl Figures {
    pub fn new(events: u64, wall: Duration, redis: Duration, client: Duration) -> Self {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / events as f64;
        Figures {
            seconds: wall.as_secs_f64(),
            per_second: events as f64 / wall.as_secs_f64(),
            client_cpu_us: each(client),
            redis_cpu_us: each(redis),
            redis_busy: redis.as_secs_f64() / wall.as_secs_f64(),
        }
    }
}

/// What `run` prints: figures, or why there are none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub name: String,
    pub version: String,
    pub events: u64,
    #[serde(flatten)]
    pub figures: Option<Figures>,
    pub settings: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// What `all` writes.
#[derive(Serialize)]
pub struct Report {
    pub server: String,
    pub events: u64,
    pub peers: Vec<Row>,
    pub skipped: Vec<Missing>,
    pub failed: Vec<Missing>,
    pub runs: Vec<Round>,
}

/// One run of every peer.
pub type Round = Vec<Outcome>;

/// Medians of one peer. A ratio is the median of the ratios within the rounds, since a machine changes between them.
#[derive(Serialize)]
pub struct Row {
    name: String,
    version: String,
    settings: String,
    runs: usize,
    per_second: f64,
    /// Throughput in terms of the bare loop's.
    of_bare: Option<f64>,
    /// Throughput in terms of streamhand's.
    of_streamhand: Option<f64>,
    client_cpu_us: f64,
    redis_cpu_us: f64,
    redis_busy: f64,
}

#[derive(Serialize)]
pub struct Missing {
    pub name: String,
    pub reason: String,
}

impl Report {
    pub fn new(server: String, events: u64, runs: Vec<Round>, failed: Vec<Missing>) -> Self {
        let mut skipped: Vec<Missing> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for outcome in runs.iter().flatten() {
            match &outcome.skipped {
                Some(reason) if skipped.iter().all(|missing| missing.name != outcome.name) => {
                    skipped.push(Missing {
                        name: outcome.name.clone(),
                        reason: reason.clone(),
                    })
                }
                None if !names.contains(&outcome.name.as_str()) => names.push(&outcome.name),
                _ => {}
            }
        }
        let mut peers: Vec<Row> = names
            .into_iter()
            .filter_map(|name| Row::of(name, &runs))
            .collect();
        peers.sort_by(|one, other| other.per_second.total_cmp(&one.per_second));
        Report {
            server,
            events,
            peers,
            skipped,
            failed,
            runs,
        }
    }

    pub fn print(&self) {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let head = [
            "",
            "version",
            "messages/s",
            "of bare",
            "of streamhand",
            "Redis µs",
            "client µs",
            "Redis busy",
        ];
        table.set_header(head);
        for row in &self.peers {
            let ratio =
                |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            table.add_row([
                row.name.clone(),
                row.version.clone(),
                format!("{:.0}", row.per_second),
                ratio(row.of_bare),
                ratio(row.of_streamhand),
                format!("{:.2}", row.redis_cpu_us),
                format!("{:.2}", row.client_cpu_us),
                format!("{:.0} %", row.redis_busy * 100.0),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!(
            "{}: {} events a run, medians of {} runs in turns\n",
            self.server,
            self.events,
            self.runs.len()
        );
        println!("{table}");
        for (what, missing) in [("skipped", &self.skipped), ("failed", &self.failed)] {
            for missing in missing {
                println!("\n{what}: {}: {}", missing.name, missing.reason);
            }
        }
        println!();
        for row in &self.peers {
            println!("{}: {}", row.name, row.settings);
        }
    }
}

impl Row {
    fn of(name: &str, runs: &[Round]) -> Option<Self> {
        let figures = |name: &str, round: &Round| {
            round
                .iter()
                .find(|outcome| outcome.name == name)?
                .figures
                .clone()
        };
        let own: Vec<Figures> = runs
            .iter()
            .filter_map(|round| figures(name, round))
            .collect();
        let outcome = runs.iter().flatten().find(|outcome| outcome.name == name)?;
        let of = |other: &str| {
            let ratio =
                |round| Some(figures(name, round)?.per_second / figures(other, round)?.per_second);
            median(runs.iter().filter_map(ratio).collect())
        };
        let median_of = |figure: fn(&Figures) -> f64| median(own.iter().map(figure).collect());
        Some(Row {
            name: name.to_owned(),
            version: outcome.version.clone(),
            settings: outcome.settings.clone(),
            runs: own.len(),
            per_second: median_of(|figures| figures.per_second)?,
            of_bare: of("bare"),
            of_streamhand: of("streamhand"),
            client_cpu_us: median_of(|figures| figures.client_cpu_us)?,
            redis_cpu_us: median_of(|figures| figures.redis_cpu_us)?,
            redis_busy: median_of(|figures| figures.redis_busy)?,
        })
    }
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => None,
        n if n % 2 == 1 => Some(figures[n / 2]),
        n => Some(f64::midpoint(figures[n / 2 - 1], figures[n / 2])),
    }
}
