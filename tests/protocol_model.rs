//! The protocol as a model: one entry, two workers, Redis between them, and every order in which what they do
//! and what goes wrong can happen.
//!
//! A scenario (`scenarios.rs`) is a budget of things that may go wrong; it is explored to the end, and the
//! promises (`properties.rs`) hold at every step and in every state. `defences.rs` takes out one defence after
//! the other and finds a shortest way to what then breaks;
//! `cargo test --test protocol_model defences -- --nocapture` tells them in plain words.
//!
//! Where to read on: `server.rs` is what each script does, `worker.rs` what a worker sends and runs,
//! `answers.rs` what it makes of an answer; `network.rs`, `faults.rs` and `operators.rs` come between.
//!
//! A projection is a model of its own, beside this one: `projection.rs`, with an event that kills whoever applies it.
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

#[path = "protocol_model/action.rs"]
mod action;
#[path = "protocol_model/answers.rs"]
mod answers;
#[path = "protocol_model/defences.rs"]
mod defences;
#[path = "protocol_model/explore.rs"]
mod explore;
#[path = "protocol_model/faults.rs"]
mod faults;
#[path = "protocol_model/messages.rs"]
mod messages;
#[path = "protocol_model/network.rs"]
mod network;
#[path = "protocol_model/operators.rs"]
mod operators;
#[path = "protocol_model/projection.rs"]
mod projection;
#[path = "protocol_model/projection_scenarios.rs"]
mod projection_scenarios;
#[path = "protocol_model/projection_search.rs"]
mod projection_search;
#[path = "protocol_model/properties.rs"]
mod properties;
#[path = "protocol_model/rules.rs"]
mod rules;
#[path = "protocol_model/scenarios.rs"]
mod scenarios;
#[path = "protocol_model/server.rs"]
mod server;
#[path = "protocol_model/state.rs"]
mod state;
#[path = "protocol_model/worker.rs"]
mod worker;
