//! A step whose answer got lost is repeated, and its repeat changes nothing.

use redis::aio::MultiplexedConnection;

use crate::support::{Server, entries, scripts};

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
    bury_until(redis, id, "4000000000000").await
}

async fn bury_until(redis: &mut MultiplexedConnection, id: &str, own_until: &str) -> String {
    let script = scripts::named("bury");
    let mut call = script.key("jobs");
    call.key(key("retry"))
        .key(key("dead"))
        .key(key("failures"))
        .key(key("guards"))
        .key(key("notes"))
        .key("jobs");
    // Of all: group, delete, stream, consumer, first and last id. Then consumer, id, count, own until, age, reason, error,
    // attempts, handler, replays, crash checks, letters, strings.
    call.arg(scripts::packed(&[
        GROUP, "0", "jobs", ME, id, id, ME, id, "1", own_until, "0", "failed", "no", "1",
        "test.job", "0", "0", "", "0",
    ]));
    let said: Vec<String> = call.invoke_async(redis).await.unwrap();
    said[0].clone()
}

async fn park(redis: &mut MultiplexedConnection, id: &str) -> Vec<String> {
    let script = scripts::named("park");
    let mut call = script.key("jobs");
    call.key(key("retry"))
        .key(key("failures"))
        .key(key("waiting"));
    call.arg(scripts::packed(&[
        GROUP, ME, id, id, "", "", "", id, ME, "1", "0", "0", "0", "-", "no", "-",
    ]));
    call.invoke_async(redis).await.unwrap()
}

/// Releases the third delivery of what is nobody's: until when it is ours, how many were released when it was delivered, and
/// whether it has attempts left.
async fn bring_back(redis: &mut MultiplexedConnection, id: &str, nobodys: [&str; 3]) -> String {
    let script = scripts::named("park");
    let mut call = script.key("jobs");
    call.key(key("retry"))
        .key(key("failures"))
        .key(key("waiting"))
        .key(key("guards"));
    let [own_until, released, has_more] = nobodys;
    call.arg(scripts::packed(&[
        GROUP, ME, id, id, own_until, released, has_more, id, ME, "3", "600000", "1", "0", "-", "",
        "-",
    ]));
    let said: Vec<String> = call.invoke_async(redis).await.unwrap();
    said[0].clone()
}

async fn fenced_ack(redis: &mut MultiplexedConnection, id: &str) -> i64 {
    let script = scripts::named("ack");
    let mut call = script.key("jobs");
    call.key(key("retry"))
        .key(key("failures"))
        .key(key("guards"));
    call.arg(GROUP).arg("1").arg("0").arg(id).arg(ME).arg("1");
    call.invoke_async(redis).await.unwrap()
}

/// What a renewal says of one entry, or nothing where it is still held.
async fn renew(redis: &mut MultiplexedConnection, id: &str) -> Vec<(String, String, u32)> {
    let script = scripts::named("renew");
    let mut call = script.key("jobs");
    call.key(key("position")).key(key("protocol"));
    for argument in [GROUP, ME, "-", "+", "0", id, "1"] {
        call.arg(argument);
    }
    type Renewed = (Vec<(String, String, u32)>, u64, redis::Value, redis::Value);
    let (lost, ..): Renewed = call.invoke_async(redis).await.unwrap();
    lost
}

/// How many of the keys are there that tell of entries not settled.
async fn left_of_it(redis: &mut MultiplexedConnection) -> usize {
    let mut exists = redis::cmd("EXISTS");
    exists.arg(key("retry")).arg(key("failures"));
    exists.query_async(redis).await.unwrap()
}

