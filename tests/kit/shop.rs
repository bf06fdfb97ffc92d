//! The shop that people copy: stock is reserved once for each order, whatever is delivered twice or out of turn. Its handlers
//! run in the kit, in memory where they ask Redis nothing themselves, and on both servers.

#[path = "../../handlers/events.rs"]
#[allow(dead_code)]
mod events;
#[path = "../../handlers/inventory.rs"]
mod inventory;

use serde::Serialize;
use streamhand::dead_letters::Reason;
use streamhand::testing::{self, At, Builder, TestWorker};
use streamhand::{Effect, Envelope, Event};

use super::kind::Kind;
use super::{on, runtime};
use events::{
    InventoryReservationFailed, InventoryReserved, Item, ORDERS, OrderCancelled, OrderCreated,
};

const STOCK: &str = "{orders}:stock";
const CONFIG: &str = "[worker]\nstreams = [\"orders\"]\n[retry]\nmax_attempts = 1";

/// The inventory at work, one attempt for each event.
struct Inventory(TestWorker);

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

impl Inventory {
    /// Publishes an event under this id and works until it is settled.
    async fn handle<E: Event + Serialize>(&mut self, event: &E, id: &str) {
        let event = Envelope::new(E::TYPE).json(event).unwrap();
        self.0.publish_envelope(ORDERS, event.with("id", id)).await;
        self.0.run_until_idle().await;
    }

    /// So many are there of it.
    async fn has(&mut self, sku: &str, count: impl ToString) {
        self.0
            .given(Effect::hset(STOCK, sku, count.to_string()))
            .await;
    }

    async fn stock(&mut self, sku: &str) -> Option<String> {
        self.0.state(STOCK).await.field(sku)
    }

    /// To which events it was answered so.
    fn answers<E: Event>(&self) -> Vec<String> {
        let answers = self.0.emitted::<E>().envelopes();
        let cause = |answer: &Envelope| {
            let cause = answer.fields().value("causationid").unwrap();
            String::from_utf8(cause.to_vec()).unwrap()
        };
        answers.iter().map(cause).collect()
    }
}

async fn open(builder: Builder) -> Inventory {
    Inventory(builder.config(CONFIG).start().await)
}

/// On both servers.
fn on_servers(test: impl AsyncFn(Inventory)) {
    for kind in [Kind::Redis, Kind::Valkey] {
        let builder = on(kind)(inventory::registry());
        runtime().block_on(async { test(open(builder).await).await });
    }
}

/// And in memory.
fn everywhere(test: impl AsyncFn(Inventory)) {
    let builder = testing::worker(inventory::registry());
    runtime().block_on(async { test(open(builder).await).await });
    on_servers(test);
}

#[test]
fn an_order_that_is_published_twice_reserves_once_and_is_answered_once() {
    everywhere(async |mut inventory| {
        inventory.has("tea", 10).await;
        for _ in 0..2 {
            let order = order("o-1", &[("tea", 2), ("tea", 1)]);
            inventory.handle(&order, "e-1").await;
        }
        inventory.0.handled::<OrderCreated>().times(2);
        assert_eq!(inventory.stock("tea").await.as_deref(), Some("7"));
        let held = inventory.0.state("{orders}:reserved:o-1").await;
        assert_eq!(held.field("tea").as_deref(), Some("3"));
        assert_eq!(inventory.answers::<InventoryReserved>(), ["e-1"]);
        inventory.0.emitted::<InventoryReservationFailed>().never();
    });
}

#[test]
fn too_little_stock_is_an_answer_and_takes_nothing() {
    everywhere(async |mut inventory| {
        inventory.has("tea", 10).await;
        inventory.has("pot", 1).await;
        let order = order("o-1", &[("tea", 2), ("pot", 2)]);
        inventory.handle(&order, "e-1").await;
        assert_eq!(inventory.stock("tea").await.as_deref(), Some("10"));
        assert_eq!(inventory.stock("pot").await.as_deref(), Some("1"));
        // The answer stays what it was when stock has come in and the event comes again.
        inventory.has("pot", 5).await;
        inventory.handle(&order, "e-1").await;
        assert_eq!(inventory.answers::<InventoryReservationFailed>(), ["e-1"]);
        inventory.0.emitted::<InventoryReserved>().never();
        inventory.0.dead_letters().none();
    });
}

