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
            due: false,
            watch: Watch::Pulse,
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
