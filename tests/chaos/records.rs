//! What handlers say of their runs: lines of a file that all workers add to, so that a server that forgets, or a worker
//! that does not acknowledge, has no say in it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use streamhand::{Cancelled, Context};

use crate::support::monotonic;

/// Name the file, and the worker's life, to its process.
pub const FILE: &str = "STREAMHAND_TEST_RECORDS";
pub const LIFE: &str = "STREAMHAND_TEST_LIFE";

/// A line. Lines stand in the order in which they were written, whoever wrote them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// By [`monotonic`] time.
    pub at: u64,
    /// Which life of which worker.
    pub life: String,
    /// Which run of that life.
    pub run: u64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    Start {
        /// Its stream and its id.
        entry: String,
        event: String,
        event_type: String,
        attempt: u32,
        crash_check: bool,
    },
    End {
        how: How,
        /// Whether it was told by then that the worker stops.
        stopping: bool,
        /// Whether it was told by then that the entry is another worker's.
        lease_lost: bool,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Ok,
    Failed,
    Permanent,
    Later,
    Panicked,
    /// It was dropped before it came to an end.
    Dropped,
}

/// A run of a handler, which says how it ended, even where it is dropped.
pub struct Run {
    ctx: Context,
    run: u64,
    has_ended: bool,
}

impl Run {
    pub fn begin(ctx: &Context) -> Run {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let run = NEXT.fetch_add(1, Ordering::SeqCst);
        let envelope = ctx.envelope();
        write(
            run,
            What::Start {
                entry: format!("{}/{}", ctx.stream(), envelope.entry_id()),
                event: envelope.id().into_owned(),
                event_type: envelope.event_type().to_owned(),
                attempt: ctx.attempt(),
                crash_check: ctx.is_crash_check(),
            },
        );
        Run {
            ctx: ctx.clone(),
            run,
            has_ended: false,
        }
    }

    pub fn end(mut self, how: How) {
        self.ends(how);
    }

    fn ends(&mut self, how: How) {
        self.has_ended = true;
        let told = self.ctx.cancellation();
        write(
            self.run,
            What::End {
                how,
                stopping: told == Some(Cancelled::Stopping),
                lease_lost: told == Some(Cancelled::LeaseLost),
            },
        );
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.has_ended {
            let panics = std::thread::panicking();
            self.ends(if panics { How::Panicked } else { How::Dropped });
        }
    }
}

fn write(run: u64, what: What) {
    static TO: OnceLock<(File, String)> = OnceLock::new();
    let (file, life) = TO.get_or_init(|| {
        let path = std::env::var(FILE).expect("a file for the records");
        let file = OpenOptions::new().append(true).open(path);
        let life = std::env::var(LIFE).expect("the name of this life");
        (file.expect("the file for the records"), life)
    });
    let at = monotonic();
    let life = life.clone();
    let line = Line {
        at,
        life,
        run,
        what,
    };
    let mut line = serde_json::to_string(&line).expect("a line");
    line.push('\n');
    // One write: no other line comes in between, and a killed process leaves all of it or nothing.
    let mut file = file;
    let written = file.write(line.as_bytes()).expect("a line to be written");
    assert_eq!(written, line.len(), "a line is written in one piece");
}

/// All lines of the file.
pub fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).expect("the records");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect()
}
