//! What `top` knows, and what keys do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::lints::{self, Lint};
use crate::admin::{Fleet, FleetWorker, Status, StreamStatus};
use crate::metrics::histogram::Histogram;
use crate::metrics::snapshot::Snapshot;
use crate::metrics::table::Id;
use crate::partition::Partition;
use crate::pulse::fleet;
use crate::pulse::live::Recent;
use crate::pulse::slot::Came;

/// Rates are of so many seconds: a worker that has not heard yet that somebody looks pulses every ten.
const WINDOW: Duration = Duration::from_secs(12);
/// What durations and lints are of.
const LONGER: Duration = Duration::from_secs(60);

/// What a key came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    Nothing,
    Quit,
}

/// What types are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Rate,
    Failures,
    Slowest,
    Name,
}

impl Sort {
    pub fn name(self) -> &'static str {
        match self {
            Sort::Rate => "rate",
            Sort::Failures => "failures",
            Sort::Slowest => "p99",
            Sort::Name => "name",
        }
    }

    fn next(self) -> Self {
        match self {
            Sort::Rate => Sort::Failures,
            Sort::Failures => Sort::Slowest,
            Sort::Slowest => Sort::Name,
            Sort::Name => Sort::Rate,
        }
    }
}

/// A group as it is known.
pub(super) struct App {
    group: String,
    streams: Vec<String>,
    known: fleet::Fleet,
    recent: Recent,
    began_ms: u64,
    /// The shortest margins of leases that each worker told of last, in seconds.
    margins: BTreeMap<String, f64>,
    /// The server's time when it was last heard of, and ours then.
    now: (SystemTime, Instant),
    pub shown: Shown,
    pub sort: Sort,
    pub is_reversed: bool,
    pub is_paused: bool,
    pub has_help: bool,
    /// The partitions of a topic are listed below it.
    pub has_partitions: bool,
    /// How many workers are scrolled past.
    pub scrolled: usize,
    pub trouble: Option<String>,
    changed: bool,
    statuses: Vec<StreamStatus>,
}

/// What is shown: as it was, while it is paused.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub group: String,
    pub now: SystemTime,
    pub streams: Vec<StreamRow>,
    pub types: Vec<TypeRow>,
    pub workers: Vec<WorkerRow>,
    /// Entries a second: delivered, done, retried, dead.
    pub rates: [f64; 4],
    pub there: usize,
}

#[derive(Clone, Debug)]
pub(super) struct StreamRow {
    pub name: String,
    pub lag: String,
    pub pending: u64,
    pub parked: u64,
    pub dead: u64,
    pub oldest: Option<Duration>,
    pub lints: Vec<Lint>,
}

#[derive(Clone, Debug)]
pub(super) struct TypeRow {
    pub name: String,
    /// A second: done, retried or released, dead.
    pub done: f64,
    pub retried: f64,
    pub dead: f64,
    pub durations: Histogram,
    pub lints: Vec<Lint>,
}

#[derive(Clone, Debug)]
pub(super) struct WorkerRow {
    pub worker: FleetWorker,
    pub lints: Vec<Lint>,
}

impl App {
    pub fn new(status: &Status, known: fleet::Fleet, now: SystemTime) -> Self {
        let mut app = App {
            group: status.group.clone(),
            streams: Vec::new(),
            known,
            recent: Recent::new(LONGER.as_secs() as usize + 5),
            began_ms: ms(now),
            margins: BTreeMap::new(),
            now: (now, Instant::now()),
            shown: Shown {
                group: status.group.clone(),
                now,
                streams: Vec::new(),
                types: Vec::new(),
                workers: Vec::new(),
                rates: [0.0; 4],
                there: 0,
            },
            sort: Sort::default(),
            is_reversed: false,
            is_paused: false,
            has_help: false,
            has_partitions: false,
            scrolled: 0,
            trouble: None,
            changed: true,
            statuses: Vec::new(),
        };
        app.looked(status, now);
        app
    }

