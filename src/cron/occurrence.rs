//! One time at which a schedule holds.

use super::calendar::{self, Local};

/// How long a local time is as text.
pub(super) const TIME: usize = "2026-03-29T02:30:00".len();

/// One occurrence. Local times that a clock leaves out happen together, and are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Occurrence {
    /// Seconds since 1970.
    pub instant: i64,
    /// What it is known by: its first local time and its zone, as `2026-03-29T02:30:00[Europe/Berlin]`.
    pub name: String,
    /// The names of the others that happen at the same instant.
    pub also: Vec<String>,
    /// The last of its local times that happen once each.
    pub behind: Option<Local>,
}

/// What an occurrence is to come after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct After {
    /// Seconds since 1970.
    pub instant: i64,
    /// The last local time, of those that happen once each, that has had its turn: it will not have another, whatever the
    /// rules of its zone have become.
    pub behind: Option<Local>,
}

impl After {
    /// After this instant, whatever was before.
    pub fn instant(instant: i64) -> Self {
        After {
            instant,
            behind: None,
        }
    }
}

impl Occurrence {
    /// What comes next is to come after this one.
    pub fn as_before(&self, before: After) -> After {
        After {
            instant: self.instant,
            behind: self.behind.max(before.behind),
        }
    }

    /// The names of all that happen at its instant.
    pub fn names(&self) -> String {
        let mut names = self.name.clone();
        for also in &self.also {
            names.push(',');
            names.push_str(also);
        }
        names
    }
}

/// What an occurrence at this local time is called.
pub(super) fn name(local: Local, again: Option<i64>, zone: &str) -> String {
    let offset = again.map(|offset| {
        let (sign, ahead) = (if offset < 0 { '-' } else { '+' }, offset.abs());
        format!("{sign}{:02}:{:02}", ahead / 3600, ahead / 60 % 60)
    });
    format!(
        "{}{}[{zone}]",
        calendar::text(local),
        offset.unwrap_or_default()
    )
}
