//! One address that leads to a server, and later elsewhere: a proxy, or a name, before servers that change places. What
//! is connected stays connected, as it does behind such a one.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::free_ports;

/// Passes connections on, each to where it leads when they are made.
pub struct Switch {
    port: u16,
    to: Arc<AtomicU16>,
    /// How often it has forgotten its connections.
    forgotten: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Switch {
    pub async fn to(server_port: u16) -> Switch {
        let mut listening = None;
        for port in free_ports() {
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                listening = Some((port, listener));
                break;
            }
        }
        let (port, listener) = listening.expect("a free port for the switch");
        let to = Arc::new(AtomicU16::new(server_port));
        let forgotten = watch::Sender::new(0);
        let task = tokio::spawn(accept(listener, to.clone(), forgotten.clone()));
        Switch {
            port,
            to,
            forgotten,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// New connections lead to this server.
    pub fn lead_to(&self, server_port: u16) {
        self.to.store(server_port, SeqCst);
    }

    /// Forgets the connections there are, as a router does with those that were silent for long: they stay open at both
    /// ends, and nothing comes through any more. New ones are fine.
    pub fn forget(&self) {
        self.forgotten.send_modify(|times| *times += 1);
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, to: Arc<AtomicU16>, forgotten: watch::Sender<u64>) {
    // They end with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (to, mut forgets) = (to.load(SeqCst), forgotten.subscribe());
        connections.spawn(async move {
            let mut ends = connect(client, to).await?;
            let passing = {
                let (client, server) = &mut ends;
                tokio::select! {
                    passed = tokio::io::copy_bidirectional(client, server) => Some(passed),
                    _ = forgets.changed() => None,
                }
            };
            match passing {
                Some(_) => Ok::<_, io::Error>(()),
                None => {
                    let _open = ends;
                    std::future::pending().await
                }
            }
        });
    }
}

async fn connect(client: TcpStream, to: u16) -> io::Result<(TcpStream, TcpStream)> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok((client, server))
}
