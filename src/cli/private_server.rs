//! A server of one's own, for a command that must not touch anybody's data.

use std::path::Path;

use super::CommandError;
use crate::private_server::{self, NotStarted};

/// A Redis or Valkey server of your own, for a command or a test of yours that must not touch anybody's data.
///
/// It listens on a socket in a directory of its own, and saves nothing. When this is dropped, and also when the
/// process is killed, the server and the directory go, and every process that was started into
/// [`process_group`](Self::process_group) with them.
///
/// ```no_run
/// # async fn example() -> Result<(), streamhand::cli::CommandError> {
/// let server = streamhand::cli::PrivateServer::start("redis-server").await?;
/// let settings = streamhand::Settings::from_toml_str(&format!("[redis]\nurl = \"{}\"", server.url()))?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PrivateServer(private_server::PrivateServer);

impl PrivateServer {
    /// Starts `program`, a `redis-server` or `valkey-server`, and waits until it can be reached.
    ///
    /// # Errors
    /// Where there is no such program, or it does not become a server; where there is no place for its directory.
    pub async fn start(program: impl AsRef<Path>) -> Result<Self, CommandError> {
        match private_server::PrivateServer::start(program.as_ref()).await {
            Ok(server) => Ok(PrivateServer(server)),
            Err(NotStarted::NoProgram(message)) => Err(CommandError::usage(message)),
            Err(NotStarted::Failed(message)) => Err(CommandError::failed(message)),
        }
    }

    /// Where it is, as `redis.url` has it.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Its directory. What else is put there goes with it.
    pub fn dir(&self) -> &Path {
        self.0.dir()
    }

    /// The process group that is killed with the server: for
    /// [`process_group`](std::os::unix::process::CommandExt::process_group) of commands that are to go with it. A
    /// Ctrl-C on the terminal does not reach it.
    pub fn process_group(&self) -> i32 {
        self.0.process_group()
    }

    /// The id of the server's process.
    pub fn pid(&self) -> Option<u32> {
        self.0.pid()
    }
}
