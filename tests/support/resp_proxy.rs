//! A bad network between a client and its server: requests and replies that get lost or come late,
//! connections that break or are refused.
//!
//! It works on whole requests and replies. What becomes of one is decided when all of it is there,
//! and those before it are delivered first.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::resp::{command_name, message_len};
use super::resp_traps::{Caught, Exchange, Fate, Held, Traps};
use super::resp_watch::{Watched, Watches, monotonic};
use super::{eventually, free_ports};

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
    /// Connections that clients made, to a server that was there or not.
    pub connections: u64,
    /// Requests by their command's name, in capitals; those that clients send to introduce
    /// themselves are among them.
    pub commands: BTreeMap<String, u64>,
    pub bytes_to_server: u64,
    pub bytes_to_client: u64,
}

impl Traffic {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.commands.values().sum()
    }

    /// What has come since then.
    pub fn since(&self, earlier: &Traffic) -> Traffic {
        let mut traffic = self.clone();
        traffic.connections -= earlier.connections;
        traffic.bytes_to_server -= earlier.bytes_to_server;
        traffic.bytes_to_client -= earlier.bytes_to_client;
        for (name, count) in &earlier.commands {
            *traffic.commands.entry(name.clone()).or_default() -= count;
        }
        traffic.commands.retain(|_, count| *count > 0);
        traffic
    }
}

