//! Clients that mean no good, and a stop that waits for none of them.

use std::time::Instant;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn limits() -> Limits {
    Limits {
        connections: 4,
        head: Duration::from_millis(300),
        lifetime: Some(PATIENCE),
    }
}

fn serve(limits: Limits) -> Server {
    let router = Router::new()
        .route("/", get(|| async { "fine" }))
        .route("/long", get(|| async { "x".repeat(64 << 20) }));
    let bound = Bound::to(([127, 0, 0, 1], 0).into(), "telemetry.listen").expect("a port");
    bound.serve(router, limits, "test").expect("a thread")
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("a server")
}

/// All that comes until the other end closes.
async fn rest(socket: &mut TcpStream) -> String {
    let mut read = Vec::new();
    // It may be reset while there is something left to read of ours.
    let reading = socket.read_to_end(&mut read);
    let _ = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the other end to close");
    String::from_utf8_lossy(&read).into_owned()
}

async fn ask(server: &Server) -> String {
    let mut socket = connect(server).await;
    let head = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(head).await.expect("to ask");
    rest(&mut socket).await
}

#[tokio::test]
async fn a_taken_port_is_told_with_what_to_do() {
    let server = serve(limits());
    let refused = Bound::to(server.address, "telemetry.listen").expect_err("it is taken");
    let said = refused.to_string();
    let begin = format!(
        "telemetry.listen: can't listen on {}: Address already in use",
        server.address
    );
    assert!(said.starts_with(&begin), "{said}");
    assert!(said.contains("STREAMHAND_TELEMETRY__LISTEN"), "{said}");
    let elsewhere = "203.0.113.7:1".parse().expect("an address");
    let refused = Bound::to(elsewhere, "telemetry.listen").expect_err("not ours");
    assert!(refused.to_string().contains("0.0.0.0"), "{refused}");
}

#[tokio::test]
async fn a_head_that_does_not_end_and_one_without_end_are_cut_off() {
    let server = serve(limits());
    let since = Instant::now();
    let mut slow = connect(&server).await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost:")
        .await
        .expect("to begin");
    rest(&mut slow).await;
    let mut silent = connect(&server).await;
    rest(&mut silent).await;
    assert!(since.elapsed() < PATIENCE / 2, "{:?}", since.elapsed());

    let mut large = connect(&server).await;
    let head = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = large.write_all(head.as_bytes()).await;
    let said = rest(&mut large).await;
    assert!(!said.contains("fine"), "{said}");
    let mut many = connect(&server).await;
    let head = format!(
        "GET / HTTP/1.1\r\n{}\r\n",
        "x: y\r\n".repeat(MOST_HEADERS + 1)
    );
    let _ = many.write_all(head.as_bytes()).await;
    let said = rest(&mut many).await;
    assert!(!said.contains("fine"), "{said}");
    assert!(ask(&server).await.ends_with("fine"));
}

#[tokio::test]
async fn more_connections_than_there_may_be_are_turned_away_until_one_goes() {
    let limits = Limits {
        head: PATIENCE,
        ..limits()
    };
    let server = serve(limits);
    let mut held = Vec::new();
    for _ in 0..limits.connections {
        let mut socket = connect(&server).await;
        // It is there when it has been answered.
        let head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        socket.write_all(head).await.expect("to ask");
        let mut some = [0; 16];
        socket.read_exact(&mut some).await.expect("an answer");
        held.push(socket);
    }
    let said = ask(&server).await;
    assert!(!said.contains("fine"), "{said}");
    held.pop();
    let since = Instant::now();
    while !ask(&server).await.ends_with("fine") {
        assert!(since.elapsed() < PATIENCE, "there is room, and no answer");
    }
}

#[tokio::test]
async fn who_does_not_read_is_left_when_the_time_is_over() {
    let limits = Limits {
        connections: 1,
        head: Duration::from_millis(200),
        lifetime: Some(Duration::from_millis(400)),
    };
    let server = serve(limits);
    let mut lazy = connect(&server).await;
    let head = b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n";
    lazy.write_all(head).await.expect("to ask");
    let since = Instant::now();
    while !ask(&server).await.ends_with("fine") {
        assert!(since.elapsed() < PATIENCE, "it holds its place for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_stop_waits_for_no_connection_and_leaves_the_port_free() {
    let server = serve(Limits {
        head: PATIENCE,
        ..limits()
    });
    let mut open = connect(&server).await;
    let head = b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n";
    open.write_all(head).await.expect("to ask");
    let mut some = [0; 16];
    open.read_exact(&mut some).await.expect("an answer");
    let (address, since) = (server.address, Instant::now());
    server.stop().await;
    assert!(since.elapsed() < LAST_WORDS, "{:?}", since.elapsed());
    Bound::to(address, "telemetry.listen").expect("the port to be free");
}
