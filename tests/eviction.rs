//! A server that deletes keys when its memory is full is warned of, by workers and by the status.

use std::time::Duration;

use crate::support::{Cli, Kind, Server, Setup};

const PATIENCE: Duration = Duration::from_secs(30);
const CONFIG: &str = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]";

on_both_servers! {
    async fn a_policy_that_deletes_keys_is_warned_of(kind: Kind) {
        for policy in ["volatile-lru", "allkeys-random"] {
            let server = Server::builder(kind).args(["--maxmemory-policy", policy]).start().await;
            let warning = format!("the server's maxmemory-policy is {policy}: when its memory is full it deletes keys");
            let mut worker = Setup::new(&server).process();
            worker.wait_for_log(&warning, PATIENCE).await;
            let cli = Cli::new(&server, CONFIG);
            let status = cli.run(&["status"]).await.ok();
            assert!(status.contains(&warning), "{status}");
            let status = cli.run(&["status", "--json"]).await.json();
            assert_eq!((&status["maxmemory_policy"], &status["evicts"]), (&policy.into(), &true.into()));
        }
    }

    async fn one_that_deletes_none_is_not(server: Server) {
        let mut redis = server.connect().await;
        let mut worker = Setup::new(&server).worker("lease = \"1s\"").process();
        worker.wait_for_log("the group is new", PATIENCE).await;
        let cli = Cli::new(&server, CONFIG);
        let status = cli.run(&["status", "--json"]).await.json();
        assert_eq!((&status["maxmemory_policy"], &status["evicts"]), (&"noeviction".into(), &false.into()));
        let status = cli.run(&["status"]).await.ok();
        assert!(!status.contains("maxmemory"), "{status}");
        // Whether it does is not known to a user who may not ask.
        let mut user = redis::cmd("ACL");
        let rule = "SETUSER blind on >secret ~* +@all -info";
        let () = user.arg(rule.split(' ').collect::<Vec<_>>()).query_async(&mut redis).await.unwrap();
        let blind = Cli::at(&format!("redis://blind:secret@127.0.0.1:{}", server.port()), CONFIG);
        let status = blind.run(&["status"]).await.ok();
        assert!(status.contains("its memory is full is not known (NOPERM): allow this user INFO"), "{status}");
        let status = blind.run(&["status", "--json"]).await.json();
        assert_eq!((&status["maxmemory_policy"], &status["evicts"]), (&().into(), &().into()));
        worker.terminate();
        worker.wait(PATIENCE).await;
        assert!(!worker.log().contains("maxmemory"), "{}", worker.log());
    }
}
