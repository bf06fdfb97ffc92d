//! Batch handlers: functions that take many events of one type at once.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::slice;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::{BatchLimits, ByteSize};
use crate::context::Context;
use crate::context::notes::Notes;
use crate::duration;
use crate::event::{Envelope, Event};
use crate::failure::Failure;
use crate::sync::lock;

/// How many events a batch handler is given at once, how long is waited for more, and which of them belong together.
///
/// ```
/// # use streamhand::Batches;
/// # struct OrderCreated { customer: String }
/// let batches = Batches::of(500)
///     .bytes("1MiB")
///     .wait("200ms")
///     .by(|order: &OrderCreated| order.customer.clone());
/// ```
#[must_use]
pub struct Batches<E> {
    pub(super) limits: BatchLimits,
    pub(super) by: Option<By<E>>,
    pub(super) problems: Vec<String>,
    of: PhantomData<fn(E)>,
}

pub(super) type By<E> = Arc<dyn Fn(&E) -> String + Send + Sync>;

/// How many bytes a batch may have: text as in a configuration, or a number of them.
#[derive(Debug)]
pub struct BatchBytes(Result<ByteSize, String>);

/// How long a batch waits for more events: text as in a configuration, or a time.
#[derive(Debug)]
pub struct BatchWait(Result<Duration, String>);

impl From<&str> for BatchBytes {
    fn from(text: &str) -> Self {
        let size = text.parse::<ByteSize>();
        BatchBytes(size.map_err(|error| error.to_string()))
    }
}

impl From<usize> for BatchBytes {
    fn from(bytes: usize) -> Self {
        BatchBytes(Ok(ByteSize::new(bytes as u64)))
    }
}

impl From<ByteSize> for BatchBytes {
    fn from(bytes: ByteSize) -> Self {
        BatchBytes(Ok(bytes))
    }
}

impl From<&str> for BatchWait {
    fn from(text: &str) -> Self {
        BatchWait(duration::parse(text))
    }
}

impl From<Duration> for BatchWait {
    fn from(wait: Duration) -> Self {
        BatchWait(Ok(wait))
    }
}

impl<E> Batches<E> {
    /// At most so many events at once: 1 to 1,000. They have at most 1 MiB, and the first waits at most 200 ms for
    /// others, unless that is said otherwise.
    pub fn of(size: usize) -> Self {
        let limits = BatchLimits {
            size,
            ..BatchLimits::default()
        };
        Batches {
            limits,
            by: None,
            problems: Vec::new(),
            of: PhantomData,
        }
    }

    /// At most so many bytes, as `"1MiB"`. An event that is larger goes alone.
    pub fn bytes(mut self, bytes: impl Into<BatchBytes>) -> Self {
        match bytes.into().0 {
            Ok(bytes) => self.limits.bytes = bytes,
            Err(why) => self.problems.push(format!("bytes: {why}")),
        }
        self
    }

    /// How long the first event waits for others, as `"200ms"`. Zero takes what is there.
    pub fn wait(mut self, wait: impl Into<BatchWait>) -> Self {
        match wait.into().0 {
            Ok(wait) => self.limits.wait = wait,
            Err(why) => self.problems.push(format!("wait: {why}")),
        }
        self
    }

    /// Events with the same key come together, and no others with them. Of one key there is one batch at a time in this
    /// worker, in the order of the stream.
    pub fn by<K: Into<String>>(mut self, key: impl Fn(&E) -> K + Send + Sync + 'static) -> Self {
        self.by = Some(Arc::new(move |event: &E| key(event).into()));
        self
    }
}

impl<E> fmt::Debug for Batches<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("limits", &self.limits)
            .field("by", &self.by.is_some())
            .finish_non_exhaustive()
    }
}

/// What a worker knows of a batch handler beside its function.
#[derive(Clone)]
pub(crate) struct BatchRoute {
    /// As it was registered.
    pub limits: BatchLimits,
    pub key: Option<KeyOf>,
}

/// The key of the event of a context.
pub(crate) type KeyOf = Arc<dyn Fn(&Context) -> Result<String, Failure> + Send + Sync>;

/// Events of one type, in the order of their stream, as a batch handler gets them. It is a slice of them.
///
/// A handler that returns `Ok` is done with all of them but those it has [failed](Self::fail); one that returns an error
/// has failed as a whole, and is called again with each half.
pub struct Batch<E> {
    events: Vec<E>,
    /// The place of each among those that came.
    places: Vec<usize>,
    ctx: Context,
    /// If it is no batch to the worker, but one event.
    pub(super) alone: Option<Arc<Mutex<Notes>>>,
}

impl<E> Batch<E> {
    /// One event has failed, and the others have not, whatever becomes of them: it is retried, released or buried as if it
    /// had failed alone. A place that is none fails the whole batch.
    pub fn fail(&self, index: usize, failure: impl Into<Failure>) {
        let failure = failure.into();
        let count = self.places.len();
        let note = |notes: &mut Notes| match self.places.get(index) {
            Some(place) => drop(notes.failed.insert(*place, failure)),
            None => {
                let wrong = format!(
                    "the handler failed the event at index {index}, and the batch has {count}: {failure}"
                );
                notes.wrong.get_or_insert(wrong);
            }
        };
        match (&self.alone, self.ctx.members()) {
            (Some(alone), _) => note(&mut lock(alone)),
            (None, Some(members)) => note(&mut members.notes()),
            (None, None) => {}
        }
    }

