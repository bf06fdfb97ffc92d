//! Everything that speaks to one server begins together and ends together. Where the server is no longer the one to ask
//! all of it goes to where its address leads now; what is in trouble alone is left alone.

mod failover;
#[cfg(target_os = "linux")]
mod names;
mod rotation;
mod silence;
mod streams;
