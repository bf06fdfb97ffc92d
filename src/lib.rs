//! streamhand
#![warn(missing_docs)]

pub mod config;
mod event_type;
pub mod retry;
