//! What a handler wants to leave together with the acknowledgement of its event: emitted events, effects, and what
//! is scheduled, cancelled and appended (`outbox/lines.rs`); and how far it is on its way. A context has one from the first use on; most never do.

mod lines;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use crate::effects::{CommitError, Committed, Effect, Refusal};
use crate::event::Envelope;
use crate::sync::lock;

pub(crate) use lines::{Appending, Line, What};
pub use lines::{CancelledEmit, EmittedLater, When};

/// An event on its way to a stream, and not there before the event being handled is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Emitted {
    /// The stream it goes to.
    pub stream: String,
    /// The event, complete.
    pub envelope: Envelope,
}

/// What is to leave.
#[derive(Default)]
pub(crate) struct Items {
    pub events: Vec<Emitted>,
    pub effects: Vec<Effect>,
    /// What is scheduled, cancelled and appended.
    pub lines: Vec<Line>,
    /// Why it can't.
    pub wrong: Option<String>,
}

/// What is known of a commit a handler asked for.
pub(crate) enum Known {
    Settled,
    /// The event is no longer this worker's.
    Lost,
    /// Nothing was written, and the handler decides anew.
    Refused(String),
}

/// What is to be done once that is known, for a handler that has ended before.
pub(crate) type Deferred = Box<dyn FnOnce(Known) + Send>;

/// What a handler has left when it ends.
pub(crate) enum End {
    Items(Items),
    Settled,
    Lost,
    /// Its commit is on its way; what was deferred will be called.
    Waits,
}

/// Of one context.
#[derive(Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    phase: Phase,
    items: Items,
    /// Events emitted so far, those of refused commits too: the place of the next.
    emitted: usize,
    /// In a test without a worker: what has left, and how commits are refused.
    left: Items,
    refusals: VecDeque<Option<Vec<u8>>>,
    conflicts: VecDeque<u64>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Open,
    Committing(Option<Deferred>),
    Settled,
    Lost,
}

