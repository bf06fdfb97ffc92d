//! A handler's rate that is counted for the whole group.

use std::time::Duration;

use redis::Value;

use super::connection::Link;
use super::error::Trouble;
use super::obstacle::need;
use super::reply;
use super::script::script;
use crate::config::Rate;

script!(RATE, "rate");

/// How many starts are asked for.
pub(crate) struct RateRequest {
    key: String,
    interval: Duration,
    burst: u32,
    pub wanted: u32,
}

/// What was granted.
pub(crate) struct RateGrant {
    pub granted: u32,
    /// Where it is fewer than were asked for: until there is another one.
    pub dry_for: Option<Duration>,
}

impl RateRequest {
    /// Where it is counted.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// So many starts of a group's handler.
    pub fn new(group: &str, handler: &str, rate: Rate, wanted: u32) -> Self {
        RateRequest {
            // Not of any one stream: the handler may have entries of several.
            key: format!("streamhand:{group}:rate:{handler}"),
            interval: rate.interval(),
            burst: rate.burst(),
            wanted,
        }
    }
}

impl Link {
    /// Takes starts from what a group's handler has left.
    pub async fn take_rate(&mut self, request: &RateRequest) -> Result<RateGrant, Trouble> {
        let doing = || format!("counting starts in {}", request.key);
        let answer = RATE
            .key(&request.key)
            .arg((request.interval.as_micros() as u64).max(1))
            .arg(request.burst)
            .arg(request.wanted)
            .invoke_async(&mut self.conn)
            .await;
        let needs = || vec![need(&request.key, "string", "GET SET")];
        let value: Value = self.answered(doing, answer, needs).await?;
        let parse = |value| {
            let [granted, wait] = reply::tuple(value)?;
            let wait = Duration::from_micros(reply::int(&wait)? as u64);
            Some(RateGrant {
                granted: reply::int(&granted)? as u32,
                dry_for: Some(wait).filter(|wait| !wait.is_zero()),
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }
}
