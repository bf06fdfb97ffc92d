//! After a failover the new server may lack what the old one had last, and give an old id to another entry.

use std::time::Duration;

use crate::support::jobs::{self, Action, Job};
use crate::support::{Proxy, Server, Setup, eventually, pending};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    async fn an_acknowledgement_does_not_touch_another_entry_of_the_same_id(server: Server) {
        let mut server = server;
        let mut proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).start();
        let mut redis = server.connect().await;
        let ids = jobs::publish(&mut redis, "jobs", &[Job::new("slow", Action::Take(2_500))]).await;
        eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.len() == 1).await;

        proxy.refuse().await;
        // It keeps nothing: another server, as far as anybody can tell.
        server.restart().await;
        let mut redis = server.connect().await;
        let mut again = redis::pipe();
        again.cmd("XADD").arg("jobs").arg(&ids[0]).arg("type").arg("test.other").ignore();
        again.cmd("XGROUP").arg("CREATE").arg("jobs").arg("workers").arg("0").ignore();
        again.cmd("XREADGROUP").arg("GROUP").arg("workers").arg("c1").arg("STREAMS").arg("jobs").arg(">").ignore();
        let _: () = again.query_async(&mut redis).await.unwrap();
        proxy.accept_again();

        eventually(PATIENCE, "the handler to end", async || jobs::handled(&mut redis).await.contains_key("slow")).await;
        // What is settled after it shows that it is settled.
        jobs::publish(&mut redis, "jobs", &[Job::new("next", Action::Succeed)]).await;
        eventually(PATIENCE, "the next one to be handled", async || jobs::handled(&mut redis).await.len() == 2).await;
        let summary = worker.stop().await;
        assert_eq!((summary.settled, summary.unsettled), (2, 0));
        assert_eq!(pending(&mut redis, "jobs").await, [("c1".to_owned(), 1)]);
    }
}
