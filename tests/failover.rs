//! What another server does not know: a replica that takes over may lack the last acknowledgements, and the last
//! entries. It is played by the same server, brought back to what it had saved earlier.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job};
use crate::support::{Kind, Proxy, Server, Setup, eventually, pending, settled};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    async fn what_was_acknowledged_before_a_failover_lost_it_does_not_run_again(kind: Kind) {
        let mut server = Server::start(kind).await;
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).worker("lease = \"10s\"").process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        add(&mut redis, "1-0", &Job::new("acknowledged", Action::Take(1_500))).await;
        eventually(PATIENCE, "it to run", async || jobs::started(&mut redis).await.len() == 1).await;
        save(&mut redis).await;
        settled(&mut redis, "jobs", PATIENCE).await;

        server.restart().await;
        let mut redis = server.connect().await;
        assert_eq!(pending(&mut redis, "jobs").await.len(), 1, "the acknowledgement is lost");
        worker.wait_for_log("handled already", PATIENCE).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        // The traces are what they were when the server was saved: it began, once.
        assert_eq!((jobs::started(&mut redis).await.len(), jobs::ended(&mut redis).await.len()), (1, 0));
    }

    /// Both the entry and its acknowledgement are lost, and another entry gets the id.
    async fn another_entry_under_the_id_of_one_that_was_acknowledged_is_handled(kind: Kind) {
        let mut server = Server::start(kind).await;
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).worker("lease = \"10s\"").process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        save(&mut redis).await;
        add(&mut redis, "1-0", &Job::new("lost", Action::Succeed)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(jobs::handled(&mut redis).await["lost"], 1);

        server.restart().await;
        let mut redis = server.connect().await;
        add(&mut redis, "1-0", &Job::new("other", Action::Succeed)).await;
        eventually(PATIENCE, "the other one to be handled", async || {
            jobs::handled(&mut redis).await.get("other") == Some(&1)
        })
        .await;
        settled(&mut redis, "jobs", PATIENCE).await;
    }

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

async fn add(redis: &mut MultiplexedConnection, id: &str, job: &Job) {
    let data = serde_json::to_string(job).unwrap();
    let _: String = redis::cmd("XADD")
        .arg("jobs")
        .arg(id)
        .arg(&["type", "test.job", "data", &data])
        .query_async(redis)
        .await
        .unwrap();
}

/// What the server will know after its restart.
async fn save(redis: &mut MultiplexedConnection) {
    let _: () = redis::cmd("SAVE").query_async(redis).await.unwrap();
}
