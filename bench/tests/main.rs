//! How the bench behaves, shown on a real Redis and a real Valkey.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

mod measures;
mod secrets;
