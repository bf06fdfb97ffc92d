//! A server of one's own, on a free port: not everybody can speak through a socket file.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::Result;

/// How long a server may take to answer its first connection.
const START: Duration = Duration::from_secs(10);

/// Killed, and its directory removed, when dropped.
pub struct PrivateServer {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl PrivateServer {
    /// Starts `program`, a `redis-server` or `valkey-server`, with nothing saved to disk.
    pub async fn start(program: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("peers-").tempdir()?;
        let port = free_port().await?;
        let child = Command::new(program)
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("can't start {}: {error}", program.display()))?;
        let mut server = PrivateServer {
            child,
            port,
            _dir: dir,
        };
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            if let Some(status) = server.child.try_wait()? {
                return Err(
                    format!("{} ended with {status}: is it a server?", program.display()).into(),
                );
            }
            if begun.elapsed() > START {
                return Err(
                    format!("{} did not answer within {START:?}", program.display()).into(),
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

async fn free_port() -> Result<u16> {
    Ok(tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await?
        .local_addr()?
        .port())
}

/// What a server says it is.
pub struct Version {
    /// `redis`, `valkey`.
    name: String,
    number: String,
}

impl Version {
    pub async fn of(url: &str) -> Result<Self> {
        let mut conn = redis::Client::open(url)?
            .get_multiplexed_async_connection()
            .await?;
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut conn)
            .await?;
        let field = |name: &str| {
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
        };
        let name = field("server_name").unwrap_or_else(|| "redis".to_owned());
        let number =
            field(&format!("{name}_version")).ok_or("INFO does not tell the server's version")?;
        Ok(Version { name, number })
    }

    pub fn is_redis_since(&self, major: u32, minor: u32) -> bool {
        let mut parts = self
            .number
            .split('.')
            .map_while(|part| part.parse::<u32>().ok());
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        self.name == "redis" && version >= (major, minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.number)
    }
}
