//! Limits of the whole group that hold from now on: how often a handler may start, and how many of it may run.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Admin, check_stream, since_1970};
use crate::config::Rate;
use crate::error::{Error, ErrorKind, Result};
use crate::event_type;
use crate::policy::SetLimit;
use crate::stream::Keys;

/// Most runs of a handler at once.
const MOST: usize = 1_000_000;

/// What a handler is limited to, with [`Admin::limit`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct LimitRequest {
    handler: String,
    by: String,
    rate: Option<Rate>,
    concurrency: Option<usize>,
}

/// A limit that an operator has set, by [`Admin::limits`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StandingLimit {
    /// The handler, by its event type.
    pub handler: String,
    /// How often it may start in the whole group; None where that is as configured.
    #[serde(serialize_with = "as_text")]
    pub rate: Option<Rate>,
    /// How many of it may run in the whole group; None where that is as configured.
    pub concurrency: Option<usize>,
    /// Who has set it.
    pub by: String,
    /// When, by the server's clock.
    #[serde(rename = "since_ms", serialize_with = "since_1970")]
    pub since: SystemTime,
}

impl LimitRequest {
    /// A handler, by its event type. `by` says who does it, for [`status`](Admin::status) to tell.
    pub fn of(handler: impl Into<String>, by: impl Into<String>) -> Self {
        LimitRequest {
            handler: handler.into(),
            by: by.into(),
            rate: None,
            concurrency: None,
        }
    }

    /// It starts so often at most, in the whole group: `"50/s"`.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// So many of it run at once, in the whole group.
    pub fn concurrency(mut self, most: usize) -> Self {
        self.concurrency = Some(most);
        self
    }

    fn check(&self) -> Result<()> {
        check_handler(&self.handler)?;
        if self.rate.is_none() && self.concurrency.is_none() {
            return Err(wrong(
                "no limit: give a rate, such as 50/s, or how many may run at once".to_owned(),
            ));
        }
        if self.rate.is_some_and(|rate| rate.count == 0) {
            return Err(wrong(
                "a rate of 0 would let nothing start: pause the handler instead".to_owned(),
            ));
        }
        match self.concurrency {
            Some(most) if !(1..=MOST).contains(&most) => Err(wrong(format!(
                "{most} can't run at once: 1 to {MOST}; pause the handler if none is to run"
            ))),
            _ => Ok(()),
        }
    }
}

impl Admin {
    /// Limits a handler for the whole group from now on, in place of what is configured, until it is
    /// [cleared](Self::clear_limit). What is not said stays as it is. Workers hear of it within a second or two, those that
    /// start later as well.
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses it, or what is asked for can't be.
    ///
    /// ```no_run
    /// use streamhand::admin::LimitRequest;
    ///
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// admin.limit(LimitRequest::of("order.created", "alice").concurrency(8)).await?;
    /// admin.clear_limit("order.created").await?;
    /// # Ok(()) }
    /// ```
    pub async fn limit(&self, request: LimitRequest) -> Result<StandingLimit> {
        request.check()?;
        let known = self.limits().await?;
        let known = known
            .into_iter()
            .find(|known| known.handler == request.handler);
        let since = self.pool.now().await?;
        let since_ms = since
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as u64;
        let set = SetLimit {
            handler: request.handler,
            since_ms,
            rate: request.rate.or(known.as_ref().and_then(|known| known.rate)),
            concurrency: request
                .concurrency
                .or(known.as_ref().and_then(|known| known.concurrency)),
        };
        let note = json!({ "since_ms": since_ms, "by": request.by }).to_string();
        let field = set.field();
        for stream in self.streams() {
            check_stream(stream)?;
            let keys = Keys::new(stream, self.group());
            self.pool
                .set_limit(&keys, &set.handler, Some(&field), &note)
                .await?;
        }
        Ok(StandingLimit::of(set, &note))
    }

    /// A handler's limits are as configured again. Returns whether an operator had set any.
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses it, or no event type can have this name.
    pub async fn clear_limit(&self, handler: &str) -> Result<bool> {
        check_handler(handler)?;
        let mut had = false;
        for stream in self.streams() {
            let keys = Keys::new(stream, self.group());
            had |= self.pool.set_limit(&keys, handler, None, "").await? > 0;
        }
        Ok(had)
    }

    /// The limits that operators have set, by handlers.
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses to say.
    pub async fn limits(&self) -> Result<Vec<StandingLimit>> {
        let mut all: BTreeMap<String, StandingLimit> = BTreeMap::new();
        for stream in self.streams() {
            let keys = Keys::new(stream, self.group());
            for (field, note) in self.pool.set_limits(&keys).await? {
                let Some(set) = SetLimit::parse(&field) else {
                    continue;
                };
                let limit = StandingLimit::of(set, &note);
                let known = all
                    .entry(limit.handler.clone())
                    .or_insert_with(|| limit.clone());
                if limit.since > known.since {
                    *known = limit;
                }
            }
        }
        Ok(all.into_values().collect())
    }
}

impl StandingLimit {
    fn of(set: SetLimit, note: &str) -> Self {
        let note: Value = serde_json::from_str(note).unwrap_or_default();
        let by = note.get("by").and_then(Value::as_str).unwrap_or_default();
        StandingLimit {
            handler: set.handler,
            rate: set.rate,
            concurrency: set.concurrency,
            by: by.to_owned(),
            since: crate::stream::time(set.since_ms),
        }
    }
}

/// In a few words: `50/s, 8 at once`.
impl std::fmt::Display for StandingLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = self.rate.map(|rate| rate.to_string());
        let concurrency = self.concurrency.map(|most| format!("{most} at once"));
        let parts: Vec<String> = rate.into_iter().chain(concurrency).collect();
        f.write_str(&parts.join(", "))
    }
}

fn check_handler(handler: &str) -> Result<()> {
    event_type::check(handler).map_err(|why| wrong(format!("the event type {handler:?} {why}")))
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

fn as_text<S: Serializer>(rate: &Option<Rate>, to: S) -> std::result::Result<S::Ok, S::Error> {
    match rate {
        Some(rate) => to.collect_str(rate),
        None => to.serialize_none(),
    }
}
