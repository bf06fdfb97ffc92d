//! Orders to workers: to take up nothing new, to stop, to log what they run or the entries of one type, to run more or
//! fewer handlers at once. They stand in Redis for as long as they hold; every worker hears of them within a second, and
//! says in its next pulse which it has carried out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::fleet::at;
use super::{Admin, since_1970};
use crate::error::{Error, ErrorKind, Result};
use crate::event_type;
use crate::pulse::orders::{Asked, HEARD_WITHIN, Order, What};
use crate::stream::Keys;

/// The longest that an order holds.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most handlers that a worker can be asked to run at once.
const MOST_SLOTS: usize = 1_000_000;

/// What is asked of workers, with [`Admin::order`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct WorkerOrder {
    what: What,
    to: Option<String>,
    lasts: Duration,
}

/// An order that stands, by [`Admin::orders`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StandingOrder {
    /// Its number.
    pub number: u64,
    /// The worker it is for; None for all of the group.
    pub to: Option<String>,
    /// What is asked, as the command would say it: `quiet`, `drain`, `dump`, `debug order.created`, `concurrency 8`.
    pub what: String,
    /// Who gave it.
    pub by: String,
    /// Until when it stands, by the server's clock.
    #[serde(rename = "until_ms", serialize_with = "since_1970")]
    pub until: SystemTime,
}

impl WorkerOrder {
    /// To take up nothing new for so long. What it has is handled, and it goes on by itself after that.
    pub fn quiet(lasts: Duration) -> Self {
        Self::lasting(What::Quiet, lasts)
    }

    /// To stop, as if by a signal: what runs may end within `worker.drain`. Whatever started the worker may start it again.
    pub fn drain() -> Self {
        Self::lasting(What::Drain, HEARD_WITHIN)
    }

    /// To log what it runs.
    pub fn dump() -> Self {
        Self::lasting(What::Dump, HEARD_WITHIN)
    }

    /// To log the entries of an event type one by one, for so long.
    pub fn debug(event_type: impl Into<String>, lasts: Duration) -> Self {
        let event_type = event_type.into();
        Self::lasting(What::Debug { event_type }, lasts)
    }

    /// To run so many handlers at once, for so long, in place of `worker.concurrency`. What runs runs on.
    pub fn concurrency(slots: usize, lasts: Duration) -> Self {
        Self::lasting(What::Concurrency { slots }, lasts)
    }

    fn lasting(what: What, lasts: Duration) -> Self {
        let to = None;
        WorkerOrder { what, to, lasts }
    }

    /// The same for one worker alone, by its whole name.
    pub fn to(mut self, worker: impl Into<String>) -> Self {
        self.to = Some(worker.into());
        self
    }

    fn check(&self) -> Result<()> {
        match &self.what {
            What::Debug { event_type } => event_type::check(event_type)
                .map_err(|why| wrong(format!("the event type {event_type:?} {why}")))?,
            What::Concurrency { slots } if !(1..=MOST_SLOTS).contains(slots) => {
                return Err(wrong(format!(
                    "a worker can't run {slots} handlers at once: 1 to {MOST_SLOTS}"
                )));
            }
            _ => {}
        }
        let least = Duration::from_secs(1);
        if !(least..=LONGEST).contains(&self.lasts) {
            return Err(wrong(
                "an order holds for at least a second and at most 7 days".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Admin {
    /// Asks something of one worker of the group, or of all that read any of its streams. `by` says who did it.
    ///
    /// Workers hear of it within a second, without a command of their own, and each says in its next pulse that it has
    /// carried it out: see [`FleetWorker::carried_out`](super::FleetWorker::carried_out).
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses it, or what is asked can't be.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// use streamhand::admin::WorkerOrder;
    ///
    /// # async fn example(admin: &streamhand::admin::Admin, name: &str) -> streamhand::Result<()> {
    /// let quiet = WorkerOrder::quiet(Duration::from_secs(600)).to(name);
    /// let order = admin.order(quiet, "alice").await?;
    /// let workers = admin.fleet().await?.workers;
    /// let has_heard = workers.iter().any(|worker| worker.carried_out.contains(&order.number));
    /// # Ok(()) }
    /// ```
    pub async fn order(&self, order: WorkerOrder, by: &str) -> Result<StandingOrder> {
        order.check()?;
        let now = self.pool.now().await?;
        let now_ms = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as u64;
        // The later one has the higher number, and no two the same.
        let number = (now_ms << 12) | fastrand::u64(..1 << 12);
        let text = Order {
            to: order.to.clone(),
            what: order.what.clone(),
            by: by.to_owned(),
        };
        let (field, mut until) = (Order::field(number), None);
        for stream in self.streams() {
            let keys = Keys::new(stream, self.group());
            let asked = self
                .pool
                .ask(&keys, &field, &text.to_text(), order.lasts)
                .await?;
            let stands = asked.ok_or_else(|| {
                let message = format!(
                    "{} has 200 orders already: take some back, or wait until they are over",
                    keys.asked
                );
                Error::new(ErrorKind::Refused, message)
            })?;
            until = until.max(Some(stands));
        }
        let until_ms = until
            .ok_or_else(|| wrong("no stream is named whose workers could hear of it".to_owned()))?;
        Ok(StandingOrder {
            number,
            to: order.to,
            what: said(&order.what),
            by: by.to_owned(),
            until: at(until_ms),
        })
    }

    /// The orders that stand, in the order in which they were given.
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses to say.
    pub async fn orders(&self) -> Result<Vec<StandingOrder>> {
        let now = self.pool.now().await?;
        let now_ms = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as u64;
        let mut all = Asked::default();
        for stream in self.streams() {
            let keys = Keys::new(stream, self.group());
            all.merge(Asked::of(&self.pool.asked(&keys).await?).at(now_ms));
        }
        let orders = all.orders.into_iter().map(|standing| StandingOrder {
            number: standing.number,
            what: said(&standing.order.what),
            to: standing.order.to,
            by: standing.order.by,
            until: at(standing.until_ms),
        });
        Ok(orders.collect())
    }

    /// Takes an order back: workers are as they were before within a second. Returns whether it stood.
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses it.
    pub async fn take_back(&self, number: u64) -> Result<bool> {
        let (field, mut stood) = (Order::field(number), false);
        for stream in self.streams() {
            let keys = Keys::new(stream, self.group());
            stood |= self.pool.take_back(&keys, &field).await?;
        }
        Ok(stood)
    }
}

impl StandingOrder {
    /// Whether it holds for a time, and is not done at once.
    pub fn lasts(&self) -> bool {
        !matches!(&self.what[..], "drain" | "dump")
    }
}

fn said(what: &What) -> String {
    match what {
        What::Quiet => "quiet".to_owned(),
        What::Drain => "drain".to_owned(),
        What::Dump => "dump".to_owned(),
        What::Debug { event_type } => format!("debug {event_type}"),
        What::Concurrency { slots } => format!("concurrency {slots}"),
        What::Unknown => "what a newer release asks".to_owned(),
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}
