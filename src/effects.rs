//! Effects: plain commands of Redis that take place together with the acknowledgement of the event a handler was given,
//! or not at all. What each may depend on is a guard; what becomes of them all is told by a commit.

use std::borrow::Cow;
use std::fmt;

#[cfg(feature = "eventstore")]
use crate::conflict::{Conflict, Overlap};

/// The farthest from zero a number may be that is added to: beyond it a script can't compute exactly.
const LARGEST: i64 = (1 << 53) - 1;

/// A command that takes place together with the event's acknowledgement, or not at all: see
/// [`Context::effect`](crate::Context::effect).
///
/// ```
/// use streamhand::Effect;
///
/// // Three are taken, if there are as many.
/// let take = Effect::incr_by("{orders}:stock:apple", -3).at_least(0);
/// assert_eq!(take.to_string(), "INCRBY {orders}:stock:apple -3, at least 0");
/// // Decided once.
/// let decide = Effect::set("{orders}:decision:o-1", "reserved").if_absent();
/// assert_eq!(decide.key(), "{orders}:decision:o-1");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Effect {
    pub(crate) command: &'static str,
    pub(crate) key: String,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) presence: Presence,
    pub(crate) at_least: Option<i64>,
    pub(crate) at_most: Option<i64>,
    wrong: Option<String>,
}

/// What has to be there before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    #[default]
    Any,
    Absent,
    Exists,
    Equals(Vec<u8>),
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a commit that was refused has written nothing"]
pub enum Committed {
    /// Everything has left, and the event is acknowledged. What the handler answers later no longer matters.
    Settled,
    /// A guard refused: nothing was written, nothing is waiting to leave any more, and the handler decides anew.
    Refused(Refusal),
}

/// A guard that refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) effect: Effect,
    pub(crate) current: Option<Vec<u8>>,
}

/// Why it is not known that a commit was done, or known that it was not. `?` on it ends the handler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The event is no longer this worker's: another one has taken it over. Nothing was written.
    #[error("another worker has taken the event over: nothing was committed")]
    Taken,
    /// What was to leave can't be written: a name or a type is wrong, a key holds something else. Nothing was written.
    #[error("nothing was committed: {0}")]
    Invalid(String),
    /// An aggregate that was to be appended to is not at the version expected. Nothing was written, nothing is waiting to
    /// leave any more, and the handler decides anew.
    #[cfg(feature = "eventstore")]
    #[error("nothing was committed: {0}")]
    Conflict(Conflict),
    /// An aggregate has some of the events that were to be appended, and not all: this is neither new nor a repeat. Nothing
    /// was written.
    #[cfg(feature = "eventstore")]
    #[error("nothing was committed: {0}")]
    Overlap(Overlap),
    /// This handler has committed already, or is about to.
    #[error("an event can be committed once")]
    Twice,
    /// The worker ended before an answer came. What was written, if anything, is whole.
    #[error("the worker ended before the commit was known to be done")]
    Unknown,
}

#[cfg(feature = "eventstore")]
impl CommitError {
    /// The conflict, if it is one.
    pub fn conflict(&self) -> Option<&Conflict> {
        match self {
            CommitError::Conflict(conflict) => Some(conflict),
            _ => None,
        }
    }
}

impl Effect {
    /// `SET`: the key holds this string.
    pub fn set(key: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        Self::new("SET", key, [value.as_ref()])
    }

    /// `DEL`: the key is gone, whatever it held.
    pub fn del(key: impl Into<String>) -> Self {
        Self::new("DEL", key, [])
    }

    /// `INCRBY`: the number is `by` larger, or smaller where `by` is negative; what is not there counts as 0.
    pub fn incr_by(key: impl Into<String>, by: i64) -> Self {
        Self::new("INCRBY", key, [by.to_string().as_bytes()]).adding(by)
    }

    /// `HSET`: the field of a hash holds this string.
    pub fn hset(key: impl Into<String>, field: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        Self::new("HSET", key, [field.as_ref(), value.as_ref()])
    }