impl Proxy {
    pub async fn start(server_port: u16) -> Proxy {
        let shared = Arc::new(Shared {
            server_port,
            connections: Mutex::default(),
            traps: Traps::default(),
            traffic: Mutex::default(),
            watches: Watches::default(),
            service: Mutex::default(),
            flowing: watch::Sender::new(true),
            asking: watch::Sender::new(true),
            latency: watch::Sender::new(Duration::ZERO),
            closed_to_clients: watch::Sender::new(()),
            closed_to_server: watch::Sender::new(()),
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

    /// Refuses what this service refuses, in its words.
    pub fn serve_as(&self, service: &'static Service) {
        *locked(&self.shared.service) = Some(service);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Breaks the connection on which the next such request comes: the server never gets it.
    pub fn cut_before(&self, exchange: Exchange) -> Caught {
        self.shared.traps.set(exchange, Fate::CutBefore)
    }

    /// Breaks the connection that carries the next such reply: the server has sent it, the client
    /// never gets it.
    pub fn cut_after(&self, exchange: Exchange) -> Caught {
        self.shared.traps.set(exchange, Fate::CutAfter)
    }

    /// Keeps the next such request, and all that come after it on its connection, from the server
    /// until it is released.
    pub fn hold_request(&self, exchange: Exchange) -> Held {
        let (release, released) = oneshot::channel();
        let caught = self.shared.traps.set(exchange, Fate::HoldRequest(released));
        Held { caught, release }
    }

    /// Keeps the next such reply, and all that come after it on its connection, which stays open;
    /// requests still reach the server.
    pub fn hold_reply(&self, exchange: Exchange) -> Caught {
        self.shared.traps.set(exchange, Fate::HoldReply)
    }

    /// Loses the next such reply, and nothing else.
    pub fn swallow(&self, exchange: Exchange) -> Caught {
        self.shared.traps.set(exchange, Fate::Swallow)
    }

    /// Delivers the next such reply, and all that come after it on its connection, so much later.
    pub fn delay(&self, exchange: Exchange, by: Duration) -> Caught {
        self.shared.traps.set(exchange, Fate::Delay(by))
    }

    /// Passes nothing on for so long once such a request comes: it arrives late, like all that is asked meanwhile.
    pub fn fall_silent_at(&self, exchange: Exchange, time: Duration) -> Caught {
        self.shared.traps.set(exchange, Fate::FallSilent(time))
    }

    /// Delivers no replies until [`Proxy::resume_replies`]; then they come, late.
    pub fn pause_replies(&self) {
        self.shared.flowing.send_replace(false);
    }

    pub fn resume_replies(&self) {
        self.shared.flowing.send_replace(true);
    }

    /// Passes nothing on in either direction, and breaks nothing, until [`Proxy::speak`]; then all of it arrives, late.
    pub fn silence(&self) {
        speak(&self.shared.asking, &self.shared.flowing, false);
    }

    pub fn speak(&self) {
        speak(&self.shared.asking, &self.shared.flowing, true);
    }

    /// Delivers whatever the server sends so much later, from now on.
    pub fn slow_down(&self, by: Duration) {
        self.shared.latency.send_replace(by);
    }

    /// Tells the client of every connection there is that the server sends no more. Its requests are still passed on, and
    /// what is answered is lost.
    pub fn half_close_to_clients(&self) {
        self.shared.closed_to_clients.send_replace(());
    }

    /// Tells the server on every connection there is that the client sends no more. What was asked before that is
    /// answered, as far as the server still answers it.
    pub fn half_close_to_server(&self) {
        self.shared.closed_to_server.send_replace(());
    }

    /// Notes when such requests were passed on, from now on, and when they were answered.
    pub fn watch(&self, exchange: Exchange) -> Watched {
        self.shared.watches.add(exchange)
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
            self.held = Some(bind_again(self.port).await);
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

    /// What goes through within the time given.
    pub async fn traffic_during(&self, time: Duration) -> Traffic {
        let before = self.traffic();
        sleep(time).await;
        self.traffic().since(&before)
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
    traps: Traps,
    traffic: Mutex<Traffic>,
    watches: Watches,
    /// What it refuses, as a service would.
    service: Mutex<Option<&'static Service>>,
    flowing: watch::Sender<bool>,
    asking: watch::Sender<bool>,
    latency: watch::Sender<Duration>,
    closed_to_clients: watch::Sender<()>,
    closed_to_server: watch::Sender<()>,
}

/// The requests of a connection that are not answered yet, and when they came.
type Asked = Mutex<VecDeque<(u64, Vec<u8>)>>;

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        locked(&shared.traffic).connections += 1;
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
    let asked = Asked::default();
    tokio::select! {
        done = pass_requests(from_client, to_server, &asked, &shared) => done,
        done = pass_replies(from_server, to_client, &asked, &shared) => done,
    }
}

async fn pass_requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    asked: &Asked,
    shared: &Shared,
) -> io::Result<()> {
    let mut unsent = Vec::new();
    let mut closed = shared.closed_to_server.subscribe();
    loop {
        tokio::select! {
            read = client.read_buf(&mut unsent) => if read? == 0 {
                return Ok(());
            },
            Ok(()) = closed.changed() => {
                server.shutdown().await?;
                return std::future::pending().await;
            }
        }
        let mut whole = 0;
        while let Some(length) = message_len(&unsent[whole..]) {
            let request = unsent[whole..whole + length].to_vec();
            let mut length = length;
            if let Some(name) = shared.refuses(&request) {
                // The server refuses it in its place, so that replies stay in their order.
                let refused = format!(
                    "*2\r\n${}\r\n{REFUSED}\r\n${}\r\n{name}\r\n",
                    REFUSED.len(),
                    name.len()
                );
                unsent.splice(whole..whole + length, refused.bytes());
                length = refused.len();
            }
            if let Some(trap) = shared.traps.for_request(&request) {
                shared.ask(&mut server, &unsent[..whole]).await?;
                unsent.drain(..whole);
                whole = 0;
                match trap.spring() {
                    // Let go too where nobody is left to release it.
                    Fate::HoldRequest(released) => drop(released.await),
                    Fate::FallSilent(time) => shared.fall_silent(time),
                    _ => return Ok(()),
                }
            }
            // Before it is passed on: who has a reply finds its request counted.
            shared.count(&request);
            locked(asked).push_back((monotonic(), request));
            whole += length;
        }
        shared.ask(&mut server, &unsent[..whole]).await?;
        unsent.drain(..whole);
    }
}

async fn pass_replies(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    asked: &Asked,
    shared: &Shared,
) -> io::Result<()> {
    let mut unsent = Vec::new();
    let mut closed = shared.closed_to_clients.subscribe();
    loop {
        tokio::select! {
            read = server.read_buf(&mut unsent) => if read? == 0 {
                return Ok(());
            },
            Ok(()) = closed.changed() => {
                client.shutdown().await?;
                return lose_all(server).await;
            }
        }
        let mut whole = 0;
        while let Some(length) = message_len(&unsent[whole..]) {
            let reply = &unsent[whole..whole + length];
            // What the server pushes answers nothing.
            let mut length = length;
            let in_place = format!("-ERR unknown command '{REFUSED}'");
            let says = reply
                .starts_with(in_place.as_bytes())
                .then(|| shared.refusal(reply))
                .flatten();
            if let Some(says) = says {
                unsent.splice(whole..whole + length, says.bytes());
                length = says.len();
            }
            let reply = &unsent[whole..whole + length];
            let pushed = reply[0] == b'>';
            let request = (!pushed).then(|| locked(asked).pop_front()).flatten();
            let (asked_at, request) = request.unwrap_or_default();
            shared.watches.answered(asked_at, &request, reply);
            let Some(trap) = shared.traps.for_reply(&request, reply) else {
                whole += length;
                continue;
            };
            shared.deliver(&mut client, &unsent[..whole]).await?;
            unsent.drain(..whole);
            whole = 0;
            match trap.spring() {
                Fate::Swallow => drop(unsent.drain(..length)),
                Fate::Delay(by) => {
                    sleep(by).await;
                    whole = length;
                }
                Fate::HoldReply => std::future::pending().await,
                _ => return Ok(()),
            }
        }
        shared.deliver(&mut client, &unsent[..whole]).await?;
        unsent.drain(..whole);
    }
}

/// Reads what nobody will have, until there is no more.
async fn lose_all(mut server: OwnedReadHalf) -> io::Result<()> {
    let mut lost = [0; 4096];
    while server.read(&mut lost).await? > 0 {}
    Ok(())
}

/// What the server is sent in place of what is refused.
const REFUSED: &str = "refused-by-the-service";

/// A managed service: which commands it does not know, and its words for that, `{}` being the command.
pub struct Service {
    pub name: &'static str,
    /// In capitals, with or without a subcommand.
    pub refuses: &'static [&'static str],
    pub says: &'static str,
    /// Most arguments it takes in a call.
    pub most: usize,
}

impl Shared {
    /// The name of what the service does not know.
    fn refuses(&self, request: &[u8]) -> Option<String> {
        let service = (*locked(&self.service))?;
        let words = String::from_utf8_lossy(request).to_ascii_uppercase();
        let words: Vec<&str> = words.split("\r\n").skip(2).step_by(2).take(2).collect();
        let name = words.first()?;
        let both = words.join(" ");
        let is_it = |refused: &&str| *refused == *name || *refused == both;
        let count = request.split(|byte| *byte == b'\r').next()?;
        let count: usize = std::str::from_utf8(count.strip_prefix(b"*")?)
            .ok()?
            .parse()
            .ok()?;
        let is_refused = count > service.most || service.refuses.iter().any(is_it);
        is_refused.then(|| name.to_lowercase())
    }

    fn refusal(&self, reply: &[u8]) -> Option<String> {
        let service = (*locked(&self.service))?;
        let reply = String::from_utf8_lossy(reply);
        let name = reply
            .rsplit("beginning with: '")
            .next()?
            .split('\'')
            .next()?
            .to_owned();
        Some(format!("-{}\r\n", service.says.replace("{}", &name)))
    }

    fn fall_silent(&self, time: Duration) {
        let (asking, flowing) = (self.asking.clone(), self.flowing.clone());
        speak(&asking, &flowing, false);
        tokio::spawn(async move {
            sleep(time).await;
            speak(&asking, &flowing, true);
        });
    }

    /// Passes whole requests on, once anything is passed on.
    async fn ask(&self, server: &mut OwnedWriteHalf, requests: &[u8]) -> io::Result<()> {
        // The sender lives as long as this: waiting for it cannot fail.
        let _ = self.asking.subscribe().wait_for(|asking| *asking).await;
        server.write_all(requests).await
    }

    fn count(&self, request: &[u8]) {
        let mut traffic = locked(&self.traffic);
        traffic.bytes_to_server += request.len() as u64;
        *traffic.commands.entry(command_name(request)).or_default() += 1;
    }

    /// Passes whole replies on, once replies flow.
    async fn deliver(&self, client: &mut OwnedWriteHalf, replies: &[u8]) -> io::Result<()> {
        // The sender lives as long as this: waiting for it cannot fail.
        let _ = self.flowing.subscribe().wait_for(|flowing| *flowing).await;
        let latency = *self.latency.borrow();
        if !latency.is_zero() {
            sleep(latency).await;
        }
        locked(&self.traffic).bytes_to_client += replies.len() as u64;
        client.write_all(replies).await
    }
}

fn speak(asking: &watch::Sender<bool>, flowing: &watch::Sender<bool>, speaks: bool) {
    asking.send_replace(speaks);
    flowing.send_replace(speaks);
}

fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // The port has connections of the past, which would otherwise hold it for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}

/// The port was just in use, and is for a moment longer by a child process on its way from fork to exec.
async fn bind_again(port: u16) -> TcpSocket {
    eventually(Duration::from_secs(5), "the port to be free", async || {
        bind(port).map_err(|error| error.to_string())
    })
    .await
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
