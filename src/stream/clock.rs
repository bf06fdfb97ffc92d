//! What time it is: Redis says so. The clock of whoever asks may be wrong, and every due time, every id and every lease
//! is of the server's clock.

use std::time::{Duration, SystemTime};

use super::connection::Link;
use super::error::{Trouble, Who, refusal};
use super::pool::Pool;
use crate::error::Result;

/// What the server's clock should show, and how far it may be off: what goes by ages is not done where it is further off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub ms: u64,
    pub leeway: Duration,
}

impl Expected {
    /// As scripts take it: see `scripts/common/clock.lua`.
    pub(super) fn args(clock: Option<Self>) -> [String; 2] {
        clock.map_or_else(Default::default, |clock| {
            [clock.ms.to_string(), clock.leeway.as_millis().to_string()]
        })
    }
}

impl Pool {
    /// The server's time.
    pub async fn now(&self) -> Result<SystemTime> {
        let mut conn = self.get().await?;
        let (seconds, micros): (u64, u64) = redis::cmd("TIME")
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, "asking Redis what time it is", error))?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros))
    }
}

impl Link {
    /// The server's time, in milliseconds since 1970.
    pub async fn now_ms(&mut self) -> std::result::Result<u64, Trouble> {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME")
            .query_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of("asking Redis what time it is", error))?;
        Ok(seconds * 1000 + micros / 1000)
    }
}
