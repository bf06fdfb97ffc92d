//! What time it is, for what goes by time in this process and not in Redis: breakers and rates. In a test it is the test's
//! to say.

use std::time::Instant;

/// The time.
#[cfg(not(feature = "testing"))]
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time: tokio's, which may stand still, and as much later as it was [set ahead](set_ahead) on this thread.
#[cfg(feature = "testing")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std() + AHEAD.get()
}

/// On this thread it is so much later than tokio has it.
#[cfg(feature = "testing")]
#[allow(dead_code)]
pub(crate) fn set_ahead(ahead: std::time::Duration) {
    AHEAD.set(ahead);
}

#[cfg(feature = "testing")]
thread_local! {
    static AHEAD: std::cell::Cell<std::time::Duration> = const { std::cell::Cell::new(std::time::Duration::ZERO) };
}
