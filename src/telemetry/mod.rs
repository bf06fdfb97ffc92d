//! How a worker tells others how it is doing: over HTTP, over a socket to `health`, and to systemd. All of it knows nothing
//! of workers: it is given functions, and tells what they return.

#[cfg(target_os = "linux")]
pub(crate) mod ask;
pub(crate) mod health;
pub(crate) mod routes;
pub(crate) mod server;
pub(crate) mod systemd;