    /// One that shows this, and stays so.
    #[cfg(test)]
    pub fn showing(shown: Shown) -> Self {
        App {
            group: shown.group.clone(),
            streams: Vec::new(),
            known: fleet::Fleet::default(),
            recent: Recent::new(1),
            began_ms: 0,
            margins: BTreeMap::new(),
            now: (shown.now, Instant::now()),
            shown,
            sort: Sort::default(),
            is_reversed: false,
            is_paused: true,
            has_help: false,
            has_partitions: false,
            scrolled: 0,
            trouble: None,
            changed: false,
            statuses: Vec::new(),
        }
    }

    /// A pulse came.
    pub fn heard(&mut self, came: &Came) {
        self.known.heard(came);
        self.recent.take(came);
        if let Ok(pulse) = &came.pulse {
            let margins = pulse.counted.histogram(Id::LeaseMargin, &[]);
            if let Some(least) = margins.quantile(0.0) {
                self.margins.insert(came.worker.clone(), least);
            }
        }
        self.update();
    }

    /// The status was looked at.
    pub fn looked(&mut self, status: &Status, now: SystemTime) {
        self.now = (now, Instant::now());
        self.trouble = status
            .in_trouble
            .first()
            .map(|trouble| format!("{}: {}", trouble.stream, trouble.error));
        self.statuses = status.streams.clone();
        // A topic may have grown.
        let streams = status.streams.iter().map(|of| of.stream.clone());
        let in_trouble = status.in_trouble.iter().map(|of| of.stream.clone());
        self.streams = streams.chain(in_trouble).collect();
        self.update();
    }

    /// It could not be looked at.
    pub fn trouble(&mut self, text: String) {
        self.trouble = Some(text);
        self.changed = true;
    }

    /// Whether it is to be drawn before long.
    pub fn has_changed(&mut self) -> bool {
        if !self.is_paused {
            // Ages go on.
            self.shown.now = self.now.0 + self.now.1.elapsed();
        }
        std::mem::take(&mut self.changed)
    }

    pub fn pressed(&mut self, key: KeyEvent) -> Pressed {
        self.changed = true;
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if is_control => return Pressed::Quit,
            KeyCode::Char('q') => return Pressed::Quit,
            KeyCode::Esc if !self.has_help => return Pressed::Quit,
            KeyCode::Esc => self.has_help = false,
            KeyCode::Char('?' | 'h') => self.has_help = !self.has_help,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('t') => {
                self.has_partitions = !self.has_partitions;
                self.update();
            }
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Down | KeyCode::Char('j') => self.scrolled += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            _ => {}
        }
        let most = self.shown.workers.len().saturating_sub(1);
        self.scrolled = self.scrolled.min(most);
        self.sort_types();
        self.update();
        Pressed::Nothing
    }

    /// What is known is what is shown from now on, unless it is paused.
    fn update(&mut self) {
        if self.is_paused {
            return;
        }
        let now = self.now.0 + self.now.1.elapsed();
        let fleet = Fleet::of(&self.group, &self.streams, &self.known, now);
        let (short, seconds) = self.last(now, WINDOW);
        let (long, _) = self.last(now, LONGER);
        let total = |outcomes: &[&str], of: &str| outcomes_of(&short, outcomes, of) / seconds;
        self.shown = Shown {
            group: self.group.clone(),
            now,
            streams: streams(&self.statuses, &fleet, self.has_partitions),
            types: types(&short, &long, seconds, &fleet),
            workers: fleet.there().map(|worker| self.worker(worker)).collect(),
            rates: [
                short.total(Id::Delivered, &[]) / seconds,
                total(DONE, ""),
                total(RETRIED, ""),
                total(DEAD, ""),
            ],
            there: fleet.there().count(),
        };
        self.sort_types();
        self.changed = true;
    }

    /// What was counted in the last while, and how many seconds that is.
    fn last(&self, now: SystemTime, window: Duration) -> (Snapshot, f64) {
        let (now, window) = (ms(now), window.as_millis() as u64);
        let from = now.saturating_sub(window);
        let mut all = Snapshot::default();
        for second in self.recent.seconds().filter(|second| second.at_ms >= from) {
            all.merge(&second.counted);
        }
        let since = now.saturating_sub(from.max(self.began_ms)).max(1000);
        (all, since as f64 / 1000.0)
    }

    fn worker(&self, worker: &FleetWorker) -> WorkerRow {
        let margin = self.margins.get(&worker.name).copied();
        WorkerRow {
            worker: worker.clone(),
            lints: lints::of_worker(worker, margin),
        }
    }

    fn sort_types(&mut self) {
        let slowest = |row: &TypeRow| row.durations.quantile(0.99).unwrap_or(0.0);
        let types = &mut self.shown.types;
        types.sort_by(|a, b| a.name.cmp(&b.name));
        match self.sort {
            Sort::Name => {}
            Sort::Rate => types.sort_by(|a, b| b.done.total_cmp(&a.done)),
            Sort::Failures => {
                types.sort_by(|a, b| (b.dead + b.retried).total_cmp(&(a.dead + a.retried)));
            }
            Sort::Slowest => types.sort_by(|a, b| slowest(b).total_cmp(&slowest(a))),
        }
        if self.is_reversed {
            types.reverse();
        }
    }
}

