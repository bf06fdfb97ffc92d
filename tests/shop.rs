//! The shop that people copy: stock is reserved once for each order, whatever is delivered twice or out of turn.

#[path = "../handlers/events.rs"]
mod events;
#[path = "../handlers/inventory.rs"]
mod inventory;

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::{Event, Publisher};

use crate::support::{Entry, InProcess, Server, Setup, entries, eventually, publisher, settled};
use events::{INVENTORY, Item, ORDERS, OrderCancelled, OrderCreated};

const PATIENCE: Duration = Duration::from_secs(30);

fn order(id: &str, items: &[(&str, u32)]) -> OrderCreated {
    let item = |(sku, quantity): &(&str, u32)| Item {
        sku: (*sku).to_owned(),
        quantity: *quantity,
    };
    OrderCreated {
        order_id: id.to_owned(),
        customer_id: "c-1".to_owned(),
        amount: 100,
        items: items.iter().map(item).collect(),
    }
}

/// The inventory at work, one attempt for each event.
struct Inventory {
    redis: MultiplexedConnection,
    publisher: Publisher,
    worker: InProcess,
}

impl Inventory {
    async fn open(server: &Server) -> Self {
        let setup = Setup::new(server).worker("streams = [\"orders\"]");
        Inventory {
            redis: server.connect().await,
            publisher: publisher(&server.url()),
            worker: setup
                .retry("max_attempts = 1")
                .start_with(inventory::registry()),
        }
    }

    /// Publishes an event and waits until it is settled. Answers why it is dead, if it is.
    async fn handle<E: Event + serde::Serialize>(
        &mut self,
        event: &E,
        id: &str,
    ) -> Option<(String, String)> {
        let envelope = self.publisher.envelope(event).unwrap().with("id", id);
        let entry = self
            .publisher
            .publish_envelope(ORDERS, envelope)
            .await
            .unwrap();
        settled(&mut self.redis, ORDERS, PATIENCE).await;
        let letters = entries(&mut self.redis, "{orders}:workers:dead").await;
        let field = |letter: &Entry, name: &str| {
            let (_, value) = letter.fields.iter().find(|(n, _)| n == name).unwrap();
            String::from_utf8(value.to_vec()).unwrap()
        };
        let dead = letters
            .iter()
            .find(|letter| field(letter, "dead.entry") == entry.to_string())?;
        Some((field(dead, "dead.reason"), field(dead, "dead.error")))
    }
}

async fn stock(redis: &mut MultiplexedConnection) -> BTreeMap<String, i64> {
    redis.hgetall("{orders}:stock").await.unwrap()
}

/// What the inventory has answered, and to which event.
async fn answers(redis: &mut MultiplexedConnection) -> Vec<(String, String)> {
    type Entries = Vec<(String, Vec<(String, Vec<u8>)>)>;
    let entries: Entries = redis::cmd("XRANGE")
        .arg(INVENTORY)
        .arg("-")
        .arg("+")
        .query_async(redis)
        .await
        .unwrap();
    let field = |fields: &[(String, Vec<u8>)], name: &str| {
        String::from_utf8(fields.iter().find(|(n, _)| n == name).unwrap().1.clone()).unwrap()
    };
    entries
        .iter()
        .map(|(_, fields)| (field(fields, "type"), field(fields, "causationid")))
        .collect()
}

fn streamhand(server: &Server, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shop"))
        .args(["--redis", &server.url()])
        .args(args)
        .output()
        .unwrap()
}

