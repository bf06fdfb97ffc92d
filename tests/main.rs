//! How streamhand behaves, shown on a real Redis and a real Valkey.
//!
//! `make test` fetches the servers where there are none and runs everything;
//! `make test ARGS=retry` runs what has `retry` in its name. With both servers on `PATH`, in
//! `.servers/`, or named by `STREAMHAND_TEST_REDIS` and `STREAMHAND_TEST_VALKEY`, a plain
//! `cargo test` does as well. A missing server is a failure, not a skipped test.
//!
//! A new behaviour is a file `tests/<behaviour>.rs` and a `mod` line below. Its tests stand in
//! [`on_both_servers!`], each on a server of its own, and wait for what they expect with
//! [`support::eventually()`]. All are one program, so that there is one to link, and a worker that
//! has to be a process of its own is this program once more: `support::WorkerProcess` runs the
//! ignored test `worker_process`, which belongs in this file.

#![forbid(unsafe_code)]

#[macro_use]
mod support;

mod access_rules;
mod admin;
mod aggregates;
mod alerts;
mod architecture;
mod at_most_once;
mod bad_input;
mod batch_handlers;
mod batches;
mod begins_again;
mod book;
mod breakers;
mod broken_keys;
mod browser;
mod busy;
mod cancelling;
mod chain;
mod chaos;
mod clock_steps;
mod cluster_features;
mod cluster_workers;
mod clusters;
mod commands;
mod commits;
mod configuration;
mod conformance;
mod crashes;
mod cron;
mod dead_letters;
mod deduplication;
mod delays;
mod demo;
mod dependencies;
mod deploying;
mod dlq;
mod dlq_edit;
mod dlq_groups;
mod dlq_notes;
mod dlq_runs;
mod doctor;
mod due;
mod duty;
mod effects;
mod entry_life;
mod eventstore;
mod eviction;
mod expiring;
mod exporter;
mod failover;
mod failure_hooks;
mod find;
mod fixture;
mod fleet;
mod fleets;
mod forgetting;
mod group_limits;
mod groups;
mod growth;
mod half_done;
mod hooks;
mod identity;
mod idle;
mod ids;
mod inline;
mod kept_letters;
mod keys;
mod large_entries;
mod layers;
mod leases;
mod limits;
mod logs;
mod long_names;
mod lost_replies;
mod meddling;
mod metrics;
mod mistakes;
mod moving_slots;
mod observing;
mod old_server;
mod one_server;
mod operating;
mod operating_clusters;
#[cfg(target_os = "linux")]
mod operator_clock;
mod order;
mod outages;
mod outbox;
mod parked;
mod partitions;
mod pausing;
mod program;
mod projections;
#[cfg(target_os = "linux")]
mod prometheus;
mod public_types;
mod publish_once;
mod publishers;
mod publishing;
mod pulse;
mod purge;
mod refusals;
mod repeats;
mod replay;
mod retention;
mod retries;
mod rolling_deploy;
mod scheduling;
mod secrets;
mod services;
mod several_servers;
mod sharing;
mod shop;
mod status;
mod stopping;
#[cfg(target_os = "linux")]
mod targets;
mod telemetry;
mod timeouts;
mod tls;
mod tracing;
mod trimming;
#[cfg(target_os = "linux")]
mod unread_schedules;
mod versions;
mod web;
mod web_by_hand;
mod web_pages;

/// A worker in a process of its own: this program once more. See [`support::WorkerProcess`].
#[test]
#[ignore = "run by other tests"]
fn worker_process() {
    support::run_worker(support::jobs::registry());
}
