//! The last seconds: pulses are followed for as long as somebody looks, by one connection for all of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::past::Past;
use crate::admin::HistorySlot;
use crate::pulse::live::{Live, Recent};
use crate::sync::lock;

/// So many seconds are shown.
const SHOWN: usize = 120;
/// Whoever has not asked for so long does not look any more.
const LOOKS: Duration = Duration::from_secs(10);

/// The last seconds of a group.
pub(super) struct Seconds {
    live: Arc<Live>,
    state: Mutex<State>,
}

struct State {
    recent: Recent,
    asked: Instant,
    is_followed: bool,
}

impl Seconds {
    pub fn new(live: Arc<Live>) -> Self {
        Seconds {
            live,
            state: Mutex::new(State {
                recent: Recent::new(SHOWN),
                asked: Instant::now(),
                is_followed: false,
            }),
        }
    }

    /// Somebody looks. Has to be called within a runtime.
    pub fn look(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.asked = Instant::now();
        if !state.is_followed {
            state.is_followed = true;
            tokio::spawn(Arc::clone(self).follow());
        }
    }

    /// What came in the last seconds; somebody looks.
    pub fn past(self: &Arc<Self>) -> Past {
        self.look();
        let state = lock(&self.state);
        let seconds = state.recent.seconds().cloned().map(HistorySlot::of);
        let slots: Vec<HistorySlot> = seconds.collect();
        let second = Duration::from_secs(1);
        Past {
            resolution: second,
            // By the server's clock, as far as it is known.
            now: slots
                .last()
                .map_or_else(SystemTime::now, |last| last.at + second),
            slots,
            deploys: Vec::new(),
        }
    }

    async fn follow(self: Arc<Self>) {
        let mut watching = self.live.watch();
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                came = watching.next() => lock(&self.state).recent.take(&came),
                _ = every.tick() => {
                    let mut state = lock(&self.state);
                    if state.asked.elapsed() > LOOKS {
                        state.is_followed = false;
                        return;
                    }
                }
            }
        }
    }
}
