//! What Redis keeps, in memory: streams with their ids, groups with what is pending, parked, scheduled, buried and marked,
//! and the keys that effects are on. Each step says what the script of its name says, and no more: what a worker makes of
//! the answers is the worker's own code.
//!
//! `tests/kit.rs` says what it has to do. Nothing compares it with the scripts on a server yet: who changes one changes both.

mod effects;
mod group;
mod letters;
mod server;
mod steps;

pub(super) use effects::{Not, Value};
pub(super) use server::Memory;
