//! How many orders there are in each status: a view of their events, which can be made anew from the orders at any time.

use std::collections::BTreeMap;

use redis::AsyncCommands;
use streamhand::eventstore::{Projected, Projection, ProjectionView, View};
use streamhand::{Error, ErrorKind, Failure, Publisher, Result, Settings};

use super::events::ORDERS;
use super::order::OrderEvent;

/// Where the counts are in the view, by status.
const COUNTS: &str = "counts";

pub struct OrdersByStatus;

impl Projection for OrdersByStatus {
    const NAME: &'static str = "orders-by-status";
    const STREAM: &'static str = ORDERS;
    const KINDS: &'static [&'static str] = &["order"];
    type Event = OrderEvent;

    fn project(&self, event: Projected<OrderEvent>, view: &mut View) -> Result<(), Failure> {
        // What is shipped or cancelled was created before: an order sees to that.
        let becomes = match event.event {
            OrderEvent::Created(_) => {
                view.hincr_by(COUNTS, "created", 1);
                return Ok(());
            }
            OrderEvent::Shipped(_) => "shipped",
            OrderEvent::Cancelled(_) => "cancelled",
        };
        view.hincr_by(COUNTS, "created", -1)
            .hincr_by(COUNTS, becomes, 1);
        Ok(())
    }
}

/// The counts as they are served.
pub async fn read(settings: &Settings) -> Result<BTreeMap<String, i64>> {
    let view = ProjectionView::of::<OrdersByStatus>(&settings.redis)?;
    let mut redis = Publisher::new(&settings.redis)?.redis().await?;
    let mut counts = BTreeMap::new();
    for key in view.keys(COUNTS).await? {
        let of_partition: BTreeMap<String, i64> = redis.hgetall(&key).await.map_err(|error| {
            Error::new(ErrorKind::Redis, format!("reading {key}: {error}")).with_source(error)
        })?;
        for (status, count) in of_partition {
            *counts.entry(status).or_default() += count;
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use streamhand::{Effect, Envelope};

    use super::*;
    use crate::events::OrderShipped;

    #[test]
    fn an_order_that_is_shipped_is_no_longer_one_that_is_created() {
        let order_id = "o-1".to_owned();
        let shipped = Projected::new(
            OrderShipped { order_id }.into(),
            "order:o-1".parse().unwrap(),
            2,
            Envelope::new("order.shipped"),
        );
        let mut view = View::new();
        OrdersByStatus
            .project(shipped, &mut view)
            .unwrap_or_else(|_| panic!("it is an event like any other"));
        let wanted = [
            Effect::hincr_by(COUNTS, "created", -1),
            Effect::hincr_by(COUNTS, "shipped", 1),
        ];
        assert_eq!(view.effects(), wanted);
    }
}
