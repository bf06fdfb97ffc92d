//! What all connections to one server have in common: they begin under one life, and end with it. A server that is no
//! longer the one to ask, or turns out to be another than before, is left by all of them at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::config::redact::redacted;
use crate::metrics::Metrics;
use crate::sync::lock;

/// How long a life lasts at least before its connections end for a `MOVED`, where the one before ended for one, too:
/// twice as long each time. Some keys may be elsewhere for good, and all else is to go on.
const MOVED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// A life that is shorter was led by servers that do not agree on where something is.
const SHORT: Duration = Duration::from_secs(1);
/// How long the first of several short ones is waited before it is looked again, twice as long each time, and at most.
const HASTE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Which server it is, and what of its past it has in common with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerIdentity {
    /// Differs between two servers, and between two runs of one.
    pub run: String,
    /// Of the data it has; another since it was made a primary, with the one before it in second place.
    pub replication: (String, String),
}

/// Connections to one server, as long as that is the one to ask.
#[derive(Clone)]
pub(crate) struct Life(Arc<Inner>);

struct Inner {
    address: String,
    begun: Instant,
    /// How many before this ended in a row because something had moved.
    moves: u32,
    /// How many before this lasted no time.
    haste: u32,
    /// The same as `ended`, for who looks often.
    is_over: AtomicBool,
    ended: CancellationToken,
    state: Mutex<State>,
    /// Where requests are counted, if they are.
    metrics: Arc<OnceLock<Metrics>>,
}

#[derive(Default)]
struct State {
    server: Option<ServerIdentity>,
    /// What drives connections that end with it.
    drivers: Vec<AbortHandle>,
    moved: bool,
    /// The address of the server, if that is looked up.
    place: Option<String>,
}

/// The lives of connections to what is at one address, one after the other.
pub(super) struct Lives(Mutex<Life>);

impl ServerIdentity {
    /// Whether it may know other things than what was there before: it is another server, or another run of it, or was a
    /// replica of another one meanwhile. (A primary that gets its first replica has a new id as well, and none before it.)
    pub fn is_another_than(&self, before: &ServerIdentity) -> bool {
        let (replication, last) = &self.replication;
        let is_first = last.bytes().all(|byte| byte == b'0');
        self.run != before.run || (*replication != before.replication.0 && !is_first)
    }

    /// Whether the server tells who it is: some services do not.
    pub fn is_known(&self) -> bool {
        !self.run.is_empty() || !self.replication.0.is_empty()
    }
}

impl Life {
    fn begin(address: String, moves: u32, haste: u32, metrics: Arc<OnceLock<Metrics>>) -> Self {
        Life(Arc::new(Inner {
            address,
            begun: Instant::now(),
            moves,
            haste,
            is_over: AtomicBool::new(false),
            ended: CancellationToken::new(),
            state: Mutex::default(),
            metrics,
        }))
    }

