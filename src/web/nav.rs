//! The menu.

/// Its entries: path and title.
pub(super) const ENTRIES: &[(&str, &str)] = &[("/", "Now")];
