//! Events that can't be applied: they are buried and the view goes on, or it stops, as is configured.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use redis::AsyncCommands;
use streamhand::eventstore::{EventStore, Expected, RedisEventStore};
use streamhand::{EntryId, Envelope, Format, Registry, eventstore::AggregateEvent};

use super::views::{
    ByStatus, FAILS, FAILS_FOR_GOOD, FAILS_TWICE, IS_GUARDED, PANICS, PATIENCE, agrees, any_event,
    by_aggregates, checkpoint, happens, lag, names, registry, setup, store, view,
};
use crate::eventstore::orders::{Added, OrderEvent, Shipped};
use crate::eventstore::shelf::order;
use crate::support::{Cli, Server, Setup, entries, eventually};

const STOP: &str = "[projections.\"orders-by-status\"]\non_bad_event = \"stop\"";

fn added(cents: u64) -> OrderEvent {
    Added { cents }.into()
}

/// Appends one event, and answers where it stands.
async fn position(store: &RedisEventStore, id: &str, event: Envelope) -> EntryId {
    let appended = store
        .append(&order(id), vec![event], Expected::Any)
        .await
        .unwrap();
    appended.positions[0]
}

async fn position_of(store: &RedisEventStore, id: &str, cents: u64) -> EntryId {
    position(store, id, added(cents).encode(Format::Json).unwrap()).await
}

fn quick(server: &Server) -> Setup {
    setup(server)
        .retry("max_attempts = 3")
        .retry("backoff = { initial = \"20ms\", factor = 1.0, jitter = 0.0 }")
}

fn field(entry: &crate::support::Entry, name: &str) -> String {
    let found = entry
        .fields
        .iter()
        .rev()
        .find(|(known, _)| &known[..] == name.as_bytes());
    String::from_utf8(found.expect(name).1.to_vec()).unwrap()
}

fn cli(server: &Server) -> Cli {
    Cli::new(
        server,
        "[worker]\ngroup = \"workers\"\nstreams = [\"orders\"]\n",
    )
}

