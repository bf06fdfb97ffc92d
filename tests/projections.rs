//! Views of aggregates' events have each event once and in order, whatever happens to who makes them.

mod bad;
mod live;
mod past;
mod steps;
mod storm;
mod views;