    /// The id of an event.
    ///
    /// # Panics
    /// If there is none at `index`: that fails the batch, like any panic.
    pub fn id(&self, index: usize) -> Cow<'_, str> {
        self.envelope(index).id()
    }

    /// Which attempt this is for an event: 1 the first time. A whole batch that fails uses up none.
    ///
    /// # Panics
    /// As [`id`](Self::id).
    pub fn attempt(&self, index: usize) -> u32 {
        self.of(index).attempt()
    }

    /// An event as it came.
    ///
    /// # Panics
    /// As [`id`](Self::id).
    pub fn envelope(&self, index: usize) -> &Envelope {
        self.of(index).envelope()
    }

    /// The events themselves, to be given away. Their places stay what they were.
    pub fn take_events(&mut self) -> Vec<E> {
        std::mem::take(&mut self.events)
    }

    fn of(&self, index: usize) -> &Context {
        let place = self.places[index];
        match self.ctx.members() {
            Some(members) => &members.all()[place],
            None => &self.ctx,
        }
    }
}

impl<E: Event> Batch<E> {
    /// A batch for a handler's unit test, and its context, of which [`Context::failed_events`] says what the handler has
    /// failed.
    ///
    /// ```
    /// # use streamhand::{Batch, Context, Event, Failure};
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderCreated { amount: u64 }
    /// # impl Event for OrderCreated { const TYPE: &'static str = "order.created"; }
    /// async fn book(orders: Batch<OrderCreated>, _ctx: Context) -> Result<(), Failure> {
    ///     for (index, order) in orders.iter().enumerate() {
    ///         if order.amount == 0 {
    ///             orders.fail(index, Failure::permanent("nothing to book"));
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let orders = vec![OrderCreated { amount: 7 }, OrderCreated { amount: 0 }];
    /// let (batch, ctx) = Batch::for_test(orders);
    /// assert!(book(batch, ctx.clone()).await.is_ok());
    /// assert_eq!(ctx.failed_events(), [1]);
    /// # }
    /// ```
    pub fn for_test(events: Vec<E>) -> (Self, Context) {
        let one = |_: &E| Context::for_test_with(Envelope::new(E::TYPE), None);
        let members: Vec<Context> = events.iter().map(one).collect();
        let ctx = match members.is_empty() {
            true => Context::for_test(),
            false => Context::of_batch(members),
        };
        let batch = Batch {
            places: (0..events.len()).collect(),
            events,
            ctx: ctx.clone(),
            alone: None,
        };
        (batch, ctx)
    }
}

impl Context {
    /// The places of the events that a batch handler has failed so far by [`Batch::fail`].
    pub fn failed_events(&self) -> Vec<usize> {
        let members = self.members();
        members.map_or_else(Vec::new, |members| {
            members.notes().failed.keys().copied().collect()
        })
    }
}

impl<E> Deref for Batch<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.events
    }
}

impl<'a, E> IntoIterator for &'a Batch<E> {
    type Item = &'a E;
    type IntoIter = slice::Iter<'a, E>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}

impl<E: fmt::Debug> fmt::Debug for Batch<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Batch").field(&self.events).finish()
    }
}

/// The batch of a context: of its events, or of its one event. What can't be decoded is left out, and noted.
pub(super) fn batch<E>(
    ctx: &Context,
    decode: impl Fn(&Envelope) -> Result<E, Failure>,
) -> Result<Option<Batch<E>>, Failure> {
    let Some(members) = ctx.members() else {
        return Ok(Some(Batch {
            events: vec![decode(ctx.envelope())?],
            places: vec![0],
            ctx: ctx.clone(),
            alone: Some(Arc::default()),
        }));
    };
    let all = members.all();
    let mut events = Vec::with_capacity(all.len());
    let mut places = Vec::with_capacity(all.len());
    for (place, one) in all.iter().enumerate() {
        match decode(one.envelope()) {
            Ok(event) => {
                events.push(event);
                places.push(place);
            }
            Err(failure) => drop(members.notes().failed.insert(place, failure)),
        }
    }
    Ok((!events.is_empty()).then(|| Batch {
        events,
        places,
        ctx: ctx.clone(),
        alone: None,
    }))
}

/// What a handler's end means with what it noted.
pub(super) fn noted(
    ctx: &Context,
    alone: Option<&Mutex<Notes>>,
    result: Result<(), Failure>,
) -> Result<(), Failure> {
    result?;
    let (wrong, failed) = match (alone, ctx.members()) {
        (Some(alone), _) => {
            let mut notes = lock(alone);
            (notes.wrong.take(), notes.failed.remove(&0))
        }
        (None, Some(members)) => (members.notes().wrong.take(), None),
        (None, None) => (None, None),
    };
    match (wrong, failed) {
        (Some(wrong), _) => Err(Failure::from(wrong)),
        (None, Some(failure)) => Err(failure),
        (None, None) => Ok(()),
    }
}
