//! Redis, or each master of a cluster: its memory and what it does when that is full, what it keeps over a restart, and what it found slow.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::admin::ServerStatus;
use crate::config::Role;
use crate::web::app::App;
use crate::web::command::CommandLine;
use crate::web::filters;
use crate::web::problem::Problem;
use crate::web::route::{Route, Scope};
use crate::web::seen;
use crate::web::visit::{Frame, Visit};

pub(super) fn routes() -> Vec<Route> {
    vec![Route::page("/redis", (Role::View, Scope::Any), redis)]
}

#[derive(Template)]
#[template(path = "redis.html")]
struct RedisPage<'a> {
    frame: Frame,
    servers: Vec<Shown<'a>>,
    command: CommandLine,
}

struct Shown<'a> {
    /// What tells its headings from those of the others.
    place: usize,
    server: &'a ServerStatus,
    used: Option<String>,
    most: Option<String>,
    peak: Option<String>,
    per_cent: Option<u64>,
    snapshot_at: Option<String>,
    slow: Vec<Slow<'a>>,
}

struct Slow<'a> {
    at: String,
    took: String,
    what: &'a str,
    client: &'a str,
}

async fn redis(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    let servers = app.admin().servers().await?;
    let html = RedisPage {
        frame: visit.frame("Redis"),
        servers: servers.iter().enumerate().map(shown).collect(),
        command: CommandLine::new(["redis"]),
    };
    match &servers[..] {
        [one] => visit.page(one, html),
        masters => visit.page(&masters, html),
    }
}

fn shown((place, server): (usize, &ServerStatus)) -> Shown<'_> {
    let slow = server.slow.iter().map(|slow| Slow {
        at: seen::second(slow.at),
        took: crate::duration::rounded(slow.took.max(Duration::from_millis(1))).to_string(),
        what: &slow.what,
        client: &slow.client,
    });
    Shown {
        place,
        used: server.used_memory.map(bytes),
        most: server.max_memory.map(bytes),
        peak: server.peak_memory.map(bytes),
        per_cent: server.memory_used().map(|part| (part * 100.0) as u64),
        snapshot_at: server.snapshot_at.map(seen::second),
        slow: slow.collect(),
        server,
    }
}

/// `1.5 GiB`.
fn bytes(bytes: u64) -> String {
    let (mut number, mut unit) = (bytes as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if number < 1024.0 {
            break;
        }
        (number, unit) = (number / 1024.0, next);
    }
    match unit {
        "B" => format!("{bytes} B"),
        unit => format!("{number:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_the_largest_unit_that_fits() {
        let all = [0, 1023, 1024, 1_572_864, 3 << 30, 5 << 40].map(bytes);
        assert_eq!(
            all,
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "3.0 GiB", "5.0 TiB"]
        );
    }
}
