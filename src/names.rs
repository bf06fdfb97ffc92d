//! Names that came from outside, as they are shown: a type, an id, a source may be of any length and hold anything, and
//! neither a log nor a terminal may be at their mercy. What is shown is cut; what is kept, and what JSON says, is whole.

use std::fmt::{self, Write};

/// Characters of a name that are shown.
pub(crate) const SHOWN: usize = 120;

/// A name for a line of a log or a table: cut, with how long it is, and with nothing in it that does something to a
/// terminal.
pub(crate) fn shown(name: &str) -> Shown<'_> {
    Shown(name)
}

/// Whether a character does something to a terminal; the last ones turn the direction of what follows.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

pub(crate) struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = SHOWN;
        for c in self.0.chars() {
            if left == 0 {
                return write!(f, "… ({} bytes)", self.0.len());
            }
            left -= 1;
            if is_hostile(c) {
                write!(f, "{}", c.escape_debug())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_and_says_how_long_it_is() {
        let longest = "ä".repeat(SHOWN);
        assert_eq!(shown(&longest).to_string(), longest);
        let longer = format!("{longest}\n");
        assert_eq!(
            shown(&longer).to_string(),
            format!("{longest}… (241 bytes)")
        );
        assert_eq!(shown("\u{1b}[31mred").to_string(), r"\u{1b}[31mred");
    }
}
