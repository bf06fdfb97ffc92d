//! What every measurement stands on: a server, keys of its own on it, and a directory for its files. All of it goes
//! with it.

use std::collections::HashMap;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::job::{Job, Path as EntryPath, Watch};
use super::measure::{Meter, field};
use super::progress::Progress;
use streamhand::cli::CommandError;
use streamhand::cli::PrivateServer;
use streamhand::config::{RedisSettings, RedisUrl};

/// What the streams and the group of a rig are called, before what tells one rig from another.
const PREFIX: &str = "streamhand-bench";

/// Beyond every id.
const NEVER: &str = "18446744073709551615-18446744073709551615";

/// Where the groups of streams stand that are held.
pub(super) struct Held(Vec<(String, String)>);

/// A server, keys and files of one's own.
pub(super) struct Rig {
    pub redis: RedisSettings,
    pub meter: Meter,
    pub progress: Progress,
    /// What the server is: `redis 7.0.15`.
    pub server: String,
    pub files: Scratch,
    /// No other rig's. Everything is named by it, the group as well: what workers keep for their group goes with the rig,
    /// and two benches on one server have nothing in common.
    prefix: String,
    streams: u64,
    private: Option<PrivateServer>,
}

/// A directory for nobody else to see, removed when dropped.
pub(super) struct Scratch(PathBuf);

impl Rig {
    /// A rig on a server that is started for it, or else on the one of `redis`.
    pub async fn set_up(
        program: Option<&Path>,
        redis: RedisSettings,
        progress: Progress,
    ) -> Result<Self, CommandError> {
        let (private, redis) = match program {
            None => (None, redis),
            Some(program) => {
                let server = PrivateServer::start(program).await?;
                let url = RedisUrl::parse(&server.url())?;
                let redis = RedisSettings::new(url);
                (Some(server), redis)
            }
        };
        let mut meter = Meter::connect(&redis).await?;
        let info: String = meter.ask(redis::cmd("INFO").arg("server")).await?;
        Ok(Rig {
            redis,
            meter,
            progress,
            server: server_name(&info),
            files: Scratch::new()?,
            prefix: format!("{PREFIX}-{:08x}", fastrand::u32(..)),
            streams: 0,
            private,
        })
    }

    /// The process id of a server that was started for this.
    pub fn server_pid(&self) -> Option<u32> {
        self.private.as_ref()?.pid()
    }

    /// The group that works on every stream here.
    pub fn group(&self) -> &str {
        &self.prefix
    }

    /// What a worker of that group calls the connection it reads on.
    pub fn reader(&self) -> String {
        reader(&self.prefix)
    }

    /// The name of a stream that is not there yet. It goes with the rig, and all that belongs to it.
    pub fn stream(&mut self) -> String {
        self.streams += 1;
        format!("{}-{}", self.prefix, self.streams)
    }

    pub fn streams(&mut self, number: usize) -> Vec<String> {
        (0..number).map(|_| self.stream()).collect()
    }

    /// Makes the group of each of these streams, at its beginning.
    pub async fn make_groups(&mut self, streams: &[String]) -> Result<(), CommandError> {
        for stream in streams {
            let mut create = redis::cmd("XGROUP");
            create.arg("CREATE").arg(stream).arg(self.group()).arg("0");
            let () = self.meter.ask(create.arg("MKSTREAM")).await?;
        }
        Ok(())
    }

    /// Keeps everything on these streams from being delivered, so that workers can start and wait.
    pub async fn hold(&mut self, streams: &[String]) -> Result<Held, CommandError> {
        let mut begins = Vec::new();
        for stream in streams {
            let at = self.group_stands_at(stream).await?;
            let mut group = redis::cmd("XGROUP");
            let what = if at.is_some() { "SETID" } else { "CREATE" };
            group.arg(what).arg(stream).arg(self.group()).arg(NEVER);
            let () = self.meter.ask(&group).await?;
            begins.push((stream.clone(), at.unwrap_or_else(|| "0".to_owned())));
        }
        Ok(Held(begins))
    }

    /// Lets what was held be delivered, to these readers at once.
    pub async fn release(&mut self, held: Held, readers: &[i64]) -> Result<(), CommandError> {
        let mut pipe = redis::pipe();
        for (stream, at) in &held.0 {
            pipe.cmd("XGROUP").arg("SETID").arg(stream);
            pipe.arg(self.group()).arg(at).ignore();
        }
        for reader in readers {
            pipe.cmd("CLIENT").arg("UNBLOCK").arg(reader).ignore();
        }
        self.meter.ask_all(&pipe).await
    }

    /// The last id that the group of a stream has had, where there is such a group.
    async fn group_stands_at(&mut self, stream: &str) -> Result<Option<String>, CommandError> {
        let mut ask = redis::cmd("XINFO");
        let groups: Vec<HashMap<String, redis::Value>> =
            self.meter.ask(ask.arg("GROUPS").arg(stream)).await?;
        let text = |group: &HashMap<String, redis::Value>, name: &str| {
            let value = group.get(name)?.clone();
            redis::from_redis_value::<String>(value).ok()
        };
        let ours =
            |group: &&HashMap<_, _>| text(group, "name").is_some_and(|name| name == self.prefix);
        let ours = groups.iter().find(ours);
        Ok(ours.and_then(|group| text(group, "last-delivered-id")))
    }

    /// Deletes the group of a stream and everything that belongs to it: the next way through the stream must not pay
    /// for it.
    pub async fn drop_group(&mut self, stream: &str) -> Result<(), CommandError> {
        let mut destroy = redis::cmd("XGROUP");
        destroy.arg("DESTROY").arg(stream).arg(self.group());
        let _: i64 = self.meter.ask(&destroy).await?;
        self.delete(&format!("{{{stream}}}:*"), None).await?;
        Ok(())
    }

