//! Handlers: the function an event type is handled by, and the registry that finds it.

mod batch;
mod companion;
mod crons;
mod hooks;
mod on_batch;

pub use batch::{Batch, BatchBytes, BatchWait, Batches};
pub(crate) use batch::{BatchRoute, KeyOf};
pub(crate) use companion::Companion;
pub(crate) use hooks::Hooks;
pub use hooks::{BuriedEvent, FailedAttempt};

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::{Layer, Service};

use crate::classify::Classifiers;
use crate::codec::{self, Decodable, Encodable};
use crate::config::CronSettings;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Envelope, Event, demand};
use crate::event_type;
use crate::eventstore::{Aggregate, EventStore, Projection, Registered, Repository, projection};
use crate::failure::{BoxError, Failure, FailureKind};
use crate::middleware::{Handler, HandlerFuture};
use crate::sync::{read, write};
use crate::upcast::Upcasters;

pub use crons::CronTime;
pub(crate) use crons::{Cron, RegisteredCron, crons, event_of_spec};

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
#[must_use]
pub struct Registry {
    routes: HashMap<String, Route>,
    ignored: HashMap<String, &'static Location<'static>>,
    /// What goes around every handler, the first one innermost.
    layers: Vec<Box<dyn Fn(Handler) -> Handler + Send + Sync>>,
    /// Known to the handlers of typed events, which ask for them if an older version comes.
    upcasters: Arc<RwLock<Upcasters>>,
    aggregates: Registered,
    projections: Vec<Arc<projection::Registered>>,
    classifiers: Classifiers,
    problems: Vec<String>,
    /// The handlers that are targets have been registered.
    has_targets: bool,
    companions: Vec<Arc<dyn Companion>>,
    crons: Vec<RegisteredCron>,
    hooks: Hooks,
}

/// The handler of one event type.
pub(crate) struct Route {
    /// The newest version of the data it takes.
    pub version: u32,
    pub handler: Handler,
    /// Decodes an event as the handler would, and hands it to nobody; None for one that takes whatever comes.
    decodes: Option<Decodes>,
    /// If it takes many events at once.
    pub batch: Option<BatchRoute>,
    pub place: &'static Location<'static>,
}

type Decodes = Box<dyn Fn(&Envelope) -> Result<(), Failure> + Send + Sync>;

