//! A server of one's own, for a command that must not touch anybody's data: in a fresh directory, on a socket, gone
//! with the command.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::CommandError;

/// How long a server may take to answer its first connection.
const START: Duration = Duration::from_secs(10);

/// A private server; killed, and its directory removed, when dropped.
pub(super) struct PrivateServer {
    child: Child,
    dir: PathBuf,
}

impl PrivateServer {
    /// Starts `program`, a `redis-server` or `valkey-server`, with nothing saved to disk.
    pub async fn start(program: &Path) -> Result<Self, CommandError> {
        let dir = std::env::temp_dir().join(format!(
            "streamhand-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        ));
        let failed =
            |what: &str, error: std::io::Error| CommandError::failed(format!("{what}: {error}"));
        std::fs::create_dir(&dir)
            .map_err(|error| failed(&format!("can't make {}", dir.display()), error))?;
        let child = Command::new(program)
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--unixsocket",
            ])
            .arg(dir.join("redis.sock"))
            .arg("--dir")
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&format!("can't start {}", program.display()), error));
        let mut server = match child {
            Ok(child) => PrivateServer { child, dir },
            Err(error) => {
                let _ = std::fs::remove_dir_all(&dir);
                return Err(error);
            }
        };
        let begin = Instant::now();
        while tokio::net::UnixStream::connect(server.dir.join("redis.sock"))
            .await
            .is_err()
        {
            if let Ok(Some(status)) = server.child.try_wait() {
                let message = format!("{} ended with {status}: is it a server?", program.display());
                return Err(CommandError::failed(message));
            }
            if begin.elapsed() > START {
                let message = format!("{} did not answer within {START:?}", program.display());
                return Err(CommandError::failed(message));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("unix://{}", self.dir.join("redis.sock").display())
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
