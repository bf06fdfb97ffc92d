//! What is noted of settings that cannot work.

use std::time::Duration;

use super::tree::KeyPath;
use crate::duration;

/// A setting that cannot work.
pub(super) struct Finding {
    pub(super) path: KeyPath,
    /// The other settings it cannot work with.
    pub(super) with: Vec<KeyPath>,
    /// What is wrong, after the setting's name.
    pub(super) message: String,
}

/// What was found so far.
#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, path: KeyPath, message: impl Into<String>) {
        self.add_with(path, Vec::new(), message);
    }

    pub(super) fn add_with(
        &mut self,
        path: KeyPath,
        with: Vec<KeyPath>,
        message: impl Into<String>,
    ) {
        self.0.push(Finding {
            path,
            with,
            message: message.into(),
        });
    }

    pub(super) fn count(&mut self, path: KeyPath, value: usize, most: usize) {
        if value < 1 {
            self.add(path, format!("{value} is too few; at least 1"));
        } else if value > most {
            self.add(path, format!("{value} is too many; at most {most}"));
        }
    }

    pub(super) fn attempts(&mut self, path: KeyPath, value: u32) {
        if value == 0 {
            self.add(
                path,
                "0 attempts would bury every entry unseen; write 1 for no retries",
            );
        }
    }

    pub(super) fn duration(
        &mut self,
        path: KeyPath,
        value: Duration,
        least: Duration,
        most: Duration,
    ) {
        let (what, bound) = if value < least {
            ("is too short; at least", least)
        } else if value > most {
            ("is too long; at most", most)
        } else {
            return;
        };
        let (value, bound) = (duration::format(value), duration::format(bound));
        self.add(path, format!("{value} {what} {bound}"));
    }

    pub(super) fn text(&mut self, path: KeyPath, value: Option<&str>) {
        if value == Some("") {
            self.add(path, "is empty; leave it out where there is none");
        }
    }
}
