//! The keys that effects are on, in memory, and doing effects there: `common/effects.lua`. All guards of a commit are looked
//! at, each as the effects before it will have left things, before anything is written.

use std::collections::{BTreeMap, BTreeSet};

use crate::effects::{Effect, Presence};

/// The first whole number that a script can't compute with exactly.
const TOO_LARGE: i64 = 1 << 53;

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::testing) enum Value {
    Text(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Sorted(BTreeMap<Vec<u8>, f64>),
}

/// All keys that are no streams.
#[derive(Clone, Debug, Default)]
pub(in crate::testing) struct Values(BTreeMap<String, Value>);

/// Why an effect can't be done.
pub(in crate::testing) enum Not {
    /// Its guard refused, at this value.
    Refused(Option<Vec<u8>>),
    Failed(String),
}

impl Value {
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "string",
            Value::Hash(_) => "hash",
            Value::Set(_) => "set",
            Value::Sorted(_) => "zset",
        }
    }

    /// What a guard finds there.
    fn current(&self, field: &[u8]) -> Option<Vec<u8>> {
        match self {
            Value::Text(text) => Some(text.clone()),
            Value::Hash(hash) => hash.get(field).cloned(),
            Value::Set(set) => set.get(field).cloned(),
            Value::Sorted(sorted) => sorted.get(field).map(|score| score.to_string().into()),
        }
    }
}

impl Values {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Does one effect.
    pub fn apply(&mut self, effect: &Effect) -> Result<(), Not> {
        let (there, args) = (self.0.get(&effect.key), &effect.args);
        let want = match effect.command {
            "SET" | "INCRBY" => Some("string"),
            "HSET" | "HDEL" | "HINCRBY" => Some("hash"),
            "ZADD" | "ZREM" => Some("zset"),
            "SADD" | "SREM" => Some("set"),
            _ => None,
        };
        if let (Some(want), Some(is)) = (want, there.map(Value::kind))
            && want != is
        {
            return Err(Not::Failed(format!(
                "{}: the key holds a {is}",
                name(effect)
            )));
        }
        let field = field_of(effect);
        let was = match (there, want) {
            (Some(value @ (Value::Hash(_) | Value::Set(_) | Value::Sorted(_))), None) => {
                if matches!(effect.presence, Presence::Equals(_)) {
                    return Err(Not::Failed(format!(
                        "{}: the key holds a {}, which equals no value",
                        name(effect),
                        value.kind()
                    )));
                }
                Some(value.kind().into())
            }
            (there, _) => there.and_then(|value| value.current(field)),
        };
        let is_refused = match &effect.presence {
            Presence::Any => false,
            Presence::Absent => was.is_some(),
            Presence::Exists => was.is_none(),
            Presence::Equals(value) => was.as_ref() != Some(value),
        };
        if is_refused {
            return Err(Not::Refused(was));
        }
        let sum = match effect.command {
            "INCRBY" | "HINCRBY" => Some(sum(effect, was.as_deref())?),
            _ => None,
        };
        if let Some(sum) = sum
            && (effect.at_least.is_some_and(|least| sum < least)
                || effect.at_most.is_some_and(|most| sum > most))
        {
            return Err(Not::Refused(was));
        }
        let new = sum.map_or_else(
            || args.last().cloned().unwrap_or_default(),
            |sum| sum.to_string().into(),
        );
        self.write(effect, field.to_vec(), new);
        Ok(())
    }

    fn write(&mut self, effect: &Effect, field: Vec<u8>, new: Vec<u8>) {
        let key = effect.key.clone();
        let is_empty = match effect.command {
            "SET" | "INCRBY" => {
                self.0.insert(key, Value::Text(new));
                return;
            }
            "DEL" => {
                self.0.remove(&key);
                return;
            }
            "HSET" | "HINCRBY" | "HDEL" => {
                let hash = self.0.entry(key).or_insert(Value::Hash(BTreeMap::new()));
                let Value::Hash(hash) = hash else { return };
                match effect.command {
                    "HDEL" => hash.remove(&field),
                    _ => hash.insert(field, new),
                };
                hash.is_empty()
            }
            "SADD" | "SREM" => {
                let set = self.0.entry(key).or_insert(Value::Set(BTreeSet::new()));
                let Value::Set(set) = set else { return };
                match effect.command {
                    "SREM" => set.remove(&field),
                    _ => set.insert(field),
                };
                set.is_empty()
            }
            _ => {
                let sorted = self.0.entry(key).or_insert(Value::Sorted(BTreeMap::new()));
                let Value::Sorted(sorted) = sorted else {
                    return;
                };
                let score = std::str::from_utf8(&effect.args[0]).ok();
                match effect.command {
                    "ZREM" => sorted.remove(&field),
                    _ => sorted.insert(field, score.and_then(|it| it.parse().ok()).unwrap_or(0.0)),
                };
                sorted.is_empty()
            }
        };
        if is_empty {
            self.0.remove(&effect.key);
        }
    }
}

/// The field of a hash or the member of a set; empty if it is on neither.
fn field_of(effect: &Effect) -> &[u8] {
    match effect.command {
        "SET" | "DEL" | "INCRBY" => b"",
        "ZADD" => &effect.args[1],
        _ => &effect.args[0],
    }
}

pub(super) fn name(effect: &Effect) -> String {
    let field = String::from_utf8_lossy(field_of(effect));
    let separator = if field.is_empty() { "" } else { " " };
    format!("{} {}{separator}{field}", effect.command, effect.key)
}

fn sum(effect: &Effect, was: Option<&[u8]>) -> Result<i64, Not> {
    let by = effect.args.last().and_then(|by| integer(by)).unwrap_or(0);
    let Some(from) = integer(was.unwrap_or(b"0")) else {
        let why = format!("{}: there is no whole number below 2^53", name(effect));
        return Err(Not::Failed(why));
    };
    match from + by {
        sum if sum.abs() < TOO_LARGE => Ok(sum),
        _ => Err(Not::Failed(format!(
            "{}: the sum is not below 2^53",
            name(effect)
        ))),
    }
}

/// As Redis reads them.
fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text && number.abs() < TOO_LARGE).then_some(number)
}