const DONE: &[&str] = &["acked", "committed"];
const RETRIED: &[&str] = &["retried", "released"];
const DEAD: &[&str] = &["dead"];

/// How many were settled so, of a type or of all.
fn outcomes_of(counted: &Snapshot, outcomes: &[&str], of: &str) -> f64 {
    let count = |outcome: &&str| match of {
        "" => counted.total(Id::Settled, &[("outcome", outcome)]),
        of => counted.total(Id::Settled, &[("type", of), ("outcome", outcome)]),
    };
    outcomes.iter().map(count).sum()
}

/// The types that workers handle, or that anything was counted of.
fn types(short: &Snapshot, long: &Snapshot, seconds: f64, fleet: &Fleet) -> Vec<TypeRow> {
    let place = Id::Settled
        .metric()
        .labels
        .iter()
        .position(|name| *name == "type");
    let counted = long.iter().filter(|(id, ..)| *id == Id::Settled);
    let counted = counted.filter_map(|(_, labels, _)| Some(labels[place?].to_string()));
    let handled = fleet
        .there()
        .flat_map(|worker| worker.types.iter().cloned());
    let mut names: Vec<String> = counted.chain(handled).collect();
    names.sort();
    names.dedup();
    let row = |name: String| {
        let rate = |outcomes| outcomes_of(short, outcomes, &name) / seconds;
        let of_long = |outcomes| outcomes_of(long, outcomes, &name);
        TypeRow {
            done: rate(DONE),
            retried: rate(RETRIED),
            dead: rate(DEAD),
            durations: long.histogram(Id::ProcessDuration, &[("type", &name)]),
            lints: lints::of_type(of_long(DONE), of_long(RETRIED), of_long(DEAD)),
            name,
        }
    };
    names.into_iter().map(row).collect()
}

/// A row of each stream; those of a topic are one, with each of them below it if they are wanted.
fn streams(statuses: &[StreamStatus], fleet: &Fleet, with_partitions: bool) -> Vec<StreamRow> {
    let topic_of = |status: &StreamStatus| {
        Partition::parse(&status.stream).map(|partition| partition.topic.to_owned())
    };
    let (mut rows, mut known) = (Vec::new(), Vec::new());
    for status in statuses {
        let Some(topic) = topic_of(status) else {
            rows.push(stream(status, fleet));
            continue;
        };
        if known.contains(&topic) {
            continue;
        }
        let of = statuses
            .iter()
            .filter(|other| topic_of(other).as_ref() == Some(&topic));
        let of: Vec<StreamRow> = of.map(|status| stream(status, fleet)).collect();
        rows.push(whole(&topic, &of));
        if with_partitions {
            rows.extend(of.into_iter().map(|row| StreamRow {
                name: format!("  {}", row.name),
                ..row
            }));
        }
        known.push(topic);
    }
    rows
}

