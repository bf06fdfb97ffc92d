//! Handlers: the function an event type is handled by, and the registry that finds it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Envelope;
use crate::event_type;
use crate::failure::Failure;
use crate::upcast::{Chain, Upcasters};

/// A type of event: what its data looks like and what it is called.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct OrderCreated {
///     order_id: String,
///     amount: u64,
/// }
///
/// impl streamhand::Event for OrderCreated {
///     const TYPE: &'static str = "order.created";
/// }
/// ```
pub trait Event: Send + 'static {
    /// A noun and what happened to it, dotted and lower-case: `order.created`. What breaks the grammar does not
    /// compile where the event is registered or published.
    const TYPE: &'static str;

    /// The version of the data's schema, from 1.
    const VERSION: u32 = 1;
}

/// What a handler becomes when it is called.
pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Which handler handles which type of event.
///
/// ```
/// # use streamhand::{Context, Event, Failure, Registry};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { order_id: String }
/// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
/// # #[derive(Clone)] struct Db;
/// async fn reserve(order: OrderCreated, ctx: Context) -> Result<(), Failure> {
///     Ok(())
/// }
///
/// fn registry(db: Db) -> Registry {
///     Registry::new()
///         .on(reserve)
///         .on_raw("order.archived", |envelope, _ctx| async move {
///             println!("{} bytes", envelope.data().len());
///             Ok(())
///         })
///         .ignore("order.viewed")
/// }
/// # registry(Db);
/// ```
#[derive(Default)]
pub struct Registry {
    routes: HashMap<String, Route>,
    ignored: HashMap<String, &'static Location<'static>>,
    upcasters: Upcasters,
    problems: Vec<String>,
}

/// The handler of one event type.
pub(crate) struct Route {
    /// The newest version of the data it takes.
    pub version: u32,
    handler: Box<dyn Handle>,
    /// What brings older versions to this one; set where a worker takes the registry apart.
    upcasters: Option<Chain>,
    place: &'static Location<'static>,
}

trait Handle: Send + Sync {
    /// With the data upcast, where that was necessary.
    fn call(&self, ctx: Context, upcast: Option<&[u8]>) -> Result<HandlerFuture, Failure>;
}

impl Registry {
    /// A registry without handlers.
    pub fn new() -> Self {
        Registry::default()
    }

    /// Handles events of type `E` by `handler`: an `async fn`, or a closure whose event is annotated.
    #[track_caller]
    pub fn on<E, F, Fut>(self, handler: F) -> Self
    where
        E: Event + DeserializeOwned,
        F: Fn(E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        const {
            assert!(
                event_type::is_valid(E::TYPE),
                "Event::TYPE is dotted and lower-case, like order.created"
            )
        };
        let place = Location::caller();
        self.add(
            E::TYPE,
            E::VERSION,
            place,
            move |ctx: Context, upcast: Option<&[u8]>| {
                let envelope = ctx.envelope();
                let event: E = match upcast {
                    None => envelope.decode_data().map_err(Failure::undecodable)?,
                    Some(data) => decode_upcast(envelope, data)?,
                };
                Ok(Box::pin(handler(event, ctx)) as HandlerFuture)
            },
        )
    }

    /// As [`on`](Self::on), with `state` (a database pool, a client) handed to every call.
    #[track_caller]
    pub fn on_with<S, E, F, Fut>(self, state: S, handler: F) -> Self
    where
        S: Clone + Send + Sync + 'static,
        E: Event + DeserializeOwned,
        F: Fn(S, E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.on(move |event: E, ctx| handler(state.clone(), event, ctx))
    }

    /// Handles events of a type by its name, whatever their version, with their data undecoded.
    #[track_caller]
    pub fn on_raw<F, Fut>(mut self, event_type: &str, handler: F) -> Self
    where
        F: Fn(Envelope, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let place = Location::caller();
        if let Err(why) = event_type::check(event_type) {
            self.problems
                .push(format!("{place}: the event type {event_type:?}: {why}"));
            return self;
        }
        self.add(
            event_type,
            u32::MAX,
            place,
            move |ctx: Context, _: Option<&[u8]>| {
                Ok(Box::pin(handler(ctx.envelope().clone(), ctx)) as HandlerFuture)
            },
        )
    }

    /// Acknowledges events of this type without a handler: they are not this worker's business.
    #[track_caller]
    pub fn ignore(mut self, event_type: &str) -> Self {
        let place = Location::caller();
        if let Err(why) = event_type::check(event_type) {
            self.problems
                .push(format!("{place}: the event type {event_type:?}: {why}"));
        } else if let Some(route) = self.routes.get(event_type) {
            self.problems.push(format!(
                "{place}: {event_type} is ignored here and handled at {}",
                route.place
            ));
        } else {
            self.ignored.insert(event_type.to_owned(), place);
        }
        self
    }

