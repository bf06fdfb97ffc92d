//! What is kept: `"acked"`, an age such as `"7d"`, or a number such as `"1000000"`.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use toml::Value;

use super::error::ProblemKind;
use super::value::{Given, Refusal, Setting, type_name};
use crate::duration;

/// What a stream is trimmed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// `"acked"`: what every group has settled goes.
    Acked,
    /// Of that, what is older or more than this.
    Beyond(Keep),
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// `"7d"`: what is not older.
    For(Duration),
    /// `"1000000"`: the last so many.
    Last(u64),
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Retention::Acked => f.write_str("acked"),
            Retention::Beyond(keep) => keep.fmt(f),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keep::For(age) => duration::format(*age).fmt(f),
            Keep::Last(count) => count.fmt(f),
        }
    }
}

impl Serialize for Retention {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Setting for Retention {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        const EXPECTED: &str = "\"acked\", an age as in \"7d\", or a number as in \"1000000\"";
        match text(given, EXPECTED)?.trim() {
            "acked" => Ok(Retention::Acked),
            other => keep(other, EXPECTED).map(Retention::Beyond),
        }
    }
}

impl Setting for Keep {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        const EXPECTED: &str = "an age as in \"30d\", or a number as in \"100000\"";
        keep(text(given, EXPECTED)?.trim(), EXPECTED)
    }
}

fn keep(text: &str, expected: &str) -> Result<Keep, Refusal> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Keep::Last).map_err(|_| Refusal {
            kind: ProblemKind::Invalid,
            message: format!("{text} is too large"),
        });
    }
    duration::parse(text).map(Keep::For).map_err(|why| Refusal {
        kind: ProblemKind::Invalid,
        // A text that begins with a number was meant as a duration: what is wrong with it is told.
        message: if text.starts_with(|c: char| c.is_ascii_digit()) {
            why
        } else {
            format!("expected {expected}, found {text:?}")
        },
    })
}

fn text<'v>(given: Given<'v>, expected: &str) -> Result<&'v str, Refusal> {
    let message = match given {
        Given::Text(text) => return Ok(text),
        Given::Toml(Value::String(text)) => return Ok(text),
        Given::Toml(Value::Integer(number)) => {
            format!(
                "expected text in quotes; write \"{number}\" for a number, or \"{number}d\" for an age"
            )
        }
        Given::Toml(other) => format!("expected {expected}, found {}", type_name(other)),
    };
    Err(Refusal {
        kind: ProblemKind::WrongType,
        message,
    })
}
