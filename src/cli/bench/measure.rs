//! What a run costs: time, Redis' CPU as Redis counts it, and this process's CPU as the system counts it.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use rustix::time::{ClockId, clock_gettime};

use crate::cli::CommandError;
use crate::config::RedisSettings;
use crate::stream::Connector;

/// Measures runs over a connection of its own.
pub(super) struct Meter {
    pub conn: MultiplexedConnection,
}

/// The costs of one run.
pub(super) struct Run {
    events: u64,
    wall: Duration,
    redis: Duration,
    client: Duration,
}

/// Where the clocks stood when a run began.
pub(super) struct Begun {
    at: Instant,
    redis: Duration,
    client: Duration,
}

impl Meter {
    pub async fn connect(settings: &RedisSettings) -> Result<Self, CommandError> {
        let link = Connector::new(settings)?
            .connect("streamhand:bench", Duration::from_secs(60))
            .await?;
        Ok(Meter {
            conn: link.into_inner(),
        })
    }

    pub async fn begin(&mut self) -> Result<Begun, CommandError> {
        Ok(Begun {
            redis: self.redis_cpu().await?,
            client: client_cpu(),
            at: Instant::now(),
        })
    }

    pub async fn end(&mut self, begun: Begun, events: u64) -> Result<Run, CommandError> {
        let (wall, client) = (begun.at.elapsed(), client_cpu() - begun.client);
        Ok(Run {
            events,
            wall,
            redis: self.redis_cpu().await? - begun.redis,
            client,
        })
    }

    /// Deletes what a run left behind.
    pub async fn clean_up(&mut self, stream: &str) -> Result<(), CommandError> {
        let mut keys = vec![stream.to_owned()];
        let mut cursor = 0u64;
        loop {
            let (next, found): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(format!("{{{stream}}}:*"))
                .arg("COUNT")
                .arg(1000)
                .query_async(&mut self.conn)
                .await
                .map_err(refused)?;
            keys.extend(found);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let mut unlink = redis::cmd("UNLINK");
        let _: i64 = unlink
            .arg(keys)
            .query_async(&mut self.conn)
            .await
            .map_err(refused)?;
        Ok(())
    }

    async fn redis_cpu(&mut self) -> Result<Duration, CommandError> {
        let info: String = redis::cmd("INFO")
            .arg("cpu")
            .query_async(&mut self.conn)
            .await
            .map_err(refused)?;
        let seconds = |name: &str| -> f64 {
            info.lines()
                .find_map(|line| {
                    line.strip_prefix(name)?
                        .strip_prefix(':')?
                        .trim()
                        .parse()
                        .ok()
                })
                .unwrap_or(0.0)
        };
        Ok(Duration::from_secs_f64(
            seconds("used_cpu_user") + seconds("used_cpu_sys"),
        ))
    }
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    pub fn redis_us(&self) -> f64 {
        self.redis.as_secs_f64() * 1e6 / self.events as f64
    }

    pub fn client_us(&self) -> f64 {
        self.client.as_secs_f64() * 1e6 / self.events as f64
    }

    pub fn redis_busy(&self) -> f64 {
        self.redis.as_secs_f64() / self.wall.as_secs_f64()
    }
}

pub(super) fn refused(error: redis::RedisError) -> CommandError {
    CommandError::failed(format!("the bench: {error}"))
}

fn client_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
