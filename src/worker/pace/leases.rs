//! When leases are renewed.

use std::time::Duration;

/// From one renewal to the next.
pub fn every(lease: Duration) -> Duration {
    lease / 3
}
