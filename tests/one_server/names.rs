//! A name with several addresses, of which the first is silent: as a host is that is gone, or behind a firewall.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};

use crate::support::jobs::{self, Action, many};
use crate::support::{Cli, Names, Server, Setup, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);
/// Less than the time that a connection may take to be made.
const SOON: Duration = Duration::from_secs(4);

/// An address that takes no connection and refuses none: its queue is full, and Linux passes over what comes.
struct Silent {
    _listener: tokio::net::TcpListener,
    _queued: Vec<TcpStream>,
}

impl Silent {
    async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queued = Vec::new();
        // Until one is not taken any more.
        while let Ok(connected) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            queued.push(connected.unwrap());
        }
        Silent {
            _listener: listener,
            _queued: queued,
        }
    }
}

on_both_servers! {
    async fn a_silent_first_address_keeps_nobody_from_the_second(server: Server) {
        let _silent = Silent::at(SocketAddr::from(([127, 0, 0, 2], server.port()))).await;
        let names = Names::of(&["127.0.0.2", "127.0.0.1"]);
        let url = format!("redis://redis.test:{}", server.port());
        let [preload, addresses] = names.env();
        let builder = crate::support::WorkerProcess::builder().config(&Setup::at(url.clone()).toml());
        let mut redis = server.connect().await;
        jobs::publish(&mut redis, "jobs", &many("job", 20, &Action::Succeed)).await;
        let since = Instant::now();
        let mut worker = builder.env(preload.0, &preload.1).env(addresses.0, &addresses.1).start();
        eventually(PATIENCE, "them to be handled", async || match jobs::handled(&mut redis).await.len() {
            20 => Ok(()),
            n => Err(format!("{n}\n{}", worker.log())),
        })
        .await;
        assert!(since.elapsed() < SOON, "it took {:?}:\n{}", since.elapsed(), worker.log());
        settled(&mut redis, "jobs", PATIENCE).await;
        let program = Cli::at(&url, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n");
        let program = program.with_env(preload.0, &preload.1).with_env(addresses.0, &addresses.1);
        for command in ["status", "publish jobs test.job {\"id\":\"p\",\"action\":\"succeed\"}", "dlq list"] {
            let since = Instant::now();
            let args: Vec<&str> = command.split(' ').collect();
            program.run(&args).await.ok();
            assert!(since.elapsed() < SOON, "{command} took {:?}", since.elapsed());
        }
        worker.terminate();
        assert!(worker.wait(PATIENCE).await.success(), "{}", worker.log());
    }
}
