//! Views of aggregates' events have each event once and in order, whatever happens to who makes them.

mod anew;
mod bad;
mod killers;
mod live;
mod long;
mod past;
mod steps;
mod storm;
pub mod views;
