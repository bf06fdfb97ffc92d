//! How what a dead worker held comes before what this worker holds and has not started.
//!
//! An entry is taken over only where a slot is free for it, for it must not wait here if another worker could run it. But
//! lanes that have entries take every slot as soon as it is free. So as long as something is to be taken over, a lane
//! that has waited for a slot offers it first; the fetcher answers, with an entry that comes first or without.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::signals::Signals;
use super::slots::Slots;

/// How long a lane waits for an answer to its offer: longer than any but a server in trouble takes.
const ANSWER: Duration = Duration::from_millis(250);
/// How long nobody seeks a slot after one was offered: what has come for it is to have it first.
const PAUSE: Duration = Duration::from_millis(5);

/// What lanes and the fetcher tell each other.
#[derive(Default)]
pub(crate) struct Precedence {
    wanted: AtomicBool,
    offered: AtomicUsize,
    /// Slots that are offered and not free: see [`seek`](Self::seek).
    kept: AtomicUsize,
    answered: Notify,
}

impl Precedence {
    /// Whether something is to be taken over that has found no slot.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// A lane has left the slot that it had waited for, and waits for an answer.
    pub async fn offer(&self, signals: &Signals) {
        let answered = self.answered.notified();
        tokio::pin!(answered);
        answered.as_mut().enable();
        self.offered.fetch_add(1, Ordering::SeqCst);
        signals.nudge();
        let _ = tokio::time::timeout(ANSWER, answered).await;
    }

    /// Takes slots for what is to be taken over, and offers them, until it is dropped: where several shards share the slots,
    /// the lanes that wait for them may be others'.
    pub async fn seek(&self, slots: &Slots, signals: &Signals) {
        loop {
            let answered = self.answered.notified();
            tokio::pin!(answered);
            answered.as_mut().enable();
            if !self.is_wanted() {
                answered.await;
                continue;
            }
            let Some(permit) = slots.take().await else {
                return;
            };
            if self.is_wanted() {
                self.kept.fetch_add(1, Ordering::SeqCst);
                self.offer(signals).await;
                self.kept.fetch_sub(1, Ordering::SeqCst);
            }
            drop(permit);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// How many slots are kept for what is to be taken over.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::SeqCst)
    }

    /// How many slots have been offered since this was asked last.
    pub fn take_offered(&self) -> usize {
        self.offered.swap(0, Ordering::SeqCst)
    }

    /// What was offered has been taken or left; `wanted` if there is more to be taken over.
    pub fn answer(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
        self.answered.notify_waiters();
    }
}
