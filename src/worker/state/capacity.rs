//! What says how many handlers run, where, which entries come first, and how many may be held: heeded by who fetches and by
//! who starts them.

use std::sync::Arc;
use std::time::Duration;

use super::held::Held;
use super::inline::Inline;
use super::precedence::Precedence;
use super::quarantine::Quarantine;
use super::slots::Slots;

/// Room for handlers.
#[derive(Clone)]
pub(crate) struct Capacity {
    pub slots: Arc<Slots>,
    /// What all shards hold.
    pub held: Arc<Held>,
    pub quarantine: Arc<Quarantine>,
    pub precedence: Arc<Precedence>,
    pub inline: Arc<Inline>,
}

impl Capacity {
    /// For as many handlers at once as there are slots. One that takes long on the thread that reads is noticed after
    /// `noticed`.
    pub fn new(slots: Arc<Slots>, noticed: Duration) -> Self {
        Capacity {
            slots,
            held: Arc::default(),
            quarantine: Arc::default(),
            precedence: Arc::default(),
            inline: Arc::new(Inline::new(noticed)),
        }
    }

    /// That of one of so many shards, which share slots, quarantine, and what may be held. What they take over, and where that is handled,
    /// is each one's own.
    pub fn of_shard(&self, noticed: Duration) -> Self {
        Capacity {
            slots: self.slots.clone(),
            held: self.held.clone(),
            quarantine: self.quarantine.clone(),
            precedence: Arc::default(),
            inline: Arc::new(Inline::new(noticed)),
        }
    }
}
