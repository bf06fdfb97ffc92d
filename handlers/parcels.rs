//! The tracking service: writes down where parcels have been, in a store of its own outside the cluster that its events
//! come from. So what it has written says what was handled, and in which order, whatever became of the cluster.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::{Context, Event, Failure, Registry};
use tokio::sync::OnceCell;

/// The topic of what happens to parcels.
pub const PARCELS: &str = "parcels";
/// Names the store, for workers that track parcels and do nothing else.
pub const STORE: &str = "SHOP_TRACKING";

/// A parcel has got this far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParcelMoved {
    pub parcel: u64,
    pub step: u64,
}

impl Event for ParcelMoved {
    const TYPE: &'static str = "parcel.moved";
}

/// The store.
#[derive(Clone)]
struct Store {
    url: Arc<str>,
    conn: Arc<OnceCell<MultiplexedConnection>>,
}

/// This service's handler, if the environment names its store.
pub fn registry() -> Option<Registry> {
    let url = std::env::var(STORE).ok()?;
    let store = Store {
        url: url.into(),
        conn: Arc::default(),
    };
    Some(Registry::new().on_with(store, track))
}

/// The list of a parcel's steps, as they were written down.
pub fn key(parcel: u64) -> String {
    format!("parcel:{parcel}")
}

async fn track(store: Store, moved: ParcelMoved, ctx: Context) -> Result<(), Failure> {
    // Now and then the scanner's note can't be read at first: what comes next of that parcel has to wait.
    if is_hard_to_read(&moved) && ctx.attempt() == 1 {
        return Err("the note of the scanner can't be read yet".into());
    }
    let mut conn = store.connection().await?;
    let mut push = redis::cmd("RPUSH");
    push.arg(key(moved.parcel)).arg(moved.step);
    push.query_async::<()>(&mut conn).await?;
    Ok(())
}

fn is_hard_to_read(moved: &ParcelMoved) -> bool {
    (moved.parcel * 31 + moved.step * 17).is_multiple_of(61)
}

impl Store {
    async fn connection(&self) -> Result<MultiplexedConnection, redis::RedisError> {
        let conn = self.conn.get_or_try_init(|| async {
            let client = redis::Client::open(&self.url[..])?;
            client.get_multiplexed_async_connection().await
        });
        conn.await.cloned()
    }
}
