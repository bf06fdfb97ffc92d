//! When something is to happen again and again: patterns as crontab has them, intervals, and what they mean in a time zone
//! whose clocks are set. Pure: it knows neither Redis nor the time.
//!
//! An occurrence is known by its local time, not by its instant. Workers whose rules for a zone differ name it the same.

mod calendar;
mod field;
mod occurrence;
mod pattern;
mod plan;
mod record;
mod rule;
mod schedule;
mod spec;
mod zone;

pub(crate) use occurrence::{After, Occurrence};
pub(crate) use plan::{Declared, SUSPENDED, Step, Write, decide};
pub(crate) use record::{Line, Record, id};
pub(crate) use schedule::{Schedule, Shown};
pub(crate) use spec::{CATCH_UP_WITHIN, GRACE, Spec};
pub use spec::{CatchUp, Overlap};
pub(crate) use zone::Zone;

#[cfg(test)]
mod walker;
