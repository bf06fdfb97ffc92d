//! How an aggregate is addressed: `kind:id`, such as `order:o-1`.

use std::fmt;
use std::str::FromStr;

use crate::config::check;
use crate::error::{Error, ErrorKind, Result};

/// Most characters of an aggregate's id within its kind, and of a kind.
const LONGEST: usize = 128;

/// Kinds whose aggregates would be where a stream keeps events that are scheduled, or published once.
const TAKEN: [&str; 2] = ["scheduled", "published"];

/// An aggregate's address: its kind and its id, written `order:o-1`.
///
/// ```
/// use streamhand::eventstore::AggregateId;
///
/// let order: AggregateId = "order:o-1".parse().unwrap();
/// assert_eq!((order.kind(), order.id()), ("order", "o-1"));
/// assert_eq!(order, AggregateId::new("order", "o-1").unwrap());
/// assert!("order:o 1".parse::<AggregateId>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateId {
    address: Box<str>,
    /// Bytes of the kind.
    kind: u8,
}

impl AggregateId {
    /// The address of the aggregate `id` of a kind.
    ///
    /// # Errors
    /// If the kind is not up to 128 of `a-z`, `0-9`, `_` and `-`, beginning with a letter; if the id is not up to
    /// 128 printable ASCII characters without `{`, `}`, `:` and spaces; if another key has that name.
    pub fn new(kind: &str, id: &str) -> Result<Self> {
        let invalid = |what: &str, why: &str| {
            let message = format!("the aggregate {kind:?}:{id:?}: its {what} {why}");
            Err(Error::new(ErrorKind::Invalid, message))
        };
        if !is_kind(kind) {
            return invalid(
                "kind is a word of a-z, 0-9, '_' and '-', beginning with a letter, like",
                "\"order\"",
            );
        }
        if TAKEN.contains(&kind) {
            return invalid("kind", "is the name of keys that every stream has");
        }
        if let Some(why) = flaw(id) {
            return invalid("id", &why);
        }
        Ok(AggregateId {
            address: format!("{kind}:{id}").into(),
            kind: kind.len() as u8,
        })
    }

    /// The kind, such as `order`.
    pub fn kind(&self) -> &str {
        &self.address[..self.kind as usize]
    }

    /// The id within the kind, such as `o-1`.
    pub fn id(&self) -> &str {
        &self.address[self.kind as usize + 1..]
    }

    /// Both, as in `order:o-1`.
    pub fn as_str(&self) -> &str {
        &self.address
    }
}

/// Whether this is the name of a kind. Usable in constants.
pub(crate) const fn is_kind(kind: &str) -> bool {
    let bytes = kind.as_bytes();
    if bytes.is_empty() || bytes.len() > LONGEST || !bytes[0].is_ascii_lowercase() {
        return false;
    }
    let mut at = 1;
    while at < bytes.len() {
        if !matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-') {
            return false;
        }
        at += 1;
    }
    true
}

/// Why this is no id.
fn flaw(id: &str) -> Option<String> {
    if id.is_empty() {
        return Some("is empty".to_owned());
    }
    if id.len() > LONGEST {
        return Some(format!("is longer than {LONGEST} characters"));
    }
    if let Some(wrong) = id
        .chars()
        .find(|c| !c.is_ascii_graphic() || matches!(c, '{' | '}' | ':'))
    {
        return Some(format!(
            "has {wrong:?}: printable ASCII without braces, ':' and spaces is allowed"
        ));
    }
    // A group that is named like the kind has a key of that name.
    check::OWN
        .contains(&id)
        .then(|| "is the name of a key that consumer groups have".to_owned())
}

impl fmt::Display for AggregateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl fmt::Debug for AggregateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.address)
    }
}

impl FromStr for AggregateId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some((kind, id)) => AggregateId::new(kind, id),
            None => Err(Error::new(
                ErrorKind::Invalid,
                format!("{text:?} is no aggregate: write its kind and its id, like order:o-1"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_kind_and_an_id_and_nothing_that_parts_keys() {
        for good in [
            "order:o-1",
            "order-line:A/b~1",
            &format!("o:{}", "x".repeat(128)),
        ] {
            let id: AggregateId = good.parse().unwrap();
            assert_eq!(
                (id.to_string(), format!("{}:{}", id.kind(), id.id())),
                (good.to_owned(), good.to_owned())
            );
        }
        let long = format!("o:{}", "x".repeat(129));
        let wrong = [
            "",
            "order",
            ":o-1",
            "order:",
            "order:a b",
            "order:a:b",
            "order:{a}",
            "order:é",
            "order:a\n",
            "Order:o-1",
            "1order:o",
            "order:dead",
            "scheduled:events",
            "published:e-1",
            &long,
        ];
        for wrong in wrong {
            let error = wrong.parse::<AggregateId>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong:?}");
        }
        let said = "order:a b".parse::<AggregateId>().unwrap_err().to_string();
        assert_eq!(
            said,
            "the aggregate \"order\":\"a b\": its id has ' ': printable ASCII without braces, ':' and spaces is allowed"
        );
    }
}
