//! What each step refuses, asked of the step itself: a worker looks before it asks, and is seldom refused.

use std::collections::BTreeMap;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::support::{Server, scripts};

const NAME: &str = "totals";
const CHECKPOINT: &str = "{orders}:totals:projection";
const REBUILD: &str = "{orders}:totals:rebuild";

/// A checkpoint that `runner` has.
async fn stands(
    redis: &mut MultiplexedConnection,
    key: &str,
    runner: &str,
    generation: &str,
    at: &str,
) {
    let fields = [
        ("generation", generation),
        ("made", "2"),
        ("position", at),
        ("read", "0"),
        ("passed", "0"),
        ("bad", "0"),
        ("state", "running"),
        ("runner", runner),
        ("until", "0"),
    ];
    let () = redis.hset_multiple(key, &fields).await.unwrap();
    if key == CHECKPOINT {
        // A projection is a group of its public stream.
        let _: redis::RedisResult<()> = redis.xgroup_create_mkstream("orders", NAME, at).await;
    }
}

async fn position(redis: &mut MultiplexedConnection) -> String {
    let of: BTreeMap<String, String> = redis.hgetall(CHECKPOINT).await.unwrap();
    format!("{} {}", of["generation"], of["position"])
}

async fn add(redis: &mut MultiplexedConnection, id: &str) {
    let () = redis.xadd("orders", id, &[("a", "b")]).await.unwrap();
}

/// `me` passes entries over up to a position.
async fn project(redis: &mut MultiplexedConnection, from: &str, to: &str) -> Vec<String> {
    let script = scripts::named("project");
    let mut call = script.key("orders");
    call.key(CHECKPOINT)
        .key("{orders}:totals:dead")
        .key("{orders}:totals:again")
        .key("{orders}:reached");
    call.arg(&[NAME, "me", "1000", "1", from, "public", "1", to, "1"]);
    call.invoke_async(redis).await.unwrap()
}

/// `me` has generation 2 served, which was built beside 1.
async fn switch(redis: &mut MultiplexedConnection) -> Vec<String> {
    let script = scripts::named("project_rebuild");
    let mut call = script.key("orders");
    call.key(CHECKPOINT)
        .key(REBUILD)
        .key("{orders}:totals:dead");
    call.key("{orders}:totals:rebuild:dead")
        .key("{orders}:totals:again")
        .key("{orders}:reached");
    call.arg(&[NAME, "me", "1000", "switch", "2", "1"]);
    call.invoke_async(redis).await.unwrap()
}

on_both_servers! {
    async fn a_batch_of_who_has_no_lease_any_more_does_nothing(server: Server) {
        let mut redis = server.connect().await;
        add(&mut redis, "5-0").await;
        stands(&mut redis, CHECKPOINT, "another", "1", "0-0").await;
        assert_eq!(project(&mut redis, "0-0", "5-0").await, ["moved"]);
        assert_eq!(position(&mut redis).await, "1 0-0");
        stands(&mut redis, CHECKPOINT, "me", "1", "0-0").await;
        assert_eq!(project(&mut redis, "0-0", "5-0").await, ["done", "5-0", "1"]);
        // What was done already, and a view that is no longer served.
        assert_eq!(project(&mut redis, "0-0", "5-0").await, ["moved"]);
        stands(&mut redis, CHECKPOINT, "me", "2", "0-0").await;
        assert_eq!(project(&mut redis, "0-0", "5-0").await, ["moved"]);
    }

    async fn a_batch_passes_nothing_over_that_is_gone_from_the_public_stream(server: Server) {
        let mut redis = server.connect().await;
        for id in ["5-0", "6-0", "7-0"] {
            add(&mut redis, id).await;
        }
        let _: u64 = redis.xdel("orders", &["6-0"]).await.unwrap();
        stands(&mut redis, CHECKPOINT, "me", "1", "0-0").await;
        assert_eq!(project(&mut redis, "0-0", "7-0").await, ["gap", "7-0", "3"]);
        assert_eq!(position(&mut redis).await, "1 0-0");
        // Trimmed, and so nowhere noted as deleted.
        let _: u64 = redis::cmd("XTRIM").arg("orders").arg("MAXLEN").arg(0).query_async(&mut redis).await.unwrap();
        stands(&mut redis, CHECKPOINT, "me", "1", "6-0").await;
        assert_eq!(project(&mut redis, "6-0", "7-0").await, ["gap", "7-0", "3"]);
    }

    async fn a_view_that_is_not_as_far_is_not_served_in_place_of_the_old_one(server: Server) {
        let mut redis = server.connect().await;
        for id in ["5-0", "6-0"] {
            add(&mut redis, id).await;
        }
        stands(&mut redis, CHECKPOINT, "a worker", "1", "6-0").await;
        stands(&mut redis, REBUILD, "me", "2", "5-0").await;
        assert_eq!(switch(&mut redis).await, ["behind", "5-0", "6-0"]);
        assert_eq!(position(&mut redis).await, "1 6-0");
        stands(&mut redis, REBUILD, "another", "2", "6-0").await;
        assert_eq!(switch(&mut redis).await, ["gone"]);
        stands(&mut redis, REBUILD, "me", "2", "6-0").await;
        assert_eq!(switch(&mut redis).await, ["done"]);
        assert_eq!(position(&mut redis).await, "2 6-0");
        assert!(!redis.exists::<_, bool>(REBUILD).await.unwrap());
    }
}
