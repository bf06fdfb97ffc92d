//! What a run costs Redis: its CPU as Redis counts it, and the commands it got. The program's own questions and what
//! publishers send are left out of the commands.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue};
use rustix::time::{ClockId, clock_gettime};

use streamhand::cli::CommandError;
use streamhand::config::RedisSettings;
use streamhand::unstable::connect;
use streamhand::unstable::redacted;

/// What nobody but the measurement and the publishers says while something is measured.
const NOT_COUNTED: [&str; 2] = ["info", "xadd"];

/// Measures runs over a connection of its own.
pub(super) struct Meter {
    conn: MultiplexedConnection,
    /// What was asked here while something was measured, by the command's name.
    asked: BTreeMap<String, u64>,
}

/// Where the clocks and counters stood when a run began.
pub(super) struct Begun {
    at: Instant,
    redis: Duration,
    commands: BTreeMap<String, u64>,
}

/// What a run, or a part of one, cost.
#[derive(Clone, Debug, Default)]
pub(super) struct Cost {
    pub wall: Duration,
    pub redis: Duration,
    /// How often Redis executed each command, inside scripts too.
    pub commands: BTreeMap<String, u64>,
}

impl Meter {
    pub async fn connect(settings: &RedisSettings) -> Result<Self, CommandError> {
        let conn = connect(settings, "streamhand:bench", Duration::from_secs(60)).await?;
        Ok(Meter {
            conn,
            asked: BTreeMap::new(),
        })
    }

    /// Asks Redis something.
    pub async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, CommandError> {
        self.note(command);
        command.query_async(&mut self.conn).await.map_err(refused)
    }

    /// Asks the same of several streams.
    pub async fn ask_each<T: FromRedisValue>(
        &mut self,
        streams: &[String],
        question: impl Fn(&str) -> Cmd,
    ) -> Result<Vec<T>, CommandError> {
        let mut pipe = redis::Pipeline::with_capacity(streams.len());
        for stream in streams {
            let question = question(stream);
            self.note(&question);
            pipe.add_command(question);
        }
        pipe.query_async(&mut self.conn).await.map_err(refused)
    }

    /// Sends a pipeline nothing is to be known of but that it was done.
    pub async fn ask_all(&mut self, pipe: &redis::Pipeline) -> Result<(), CommandError> {
        for command in pipe.cmd_iter() {
            self.note(command);
        }
        pipe.query_async(&mut self.conn).await.map_err(refused)
    }

    fn note(&mut self, command: &Cmd) {
        let mut words = command.args_iter().filter_map(|arg| match arg {
            redis::Arg::Simple(word) => Some(String::from_utf8_lossy(word).to_lowercase()),
            _ => None,
        });
        // Since Redis 7 parts of a command are counted by themselves.
        let Some(name) = words.next() else { return };
        let part = words.next().map(|part| format!("{name}|{part}"));
        for name in part.into_iter().chain([name]) {
            *self.asked.entry(name).or_default() += 1;
        }
    }

    pub async fn begin(&mut self) -> Result<Begun, CommandError> {
        self.asked.clear();
        let (redis, commands) = self.counters().await?;
        Ok(Begun {
            redis,
            commands,
            at: Instant::now(),
        })
    }

    /// What has been spent since `begun`.
    pub async fn end(&mut self, begun: Begun) -> Result<Cost, CommandError> {
        let wall = begun.at.elapsed();
        let (redis, mut commands) = self.counters().await?;
        for before in [&begun.commands, &self.asked] {
            for (name, calls) in before {
                if let Some(counted) = commands.get_mut(name) {
                    *counted = counted.saturating_sub(*calls);
                }
            }
        }
        commands.retain(|name, calls| *calls > 0 && !NOT_COUNTED.contains(&&name[..]));
        Ok(Cost {
            wall,
            redis: redis.saturating_sub(begun.redis),
            commands,
        })
    }

    async fn counters(&mut self) -> Result<(Duration, BTreeMap<String, u64>), CommandError> {
        let (cpu, commands): (String, String) = redis::pipe()
            .cmd("INFO")
            .arg("cpu")
            .cmd("INFO")
            .arg("commandstats")
            .query_async(&mut self.conn)
            .await
            .map_err(refused)?;
        Ok((cpu_time(&cpu), calls(&commands)))
    }
}

impl Cost {
    pub fn redis_us(&self, events: u64) -> f64 {
        self.redis.as_secs_f64() * 1e6 / events as f64
    }

    pub fn commands(&self, events: u64) -> f64 {
        self.commands.values().sum::<u64>() as f64 / events as f64
    }

    /// How much of the time Redis was busy, from 0 to 1.
    pub fn redis_busy(&self) -> f64 {
        self.redis.as_secs_f64() / self.wall.as_secs_f64()
    }

    /// Each command's calls a message; those that hardly ever came are left out.
    pub fn by_command(&self, events: u64) -> BTreeMap<String, f64> {
        let calls = self.commands.iter();
        calls
            .map(|(name, calls)| (name.clone(), *calls as f64 / events as f64))
            .filter(|(_, calls)| *calls >= 0.000_1)
            .collect()
    }
}

/// The field `name` of an answer to INFO.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        Some(value.trim())
    })
}

fn cpu_time(info: &str) -> Duration {
    let seconds = |name| field(info, name).and_then(|value| value.parse().ok());
    let all = ["used_cpu_user", "used_cpu_sys"].map(|name| seconds(name).unwrap_or(0.0));
    Duration::from_secs_f64(all.iter().sum())
}

/// How often each command was called: `cmdstat_xack:calls=12,usec=…`.
fn calls(info: &str) -> BTreeMap<String, u64> {
    let command = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        Some((name.to_owned(), calls))
    };
    info.lines().filter_map(command).collect()
}

pub(super) fn refused(error: redis::RedisError) -> CommandError {
    let why = error.to_string();
    CommandError::failed(format!("the bench: {}", redacted(&why)))
}

/// The CPU time this process has used.
pub(super) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A clock that all processes of a machine share, in ns.
pub(super) fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What Linux says of a process in `/proc/<pid>/status`, in MiB; None where it does not.
pub(super) fn memory_mb(process: &str, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kib: f64 = field(&status, name)?
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_read_from_info() {
        let info =
            "# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_user:2.25\r\nused_cpu_user_children:9\r\n";
        assert_eq!(cpu_time(info), Duration::from_millis(3_750));
        let info = "# Commandstats\r\ncmdstat_xack:calls=12,usec=9\r\ncmdstat_xgroup|create:calls=1,usec=2\r\n";
        let wanted = [("xack".to_owned(), 12), ("xgroup|create".to_owned(), 1)];
        assert_eq!(calls(info), BTreeMap::from(wanted));
    }

    #[test]
    fn costs_are_told_by_the_message() {
        let cost = Cost {
            wall: Duration::from_secs(2),
            redis: Duration::from_secs(1),
            commands: BTreeMap::from([("xack".to_owned(), 3_000), ("rare".to_owned(), 1)]),
        };
        assert_eq!(cost.redis_us(1_000_000), 1.0);
        assert_eq!(cost.redis_busy(), 0.5);
        assert_eq!(cost.commands(1_500), 3_001.0 / 1_500.0);
        assert_eq!(
            cost.by_command(1_000_000),
            BTreeMap::from([("xack".to_owned(), 0.003)])
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_knows_its_memory() {
        assert!(memory_mb("self", "VmRSS").is_some_and(|mb| mb > 0.5 && mb < 10_000.0));
    }
}