    /// Brings the data of events of type `E` from version `from` to the next, before they reach their handler. The
    /// upcasters of a type are chained up to [`Event::VERSION`]; events of that version are not touched.
    ///
    /// `In` and `Out` are how the data looked in the two versions: structs of their own, or a value of any form, such
    /// as [`serde_json::Value`]. Data that comes as MessagePack stays MessagePack. An upcaster that fails, whatever its
    /// failure asks for, or panics sends the event to the dead letters as `undecodable`.
    ///
    /// ```
    /// # use streamhand::{Context, Event, Failure, Registry};
    /// # use serde_json::{Value, json};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { order_id: String, currency: String }
    /// impl Event for OrderCreated {
    ///     const TYPE: &'static str = "order.created";
    ///     const VERSION: u32 = 2;
    /// }
    ///
    /// # async fn reserve(_: OrderCreated, _: Context) -> Result<(), Failure> { Ok(()) }
    /// let registry = Registry::new()
    ///     .on(reserve)
    ///     .upcast::<OrderCreated, Value, Value>(1, |mut order| {
    ///         order["currency"] = json!("EUR");
    ///         Ok(order)
    ///     });
    /// assert!(registry.check().is_ok());
    /// ```
    #[track_caller]
    pub fn upcast<E, In, Out>(
        mut self,
        from: u32,
        step: impl Fn(In) -> Result<Out, Failure> + Send + Sync + 'static,
    ) -> Self
    where
        E: Event,
        In: DeserializeOwned,
        Out: Serialize,
    {
        let place = Location::caller();
        self.upcasters.add(E::TYPE, E::VERSION, from, place, step);
        self
    }

    /// Hands `envelope` to its handler, as a worker would, without Redis: for tests.
    ///
    /// # Errors
    /// What the handler answers; a permanent failure where no handler is registered for the type, or the data
    /// is not what it takes.
    pub async fn dispatch(&self, envelope: Envelope) -> Result<(), Failure> {
        self.dispatch_with(Context::for_test_with(envelope, None))
            .await
    }

    /// As [`dispatch`](Self::dispatch), with a context of your own.
    ///
    /// # Errors
    /// As [`dispatch`](Self::dispatch).
    pub async fn dispatch_with(&self, ctx: Context) -> Result<(), Failure> {
        let event_type = ctx.envelope().event_type();
        if self.is_ignored(event_type) {
            return Ok(());
        }
        match self.route(event_type) {
            Some(route) => {
                let called = match self.upcasters.of(event_type) {
                    None => route.call(ctx),
                    Some(upcasters) => route.call_upcast(ctx, upcasters),
                };
                called?.await
            }
            None => Err(Failure::permanent(format!(
                "no handler is registered for {event_type}"
            ))),
        }
    }

    /// Every type that is handled, in order.
    pub fn event_types(&self) -> impl Iterator<Item = &str> {
        self.routes
            .keys()
            .map(String::as_str)
            .collect::<BTreeSet<_>>()
            .into_iter()
    }

    /// All that is wrong with the registrations, told at once.
    ///
    /// # Errors
    /// Where a type is registered twice, is ignored and handled, or breaks the grammar, or its upcasters do not lead
    /// to its handler's version.
    pub fn check(&self) -> Result<()> {
        let mut problems = self.problems.clone();
        problems.extend(self.upcasters.problems(|event_type| {
            let route = self.routes.get(event_type);
            route.map(|route| route.version)
        }));
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "the registry of handlers is wrong:\n  {}",
                problems.join("\n  ")
            ),
        ))
    }

    pub(crate) fn route(&self, event_type: &str) -> Option<&Route> {
        self.routes.get(event_type)
    }

    pub(crate) fn is_ignored(&self, event_type: &str) -> bool {
        !self.ignored.is_empty() && self.ignored.contains_key(event_type)
    }

    /// The routes and the ignored types, for a worker.
    pub(crate) fn into_parts(mut self) -> (HashMap<String, Route>, HashSet<String>) {
        for (event_type, route) in &mut self.routes {
            route.upcasters = self.upcasters.take(event_type);
        }
        (self.routes, self.ignored.into_keys().collect())
    }

    fn add(
        mut self,
        event_type: &str,
        version: u32,
        place: &'static Location<'static>,
        call: impl Fn(Context, Option<&[u8]>) -> Result<HandlerFuture, Failure> + Send + Sync + 'static,
    ) -> Self {
        if let Some(ignored) = self.ignored.get(event_type) {
            self.problems.push(format!(
                "{place}: {event_type} is handled here and ignored at {ignored}"
            ));
        }
        match self.routes.entry(event_type.to_owned()) {
            Entry::Vacant(free) => {
                free.insert(Route {
                    version,
                    handler: Box::new(call),
                    upcasters: None,
                    place,
                });
            }
            Entry::Occupied(taken) => {
                let first = taken.get().place;
                self.problems.push(format!(
                    "{place}: {event_type} has a handler already, registered at {first}"
                ));
            }
        }
        self
    }
}

