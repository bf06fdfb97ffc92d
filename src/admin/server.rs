//! How the server itself is: memory and what it does when that is full, what it keeps over a restart, who is connected,
//! and which commands it found slow.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::Admin;
use crate::error::Result;
use crate::rfc3339;
use crate::stream::{Eviction, Risk, ServerSays};

/// From this part of its memory on, a server is short of it.
const NEARLY_FULL: f64 = 0.9;

/// How the server is, by [`Admin::servers`]. What it does not say is None.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Its address, without secrets.
    pub address: String,
    /// `Redis 7.0.15`, `Valkey 9.1.2`.
    pub software: String,
    /// `master` or `slave`, in its own words.
    pub role: Option<String>,
    /// How long it has been up.
    #[serde(serialize_with = "as_ms", rename = "up_ms")]
    pub up: Option<Duration>,
    /// Bytes it uses.
    pub used_memory: Option<u64>,
    /// The most it has used.
    pub peak_memory: Option<u64>,
    /// The most it may use; None where nothing limits it.
    pub max_memory: Option<u64>,
    /// Bytes that it has of the operating system, by those it uses.
    pub fragmentation: Option<f64>,
    /// What it does when its memory is full.
    pub maxmemory_policy: Option<String>,
    /// Keys it has deleted to make room, ever.
    pub evicted_keys: Option<u64>,
    /// Whether it writes an append-only file.
    pub append_only: Option<bool>,
    /// Whether the last write of that went well.
    pub append_only_ok: Option<bool>,
    /// Whether the last snapshot went well.
    pub snapshot_ok: Option<bool>,
    /// When the last one was made.
    #[serde(serialize_with = "as_some_time")]
    pub snapshot_at: Option<SystemTime>,
    /// Writes since then.
    pub changes_since_snapshot: Option<u64>,
    /// Clients that are connected.
    pub clients: Option<u64>,
    /// Those of them that wait for something.
    pub blocked_clients: Option<u64>,
    /// Commands a second, of late.
    pub commands_per_second: Option<u64>,
    /// Replicas that are connected to it.
    pub replicas: Option<u64>,
    /// The commands it found slow, the latest first.
    pub slow: Vec<SlowCommand>,
    /// Why it does not tell of those, where it does not.
    pub slow_unknown: Option<String>,
    /// What is wrong, and what would be right.
    pub warnings: Vec<String>,
}

/// A command that the server found slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SlowCommand {
    /// When, by the server's clock.
    #[serde(serialize_with = "as_time")]
    pub at: SystemTime,
    /// How long the server was busy with it.
    #[serde(serialize_with = "as_us", rename = "took_us")]
    pub took: Duration,
    /// The command and its first key; of a script of ours its name.
    pub what: String,
    /// Who sent it, by address.
    pub client: String,
}

impl Admin {
    /// How the server itself is, or each master of a cluster. Costs two commands at each. Of a master that can't be
    /// reached there is its address, and why under `warnings`; its software is `unreachable`.
    ///
    /// # Errors
    /// If Redis can't be reached, or its ACL has no INFO for this user. That SLOWLOG is refused is no error.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// for server in admin.servers().await? {
    ///     for warning in server.warnings {
    ///         println!("{}: {warning}", server.address);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn servers(&self) -> Result<Vec<ServerStatus>> {
        let says = self.pool.servers().await?;
        let status = |says: std::result::Result<_, (String, crate::Error)>| match says {
            Ok(says) => ServerStatus::of(says),
            Err((address, error)) => ServerStatus {
                address,
                software: "unreachable".to_owned(),
                warnings: vec![error.to_string()],
                ..ServerStatus::default()
            },
        };
        Ok(says.into_iter().map(status).collect())
    }
}

