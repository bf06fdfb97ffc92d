//! Replays as runs that are kept in Redis: a few letters first, then the rest at a rate, no more once too many died again.
//!
//! A run belongs to one stream of the group. [`DeadLetters::begin_run`] notes it; whoever calls [`DeadLetters::drive_run`]
//! replays its letters until it is over, and nobody else does meanwhile. If the driver dies another goes on within seconds:
//! every letter that was replayed is noted in the step that replays it. `plan.rs` decides what comes next, `drive.rs` does
//! it, `stored.rs` is what is kept.

mod begin;
mod drive;
mod plan;
mod run;
mod stored;

pub use begin::BegunRun;
pub use plan::RunPlan;
pub use run::{Run, RunStanding};
