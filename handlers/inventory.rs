//! The inventory service: reserves stock for orders and gives it back. It knows the events of orders, and nothing of
//! the service that publishes them.
//!
//! An event can come twice: its worker may die after the reservation and before the acknowledgement. So the decision
//! about an order is made once, in one script, and kept; a second run finds it and only repeats the answer, under the
//! same event id.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use redis::Script;
use streamhand::{Context, Event, Failure, Registry};

use super::events::{
    INVENTORY, InventoryReservationFailed, InventoryReserved, Item, OrderCancelled, OrderCreated,
    OrderCreationFailed,
};

/// Units left, by sku.
const STOCK: &str = "{orders}:stock";

/// Decides about an order once: takes the stock of all its items or of none. Too little is an answer; a sku nobody
/// knows, or a stock that is no number, is none, and is not kept, so that it can be mended.
/// KEYS: stock, reserved, decision. ARGV: sku and quantity of each item.
static RESERVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local decided = redis.call('GET', KEYS[3])
        if decided then return decided end
        local short = nil
        for i = 1, #ARGV, 2 do
          local left = redis.call('HGET', KEYS[1], ARGV[i])
          if not left then return 'unknown ' .. ARGV[i] end
          if not left:find('^-?%d+$') then return 'unreadable ' .. ARGV[i] end
          if tonumber(left) < tonumber(ARGV[i + 1]) and not short then
            short = 'failed ' .. left .. ' of ' .. ARGV[i] .. ' left, ' .. ARGV[i + 1] .. ' ordered'
          end
        end
        if not short then
          for i = 1, #ARGV, 2 do
            redis.call('HINCRBY', KEYS[1], ARGV[i], '-' .. ARGV[i + 1])
            redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
          end
        end
        redis.call('SET', KEYS[3], short or 'reserved')
        return short or 'reserved'
        ",
    )
});

/// Gives back what an order holds, once. The order may not have been seen yet: then it will find this decision.
/// KEYS: stock, reserved, decision.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local held = redis.call('HGETALL', KEYS[2])
        for i = 1, #held, 2 do redis.call('HINCRBY', KEYS[1], held[i], held[i + 1]) end
        redis.call('DEL', KEYS[2])
        redis.call('SET', KEYS[3], 'failed the order was cancelled')
        ",
    )
});

/// This service's handlers, and the events of the stream that are not its business.
pub fn registry() -> Registry {
    Registry::new()
        .on(reserve)
        .on(release)
        .ignore(OrderCreationFailed::TYPE)
}

/// Reserves an order's items and says whether that worked.
pub async fn reserve(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
    let items = quantities(&order.items).map_err(Failure::permanent)?;
    let mut call = RESERVE.key(STOCK);
    call.key(reserved_key(&order.order_id))
        .key(decision_key(&order.order_id));
    for (sku, quantity) in items {
        call.arg(sku).arg(quantity);
    }
    // Redis being away is an error like any other: tried again.
    let decision: String = call.invoke_async(&mut ctx.redis().await?).await?;
    let order_id = order.order_id;
    match decision.split_once(' ') {
        None => answer(&ctx, &InventoryReserved { order_id }).await,
        Some(("failed", reason)) => {
            answer(
                &ctx,
                &InventoryReservationFailed {
                    order_id,
                    reason: reason.to_owned(),
                },
            )
            .await
        }
        // Somebody may be about to mend it: tried again.
        Some(("unreadable", sku)) => Err(format!("the stock of {sku:?} is no number").into()),
        Some((_, sku)) => Err(Failure::permanent(format!("no sku is called {sku:?}"))),
    }
}

/// Gives back what a cancelled order holds.
pub async fn release(order: OrderCancelled, ctx: Context) -> Result<(), Failure> {
    let mut call = RELEASE.key(STOCK);
    call.key(reserved_key(&order.order_id))
        .key(decision_key(&order.order_id));
    call.invoke_async::<()>(&mut ctx.redis().await?).await?;
    Ok(())
}

/// Publishes an answer to the event that is being handled. Its id follows from that event's id: whoever gets the
/// answer twice can tell.
async fn answer<E: Event + serde::Serialize>(ctx: &Context, event: &E) -> Result<(), Failure> {
    let publisher = ctx.publisher()?;
    let envelope = publisher
        .envelope(event)?
        .with("id", format!("{}/{}", ctx.envelope().id(), E::TYPE));
    publisher.publish_envelope(INVENTORY, envelope).await?;
    Ok(())
}

/// How many of each sku; a sku that stands twice adds up.
fn quantities(items: &[Item]) -> Result<BTreeMap<&str, u64>, String> {
    let mut quantities = BTreeMap::new();
    for item in items {
        if item.quantity == 0 {
            return Err(format!("an order of 0 of {:?}", item.sku));
        }
        *quantities.entry(&item.sku[..]).or_default() += u64::from(item.quantity);
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

    #[tokio::test]
    async fn an_order_of_nothing_never_succeeds() {
        for items in [vec![], vec![item("tea", 0)]] {
            let order = OrderCreated {
                order_id: "o-1".to_owned(),
                customer_id: "c-1".to_owned(),
                amount: 1,
                items,
            };
            assert!(
                reserve(order, Context::for_test())
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