    /// Deletes these streams and everything that belongs to them.
    pub async fn drop_streams(&mut self, streams: &[String]) -> Result<(), CommandError> {
        for stream in streams {
            self.delete(&format!("{{{stream}}}:*"), Some(stream))
                .await?;
        }
        Ok(())
    }

    /// Deletes everything that was left on the server, until nothing more comes: what was cut off may have sent
    /// something that is still on its way.
    pub async fn clean_up(&mut self) -> Result<(), CommandError> {
        let pattern = format!("*{}*", self.prefix);
        while self.delete(&pattern, None).await? > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Deletes what has names of this kind and waits until the memory is free, which takes CPU as well. Answers how
    /// many there were.
    async fn delete(&mut self, pattern: &str, besides: Option<&str>) -> Result<u64, CommandError> {
        let mut deleted = 0;
        let mut keys: Vec<String> = besides.iter().map(|key| (*key).to_owned()).collect();
        let mut cursor = 0u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern);
            let (next, found): (u64, Vec<String>) =
                self.meter.ask(scan.arg("COUNT").arg(1000)).await?;
            keys.extend(found);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        for keys in keys.chunks(1000) {
            deleted += self
                .meter
                .ask::<u64>(redis::cmd("UNLINK").arg(keys))
                .await?;
        }
        let begun = Instant::now();
        loop {
            let info: String = self.meter.ask(redis::cmd("INFO").arg("memory")).await?;
            let pending = field(&info, "lazyfree_pending_objects").unwrap_or("0");
            // On a server in use there may always be some.
            if pending == "0" || begun.elapsed() > Duration::from_secs(10) {
                return Ok(deleted);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A configuration for processes that do `job`.
    pub fn configuration(&self, job: &Job) -> Result<PathBuf, CommandError> {
        let mut root = self.redis_table();
        let mut worker = toml::Table::new();
        worker.insert("group".to_owned(), self.group().into());
        worker.insert("streams".to_owned(), job.streams.clone().into());
        if let Some(concurrency) = job.concurrency {
            worker.insert("concurrency".to_owned(), (concurrency as i64).into());
        }
        if let Some(lease) = job.lease {
            let lease = humantime::format_duration(lease).to_string();
            worker.insert("lease".to_owned(), lease.into());
        }
        root.insert("worker".to_owned(), worker.into());
        if job.fails {
            // What fails stays away for longer than any measurement takes.
            let backoff = toml::toml! {
                initial = "24h"
                max = "24h"
            };
            let mut retry = toml::Table::new();
            retry.insert("backoff".to_owned(), backoff.into());
            root.insert("retry".to_owned(), retry.into());
        }
        if job.path == EntryPath::Retried {
            // At once, so that nothing but the path itself takes time.
            let backoff = toml::toml! {
                initial = "1ms"
                max = "1ms"
                jitter = 0.0
            };
            let mut retry = toml::Table::new();
            retry.insert("backoff".to_owned(), backoff.into());
            root.insert("retry".to_owned(), retry.into());
        }
        if job.path == EntryPath::Deduplicated {
            let defaults = toml::toml! { deduplicate = "1h" };
            root.insert("defaults".to_owned(), defaults.into());
        }
        match job.watch {
            Watch::Pulse => {}
            Watch::Off => {
                let off = toml::toml! { enabled = false };
                root.insert("pulse".to_owned(), off.into());
            }
            Watch::Metrics(at) => {
                let mut telemetry = toml::Table::new();
                telemetry.insert("listen".to_owned(), at.to_string().into());
                root.insert("telemetry".to_owned(), telemetry.into());
            }
        }
        self.files.write("worker.toml", &root.to_string())
    }

    /// A configuration that leads to the server, for a command of the program.
    pub fn client_configuration(&self) -> Result<PathBuf, CommandError> {
        self.files
            .write("client.toml", &self.redis_table().to_string())
    }

    fn redis_table(&self) -> toml::Table {
        let mut redis = toml::Table::new();
        redis.insert("url".to_owned(), self.redis.url.expose().into());
        if let Some(username) = &self.redis.username {
            redis.insert("username".to_owned(), username.clone().into());
        }
        if let Some(password) = &self.redis.password {
            redis.insert("password".to_owned(), password.expose().into());
        }
        let files = [
            ("tls_ca", &self.redis.tls_ca),
            ("tls_cert", &self.redis.tls_cert),
            ("tls_key", &self.redis.tls_key),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                let file = file.to_string_lossy().into_owned();
                redis.insert(name.to_owned(), file.into());
            }
        }
        toml::Table::from_iter([("redis".to_owned(), redis.into())])
    }
}

impl Scratch {
    fn new() -> Result<Self, CommandError> {
        let name = format!(
            "streamhand-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        );
        let dir = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|error| {
                CommandError::failed(format!("can't make {}: {error}", dir.display()))
            })?;
        Ok(Scratch(dir))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, CommandError> {
        use std::io::Write;
        let path = self.path(name);
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        match written {
            Ok(()) => Ok(path),
            Err(error) => Err(CommandError::failed(format!(
                "can't write {}: {error}",
                path.display()
            ))),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a worker of this group calls the connection it reads on.
pub(super) fn reader(group: &str) -> String {
    format!("streamhand:{group}:read")
}

/// Name and version out of `INFO server`. Valkey calls itself Redis as well.
fn server_name(info: &str) -> String {
    match field(info, "valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", field(info, "redis_version").unwrap_or("?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_called_by_its_own_name() {
        assert_eq!(server_name("redis_version:7.0.15\r\n"), "Redis 7.0.15");
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n";
        assert_eq!(server_name(valkey), "Valkey 9.1.2");
    }
}
