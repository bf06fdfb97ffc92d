//! What the handlers have done. One for the process, since a process measures one peer once.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::order::Order;

pub static TALLY: Tally = Tally {
    handled: AtomicU64::new(0),
    amount: AtomicU64::new(0),
    expected: AtomicU64::new(u64::MAX),
    all: Notify::const_new(),
};

pub struct Tally {
    handled: AtomicU64,
    amount: AtomicU64,
    expected: AtomicU64,
    all: Notify,
}

impl Tally {
    pub fn expect(&self, events: u64) {
        self.expected.store(events, Ordering::Relaxed);
    }

    /// The handler: every peer calls it once an event.
    pub fn handle(&self, order: &Order) {
        self.amount.fetch_add(order.amount, Ordering::Relaxed);
        self.add(1);
    }

    /// What came without being handled: the bare loop has no handler.
    pub fn add(&self, events: u64) {
        let before = self.handled.fetch_add(events, Ordering::Relaxed);
        let expected = self.expected.load(Ordering::Relaxed);
        if (before..before + events).contains(&(expected - 1)) {
            self.all.notify_one();
        }
    }

    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    pub fn amount(&self) -> u64 {
        self.amount.load(Ordering::Relaxed)
    }

    /// Ends when all that is expected has been handled.
    pub async fn all(&self) {
        self.all.notified().await;
    }
}