impl Items {
    pub fn is_empty(&self) -> bool {
        let leaves_nothing = self.events.is_empty() && self.effects.is_empty();
        leaves_nothing && self.lines.is_empty() && self.wrong.is_none()
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Adds the event that `make` makes for its place, and the stream it goes to. Returns whether it can still leave.
    pub fn emit(
        &self,
        stream: &str,
        make: impl FnOnce(usize) -> Result<(String, Envelope), String>,
    ) -> bool {
        let mut inner = self.lock();
        let made = make(inner.emitted);
        inner.emitted += 1;
        match made {
            _ if inner.is_over() => return false,
            Ok((stream, envelope)) => {
                inner.items.events.push(Emitted { stream, envelope });
            }
            Err(wrong) => inner.goes_wrong(format!("emitting to {stream:?}: {wrong}")),
        }
        true
    }

    /// The same of an effect.
    pub fn effect(&self, effect: Effect) -> bool {
        let mut inner = self.lock();
        match effect.check() {
            _ if inner.is_over() => return false,
            Ok(()) => inner.items.effects.push(effect),
            Err(wrong) => inner.goes_wrong(wrong),
        }
        true
    }

    /// Adds what `make` makes of the place of its first event, of so many. `doing` says what it is, if it can't be.
    pub fn line(
        &self,
        doing: impl FnOnce() -> String,
        events: usize,
        make: impl FnOnce(usize) -> Result<What, String>,
    ) -> bool {
        let mut inner = self.lock();
        let made = make(inner.emitted);
        inner.emitted += events;
        match made {
            _ if inner.is_over() => return false,
            Ok(What::Append(append)) if inner.appends_to(&append) => inner.goes_wrong(format!(
                "{}: {} is appended to twice in one commit: give all its events at once",
                doing(),
                append.aggregate
            )),
            Ok(what) => inner.items.lines.push(Line {
                what,
                stands: false,
            }),
            Err(wrong) => inner.goes_wrong(format!("{}: {wrong}", doing())),
        }
        true
    }

    /// What is scheduled, cancelled and appended, and in a test was.
    pub fn lines(&self) -> Vec<What> {
        let inner = self.lock();
        let all = inner.left.lines.iter().chain(&inner.items.lines);
        all.map(|line| line.what.clone()).collect()
    }

    /// What has been emitted, and in a test has left.
    pub fn emitted(&self) -> Vec<Emitted> {
        let inner = self.lock();
        [&inner.left.events[..], &inner.items.events].concat()
    }

    /// What effects there are, those in a test that have taken place included.
    pub fn effects(&self) -> Vec<Effect> {
        let inner = self.lock();
        [&inner.left.effects[..], &inner.items.effects].concat()
    }

    /// Why nothing of it can leave.
    pub fn wrong(&self) -> Option<String> {
        self.lock().items.wrong.clone()
    }

    /// A commit begins with all there is.
    pub fn begin(&self) -> Result<Items, CommitError> {
        let mut inner = self.lock();
        match inner.phase {
            Phase::Open => {}
            Phase::Lost => return Err(CommitError::Taken),
            Phase::Committing(_) | Phase::Settled => return Err(CommitError::Twice),
        }
        let mut items = std::mem::take(&mut inner.items);
        if let Some(wrong) = items.wrong.take() {
            return Err(CommitError::Invalid(wrong));
        }
        inner.phase = Phase::Committing(None);
        Ok(items)
    }

    /// What became of the commit that was begun.
    pub fn known(&self, known: Known) {
        let mut inner = self.lock();
        let next = match known {
            Known::Settled => Phase::Settled,
            Known::Lost => Phase::Lost,
            Known::Refused(_) => Phase::Open,
        };
        let before = std::mem::replace(&mut inner.phase, next);
        drop(inner);
        if let Phase::Committing(Some(deferred)) = before {
            deferred(known);
        }
    }

    /// The handler has ended. What `defer` makes is kept until it is known what became of its commit, where that is on
    /// its way.
    pub fn end(&self, defer: impl FnOnce() -> Deferred) -> End {
        let mut inner = self.lock();
        match &mut inner.phase {
            Phase::Open => End::Items(std::mem::take(&mut inner.items)),
            Phase::Committing(deferred) => {
                deferred.get_or_insert_with(defer);
                End::Waits
            }
            Phase::Settled => End::Settled,
            Phase::Lost => End::Lost,
        }
    }

    /// In a test: the next commit is refused by its first guard, which finds `current`.
    pub fn refuse(&self, current: Option<&[u8]>) {
        self.lock().refusals.push_back(current.map(<[u8]>::to_vec));
    }

    /// In a test: the next commit that appends finds its first aggregate at this version.
    pub fn conflict(&self, actual: u64) {
        self.lock().conflicts.push_back(actual);
    }

    /// What a commit comes to without a worker.
    pub fn commit_in_test(&self, items: Items) -> Result<Committed, CommitError> {
        let mut inner = self.lock();
        let guarded = items.effects.iter().find(|effect| effect.is_guarded());
        if let (Some(effect), Some(current)) = (guarded, inner.refusals.front().cloned()) {
            inner.refusals.pop_front();
            inner.phase = Phase::Open;
            let effect = effect.clone();
            return Ok(Committed::Refused(Refusal { effect, current }));
        }
        if let Some(actual) = inner.conflicts.front() {
            let mut lines = items.lines.iter();
            if let Some(conflict) = lines.find_map(|line| line.conflict(*actual)) {
                inner.conflicts.pop_front();
                inner.phase = Phase::Open;
                return Err(CommitError::Conflict(conflict));
            }
        }
        inner.phase = Phase::Settled;
        inner.left = items;
        Ok(Committed::Settled)
    }
}

impl Inner {
    /// What comes after the commit has nothing to leave with.
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Settled | Phase::Committing(_))
    }

    /// Whether something is appended to that aggregate already.
    fn appends_to(&self, append: &Appending) -> bool {
        let is_it =
            |line: &Line| matches!(&line.what, What::Append(other) if other.key == append.key);
        self.items.lines.iter().any(is_it)
    }

    fn goes_wrong(&mut self, wrong: String) {
        self.items.wrong.get_or_insert(wrong);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn never() -> Deferred {
        panic!("nothing to wait for")
    }

    #[test]
    fn what_is_emitted_after_a_refusal_has_a_place_of_its_own() {
        let outbox = Outbox::default();
        let places = || {
            let mut places = Vec::new();
            for _ in 0..2 {
                outbox.emit("s", |place| {
                    places.push(place);
                    Ok(("s".to_owned(), Envelope::new("a.b")))
                });
            }
            places
        };
        assert_eq!(places(), [0, 1]);
        assert_eq!(outbox.begin().unwrap().events.len(), 2);
        outbox.known(Known::Refused("no".to_owned()));
        assert!(outbox.emitted().is_empty());
        assert_eq!(places(), [2, 3]);
        assert!(matches!(outbox.end(never), End::Items(items) if items.events.len() == 2));
    }

    #[test]
    fn a_handler_that_ends_before_its_commit_is_known_is_told_of_it() {
        for (known, expected) in [
            (Known::Settled, 1),
            (Known::Lost, 2),
            (Known::Refused(String::new()), 3),
        ] {
            let outbox = Outbox::default();
            let told = Arc::new(AtomicUsize::new(0));
            outbox.begin().unwrap();
            assert!(matches!(outbox.begin(), Err(CommitError::Twice)));
            let hears = told.clone();
            let deferred: Deferred = Box::new(move |known| {
                let number = match known {
                    Known::Settled => 1,
                    Known::Lost => 2,
                    Known::Refused(_) => 3,
                };
                hears.store(number, Ordering::SeqCst);
            });
            assert!(matches!(outbox.end(|| deferred), End::Waits));
            assert!(
                matches!(outbox.end(never), End::Waits),
                "the first one counts"
            );
            outbox.known(known);
            assert_eq!(told.load(Ordering::SeqCst), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_told_at_the_commit_and_once() {
        let outbox = Outbox::default();
        outbox.effect(Effect::set("k", "v").at_least(1));
        outbox.effect(Effect::set("k", "v"));
        let wrong = outbox.begin().err().unwrap().to_string();
        assert!(wrong.contains("at_least is for incr_by"), "{wrong}");
        assert!(outbox.begin().unwrap().is_empty());
    }
}
