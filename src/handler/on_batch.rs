//! How batch handlers are registered.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use super::batch::{Batch, BatchRoute, Batches, KeyOf, batch, noted};
use super::{Decodes, Registry, decode};
use crate::codec::Decodable;
use crate::context::Context;
use crate::event::{Event, demand};
use crate::failure::Failure;
use crate::middleware::HandlerFuture;

impl Registry {
    /// Handles events of type `E` many at once: an `async fn` that takes a [`Batch`] of them, or a closure whose batch is
    /// annotated. `[handlers."order.created"] batch` in the configuration has its say before what is given here.
    ///
    /// ```
    /// # use streamhand::{Batch, Batches, Context, Event, Failure, Registry};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { order_id: String }
    /// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
    /// async fn insert(orders: Batch<OrderCreated>, _ctx: Context) -> Result<(), Failure> {
    ///     println!("INSERT … of {} rows", orders.len());
    ///     Ok(())
    /// }
    ///
    /// let registry = Registry::new().on_batch(Batches::of(500).bytes("1MiB").wait("200ms"), insert);
    /// assert!(registry.check().is_ok());
    /// ```
    #[track_caller]
    pub fn on_batch<E, F, Fut>(self, batches: Batches<E>, handler: F) -> Self
    where
        E: Event + Decodable,
        F: Fn(Batch<E>, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        const { demand::<E>() };
        let place = Location::caller();
        let (by, upcasters) = (batches.by, self.upcasters.clone());
        let of_key = self.upcasters.clone();
        let route = BatchRoute {
            limits: batches.limits,
            key: by.map(|by| {
                let key = move |ctx: &Context| Ok(by(&decode::<E>(&of_key, ctx.envelope())?));
                Arc::new(key) as KeyOf
            }),
        };
        let of_older = self.upcasters.clone();
        let decodes: Decodes = Box::new(move |envelope| decode::<E>(&of_older, envelope).map(drop));
        let mut registry = self.add(
            E::TYPE,
            E::VERSION,
            place,
            Some(decodes),
            move |ctx: Context| {
                let batch = match batch(&ctx, |envelope| decode::<E>(&upcasters, envelope))? {
                    Some(batch) => batch,
                    // None of them could be decoded, which is noted of each.
                    None => return Ok(Box::pin(std::future::ready(Ok(()))) as HandlerFuture),
                };
                let alone = batch.alone.clone();
                let run = handler(batch, ctx.clone());
                Ok(Box::pin(async move {
                    let result = run.await;
                    noted(&ctx, alone.as_deref(), result)
                }) as HandlerFuture)
            },
        );
        for problem in batches.problems {
            let problem = format!("{place}: the batches of {}: {problem}", E::TYPE);
            registry.problems.push(problem);
        }
        // Of two handlers of a type the first is kept, and the registry is refused.
        if let Some(known) = registry.routes.get_mut(E::TYPE)
            && std::ptr::eq(known.place, place)
        {
            known.batch = Some(route);
        }
        registry
    }

