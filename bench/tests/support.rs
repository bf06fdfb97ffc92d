//! What the tests of streamhand stand on, as far as it is needed here.
#![allow(dead_code, reason = "the library's tests need more of it")]

#[path = "../../tests/support/cli.rs"]
mod cli;
#[path = "../../tests/support/clock.rs"]
mod clock;
#[path = "../../tests/support/eventually.rs"]
mod eventually;
#[path = "../../tests/support/guarded.rs"]
mod guarded;
#[path = "../../tests/support/kind.rs"]
mod kind;
#[path = "../../tests/support/port.rs"]
mod port;
#[path = "../../tests/support/scenario.rs"]
#[macro_use]
mod scenario;
#[path = "../../tests/support/server.rs"]
mod server;

pub use cli::Cli;
pub use clock::Clock;
pub use eventually::eventually;
pub use kind::Kind;
pub use port::free_ports;
pub use scenario::run;
pub use server::Server;

/// The program that [`Cli`] runs.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_streamhand-bench");

/// The folder of the library.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
