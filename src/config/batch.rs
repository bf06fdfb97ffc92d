//! `batch` of a handler: how many events a batch handler is given at once, and how long is waited for more.

use std::time::Duration;

use serde::Serialize;

use super::findings::Findings;
use super::setters::setters;
use super::size::ByteSize;
use super::tree::KeyPath;
use crate::duration;

/// Most events at once: one step acknowledges all of them.
pub(crate) const MOST_EVENTS: usize = 1_000;
/// Most bytes: half of what a worker holds.
pub(crate) const MOST_BYTES: u64 = 8 << 20;

/// `batch` in `[handlers."order.created"]`: what is unset is as the handler was registered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct BatchSettings {
    /// Most events at once, 1,000 at most.
    pub size: Option<usize>,
    /// Most bytes of them. An event that is larger goes alone.
    pub bytes: Option<ByteSize>,
    /// How long the first one waits for others. Zero takes what is there.
    #[serde(serialize_with = "duration::serialize_option")]
    pub wait: Option<Duration>,
}

setters!(BatchSettings {
    some size: usize,
    some bytes: ByteSize,
    some wait: Duration,
});

/// What holds for one batch handler, everything said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchLimits {
    pub size: usize,
    pub bytes: ByteSize,
    pub wait: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        BatchLimits {
            size: 100,
            bytes: ByteSize::new(1 << 20),
            wait: Duration::from_millis(200),
        }
    }
}

impl BatchSettings {
    /// Whether it says nothing.
    pub(crate) fn is_unset(&self) -> bool {
        *self == BatchSettings::default()
    }

    /// What holds for a handler that was registered with these.
    pub(crate) fn over(&self, registered: BatchLimits) -> BatchLimits {
        BatchLimits {
            size: self.size.unwrap_or(registered.size),
            bytes: self.bytes.unwrap_or(registered.bytes),
            wait: self.wait.unwrap_or(registered.wait),
        }
    }
}

impl BatchLimits {
    /// What of it can't work at a worker of such a lease that holds so many entries at most: which limit, and why.
    pub(crate) fn wrong(&self, lease: Duration, prefetch: usize) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        if self.size == 0 {
            let why = "0 is too few; at least 1, which is a batch of one event";
            wrong.push(("size", why.to_owned()));
        } else if self.size > MOST_EVENTS {
            let why = format!("{} is too many; at most {MOST_EVENTS}", self.size);
            wrong.push(("size", why));
        } else if self.size > prefetch {
            let size = self.size;
            let why = format!(
                "{size} events never come together where worker.prefetch is {prefetch}; raise that, or ask for fewer"
            );
            wrong.push(("size", why));
        }
        if self.bytes.bytes() == 0 {
            wrong.push(("bytes", "0 bytes hold no event; write \"1MiB\"".to_owned()));
        } else if self.bytes.bytes() > MOST_BYTES {
            let (bytes, most) = (self.bytes, ByteSize::new(MOST_BYTES));
            let why = format!("{bytes} is too much; at most {most}");
            wrong.push(("bytes", why));
        }
        if self.wait >= lease {
            let (wait, lease) = (duration::format(self.wait), duration::format(lease));
            let why = format!(
                "{wait} is as long as worker.lease, {lease}, or longer; what waits is to be shorter than that"
            );
            wrong.push(("wait", why));
        }
        wrong
    }
}

/// Notes what can't work of what a file says.
pub(super) fn check(
    path: &KeyPath,
    said: BatchSettings,
    (lease, prefetch): (Duration, usize),
    findings: &mut Findings,
) {
    let path = path.key("batch");
    // What is not said here is looked at where it is known: with the registry.
    let least = BatchLimits {
        size: 1,
        bytes: ByteSize::new(1),
        wait: Duration::ZERO,
    };
    for (key, why) in said.over(least).wrong(lease, prefetch) {
        findings.add(path.key(key), why);
    }
}
