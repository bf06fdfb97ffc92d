//! What systemd is told of a unit with `Type=notify`. It must never hold up who tells it, which is the thread that speaks to
//! Redis: a message that there is no room for is left out, and the next one says the same.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

/// The socket that systemd listens on.
#[derive(Debug, Clone)]
pub(crate) struct Systemd {
    socket: Arc<UnixDatagram>,
    address: SocketAddr,
    /// How long it may hear nothing before it ends the process, if it watches.
    pub watchdog: Option<Duration>,
}

impl Systemd {
    /// Where the environment says that systemd, or who does the same, waits to be told.
    pub fn from_env() -> Option<Self> {
        let path = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())?;
        match Systemd::at(&path) {
            Ok(systemd) => Some(systemd),
            Err(error) => {
                tracing::warn!("systemd can't be told anything at NOTIFY_SOCKET: {error}");
                None
            }
        }
    }

    fn at(path: &OsStr) -> std::io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Systemd {
            socket: Arc::new(socket),
            address: address(path)?,
            watchdog: sd_notify::watchdog_enabled(),
        })
    }

    /// Tells it, unless it does not listen just now.
    pub fn tell(&self, states: &[NotifyState<'_>]) {
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.address) {
            tracing::debug!("systemd was not told {states:?}: {error}");
        }
    }
}

/// A path, or with an `@` before it a name that is in no file system.
fn address(path: &OsStr) -> std::io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = path.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    if !path.as_bytes().starts_with(b"/") {
        return Err(std::io::Error::other(
            "neither a path nor a name after an @",
        ));
    }
    SocketAddr::from_pathname(path)
}
