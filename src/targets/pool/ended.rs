//! What came of an event that was given to a pool.

use serde_json::value::RawValue;

/// What came of an event that was given to a pool.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A child's answer, as JSON.
    Answer(Box<RawValue>),
    /// Its child died with it in hand: an attempt.
    Died(String),
    /// Its child was killed for another event's sake: no attempt.
    Spared(String),
    /// No child has seen it: no attempt.
    NotBegun(String),
    /// There is no child, and there will be none for now; no attempt.
    WrongTarget(String),
}
