//! Connections: how many, how long they may take to say what they want, and how they end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Connections at once; those that come then wait.
const MOST: usize = 512;
/// How long a request's head may take to come, and how long a connection may be without one.
const HEAD: Duration = Duration::from_secs(30);
const LARGEST_HEAD: usize = 32 << 10;
/// How long a stop waits for what is being sent.
const LEAVE: Duration = Duration::from_secs(3);
/// After a failure to take a connection, such as too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves what comes, until it is told to stop.
pub(super) async fn serve<F>(
    listener: TcpListener,
    router: Router,
    arrived: F,
    stop: CancellationToken,
) where
    F: Fn(Request<Body>, SocketAddr) -> Request<Body> + Clone + Send + Sync + 'static,
{
    let places = Arc::new(Semaphore::new(MOST));
    let connections = TaskTracker::new();
    loop {
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let came = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            came = listener.accept() => came,
        };
        let Ok((socket, from)) = came else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (router, arrived, stop) = (router.clone(), arrived.clone(), stop.clone());
        connections.spawn(async move {
            connection(socket, from, router, arrived, stop).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    // What takes longer ends with the runtime.
    let _ = tokio::time::timeout(LEAVE, connections.wait()).await;
}

async fn connection<F>(
    socket: TcpStream,
    from: SocketAddr,
    router: Router,
    arrived: F,
    stop: CancellationToken,
) where
    F: Fn(Request<Body>, SocketAddr) -> Request<Body>,
{
    let _ = socket.set_nodelay(true);
    let answer = service_fn(|request: Request<Incoming>| {
        let request = arrived(request.map(Body::new), from);
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|e| match e {})) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(LARGEST_HEAD);
    let connection = builder.serve_connection(TokioIo::new(socket), answer);
    tokio::pin!(connection);
    tokio::select! {
        // A visitor that goes in the middle is no fault of ours.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
