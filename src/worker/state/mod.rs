//! What the parts of a worker have in common: names and limits, what is in flight, and how they tell each other what
//! to do. Imports none of its siblings.

pub(crate) mod capacity;
pub(crate) mod debugged;
pub(crate) mod duties;
pub(crate) mod emits;
pub(crate) mod heard;
pub(crate) mod held;
pub(crate) mod identity;
pub(crate) mod inflight;
pub(crate) mod inline;
pub(crate) mod look_ahead;
pub(crate) mod next_due;
pub(crate) mod order;
pub(crate) mod pauses;
pub(crate) mod precedence;
pub(crate) mod quarantine;
pub(crate) mod recent_acks;
pub(crate) mod signals;
pub(crate) mod slots;
pub(crate) mod source;
pub(crate) mod throughput;
pub(crate) mod times;
