//! Passwords and certificates that are replaced while a worker runs: the files are read anew.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::Envelope;
use streamhand::Settings;
use streamhand::eventstore::{EventStore, Expected, RedisEventStore};

use crate::eventstore::orders::Added;
use crate::eventstore::shelf::{order, orders};
use crate::support::jobs::{self, Action, many};
use crate::support::{
    Authority, Kind, Server, Setup, TlsServer, eventually, publisher_with, settled,
};

const PATIENCE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);

on_both_servers! {
    async fn a_password_that_is_replaced_is_read_anew_by_everything(kind: Kind) {
        let server = Server::builder(kind).password("first0").start().await;
        let mut redis = server.connect().await;
        let dir = crate::support::scratch_dir();
        let file = dir.path().join("password");
        std::fs::write(&file, "first0\n").unwrap();
        let url = format!("redis://127.0.0.1:{}", server.port());
        let line = format!("password_file = {file:?}");
        let worker = Setup::at(url.clone()).redis(&line).start();
        let publisher = publisher_with(&url, &line);
        let settings = Settings::from_toml_str(&format!("[redis]\nurl = \"{url}\"\n{line}")).unwrap();
        let store = RedisEventStore::new(&settings.redis, orders()).unwrap();
        let added = || vec![Envelope::new("order.added").json(&Added { cents: 1 }).unwrap()];
        let job = |id: &str| Envelope::new("test.job").json(&jobs::Job::new(id, Action::Succeed)).unwrap();
        publisher.publish_envelope("jobs", job("before")).await.unwrap();
        store.append(&order("o"), added(), Expected::Any).await.unwrap();
        eventually(PATIENCE, "the first", async || jobs::handled(&mut redis).await.len() == 1).await;
        settled(&mut redis, "jobs", PATIENCE).await;

        // In either order: the file comes first, or the server does.
        for (round, password) in ["second0", "third00"].into_iter().enumerate() {
            if round == 0 {
                std::fs::write(&file, format!("{password}\n")).unwrap();
            }
            set_password(&mut redis, password).await;
            end_all_others(&mut redis).await;
            if round == 1 {
                std::fs::write(&file, format!("{password}\n")).unwrap();
            }
            eventually(SOON, "a publisher that is there for long", async || {
                publisher.publish_envelope("jobs", job(password)).await
            })
            .await;
            eventually(SOON, "the event store", async || store.append(&order("o"), added(), Expected::Any).await).await;
            eventually(SOON, "it to be handled", async || jobs::handled(&mut redis).await.contains_key(password)).await;
            settled(&mut redis, "jobs", PATIENCE).await;
        }
        assert_eq!(worker.stop().await.unsettled, 0);
    }

    /// The CA, and what it has issued to both ends.
    async fn certificates_that_are_replaced_are_read_anew(kind: Kind) {
        let dir = crate::support::scratch_dir();
        let file = |name: &str| dir.path().join(name);
        let (ca, other) = (Authority::new(), Authority::new());
        let shown = ca.issue("localhost");
        let mut server = TlsServer::start_behind_front(kind, &shown, Some(&ca.file())).await;
        let put = |ca: &Authority| {
            let own = ca.issue("worker");
            for (from, to) in [(ca.file(), "ca"), (own.cert, "cert"), (own.key, "key")] {
                std::fs::copy(from, file(to)).unwrap();
            }
        };
        put(&ca);
        let setup = ["ca", "cert", "key"].iter().fold(Setup::at(server.url("localhost")), |setup, name| {
            setup.redis(&format!("tls_{name} = {:?}", file(name)))
        });
        let worker = setup.start();
        let mut redis = server.plain.connect().await;
        jobs::publish(&mut redis, "jobs", &many("before", 3, &Action::Succeed)).await;
        eventually(PATIENCE, "the first", async || jobs::handled(&mut redis).await.len() == 3).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let next = other.issue("localhost");
        for (from, to) in [(&next.cert, &shown.cert), (&next.key, &shown.key), (&other.file(), &ca.file())] {
            std::fs::copy(from, to).unwrap();
        }
        server.restart_front().await;
        put(&other);
        end_all_others(&mut redis).await;
        jobs::publish(&mut redis, "jobs", &many("after", 3, &Action::Succeed)).await;
        eventually(SOON, "those after it", async || jobs::handled(&mut redis).await.contains_key("after-2")).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(worker.stop().await.unsettled, 0);
    }
}

async fn set_password(redis: &mut MultiplexedConnection, password: &str) {
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("requirepass").arg(password);
    let () = set.query_async(redis).await.unwrap();
}

async fn end_all_others(redis: &mut MultiplexedConnection) {
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .arg("SKIPME")
        .arg("yes");
    let _: u64 = kill.query_async(redis).await.unwrap();
}
