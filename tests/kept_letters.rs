//! Dead letters that are kept for a time or in a number, dropped in sight of everybody, and warned of.

use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::support::jobs::now_ms;
use crate::support::{Cli, Server, Setup, dead, eventually, scripts};

const PATIENCE: Duration = Duration::from_secs(30);
const DEAD: &str = "{jobs}:workers:dead";
const KEPT: &str = "{jobs}:workers:kept";
const HOUR: u64 = 3_600_000;

/// Dead letters that were buried at these times.
async fn bury(redis: &mut MultiplexedConnection, times: impl IntoIterator<Item = u64>) {
    let mut pipe = redis::pipe();
    for (n, at) in times.into_iter().enumerate() {
        pipe.xadd(
            DEAD,
            format!("{at}-{n}"),
            &[("type", "test.job"), ("dead.reason", "failed")],
        );
    }
    let _: () = pipe.query_async(redis).await.expect("dead letters");
}

/// What `status` says of dead letters.
async fn status(server: &Server, dead_letters: &str) -> String {
    let config = "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n[dead_letters]\n";
    let cli = Cli::new(server, &format!("{config}{dead_letters}"));
    cli.run(&["status"]).await.ok()
}

on_both_servers! {
    async fn what_is_older_than_it_is_kept_is_dropped_and_said_so(server: Server) {
        let mut redis = server.connect().await;
        let now = now_ms();
        bury(&mut redis, (0..250).map(|n| now - 3 * HOUR + n)).await;
        bury(&mut redis, (0..70).map(|n| now - HOUR + n)).await;
        let mut worker = Setup::new(&server).dead_letters("keep = \"2h\"").process();
        let said = worker.wait_for_log("dead letters dropped", PATIENCE).await;
        assert!(said.contains("WARN") && said.contains("dropped=250") && said.contains("keep=2h"), "{said}");
        let oldest = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_millis(now - 3 * HOUR));
        assert!(said.contains(&format!("buried_from={oldest}")), "{said}");
        assert_eq!(dead(&mut redis).await, 70);
        assert_eq!(redis.hget::<_, _, u64>(KEPT, "dropped").await.unwrap(), 250);
        let out = status(&server, "keep = \"2h\"").await;
        assert!(out.contains("jobs: 250 dead letters dropped so far by dead_letters.keep = \"2h\""), "{out}");
    }

    async fn of_a_number_the_newest_are_kept(server: Server) {
        let mut redis = server.connect().await;
        let now = now_ms();
        bury(&mut redis, (0..350).map(|n| now - HOUR + n)).await;
        let mut worker = Setup::new(&server).dead_letters("keep = \"42\"").process();
        let said = worker.wait_for_log("dead letters dropped", PATIENCE).await;
        assert!(said.contains("dropped=308"), "{said}");
        let left: Vec<(String, Vec<String>)> =
            redis::cmd("XRANGE").arg(DEAD).arg("-").arg("+").query_async(&mut redis).await.unwrap();
        assert_eq!((left.len(), &left[0].0), (42, &format!("{}-308", now - HOUR + 308)));
    }

    async fn unset_nothing_is_dropped_and_many_are_warned_of_once(server: Server) {
        let mut redis = server.connect().await;
        bury(&mut redis, (0..30).map(|n| 1000 + n)).await;
        let setup = Setup::new(&server).dead_letters("warn_at = 30");
        let mut workers = [setup.process(), setup.process()];
        eventually(PATIENCE, "one to warn", async || {
            workers.iter().any(|worker| worker.log().contains("many dead letters"))
        })
        .await;
        for worker in &mut workers {
            worker.terminate();
            worker.wait(PATIENCE).await;
        }
        let said: usize = workers.iter().map(|worker| worker.log().matches("many dead letters").count()).sum();
        assert_eq!(said, 1, "{}{}", workers[0].log(), workers[1].log());
        assert_eq!(dead(&mut redis).await, 30);
        let out = status(&server, "warn_at = 30").await;
        assert!(out.contains("jobs: 30 dead letters, and 30 is many"), "{out}");
        let out = status(&server, "warn_at = 31").await;
        assert!(!out.contains("many") && !out.contains("dropped"), "{out}");
    }

    /// The step by itself: whose turn it is, and what it answers where there is nothing to do.
    async fn one_worker_at_a_time_drops_and_a_key_in_the_way_stops_it(server: Server) {
        let mut redis = server.connect().await;
        bury(&mut redis, (0..250).map(|n| 1000 + n)).await;
        type Answer = Option<(u64, u64, Option<String>, Option<String>, u64, u64, Option<u64>)>;
        let expire = async |redis: &mut MultiplexedConnection, consumer: &str, step: &str, every: u64| {
            let mut call = redis::cmd("EVAL");
            call.arg(scripts::text("expire")).arg(6).arg(DEAD).arg(KEPT);
            for key in ["dead:notes", "dead:groups", "runs", "runs:out"] {
                call.arg(KEPT.replace("kept", key));
            }
            call.arg("age").arg(HOUR).arg(step).arg(consumer).arg(every).arg(100).arg(10_000).arg(600_000);
            call.query_async::<Answer>(redis).await
        };
        let first = expire(&mut redis, "a", "turn", 60_000).await.unwrap().expect("its turn");
        assert_eq!(first, (150, 100, Some("1000-0".to_owned()), Some("1099-99".to_owned()), 1, 0, None));
        assert_eq!(expire(&mut redis, "b", "turn", 60_000).await.unwrap(), None);
        assert_eq!(expire(&mut redis, "b", "on", 60_000).await.unwrap(), None);
        assert_eq!(expire(&mut redis, "a", "on", 60_000).await.unwrap().unwrap().0, 50);
        let last = expire(&mut redis, "a", "on", 60_000).await.unwrap().unwrap();
        assert_eq!((last.0, last.1, last.4), (0, 50, 0));
        bury(&mut redis, [2000]).await;
        let _: () = redis.set(KEPT, "x").await.unwrap();
        assert_eq!(expire(&mut redis, "a", "turn", 0).await.unwrap_err().code(), Some("WRONGTYPE"));
        assert_eq!(dead(&mut redis).await, 1);
    }
}
