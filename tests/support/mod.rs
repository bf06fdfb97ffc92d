//! What every behaviour stands on: private servers, workers as processes, and patience.

mod cli;
mod clock;
pub mod cluster;
pub mod collector;
mod eventually;
mod guarded;
pub mod http;
pub mod interpreters;
pub mod jobs;
mod kind;
pub mod letters;
pub mod marks;
mod names;
mod port;
mod process;
pub mod prometheus;
mod publisher;
pub mod replication;
mod requests;
mod resp;
mod resp_proxy;
mod resp_traps;
mod resp_watch;
mod scrape;
pub mod scripts;
#[macro_use]
mod scenario;
pub mod sentinel;
mod server;
mod streams;
mod switch;
mod tls;
pub mod trim;
mod worker;

pub use cli::{Cli, Ran, masked, run_program};
pub use clock::Clock;
pub use eventually::eventually;
pub use guarded::Guarded;
pub use kind::Kind;
pub use names::Names;
pub use port::free_ports;
pub use process::{Builder as ProcessBuilder, WorkerProcess, most_memory, run_worker};
pub use publisher::{publisher, publisher_with};
pub use requests::{CommandStats, Requests};
pub use resp_proxy::{Proxy, Service};
pub use resp_traps::{Caught, Exchange};
pub use resp_watch::{Watched, monotonic};
pub use scenario::run;
pub use scrape::Scrape;
pub use server::{Server, scratch_dir};
pub use streams::{Entry, Fields, add, calls, entries};
pub use switch::Switch;
pub use tls::{Authority, Identity, TlsServer};
pub use worker::{InProcess, Setup, all_pending, dead, parked, pending, settled};

/// The program that [`Cli`] runs: all commands, with the handlers of the shop.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_shop");

/// The folder of the library.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");
