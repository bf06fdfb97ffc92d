//! Types of events whose entries are logged one by one, because an operator asks for it. It is of the process, as its log is.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sync::lock;

static ANY: AtomicBool = AtomicBool::new(false);
static TYPES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Whether there are any. Asked for every entry: costs one load.
#[inline]
pub(crate) fn any() -> bool {
    ANY.load(Ordering::Relaxed)
}

/// Whether this one is among them.
pub(crate) fn is(event_type: &str) -> bool {
    any() && lock(&TYPES).contains(event_type)
}

/// From now on it is these.
pub(crate) fn set(types: &[String]) {
    let mut known = lock(&TYPES);
    *known = types.iter().cloned().collect();
    ANY.store(!known.is_empty(), Ordering::Relaxed);
}
