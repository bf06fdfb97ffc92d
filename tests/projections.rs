//! Views of aggregates' events have each event once and in order, whatever happens to who makes them.

mod live;
mod storm;
mod views;