/// What the partitions of a topic come to together.
fn whole(topic: &str, of: &[StreamRow]) -> StreamRow {
    let lags = of
        .iter()
        .map(|row| row.lag.trim_end_matches('+').parse::<u64>());
    let lag: Option<Vec<u64>> = lags.map(Result::ok).collect();
    let more = if of.iter().any(|row| row.lag.ends_with('+')) {
        "+"
    } else {
        ""
    };
    let mut lints: Vec<Lint> = Vec::new();
    for lint in of.iter().flat_map(|row| &row.lints) {
        if !lints.iter().any(|known| known.text == lint.text) {
            lints.push(lint.clone());
        }
    }
    StreamRow {
        name: format!("{topic} ({} partitions)", of.len()),
        lag: lag.map_or_else(
            || "-".to_owned(),
            |lag| format!("{}{more}", lag.iter().sum::<u64>()),
        ),
        pending: of.iter().map(|row| row.pending).sum(),
        parked: of.iter().map(|row| row.parked).sum(),
        dead: of.iter().map(|row| row.dead).sum(),
        oldest: of.iter().filter_map(|row| row.oldest).max(),
        lints,
    }
}

fn stream(status: &StreamStatus, fleet: &Fleet) -> StreamRow {
    let group = status.group.as_ref();
    StreamRow {
        name: status.stream.clone(),
        lag: group.map_or_else(
            || "-".to_owned(),
            |group| match group.lag {
                Some(lag) => lag.to_string(),
                None => format!("{}+", group.lag_at_least),
            },
        ),
        pending: group.map_or(0, |group| group.pending.saturating_sub(status.parked)),
        parked: status.parked,
        dead: status.dead,
        oldest: group.and_then(|group| group.oldest_pending_age),
        lints: lints::of_stream(status, fleet),
    }
}

fn ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::StreamTrouble;

    #[test]
    fn what_a_topic_has_grown_to_is_looked_at() {
        let trouble = |stream: &&str| StreamTrouble {
            stream: (*stream).to_owned(),
            error: "it is away".to_owned(),
        };
        let of = |streams: &[&str]| Status {
            limits: Vec::new(),
            group: "fulfilment".to_owned(),
            streams: Vec::new(),
            topics: Vec::new(),
            in_trouble: streams.iter().map(trouble).collect(),
            projections: Vec::new(),
            maxmemory_policy: None,
            evicts: None,
            eviction_warning: None,
        };
        let now = SystemTime::now();
        let mut app = App::new(&of(&["{orders:0}"]), fleet::Fleet::default(), now);
        app.looked(&of(&["{orders:0}", "{orders:2.0}"]), now);
        assert_eq!(app.streams, ["{orders:0}", "{orders:2.0}"]);
    }

    #[test]
    fn the_partitions_of_a_topic_are_added_up() {
        let row = |lag: &str, pending, oldest| StreamRow {
            name: String::new(),
            lag: lag.to_owned(),
            pending,
            parked: 1,
            dead: 2,
            oldest: Some(Duration::from_secs(oldest)),
            lints: Vec::new(),
        };
        let all = whole("orders", &[row("3", 1, 5), row("4+", 2, 9)]);
        assert_eq!(
            (&all.name[..], &all.lag[..]),
            ("orders (2 partitions)", "7+")
        );
        assert_eq!((all.pending, all.parked, all.dead), (3, 2, 4));
        assert_eq!(all.oldest, Some(Duration::from_secs(9)));
        assert_eq!(whole("orders", &[row("3", 1, 5), row("-", 0, 0)]).lag, "-");
    }
}
