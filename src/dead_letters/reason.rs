//! Why an entry is in the dead letters.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// Why an entry was buried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Its attempts were used up.
    Failed,
    /// Its handler said that no retry mends it.
    Permanent,
    /// It took its workers down.
    Crashed,
    /// It is no event, or its data is not what the handler takes.
    Undecodable,
    /// Nobody handles its type.
    Unhandled,
    /// The server lets no answer with it through.
    TooLarge,
}

impl Reason {
    /// All that there are.
    pub const ALL: [Reason; 6] = [
        Reason::Failed,
        Reason::Permanent,
        Reason::Crashed,
        Reason::Undecodable,
        Reason::Unhandled,
        Reason::TooLarge,
    ];

    /// As a dead letter has it: `failed`, `too_large`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Failed => "failed",
            Reason::Permanent => "permanent",
            Reason::Crashed => "crashed",
            Reason::Undecodable => "undecodable",
            Reason::Unhandled => "unhandled",
            Reason::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|reason| reason.as_str() == text);
        known.ok_or_else(|| {
            let message = format!(
                "{text:?} is no reason to be buried for; there are {}",
                Self::ALL.map(Reason::as_str).join(", ")
            );
            Error::new(ErrorKind::Invalid, message)
        })
    }
}
