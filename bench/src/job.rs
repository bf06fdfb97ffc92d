//! What the processes of a crew do, and in which way.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

/// What each process of a crew does.
#[derive(Clone)]
pub(super) struct Job {
    pub way: Way,
    pub streams: Vec<String>,
    pub concurrency: Option<usize>,
    pub lease: Option<Duration>,
    /// How long a handler waits, on average.
    pub wait: Option<Duration>,
    /// Every handler fails.
    pub fails: bool,
    pub path: Path,
    /// The events tell when they were due.
    pub due: bool,
    pub watch: Watch,
}

/// Who can watch the runtime work.
#[derive(Clone, Copy)]
pub(super) enum Watch {
    /// Nobody: it counts nothing.
    Off,
    /// Whoever reads its pulse, as by default.
    Pulse,
    /// Whoever asks for its metrics at this address, too.
    Metrics(SocketAddr),
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Path {
    /// It is acknowledged.
    Handled,
    /// It is committed, with one event emitted, a guarded counter and two writes.
    Committed,
    /// Its first attempt fails: it is parked, woken, handled and acknowledged.
    Retried,
    /// It is moved to the dead letters.
    Buried,
    /// It is claimed for its event, and that is noted as done.
    Deduplicated,
}

/// A way to work through a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Way {
    /// The runtime as its users run it, with all that is on by default.
    Streamhand,
    /// XREADGROUP COUNT 500, the ids moved out of the reply, one XACK; no handler.
    Bare,
    /// The same on a blocking socket.
    Blocking,
    /// The same, but one entry at a time.
    OneByOne,
}

impl Job {
    /// The runtime with a handler that does nothing.
    pub fn new(way: Way, streams: &[String]) -> Self {
        Job {
            way,
            streams: streams.to_vec(),
            concurrency: None,
            lease: None,
            wait: None,
            fails: false,
            path: Path::Handled,
            due: false,
            watch: Watch::Pulse,
        }
    }
}

impl Path {
    pub const ALL: [Path; 5] = [
        Path::Handled,
        Path::Committed,
        Path::Retried,
        Path::Buried,
        Path::Deduplicated,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Path::Handled => "handled",
            Path::Committed => "committed",
            Path::Retried => "retried",
            Path::Buried => "buried",
            Path::Deduplicated => "deduplicated",
        }
    }
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Streamhand => "streamhand",
            Way::Bare => "bare",
            Way::Blocking => "blocking",
            Way::OneByOne => "one-by-one",
        }
    }
}