    /// As [`on_batch`](Self::on_batch), with `state` (a database pool, a client) handed to every call.
    #[track_caller]
    pub fn on_batch_with<S, E, F, Fut>(self, state: S, batches: Batches<E>, handler: F) -> Self
    where
        S: Clone + Send + Sync + 'static,
        E: Event + Decodable,
        F: Fn(S, Batch<E>, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.on_batch(batches, move |batch: Batch<E>, ctx| {
            handler(state.clone(), batch, ctx)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::event::Envelope;

    #[derive(Serialize, Deserialize)]
    struct Paid {
        amount: u64,
    }

    impl Event for Paid {
        const TYPE: &'static str = "order.paid";
    }

    fn paid(amount: impl Serialize) -> Context {
        let data = serde_json::json!({ "amount": amount });
        let event = Envelope::new(Paid::TYPE).json(&data).unwrap();
        Context::for_test_with(event, None)
    }

    /// Fails events of nothing, and one that is not there if the first is of 99.
    async fn book(events: Batch<Paid>, _: Context) -> Result<(), Failure> {
        for (index, event) in events.iter().enumerate() {
            if event.amount == 0 {
                events.fail(index, Failure::permanent("nothing"));
            }
        }
        if events[0].amount == 99 {
            events.fail(events.len(), "too far");
        }
        Ok(())
    }

    async fn handled(members: Vec<Context>) -> (Result<(), Failure>, Context) {
        let registry = Registry::new().on_batch(Batches::of(10), book);
        registry.check().unwrap();
        let ctx = Context::of_batch(members);
        (registry.dispatch_with(ctx.clone()).await, ctx)
    }

    #[tokio::test]
    async fn single_events_fail_and_what_can_t_be_decoded_is_left_out() {
        let members = vec![
            paid(serde_json::json!("much")),
            paid(7),
            paid(0),
            paid(serde_json::json!({})),
            paid(0),
        ];
        let (result, ctx) = handled(members).await;
        assert!(result.is_ok());
        assert_eq!(ctx.failed_events(), [0, 2, 3, 4]);
        let notes = ctx.members().unwrap().take_notes();
        let is = |place: usize| notes.failed[&place].to_string();
        assert!(is(0).contains("invalid type"), "{}", is(0));
        assert_eq!((is(2), is(4)), ("nothing".to_owned(), "nothing".to_owned()));
        let none = vec![paid(serde_json::json!("much")); 2];
        let (result, ctx) = handled(none).await;
        assert!(result.is_ok() && ctx.failed_events() == [0, 1]);
    }

    #[tokio::test]
    async fn a_place_that_is_none_fails_the_batch_with_the_reason() {
        let (result, _) = handled(vec![paid(99), paid(7)]).await;
        let said = result.unwrap_err().to_string();
        assert!(
            said.contains("index 2")
                && said.contains("the batch has 2")
                && said.contains("too far"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn one_event_is_a_batch_of_one() {
        let registry = Registry::new().on_batch(Batches::of(10), book);
        assert!(registry.dispatch_with(paid(7)).await.is_ok());
        let failure = registry.dispatch_with(paid(0)).await.unwrap_err();
        assert!(failure.is_permanent());
        let failure = registry.dispatch_with(paid(99)).await.unwrap_err();
        assert!(failure.to_string().contains("index 1"), "{failure}");
        let wrong = paid(serde_json::json!("much"));
        assert!(
            registry
                .dispatch_with(wrong)
                .await
                .unwrap_err()
                .is_permanent()
        );
    }

    #[test]
    fn what_is_wrong_with_batches_is_told_with_its_place() {
        let message = Registry::new()
            .on_batch(Batches::of(10).bytes("1MB").wait("200"), book)
            .on(async |_: Paid, _: Context| Ok(()))
            .check()
            .unwrap_err()
            .to_string();
        assert_eq!(message.matches("on_batch.rs:").count(), 4, "{message}");
        assert!(message.contains("\"1MB\" is no size"), "{message}");
        assert!(message.contains("write \"200s\""), "{message}");
        assert!(message.contains("has a handler already"), "{message}");
    }

    #[test]
    fn what_a_batch_emits_has_an_id_of_all_its_events_and_what_they_share() {
        let event = |id: &str, subject: &str| {
            let event = Envelope::new(Paid::TYPE).with("id", id);
            Context::for_test_with(event.with("subject", subject), None)
        };
        let emitted = |members: Vec<Context>| {
            let ctx = Context::of_batch(members);
            ctx.emit_envelope("books", Envelope::new("book.closed"));
            ctx.emitted().remove(0).envelope
        };
        let both = || emitted(vec![event("e-1", "o-1"), event("e-2", "o-1")]);
        assert_eq!(both().id(), both().id());
        let another = emitted(vec![event("e-1", "o-1"), event("e-3", "o-2")]);
        assert_ne!(both().id(), another.id());
        assert_eq!((both().subject(), another.subject()), (Some("o-1"), None));
        assert_eq!(both().field("causationid"), Some("e-1"));
        assert_eq!(both().field("correlationid"), None);
    }
}
