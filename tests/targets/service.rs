//! A service behind a target, down to the bytes: what it was sent, and whatever it answers, or does not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Came {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// What is done with a request.
pub enum Reply {
    /// A status with headers and a body; the connection is kept.
    Full(u16, Vec<(&'static str, String)>, String),
    /// The same after so long.
    Late(Duration, u16, String),
    /// Nothing ever.
    Nothing,
    /// These bytes, and the end of the connection.
    Bytes(&'static [u8]),
    /// This head, and after it body without end.
    Endless(&'static [u8]),
}

type Answers = Arc<dyn Fn(&Came) -> Reply + Send + Sync>;

/// Serves until it is dropped.
pub struct Service {
    pub address: SocketAddr,
    came: Arc<Mutex<Vec<Came>>>,
    connections: Arc<AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
}

impl Came {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

pub fn ok(body: impl Into<String>) -> Reply {
    let json = ("content-type", "application/json".to_owned());
    Reply::Full(200, vec![json], body.into())
}

pub fn status(status: u16, body: &str) -> Reply {
    Reply::Full(status, Vec::new(), body.to_owned())
}

impl Service {
    pub async fn start(answers: impl Fn(&Came) -> Reply + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", answers).await
    }

    pub async fn at(
        address: &str,
        answers: impl Fn(&Came) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (came, answers): (_, Answers) = (Arc::<Mutex<Vec<Came>>>::default(), Arc::new(answers));
        let connections = Arc::new(AtomicUsize::new(0));
        let (noted, counted) = (came.clone(), connections.clone());
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(socket, answers.clone(), noted.clone()));
            }
        });
        Service {
            address,
            came,
            connections,
            serving,
        }
    }

    /// What has come so far.
    pub fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// What has come to a path.
    pub fn came_to(&self, path: &str) -> Vec<Came> {
        let mut came = self.came();
        came.retain(|came| came.path == path);
        came
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A target here, with further lines.
    pub fn target(&self, name: &str, lines: &str) -> String {
        let url = self.url(&format!("/{name}"));
        format!("[targets.{name}]\nurl = \"{url}\"\nallow = [\"127.0.0.1\"]\n{lines}\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut socket: TcpStream, answers: Answers, came: Arc<Mutex<Vec<Came>>>) {
    let mut read = Vec::new();
    loop {
        let Some(request) = request(&mut socket, &mut read).await else {
            return;
        };
        let reply = answers(&request);
        came.lock().unwrap().push(request);
        let sent = match reply {
            Reply::Full(status, headers, body) => full(&mut socket, status, &headers, &body).await,
            Reply::Late(by, status, body) => {
                tokio::time::sleep(by).await;
                full(&mut socket, status, &[], &body).await
            }
            Reply::Nothing => {
                // Until the other end gives up.
                while matches!(socket.read(&mut [0; 64]).await, Ok(1..)) {}
                return;
            }
            Reply::Bytes(bytes) => {
                let _ = socket.write_all(bytes).await;
                return;
            }
            Reply::Endless(head) => {
                let _ = socket.write_all(head).await;
                while socket.write_all(&[b' '; 1 << 16]).await.is_ok() {}
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn full(
    socket: &mut TcpStream,
    status: u16,
    headers: &[(&str, String)],
    body: &str,
) -> std::io::Result<()> {
    let mut reply = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        reply += &format!("{name}: {value}\r\n");
    }
    socket
        .write_all(format!("{reply}\r\n{body}").as_bytes())
        .await
}

async fn request(socket: &mut TcpStream, read: &mut Vec<u8>) -> Option<Came> {
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).expect("text");
            let mut lines = head.split("\r\n");
            let path = lines.next()?.split(' ').nth(1)?.to_owned();
            let headers: BTreeMap<String, String> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").map_or("0", |length| length);
            let whole = end + 4 + length.parse::<usize>().expect("a length");
            if read.len() >= whole {
                let body = read[end + 4..whole].to_vec();
                read.drain(..whole);
                return Some(Came {
                    path,
                    headers,
                    body,
                });
            }
        }
        match socket.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(some) => read.extend_from_slice(&chunk[..some]),
        }
    }
}
