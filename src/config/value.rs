//! How one setting is read from one value: from TOML, where it has a type already, or from the
//! bare text of a variable or a flag.

use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::error::ProblemKind;
use super::nearest;
use super::secret::{RedisUrl, Secret};
use crate::duration;

/// A value as a source gives it.
#[derive(Clone, Copy)]
pub(super) enum Given<'v> {
    /// With a type of its own.
    Toml(&'v Value),
    /// Text that is to be read as whatever the setting is.
    Text(&'v str),
}

/// Why a value is refused. The message follows the setting's name, and never quotes a value that
/// may be a secret.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) kind: ProblemKind,
    pub(super) message: String,
}

/// What a setting can be.
pub(super) trait Setting: Sized {
    fn read(given: Given<'_>) -> Result<Self, Refusal>;
}

impl<T: Setting> Setting for Option<T> {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        T::read(given).map(Some)
    }
}

impl Setting for String {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        text(given, "text in quotes").map(str::to_owned)
    }
}

impl Setting for Secret {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        text(given, "text in quotes").map(Secret::new)
    }
}

impl Setting for PathBuf {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        text(given, "a path in quotes").map(PathBuf::from)
    }
}

impl Setting for RedisUrl {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        let text = text(given, "a URL in quotes, as in \"redis://127.0.0.1:6379\"")?;
        RedisUrl::checked(text).map_err(invalid)
    }
}

impl Setting for usize {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        whole_number(given)
    }
}

impl Setting for u32 {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        whole_number(given)
    }
}

impl Setting for u64 {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        whole_number(given)
    }
}

impl Setting for bool {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        const EXPECTED: &str = "true or false";
        match given {
            Given::Toml(Value::Boolean(value)) => Ok(*value),
            Given::Toml(Value::String(text)) if text.parse::<bool>().is_ok() => Err(wrong_type(
                format!("expected {EXPECTED}; write {text} without quotes"),
            )),
            Given::Toml(other) => Err(mismatch(EXPECTED, other)),
            Given::Text(text) => text
                .trim()
                .parse()
                .map_err(|_| wrong_type(format!("expected {EXPECTED}, found {text:?}"))),
        }
    }
}

impl Setting for f64 {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        const EXPECTED: &str = "a number, as in 1.5";
        match given {
            Given::Toml(Value::Float(number)) => Ok(*number),
            Given::Toml(Value::Integer(number)) => Ok(*number as f64),
            Given::Toml(Value::String(text)) if text.trim().parse::<f64>().is_ok() => {
                Err(wrong_type(format!(
                    "expected a number; write {} without quotes",
                    text.trim()
                )))
            }
            Given::Toml(other) => Err(mismatch(EXPECTED, other)),
            Given::Text(text) => text
                .trim()
                .parse()
                .map_err(|_| wrong_type(format!("expected {EXPECTED}, found {text:?}"))),
        }
    }
}

impl Setting for Duration {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        match given {
            Given::Text(text) => duration::parse(text).map_err(invalid),
            Given::Toml(Value::String(text)) => duration::parse(text).map_err(invalid),
            Given::Toml(Value::Integer(number)) => Err(wrong_type(format!(
                "a duration needs a unit; write \"{number}s\""
            ))),
            Given::Toml(Value::Float(number)) => Err(wrong_type(format!(
                "a duration needs a unit; write \"{number}s\""
            ))),
            Given::Toml(other) => Err(mismatch("a duration, as in \"30s\"", other)),
        }
    }
}

