//! Workers that are configured each in its own way.

use std::time::Duration;

use super::{doctor, found, is_gone};
use crate::support::{Server, Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    async fn workers_that_are_configured_otherwise_are_told_of(server: Server) {
        let cli = doctor(&server);
        let mut older = Setup::new(&server).retry("max_attempts = 3").process();
        older.wait_for_log("the group is new", PATIENCE).await;
        let mut newer = Setup::new(&server).process();
        let two = async || {
            let list = cli.run(&["worker", "list", "--json"]).await.json();
            list["fleet"]["workers"].as_array().is_some_and(|workers| workers.len() == 2).then_some(())
        };
        eventually(PATIENCE, "both to be heard of", two).await;
        let mend = found(&cli, "notice", "workers of 2 configurations").await;
        let words: Vec<&str> = mend.split(' ').collect();
        assert_eq!(&words[..3], ["shop", "worker", "drain"]);
        cli.run(&words[1..]).await.ok();
        older.wait(PATIENCE).await;
        eventually(PATIENCE, "one to be left", async || {
            let list = cli.run(&["worker", "list", "--json"]).await.json();
            list["fleet"]["workers"].as_array().is_some_and(|workers| workers.iter().filter(|one| one["state"] != "gone").count() == 1).then_some(())
        })
        .await;
        is_gone(&cli, "configurations").await;
        assert!(!newer.has_ended(), "the older one is the one to go");
    }
}
