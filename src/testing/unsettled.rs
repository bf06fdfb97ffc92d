//! What comes out of handlers, and is still to be carried out.

use super::process::Question;
use crate::context::Ask;
use crate::worker::run::outcome::{Acks, Committing, Settlement};
use crate::worker::run::work::Run;

/// What comes while a worker waits.
pub(super) enum Came {
    Acks(Acks),
    Settlement(Settlement),
    Committing(Committing),
    Ask(Ask),
    Question(Question),
    Run(Run),
    Suspect(Run),
    Nothing,
}

/// What has succeeded, and is still to be settled.
#[derive(Default)]
pub(super) struct Unsettled {
    pub acks: Vec<Acks>,
    pub commits: Vec<Committing>,
}