/// A list; as text either TOML or items between commas.
impl Setting for Vec<String> {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        const EXPECTED: &str = "a list, as in [\"orders\", \"invoices\"]";
        match given {
            Given::Toml(Value::Array(items)) => {
                let item = |item: &Value| match item {
                    Value::String(text) => Ok(text.clone()),
                    other => Err(wrong_type(format!(
                        "expected a list of texts in quotes, found {} in it",
                        type_name(other)
                    ))),
                };
                items.iter().map(item).collect()
            }
            Given::Toml(Value::String(text)) => Err(wrong_type(format!(
                "expected a list, found text; write [{text:?}]"
            ))),
            Given::Toml(other) => Err(mismatch(EXPECTED, other)),
            Given::Text(text) if text.trim_start().starts_with('[') => {
                let value = text.trim().parse().map_err(|error: toml::de::Error| {
                    wrong_type(format!("expected {EXPECTED}: {}", error.message()))
                })?;
                Self::read(Given::Toml(&value))
            }
            Given::Text(text) if text.trim().is_empty() => Ok(Vec::new()),
            Given::Text(text) => Ok(text.split(',').map(|item| item.trim().to_owned()).collect()),
        }
    }
}

/// What a TOML value is, with its article.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// `text` as a value of the same type as `like`, for settings whose type is known to their user
/// alone.
pub(super) fn typed_like(like: &Value, text: &str) -> Result<Value, Refusal> {
    let value = match like {
        Value::String(_) => return Ok(Value::String(text.to_owned())),
        Value::Array(_) if !text.trim_start().starts_with('[') => {
            let items = Vec::<String>::read(Given::Text(text))?;
            return Ok(Value::Array(items.into_iter().map(Value::String).collect()));
        }
        Value::Float(_) => f64::read(Given::Text(text)).ok().map(Value::Float),
        _ => text.trim().parse().ok(),
    };
    value
        .filter(|value: &Value| value.same_type(like))
        .ok_or_else(|| wrong_type(format!("expected {}, as in the file", type_name(like))))
}

/// A value that is text.
pub(super) fn text<'v>(given: Given<'v>, expected: &str) -> Result<&'v str, Refusal> {
    match given {
        Given::Text(text) => Ok(text),
        Given::Toml(Value::String(text)) => Ok(text),
        Given::Toml(other) => Err(mismatch(expected, other)),
    }
}

fn whole_number<N: TryFrom<i64>>(given: Given<'_>) -> Result<N, Refusal> {
    const EXPECTED: &str = "a whole number";
    let number = match given {
        Given::Toml(Value::Integer(number)) => *number,
        Given::Toml(Value::String(text)) if text.trim().parse::<i64>().is_ok() => {
            return Err(wrong_type(format!(
                "expected {EXPECTED}; write {} without quotes",
                text.trim()
            )));
        }
        Given::Toml(other) => return Err(mismatch(EXPECTED, other)),
        Given::Text(text) => text
            .trim()
            .parse()
            .map_err(|_| wrong_type(format!("expected {EXPECTED}, found {text:?}")))?,
    };
    N::try_from(number).map_err(|_| {
        let fault = if number < 0 {
            "less than 0"
        } else {
            "too large"
        };
        invalid(format!("{number} is {fault}"))
    })
}

/// A value that is one of a few words.
pub(super) fn one_of<T: Copy>(given: Given<'_>, values: &[(&str, T)]) -> Result<T, Refusal> {
    let names = || values.iter().map(|(name, _)| *name);
    let quoted: Vec<String> = names().map(|name| format!("{name:?}")).collect();
    let expected = quoted.join(" or ");
    let found = text(given, &expected)?.trim();
    if let Some((_, value)) = values.iter().find(|(name, _)| *name == found) {
        return Ok(*value);
    }
    let hint = nearest::of(found, names())
        .map(|name| format!("; did you mean {name:?}?"))
        .unwrap_or_default();
    Err(invalid(format!(
        "expected {expected}, found {found:?}{hint}"
    )))
}

fn mismatch(expected: &str, found: &Value) -> Refusal {
    wrong_type(format!("expected {expected}, found {}", type_name(found)))
}

fn wrong_type(message: String) -> Refusal {
    Refusal {
        kind: ProblemKind::WrongType,
        message,
    }
}

/// The value is of the right type and cannot work.
pub(super) fn invalid(message: String) -> Refusal {
    Refusal {
        kind: ProblemKind::Invalid,
        message,
    }
}
