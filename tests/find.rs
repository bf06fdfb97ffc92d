//! Events are found by what is in them, wherever they are: so much at a time, and whoever asks is told what has been
//! looked at.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use streamhand::admin::{Admin, Budget, Place, Search};
use streamhand::dead_letters::{Filter, Reason};
use streamhand::{Envelope, ErrorKind, Publisher};

use crate::support::letters::{bury, deliver, fields, settings};
use crate::support::{Cli, Server, add, calls};

fn admin(server: &Server) -> Admin {
    Admin::connect(&server.url(), "fulfilment", ["orders"]).expect("right names")
}

/// All that a search finds, by so many entries at a time.
async fn all(admin: &Admin, query: &str, entries: u64) -> Vec<(Place, String)> {
    let mut search = Search::new(query).expect("a query");
    let mut found = Vec::new();
    while !search.is_done() {
        let page = admin
            .search(&mut search, &Budget::default().entries(entries))
            .await
            .expect("a page");
        found.extend(page.hits.into_iter().map(|hit| (hit.place, hit.id)));
    }
    found
}

/// Adds entries with these ids, each with its number as data.
async fn add_at(redis: &mut MultiplexedConnection, ids: impl Iterator<Item = u64>) {
    let mut pipe = redis::pipe();
    for (n, ms) in ids.enumerate() {
        pipe.cmd("XADD")
            .arg("orders")
            .arg(format!("{ms}-0"))
            .arg("type")
            .arg("order.created");
        pipe.arg("data")
            .arg(json!({ "n": n, "kind": n % 7 }).to_string())
            .ignore();
    }
    pipe.query_async::<()>(redis).await.expect("to add");
}