    /// `HDEL`: the field of a hash is gone.
    pub fn hdel(key: impl Into<String>, field: impl AsRef<[u8]>) -> Self {
        Self::new("HDEL", key, [field.as_ref()])
    }

    /// `HINCRBY`: the number in the field of a hash is `by` larger, as with [`incr_by`](Self::incr_by).
    pub fn hincr_by(key: impl Into<String>, field: impl AsRef<[u8]>, by: i64) -> Self {
        let by_text = by.to_string();
        Self::new("HINCRBY", key, [field.as_ref(), by_text.as_bytes()]).adding(by)
    }

    /// `ZADD`: the member of a sorted set has this score.
    pub fn zadd(key: impl Into<String>, score: f64, member: impl AsRef<[u8]>) -> Self {
        let text = score.to_string();
        let mut effect = Self::new("ZADD", key, [text.as_bytes(), member.as_ref()]);
        if score.is_nan() {
            effect.wrong = Some("a score is a number".to_owned());
        }
        effect
    }

    /// `ZREM`: the member of a sorted set is gone.
    pub fn zrem(key: impl Into<String>, member: impl AsRef<[u8]>) -> Self {
        Self::new("ZREM", key, [member.as_ref()])
    }

    /// `SADD`: the set has this member.
    pub fn sadd(key: impl Into<String>, member: impl AsRef<[u8]>) -> Self {
        Self::new("SADD", key, [member.as_ref()])
    }

    /// `SREM`: the set does not have this member.
    pub fn srem(key: impl Into<String>, member: impl AsRef<[u8]>) -> Self {
        Self::new("SREM", key, [member.as_ref()])
    }

    /// Only if the sum is `least` or more: for [`incr_by`](Self::incr_by) and [`hincr_by`](Self::hincr_by).
    #[must_use]
    pub fn at_least(mut self, least: i64) -> Self {
        self.at_least = Some(least);
        self.of_numbers("at_least")
    }

    /// Only if the sum is `most` or less: for [`incr_by`](Self::incr_by) and [`hincr_by`](Self::hincr_by).
    #[must_use]
    pub fn at_most(mut self, most: i64) -> Self {
        self.at_most = Some(most);
        self.of_numbers("at_most")
    }

    /// Only if what is written is not there yet: the key, the field of a hash, or the member of a set.
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        self.presence = Presence::Absent;
        self
    }

    /// Only if it is there: the key, the field of a hash, or the member of a set.
    #[must_use]
    pub fn if_exists(mut self) -> Self {
        self.presence = Presence::Exists;
        self
    }

    /// Only if the key, or the field of a hash, holds just this: for all but those on sets and sorted sets.
    #[must_use]
    pub fn if_equals(mut self, value: impl AsRef<[u8]>) -> Self {
        self.presence = Presence::Equals(value.as_ref().to_owned());
        if matches!(self.command, "ZADD" | "ZREM" | "SADD" | "SREM") {
            self.wrong = Some(format!("if_equals is not for {}", self.command));
        }
        self
    }

    /// What it asks for, as scripts have it: presence, value, at least, at most. None if it asks for nothing.
    pub(crate) fn asks(&self) -> Option<[Cow<'_, [u8]>; 4]> {
        let (presence, value): (&[u8], &[u8]) = match &self.presence {
            Presence::Any if self.at_least.is_none() && self.at_most.is_none() => return None,
            Presence::Any => (b"", b""),
            Presence::Absent => (b"absent", b""),
            Presence::Exists => (b"exists", b""),
            Presence::Equals(value) => (b"equals", value),
        };
        let number = |limit: Option<i64>| limit.map_or(String::new(), |n| n.to_string());
        let number = |limit| Cow::Owned(number(limit).into_bytes());
        let (least, most) = (number(self.at_least), number(self.at_most));
        Some([presence.into(), value.into(), least, most])
    }

    /// The key it is on.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The field of a hash, or the member of a set, where it is on one and that is text.
    pub fn field(&self) -> Option<&str> {
        let at = match self.command {
            "SET" | "DEL" | "INCRBY" => return None,
            "ZADD" => 1,
            _ => 0,
        };
        std::str::from_utf8(&self.args[at]).ok()
    }

    /// Why it can't be.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.wrong {
            Some(wrong) => Err(format!("the effect {self}: {wrong}")),
            None => Ok(()),
        }
    }

    /// Bytes of its key and its arguments.
    pub(crate) fn size(&self) -> usize {
        self.key.len() + self.args.iter().map(Vec::len).sum::<usize>()
    }

    pub(crate) fn is_guarded(&self) -> bool {
        self.presence != Presence::Any || self.at_least.is_some() || self.at_most.is_some()
    }

    fn new<const N: usize>(
        command: &'static str,
        key: impl Into<String>,
        args: [&[u8]; N],
    ) -> Self {
        Effect {
            command,
            key: key.into(),
            args: args.map(<[u8]>::to_vec).into(),
            presence: Presence::Any,
            at_least: None,
            at_most: None,
            wrong: None,
        }
    }

    fn adding(mut self, by: i64) -> Self {
        if by.unsigned_abs() > LARGEST as u64 {
            self.wrong = Some(format!("what is added is at most {LARGEST}"));
        }
        self
    }

    fn of_numbers(mut self, guard: &str) -> Self {
        if !self.command.ends_with("INCRBY") {
            self.wrong = Some(format!("{guard} is for incr_by and hincr_by"));
        }
        self
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.command, self.key)?;
        for arg in &self.args {
            write!(f, " {}", text(arg))?;
        }
        match &self.presence {
            Presence::Any => {}
            Presence::Absent => f.write_str(", if it is absent")?,
            Presence::Exists => f.write_str(", if it exists")?,
            Presence::Equals(value) => write!(f, ", if it is {:?}", text(value))?,
        }
        if let Some(least) = self.at_least {
            write!(f, ", at least {least}")?;
        }
        if let Some(most) = self.at_most {
            write!(f, ", at most {most}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Effect({self})")
    }
}

