//! A server of one's own, for a command or a test that must not touch anybody's data: in a fresh directory, on a socket,
//! gone with the process, however that ends.
//!
//! A process that is killed drops nothing. So a small shell, the janitor, reads from a pipe that it never gets
//! anything from: when the pipe ends, this process has, and the janitor takes away what it has left.

use std::fmt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer its first connection.
const START: Duration = Duration::from_secs(10);

/// The longest path a socket can have, where it is shortest (macOS).
const LONGEST_SOCKET: usize = 103;

/// Waits for the end of its input; then removes the directory and kills its process group, itself with it. What the
/// group is asked to do by a terminal or a supervisor is not meant for the janitor.
const JANITOR: &str = r#"trap '' HUP INT TERM; read -r _; rm -rf -- "$1"; kill -9 0"#;

/// A server of one's own: it listens on a socket in a directory of its own, and saves nothing.
pub(crate) struct PrivateServer {
    dir: PathBuf,
    janitor: Child,
    /// None where it could not be started.
    server: Option<Child>,
}

/// Why there is none.
pub(crate) enum NotStarted {
    /// There is no such program.
    NoProgram(String),
    Failed(String),
}

impl fmt::Debug for PrivateServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateServer")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl PrivateServer {
    /// Starts `program`, and waits until it can be reached.
    pub async fn start(program: &Path) -> Result<Self, NotStarted> {
        let mut this = Self::furnish()?;
        let child = Command::new(program)
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(this.socket())
            .arg("--dir")
            .arg(&this.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(this.process_group())
            .spawn()
            .map_err(|error| {
                let message = format!("can't start {}: {error}", program.display());
                NotStarted::NoProgram(message)
            })?;
        let child = this.server.insert(child);
        let begin = Instant::now();
        let socket = this.dir.join(SOCKET);
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            if let Ok(Some(status)) = child.try_wait() {
                let message = format!("{} ended with {status}: is it a server?", program.display());
                return Err(NotStarted::Failed(message));
            }
            if begin.elapsed() > START {
                let message = format!("{} did not answer within {START:?}", program.display());
                return Err(NotStarted::Failed(message));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(this)
    }

    /// A directory, and the janitor that takes it away.
    fn furnish() -> Result<Self, NotStarted> {
        let name = format!(
            "streamhand-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        );
        let mut dir = std::env::temp_dir().join(&name);
        if dir.join(SOCKET).as_os_str().len() > LONGEST_SOCKET {
            dir = Path::new("/tmp").join(&name);
        }
        let failed =
            |what: String, error: std::io::Error| NotStarted::Failed(format!("{what}: {error}"));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|error| failed(format!("can't make {}", dir.display()), error))?;
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "streamhand-janitor"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match janitor {
            Ok(janitor) => Ok(PrivateServer {
                dir,
                janitor,
                server: None,
            }),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&dir);
                Err(failed("can't start sh".to_owned(), error))
            }
        }
    }

    /// Where it is, as `redis.url` has it.
    pub fn url(&self) -> String {
        match url::Url::from_file_path(self.socket()) {
            Ok(url) => url.as_str().replacen("file:", "unix:", 1),
            Err(()) => format!("unix://{}", self.socket().display()),
        }
    }

    /// Its directory. What else is put there goes with it.
    #[allow(dead_code)]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process group that is killed with the server.
    pub fn process_group(&self) -> i32 {
        self.janitor.id().cast_signed()
    }

    /// The id of the server's process.
    #[allow(dead_code)]
    pub fn pid(&self) -> Option<u32> {
        Some(self.server.as_ref()?.id())
    }

    fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }
}

const SOCKET: &str = "redis.sock";

impl Drop for PrivateServer {
    fn drop(&mut self) {
        // Both waits end: the janitor ends with its input, and kills what is in its group.
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        // Nothing is there unless the janitor was killed.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
