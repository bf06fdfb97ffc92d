//! The command line that does what a form does, to be shown beside it and to stand in the audit.

use std::fmt;

use crate::called;

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandLine(Vec<String>);

impl CommandLine {
    /// This program with these arguments.
    pub fn new<S: Into<String>>(arguments: impl IntoIterator<Item = S>) -> Self {
        CommandLine(arguments.into_iter().map(Into::into).collect())
    }

    /// The same with these besides.
    pub fn and<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.0.extend(arguments.into_iter().map(Into::into));
        self
    }
}

/// As a shell takes it.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(called::program())?;
        for argument in &self.0 {
            f.write_str(" ")?;
            if is_plain(argument) {
                f.write_str(argument)?;
            } else {
                write!(f, "'{}'", argument.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

fn is_plain(argument: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,%+@".contains(c);
    !argument.is_empty() && argument.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_it_as_it_is_meant() {
        let line = CommandLine::new(["pause", "orders"]).and(["--by", "it's me; rm -rf /", ""]);
        assert_eq!(
            line.to_string(),
            r"streamhand pause orders --by 'it'\''s me; rm -rf /' ''"
        );
    }
}
