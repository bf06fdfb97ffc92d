//! What a handler's entries pass before it runs: its circuit breaker and its rate. Says beforehand how many would pass,
//! so that what would not stays unread; and counts what had to be released to Redis, so that there is an end to that.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use super::breaker::{Held, Ticket, Why};
use super::breakers::{Breakers, Circuit};
use super::rate::{Granted, Local};
use crate::clock;
use crate::config::{HandlerPolicy, Rate, RateScope};
use crate::delay;
use crate::failure::Failure;
use crate::sync::{lock, read, write};

/// Most entries of one handler that wait in Redis because it found a service's breaker open. Where there are so many, no
/// more of its are read until some of them are due.
const RELEASED: usize = 1000;

/// What a handler's entries pass before it runs.
pub(crate) struct Gate {
    /// The handler's event type.
    pub name: String,
    breaker: Option<Arc<Circuit>>,
    /// Whether there is a rate: all else is looked at only then.
    has_rate: AtomicBool,
    rate: RwLock<Option<(Rate, Limit)>>,
    configured: Option<(Rate, RateScope)>,
    /// When each of those falls due that wait in Redis because they were released.
    released: Mutex<BinaryHeap<Reverse<Instant>>>,
}

#[derive(Clone)]
enum Limit {
    Local(Arc<Local>),
    Group(Arc<Granted>),
}

/// How many more entries may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Any,
    /// At most so many.
    Some(usize),
    /// None for so long.
    None(Duration),
}

/// An entry that has passed; `Gate::record` takes it back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pass(Option<Ticket>);

impl Gate {
    /// The gate of a handler by its policy.
    pub fn new(name: &str, policy: &HandlerPolicy, breakers: &Breakers) -> Self {
        let breaker = policy
            .circuit_breaker
            .map(|settings| breakers.make(name, settings));
        let configured = policy.rate.map(|rate| (rate, policy.rate_scope));
        Gate {
            name: name.to_owned(),
            breaker,
            has_rate: AtomicBool::new(configured.is_some()),
            rate: RwLock::new(configured.map(limit)),
            configured,
            released: Mutex::default(),
        }
    }

    /// The whole group is limited to this rate, in place of what is configured; to that again if it is none.
    pub fn set_rate(&self, rate: Option<Rate>) {
        let wanted = rate
            .map(|rate| (rate, RateScope::Group))
            .or(self.configured);
        let mut now = write(&self.rate);
        let is = now.as_ref().map(|(rate, limit)| match limit {
            Limit::Local(_) => (*rate, RateScope::Worker),
            Limit::Group(_) => (*rate, RateScope::Group),
        });
        if is != wanted {
            *now = wanted.map(limit);
            self.has_rate.store(wanted.is_some(), Ordering::Release);
        }
    }

    /// Its rate, if it has one.
    pub fn rate(&self) -> Option<Rate> {
        read(&self.rate).as_ref().map(|(rate, _)| *rate)
    }

    fn limit(&self) -> Option<Limit> {
        match self.has_rate.load(Ordering::Acquire) {
            true => read(&self.rate).as_ref().map(|(_, limit)| limit.clone()),
            false => None,
        }
    }

    /// Whether it lets everything through at all times.
    pub fn is_none(&self) -> bool {
        self.breaker.is_none() && !self.has_rate.load(Ordering::Relaxed)
    }

    /// Asks for one entry to be let through.
    pub fn pass(&self) -> Result<Pass, Held> {
        let pass = self.pass_call()?;
        self.pass_event().inspect_err(|_| self.give_back(pass))?;
        Ok(pass)
    }

    /// Asks the breaker alone: for one call, of however many entries.
    pub fn pass_call(&self) -> Result<Pass, Held> {
        let breaker = self.breaker.as_ref();
        let ticket = breaker.map(|breaker| breaker.admit()).transpose()?;
        Ok(Pass(ticket))
    }

    /// Asks the rate alone: for one entry.
    pub fn pass_event(&self) -> Result<(), Held> {
        let limit = self.limit();
        let admitted = match &limit {
            None => Ok(()),
            Some(Limit::Local(local)) => local.admit(),
            Some(Limit::Group(granted)) => granted.admit(),
        };
        if let Err(wait) = admitted {
            if self.granted().is_some_and(|granted| granted.is_refused()) {
                return Err(Held {
                    why: Why::Uncounted,
                    wait,
                });
            }
            return Err(Held {
                why: Why::Rate,
                wait: delay::bounded(wait),
            });
        }
        Ok(())
    }