/// Out of the way of the events that need no upcasting.
#[cold]
#[inline(never)]
fn decode_upcast<E: DeserializeOwned>(envelope: &Envelope, data: &[u8]) -> Result<E, Failure> {
    codec::decode(envelope.content_type().as_bytes(), data).map_err(Failure::undecodable)
}

impl Route {
    /// Decodes the event, brought to the handler's version where it is older, and makes the handler's future.
    pub fn call(&self, ctx: Context) -> Result<HandlerFuture, Failure> {
        match &self.upcasters {
            None => self.handler.call(ctx, None),
            Some(upcasters) => self.call_upcast(ctx, upcasters),
        }
    }

    #[inline(never)]
    fn call_upcast(&self, ctx: Context, upcasters: &Chain) -> Result<HandlerFuture, Failure> {
        let upcast = upcasters.upcast(ctx.envelope())?;
        self.handler.call(ctx, upcast.as_deref())
    }
}

impl<F: Fn(Context, Option<&[u8]>) -> Result<HandlerFuture, Failure> + Send + Sync> Handle for F {
    fn call(&self, ctx: Context, upcast: Option<&[u8]>) -> Result<HandlerFuture, Failure> {
        self(ctx, upcast)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("handled", &self.event_types().collect::<Vec<_>>())
            .field("ignored", &self.ignored.keys().collect::<BTreeSet<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Paid {
        amount: u64,
    }

    impl Event for Paid {
        const TYPE: &'static str = "order.paid";
    }

    async fn on_paid(_: Paid, _: Context) -> Result<(), Failure> {
        Ok(())
    }

    fn paid(amount: u64) -> Envelope {
        Envelope::new("order.paid")
            .msgpack(&Paid { amount })
            .unwrap()
    }

    #[tokio::test]
    async fn every_way_of_registering_gets_the_event() {
        let sum = Arc::new(AtomicU64::new(0));
        let captured = sum.clone();
        let closure = Registry::new().on(move |event: Paid, _ctx| {
            captured.fetch_add(event.amount, Ordering::SeqCst);
            async { Ok(()) }
        });
        let with = Registry::new().on_with(
            sum.clone(),
            async |sum: Arc<AtomicU64>, event: Paid, _ctx: Context| {
                sum.fetch_add(event.amount, Ordering::SeqCst);
                Ok(())
            },
        );
        let captured = sum.clone();
        let raw = Registry::new().on_raw("order.paid", move |envelope, _| {
            captured.fetch_add(
                envelope.decode_data::<Paid>().unwrap().amount,
                Ordering::SeqCst,
            );
            async { Ok(()) }
        });
        for registry in [closure, with, raw, Registry::new().on(on_paid)] {
            registry.check().unwrap();
            registry.dispatch(paid(7)).await.unwrap();
        }
        assert_eq!(sum.load(Ordering::SeqCst), 21);
    }

    #[tokio::test]
    async fn what_has_no_handler_or_the_wrong_data_fails_for_good() {
        let registry = Registry::new().on(on_paid).ignore("order.viewed");
        registry
            .dispatch(Envelope::new("order.viewed"))
            .await
            .unwrap();
        assert!(
            registry
                .dispatch(Envelope::new("order.lost"))
                .await
                .unwrap_err()
                .is_permanent()
        );
        let wrong = Envelope::new("order.paid")
            .json(&serde_json::json!({"amount": "much"}))
            .unwrap();
        let failure = registry.dispatch(wrong).await.unwrap_err();
        assert!(failure.is_permanent());
        assert!(
            failure.to_string().contains("invalid type: string"),
            "{failure}"
        );
    }

    #[test]
    fn all_wrong_registrations_are_told_at_once_with_their_places() {
        let registry = Registry::new()
            .on(on_paid)
            .on(on_paid)
            .ignore("order.paid")
            .on_raw("Order Paid", |_, _| async { Ok(()) });
        let message = registry.check().unwrap_err().to_string();
        assert_eq!(message.matches("handler.rs:").count(), 5, "{message}");
        assert!(
            message.contains("order.paid has a handler already"),
            "{message}"
        );
        assert!(message.contains("\"Order Paid\""), "{message}");
    }
}
