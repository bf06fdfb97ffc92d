//! Serves HTTP on a thread of its own, so that neither a handler that blocks nor a stopped thread that speaks to Redis
//! keeps it from telling. Whoever may connect can't exhaust the worker: connections, their lifetime, the time for a
//! request's head and its size are bounded. Open connections hold up no stop: they are dropped with the thread's runtime.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};

/// What one client, or many, may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at once; more are turned away.
    pub connections: usize,
    /// How long the head of a request may take, and how long a connection may wait for one.
    pub head: Duration,
    /// How long a connection may last; None for as long as it likes, for what is streamed.
    pub lifetime: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 64,
            head: Duration::from_secs(5),
            lifetime: Some(Duration::from_secs(60)),
        }
    }
}

/// The most bytes, and the most lines, that the head of a request may have.
const LARGEST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 64;
/// After an error of accepting, such as too many open files, it is tried again after this.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a stop waits for the thread, which has nothing to wait for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A port that is ours, and is not served yet.
#[derive(Debug)]
pub(crate) struct Bound {
    listener: std::net::TcpListener,
    /// Where it is: of port 0 it is known only now.
    pub address: SocketAddr,
}

/// What is served. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Server {
    stop: CancellationToken,
    ended: Option<oneshot::Receiver<()>>,
    /// Where it is served.
    #[cfg(test)]
    pub address: SocketAddr,
}

impl Bound {
    /// Takes the port that the setting called `key` says.
    ///
    /// # Errors
    /// Where that can't be had, with what to do.
    pub fn to(address: SocketAddr, key: &str) -> Result<Self> {
        let bind = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Bound { listener, address })
        };
        bind().map_err(|error: std::io::Error| {
            let advice = advice(&error, key);
            let message = format!("{key}: can't listen on {address}: {error}{advice}");
            Error::new(ErrorKind::Internal, message)
        })
    }

    /// Serves `router` there, on a thread called `name`.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn serve(self, router: Router, limits: Limits, name: &str) -> Result<Server> {
        let internal = |error: std::io::Error| {
            let message = format!("can't start the thread {name}: {error}");
            Error::new(ErrorKind::Internal, message)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(internal)?;
        let Bound { listener, .. } = self;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let serving = move || {
            let serving = async {
                let Ok(listener) = TcpListener::from_std(listener) else {
                    return;
                };
                tokio::select! {
                    () = accept(listener, router, limits) => {}
                    () = stopped.cancelled() => {}
                }
            };
            runtime.block_on(serving);
            // Connections end with it, whatever they are at.
            runtime.shutdown_background();
            drop(end);
        };
        thread.spawn(serving).map_err(internal)?;
        Ok(Server {
            stop,
            ended: Some(ended),
            #[cfg(test)]
            address: self.address,
        })
    }
}

impl Server {
    /// Ends it; the port is free when this returns.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(ended) = self.ended.take() {
            let _ = tokio::time::timeout(LAST_WORDS, ended).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn advice(error: &std::io::Error, key: &str) -> String {
    let variable = format!("STREAMHAND_{}", key.to_uppercase().replace('.', "__"));
    match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "; each program on a machine needs a port of its own: {variable} sets it for one, and `ss -ltnp` tells who \
             has this one"
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            "; this machine does not have that address: 0.0.0.0 is every one it has".to_owned()
        }
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need root".to_owned(),
        _ => String::new(),
    }
}

async fn accept(listener: TcpListener, router: Router, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let (socket, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("accepting a connection: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            turn_away(&socket);
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            let _place = place;
            let serving = connection(socket, from, router, limits);
            match limits.lifetime {
                Some(lifetime) => drop(tokio::time::timeout(lifetime, serving).await),
                None => serving.await,
            }
        });
    }
}

async fn connection(socket: TcpStream, from: SocketAddr, router: Router, limits: Limits) {
    let _ = socket.set_nodelay(true);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(LARGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection of {from} ended: {error}");
    }
}

/// Says that there is no room, if that can be said without waiting.
fn turn_away(socket: &TcpStream) {
    let _ = socket.try_write(
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
}

#[cfg(test)]
mod tests;
