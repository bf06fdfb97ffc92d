//! Waiting for a condition with a deadline, instead of sleeping and hoping.

use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Short enough to cost a test nothing, long enough to leave the server its time.
const PAUSE: Duration = Duration::from_millis(5);

/// Repeats `attempt` until it succeeds, and panics when `deadline` has passed, saying what was
/// awaited.
///
/// An attempt gives `true`, `Some(value)` or `Ok(value)` when the condition holds; the last `Err`
/// is part of the panic's message. An attempt that hangs is given up at the deadline.
#[track_caller]
pub fn eventually<O: Outcome>(
    deadline: Duration,
    what: impl Into<String>,
    mut attempt: impl AsyncFnMut() -> O,
) -> impl Future<Output = O::Value> {
    // Taken here, where `track_caller` still knows the caller: inside the future it does not.
    let caller = Location::caller();
    let what = what.into();
    async move {
        let end = Instant::now() + deadline;
        let mut last = None;
        loop {
            match timeout_at(end, attempt()).await.map(Outcome::value) {
                Ok(Ok(value)) => return value,
                Ok(Err(reason)) => last = reason.or(last),
                Err(_) => {
                    let before = last.map(|reason| format!("{reason}; ")).unwrap_or_default();
                    last = Some(format!("{before}the last attempt hung"));
                }
            }
            if Instant::now() + PAUSE >= end {
                let reason = last
                    .map(|reason| format!(" ({reason})"))
                    .unwrap_or_default();
                panic!("{caller}: waited {deadline:?} in vain for {what}{reason}");
            }
            sleep(PAUSE).await;
        }
    }
}

/// What an attempt may come to.
pub trait Outcome {
    type Value;

    /// The value awaited, or why there is none yet, where that is known.
    fn value(self) -> Result<Self::Value, Option<String>>;
}

impl Outcome for bool {
    type Value = ();

    fn value(self) -> Result<(), Option<String>> {
        if self { Ok(()) } else { Err(None) }
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;

    fn value(self) -> Result<T, Option<String>> {
        self.ok_or(None)
    }
}

impl<T, E: std::fmt::Display> Outcome for Result<T, E> {
    type Value = T;

    fn value(self) -> Result<T, Option<String>> {
        self.map_err(|error| Some(error.to_string()))
    }
}
