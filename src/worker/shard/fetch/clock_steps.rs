//! Watches the server's clock, and does what is to be done if somebody sets it: what is parked then waits as long as it was
//! to, and what lies in the future counts from now on.

use std::sync::Arc;
use std::time::Duration;

use crate::stream::{Expected, Link, Trouble};
use crate::worker::shard::clock::{Clock, LEAST as STEP, ServerClock, Step, Way, ticks};
use crate::worker::shard::health::ServerHealth;
use crate::worker::state::source::Sources;

/// Follows the steps of the server's clock.
pub(crate) struct ClockSteps {
    sources: Arc<Sources>,
    health: Arc<ServerHealth>,
    /// Where the other parts find it.
    told: Arc<ServerClock>,
    clock: Clock,
    /// It was set, and what that means is still to be done.
    set: Option<Step>,
    /// Whether the last look found the clock as it should be, or learnt that it was set: if only the answer took long,
    /// the next one is not to be put off for that.
    is_known: bool,
}

impl ClockSteps {
    pub fn new(sources: Arc<Sources>, health: Arc<ServerHealth>, told: Arc<ServerClock>) -> Self {
        ClockSteps {
            sources,
            health,
            told,
            clock: Clock::default(),
            set: None,
            is_known: true,
        }
    }

    /// The clock as it was last seen.
    pub fn last_seen(&self) -> Clock {
        self.clock
    }

    /// What a script is to find, as far as that is known.
    pub fn expected(&self) -> Option<Expected> {
        let expected = self.is_known.then(|| self.clock.expected(STEP));
        expected.filter(|clock| clock.ms > 0)
    }

    /// It showed `ms`, in the answer to what was sent at `sent` and was to find `expected`. Returns the step if it was
    /// set since the last time.
    pub fn saw(&mut self, ms: u64, sent: Duration, expected: Option<Expected>) -> Option<Step> {
        self.told.shows(ms);
        let step = self.clock.saw(ms, sent, ticks());
        self.told.saw(self.clock);
        let is_off = expected.is_some_and(|clock| ms.abs_diff(clock.ms) > STEP.as_millis() as u64);
        self.is_known = step.is_some() || !is_off;
        step
    }

    /// It was set: [`follow`](Self::follow) does what that means.
    pub fn stepped(&mut self, step: Step) {
        let by = crate::duration::rounded(step.by);
        match step.way {
            Way::Ahead => {
                tracing::warn!(%by, "the clock of Redis was set ahead: for a lease nobody's entries are taken over");
                // All look old that have not renewed since.
                self.health.not_renewed();
            }
            Way::Back => {
                tracing::warn!(%by, "the clock of Redis was set back: what it noted since counts from now on");
            }
        }
        self.set = Some(step);
    }

    /// Brings the notes of all streams to the clock, if that was set. Returns whether it was.
    pub async fn follow(&mut self, link: &mut Link) -> Result<bool, Trouble> {
        let Some(step) = self.set else {
            return Ok(false);
        };
        for source in self.sources.active() {
            let group = &source.surroundings.group;
            loop {
                // With what the request takes on its way.
                let since = ticks().saturating_sub(step.after) + STEP / 2;
                match link.clock_set(&source.keys, group, step.ms(), since).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(Trouble::Refused(refused)) => {
                        tracing::warn!("{refused}");
                        break;
                    }
                    Err(trouble) => return Err(trouble),
                }
            }
        }
        self.set = None;
        Ok(true)
    }
}