impl Refusal {
    /// The effect whose guard refused.
    pub fn effect(&self) -> &Effect {
        &self.effect
    }

    /// What the guard found, by then: the string or the number, the score of a member, the member of a set. None where
    /// there was nothing.
    pub fn current(&self) -> Option<&[u8]> {
        self.current.as_deref()
    }

    /// The number the guard found; 0 if there was nothing.
    pub fn number(&self) -> Option<i64> {
        match &self.current {
            None => Some(0),
            Some(current) => std::str::from_utf8(current).ok()?.parse().ok(),
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused by a guard: {}; there was ", self.effect)?;
        match &self.current {
            Some(current) => write!(f, "{:?}", text(current)),
            None => f.write_str("nothing"),
        }
    }
}

/// At most so much of a value as a message can carry.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(100)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_is_none_for_the_command_is_refused() {
        let wrong = |effect: Effect| effect.check().unwrap_err();
        assert_eq!(
            wrong(Effect::set("k", "1").at_least(0)),
            "the effect SET k 1, at least 0: at_least is for incr_by and hincr_by"
        );
        assert!(wrong(Effect::sadd("k", "a").if_equals("b")).contains("if_equals is not for SADD"));
        assert!(wrong(Effect::zadd("k", f64::NAN, "a")).contains("a score is a number"));
        assert!(wrong(Effect::incr_by("k", i64::MIN)).contains("at most 9007199254740991"));
        assert_eq!(
            Effect::hincr_by("k", "f", 1).at_least(0).at_most(9).check(),
            Ok(())
        );
    }

    #[test]
    fn a_refusal_says_which_guard_and_what_it_found() {
        let refusal = |current: Option<&str>| Refusal {
            effect: Effect::incr_by("stock", -3).at_least(0),
            current: current.map(Into::into),
        };
        assert_eq!(
            refusal(Some("2")).to_string(),
            "refused by a guard: INCRBY stock -3, at least 0; there was \"2\""
        );
        assert_eq!(
            (refusal(None).number(), refusal(Some("2")).number()),
            (Some(0), Some(2))
        );
        assert!(refusal(None).to_string().ends_with("there was nothing"));
    }
}
