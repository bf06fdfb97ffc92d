//! What the parts of a worker have in common: names and limits, what is in flight, and how they tell each other what
//! to do. Imports none of its siblings.

pub(super) mod capacity;
pub(super) mod debugged;
pub(super) mod duties;
pub(super) mod emits;
pub(super) mod heard;
pub(super) mod held;
pub(super) mod identity;
pub(super) mod inflight;
pub(super) mod inline;
pub(super) mod look_ahead;
pub(super) mod next_due;
pub(super) mod order;
pub(super) mod pauses;
pub(super) mod precedence;
pub(super) mod quarantine;
pub(super) mod recent_acks;
pub(super) mod signals;
pub(super) mod slots;
pub(super) mod source;
pub(super) mod throughput;
pub(super) mod times;