    /// What came of an entry that was let through.
    pub fn record(&self, pass: Pass, result: &Result<(), Failure>) {
        if let (Some(breaker), Pass(Some(ticket))) = (&self.breaker, pass) {
            breaker.record_run(ticket, result);
        }
    }

    /// The entry did not run to its end: that says nothing.
    pub fn give_back(&self, pass: Pass) {
        if let (Some(breaker), Pass(Some(ticket))) = (&self.breaker, pass) {
            breaker.record(ticket, super::breaker::Outcome::Neither);
        }
    }

    /// The share of the group's rate, where it has one.
    pub fn granted(&self) -> Option<Arc<Granted>> {
        match self.limit() {
            Some(Limit::Group(granted)) => Some(granted),
            _ => None,
        }
    }

    /// How many would be let through now.
    pub fn room(&self) -> Room {
        let breaker = match self.breaker.as_ref().and_then(|breaker| breaker.room()) {
            None => Room::Any,
            Some(0) => Room::None(self.breaker_wait()),
            Some(probes) => Room::Some(probes),
        };
        let rate = match self.limit() {
            None => Room::Any,
            Some(Limit::Local(local)) => match local.room() {
                (0, wait) => Room::None(wait),
                (left, _) => Room::Some(left),
            },
            Some(Limit::Group(granted)) => granted.dry_for().map_or(Room::Any, Room::None),
        };
        breaker.and(rate)
    }

    /// An entry was released to Redis, for so long.
    pub fn released(&self, delay: Duration) {
        let mut due = lock(&self.released);
        if due.len() < RELEASED * 2 {
            due.push(Reverse(delay::after(clock::now(), delay)));
        }
    }

    /// What was released comes back before it was due.
    pub fn forget_released(&self) {
        lock(&self.released).clear();
    }

    /// Where as many were released as may be: how long until some of them are due.
    pub fn is_overfull(&self) -> Option<Duration> {
        if self.waiting() < RELEASED {
            return None;
        }
        let due = lock(&self.released);
        let Reverse(first) = due.peek()?;
        Some(first.saturating_duration_since(clock::now()))
    }

    /// How many wait in Redis because they were released.
    pub fn waiting(&self) -> usize {
        let mut due = lock(&self.released);
        let now = clock::now();
        while due.peek().is_some_and(|Reverse(at)| *at <= now) {
            due.pop();
        }
        due.len()
    }

    fn breaker_wait(&self) -> Duration {
        match self.breaker.as_ref().map(|breaker| breaker.state()) {
            // Where its time is over another worker sends the probes, or is about to.
            Some(super::State::Open { until }) if until > clock::now() => {
                until.saturating_duration_since(clock::now())
            }
            // Its probes are out; what they say is heard of without waiting for it.
            _ => Duration::from_millis(250),
        }
    }
}

fn limit((rate, scope): (Rate, RateScope)) -> (Rate, Limit) {
    let limit = match scope {
        RateScope::Worker => Limit::Local(Arc::new(Local::new(rate))),
        RateScope::Group => Limit::Group(Arc::new(Granted::new())),
    };
    (rate, limit)
}

impl Room {
    /// What passes both.
    pub fn and(self, other: Room) -> Room {
        match (self, other) {
            (Room::None(a), Room::None(b)) => Room::None(a.max(b)),
            (Room::None(wait), _) | (_, Room::None(wait)) => Room::None(wait),
            (Room::Some(a), Room::Some(b)) => Room::Some(a.min(b)),
            (Room::Some(a), Room::Any) | (Room::Any, Room::Some(a)) => Room::Some(a),
            (Room::Any, Room::Any) => Room::Any,
        }
    }

    /// What passes one or the other.
    pub fn or(self, other: Room) -> Room {
        match (self, other) {
            (Room::Any, _) | (_, Room::Any) => Room::Any,
            (Room::Some(a), Room::Some(b)) => Room::Some(a.saturating_add(b)),
            (Room::Some(a), Room::None(_)) | (Room::None(_), Room::Some(a)) => Room::Some(a),
            (Room::None(a), Room::None(b)) => Room::None(a.min(b)),
        }
    }
}

impl Why {
    pub const ALL: [Why; 7] = [
        Why::BreakerOpen,
        Why::Probing,
        Why::Rate,
        Why::Uncounted,
        Why::Paused,
        Why::Concurrency,
        Why::Share,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Why::BreakerOpen => "its circuit breaker is open",
            Why::Probing => "its circuit breaker waits for its probes",
            Why::Rate => "more came than its rate allows",
            Why::Uncounted => "the server refuses to count its group's rate (the log says why)",
            Why::Paused => "it is paused",
            Why::Concurrency => "as many of its kind as may run are running",
            Why::Share => "its kind has its share of the slots, and others have work",
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
