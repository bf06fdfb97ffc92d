//! What another server does not know: a replica that takes over may lack the last acknowledgements, and the last
//! entries. It is played by the same server, brought back to what it had saved earlier.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job};
use crate::support::{Kind, Server, Setup, eventually, pending, settled};

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
