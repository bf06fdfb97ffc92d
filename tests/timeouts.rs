//! A handler that takes too long is told to stop, and dropped when it does not.

use std::time::Duration;

use crate::support::jobs::{self, Action, Job};
use crate::support::{Server, Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    /// With room for one handler, whatever comes after the one that hangs shows that its slot is free again.
    async fn it_fails_frees_its_slot_and_the_next_one_runs(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("concurrency = 1")
            .retry("max_attempts = 2")
            .defaults("timeout = \"300ms\"")
            .defaults("grace = \"100ms\"");
        let worker = setup.start();
        let all = [
            Job::new("hangs", Action::Hang),
            Job::new("listens", Action::UntilTold),
            Job::new("next", Action::Succeed),
        ];
        jobs::publish(&mut redis, "jobs", &all).await;
        eventually(PATIENCE, "both to be dead letters after two attempts", async || {
            redis::cmd("XLEN").arg("{jobs}:workers:dead").query_async::<u64>(&mut redis).await.unwrap() == 2
        })
        .await;
        eventually(PATIENCE, "the next one to run", async || jobs::handled(&mut redis).await.contains_key("next")).await;
        let ended = jobs::ended(&mut redis).await;
        assert_eq!(ended.iter().filter(|trace| trace.id == "next").count(), 1);
        let told: Vec<_> = ended.iter().filter(|trace| trace.id == "listens").map(|trace| &trace.told[..]).collect();
        assert_eq!(told, ["TimedOut", "TimedOut"]);
        assert_eq!(jobs::starts_of(&mut redis, "hangs").await, 2);
        let letters: Vec<(String, Vec<(String, String)>)> =
            redis::cmd("XRANGE").arg("{jobs}:workers:dead").arg("-").arg("+").query_async(&mut redis).await.unwrap();
        let errors: Vec<_> = letters
            .iter()
            .flat_map(|(_, fields)| fields.iter().find(|(name, _)| name == "dead.error"))
            .map(|(_, error)| &error[..])
            .collect();
        assert!(errors.contains(&"the handler timed out after 300ms"), "{errors:?}");
        worker.stop().await;
    }
}