on_both_servers! {
    async fn an_event_is_found_wherever_it_is(server: Server) {
        let mut redis = server.connect().await;
        let order = |n: u32| fields(&[
            ("type", "order.created"), ("id", &format!("e-{n}")), ("subject", &format!("o-{n}")),
            ("data", &json!({ "lines": [{ "sku": format!("a-{n}"), "count": n }] }).to_string()),
        ]);
        let waiting = deliver(&mut redis, "orders", &order(1)).await;
        bury(&mut redis, "orders", &order(2), "failed", "no stock for 17 of it").await;
        bury(&mut redis, "orders", &order(3), "permanent", "no such thing").await;
        let settings = settings(&server, "");
        let dead = admin(&server).dead_letters().unwrap();
        dead.select(Filter::new().reason(Reason::Permanent)).await.unwrap().replay("alice", None, |_| ()).await.unwrap();
        let publisher = Publisher::new(&settings.redis).unwrap();
        let later = Envelope::new("order.reminded").with("id", "e-4").with("subject", "o-4")
            .msgpack(&json!({ "lines": [{ "sku": "a-4", "count": 4 }] })).unwrap();
        publisher.publish_envelope_after("orders", later, Duration::from_secs(3600)).await.unwrap();

        let admin = admin(&server);
        let places = |found: &[(Place, String)]| found.iter().map(|(place, _)| *place).collect::<BTreeSet<_>>();
        for (query, expected) in [
            ("e-1", vec![Place::Stream]),
            (&format!("entry:{}", waiting.id), vec![Place::Stream]),
            ("id:e-2", vec![Place::Stream, Place::Dead]),
            ("o-3", vec![Place::Stream, Place::Replayed]),
            ("data.lines.sku:a-4", vec![Place::Scheduled]),
            ("data.lines.count:>1 type:order.created", vec![Place::Stream, Place::Dead, Place::Replayed]),
            ("error:stock", vec![Place::Dead]),
            ("replay.by:alice", vec![Place::Replayed]),
            ("data.lines.sku:a-9", vec![]),
        ] {
            let found = all(&admin, query, 1000).await;
            assert_eq!(places(&found), expected.into_iter().collect(), "{query}: {found:?}");
        }

        // By the program, which says what it has looked at.
        let cli = Cli::new(&server, "");
        let said = cli.run(&["find", "data.lines.sku:a-2"]).await;
        assert_eq!(said.out.lines().count(), 3, "{}", said.out);
        assert!(said.out.contains("dead of orders") && said.out.contains("e-2"), "{}", said.out);
        assert_eq!(said.err, "looked at all 3 entries of orders; the only dead letter of orders; the only replayed entry of orders; \
            the only scheduled event of orders\n");
        let page = cli.run(&["find", "e-2", "--in", "dead", "--json"]).await.json();
        assert_eq!(page["cursor"], Value::Null);
        assert_eq!(page["hits"][0]["event"]["data"], json!({ "lines": [{ "sku": "a-2", "count": 2 }] }));
        assert_eq!(page["hits"][0]["event"]["dead"]["error"], "no stock for 17 of it");
        assert_eq!(page["covered"][0]["is_done"], true);
        for (wrong, why) in [
            (&["find", "id:"][..], "id: has no value"),
            (&["find", "x", "--in", "moon"], "no place to look in"),
            (&["find", "--from", "moon"], "is not where a search was left"),
        ] {
            let said = cli.run(wrong).await;
            assert!(said.code != 0 && said.err.contains(why), "{wrong:?}: {}", said.err);
        }
        assert_eq!(Search::new("").unwrap_err().kind(), ErrorKind::Invalid);
    }

    async fn a_search_is_bounded_and_goes_on_where_it_was_left(server: Server) {
        let mut redis = server.connect().await;
        let (first, count) = (1_700_000_000_000, 10_000);
        add_at(&mut redis, (0..count).map(|n| first + n * 1000)).await;
        let admin = admin(&server);
        let mut search = Search::new("data.kind:3").unwrap().places([Place::Stream]);
        let before = calls(&mut redis).await;
        let page = admin.search(&mut search, &Budget::default().entries(1_200).hits(usize::MAX)).await.unwrap();
        let used = calls(&mut redis).await - before;
        assert!(used < 60, "{used} commands for 1,200 entries, those in scripts among them");
        let covered = &page.covered[0];
        assert_eq!((covered.entries, covered.of, covered.is_done), (1_200, count, false));
        assert_eq!(covered.to, Some(format!("{}-0", first + (count - 1) * 1000)));
        assert_eq!(covered.from, Some(format!("{}-0", first + (count - 1_200) * 1000)));
        assert_eq!(page.hits.len(), (count - 1_200..count).filter(|n| n % 7 == 3).count());

        // Somebody else goes on, with a few hits at a time, while more is added.
        let mut found: Vec<String> = page.hits.into_iter().map(|hit| hit.id).collect();
        let mut cursor = page.cursor;
        while let Some(at) = cursor {
            add(&mut redis, "orders", &fields(&[("type", "order.created"), ("data", "{\"kind\":3}")])).await;
            let mut search = Search::resume(&at).unwrap();
            let page = admin.search(&mut search, &Budget::default().entries(3_000).hits(150)).await.unwrap();
            assert!(page.hits.len() <= 150);
            found.extend(page.hits.into_iter().map(|hit| hit.id));
            cursor = page.cursor;
        }
        let expected: Vec<String> = (0..count).rev().filter(|n| n % 7 == 3).map(|n| format!("{}-0", first + n * 1000)).collect();
        assert_eq!(found, expected);

        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(first + 9_000_000);
        let mut search = Search::new("type:order.*").unwrap().since(since).until(since + Duration::from_secs(1));
        let page = admin.search(&mut search, &Budget::default()).await.unwrap();
        assert_eq!((page.hits.len(), page.cursor), (2, None));
    }

    /// Without an index a day of events would have to be read before it is met.
    async fn an_id_that_says_when_it_was_made_is_looked_for_there_first(server: Server) {
        let mut redis = server.connect().await;
        let first = 0x019c_1123_0000_u64;
        add_at(&mut redis, (0..20_000).map(|n| first + n * 4_000)).await;
        let at = first + 40_000_500;
        let hex = format!("{at:012x}");
        let id = format!("{}-{}-7abc-8def-0123456789ab", &hex[..8], &hex[8..]);
        // It was published a moment later than it was made.
        let mut all: Vec<(String, Vec<(String, String)>)> = redis::cmd("XRANGE").arg("orders").arg(format!("{}", at)).arg("+")
            .arg("COUNT").arg(1).query_async(&mut redis).await.unwrap();
        let (after, _) = all.remove(0);
        let () = redis::cmd("XDEL").arg("orders").arg(&after).query_async(&mut redis).await.unwrap();
        let () = redis::cmd("RENAME").arg("orders").arg("old").query_async(&mut redis).await.unwrap();
        let copy = "local put = false for _, e in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do \
            if not put and e[1] > ARGV[1] then redis.call('XADD', KEYS[2], ARGV[1], 'type', 'order.created', 'id', ARGV[2]) put = true end \
            redis.call('XADD', KEYS[2], e[1], unpack(e[2])) end";
        let () = redis::cmd("EVAL").arg(copy).arg(2).arg("old").arg("orders").arg(&after).arg(&id).query_async(&mut redis).await.unwrap();
        let mut search = Search::new(&id).unwrap().places([Place::Stream]);
        let page = admin(&server).search(&mut search, &Budget::default().entries(200).hits(1)).await.unwrap();
        assert_eq!(page.hits.len(), 1, "{:?}", page.covered);
        assert_eq!(page.hits[0].id, after);
        assert!(page.cursor.is_some() && page.covered[0].entries <= 200);
    }

    async fn what_is_parked_can_be_looked_through_by_itself(server: Server) {
        let mut redis = server.connect().await;
        for n in 0..30 {
            let data = json!({ "n": n }).to_string();
            let delivery = deliver(&mut redis, "orders", &fields(&[("type", "order.created"), ("data", &data)])).await;
            if n % 3 == 0 {
                let () = redis::cmd("XCLAIM").arg("orders").arg("fulfilment").arg("(parked)").arg(0).arg(&delivery.id)
                    .arg("JUSTID").query_async::<redis::Value>(&mut redis).await.map(|_| ()).unwrap();
                let () = redis::cmd("ZADD").arg("{orders}:fulfilment:retry").arg(u64::MAX >> 12).arg(&delivery.id)
                    .query_async(&mut redis).await.unwrap();
            }
        }
        let admin = admin(&server);
        let mut search = Search::new("data.n:>=15").unwrap().places([Place::Parked]);
        let mut found = Vec::new();
        while !search.is_done() {
            let page = admin.search(&mut search, &Budget::default().entries(4).hits(2)).await.unwrap();
            found.extend(page.hits.into_iter().map(|hit| hit.event["data"]["n"].as_u64().unwrap()));
        }
        assert_eq!(found, [15, 18, 21, 24, 27]);
    }
}
