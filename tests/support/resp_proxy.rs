//! A bad network between a client and its server: replies that get lost or come late, connections
//! that break or are refused.
//!
//! It works on whole replies. What becomes of one is decided when all of it is there, and the
//! replies before it are delivered first.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::free_ports;
use super::resp::{command_name, message_len};

/// Passes connections on to a server on this machine until it is told otherwise.
pub struct Proxy {
    port: u16,
    /// `None` while connections are refused.
    acceptor: Option<JoinHandle<()>>,
    /// Holds the port while connections are refused: bound, but not listening.
    held: Option<TcpSocket>,
    shared: Arc<Shared>,
}

/// What went through, over all connections.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Requests by their command's name, in capitals; those that clients send to introduce
    /// themselves are among them.
    pub commands: BTreeMap<String, u64>,
    pub bytes_to_server: u64,
    pub bytes_to_client: u64,
}

/// A trap that is set for a reply.
pub struct Caught(oneshot::Receiver<()>);

impl Caught {
    /// Waits until the reply has come and was kept from the client.
    pub async fn within(self, deadline: Duration) {
        match timeout(deadline, self.0).await {
            Ok(caught) => caught.expect("the proxy to outlive its traps"),
            Err(_) => panic!("no such reply after {deadline:?}"),
        }
    }
}

impl Proxy {
    pub async fn start(server_port: u16) -> Proxy {
        let shared = Arc::new(Shared {
            server_port,
            connections: Mutex::default(),
            traps: Mutex::default(),
            traffic: Mutex::default(),
            flowing: watch::Sender::new(true),
        });
        let (port, listener) = free_ports()
            .find_map(|port| Some((port, bind(port).ok()?.listen(BACKLOG).ok()?)))
            .expect("a free port for the proxy");
        let acceptor = Some(tokio::spawn(accept(listener, shared.clone())));
        Proxy {
            port,
            acceptor,
            held: None,
            shared,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Breaks the connection that carries the next reply with `part` in it: the server has sent the
    /// reply, the client never gets it.
    pub fn cut_after_next_reply_containing(&self, part: impl AsRef<[u8]>) -> Caught {
        self.trap(part.as_ref(), Fate::Cut)
    }

    /// Keeps the next reply with `part` in it, and all that come after it on its connection, which
    /// stays open; requests still reach the server.
    pub fn hold_next_reply_containing(&self, part: impl AsRef<[u8]>) -> Caught {
        self.trap(part.as_ref(), Fate::Hold)
    }

    /// Delivers no replies until [`Proxy::resume_replies`]; then they come, late.
    pub fn pause_replies(&self) {
        self.shared.flowing.send_replace(false);
    }

    pub fn resume_replies(&self) {
        self.shared.flowing.send_replace(true);
    }

    /// Breaks every connection; new ones are welcome.
    pub async fn cut(&self) {
        let mut connections = std::mem::take(&mut *locked(&self.shared.connections));
        connections.shutdown().await;
    }

    /// Breaks every connection and refuses new ones, as a server that is away.
    pub async fn refuse(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.abort();
            // An abort is how it ends; awaited because only then its listener is closed.
            let _ = acceptor.await;
            self.held = Some(bind(self.port).expect("the port that was just in use"));
        }
        self.cut().await;
    }

    /// Lets connections in again.
    pub fn accept_again(&mut self) {
        if let Some(socket) = self.held.take() {
            let listener = socket
                .listen(BACKLOG)
                .expect("to listen on a port that is held");
            self.acceptor = Some(tokio::spawn(accept(listener, self.shared.clone())));
        }
    }

    pub fn traffic(&self) -> Traffic {
        locked(&self.shared.traffic).clone()
    }

    fn trap(&self, part: &[u8], fate: Fate) -> Caught {
        let (caught, receiver) = oneshot::channel();
        locked(&self.shared.traps).push(Trap {
            part: part.to_vec(),
            fate,
            caught,
        });
        Caught(receiver)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(acceptor) = &self.acceptor {
            acceptor.abort();
        }
        locked(&self.shared.connections).abort_all();
    }
}

const BACKLOG: u32 = 128;

struct Shared {
    server_port: u16,
    connections: Mutex<JoinSet<()>>,
    traps: Mutex<Vec<Trap>>,
    traffic: Mutex<Traffic>,
    flowing: watch::Sender<bool>,
}

struct Trap {
    part: Vec<u8>,
    fate: Fate,
    caught: oneshot::Sender<()>,
}

/// What becomes of the connection on which a trap has caught a reply.
#[derive(Clone, Copy)]
enum Fate {
    Cut,
    Hold,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let connection = carry(client, shared.clone());
        locked(&shared.connections).spawn(async {
            // However it breaks, both ends see it broken.
            let _ = connection.await;
        });
    }
}

/// Serves one connection until either end closes it or a trap cuts it.
async fn carry(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.server_port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        done = pass_requests(from_client, to_server, &shared) => done,
        done = pass_replies(from_server, to_client, &shared) => done,
    }
}

async fn pass_requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    shared: &Shared,
) -> io::Result<()> {
    let mut uncounted = Vec::new();
    loop {
        let known = uncounted.len();
        if client.read_buf(&mut uncounted).await? == 0 {
            return Ok(());
        }
        let news = uncounted[known..].to_vec();
        // Counted before they are passed on: who has a reply finds its request counted.
        shared.count_requests(&mut uncounted, news.len());
        server.write_all(&news).await?;
    }
}

async fn pass_replies(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    shared: &Shared,
) -> io::Result<()> {
    let mut flowing = shared.flowing.subscribe();
    let mut unsent = Vec::new();
    loop {
        if server.read_buf(&mut unsent).await? == 0 {
            return Ok(());
        }
        let mut whole = 0;
        let mut caught = None;
        while let Some(length) = message_len(&unsent[whole..]) {
            caught = shared.catch(&unsent[whole..whole + length]);
            if caught.is_some() {
                break;
            }
            whole += length;
        }
        // The sender lives as long as this: waiting for it cannot fail.
        let _ = flowing.wait_for(|flowing| *flowing).await;
        locked(&shared.traffic).bytes_to_client += whole as u64;
        client.write_all(&unsent[..whole]).await?;
        unsent.drain(..whole);
        if let Some(trap) = caught {
            // Nobody has to be waiting for it.
            let _ = trap.caught.send(());
            match trap.fate {
                Fate::Cut => return Ok(()),
                Fate::Hold => std::future::pending().await,
            }
        }
    }
}

impl Shared {
    /// Takes the whole requests out of `uncounted`, of which `received` bytes are new.
    fn count_requests(&self, uncounted: &mut Vec<u8>, received: usize) {
        let mut traffic = locked(&self.traffic);
        traffic.bytes_to_server += received as u64;
        let mut counted = 0;
        while let Some(length) = message_len(&uncounted[counted..]) {
            let name = command_name(&uncounted[counted..counted + length]);
            *traffic.commands.entry(name).or_default() += 1;
            counted += length;
        }
        uncounted.drain(..counted);
    }

    /// The trap that this reply falls into; it is set no more.
    fn catch(&self, reply: &[u8]) -> Option<Trap> {
        let mut traps = locked(&self.traps);
        let sprung = traps.iter().position(|trap| {
            reply
                .windows(trap.part.len())
                .any(|window| window == trap.part)
        })?;
        Some(traps.remove(sprung))
    }
}

fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // The port has connections of the past, which would otherwise hold it for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
