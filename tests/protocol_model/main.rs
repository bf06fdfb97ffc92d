//! The protocol as a model: one entry, two workers, Redis between them, and every order in which what they do
//! and what goes wrong can happen.
//!
//! A scenario (`scenarios.rs`) is a budget of things that may go wrong; it is explored to the end, and the
//! promises (`properties.rs`) hold at every step and in every state. `defences.rs` takes out one defence after
//! the other and finds a shortest way to what then breaks;
//! `cargo test -p protocol-model defences -- --nocapture` tells them in plain words.
//!
//! Where to read on: `server.rs` is what each script does, `worker.rs` what a worker sends and runs,
//! `answers.rs` what it makes of an answer; `network.rs`, `faults.rs` and `operators.rs` come between.
//!
//! Two more are models of their own, beside this one: `projection.rs`, with an event that kills whoever applies it, and
//! `ordered.rs`, with the events of one subject, that are to be begun in the order of their stream.
//!
//! What the model leaves out: other entries (batches, budgets, order), how long things take (only that a lease
//! can pass), errors inside a script (each looks before it writes), a new entry under an old id after a
//! failover, a group that is set back over what a worker holds or before all have heard that it was read, and the
//! memory of what was acknowledged, which spares work and keeps no promise.

#![forbid(unsafe_code)]

/// How often what may go wrong: `may!(losses: 1, failures: 2)`, and nothing else.
macro_rules! may {
    ($($what:ident: $often:expr),*) => {
        crate::rules::Budget { $($what: $often,)* ..Default::default() }
    };
}

mod action;
mod answers;
mod defences;
mod explore;
mod faults;
mod fingerprint;
mod messages;
mod network;
mod operators;
mod ordered;
mod ordered_line;
mod ordered_scenarios;
mod ordered_worker;
mod projection;
mod projection_scenarios;
mod properties;
mod rules;
mod scenarios;
mod search;
mod server;
mod state;
mod worker;
