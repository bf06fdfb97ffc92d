//! The socket that `streamhand health` asks at, without a port and without a file: a name that Linux keeps in no file
//! system, and that is gone with its process, so that nothing stale can look alive. It works in a container whose files are
//! read-only, and with many workers on one machine.
//!
//! Whoever answers is a task of the thread that speaks to Redis: if that thread is stopped, nobody does.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use uuid::Uuid;

/// What all names begin with.
const PREFIX: &str = "streamhand-health-";
/// Most bytes of an answer.
const LONGEST: u64 = 64 << 10;
/// After an error of accepting, such as too many open files, it is tried again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// What a worker says who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub group: String,
    pub consumer: String,
    pub streams: Vec<String>,
}

/// Somebody to ask.
#[derive(Debug)]
pub(crate) struct Worker {
    pub pid: u32,
    /// None where so many ask already, and get no answer, that there is no room for one more.
    socket: Option<UnixStream>,
}

/// Where a worker of `group` is to be asked. Nothing is answered before [`answer`].
pub(crate) fn listen(group: &str) -> io::Result<StdListener> {
    // Several workers may be in one process.
    let name = format!(
        "{}{}-{:016x}",
        prefix(Some(group)),
        std::process::id(),
        fastrand::u64(..)
    );
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers whoever asks, until it is dropped.
pub(crate) async fn answer(listener: StdListener, answer: Answer) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::debug!("health can't be asked for: {error}"),
    };
    let text = serde_json::to_vec(&answer).expect("texts are JSON");
    loop {
        match listener.accept().await {
            // It fits into what the kernel keeps for the other end, so that nobody has to be waited for.
            Ok((socket, _)) => drop(socket.try_write(&text)),
            Err(error) => {
                tracing::debug!("accepting who asks for health: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The workers that this user may ask: those of `group`, or of any, in processes that can be seen from here. Of a machine
/// that shares its network with containers, those of other containers can't.
pub(crate) async fn workers(group: Option<&str>) -> io::Result<Vec<Worker>> {
    let sockets = std::fs::read_to_string("/proc/net/unix")?;
    let prefix = prefix(group);
    let mut names: Vec<&str> = sockets
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(7)?.strip_prefix('@'))
        .filter(|name| name.starts_with(&prefix))
        .collect();
    // Each connection is a line of its own.
    names.sort_unstable();
    names.dedup();
    let us = rustix::process::geteuid();
    let mut workers = Vec::new();
    for name in names {
        match UnixStream::connect(format!("\0{name}")).await {
            Ok(socket) => {
                let who = socket.peer_cred()?;
                // Of a process that is not seen from here the kernel says 0.
                let pid = who.pid().and_then(|pid| u32::try_from(pid).ok());
                if let Some(pid) = pid.filter(|pid| *pid > 0)
                    && (us.is_root() || who.uid() == us.as_raw())
                {
                    let socket = Some(socket);
                    workers.push(Worker { pid, socket });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let pid = name.rsplit('-').nth(1).and_then(|pid| pid.parse().ok());
                workers.extend(pid.map(|pid| Worker { pid, socket: None }));
            }
            // Gone since.
            Err(_) => {}
        }
    }
    Ok(workers)
}

impl Worker {
    /// Waits until it answers; None where its process ended meanwhile.
    pub async fn answered(self) -> io::Result<Option<Answer>> {
        let Some(socket) = self.socket else {
            return std::future::pending().await;
        };
        let mut text = Vec::new();
        match socket.take(LONGEST).read_to_end(&mut text).await {
            Ok(_) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What the names of a group's workers begin with. The group itself may be longer than a name may be.
fn prefix(group: Option<&str>) -> String {
    match group {
        None => PREFIX.to_owned(),
        Some(group) => {
            let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, group.as_bytes());
            format!("{PREFIX}{}-", hash.simple())
        }
    }
}
