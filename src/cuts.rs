//! Where a test may have a handler's worker die: at each thing that the handler does. Nothing of this is in a program that is
//! built without the feature `testing`.

use std::cell::RefCell;

/// What a handler has done on this thread, and where it is to end.
#[derive(Default)]
struct Cuts {
    /// How many places it has passed.
    passed: usize,
    /// The place it ends behind, if it is to end.
    ends_behind: Option<usize>,
    /// What it was that it ended behind.
    ended: Option<String>,
    /// What it did outside of Redis.
    noted: Vec<String>,
}

/// What unwinds where a handler ends.
struct Ended;

thread_local! {
    static CUTS: RefCell<Option<Cuts>> = const { RefCell::new(None) };
}

/// From now on places are counted; behind this one the handler ends.
pub(crate) fn begin(ends_behind: Option<usize>) {
    let cuts = Cuts {
        ends_behind,
        ..Cuts::default()
    };
    CUTS.set(Some(cuts));
}

/// How many places were passed, and what was noted, since it began.
pub(crate) fn end() -> (usize, Vec<String>) {
    let cuts = CUTS.take().unwrap_or_default();
    (cuts.passed, cuts.noted)
}

/// What the handler ended behind, if it did; told once.
pub(crate) fn ended() -> Option<String> {
    CUTS.with_borrow_mut(|cuts| cuts.as_mut()?.ended.take())
}

/// A handler has done this outside of Redis.
pub(crate) fn note(what: &str) {
    CUTS.with_borrow_mut(|cuts| {
        if let Some(cuts) = cuts {
            cuts.noted.push(what.to_owned());
        }
    });
    here(|| what.to_owned());
}

/// A handler has done something: here it may end.
pub(crate) fn here(what: impl FnOnce() -> String) {
    let ends = CUTS.with_borrow_mut(|cuts| {
        let Some(cuts) = cuts else { return false };
        cuts.passed += 1;
        let ends = cuts.ends_behind == Some(cuts.passed);
        if ends {
            // Once: it goes on when it runs again.
            cuts.ends_behind = None;
            cuts.ended = Some(what());
        }
        ends
    });
    if ends {
        std::panic::resume_unwind(Box::new(Ended));
    }
}
