//! A step whose answer got lost is repeated, and its repeat changes nothing.

use redis::Script;
use redis::aio::MultiplexedConnection;

use crate::support::{Server, entries};

const GROUP: &str = "workers";
const ME: &str = "sh1-30000-here-1-0000000000000001";
const OTHER: &str = "sh1-30000-there-2-0000000000000002";

/// The keys of the stream `jobs`, as the runtime names them.
fn key(name: &str) -> String {
    format!("{{jobs}}:workers:{name}")
}

async fn deliver(redis: &mut MultiplexedConnection) -> String {
    let id: String = redis::cmd("XADD")
        .arg("jobs")
        .arg("*")
        .arg("type")
        .arg("test.job")
        .query_async(redis)
        .await
        .unwrap();
    let _: redis::Value = redis::cmd("XGROUP")
        .arg("CREATE")
        .arg("jobs")
        .arg(GROUP)
        .arg("0")
        .query_async(redis)
        .await
        .unwrap();
    let _: redis::Value = redis::cmd("XREADGROUP")
        .arg("GROUP")
        .arg(GROUP)
        .arg(ME)
        .arg("STREAMS")
        .arg("jobs")
        .arg(">")
        .query_async(redis)
        .await
        .unwrap();
    id
}

async fn bury(redis: &mut MultiplexedConnection, id: &str) -> String {
    let script = Script::new(include_str!("../src/stream/scripts/bury.lua"));
    let mut call = script.key("jobs");
    call.key(key("retry"))
        .key(key("dead"))
        .key(key("failures"))
        .key(key(&format!("buried:{id}")));
    // Group, consumer, id, count, own, age, delete, reason, error, attempts, handler, stream, replays.
    for argument in [
        GROUP, ME, id, "1", "1", "0", "0", "failed", "no", "1", "test.job", "jobs", "0",
    ] {
        call.arg(argument);
    }
    call.invoke_async(redis).await.unwrap()
}

async fn park(redis: &mut MultiplexedConnection, id: &str) -> Vec<String> {
    let script = Script::new(include_str!("../src/stream/scripts/park.lua"));
    let mut call = script.key("jobs");
    call.key(key("retry")).key(key("failures")).arg(GROUP);
    for argument in [id, ME, "1", "0", "0", "0", "-", "no"] {
        call.arg(argument);
    }
    call.invoke_async(redis).await.unwrap()
}

on_both_servers! {
    async fn a_repeated_burial_writes_one_dead_letter(server: Server) {
        let mut redis = server.connect().await;
        let id = deliver(&mut redis).await;
        for _ in 0..3 {
            assert_eq!(bury(&mut redis, &id).await, "ok");
        }
        assert_eq!(entries(&mut redis, &key("dead")).await.len(), 1);
    }

    /// The answer to the park got lost; before it was repeated another worker had the entry, and succeeded.
    async fn a_repeated_park_neither_takes_nor_buries_what_went_on_meanwhile(server: Server) {
        let mut redis = server.connect().await;
        let id = deliver(&mut redis).await;
        assert_eq!(park(&mut redis, &id).await, ["ok"]);
        let wake = Script::new(include_str!("../src/stream/scripts/wake.lua"));
        let mut call = wake.key("jobs");
        call.key(key("retry")).key(key("failures")).key(key("again")).arg(GROUP).arg(OTHER).arg(10).arg(1_000_000);
        let _: redis::Value = call.invoke_async(&mut redis).await.unwrap();
        assert_eq!(park(&mut redis, &id).await, ["taken"]);

        let ack = Script::new(include_str!("../src/stream/scripts/ack.lua"));
        let mut call = ack.key("jobs");
        call.key(key("retry")).key(key("failures")).key(key(&format!("buried:{id}")));
        let acked: i64 = call.arg(GROUP).arg("0").arg("0").arg(&id).arg(OTHER).arg("2").invoke_async(&mut redis).await.unwrap();
        assert_eq!(acked, 1);
        assert_eq!(park(&mut redis, &id).await, ["nobody"]);
        // What a worker makes of that answer.
        assert_eq!(bury(&mut redis, &id).await, "ok");
        assert_eq!(entries(&mut redis, &key("dead")).await, []);
    }

    async fn attempts_go_on_where_the_parked_are_deleted_by_hand(server: Server) {
        let mut redis = server.connect().await;
        let id = deliver(&mut redis).await;
        assert_eq!(park(&mut redis, &id).await, ["ok"]);
        let _: i64 = redis::cmd("XGROUP").arg("DELCONSUMER").arg("jobs").arg(GROUP).arg("(parked)")
            .query_async(&mut redis).await.unwrap();
        let wake = Script::new(include_str!("../src/stream/scripts/wake.lua"));
        let mut call = wake.key("jobs");
        call.key(key("retry")).key(key("failures")).key(key("again")).arg(GROUP).arg(OTHER).arg(10).arg(1_000_000);
        let _: redis::Value = call.invoke_async(&mut redis).await.unwrap();
        let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING").arg("jobs").arg(GROUP)
            .arg("-").arg("+").arg(10).query_async(&mut redis).await.unwrap();
        assert_eq!(pending.len(), 1);
        assert_eq!((&pending[0].0, &pending[0].1[..], pending[0].3), (&id, OTHER, 2));
    }
}
