//! What a user may not do, and what may not be looked at.

use super::{OF_JOBS, findings, found, is_gone, mended, that_say};
use crate::support::{Cli, Server, Setup, eventually};

/// The README's rule, for the stream of the tests.
fn rule(user: &str) -> String {
    let readme = include_str!("../../README.md");
    let begin = format!("ACL SETUSER {user} ");
    let rule = readme
        .lines()
        .find(|line| line.starts_with(&begin))
        .expect("the rule");
    rule.replace("orders", "jobs")
}

fn as_user(server: &Server, user: &str) -> Cli {
    Cli::at(
        &format!("redis://{user}:secret@127.0.0.1:{}", server.port()),
        OF_JOBS,
    )
}

on_both_servers! {
    async fn the_rule_of_the_readme_lets_a_worker_do_all(server: Server) {
        let mut redis = server.connect().await;
        super::run(&mut redis, &rule("worker")).await;
        let cli = as_user(&server, "worker");
        is_gone(&cli, "the user worker lacks").await;
        // What it may not look at is said, with the rule that would let it.
        mended(&cli, &mut redis, "notice", "client-output-buffer-limit: not known, the server says NOPERM").await;
        is_gone(&cli, "timeout and tcp-keepalive: not known").await;
        super::run(&mut redis, "ACL SETUSER worker -info").await;
        mended(&cli, &mut redis, "notice", "the server's version, memory, replicas and clients: not known").await;
    }

    async fn each_right_that_is_missing_is_named_by_its_rule(server: Server) {
        let mut redis = server.connect().await;
        super::run(&mut redis, &rule("worker")).await;
        let cli = as_user(&server, "worker");
        for (lacks, named) in [
            ("-xclaim", "+xclaim (script "),
            ("-xreadgroup", "+xreadgroup (reading"),
            ("-client|unblock", "+client|unblock (reading)"),
            ("-zadd -hset", "+hset (script "),
            ("-script|load", "+script|load (every script)"),
            ("-rename", "+rename (script project_rebuild)"),
        ] {
            super::run(&mut redis, &format!("ACL SETUSER worker {lacks}")).await;
            let severity = if lacks == "-rename" { "warning" } else { "danger" };
            mended(&cli, &mut redis, severity, named).await;
        }
        super::run(&mut redis, "ACL SETUSER worker resetkeys ~jobs ~streamhand:*").await;
        mended(&cli, &mut redis, "danger", "~{jobs}:* (").await;
        super::run(&mut redis, "ACL SETUSER worker resetkeys ~{jobs}:* ~streamhand:*").await;
        mended(&cli, &mut redis, "danger", "~jobs (").await;
        super::run(&mut redis, "ACL SETUSER worker resetkeys ~{jobs}:* ~jobs").await;
        mended(&cli, &mut redis, "danger", "~streamhand:* (").await;
    }

    /// Nothing of it is done, whatever the user may.
    async fn trying_changes_nothing(server: Server) {
        let mut redis = server.connect().await;
        let worker = Setup::new(&server).start();
        eventually(std::time::Duration::from_secs(20), "the group", async || {
            redis::cmd("EXISTS").arg("jobs").query_async::<bool>(&mut redis).await.is_ok_and(|there| there)
        })
        .await;
        worker.stop().await;
        // Without scripts, by ACL DRYRUN, and by calls.
        super::run(&mut redis, "ACL SETUSER none on >secret ~* +@all -@scripting").await;
        super::run(&mut redis, "ACL SETUSER less on >secret ~* +@all -@scripting -acl").await;
        let keys = async |redis: &mut redis::aio::MultiplexedConnection| {
            let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(redis).await.unwrap();
            keys.sort();
            let mut dumps = Vec::new();
            for key in &keys {
                dumps.push(redis::cmd("DUMP").arg(key).query_async::<Vec<u8>>(redis).await.unwrap());
            }
            (keys, dumps)
        };
        let before = keys(&mut redis).await;
        let all = Cli::new(&server, OF_JOBS);
        is_gone(&all, "lacks").await;
        for user in ["none", "less"] {
            let cli = as_user(&server, user);
            let mend = found(&cli, "danger", "+evalsha (every script)").await;
            assert!(mend.contains("+script|load"), "{mend}");
            let all = findings(&cli).await;
            assert_eq!(that_say(&all, "lacks").len(), 2, "{all:#?}");
        }
        assert_eq!(keys(&mut redis).await, before);
    }
}
