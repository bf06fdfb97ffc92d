//! Handlers that keep their thread for longer than their time: nothing can cancel them meanwhile, and nothing else runs
//! there. What helps against that is told once for each type.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use crate::duration;
use crate::sync::lock;

/// The types that were told of, in this process.
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A handler of this type has kept its thread for so long, and had so long in all.
#[cold]
pub(crate) fn kept_its_thread(event_type: &str, kept: Duration, timeout: Duration) {
    let mut told = lock(&TOLD);
    if !told.insert(event_type.to_owned()) {
        return;
    }
    let (kept, timeout) = (duration::rounded(kept), duration::rounded(timeout));
    tracing::warn!(
        event_type,
        %kept,
        %timeout,
        "the handler blocks its thread for longer than its timeout: it can't be cancelled, and nothing else runs on \
         that thread meanwhile. Call what blocks or computes through tokio::task::spawn_blocking (told once)"
    );
}
