//! Streams that are left out because the node of a cluster they lie at can't be reached.
//!
//! Who looks at the letters of all streams wants to see those of the others then, and has to know which are missing. Who
//! was not asked to leave anything out fails: a replay that passes a stream over in silence would be taken for whole.

use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::sync;

/// A stream whose dead letters were left out, by [`DeadLetters::left_out`](super::DeadLetters::left_out).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LeftOut {
    /// The stream.
    pub stream: String,
    /// Why it can't be looked at.
    pub error: String,
}

/// What was left out so far; shared by all that was made of it.
#[derive(Clone, Debug, Default)]
pub(super) struct List(Arc<Mutex<Vec<LeftOut>>>);

impl List {
    pub fn add(&self, stream: &str, error: String) {
        let mut list = sync::lock(&self.0);
        if list.iter().all(|known| known.stream != stream) {
            list.push(LeftOut {
                stream: stream.to_owned(),
                error,
            });
        }
    }

    pub fn all(&self) -> Vec<LeftOut> {
        sync::lock(&self.0).clone()
    }
}
