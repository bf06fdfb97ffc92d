//! Whether a handler may run again: it is made to die behind each thing that it does, and what came of that is compared with
//! what comes of a run that nothing disturbs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::at::At;
use super::builder::Builder;
use super::worker::TestWorker;
use crate::codec::Encodable;
use crate::cuts;
use crate::event::Event;
use crate::handler::Registry;

/// The stream that the event is published to.
const STREAM: &str = "events";

/// How long is waited for all that comes of it: longer than leases and backoffs take.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// What came of a run.
struct Came {
    /// How many things the handler did.
    places: usize,
    /// What there was in the end, and how often.
    done: BTreeMap<String, usize>,
    timeline: String,
}

/// Asserts that an event may be handled again: its handler is made to die behind each thing that it does, before its event is
/// acknowledged and when it was, and each time what is there in the end has to be what a clean run leaves.
///
/// What a handler does is what it emits and its effects, and what its stand-ins [note](effect) that it did elsewhere. Each run
/// has a registry of its own, so that stand-ins begin empty.
///
/// ```
/// # use streamhand::{Context, Event, Failure, Registry};
/// use std::collections::BTreeSet;
/// use std::sync::{Arc, Mutex};
///
/// use streamhand::testing;
///
/// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPaid { order_id: String }
/// # impl Event for OrderPaid { const TYPE: &'static str = "order.paid"; }
/// /// Stands for the mail service, which knows what it has sent by a key.
/// #[derive(Clone, Default)]
/// struct Mail(Arc<Mutex<BTreeSet<String>>>);
///
/// impl Mail {
///     async fn send(&self, key: &str) {
///         if self.0.lock().unwrap().insert(key.to_owned()) {
///             testing::effect(&format!("mail {key}"));
///         }
///     }
/// }
///
/// async fn thank(mail: Mail, order: OrderPaid, _ctx: Context) -> Result<(), Failure> {
///     mail.send(&order.order_id).await;
///     Ok(())
/// }
///
/// fn registry() -> Registry {
///     Registry::new().on_with(Mail::default(), thank)
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// testing::assert_idempotent(registry, &OrderPaid { order_id: "o-1".into() }).await;
/// # }
/// ```
///
/// # Panics
/// If something was done twice, or is missing: the message says what, and where the worker had died.
pub async fn assert_idempotent<E: Event + Encodable>(registry: impl Fn() -> Registry, event: &E) {
    let clean = run(&registry, event, None, None).await;
    for place in 1..=clean.places {
        let (came, died) = {
            let came = run(&registry, event, Some(place), None).await;
            let died = format!("behind what it did at place {place} of {}", clean.places);
            (came, died)
        };
        came.is_like(&clean, &died);
    }
    for at in [At::BeforeAck, At::AfterAck] {
        let came = run(&registry, event, None, Some(at)).await;
        came.is_like(&clean, &at.to_string());
    }
}

/// Notes that a handler has done something outside of Redis, for [`assert_idempotent`]: sent a mail, charged a card. To be
/// called by what stands for that service in a test, once it has done it. Elsewhere it does nothing.
pub fn effect(what: &str) {
    cuts::note(what);
}

async fn run<E: Event + Encodable>(
    registry: &impl Fn() -> Registry,
    event: &E,
    place: Option<usize>,
    at: Option<At>,
) -> Came {
    let builder = Builder::new(registry()).streams([STREAM]).seed(1);
    let mut worker = builder.start().await;
    at.into_iter().for_each(|at| worker.kill(at));
    cuts::begin(place);
    worker.publish(STREAM, event).await;
    worker.advance(LONG).await;
    let (places, noted) = cuts::end();
    let mut done = BTreeMap::new();
    let noted = noted.into_iter().map(|what| format!("{what:?}"));
    for what in noted.chain(left(&worker)) {
        *done.entry(what).or_default() += 1;
    }
    Came {
        places,
        done,
        timeline: worker.timeline(),
    }
}

/// What is there in the end: what was emitted, what took effect, what was buried.
fn left(worker: &TestWorker) -> Vec<String> {
    let mut left: Vec<String> = worker.all_emitted();
    let effects = worker.effects().into_iter();
    left.extend(effects.map(|effect| format!("the effect {effect}")));
    let letters = worker.dead_letters();
    let letters = letters.all().iter();
    left.extend(letters.map(|letter| format!("the dead letter: {}", letter.head.error)));
    left
}

impl Came {
    fn is_like(&self, clean: &Came, died: &str) {
        let often = |of: &Came, what: &str| of.done.get(what).copied().unwrap_or(0);
        let all = self.done.keys().chain(clean.done.keys());
        let mut differ = all.filter(|what| often(self, what) != often(clean, what));
        let Some(what) = differ.next() else { return };
        panic!(
            "not idempotent: its worker died {died}, and in the end {what} was done {}, not {}\n{}",
            in_words(often(self, what)),
            in_words(often(clean, what)),
            self.timeline
        );
    }
}

fn in_words(times: usize) -> String {
    match times {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        times => format!("{times} times"),
    }
}
