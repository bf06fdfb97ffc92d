//! Text for people: tables, times and values of unknown origin, without colour.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use crate::config::duration;

/// A table without lines. On a terminal that is too narrow only the columns of these names are broken; elsewhere
/// every row is one line.
pub(super) fn table(header: &[&str], breaking: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().copied());
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if !breaking.contains(name) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
}

/// How many columns the terminal has that standard output is; None where it is none.
pub(super) fn width() -> Option<u16> {
    Table::new().width()
}

/// A table's lines, without the spaces at their ends.
pub(super) fn lines(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// A text that does to a terminal nothing but stand there: control characters are written as `\u{1b}`.
pub(super) fn printable(text: &str) -> Printable<'_> {
    Printable(text)
}

pub(super) struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            // The last ones turn the direction of what follows.
            let hostile = c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if hostile {
                write!(f, "{}", c.escape_debug())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// A time in UTC, to the second.
pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A duration in its one or two largest units: `2h 5m`, `340ms`.
pub(super) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = match seconds {
        0 => return format!("{}ms", duration.as_millis()),
        1..60 => 1,
        60..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    duration::format(Duration::from_secs(seconds / unit * unit)).to_string()
}

/// `1 event`, `2 events`.
pub(super) fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        let text = "no \u{1b}[31mstock\r\n\u{9b}2J \u{202e}ä\u{0}";
        assert_eq!(
            printable(text).to_string(),
            r"no \u{1b}[31mstock\r\n\u{9b}2J \u{202e}ä\0"
        );
    }

    #[test]
    fn durations_are_as_rough_as_they_are_long() {
        for (millis, text) in [
            (0, "0ms"),
            (340, "340ms"),
            (59_999, "59s"),
            (125_000, "2m 5s"),
            (7_500_000, "2h 5m"),
            (90_000_000 + 59_000, "1d 1h"),
        ] {
            assert_eq!(rough(Duration::from_millis(millis)), text);
        }
    }
}
