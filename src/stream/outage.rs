//! A server that can't be had: one of a worker's links at a time asks whether it is back, and the others go by what that
//! one was told. However many there are, the server is asked no more often.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// When a server that can't be had is asked next whether it is back. Pure, for the program in `simulate/` as well.
#[derive(Debug)]
pub struct OutageTimes {
    /// When the next one may ask.
    next: Instant,
    wait: Duration,
}

/// The first and the longest time between two questions.
const WAITS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Since when a server can't be had, and why.
#[derive(Default)]
pub(super) struct Outage(Mutex<Option<Known>>);

struct Known {
    kind: ErrorKind,
    message: String,
    times: OutageTimes,
}

impl OutageTimes {
    /// It could not be had, and had been before.
    pub fn new(now: Instant) -> Self {
        OutageTimes {
            next: now + WAITS.0,
            wait: WAITS.0,
        }
    }

    /// Whether somebody may ask: then nobody else does for a while.
    pub fn lets_try(&mut self, now: Instant) -> bool {
        let lets = self.is_over(now);
        if lets {
            self.next = now + self.wait;
        }
        lets
    }

    /// Whether somebody may ask.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// It could not be had again.
    pub fn failed(&mut self, now: Instant) {
        self.wait = (self.wait * 2).min(WAITS.1);
        self.next = now + self.wait;
    }
}

impl Outage {
    /// Whether a connection may be tried now.
    ///
    /// # Errors
    /// What the last one was told, where that was a moment ago.
    pub fn lets_try(&self) -> Result<()> {
        let mut outage = lock(&self.0);
        let Some(known) = &mut *outage else {
            return Ok(());
        };
        match known.times.lets_try(Instant::now()) {
            true => Ok(()),
            false => Err(Error::new(known.kind, known.message.clone())),
        }
    }

    /// Whether it may be tried, by whoever is to ask [`lets_try`](Self::lets_try) before it does.
    ///
    /// # Errors
    /// As there.
    pub fn is_over(&self) -> Result<()> {
        match &*lock(&self.0) {
            Some(known) if !known.times.is_over(Instant::now()) => {
                Err(Error::new(known.kind, known.message.clone()))
            }
            _ => Ok(()),
        }
    }

    /// What became of a try.
    pub fn heard<T>(&self, tried: Result<T>) -> Result<T> {
        let mut outage = lock(&self.0);
        match &tried {
            Ok(_) => *outage = None,
            Err(error) => {
                let (kind, message) = (error.kind(), error.to_string());
                let now = Instant::now();
                let times = match outage.take() {
                    Some(mut known) => {
                        known.times.failed(now);
                        known.times
                    }
                    None => OutageTimes::new(now),
                };
                *outage = Some(Known {
                    kind,
                    message,
                    times,
                });
            }
        }
        tried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_it_lasts_one_asks_and_the_others_hear_what_it_was_told() {
        let outage = Outage::default();
        let away = || Err::<(), _>(Error::new(ErrorKind::Unreachable, "away"));
        assert!(outage.lets_try().is_ok() && outage.lets_try().is_ok());
        for _ in 0..10 {
            let _ = outage.heard(away());
        }
        let said = outage.lets_try().unwrap_err();
        assert_eq!(
            (said.kind(), said.to_string()),
            (ErrorKind::Unreachable, "away".to_owned())
        );
        lock(&outage.0).as_mut().unwrap().times.next = Instant::now();
        // One, and nobody beside it.
        assert!(outage.lets_try().is_ok() && outage.lets_try().is_err());
        assert!(outage.heard(Ok(())).is_ok() && outage.lets_try().is_ok());
    }
}
