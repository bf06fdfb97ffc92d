//! A door to the library's inside for the bench, which measures the least that could be done beside what is done, and for
//! the simulation of a fleet, which drives what says when a worker asks Redis next.
//! Not part of the public API: it may change with any release.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

pub use crate::cli::{flush, table};
use crate::config::RedisSettings;
use crate::error::Result;
pub use crate::reconnect::Pause;
use crate::stream::Connector;
pub use crate::stream::{OutageTimes, RefreshTimes, SLOT_MAP_EVERY};
pub use crate::worker::pace;

/// What a consumer's name says of the release.
pub const PROTOCOL: u32 = crate::stream::PROTOCOL;

/// A connection as the runtime makes it, whose replies are waited for at most `response_timeout`.
pub async fn connect(
    settings: &RedisSettings,
    name: &str,
    response_timeout: Duration,
) -> Result<MultiplexedConnection> {
    let link = Connector::new(settings)?
        .connect(name, response_timeout)
        .await?;
    Ok(link.into_inner())
}

/// A connection on a blocking socket.
pub fn connect_blocking(settings: &RedisSettings) -> Result<redis::Connection> {
    Connector::new(settings)?.connect_blocking()
}

/// What a server said, without our secrets.
pub fn redacted(text: &str) -> std::borrow::Cow<'_, str> {
    crate::config::redact::redacted(text)
}

/// The library's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