on_both_servers! {
    async fn an_order_that_is_published_twice_reserves_once_and_is_answered_once(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.hset("{orders}:stock", "tea", 10).await.unwrap();
        let mut inventory = Inventory::open(&server).await;
        for _ in 0..2 {
            assert_eq!(inventory.handle(&order("o-1", &[("tea", 2), ("tea", 1)]), "e-1").await, None);
        }
        assert_eq!(stock(&mut redis).await["tea"], 7);
        let held: BTreeMap<String, i64> = redis.hgetall("{orders}:reserved:o-1").await.unwrap();
        assert_eq!(held, BTreeMap::from([("tea".to_owned(), 3)]));
        assert_eq!(answers(&mut redis).await, [("inventory.reserved".to_owned(), "e-1".to_owned())]);
        inventory.worker.stop().await;
    }

    async fn too_little_stock_is_an_answer_and_takes_nothing(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.hset_multiple("{orders}:stock", &[("tea", 10), ("pot", 1)]).await.unwrap();
        let mut inventory = Inventory::open(&server).await;
        assert_eq!(inventory.handle(&order("o-1", &[("tea", 2), ("pot", 2)]), "e-1").await, None);
        assert_eq!(stock(&mut redis).await, BTreeMap::from([("tea".to_owned(), 10), ("pot".to_owned(), 1)]));
        // The answer stays what it was when stock has come in and the event comes again.
        let _: () = redis.hset("{orders}:stock", "pot", 5).await.unwrap();
        assert_eq!(inventory.handle(&order("o-1", &[("tea", 2), ("pot", 2)]), "e-1").await, None);
        assert_eq!(answers(&mut redis).await, [("inventory.reservation.failed".to_owned(), "e-1".to_owned())]);
        inventory.worker.stop().await;
    }

    async fn an_unknown_sku_is_a_permanent_failure_that_can_be_mended(server: Server) {
        let mut redis = server.connect().await;
        let mut inventory = Inventory::open(&server).await;
        let dead = inventory.handle(&order("o-1", &[("unicorn", 1)]), "e-1").await;
        assert_eq!(dead, Some(("permanent".to_owned(), "no sku is called \"unicorn\"".to_owned())));
        let _: () = redis.hset("{orders}:stock", "unicorn", 1).await.unwrap();
        assert_eq!(inventory.handle(&order("o-1", &[("unicorn", 1)]), "e-1").await, None);
        assert_eq!(stock(&mut redis).await["unicorn"], 0);
        inventory.worker.stop().await;
    }

    async fn a_stock_that_is_no_number_is_tried_again_and_takes_nothing(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.hset_multiple("{orders}:stock", &[("tea", "10"), ("kettle", "1.5")]).await.unwrap();
        let mut inventory = Inventory::open(&server).await;
        for items in [[("tea", 1), ("kettle", 1)], [("kettle", 1), ("tea", 1)]] {
            let (reason, error) = inventory.handle(&order("o-1", &items), "e-1").await.unwrap();
            assert_eq!(reason, "failed");
            assert!(error.contains("HINCRBY {orders}:stock kettle: there is no whole number"), "{error}");
        }
        assert_eq!(redis.hget::<_, _, String>("{orders}:stock", "tea").await.unwrap(), "10");
        let _: () = redis.hset("{orders}:stock", "kettle", 1).await.unwrap();
        assert_eq!(inventory.handle(&order("o-1", &[("tea", 1), ("kettle", 1)]), "e-1").await, None);
        assert_eq!(stock(&mut redis).await, BTreeMap::from([("tea".to_owned(), 9), ("kettle".to_owned(), 0)]));
        inventory.worker.stop().await;
    }

    async fn a_cancelled_order_gives_back_once_and_reserves_nothing_afterwards(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.hset("{orders}:stock", "tea", 10).await.unwrap();
        let mut inventory = Inventory::open(&server).await;
        let cancelled = |id: &str| OrderCancelled { order_id: id.to_owned() };
        assert_eq!(inventory.handle(&order("o-1", &[("tea", 4)]), "e-1").await, None);
        for _ in 0..2 {
            assert_eq!(inventory.handle(&cancelled("o-1"), "e-2").await, None);
        }
        assert_eq!(stock(&mut redis).await["tea"], 10);
        // An order's creation that comes after its end.
        assert_eq!(inventory.handle(&cancelled("o-2"), "e-3").await, None);
        assert_eq!(inventory.handle(&order("o-2", &[("tea", 4)]), "e-4").await, None);
        assert_eq!(stock(&mut redis).await["tea"], 10);
        let last = answers(&mut redis).await.pop();
        assert_eq!(last, Some(("inventory.reservation.failed".to_owned(), "e-4".to_owned())));
        inventory.worker.stop().await;
    }

    async fn a_fleet_never_sells_more_than_there_is(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.hset("{orders}:stock", "tea", 150).await.unwrap();
        let orders: Vec<_> = (0..200).map(|n| order(&format!("o-{n}"), &[("tea", 1)])).collect();
        publisher(&server.url()).publish_many(ORDERS, &orders).await.unwrap();
        let setup = Setup::new(&server).worker("streams = [\"orders\"]");
        let fleet = [setup.start_with(inventory::registry()), setup.start_with(inventory::registry())];
        eventually(PATIENCE, "an answer to every order", async || answers(&mut redis).await.len() == 200).await;
        assert_eq!(stock(&mut redis).await["tea"], 0);
        let reserved = answers(&mut redis).await.into_iter().filter(|(name, _)| name == "inventory.reserved").count();
        assert_eq!(reserved, 150);
        for worker in fleet {
            worker.stop().await;
        }
    }

    async fn the_program_creates_ships_and_cancels_orders(server: Server) {
        let mut redis = server.connect().await;
        let said = |output: Output| (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned());
        let refused = |output: Output| {
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let create = ["order", "create", "o-1", "--amount", "1200", "--item", "tea=2", "--item", "pot=1"];
        assert_eq!(said(streamhand(&server, &create)), (Some(0), "created o-1\n".to_owned()));
        assert_eq!(refused(streamhand(&server, &create)), "error: there is an order \"o-1\" already\n");
        // What was done already is no mistake, and no second event.
        for _ in 0..2 {
            assert_eq!(said(streamhand(&server, &["order", "cancel", "o-1"])), (Some(0), "cancelled o-1\n".to_owned()));
        }
        let late = refused(streamhand(&server, &["order", "ship", "o-1"]));
        assert_eq!(late, "error: o-1 was cancelled: it can't be shipped\n");
        assert!(refused(streamhand(&server, &["order", "cancel", "o-2"])).contains("there is no order \"o-2\""));
        let wrong = streamhand(&server, &["order", "create", "o-3", "--item", "tea"]);
        assert_eq!(wrong.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("write SKU=QUANTITY, like tea=2"));
        assert!(refused(streamhand(&server, &["order", "create", "o 4", "--item", "tea=1"])).contains("has ' '"));
        let entries: Vec<(String, BTreeMap<String, Vec<u8>>)> =
            redis::cmd("XRANGE").arg(ORDERS).arg("-").arg("+").query_async(&mut redis).await.unwrap();
        let types: Vec<_> = entries.iter().map(|(_, fields)| &fields["type"][..]).collect();
        assert_eq!(types, [&b"order.created"[..], b"order.creation.failed", b"order.cancelled", b"order.creation.failed"]);

        assert_eq!(said(streamhand(&server, &["order", "create", "o-5", "--item", "tea=1"])).0, Some(0));
        assert_eq!(said(streamhand(&server, &["order", "ship", "o-5"])), (Some(0), "shipped o-5\n".to_owned()));
        assert!(refused(streamhand(&server, &["order", "cancel", "o-5"])).contains("o-5 was shipped"));
        let (_, shown) = said(streamhand(&server, &["aggregate", "show", "order:o-5"]));
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!((&shown["version"], &shown["state"]["status"]), (&2.into(), &"shipped".into()), "{shown}");
    }

    async fn an_order_that_is_stored_reaches_the_inventory(server: Server) {
        let mut redis = server.connect().await;
        let _: () = redis.hset("{orders}:stock", "tea", 10).await.unwrap();
        let inventory = Inventory::open(&server).await;
        let done = |args: &[&str]| assert!(streamhand(&server, args).status.success(), "{args:?}");
        done(&["order", "create", "o-1", "--item", "tea=4"]);
        done(&["order", "create", "o-2", "--item", "tea=3"]);
        settled(&mut redis, ORDERS, PATIENCE).await;
        assert_eq!(stock(&mut redis).await["tea"], 3);
        done(&["order", "cancel", "o-1"]);
        done(&["order", "ship", "o-2"]);
        settled(&mut redis, ORDERS, PATIENCE).await;
        assert_eq!(stock(&mut redis).await["tea"], 7);
        inventory.worker.stop().await;
    }
}
