//! How the workers are set up, and what follows from that for an event of each type.

use std::time::Duration;

pub const LEASE: Duration = Duration::from_secs(2);
pub const DRAIN: Duration = Duration::from_secs(1);
/// Handlers at once in one worker.
pub const CONCURRENCY: usize = 12;
/// Attempts where a type has no others.
const MOST_ATTEMPTS: u32 = 8;

pub const STREAMS: [&str; 2] = ["jobs", "more"];
pub const GROUP: &str = "workers";
/// Where handlers emit to.
pub const DONE: &str = "done";
/// Where effects count.
pub const COUNTED: &str = "counted";

/// The configuration of a worker that reaches Redis there.
pub fn config(url: &str) -> String {
    format!(
        r#"
[redis]
url = "{url}"
[worker]
group = "{GROUP}"
streams = {STREAMS:?}
lease = "{}s"
drain = "{}s"
concurrency = {CONCURRENCY}
prefetch = 60
unhandled_after = "2s"
[retry]
max_attempts = {MOST_ATTEMPTS}
backoff = {{ initial = "100ms", factor = 1.5, max = "1s", jitter = 0.2 }}
[defaults]
timeout = "20s"
[handlers."chaos.hopeless"]
max_attempts = 3
[handlers."chaos.killer"]
max_attempts = 2
[handlers."chaos.hangs"]
timeout = "300ms"
grace = "100ms"
[handlers."chaos.rated"]
rate = "5/s"
rate_scope = "group"
[handlers."chaos.narrow"]
concurrency = 2
[handlers."chaos.once"]
deduplicate = "1h"
[handlers."chaos.single"]
max_attempts = 1
on_crash = "bury"
[handlers."chaos.breaker"]
circuit_breaker = {{ failures = 3, open_for = "500ms" }}
"#,
        LEASE.as_secs(),
        DRAIN.as_secs(),
    )
}

/// Every type that has a handler.
pub const TYPES: [&str; 14] = [
    "chaos.plain",
    "chaos.slow",
    "chaos.flaky",
    "chaos.hopeless",
    "chaos.permanent",
    "chaos.panics",
    "chaos.hangs",
    "chaos.later",
    "chaos.rated",
    "chaos.narrow",
    "chaos.once",
    "chaos.single",
    "chaos.commits",
    "chaos.breaker",
];

/// And the one that kills.
pub const KILLER: &str = "chaos.killer";

/// One that cannot be read.
pub const MALFORMED: &str = "chaos.malformed";

/// What holds for the events of a type.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub max_attempts: u32,
    /// Whether a death in the last attempt ends it.
    pub bury_on_crash: bool,
    /// Whether one event is handled once, whatever entries it has.
    pub deduplicates: bool,
    /// Runs at once in one worker.
    pub concurrency: usize,
    /// Why an event of this type may be buried.
    pub reasons: &'static [&'static str],
    /// Whether it has to be buried, come what may.
    pub always_dies: bool,
}

pub fn of(event_type: &str) -> Rules {
    // Whoever is struck again and again uses all attempts up.
    let usual = Rules {
        max_attempts: MOST_ATTEMPTS,
        bury_on_crash: false,
        deduplicates: false,
        concurrency: CONCURRENCY,
        reasons: &["failed", "crashed"],
        always_dies: false,
    };
    match event_type {
        "chaos.hopeless" => Rules {
            max_attempts: 3,
            always_dies: true,
            ..usual
        },
        "chaos.killer" => Rules {
            max_attempts: 2,
            reasons: &["crashed"],
            always_dies: true,
            ..usual
        },
        "chaos.permanent" => Rules {
            reasons: &["permanent", "crashed"],
            always_dies: true,
            ..usual
        },
        "chaos.narrow" => Rules {
            concurrency: 2,
            ..usual
        },
        "chaos.once" => Rules {
            deduplicates: true,
            ..usual
        },
        "chaos.single" => Rules {
            max_attempts: 1,
            bury_on_crash: true,
            ..usual
        },
        "chaos.unknown" => Rules {
            reasons: &["unhandled"],
            always_dies: true,
            ..usual
        },
        "chaos.malformed" => Rules {
            reasons: &["undecodable"],
            always_dies: true,
            ..usual
        },
        _ => usual,
    }
}