#[test]
fn an_unknown_sku_is_a_permanent_failure_that_can_be_mended() {
    everywhere(async |mut inventory| {
        inventory
            .handle(&order("o-1", &[("unicorn", 1)]), "e-1")
            .await;
        let letter = inventory.0.dead_letters().only().reason(Reason::Permanent);
        letter.error_contains("no sku is called \"unicorn\"");
        inventory.has("unicorn", 1).await;
        inventory.0.replay().await;
        inventory.0.run_until_idle().await;
        inventory.0.dead_letters().none();
        inventory.0.handled::<OrderCreated>().once();
        assert_eq!(inventory.stock("unicorn").await.as_deref(), Some("0"));
    });
}

#[test]
fn a_stock_that_is_no_number_is_tried_again_and_takes_nothing() {
    everywhere(async |mut inventory| {
        inventory.has("tea", 10).await;
        inventory.has("kettle", "1.5").await;
        for items in [[("tea", 1), ("kettle", 1)], [("kettle", 1), ("tea", 1)]] {
            inventory.handle(&order("o-1", &items), "e-1").await;
        }
        for letter in inventory.0.dead_letters().all() {
            assert_eq!(letter.head.reason.as_str(), "failed");
            let error = &letter.head.error;
            let why = "HINCRBY {orders}:stock kettle: there is no whole number";
            assert!(error.contains(why), "{error}");
        }
        inventory.0.dead_letters().times(2);
        assert_eq!(inventory.stock("tea").await.as_deref(), Some("10"));
        inventory.has("kettle", 1).await;
        let order = order("o-1", &[("tea", 1), ("kettle", 1)]);
        inventory.handle(&order, "e-1").await;
        assert_eq!(inventory.stock("tea").await.as_deref(), Some("9"));
        assert_eq!(inventory.stock("kettle").await.as_deref(), Some("0"));
    });
}

#[test]
fn a_cancelled_order_gives_back_once_and_reserves_nothing_afterwards() {
    on_servers(async |mut inventory| {
        inventory.has("tea", 10).await;
        let cancelled = |id: &str| OrderCancelled {
            order_id: id.to_owned(),
        };
        inventory.handle(&order("o-1", &[("tea", 4)]), "e-1").await;
        assert_eq!(inventory.stock("tea").await.as_deref(), Some("6"));
        for _ in 0..2 {
            inventory.handle(&cancelled("o-1"), "e-2").await;
        }
        assert_eq!(inventory.stock("tea").await.as_deref(), Some("10"));
        // An order's creation that comes after its end.
        inventory.handle(&cancelled("o-2"), "e-3").await;
        inventory.handle(&order("o-2", &[("tea", 4)]), "e-4").await;
        assert_eq!(inventory.stock("tea").await.as_deref(), Some("10"));
        assert_eq!(inventory.answers::<InventoryReservationFailed>(), ["e-4"]);
        inventory.0.dead_letters().none();
    });
}

#[test]
fn a_worker_that_dies_before_and_behind_its_commit_reserves_once() {
    everywhere(async |mut inventory| {
        inventory.has("tea", 10).await;
        inventory.0.kill(At::BeforeAck);
        inventory.0.kill(At::AfterAck);
        let order = order("o-1", &[("tea", 4)]);
        inventory.handle(&order, "e-1").await;
        inventory.handle(&order, "e-1").await;
        inventory
            .0
            .advance(std::time::Duration::from_secs(60))
            .await;
        assert_eq!(inventory.stock("tea").await.as_deref(), Some("6"));
        assert_eq!(inventory.answers::<InventoryReserved>(), ["e-1"]);
    });
}