impl ServerStatus {
    fn of(says: ServerSays) -> Self {
        let text = |name: &str| says.info.get(name).cloned();
        let number = |name: &str| {
            says.info
                .get(name)
                .and_then(|value| value.parse::<u64>().ok())
        };
        let is = |name: &str, right: &str| says.info.get(name).map(|value| value == right);
        let software = match text("valkey_version") {
            Some(version) => format!("Valkey {version}"),
            None => format!("Redis {}", text("redis_version").unwrap_or_default()),
        };
        let mut status = ServerStatus {
            address: says.address.clone(),
            software,
            role: text("role"),
            up: number("uptime_in_seconds").map(Duration::from_secs),
            used_memory: number("used_memory"),
            peak_memory: number("used_memory_peak"),
            max_memory: number("maxmemory").filter(|most| *most > 0),
            fragmentation: says
                .info
                .get("mem_fragmentation_ratio")
                .and_then(|ratio| ratio.parse().ok()),
            maxmemory_policy: text("maxmemory_policy"),
            evicted_keys: number("evicted_keys"),
            append_only: is("aof_enabled", "1"),
            append_only_ok: is("aof_last_write_status", "ok"),
            snapshot_ok: is("rdb_last_bgsave_status", "ok"),
            snapshot_at: number("rdb_last_save_time").map(|s| UNIX_EPOCH + Duration::from_secs(s)),
            changes_since_snapshot: number("rdb_changes_since_last_save"),
            clients: number("connected_clients"),
            blocked_clients: number("blocked_clients"),
            commands_per_second: number("instantaneous_ops_per_sec"),
            replicas: number("connected_slaves"),
            slow: Vec::new(),
            slow_unknown: None,
            warnings: Vec::new(),
        };
        match says.slow {
            Ok(slow) => {
                let one = |slow: crate::stream::Slow| SlowCommand {
                    at: UNIX_EPOCH + Duration::from_secs(slow.at_s),
                    took: Duration::from_micros(slow.took_us),
                    what: slow.what,
                    client: slow.client,
                };
                status.slow = slow.into_iter().map(one).collect();
            }
            Err(why) => status.slow_unknown = Some(why),
        }
        status.warnings = status.warn();
        status
    }

    /// The part of its memory that it uses, from 0 to 1; None where nothing limits it.
    pub fn memory_used(&self) -> Option<f64> {
        Some(self.used_memory? as f64 / self.max_memory? as f64)
    }

    /// Whether a server that may use so much memory is short of it.
    pub(crate) fn is_nearly_full(used: u64, most: u64) -> bool {
        used as f64 >= most as f64 * NEARLY_FULL
    }

    fn warn(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let policy = self.maxmemory_policy.clone();
        if let Some(Risk { what, cost, mend }) =
            policy.and_then(|policy| Eviction::By(policy).risk())
        {
            warnings.push(format!("{what}: {cost}; {mend}"));
        }
        if let Some(evicted) = self.evicted_keys.filter(|evicted| *evicted > 0) {
            warnings.push(format!(
                "the server has deleted {evicted} keys to make room: what they held is lost"
            ));
        }
        if let (Some(used), Some(most)) = (self.used_memory, self.max_memory)
            && Self::is_nearly_full(used, most)
        {
            warnings.push(format!(
                "{:.0} % of the memory that the server may use is used: when it is full, nothing is published or buried",
                used as f64 / most as f64 * 100.0
            ));
        }
        if self.append_only == Some(false) {
            warnings.push(
                "there is no append-only file: a crash of the server loses all since its last snapshot; set appendonly yes"
                    .to_owned(),
            );
        }
        if self.append_only == Some(true) && self.append_only_ok == Some(false) {
            warnings.push(
                "the last write of the append-only file failed: look at the server's disk and log"
                    .to_owned(),
            );
        }
        if self.snapshot_ok == Some(false) {
            warnings.push("the last snapshot failed: look at the server's disk and log".to_owned());
        }
        warnings
    }
}

fn as_time<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&rfc3339::seconds(*time))
}

fn as_some_time<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => as_time(time, to),
        None => to.serialize_none(),
    }
}

fn as_ms<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    super::in_ms(duration, to)
}

fn as_us<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(duration.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(info: &str) -> ServerStatus {
        let info = info.lines().filter_map(|line| line.split_once(':'));
        ServerStatus::of(ServerSays {
            info: info
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            slow: Err("NOPERM".to_owned()),
            address: "localhost:6379".to_owned(),
        })
    }

    #[test]
    fn what_puts_events_at_risk_is_warned_of_and_nothing_else() {
        let sound = "redis_version:7.4.1\nmaxmemory:1000\nused_memory:500\nmaxmemory_policy:noeviction\naof_enabled:1\n\
            aof_last_write_status:ok\nrdb_last_bgsave_status:ok\nevicted_keys:0";
        let status = of(sound);
        assert_eq!(
            (&status.software[..], &status.warnings[..]),
            ("Redis 7.4.1", &[][..])
        );
        assert_eq!(
            (status.memory_used(), status.slow_unknown.as_deref()),
            (Some(0.5), Some("NOPERM"))
        );
        let risky = "valkey_version:9.1.2\nredis_version:7.2.4\nmaxmemory:1000\nused_memory:950\nmaxmemory_policy:allkeys-lru\n\
            aof_enabled:0\nrdb_last_bgsave_status:err\nevicted_keys:7";
        let status = of(risky);
        assert_eq!(status.software, "Valkey 9.1.2");
        let told = status.warnings.join("\n");
        for expected in [
            "allkeys-lru",
            "7 keys",
            "95 %",
            "append-only",
            "snapshot failed",
        ] {
            assert!(told.contains(expected), "{expected}: {told}");
        }
        assert_eq!(of("redis_version:7.0.0").warnings, Vec::<String>::new());
    }
}
