//! Streams of other slots that handlers have just emitted to: the relay is told, so that it need not look for them.

use std::collections::BTreeSet;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::sync::lock;

/// Of one stream.
#[derive(Default)]
pub(crate) struct Emits {
    targets: Mutex<BTreeSet<String>>,
    more: Notify,
}

impl Emits {
    /// Something waits for these.
    pub fn add<'a>(&self, targets: impl Iterator<Item = &'a str>) {
        let mut known = lock(&self.targets);
        let before = known.len();
        for target in targets {
            if !known.contains(target) {
                known.insert(target.to_owned());
            }
        }
        if known.len() > before {
            self.more.notify_one();
        }
    }

    /// Waits until something does.
    pub fn more(&self) -> Notified<'_> {
        self.more.notified()
    }

    pub fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut lock(&self.targets))
    }
}
