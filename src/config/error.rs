//! What is wrong with a configuration: all of it at once, each problem with its place.

use std::fmt;
use std::path::PathBuf;

/// A configuration that was refused, with everything that is wrong with it.
///
/// Shown as one line a problem; no value of a secret is among what is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// `problems` must not be empty.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        problems.dedup();
        Self { problems }
    }

    /// Everything that is wrong: first the file from top to bottom, then the environment, then the
    /// command line.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [problem] = self.problems.as_slice() {
            return write!(f, "{problem}");
        }
        write!(f, "{} problems in the configuration:", self.problems.len())?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    pub(super) kind: ProblemKind,
    pub(super) origin: Origin,
    pub(super) key: Option<String>,
    pub(super) message: String,
}

impl Problem {
    /// What sort of thing is wrong.
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// Where the refused value came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The setting in question as a dotted key, `worker.lease`; none where the trouble is not with
    /// one setting.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What is wrong, and what would be right.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Code {
            write!(f, "{}: ", self.origin)?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// The sorts of [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A file that cannot be read.
    Unreadable,
    /// Text that is not TOML.
    Syntax,
    /// A key or a variable that names no setting.
    UnknownKey,
    /// A value of another type than the setting's.
    WrongType,
    /// A value that the setting cannot have, or cannot have together with the others.
    Invalid,
    /// A file with a secret in it that everyone can read.
    Exposed,
}

/// Where a value came from; ordered as the sources are, those that win last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Origin {
    /// A default, or settings built by a program.
    Code,
    /// A text without a name.
    Text(Position),
    /// A file; without a position where it could not be read.
    File(PathBuf, Option<Position>),
    /// An environment variable.
    Variable(String),
    /// A flag.
    CommandLine,
}

impl Origin {
    /// Which source this is, whatever the place in it; a higher one wins.
    pub(super) fn layer(&self) -> u8 {
        match self {
            Self::Code => 0,
            Self::Text(_) | Self::File(..) => 1,
            Self::Variable(_) => 2,
            Self::CommandLine => 3,
        }
    }

    /// Whether the values of this source are bare text whose type is that of the setting.
    pub(super) fn is_untyped(&self) -> bool {
        self.layer() > 1
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code => f.write_str("in the program"),
            Self::Text(at) => write!(f, "line {}, column {}", at.line, at.column),
            Self::File(path, Some(at)) => {
                write!(f, "{}:{}:{}", path.display(), at.line, at.column)
            }
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Position {
    /// The line, the first one being 1.
    pub line: usize,
    /// The column in characters, the first one being 1.
    pub column: usize,
}
