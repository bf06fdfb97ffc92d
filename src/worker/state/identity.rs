//! Who this worker is: nothing of it changes while it runs.

use std::time::Duration;

use crate::config::Settings;

/// The group a worker is in, its names there, and how long it may hold an entry without a renewal.
pub(crate) struct Identity {
    pub group: String,
    /// This worker's consumer, by which others know it.
    pub name: String,
    /// Its consumer for entries that may kill their worker.
    alone: String,
    pub lease: Duration,
}

impl Identity {
    pub fn new(settings: &Settings) -> Self {
        let worker = &settings.worker;
        let name = consumer_name(worker.lease);
        Identity {
            group: worker.group.clone(),
            alone: format!("{name}!"),
            name,
            lease: worker.lease,
        }
    }

    /// The consumer that entries are pending with: those that run alone, or all others.
    #[inline]
    pub fn consumer(&self, alone: bool) -> &str {
        match alone {
            true => &self.alone,
            false => &self.name,
        }
    }

    /// Whether a consumer is one of this worker's.
    pub fn is_me(&self, consumer: &str) -> bool {
        consumer == self.name || consumer == self.alone
    }
}

/// `sh<protocol>-<lease in ms>-<host>-<pid>-<random>`: unlike any other's, and it tells the lease to those who may
/// have to reclaim what it holds.
fn consumer_name(lease: Duration) -> String {
    let host: String = gethostname::gethostname()
        .to_string_lossy()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(64)
        .collect();
    let random: u64 = fastrand::u64(..);
    format!(
        "sh{}-{}-{host}-{}-{random:016x}",
        crate::stream::PROTOCOL,
        lease.as_millis(),
        std::process::id()
    )
}
