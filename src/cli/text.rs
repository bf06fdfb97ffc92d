//! Text for people: tables, times and values of unknown origin, without colour.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use crate::duration;
use crate::names::is_hostile;
use crate::rfc3339;

/// Columns of a terminal that a cell needs which may be broken.
const BROKEN: usize = 24;

/// A table without lines: every row is one line, but on a terminal cells of the `breaking` columns may take several,
/// and where it is too narrow for that every row is a block.
pub fn table(header: &[&str], breaking: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().copied())
        .add_rows(rows);
    if let Some(width) = table.width() {
        return for_terminal(table, width.into(), header, breaking, rows);
    }
    laid_out(table)
}

fn for_terminal(
    mut table: Table,
    width: usize,
    header: &[&str],
    breaking: &[&str],
    rows: &[Vec<String>],
) -> String {
    let natural = table.column_max_content_widths();
    let mut needed = 0;
    for ((column, name), natural) in table.column_iter_mut().zip(header).zip(natural) {
        if breaking.contains(name) {
            needed += usize::from(natural).min(BROKEN) + 2;
        } else {
            needed += usize::from(natural) + 2;
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    if needed > width {
        blocks(header, rows)
    } else {
        laid_out(table)
    }
}

/// The table's lines, without the spaces at their ends.
fn laid_out(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// Of every row the first cell, and below it the others with their names.
fn blocks(header: &[&str], rows: &[Vec<String>]) -> String {
    let longest = header.iter().map(|name| name.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for row in rows {
        for (at, (name, cell)) in header.iter().zip(row).enumerate() {
            match at {
                0 => lines.push(cell.clone()),
                _ if cell.is_empty() => {}
                _ => lines.push(format!("  {:<longest$}  {cell}", name.to_lowercase())),
            }
        }
    }
    lines.join("\n")
}

/// A text that does to a terminal nothing but stand there: control characters are written as `\u{1b}`.
pub(super) fn printable(text: &str) -> Printable<'_> {
    Printable(text)
}

/// The same of JSON, which stays JSON: its control characters are written as `\u001b`.
pub(super) fn printable_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_hostile(c) {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}

pub(super) struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_hostile(c) {
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
    rfc3339::seconds(time)
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

/// `user@host`, as far as they are known.
pub(super) fn whoami() -> String {
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| "unknown".to_owned());
    let host = gethostname::gethostname();
    format!("{user}@{}", host.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_blocks_in_place_of_snippets() {
        let header = ["ID", "AT", "ERROR"];
        let rows = [vec![
            "1-0".to_owned(),
            "noon".to_owned(),
            "no stock ".repeat(6),
        ]];
        let on = |width: u16| {
            let mut table = Table::new();
            table
                .load_preset(presets::NOTHING)
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_header(header)
                .add_rows(&rows)
                .set_width(width);
            for_terminal(table, width.into(), &header, &["ERROR"], &rows)
        };
        insta::assert_snapshot!([on(80), on(40), on(30)].join("\n\n"), @r#"
        ID   AT    ERROR
        1-0  noon  no stock no stock no stock no stock no stock no stock

        ID   AT    ERROR
        1-0  noon  no stock no stock no stock
                   no stock no stock no stock

        1-0
          at     noon
          error  no stock no stock no stock no stock no stock no stock
        "#);
    }

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        let text = "no \u{1b}[31mstock\r\n\u{9b}2J \u{202e}ä\u{0}";
        assert_eq!(
            printable(text).to_string(),
            r"no \u{1b}[31mstock\r\n\u{9b}2J \u{202e}ä\0"
        );
    }

    #[test]
    fn json_whose_control_characters_are_shown_is_the_same_json() {
        let value = serde_json::json!({ "a": "\u{1b}[31m\u{9b}2J \u{202e}ä\u{7f}\n" });
        let text = printable_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.contains(|c| c != '\n' && is_hostile(c)), "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
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
