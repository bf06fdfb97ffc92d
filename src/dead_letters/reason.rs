//! Why an entry is in the dead letters.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

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
    /// Its own deadline had passed before a handler could start.
    Expired,
}

impl Reason {
    /// All that there are.
    pub const ALL: [Reason; 7] = [
        Reason::Failed,
        Reason::Permanent,
        Reason::Crashed,
        Reason::Undecodable,
        Reason::Unhandled,
        Reason::TooLarge,
        Reason::Expired,
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
            Reason::Expired => "expired",
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

/// What a dead letter says it was buried for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BuriedFor {
    /// One that this release knows.
    Known(Reason),
    /// What a newer release has written, or somebody by hand.
    Other(Box<str>),
}

impl BuriedFor {
    /// As the dead letter has it.
    pub fn as_str(&self) -> &str {
        match self {
            BuriedFor::Known(reason) => reason.as_str(),
            BuriedFor::Other(text) => text,
        }
    }

    /// The reason, if this release knows it.
    pub fn known(&self) -> Option<Reason> {
        match self {
            BuriedFor::Known(reason) => Some(*reason),
            BuriedFor::Other(_) => None,
        }
    }
}

impl From<&str> for BuriedFor {
    fn from(text: &str) -> Self {
        match text.parse() {
            Ok(reason) => BuriedFor::Known(reason),
            Err(_) => BuriedFor::Other(text.into()),
        }
    }
}

impl From<Reason> for BuriedFor {
    fn from(reason: Reason) -> Self {
        BuriedFor::Known(reason)
    }
}

impl PartialEq<Reason> for BuriedFor {
    fn eq(&self, other: &Reason) -> bool {
        self.known() == Some(*other)
    }
}

/// By its text.
impl Ord for BuriedFor {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for BuriedFor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for BuriedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for BuriedFor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_told_as_it_is_whether_it_is_known_or_not() {
        for reason in Reason::ALL {
            let told = BuriedFor::from(reason.as_str());
            assert_eq!((&told, told.as_str()), (&reason.into(), reason.as_str()));
            assert!(told == reason);
        }
        let newer = BuriedFor::from("eaten");
        assert_eq!(
            (newer.known(), newer.to_string()),
            (None, "eaten".to_owned())
        );
        assert!(newer < BuriedFor::from("failed"));
        let json = serde_json::to_string(&[newer, Reason::TooLarge.into()]);
        assert_eq!(json.expect("JSON"), r#"["eaten","too_large"]"#);
    }
}
