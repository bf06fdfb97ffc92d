//! What comes of an event that a target was given, whichever kind of target it is.

use std::time::Duration;

use super::answer::Answer;

/// What came of handing an event to a target.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It answered; what it says of the event is in there.
    Answered(Answer),
    /// The event can't be handled, now or ever.
    Permanent(String),
    /// The target is none, or is another one than is meant: that says nothing about the event.
    WrongTarget(String),
    /// It asks to come again, after so long at the earliest. No attempt is used up.
    Later { after: Duration, why: String },
    /// It failed, which is an attempt.
    Failed {
        why: String,
        /// Whether it says something about the target, and not only about this event.
        counts: bool,
    },
}

impl Outcome {
    /// It came from what the target is meant to be.
    pub fn shows_it_right(&self) -> bool {
        match self {
            Outcome::Answered(_) | Outcome::Permanent(_) | Outcome::Later { .. } => true,
            Outcome::WrongTarget(_) | Outcome::Failed { .. } => false,
        }
    }
}
