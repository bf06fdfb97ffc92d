//! Servers that follow each other: a primary, its replica, and a replica that takes over.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use super::{Kind, Server, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server that is quick to give its data to a replica.
pub async fn a_primary(kind: Kind) -> Server {
    let args = ["--repl-diskless-sync-delay", "0"];
    Server::builder(kind).args(args).start().await
}

/// Makes a server a replica, and waits until it has all that the other has.
pub async fn follow(redis: &mut MultiplexedConnection, primary: &Server) {
    replicaof(redis, &["127.0.0.1", &primary.port().to_string()]).await;
    eventually(PATIENCE, "the replica to have everything", async || {
        let info: redis::InfoDict = redis::cmd("INFO")
            .arg("replication")
            .query_async(redis)
            .await
            .ok()?;
        let (link, sync): (String, u8) = (
            info.get("master_link_status")?,
            info.get("master_sync_in_progress")?,
        );
        (link == "up" && sync == 0).then_some(())
    })
    .await;
}

/// Makes a replica a primary.
pub async fn lead(redis: &mut MultiplexedConnection) {
    replicaof(redis, &["NO", "ONE"]).await;
}

async fn replicaof(redis: &mut MultiplexedConnection, of: &[&str]) {
    let _: () = redis::cmd("REPLICAOF")
        .arg(of)
        .query_async(redis)
        .await
        .unwrap();
}
