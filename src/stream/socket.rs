//! What connections go over, and what is known of the server at the other end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::ConnectionAddr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::life::ServerIdentity;
use super::tls;
use crate::sync::lock;

/// How long one address of several is waited for until the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(150);

/// What is known of a connection and the server at its other end.
#[derive(Clone)]
pub(crate) struct Greeting {
    pub server: ServerIdentity,
    /// The connection's id at the server, by which a blocked read can be woken.
    pub client: i64,
    /// Whether one connection can wake another's blocked read here: some services know no CLIENT UNBLOCK.
    pub can_unblock: bool,
    /// One step reaches keys of one hash slot only.
    pub is_cluster: bool,
}

/// What a connection goes over.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for T {}

/// A socket to the server at an address. A name is looked up each time, and all its addresses count.
pub(super) async fn open(
    address: &ConnectionAddr,
    tls: Option<&TlsConnector>,
) -> io::Result<Box<dyn Socket>> {
    let (host, port, tls) = match (address, tls) {
        (ConnectionAddr::Tcp(host, port), _) => (host, port, None),
        (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => (host, port, Some(tls)),
        (ConnectionAddr::Unix(path), _) => return Ok(Box::new(UnixStream::connect(path).await?)),
        (other, _) => return Err(io::Error::other(format!("{other} can't be read from"))),
    };
    let addresses = tokio::net::lookup_host((&**host, *port)).await?;
    race(addresses.collect(), |address| async move {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(match tls {
            Some(tls) => Box::new(tls::over(tls, host, socket).await?) as Box<dyn Socket>,
            None => Box::new(socket),
        })
    })
    .await
}

/// The first connection that comes about: each address is tried once the one before has failed, or has kept silent for a
/// while, and then beside it (as RFC 8305 has it).
async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut addresses = addresses.into_iter();
    let mut tries = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = addresses.next() {
            tries.push(connect(address));
        }
        if tries.is_empty() {
            return Err(failed);
        }
        let next = after(HEAD_START, addresses.len() > 0);
        tokio::select! {
            biased;
            Some(tried) = tries.next() => match tried {
                Ok(connected) => return Ok(connected),
                Err(error) => failed = error,
            },
            () = next => {}
        }
    }
}

/// Waits so long, if there is something to wait for.
async fn after(wait: Duration, is_some: bool) {
    match is_some {
        true => tokio::time::sleep(wait).await,
        false => std::future::pending().await,
    }
}

/// A socket that is lent to the client crate and can be had back.
#[derive(Clone)]
pub(super) struct Lent(Arc<Mutex<Option<Box<dyn Socket>>>>);

impl Lent {
    pub fn new(socket: Box<dyn Socket>) -> Self {
        Lent(Arc::new(Mutex::new(Some(socket))))
    }

    /// The socket. Whoever it was lent to finds it closed from now on.
    pub fn take_back(&self) -> Option<Box<dyn Socket>> {
        lock(&self.0).take()
    }

    fn with<T>(
        &self,
        use_it: impl FnOnce(Pin<&mut Box<dyn Socket>>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *lock(&self.0) {
            Some(socket) => use_it(Pin::new(socket)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|socket| socket.poll_read(cx, buf))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|socket| socket.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| socket.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// What becomes of addresses by their ports: those that fail, those that are silent, and when the others answer.
    async fn raced(ports: &[u16]) -> (io::Result<u16>, Duration) {
        let addresses = ports
            .iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)));
        let since = Instant::now();
        let won = race(addresses.collect(), async |address| match address.port() {
            0..100 => Err(io::Error::other(address.port().to_string())),
            100..200 => std::future::pending().await,
            port => Ok(port),
        })
        .await;
        (won, since.elapsed())
    }

    #[tokio::test]
    async fn the_first_address_that_takes_us_wins_whatever_those_before_it_do() {
        let (won, took) = raced(&[100, 101, 1, 200, 201]).await;
        assert_eq!(won.unwrap(), 200);
        assert!(
            took >= 2 * HEAD_START && took < Duration::from_secs(3),
            "{took:?}"
        );
        let (won, took) = raced(&[1, 2, 201]).await;
        assert!(won.unwrap() == 201 && took < HEAD_START, "{took:?}");
        assert_eq!(raced(&[200, 201]).await.0.unwrap(), 200);
    }

    #[tokio::test]
    async fn where_none_does_the_last_one_says_why() {
        assert_eq!(raced(&[1, 2]).await.0.unwrap_err().to_string(), "2");
        assert!(raced(&[]).await.0.is_err());
    }
}
