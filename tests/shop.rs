//! The shop that people copy, with its program and a fleet of its workers. What its handlers do event by event is tested in
//! the kit: `tests/kit/shop.rs`.

#[path = "../handlers/events.rs"]
mod events;
#[path = "../handlers/inventory.rs"]
mod inventory;

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::support::{Server, Setup, eventually, publisher, settled};
use events::{INVENTORY, Item, ORDERS, OrderCreated};

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
        let inventory = Setup::new(&server).worker("streams = [\"orders\"]").start_with(inventory::registry());
        let done = |args: &[&str]| assert!(streamhand(&server, args).status.success(), "{args:?}");
        done(&["order", "create", "o-1", "--item", "tea=4"]);
        done(&["order", "create", "o-2", "--item", "tea=3"]);
        settled(&mut redis, ORDERS, PATIENCE).await;
        assert_eq!(stock(&mut redis).await["tea"], 3);
        done(&["order", "cancel", "o-1"]);
        done(&["order", "ship", "o-2"]);
        settled(&mut redis, ORDERS, PATIENCE).await;
        assert_eq!(stock(&mut redis).await["tea"], 7);
        inventory.stop().await;
    }
}