    pub fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }

    /// Where requests are counted, if they are.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.0.metrics.get()
    }

    /// A connection was made that is called `name`, which ends in what it is for.
    pub fn connected(&self, name: &str) {
        if let Some(metrics) = self.metrics() {
            let part = name.rsplit(':').next().unwrap_or_default();
            metrics.requests().connected(part);
        }
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// A server was met that takes writes. Whether it is the one that this life is with, as far as that is known.
    pub fn meets(&self, server: &ServerIdentity) -> bool {
        let mut state = self.state();
        match &state.server {
            Some(known) if server.is_known() => !server.is_another_than(known),
            Some(_) => true,
            None => {
                state.server = Some(server.clone());
                true
            }
        }
    }

    /// The server was looked up and is at `place`. Whether that is where this life is.
    pub fn is_at(&self, place: &str) -> bool {
        let mut state = self.state();
        state.place.get_or_insert_with(|| place.to_owned()) == place
    }

    /// How long to wait before a connection is made: where the last ones ended at once, servers do not agree yet.
    pub fn pause(&self) -> Duration {
        match self.0.haste {
            0 | 1 => Duration::ZERO,
            n => HASTE.1.min(HASTE.0 * 2_u32.saturating_pow(n - 2)),
        }
    }

    /// Whether one that takes writes was met.
    pub fn has_met_one(&self) -> bool {
        self.state().server.is_some()
    }

    /// What drives a connection ends with it.
    pub fn takes_along(&self, driver: AbortHandle) {
        let mut state = self.state();
        if self.is_over() {
            driver.abort();
            return;
        }
        state.drivers.retain(|driver| !driver.is_finished());
        state.drivers.push(driver);
    }

    /// All its connections end, for what the server said.
    pub fn end(&self, why: &str) {
        let moved = why.starts_with("MOVED");
        if moved {
            let least = match self.0.moves {
                0 => Duration::ZERO,
                n => MOVED.1.min(MOVED.0 * 2_u32.saturating_pow(n - 1)),
            };
            if self.0.begun.elapsed() < least {
                return;
            }
        }
        let mut state = self.state();
        if self.is_over() {
            return;
        }
        state.moved = moved;
        let place = state.place.as_ref().unwrap_or(&self.0.address);
        let (address, why) = (place.clone(), redacted(why));
        tracing::warn!("leaving the server at {address}, which is looked up anew: {why}");
        self.0.is_over.store(true, Ordering::Release);
        self.0.ended.cancel();
        state.drivers.drain(..).for_each(|driver| driver.abort());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

impl Lives {
    #[cfg(test)]
    fn at(address: &str) -> Self {
        Self::counting(address, Arc::default())
    }

    /// Those of connections to what is at `address`, or called so. Their requests are counted there, if anywhere by then.
    pub fn counting(address: &str, metrics: Arc<OnceLock<Metrics>>) -> Self {
        Lives(Mutex::new(Life::begin(address.to_owned(), 0, 0, metrics)))
    }

    /// The server is at `place`: connections to another end.
    pub fn leave_others(&self, place: &str, why: &str) {
        let life = lock(&self.0).clone();
        let is_elsewhere = |there: &String| there != place;
        if life.state().place.as_ref().is_some_and(is_elsewhere) {
            life.end(&format!("{why}: {place}"));
        }
    }

    /// The present life, which is at `place` from now on: one that is elsewhere ends.
    ///
    /// Whoever finds out where that is calls this before anything newer can be found out, or connections are made to a
    /// server that has just been left.
    pub fn settle(&self, place: &str, why: &str) -> Life {
        self.leave_others(place, why);
        let life = self.current();
        // Somebody has found it elsewhere in this very moment: the next try is told.
        if !life.is_at(place) {
            life.end(why);
        }
        life
    }

    /// The life that a new connection belongs to.
    pub fn current(&self) -> Life {
        let mut life = lock(&self.0);
        if life.is_over() {
            let moves = match life.state().moved {
                true => life.0.moves.saturating_add(1),
                false => 0,
            };
            let haste = match life.0.begun.elapsed() < SHORT {
                true => life.0.haste.saturating_add(1),
                false => 0,
            };
            let (address, metrics) = (life.0.address.clone(), life.0.metrics.clone());
            *life = Life::begin(address, moves, haste, metrics);
        }
        life.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(run: &str, replication: &str, last: &str) -> ServerIdentity {
        ServerIdentity {
            run: run.to_owned(),
            replication: (replication.to_owned(), last.to_owned()),
        }
    }

    #[test]
    fn a_server_is_another_after_a_restart_and_after_it_was_a_replica() {
        let before = server("a", "1", "00");
        assert!(!server("a", "1", "00").is_another_than(&before));
        assert!(server("b", "1", "00").is_another_than(&before));
        // Its first replica has come.
        assert!(!server("a", "2", "00").is_another_than(&before));
        // It has followed another one, and was made a primary again.
        assert!(server("a", "3", "2").is_another_than(&before));
    }

    #[test]
    fn a_life_ends_once_and_the_next_begins_with_another_server() {
        let lives = Lives::at("here");
        let (first, same) = (lives.current(), lives.current());
        assert!(first.meets(&server("a", "1", "0")) && same.has_met_one());
        assert!(same.meets(&server("a", "1", "0")) && !same.meets(&server("b", "1", "0")));
        // Who does not say who it is can't be told from the other.
        assert!(same.meets(&ServerIdentity::default()));
        same.end("READONLY it");
        assert!(first.is_over());
        let next = lives.current();
        assert!(!next.is_over() && next.meets(&server("b", "1", "0")));
    }

    #[test]
    fn what_has_moved_for_good_does_not_end_everything_again_and_again() {
        let lives = Lives::at("here");
        lives.current().end("MOVED 1 there:1");
        let next = lives.current();
        next.end("MOVED 1 there:1");
        assert!(!next.is_over());
        next.end("READONLY it");
        assert!(next.is_over());
        lives.current().end("MOVED 1 there:1");
        assert_eq!(lives.current().0.moves, 1);
    }
}
