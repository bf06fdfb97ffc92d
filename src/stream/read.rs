//! Delivery: the blocking read of new entries, over all of a worker's streams at once.

use std::time::Duration;

/// One read of new entries.
pub(crate) struct Read<'a> {
    pub group: &'a str,
    pub consumer: &'a str,
    /// At most so many entries of each stream.
    pub count: usize,
    /// How long to wait if there is none; None does not wait.
    pub block: Option<Duration>,
    pub streams: &'a [&'a str],
}

impl Read<'_> {
    pub(super) fn command(&self) -> redis::Cmd {
        let mut cmd = redis::cmd("XREADGROUP");
        cmd.arg("GROUP")
            .arg(self.group)
            .arg(self.consumer)
            .arg("COUNT")
            .arg(self.count);
        if let Some(block) = self.block {
            cmd.arg("BLOCK").arg(block.as_millis().max(1) as u64);
        }
        cmd.arg("STREAMS").arg(self.streams);
        for _ in self.streams {
            cmd.arg(">");
        }
        cmd
    }
}
