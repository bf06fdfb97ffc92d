//! What a key holds that effects are on.

use super::memory::Value;

/// What a key holds that effects are on: see [`TestWorker::state`](super::TestWorker::state).
#[derive(Clone, Debug, PartialEq)]
pub struct State(pub(super) Option<Value>);

impl State {
    /// Whether there is no such key.
    pub fn is_missing(&self) -> bool {
        self.0.is_none()
    }

    /// The text of a key that was set.
    pub fn text(&self) -> Option<String> {
        match self.0.as_ref()? {
            Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }

    /// The same as a number; 0 if there is no such key.
    pub fn number(&self) -> Option<i64> {
        match &self.0 {
            None => Some(0),
            Some(_) => self.text()?.parse().ok(),
        }
    }

    /// The text in a field of a hash.
    pub fn field(&self, field: &str) -> Option<String> {
        match self.0.as_ref()? {
            Value::Hash(hash) => {
                let value = hash.get(field.as_bytes())?;
                Some(String::from_utf8_lossy(value).into_owned())
            }
            _ => None,
        }
    }

    /// Whether a set or a sorted set has this member.
    pub fn has(&self, member: &str) -> bool {
        match &self.0 {
            Some(Value::Set(set)) => set.contains(member.as_bytes()),
            Some(Value::Sorted(sorted)) => sorted.contains_key(member.as_bytes()),
            _ => false,
        }
    }

    /// The score of a member of a sorted set.
    pub fn score(&self, member: &str) -> Option<f64> {
        match self.0.as_ref()? {
            Value::Sorted(sorted) => sorted.get(member.as_bytes()).copied(),
            _ => None,
        }
    }
}
