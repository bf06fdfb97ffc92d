//! What the fetcher waits for when it has nothing to ask, and what ends a read that waits for entries.

use std::time::{Duration, Instant};

use crate::reconnect::sleep_until;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::signals::Signals;

/// How often parked entries are looked for while there is always something new.
const BUSY_POLL: Duration = Duration::from_millis(100);

/// Waits until more may be held.
pub(crate) async fn until_there_is_room(signals: &Signals, inflight: &Inflight) {
    if inflight.succeeded() > 0 {
        inflight.ack_now();
    }
    tokio::select! {
        () = inflight.freed() => {}
        () = signals.nudged() => {}
        () = signals.stopped() => {}
        () = tokio::time::sleep(BUSY_POLL) => {}
    }
}

/// Waits until more of some stream may come, but no longer than this, and not beyond the next look.
pub(crate) async fn until_there_may_be_more(
    signals: &Signals,
    inflight: &Inflight,
    wait: Duration,
    next_look: Instant,
) {
    let until = (Instant::now() + wait).min(next_look);
    let due = signals.next_due();
    tokio::select! {
        () = inflight.freed() => {}
        () = signals.nudged() => {}
        () = signals.due_sooner() => {}
        () = signals.stopped() => {}
        () = sleep_until(due), if due.is_some() => {}
        () = sleep_until(Some(until)) => {}
    }
}

/// Waits for a reason to end a read that blocks; the next look is one, if it is given.
pub(crate) async fn until_something_else(signals: &Signals, next_look: Option<Instant>) {
    loop {
        // What was parked here while the read blocked may fall due before the read ends by itself.
        let due = signals.next_due();
        tokio::select! {
            () = signals.stopped() => return,
            () = signals.nudged() => return,
            () = sleep_until(due), if due.is_some() => return,
            () = sleep_until(next_look) => return,
            () = signals.due_sooner() => {}
        }
    }
}

/// Whether something is to be done that a read must not keep waiting.
pub(crate) fn has_else_to_do(signals: &Signals, next_look: Instant) -> bool {
    let next = signals
        .next_due()
        .map_or(next_look, |due| due.min(next_look));
    signals.is_wanted() || next <= Instant::now()
}
