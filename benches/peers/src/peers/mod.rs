//! The peers: each publishes a backlog in the form it reads, and works it off, acknowledging after the handler.

#[cfg(feature = "apalis")]
mod apalis;
mod bare;
#[cfg(feature = "bullmq")]
mod bullmq;
#[cfg(feature = "chasquimq")]
mod chasquimq;
#[cfg(feature = "flowd")]
mod flowd;
#[cfg(feature = "pulses")]
mod pulses;
#[cfg(feature = "ruststream")]
mod ruststream;
#[cfg(feature = "sea-streamer")]
mod sea_streamer;
mod streamhand;

use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use crate::Result;

/// The stream, or the queue, that everybody reads.
const ORDERS: &str = "orders";
/// The field that holds the encoded order, as streamhand writes it; every other field is there for everybody too.
#[cfg(any(feature = "flowd", feature = "pulses", feature = "sea-streamer"))]
const DATA: &str = "data";
const GROUP: &str = "peers";
const CONSUMER: &str = "one";

/// What a measurement is about.
#[derive(Clone)]
pub struct Bench {
    pub url: String,
    pub events: u64,
}

impl Bench {
    /// A connection that a busy machine does not break: the client's default is to give a command up after 500 ms.
    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        let config =
            AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
        let client = redis::Client::open(self.url.as_str())?;
        Ok(client
            .get_multiplexed_async_connection_with_config(&config)
            .await?)
    }
}

/// The runtime a peer is fastest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Everything on one thread.
    One,
    /// Tokio's default: one a core.
    Many,
}

pub trait Peer {
    const NAME: &'static str;
    /// The crate whose version is told.
    const CRATE: &'static str;
    /// What was chosen; why stands beside it in the peer's file and in the README.
    const SETTINGS: &'static str;
    const THREADS: Threads;
    /// The oldest Redis it works with, where that is newer than 7.0.
    const REDIS: Option<(u32, u32)> = None;
    /// Whether it has a handler that is called with every order.
    const HANDLES: bool = true;

    /// Puts the backlog where the peer reads it. Not measured.
    fn publish(bench: &Bench) -> impl Future<Output = Result<()>> + Send;

    /// Handles what comes, acknowledging it, until `stop`.
    fn work(
        bench: Bench,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<()>> + Send + 'static;

    /// How much is not acknowledged yet.
    fn pending(
        bench: &Bench,
        conn: &mut MultiplexedConnection,
    ) -> impl Future<Output = Result<u64>> + Send;
}

/// Calls `$does::<P>($args)` for the peer named `$name`, or for each of them.
macro_rules! peers {
    ($($(#[$when:meta])* $peer:path),+ $(,)?) => {
        /// The names of the peers that were compiled in, in the order in which they are measured.
        pub fn names() -> Vec<&'static str> {
            vec![$($(#[$when])* <$peer>::NAME),+]
        }

        /// Lets `visitor` see the peer of that name.
        pub fn visit<V: Visitor>(name: &str, visitor: V) -> Result<V::Output> {
            $($(#[$when])* if name == <$peer>::NAME { return Ok(visitor.visit::<$peer>()); })+
            Err(format!("there is no peer named {name}; there are {}", names().join(", ")).into())
        }
    };
}

/// What is done with a peer whose type is found by its name.
pub trait Visitor {
    type Output;
    fn visit<P: Peer>(self) -> Self::Output;
}

peers! {
    bare::Bare,
    streamhand::Streamhand,
    #[cfg(feature = "chasquimq")]
    chasquimq::Chasquimq,
    #[cfg(feature = "ruststream")]
    ruststream::Batches,
    #[cfg(feature = "ruststream")]
    ruststream::OneByOne,
    #[cfg(feature = "sea-streamer")]
    sea_streamer::SeaStreamer,
    #[cfg(feature = "pulses")]
    pulses::Pulses,
    #[cfg(feature = "flowd")]
    flowd::Flowd,
    #[cfg(feature = "apalis")]
    apalis::Apalis,
    #[cfg(feature = "bullmq")]
    bullmq::Bullmq,
}

/// Publishes the orders as `streamhand publish` does; whoever can read these entries reads them.
async fn publish_as_streamhand(bench: &Bench) -> Result<()> {
    let settings = streamhand::settings(bench)?;
    let publisher = ::streamhand::Publisher::new(&settings.redis)?;
    for orders in crate::order::Order::chunks(bench.events) {
        publisher.publish_many(ORDERS, &orders).await?;
    }
    Ok(())
}

/// What the group has been given and has not acknowledged.
async fn pending_in(conn: &mut MultiplexedConnection, stream: &str, group: &str) -> Result<u64> {
    let (pending, ..): (u64, redis::Value, redis::Value, redis::Value) = redis::cmd("XPENDING")
        .arg(stream)
        .arg(group)
        .query_async(conn)
        .await?;
    Ok(pending)
}
