//! What says how many handlers run, where, and which entries come first: heeded by who fetches and by who starts them.

use std::sync::Arc;
use std::time::Duration;

use super::inline::Inline;
use super::precedence::Precedence;
use super::quarantine::Quarantine;
use super::slots::Slots;

/// Room for handlers.
#[derive(Clone)]
pub(crate) struct Capacity {
    pub slots: Arc<Slots>,
    pub quarantine: Arc<Quarantine>,
    pub precedence: Arc<Precedence>,
    pub inline: Arc<Inline>,
}

impl Capacity {
    /// For so many handlers at once. One that takes long on the thread that reads is noticed after
    /// `noticed`.
    pub fn new(concurrency: usize, noticed: Duration) -> Self {
        Capacity {
            slots: Arc::new(Slots::new(concurrency)),
            quarantine: Arc::default(),
            precedence: Arc::default(),
            inline: Arc::new(Inline::new(noticed)),
        }
    }
}
