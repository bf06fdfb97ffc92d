//! What Redis keeps, in memory: streams with their ids, groups with what is pending, parked, scheduled, buried and marked,
//! and the keys that effects are on. Each step says what the script of its name says, and no more: what a worker makes of
//! the answers is the worker's own code.
//!
//! `tests/kit.rs` runs the same scenarios and random programs here and on real servers, and what happens has to be the same
//! line by line: who changes a script changes this.

mod effects;
mod group;
mod letters;
mod server;
mod steps;

pub(super) use effects::{Not, Value};
pub(super) use server::Memory;