on_both_servers! {
    async fn a_bad_event_is_buried_with_the_step_that_passes_it(server: Server) {
        let mut redis = server.connect().await;
        let store = store(&server, 1);
        happens(&store, "o-0", [any_event(), any_event()]).await;
        let mut bad = Vec::new();
        for cents in [FAILS_FOR_GOOD, PANICS, IS_GUARDED, FAILS] {
            bad.push(position_of(&store, "o-1", cents).await);
            happens(&store, "o-0", [any_event()]).await;
        }
        let garbage = Envelope::new("order.added").json(&serde_json::json!({ "cents": "many" })).unwrap();
        bad.push(position(&store, "o-2", garbage).await);
        happens(&store, "o-0", [any_event()]).await;
        // One that comes back to its senses holds up what is behind it, and is none.
        position_of(&store, "o-2", FAILS_TWICE).await;
        let worker = quick(&server).start_with(registry());
        eventually(PATIENCE, "everything to be passed", async || lag(&mut redis, "orders").await == Some(0)).await;
        let expected = by_aggregates(&store, &names(1), 0, &bad).await;
        let seen = view(&mut redis, "{orders}").await;
        assert_eq!(seen[&("versions".to_owned(), "o-0".to_owned())], expected[&("versions".to_owned(), "o-0".to_owned())]);
        assert_eq!(seen[&("versions".to_owned(), "o-2".to_owned())], "2", "what failed twice is there");
        assert!(!seen.contains_key(&("versions".to_owned(), "o-1".to_owned())));
        let at = checkpoint(&mut redis, "{orders}").await;
        assert_eq!((&at["bad"][..], &at["state"][..]), ("5", "running"));
        worker.stop().await;

        let dead = entries(&mut redis, "{orders}:orders-by-status:dead").await;
        let what: Vec<_> = dead.iter().map(|letter| (field(letter, "dead.reason"), field(letter, "dead.attempts"))).collect();
        let is = |reason: &str, attempts: &str| (reason.to_owned(), attempts.to_owned());
        let expected = [is("permanent", "1"), is("failed", "1"), is("permanent", "1"), is("failed", "3"), is("undecodable", "1")];
        assert_eq!(what, expected);
        for (letter, position) in dead.iter().zip(&bad) {
            assert_eq!(field(letter, "dead.entry"), position.to_string());
            assert_eq!(field(letter, "dead.handler"), "orders-by-status");
            assert_eq!(field(letter, "dead.group"), "orders-by-status");
            assert_eq!((field(letter, "dead.stream"), field(letter, "dead.replays")), ("orders".into(), "0".into()));
        }
        assert!(field(&dead[1], "dead.error").contains("asked to panic"));
        assert!(field(&dead[2], "dead.error").contains("have no guards"));
        let listed = cli(&server).run(&["dlq", "list", "--group", "orders-by-status"]).await.ok();
        assert_eq!(listed.matches("order.added").count(), 5, "{listed}");
    }

    async fn a_bad_event_is_applied_when_it_is_replayed_after_a_mend(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(2));
        let worker = quick(&server).start_with(registry());
        let bad = position_of(&store, "o-1", FAILS_FOR_GOOD).await;
        happens(&store, "o-0", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[bad]).await;
        // Not mended yet: it is buried once more.
        cli(&server).run(&["dlq", "replay", "--all", "--yes", "--group", "orders-by-status"]).await.ok();
        eventually(PATIENCE, "it to be buried again", async || {
            let dead = entries(&mut redis, "{orders}:orders-by-status:dead").await;
            dead.len() == 1 && field(&dead[0], "dead.replays") == "1"
        })
        .await;
        worker.stop().await;
        let mended = ByStatus { mended: true, ..ByStatus::default() };
        let worker = quick(&server).start_with(Registry::new().projection(mended));
        cli(&server).run(&["dlq", "replay", "--all", "--yes", "--group", "orders-by-status"]).await.ok();
        eventually(PATIENCE, "it to be applied", async || {
            let left: usize = redis.xlen("{orders}:orders-by-status:again").await.unwrap();
            let cents: Option<u64> = redis.get("{orders}:orders-by-status:view:1:cents").await.unwrap();
            left == 0 && cents.is_some_and(|cents| cents >= FAILS_FOR_GOOD)
        })
        .await;
        let seen = view(&mut redis, "{orders}").await;
        assert_eq!(seen[&("versions".to_owned(), "o-1".to_owned())], "1");
        assert!(seen[&("last".to_owned(), String::new())].starts_with(&bad.to_string()), "it stands where it stood");
        assert_eq!(redis.xlen::<_, usize>("{orders}:orders-by-status:dead").await.unwrap(), 0);
        // It was in the view's step, and is passed by no other.
        happens(&store, "o-0", [any_event()]).await;
        eventually(PATIENCE, "no lag", async || lag(&mut redis, "orders").await == Some(0)).await;
        worker.stop().await;
    }

    async fn an_effect_that_can_t_be_done_is_a_bad_event_and_leaves_nothing_of_it(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(3));
        let worker = quick(&server).start_with(registry());
        happens(&store, "o-0", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        // Its first effect could be done, the second one can't.
        let versions = "{orders}:orders-by-status:view:1:versions";
        let cents = async |redis: &mut redis::aio::MultiplexedConnection| -> Option<u64> {
            redis.get("{orders}:orders-by-status:view:1:cents").await.unwrap()
        };
        let before = cents(&mut redis).await;
        let _: () = redis.set(versions, "no hash").await.unwrap();
        let bad = position_of(&store, "o-1", 5).await;
        eventually(PATIENCE, "one bad event", async || checkpoint(&mut redis, "{orders}").await["bad"] == "1").await;
        let dead = entries(&mut redis, "{orders}:orders-by-status:dead").await;
        assert_eq!((dead.len(), field(&dead[0], "dead.reason")), (1, "permanent".to_owned()));
        assert_eq!(field(&dead[0], "dead.entry"), bad.to_string());
        assert!(field(&dead[0], "dead.error").contains("the key holds a string"), "{}", field(&dead[0], "dead.error"));
        assert_eq!(cents(&mut redis).await, before, "nothing of it was done");
        let _: () = redis.del(versions).await.unwrap();
        let _: () = redis.set("{orders}:orders-by-status:view:1:cents", "no number").await.unwrap();
        // In one batch with one that can be done in front of it, and one behind it.
        happens(&store, "o-1", [Shipped {}.into(), added(5), Shipped {}.into()]).await;
        eventually(PATIENCE, "another bad event", async || checkpoint(&mut redis, "{orders}").await["bad"] == "2").await;
        eventually(PATIENCE, "no lag", async || lag(&mut redis, "orders").await == Some(0)).await;
        worker.stop().await;
        let seen = view(&mut redis, "{orders}").await;
        assert_eq!(seen[&("versions".to_owned(), "o-1".to_owned())], "4", "what comes behind it is there");
        assert_eq!(checkpoint(&mut redis, "{orders}").await["passed"], "5");
    }

    async fn a_projection_stops_before_a_bad_event_where_it_is_to_and_resumes_when_it_is_mended(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(3));
        let tries = Arc::new(AtomicUsize::new(0));
        let stopping = quick(&server).more(STOP);
        let worker = stopping.start_with(registry());
        happens(&store, "o-0", [any_event(), any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        let bad = position_of(&store, "o-1", FAILS_FOR_GOOD).await;
        let behind = position_of(&store, "o-2", 7).await;
        let stopped = async |redis: &mut _| {
            eventually(PATIENCE, "it to stop", async || checkpoint(redis, "{orders}").await["state"] == "stopped").await;
            let at = checkpoint(redis, "{orders}").await;
            assert_eq!(at["stopped.at"], bad.to_string());
            assert!(at["stopped.why"].contains("asked to fail for good"), "{at:?}");
            assert!(!at.contains_key("runner") && at["bad"] == "0");
        };
        stopped(&mut redis).await;
        assert_eq!(lag(&mut redis, "orders").await, Some(2));
        worker.stop().await;
        let said = cli(&server).run(&["status"]).await.ok();
        assert!(said.contains("orders-by-status") && said.contains("has stopped before the bad event"), "{said}");
        let json = cli(&server).run(&["status", "--json"]).await.json();
        let of = &json["projections"][0];
        assert_eq!((&of["state"], &of["lag"], &of["bad_events"]), (&"stopped".into(), &2.into(), &0.into()), "{json}");
        // Another that is started tries once more, and no more than once.
        let worker = stopping.start_with(Registry::new().projection(ByStatus { tries: tries.clone(), ..ByStatus::default() }));
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        stopped(&mut redis).await;
        worker.stop().await;
        agrees(&mut redis, &store, &ids, &[bad, behind]).await;
        assert_eq!(tries.load(SeqCst), 0);
        let worker = stopping.start_with(Registry::new().projection(ByStatus { mended: true, ..ByStatus::default() }));
        agrees(&mut redis, &store, &ids, &[]).await;
        assert_eq!(checkpoint(&mut redis, "{orders}").await["state"], "running");
        worker.stop().await;
        assert_eq!(redis.xlen::<_, usize>("{orders}:orders-by-status:dead").await.unwrap(), 0);
    }
}
