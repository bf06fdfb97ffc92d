//! streamhand
#![warn(missing_docs)]

// Nothing asks for the grammar yet but its tests.
#[cfg_attr(not(test), allow(dead_code))]
mod event_type;
pub mod retry;
