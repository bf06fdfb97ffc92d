//! What a server is asked: each request as it comes, and how often each command was called, by scripts too.

use std::collections::HashMap;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use redis::aio::MultiplexedConnection;

use super::Server;

/// The requests that clients send, without what scripts call.
pub struct Requests {
    lines: BoxStream<'static, String>,
    redis: MultiplexedConnection,
    marks: u64,
}

impl Requests {
    /// Watches from now on.
    pub async fn of(server: &Server) -> Self {
        let client = redis::Client::open(server.url()).expect("an address");
        let monitor = client.get_async_monitor().await.expect("MONITOR");
        Requests {
            lines: monitor.into_on_message().boxed(),
            redis: server.connect().await,
            marks: 0,
        }
    }

    /// Those that came since it was asked last, as MONITOR shows them.
    pub async fn new_ones(&mut self) -> Vec<String> {
        self.marks += 1;
        let mark = format!("so far: {}", self.marks);
        let _: String = redis::cmd("ECHO")
            .arg(&mark)
            .query_async(&mut self.redis)
            .await
            .expect("ECHO");
        let mut seen = Vec::new();
        loop {
            let line = self.lines.next().await.expect("MONITOR goes on");
            if line.contains(&mark) {
                return seen;
            }
            if !line.contains(" lua] ") {
                seen.push(line);
            }
        }
    }
}

/// What a server says of each command since it was started or its statistics were reset.
pub struct CommandStats(HashMap<String, HashMap<String, f64>>);

impl CommandStats {
    pub async fn of(redis: &mut MultiplexedConnection) -> Self {
        let info: String = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(redis)
            .await
            .expect("INFO");
        let figure = |pair: &str| {
            let (name, figure) = pair.split_once('=')?;
            Some((name.to_owned(), figure.parse().ok()?))
        };
        let command = |line: &str| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            Some((
                name.to_owned(),
                figures.split(',').filter_map(figure).collect(),
            ))
        };
        CommandStats(info.lines().filter_map(command).collect())
    }

    /// How often this command was called.
    pub fn calls(&self, command: &str) -> u64 {
        self.figure(command, "calls") as u64
    }

    /// How long a call of it takes, in microseconds.
    pub fn usec_per_call(&self, command: &str) -> f64 {
        self.figure(command, "usec_per_call")
    }

    /// How often any was called, but for INFO, by which this is asked.
    pub fn all_calls(&self) -> u64 {
        let others = self.0.keys().filter(|name| *name != "info");
        others.map(|name| self.calls(name)).sum()
    }

    fn figure(&self, command: &str, name: &str) -> f64 {
        let figures = self.0.get(command);
        figures
            .and_then(|figures| figures.get(name))
            .copied()
            .unwrap_or(0.0)
    }
}
