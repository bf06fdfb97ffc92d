//! What is paused of a stream for the whole group: all of it, or single handlers. Known from Redis, where it survives
//! restarts; looked for whenever parked entries are.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::sync::lock;

const STREAM: u8 = 1;
const HANDLERS: u8 = 2;
/// Entries of the stream, and of its replayed ones, are to be cancelled.
const CANCELS: u8 = 4;
const CANCELS_AGAIN: u8 = 8;

/// What is paused of one stream.
#[derive(Default)]
pub(crate) struct Pauses {
    flags: AtomicU8,
    handlers: Mutex<BTreeSet<String>>,
}

impl Pauses {
    /// The whole stream is. Asked for every entry: costs one load.
    pub fn stream(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & STREAM != 0
    }

    /// Anything is.
    pub fn any(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (STREAM | HANDLERS) != 0
    }

    /// The whole stream is, or entries are to be cancelled. Asked for every entry: costs one load.
    #[inline]
    pub fn stream_or_entries(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (STREAM | CANCELS | CANCELS_AGAIN) != 0
    }

    /// Entries of the stream, or of its replayed ones, are to be cancelled.
    pub fn entries(&self, are_again: bool) -> bool {
        let flag = if are_again { CANCELS_AGAIN } else { CANCELS };
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Whether there are any.
    pub fn set_entries(&self, are_again: bool, any: bool) {
        let flag = if are_again { CANCELS_AGAIN } else { CANCELS };
        match any {
            true => self.flags.fetch_or(flag, Ordering::SeqCst),
            false => self.flags.fetch_and(!flag, Ordering::SeqCst),
        };
    }

    /// The handler of this type is. Costs one load where none is.
    pub fn handler(&self, event_type: &str) -> bool {
        self.flags.load(Ordering::Relaxed) & HANDLERS != 0
            && lock(&self.handlers).contains(event_type)
    }

    /// What Redis says. Answers what is to be told of it, if anything has changed.
    pub fn learn(&self, stream: bool, handlers: BTreeSet<String>) -> Option<String> {
        let flags =
            if stream { STREAM } else { 0 } | if handlers.is_empty() { 0 } else { HANDLERS };
        let mut known = lock(&self.handlers);
        let paused = STREAM | HANDLERS;
        if self.flags.load(Ordering::Relaxed) & paused == flags && *known == handlers {
            return None;
        }
        *known = handlers;
        let learn = |old| Some(old & !paused | flags);
        let _ = self
            .flags
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, learn);
        let list = known.iter().map(String::as_str).collect::<Vec<_>>();
        Some(match (stream, list.is_empty()) {
            (true, _) => "paused: nothing more of it is handled until it is resumed".to_owned(),
            (false, false) => format!("paused for {}", list.join(", ")),
            (false, true) => "resumed".to_owned(),
        })
    }
}