/// What a registry says of an event's data, by [`Registry::validate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Validity {
    /// Its handler can decode it, brought to its version where it is of an older one.
    Decodes,
    /// Its handler takes the data as it is.
    TakenAsItIs,
    /// Its type is ignored.
    Ignored,
    /// No handler is registered for its type.
    NoHandler,
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
        E: Event + Decodable,
        F: Fn(E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        const { demand::<E>() };
        let place = Location::caller();
        let upcasters = self.upcasters.clone();
        let of_older = upcasters.clone();
        let decodes: Decodes = Box::new(move |envelope| decode::<E>(&of_older, envelope).map(drop));
        self.add(
            E::TYPE,
            E::VERSION,
            place,
            Some(decodes),
            move |ctx: Context| {
                let event: E = decode(&upcasters, ctx.envelope())?;
                Ok(Box::pin(handler(event, ctx)) as HandlerFuture)
            },
        )
    }

    /// As [`on`](Self::on), with `state` (a database pool, a client) handed to every call.
    #[track_caller]
    pub fn on_with<S, E, F, Fut>(self, state: S, handler: F) -> Self
    where
        S: Clone + Send + Sync + 'static,
        E: Event + Decodable,
        F: Fn(S, E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.on(move |event: E, ctx| handler(state.clone(), event, ctx))
    }

    /// As [`on`](Self::on), with a handler that returns an error type of its own. What that means is said by
    /// [`classify`](Self::classify); without that it is retried.
    #[track_caller]
    pub fn on_typed<E, F, Fut, X>(self, handler: F) -> Self
    where
        E: Event + Decodable,
        F: Fn(E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), X>> + Send + 'static,
        X: Into<Failure>,
    {
        self.on(move |event: E, ctx| {
            let run = handler(event, ctx);
            async move { run.await.map_err(Into::into) }
        })
    }

    /// As [`on_typed`](Self::on_typed), with `state` handed to every call.
    #[track_caller]
    pub fn on_typed_with<S, E, F, Fut, X>(self, state: S, handler: F) -> Self
    where
        S: Clone + Send + Sync + 'static,
        E: Event + Decodable,
        F: Fn(S, E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), X>> + Send + 'static,
        X: Into<Failure>,
    {
        self.on_typed(move |event: E, ctx| handler(state.clone(), event, ctx))
    }

    /// Says once, for all handlers, what errors of type `E` mean. It holds for an error that a handler hands on by `?` or
    /// returns, and for one that is somewhere among its [sources](std::error::Error::source); of several the outermost
    /// counts. What a handler says itself, as by [`Failure::permanent`], stays. Within layers an error is not
    /// classified yet.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use streamhand::{Context, Event, FailureKind, Registry};
    /// # use streamhand::Failure;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { order_id: String }
    /// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// enum PaymentError {
    ///     #[error("the card is declined")]
    ///     Declined,
    ///     #[error("too many requests")]
    ///     TooMany { wait: Duration },
    ///     #[error("the service can't be reached")]
    ///     Away(#[from] std::io::Error),
    /// }
    ///
    /// impl PaymentError {
    ///     fn kind(&self) -> FailureKind {
    ///         match self {
    ///             PaymentError::Declined => FailureKind::Permanent,
    ///             PaymentError::TooMany { wait } => FailureKind::Later(*wait),
    ///             PaymentError::Away(_) => FailureKind::Retry,
    ///         }
    ///     }
    /// }
    ///
    /// async fn charge(order: OrderCreated, _ctx: Context) -> Result<(), PaymentError> {
    ///     Err(PaymentError::Declined)
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let registry = Registry::new().on_typed(charge).classify(PaymentError::kind);
    /// # let order = OrderCreated { order_id: "o-1".into() };
    /// # let event = streamhand::Envelope::new("order.created").json(&order).unwrap();
    /// # assert_eq!(registry.dispatch(event).await.unwrap_err().kind(), FailureKind::Permanent);
    /// # }
    /// ```
    #[track_caller]
    pub fn classify<E: std::error::Error + 'static>(
        mut self,
        meaning: impl Fn(&E) -> FailureKind + Send + Sync + 'static,
    ) -> Self {
        if !self.classifiers.add(meaning) {
            self.problems.push(format!(
                "{}: what {} means has been said already",
                Location::caller(),
                std::any::type_name::<E>()
            ));
        }
        self
    }

    /// Calls `hook` once for every attempt that fails, of any handler, with the error: to report it, say. What comes back
    /// without using up an attempt has not failed.
    ///
    /// Hooks are called one after the other on a task of their own, and no entry waits for them. If more than 1024 things wait
    /// to be told, what comes then is not, and a warning says so. A panic is caught and logged. What a worker that is killed had
    /// not told yet is told by nobody. Several hooks are called in the order in which they were added.
    ///
    /// ```
    /// # use streamhand::Registry;
    /// let registry = Registry::new()
    ///     .on_failure(|failed| async move {
    ///         eprintln!("{} failed at attempt {}: {}", failed.event.id(), failed.attempt, failed.error);
    ///     })
    ///     .on_dead(|dead| async move {
    ///         eprintln!("{} of {} is a dead letter ({}): {}", dead.entry, dead.stream, dead.reason, dead.error);
    ///     });
    /// # registry.check().unwrap();
    /// ```
    pub fn on_failure<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(FailedAttempt) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.hooks.on_failure(hook);
        self
    }

    /// Calls `hook` once for every event that this worker has made a dead letter, when the letter is there. It is called as
    /// the hooks of [`on_failure`](Self::on_failure) are.
    pub fn on_dead<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(BuriedEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.hooks.on_dead(hook);
        self
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
        self.add(event_type, u32::MAX, place, None, move |ctx: Context| {
            Ok(Box::pin(handler(ctx.envelope().clone(), ctx)) as HandlerFuture)
        })
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
        self,
        from: u32,
        step: impl Fn(In) -> Result<Out, Failure> + Send + Sync + 'static,
    ) -> Self
    where
        E: Event,
        In: DeserializeOwned,
        Out: Serialize,
    {
        let place = Location::caller();
        write(&self.upcasters).add(E::TYPE, E::VERSION, from, place, step);
        self
    }

    /// Makes aggregates known to the program, whose `aggregate` commands show them, append to them and verify them. The
    /// registry's upcasters apply to their events.
    #[track_caller]
    pub fn aggregate<A>(mut self) -> Self
    where
        A: Aggregate + Serialize + DeserializeOwned,
    {
        self.aggregates
            .add::<A>(Location::caller(), &self.upcasters);
        self
    }

    /// Keeps a view of aggregates' events: see [`Projection`]. A worker runs it beside its handlers, one of the fleet at a
    /// time, with the upcasters of this registry.
    #[track_caller]
    pub fn projection<P: Projection>(mut self, projection: P) -> Self {
        let place = Location::caller();
        let new = projection::Registered::new(projection, self.upcasters.clone(), place);
        if let Some(first) = self.projections.iter().find(|known| known.name == new.name) {
            self.problems.push(format!(
                "{place}: there is a projection called {} already, registered at {}",
                new.name, first.place
            ));
        }
        self.problems.extend(new.problem());
        self.projections.push(Arc::new(new));
        self
    }

    /// Puts a `tower` layer around every handler, whether it was registered before or is after this call. Layers added
    /// later stand around those added before.
    ///
    /// A layer's service takes the entry's [`Context`] and answers nothing; see [`Handler`] for its errors.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use streamhand::{Context, Event, Failure, Registry};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { order_id: String }
    /// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
    /// # async fn reserve(_: OrderCreated, _: Context) -> Result<(), Failure> { Ok(()) }
    /// let registry = Registry::new()
    ///     .on(reserve)
    ///     .layer(tower::layer::layer_fn(|inner| {
    ///         tower::ServiceBuilder::new()
    ///             .map_request(|ctx: Context| {
    ///                 println!("{} at attempt {}", ctx.envelope().id(), ctx.attempt());
    ///                 ctx
    ///             })
    ///             .service(inner)
    ///     }));
    /// # registry.check().unwrap();
    /// ```
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Handler> + Send + Sync + 'static,
        L::Service: Service<Context, Response = ()> + Clone + Send + Sync + 'static,
        <L::Service as Service<Context>>::Error: Into<BoxError>,
        <L::Service as Service<Context>>::Future: Send + 'static,
    {
        for route in self.routes.values_mut() {
            route.handler = route.handler.clone().layered(&layer);
        }
        self.layers
            .push(Box::new(move |inner| inner.layered(&layer)));
        self
    }

    /// Puts a `tower` layer around the handler of one type, which is registered already. It stands outside of those
    /// that were there.
    #[track_caller]
    pub fn layer_for<L>(mut self, event_type: &str, layer: L) -> Self
    where
        L: Layer<Handler>,
        L::Service: Service<Context, Response = ()> + Clone + Send + Sync + 'static,
        <L::Service as Service<Context>>::Error: Into<BoxError>,
        <L::Service as Service<Context>>::Future: Send + 'static,
    {
        match self.routes.get_mut(event_type) {
            Some(route) => route.handler = route.handler.clone().layered(&layer),
            None => self.problems.push(format!(
                "{}: a layer for {event_type}, which has no handler yet: register the handler before its layer",
                Location::caller()
            )),
        }
        self
    }

    /// Hands `envelope` to its handler, as a worker would, without Redis: for tests.
    ///
    /// # Errors
    /// What the handler returns; a permanent failure if no handler is registered for the type, or the data
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
                if let Err(error) = route.handler.clone().call(ctx.clone()).await {
                    let mut failure = Failure::from(error);
                    self.classifiers.apply(&mut failure);
                    return Err(failure);
                }
                // What can't leave fails the handler, as it would at a worker.
                let wrong = ctx.outbox().and_then(|outbox| outbox.wrong());
                wrong.map_or(Ok(()), |wrong| Err(Failure::permanent(wrong)))
            }
            None => Err(Failure::permanent(format!(
                "no handler is registered for {event_type}"
            ))),
        }
    }

    /// Whether the handler of an event could decode it: by its own decoder, and the upcasters where it is of an older version.
    /// No handler is called.
    ///
    /// # Errors
    /// If it could not: at a worker the event would be buried as `undecodable`, or wait for a worker that knows its version.
    ///
    /// ```
    /// # use streamhand::{Context, Envelope, Event, Failure, Registry};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { amount: u64 }
    /// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
    /// # async fn reserve(_: OrderCreated, _: Context) -> Result<(), Failure> { Ok(()) }
    /// use streamhand::Validity;
    ///
    /// let registry = Registry::new().on(reserve);
    /// let event = |data| Envelope::new("order.created").with("data", data);
    /// assert_eq!(registry.validate(&event(r#"{"amount":3}"#)).unwrap(), Validity::Decodes);
    /// assert!(registry.validate(&event(r#"{"amount":"much"}"#)).is_err());
    /// ```
    pub fn validate(&self, envelope: &Envelope) -> Result<Validity, Failure> {
        let event_type = envelope.event_type();
        if self.is_ignored(event_type) {
            return Ok(Validity::Ignored);
        }
        let Some(route) = self.route(event_type) else {
            return Ok(Validity::NoHandler);
        };
        if envelope.version() > route.version {
            return Err(Failure::permanent(format!(
                "its schema version is {}, and the handler of {event_type} knows {}",
                envelope.version(),
                route.version
            )));
        }
        let Some(decodes) = &route.decodes else {
            return Ok(Validity::TakenAsItIs);
        };
        let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decodes(envelope)));
        decoded
            .unwrap_or_else(|_| Err(Failure::permanent("its decoder panicked")))
            .map(|()| Validity::Decodes)
    }

    /// Every type that is handled, in order.
    pub fn event_types(&self) -> impl Iterator<Item = &str> {
        self.routes
            .keys()
            .map(String::as_str)
            .collect::<BTreeSet<_>>()
            .into_iter()
    }

    /// Publishes an event again and again, at the times of a schedule: `event` makes it of each. The workers that declare
    /// it so have it stand in Redis before it is due, and add it once, whichever of them are there then.
    ///
    /// The settings are those of `[cron."nightly"]`, but for the type and the data, which the event has. One of the same
    /// name there is refused.
    ///
    /// ```
    /// use streamhand::config::{CatchUp, CronSettings};
    /// # use streamhand::{Context, Event, Failure, Registry};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct ReportDue { day: String }
    /// # impl Event for ReportDue { const TYPE: &'static str = "report.due"; }
    /// # async fn report(report: ReportDue, _ctx: Context) -> Result<(), Failure> { Ok(()) }
    ///
    /// # fn registry() -> Registry {
    /// let at_night = CronSettings::new("30 2 * * *")
    ///     .zone("Europe/Berlin")
    ///     .catch_up(CatchUp::Last);
    /// Registry::new()
    ///     .on(report)
    ///     .cron("nightly", at_night, |due| ReportDue { day: due.date().to_owned() })
    /// # }
    /// # registry().check().unwrap();
    /// ```
    #[track_caller]
    pub fn cron<E: Event + Encodable>(
        mut self,
        name: &str,
        settings: CronSettings,
        event: impl Fn(&CronTime) -> E + Send + Sync + 'static,
    ) -> Self {
        const { demand::<E>() };
        let place = Location::caller();
        let cron = RegisteredCron::new(name, settings, event, place);
        self.crons.push(cron);
        self
    }

    /// All that is wrong with the registrations, told at once.
    ///
    /// # Errors
    /// If a type is registered twice, is ignored and handled, or breaks the grammar, or its upcasters do not lead
    /// to its handler's version, or to that of an aggregate's event; if a kind of aggregates is registered twice.
    pub fn check(&self) -> Result<()> {
        let mut problems = self.problems.clone();
        let upcasters = self.upcasters();
        problems.extend(upcasters.problems(|event_type| {
            let route = self.routes.get(event_type).map(|route| route.version);
            let aggregate = || self.aggregates.version_of(event_type);
            let view = || {
                let mut of_views = self.projections.iter().flat_map(|one| one.events);
                let in_view = of_views.find(|kind| kind.event_type == event_type);
                in_view.map(|kind| kind.version)
            };
            // What takes the data as it is has no use for them, but an aggregate or a view may have.
            match route {
                None | Some(u32::MAX) => aggregate().or_else(view).or(route),
                handled => handled,
            }
        }));
        problems.extend(self.aggregates.problems(&upcasters));
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

    /// The kinds of aggregates.
    pub(crate) fn aggregates(&self) -> &Registered {
        &self.aggregates
    }

    /// The same, taken away.
    pub(crate) fn take_crons(&mut self) -> Vec<RegisteredCron> {
        std::mem::take(&mut self.crons)
    }

    /// The crons that are declared in code.
    pub(crate) fn crons(&self) -> &[RegisteredCron] {
        &self.crons
    }

    /// The projections, in the order they were registered in.
    pub(crate) fn projections(&self) -> &[Arc<projection::Registered>] {
        &self.projections
    }

    /// What is to be started and stopped with the worker.
    pub(crate) fn companions(&self) -> &[Arc<dyn Companion>] {
        &self.companions
    }

    /// Who is told of failures and dead letters.
    pub(crate) fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// The same, with another one.
    pub(crate) fn with_companion(mut self, companion: Arc<dyn Companion>) -> Self {
        self.companions.push(companion);
        self
    }

    /// Whether the handlers that are targets have been registered.
    pub(crate) fn has_targets(&self) -> bool {
        self.has_targets
    }

    /// The same, with those.
    pub(crate) fn with_targets(mut self) -> Self {
        self.has_targets = true;
        self
    }

    fn upcasters(&self) -> RwLockReadGuard<'_, Upcasters> {
        read(&self.upcasters)
    }

    pub(crate) fn route(&self, event_type: &str) -> Option<&Route> {
        self.routes.get(event_type)
    }

    /// The handlers that take many events at once, by their types, and where they were registered.
    pub(crate) fn batches(
        &self,
    ) -> impl Iterator<Item = (&str, &BatchRoute, &'static Location<'static>)> {
        let mut all: Vec<_> = self.routes.iter().collect();
        all.sort_by_key(|(event_type, _)| *event_type);
        let all: Vec<_> = all
            .into_iter()
            .filter_map(|(event_type, route)| {
                Some((&event_type[..], route.batch.as_ref()?, route.place))
            })
            .collect();
        all.into_iter()
    }

    pub(crate) fn is_ignored(&self, event_type: &str) -> bool {
        !self.ignored.is_empty() && self.ignored.contains_key(event_type)
    }

    /// The routes, the ignored types and what errors mean, for a worker.
    pub(crate) fn into_parts(self) -> (HashMap<String, Route>, HashSet<String>, Classifiers) {
        let ignored = self.ignored.into_keys().collect();
        (self.routes, ignored, self.classifiers)
    }

    /// The same handlers for one more worker of the same process.
    #[cfg(feature = "testing")]
    pub(crate) fn copy(&self) -> Self {
        let routes = self.routes.iter().map(|(event_type, route)| {
            let route = Route {
                version: route.version,
                handler: route.handler.clone(),
                decodes: None,
                batch: route.batch.clone(),
                place: route.place,
            };
            (event_type.clone(), route)
        });
        Registry {
            routes: routes.collect(),
            ignored: self.ignored.clone(),
            upcasters: self.upcasters.clone(),
            classifiers: self.classifiers.clone(),
            hooks: self.hooks.copy(),
            ..Registry::default()
        }
    }

    fn add(
        mut self,
        event_type: &str,
        version: u32,
        place: &'static Location<'static>,
        decodes: Option<Decodes>,
        call: impl Fn(Context) -> Result<HandlerFuture, Failure> + Send + Sync + 'static,
    ) -> Self {
        if let Some(ignored) = self.ignored.get(event_type) {
            self.problems.push(format!(
                "{place}: {event_type} is handled here and ignored at {ignored}"
            ));
        }
        match self.routes.entry(event_type.to_owned()) {
            Entry::Vacant(free) => {
                let handler = Handler::new(call);
                free.insert(Route {
                    version,
                    handler: self
                        .layers
                        .iter()
                        .fold(handler, |inner, layer| layer(inner)),
                    decodes,
                    batch: None,
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

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// The same, with the upcasters that a registry's handlers have.
    #[must_use]
    pub fn upcasters_of(self, registry: &Registry) -> Self {
        self.with_upcasters(registry.upcasters.clone())
    }
}

/// An event's data, brought to the handler's version.
#[inline]
fn decode<E: Event + Decodable>(
    upcasters: &RwLock<Upcasters>,
    envelope: &Envelope,
) -> Result<E, Failure> {
    if envelope.version() < E::VERSION {
        return decode_older(upcasters, envelope);
    }
    envelope.decode_data().map_err(Failure::undecodable)
}

/// Out of the way of the events that need no upcasting.
#[cold]
#[inline(never)]
fn decode_older<E: DeserializeOwned>(
    upcasters: &RwLock<Upcasters>,
    envelope: &Envelope,
) -> Result<E, Failure> {
    match read(upcasters).upcast(envelope)? {
        None => envelope.decode_data(),
        Some(data) => codec::decode(envelope.content_type().as_bytes(), &data),
    }
    .map_err(Failure::undecodable)
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

    /// Notes its name around whatever it calls.
    fn noting(
        name: &'static str,
        notes: Arc<std::sync::Mutex<Vec<&'static str>>>,
    ) -> impl Layer<
        Handler,
        Service = impl Service<Context, Response = (), Error = BoxError, Future: Send>
                  + Clone
                  + Send
                  + Sync,
    > + Clone
    + Send
    + Sync {
        tower::layer::layer_fn(move |inner: Handler| {
            let notes = notes.clone();
            tower::ServiceBuilder::new()
                .map_request(move |ctx: Context| {
                    notes.lock().unwrap().push(name);
                    ctx
                })
                .service(inner)
        })
    }

    #[tokio::test]
    async fn layers_stand_around_handlers_registered_before_and_after_them() {
        let notes = Arc::<std::sync::Mutex<Vec<_>>>::default();
        let registry = Registry::new()
            .on(on_paid)
            .layer_for("order.paid", noting("one", notes.clone()))
            .layer(noting("all", notes.clone()))
            .on_raw("order.sent", |_, _| async { Err("no".into()) });
        registry.check().unwrap();
        registry.dispatch(paid(1)).await.unwrap();
        assert_eq!(*notes.lock().unwrap(), ["all", "one"]);
        let failure = registry
            .dispatch(Envelope::new("order.sent"))
            .await
            .unwrap_err();
        assert_eq!(failure.to_string(), "no");
        assert_eq!(*notes.lock().unwrap(), ["all", "one", "all"]);
        let message = Registry::new()
            .layer_for("order.paid", noting("one", notes.clone()))
            .check()
            .unwrap_err();
        assert!(message.to_string().contains("register the handler before"));
    }

    #[tokio::test]
    async fn a_handlers_failure_passes_through_a_layer_and_a_layers_error_means_a_retry() {
        let registry = Registry::new()
            .on_raw("order.paid", |_, _| async {
                Err(Failure::permanent("never"))
            })
            .on_raw("order.sent", |_, _| std::future::pending())
            .layer(tower::timeout::TimeoutLayer::new(
                std::time::Duration::from_millis(1),
            ));
        let failure = registry.dispatch(paid(1)).await.unwrap_err();
        assert!(failure.is_permanent());
        let failure = registry
            .dispatch(Envelope::new("order.sent"))
            .await
            .unwrap_err();
        assert!(!failure.is_permanent());
        assert!(failure.to_string().contains("timed out"), "{failure}");
    }

    #[derive(Debug, thiserror::Error)]
    enum Payment {
        #[error("declined")]
        Declined,
        #[error("too many requests")]
        TooMany,
        #[error("away")]
        Away,
        #[error("odd")]
        Odd,
    }

    impl Payment {
        fn kind(&self) -> FailureKind {
            match self {
                Payment::Declined => FailureKind::Permanent,
                Payment::TooMany => FailureKind::Later(std::time::Duration::from_secs(9)),
                Payment::Away => FailureKind::Retry,
                Payment::Odd => panic!("what is that?"),
            }
        }
    }

    /// A service's error that came about by another.
    #[derive(Debug, thiserror::Error)]
    #[error("order {0}")]
    struct OrderError(u32, #[source] Payment);

    #[tokio::test]
    async fn an_error_type_says_once_what_its_errors_mean() {
        let later = FailureKind::Later(std::time::Duration::from_secs(9));
        let handled = |registry: Registry| async move {
            let registry = registry.classify(Payment::kind);
            registry.check().unwrap();
            let failure = registry.dispatch(paid(1)).await.unwrap_err();
            (failure.kind(), failure.to_string())
        };
        async fn own(_: Paid, _: Context) -> Result<(), Payment> {
            Err(Payment::Declined)
        }
        let says = handled(Registry::new().on_typed(own)).await;
        assert_eq!(says, (FailureKind::Permanent, "declined".to_owned()));
        let with = Registry::new().on_typed_with(1, async |id, _: Paid, _: Context| {
            Err(OrderError(id, Payment::TooMany))
        });
        assert_eq!(
            handled(with).await,
            (later, "order 1: too many requests".to_owned())
        );
        // By `?`, and as a source, also of what `std::io::Error` wraps.
        let handed_on = Registry::new().on(async |_: Paid, _: Context| {
            let failed: Result<(), Payment> = Err(Payment::TooMany);
            Ok(failed.map_err(std::io::Error::other)?)
        });
        assert_eq!(handled(handed_on).await.0, later);
        let layered = Registry::new()
            .on_typed(own)
            .layer(tower::layer::layer_fn(|inner| {
                tower::ServiceBuilder::new()
                    .map_err(|source| Named {
                        id: "e-1".to_owned(),
                        source,
                    })
                    .service(inner)
            }));
        assert_eq!(handled(layered).await.0, FailureKind::Permanent);
        for error in [Payment::Away, Payment::Odd] {
            let error = Arc::new(std::sync::Mutex::new(Some(error)));
            let retried = Registry::new().on(move |_: Paid, _| {
                let error = error.lock().unwrap().take().unwrap();
                async { Err(error.into()) }
            });
            assert_eq!(handled(retried).await.0, FailureKind::Retry);
        }
        // What a handler has chosen stays.
        let chosen =
            Registry::new().on(async |_: Paid, _: Context| Err(Failure::retry(Payment::Declined)));
        assert_eq!(handled(chosen).await.0, FailureKind::Retry);
        let twice = Registry::new()
            .classify(Payment::kind)
            .classify(|_: &Payment| FailureKind::Retry);
        let message = twice.check().unwrap_err().to_string();
        assert!(
            message.contains("Payment means has been said already"),
            "{message}"
        );
    }

    #[derive(Debug, thiserror::Error)]
    #[error("event {id}")]
    struct Named {
        id: String,
        source: BoxError,
    }

    #[tokio::test]
    async fn a_layer_that_adds_its_words_keeps_what_the_handler_said() {
        let delay = std::time::Duration::from_secs(7);
        let naming = tower::layer::layer_fn(|inner: Handler| {
            tower::service_fn(move |ctx: Context| {
                let (inner, id) = (inner.clone(), ctx.envelope().id().into_owned());
                async move {
                    let result = tower::ServiceExt::oneshot(inner, ctx).await;
                    result.map_err(|source| Named { id, source })
                }
            })
        });
        let registry = Registry::new()
            .on_raw("order.paid", move |_, _| async move {
                Err(Failure::later(delay, "the till is being counted"))
            })
            .layer(naming)
            .layer(naming);
        let event = paid(1).with("id", "e-1");
        let failure = registry.dispatch(event).await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Later(delay));
        assert_eq!(
            failure.to_string(),
            "event e-1: event e-1: the till is being counted"
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
