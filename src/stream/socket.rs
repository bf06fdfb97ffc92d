//! What connections go over, and what is known of the server at the other end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sync::lock;

/// What is known of a connection and the server at its other end.
#[derive(Clone)]
pub(crate) struct Greeting {
    /// Differs between two servers, and between two runs of one.
    pub server: String,
    /// The connection's id at the server, by which a blocked read can be woken.
    pub client: i64,
    /// One step reaches keys of one hash slot only.
    pub is_cluster: bool,
}

/// What a connection goes over.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for T {}

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
