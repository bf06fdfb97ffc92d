//! The inventory service: reserves stock for orders and gives it back. It knows the events of orders, and nothing of
//! the service that publishes them.
//!
//! What it does to the stock and what it answers leaves in one step with the acknowledgement: a worker that dies
//! leaves all of it done or nothing. The same event may still have been published twice, and an order's end may come
//! before its beginning: so what was decided about an order is kept, and guards everything else.

use std::collections::BTreeMap;

use redis::AsyncCommands;
use streamhand::{Committed, Context, Effect, Event, Failure, FailureExt, Registry};

use super::events::{
    INVENTORY, InventoryReservationFailed, InventoryReserved, Item, OrderCancelled, OrderCreated,
    OrderCreationFailed, OrderShipped,
};

/// Units left, by sku.
const STOCK: &str = "{orders}:stock";
/// What can be decided about an order.
const RESERVED: &str = "reserved";
const TOO_LITTLE: &str = "too little";
const CANCELLED: &str = "cancelled";

/// This service's handlers, and the events of the stream that are not its business.
pub fn registry() -> Registry {
    Registry::new()
        .on(reserve)
        .on(release)
        .ignore(OrderCreationFailed::TYPE)
        .ignore(OrderShipped::TYPE)
}

/// Reserves the stock of all of an order's items or of none, and says whether that worked.
pub async fn reserve(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
    let items = quantities(&order.items).permanent()?;
    let order_id = order.order_id;
    let decide = |decision| Effect::set(decision_key(&order_id), decision).if_absent();
    ctx.effect(decide(RESERVED));
    for (sku, quantity) in &items {
        ctx.effect(
            Effect::hincr_by(STOCK, sku, -quantity)
                .if_exists()
                .at_least(0),
        );
        ctx.effect(Effect::hset(
            reserved_key(&order_id),
            sku,
            quantity.to_string(),
        ));
    }
    ctx.emit(
        INVENTORY,
        InventoryReserved {
            order_id: order_id.clone(),
        },
    );
    // Where the stock of one is no number nothing is committed: tried again, for somebody may be about to mend it.
    let Committed::Refused(refusal) = ctx.commit().await? else {
        return Ok(());
    };
    let sku = refusal.effect().field().unwrap_or_default();
    let reason = match (refusal.effect().key(), refusal.current()) {
        // Too little is an answer; a sku nobody knows is none, so that it can be mended and the event replayed.
        (STOCK, None) => return Err(Failure::permanent(format!("no sku is called {sku:?}"))),
        (STOCK, Some(left)) => {
            ctx.effect(decide(TOO_LITTLE));
            let left = String::from_utf8_lossy(left);
            format!("{left} of {sku} left, {} ordered", items[sku])
        }
        (_, Some(decision)) if decision == CANCELLED.as_bytes() => {
            "the order was cancelled".to_owned()
        }
        // An event that was published twice: the answer has been given.
        _ => return Ok(()),
    };
    ctx.emit(INVENTORY, InventoryReservationFailed { order_id, reason });
    Ok(())
}

/// Gives back what a cancelled order holds, once. The order may not have been seen yet: then it will find this decision.
pub async fn release(order: OrderCancelled, ctx: Context) -> Result<(), Failure> {
    let (decision_key, reserved_key) =
        (decision_key(&order.order_id), reserved_key(&order.order_id));
    let mut redis = ctx.redis().await?;
    let decision: Option<String> = redis.get(&decision_key).await?;
    let held: BTreeMap<String, i64> = redis.hgetall(&reserved_key).await?;
    let cancel = Effect::set(decision_key, CANCELLED);
    // Where the order was decided about meanwhile, what was read is out of date: the guard refuses, and the event comes
    // again.
    ctx.effect(match decision {
        Some(decision) => cancel.if_equals(decision),
        None => cancel.if_absent(),
    });
    for (sku, quantity) in held {
        ctx.effect(Effect::hincr_by(STOCK, sku, quantity));
    }
    ctx.effect(Effect::del(reserved_key));
    Ok(())
}

/// How many of each sku; a sku that stands twice adds up.
fn quantities(items: &[Item]) -> Result<BTreeMap<&str, i64>, String> {
    let mut quantities = BTreeMap::new();
    for item in items {
        if item.quantity == 0 {
            return Err(format!("an order of 0 of {:?}", item.sku));
        }
        *quantities.entry(&item.sku[..]).or_default() += i64::from(item.quantity);
    }
    if quantities.is_empty() {
        Err("an order of nothing".to_owned())
    } else {
        Ok(quantities)
    }
}

fn reserved_key(order_id: &str) -> String {
    format!("{{orders}}:reserved:{order_id}")
}

fn decision_key(order_id: &str) -> String {
    format!("{{orders}}:decision:{order_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(sku: &str, quantity: u32) -> Item {
        Item {
            sku: sku.to_owned(),
            quantity,
        }
    }

    #[test]
    fn a_sku_that_stands_twice_adds_up() {
        let items = [item("tea", 2), item("pot", 1), item("tea", 3)];
        assert_eq!(
            quantities(&items).unwrap(),
            BTreeMap::from([("pot", 1), ("tea", 5)])
        );
    }

    fn order(items: Vec<Item>) -> OrderCreated {
        OrderCreated {
            order_id: "o-1".to_owned(),
            customer_id: "c-1".to_owned(),
            amount: 1,
            items,
        }
    }

    #[tokio::test]
    async fn an_order_that_is_decided_about_stays_so() {
        let ctx = Context::for_test();
        // What the first guard finds, which is the one of the decision: an order decided about needs no answer.
        ctx.refuse_next_commit(Some(RESERVED));
        reserve(order(vec![item("tea", 2)]), ctx.clone())
            .await
            .unwrap();
        assert_eq!((ctx.emitted().len(), ctx.effects().len()), (0, 0));

        let ctx = Context::for_test();
        ctx.refuse_next_commit(Some(CANCELLED));
        reserve(order(vec![item("tea", 2)]), ctx.clone())
            .await
            .unwrap();
        let answer: InventoryReservationFailed = ctx.emitted()[0].envelope.decode_data().unwrap();
        assert_eq!(answer.reason, "the order was cancelled");
    }

    #[tokio::test]
    async fn an_order_takes_its_stock_with_the_answer() {
        let ctx = Context::for_test();
        reserve(order(vec![item("tea", 2)]), ctx.clone())
            .await
            .unwrap();
        let take = Effect::hincr_by(STOCK, "tea", -2).if_exists().at_least(0);
        assert!(ctx.effects().contains(&take), "{:?}", ctx.effects());
        assert_eq!(
            ctx.emitted()[0].envelope.event_type(),
            InventoryReserved::TYPE
        );
    }

    #[tokio::test]
    async fn an_order_of_nothing_never_succeeds() {
        for items in [vec![], vec![item("tea", 0)]] {
            assert!(
                reserve(order(items), Context::for_test())
                    .await
                    .unwrap_err()
                    .is_permanent()
            );
        }
    }

    #[test]
    fn every_event_of_the_stream_is_somebodys_business() {
        registry().check().unwrap();
    }
}
