//! Tables in Markdown, aligned so that they can be read as they are.

/// A table. Columns of numbers stand to the right, and those without anything in them are left out.
pub fn text<const N: usize>(header: &[&str; N], rows: &[[String; N]]) -> String {
    let filled = |column: &usize| rows.iter().any(|row| !row[*column].is_empty());
    let columns: Vec<Column> = (0..N)
        .filter(filled)
        .map(|column| Column::of(column, header[column], rows))
        .collect();
    let line = |cell: &dyn Fn(&Column) -> String| {
        let cells: Vec<String> = columns.iter().map(cell).collect();
        format!("|{}|", cells.join("|"))
    };
    let mut lines = vec![
        line(&|column| column.aligned(header[column.at])),
        line(&|column| {
            let dashes = "-".repeat(column.width + 1);
            if column.right {
                dashes + ":"
            } else {
                dashes + "-"
            }
        }),
    ];
    lines.extend(
        rows.iter()
            .map(|row| line(&|column| column.aligned(&row[column.at]))),
    );
    lines.join("\n")
}

struct Column {
    at: usize,
    width: usize,
    right: bool,
}

impl Column {
    fn of<const N: usize>(at: usize, header: &str, rows: &[[String; N]]) -> Self {
        let cells = || {
            rows.iter()
                .map(|row| &row[at])
                .filter(|cell| !cell.is_empty())
        };
        let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
        let numeric =
            |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c));
        Column {
            at,
            width: width.max(header.chars().count()).max(3),
            right: cells().all(numeric),
        }
    }

    fn aligned(&self, cell: &str) -> String {
        let padding = " ".repeat(self.width - cell.chars().count());
        if self.right {
            format!(" {padding}{cell} ")
        } else {
            format!(" {cell}{padding} ")
        }
    }
}

/// A number with its thousands parted: `1,234,567`.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut parted = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && parted != "-" {
            parted.push(',');
        }
        parted.push(digit);
    }
    parted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_markdown_and_aligned() {
        let row = |name: &str, figure: &str| [name.to_owned(), String::new(), figure.to_owned()];
        let rows = [row("bare", "1.5"), row("a longer one", "12.25")];
        let wanted = "\
| way          | figure |
|--------------|-------:|
| bare         |    1.5 |
| a longer one |  12.25 |";
        assert_eq!(text(&["way", "nothing", "figure"], &rows), wanted);
    }

    #[test]
    fn thousands_are_parted() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(thousands(-123_456.0), "-123,456");
    }
}