on_both_servers! {
    /// It went to another consumer at the same count, or to the same one at the next.
    async fn a_step_of_a_delivery_that_is_over_does_nothing(server: Server) {
        let mut redis = server.connect().await;
        for (consumer, justid) in [(OTHER, Some("JUSTID")), (ME, None)] {
            let id = deliver(&mut redis).await;
            assert_eq!(renew(&mut redis, &id).await, []);
            let mut take = redis::cmd("XCLAIM");
            take.arg("jobs").arg(GROUP).arg(consumer).arg(0).arg(&id).arg(justid);
            let _: redis::Value = take.query_async(&mut redis).await.unwrap();
            let mut pending = redis::cmd("XPENDING");
            pending.arg("jobs").arg(GROUP).arg(&id).arg(&id).arg(1);
            let holder = async |redis: &mut MultiplexedConnection| {
                let pending: Vec<(String, String, u64, u64)> = pending.query_async(redis).await.unwrap();
                pending.into_iter().map(|(_, consumer, _, count)| (consumer, count)).collect::<Vec<_>>()
            };
            let before = holder(&mut redis).await;
            assert_eq!(park(&mut redis, &id).await, ["taken"]);
            assert_eq!(bury(&mut redis, &id).await, "taken");
            assert_eq!(fenced_ack(&mut redis, &id).await, 0);
            assert_eq!(renew(&mut redis, &id).await, [(id.clone(), "taken".to_owned(), 1)]);
            assert_eq!(holder(&mut redis).await, before);
            assert_eq!(entries(&mut redis, &key("dead")).await, []);
            let _: () = redis::cmd("DEL").arg("jobs").query_async(&mut redis).await.unwrap();
        }
    }

    /// And takes along what else there is of the entry: a due time left behind would bring it back.
    async fn a_repeated_burial_writes_one_dead_letter(server: Server) {
        let mut redis = server.connect().await;
        let id = deliver(&mut redis).await;
        let _: () = redis::cmd("ZADD").arg(key("retry")).arg(1).arg(&id).query_async(&mut redis).await.unwrap();
        let mut record = redis::cmd("HSET");
        record.arg(key("failures")).arg(&id).arg("1 0 1 - - no");
        let _: () = record.query_async(&mut redis).await.unwrap();
        for _ in 0..3 {
            assert_eq!(bury(&mut redis, &id).await, "ok");
        }
        assert_eq!(entries(&mut redis, &key("dead")).await.len(), 1);
        assert_eq!(left_of_it(&mut redis).await, 0);
    }

    /// It stayed on its way until the guard of what was done meanwhile may be gone: its worker is asked whether it still
    /// stands. What was done meanwhile is known for a time, and nothing stays of it.
    async fn a_burial_of_what_is_nobodys_is_done_until_the_time_it_names(server: Server) {
        let mut redis = server.connect().await;
        let id = deliver(&mut redis).await;
        let _: i64 = redis::cmd("XACK").arg("jobs").arg(GROUP).arg(&id).query_async(&mut redis).await.unwrap();
        let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
        let now = seconds * 1000;
        assert_eq!(bury_until(&mut redis, &id, "0").await, "nobody");
        let late = bury_until(&mut redis, &id, &(now - 1).to_string()).await;
        let shown: u64 = late.strip_prefix("late ").expect("that it is late").parse().unwrap();
        assert!((now..now + 60_000).contains(&shown), "{shown}");
        assert_eq!(entries(&mut redis, &key("dead")).await, []);
        for _ in 0..2 {
            assert_eq!(bury_until(&mut redis, &id, &(now + 60_000).to_string()).await, "ok");
            assert_eq!(entries(&mut redis, &key("dead")).await.len(), 1);
        }
        // A guard stays for an hour if the entry was nobody's, otherwise for a little more than a lease. An older one does not count, and is
        // removed.
        let left: i64 = redis::cmd("PTTL").arg(key("guards")).query_async(&mut redis).await.unwrap();
        assert!((3_500_000..=3_600_000).contains(&left), "{left}");
        let mut old = redis::cmd("ZADD");
        old.arg(key("guards")).arg(now - 1000).arg(&id);
        (0..50).for_each(|n| { old.arg(now - 1000).arg(format!("1-{n}")); });
        let _: i64 = old.query_async(&mut redis).await.unwrap();
        assert_eq!(bury(&mut redis, &id).await, "ok");
        assert_eq!(entries(&mut redis, &key("dead")).await.len(), 2);
        let left: u64 = redis::cmd("ZCARD").arg(key("guards")).query_async(&mut redis).await.unwrap();
        assert_eq!(left, 1);
    }

    /// The answer to the park got lost; before it was repeated another worker had the entry, and succeeded.
    async fn a_repeated_park_neither_takes_nor_buries_what_went_on_meanwhile(server: Server) {
        let mut redis = server.connect().await;
        let id = deliver(&mut redis).await;
        assert_eq!(park(&mut redis, &id).await, ["ok"]);
        let wake = scripts::named("wake");
        let mut call = wake.key("jobs");
        call.key(key("retry")).key(key("failures")).key(key("again")).key(key("paused")).key("{jobs}:scheduled").key(key("waiting")).arg(GROUP).arg(OTHER).arg(10).arg(1_000_000);
        let _: redis::Value = call.invoke_async(&mut redis).await.unwrap();
        assert_eq!(park(&mut redis, &id).await, ["taken"]);

        // A due time of a parking that came in between would bring it back.
        let _: () = redis::cmd("ZADD").arg(key("retry")).arg(1).arg(&id).query_async(&mut redis).await.unwrap();
        let ack = scripts::named("ack");
        let mut call = ack.key("jobs");
        call.key(key("retry")).key(key("failures")).key(key("guards"));
        let acked: i64 = call.arg(GROUP).arg("0").arg("0").arg(&id).arg(OTHER).arg("2").invoke_async(&mut redis).await.unwrap();
        assert_eq!(acked, 1);
        assert_eq!(left_of_it(&mut redis).await, 0);
        assert_eq!(park(&mut redis, &id).await, ["nobody"]);
        // What a worker makes of that answer.
        assert_eq!(bury(&mut redis, &id).await, "ok");
        assert_eq!(entries(&mut redis, &key("dead")).await, []);
    }

    /// It is nobody's, and its holder has it parked all the same, once, unless something tells that it came to its end; and
    /// its attempts go on even if what was noted of them is gone.
    async fn what_is_nobodys_is_brought_back_once_and_with_its_attempts(server: Server) {
        let mut redis = server.connect().await;
        let (till, late) = ("4000000000000", "1");
        let id = deliver(&mut redis).await;
        let connection = redis.clone();
        let set = async |record: Option<&str>| {
            let mut redis = connection.clone();
            let _: () = redis::cmd("XACK").arg("jobs").arg(GROUP).arg(&id).query_async(&mut redis).await.unwrap();
            let _: () = redis::cmd("DEL").arg(key("retry")).arg(key("failures")).query_async(&mut redis).await.unwrap();
            if let Some(record) = record {
                let _: () = redis::cmd("HSET").arg(key("failures")).arg(&id).arg(record).query_async(&mut redis).await.unwrap();
            }
        };
        // What was noted at the third delivery: taken over, or parked by this very step before; or swept since.
        for (record, nobodys, expected, noted) in [
            (Some("1 1 3 + - died"), [till, "1", "1"], "ok", "1 2 3 +"),
            (Some("1 2 3 + - no"), [till, "1", "1"], "taken", "1 2 3 +"),
            (Some("1 1 3 - - no"), [till, "1", "1"], "taken", "1 1 3 -"),
            (None, [till, "1", "1"], "ok", "2 3 -"),
            (None, [till, "1", "0"], "unknown", ""),
            (None, [till, "-", "0"], "ok", "1 3 -"),
            (Some("1 1 3 + - died"), [late, "1", "1"], "late", "1 1 3 +"),
        ] {
            set(record).await;
            let said = bring_back(&mut redis, &id, nobodys).await;
            assert_eq!(said.split(' ').next(), Some(expected), "{record:?} {nobodys:?}");
            let left: Option<String> = redis::cmd("HGET").arg(key("failures")).arg(&id).query_async(&mut redis).await.unwrap();
            let left = left.unwrap_or_default();
            assert!(left.contains(noted), "{record:?} {nobodys:?}: {left:?}");
            let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING").arg("jobs").arg(GROUP)
                .arg("-").arg("+").arg(10).query_async(&mut redis).await.unwrap();
            let is_parked = pending.iter().any(|(_, holder, _, count)| holder == "(parked)" && *count == 3);
            assert_eq!(is_parked, expected == "ok", "{record:?} {nobodys:?}: {pending:?}");
        }
        set(None).await;
        let _: () = redis::cmd("XGROUP").arg("SETID").arg("jobs").arg(GROUP).arg("0").query_async(&mut redis).await.unwrap();
        assert_eq!(bring_back(&mut redis, &id, [till, "-", "1"]).await, "unread");
        let _: () = redis::cmd("ZADD").arg(key("guards")).arg(till).arg(&id).query_async(&mut redis).await.unwrap();
        assert_eq!(bring_back(&mut redis, &id, [till, "-", "1"]).await, "settled");
        let _: () = redis::cmd("DEL").arg(key("guards")).query_async(&mut redis).await.unwrap();
        let _: () = redis::cmd("XDEL").arg("jobs").arg(&id).query_async(&mut redis).await.unwrap();
        assert_eq!(bring_back(&mut redis, &id, [till, "-", "1"]).await, "missing");
    }

    async fn attempts_go_on_where_the_parked_are_deleted_by_hand(server: Server) {
        let mut redis = server.connect().await;
        let id = deliver(&mut redis).await;
        assert_eq!(park(&mut redis, &id).await, ["ok"]);
        let _: i64 = redis::cmd("XGROUP").arg("DELCONSUMER").arg("jobs").arg(GROUP).arg("(parked)")
            .query_async(&mut redis).await.unwrap();
        let wake = scripts::named("wake");
        let mut call = wake.key("jobs");
        call.key(key("retry")).key(key("failures")).key(key("again")).key(key("paused")).key("{jobs}:scheduled").key(key("waiting")).arg(GROUP).arg(OTHER).arg(10).arg(1_000_000);
        let _: redis::Value = call.invoke_async(&mut redis).await.unwrap();
        let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING").arg("jobs").arg(GROUP)
            .arg("-").arg("+").arg(10).query_async(&mut redis).await.unwrap();
        assert_eq!(pending.len(), 1);
        assert_eq!((&pending[0].0, &pending[0].1[..], pending[0].3), (&id, OTHER, 2));
    }

    /// The server stood still on its way: what looks old to it may only be unrenewed.
    async fn a_takeover_that_comes_too_late_takes_nothing(server: Server) {
        let mut redis = server.connect().await;
        let id = deliver(&mut redis).await;
        let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
        let now = seconds * 1000;
        for (clock, expected) in [(now - 60_000, 0), (now, 1)] {
            let script = scripts::named("reclaim");
            let mut call = script.key("jobs");
            call.key(key("failures"));
            // Group, me, holder, its lease, entries, bytes, alone from, room alone, from, what the clock should
            // show, leeway.
            for argument in [GROUP, OTHER, ME, "0", "10", "1000000", "3", "0", "-", &clock.to_string(), "30000"] {
                call.arg(argument);
            }
            type Reclaimed = (Vec<redis::Value>, Vec<redis::Value>, Vec<String>, u64, redis::Value, u64);
            let (entries, ..): Reclaimed = call.invoke_async(&mut redis).await.unwrap();
            assert_eq!(entries.len(), expected);
            let holder: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING").arg("jobs").arg(GROUP)
                .arg(&id).arg(&id).arg(1).query_async(&mut redis).await.unwrap();
            assert_eq!(holder[0].1, if expected == 0 { ME } else { OTHER });
        }
    }
    /// A new group may begin below an entry that had been parked: reading brings it, and waking it must not as well.
    async fn a_due_time_of_an_entry_that_will_be_read_brings_nothing(server: Server) {
        let mut redis = server.connect().await;
        let read = deliver(&mut redis).await;
        let mut add = redis::cmd("XADD");
        add.arg("jobs").arg("*").arg("type").arg("test.job");
        let unread: String = add.query_async(&mut redis).await.unwrap();
        let _: i64 = redis::cmd("XACK").arg("jobs").arg(GROUP).arg(&read).query_async(&mut redis).await.unwrap();
        let mut due = redis::cmd("ZADD");
        due.arg(key("retry")).arg(1).arg(&read).arg(1).arg(&unread);
        let _: i64 = due.query_async(&mut redis).await.unwrap();
        let wake = scripts::named("wake");
        let mut call = wake.key("jobs");
        call.key(key("retry")).key(key("failures")).key(key("again")).key(key("paused")).key("{jobs}:scheduled").key(key("waiting")).arg(GROUP).arg(OTHER).arg(10).arg(1_000_000);
        let mut answer: Vec<redis::Value> = call.invoke_async(&mut redis).await.unwrap();
        type Woken = Vec<(String, u64, Vec<String>, redis::Value)>;
        let woken: Woken = redis::from_redis_value(answer.swap_remove(0)).unwrap();
        assert_eq!(woken.iter().map(|(id, ..)| id).collect::<Vec<_>>(), [&read]);
        let left: usize = redis::cmd("EXISTS").arg(key("retry")).query_async(&mut redis).await.unwrap();
        assert_eq!(left, 0);
    }
}
