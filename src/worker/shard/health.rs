//! Whether the server has answered renewals in time of late.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// How renewals have been answered.
pub(crate) struct ServerHealth {
    lease: Duration,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    /// Since when every renewal has been answered in time.
    since: Option<Instant>,
    last: Option<Instant>,
}

impl ServerHealth {
    pub fn new(lease: Duration) -> Self {
        ServerHealth {
            lease,
            answers: Mutex::default(),
        }
    }

    /// A renewal sent at `sent` was answered.
    pub fn renewed(&self, sent: Instant, in_time: bool) {
        let mut answers = lock(&self.answers);
        if !in_time || answers.since.is_none() {
            answers.since = Some(sent);
        }
        answers.last = Some(sent);
    }

    /// A renewal got no answer.
    pub fn not_renewed(&self) {
        lock(&self.answers).since = None;
    }

    /// When the last renewal was sent that was answered.
    pub fn last_answer(&self) -> Option<Instant> {
        lock(&self.answers).last
    }

    /// Whether renewals have been answered in time for a whole lease: only then do the ages of others' entries mean
    /// that they, and not Redis, were away.
    pub fn is_healthy(&self) -> bool {
        let answers = lock(&self.answers);
        answers
            .since
            .is_some_and(|since| since.elapsed() >= self.lease)
            && answers
                .last
                .is_some_and(|last| last.elapsed() < self.lease * 2 / 3)
    }
}
