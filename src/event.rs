//! The envelope: one entry of a stream, read as an event. Its fields stay as they came; what is known of them is
//! found by position, so that nothing is copied on the way to a handler.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::codec::{self, Decodable, DecodeError, Encodable, Format, Known};
use crate::event_type;
use crate::fields::Fields;
use crate::names::shown;
use crate::rfc3339;
use crate::traceparent;

/// The last millisecond of the year 9999.
const LAST_MS: u64 = 253_402_300_799_999;

/// Bytes and strings there is room for in the fields of an event that is being made: most have no more.
const USUAL: (usize, usize) = (256, 16);

/// A type of event: what its data looks like and what it is called.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct OrderCreated {
///     order_id: String,
///     amount: u64,
/// }
///
/// impl streamhand::Event for OrderCreated {
///     const TYPE: &'static str = "order.created";
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event",
    label = "this is no event",
    note = "write `impl streamhand::Event for {Self} {{ const TYPE: &'static str = \"order.created\"; }}`, with a type of its own"
)]
pub trait Event: Send + 'static {
    /// A noun and what happened to it, dotted and lower-case: `order.created`. What breaks the grammar does not
    /// compile where the event is registered or published.
    const TYPE: &'static str;

    /// The version of the data's schema, from 1.
    const VERSION: u32 = 1;
}

/// The id Redis gave an entry: milliseconds since 1970 and a number within the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// Milliseconds since the Unix epoch, by the server's clock.
    pub ms: u64,
    /// The number within that millisecond.
    pub seq: u64,
}

impl EntryId {
    /// The time in the id; the end of the year 9999 where it is beyond what can be written as a date, as in an id that
    /// counts nanoseconds.
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.ms.min(LAST_MS))
    }

    /// The least id behind this one.
    pub(crate) fn next(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => EntryId { seq, ..self },
            None => EntryId {
                ms: self.ms.saturating_add(1),
                seq: 0,
            },
        }
    }

    /// Reads an id as Redis writes it.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok()?.parse().ok()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || {
            crate::Error::new(
                crate::ErrorKind::Invalid,
                format!("{text:?} is no entry id: write it as Redis does, like 1732360000000-0"),
            )
        };
        let (ms, seq) = text.split_once('-').ok_or_else(invalid)?;
        Ok(EntryId {
            ms: ms.parse().map_err(|_| invalid())?,
            seq: seq.parse().map_err(|_| invalid())?,
        })
    }
}

/// One entry as it came from the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The entry's id.
    pub id: EntryId,
    /// Its fields.
    pub fields: Fields,
}

impl Entry {
    /// Bytes of all names and values.
    pub(crate) fn size(&self) -> usize {
        self.fields.size()
    }
}

/// An event: an entry whose fields have the meaning CloudEvents gives them.
///
/// ```
/// use streamhand::Envelope;
///
/// let envelope = Envelope::new("order.created").json(&serde_json::json!({"order_id": "o-1"})).unwrap();
/// assert_eq!(envelope.event_type(), "order.created");
/// assert_eq!(envelope.version(), 1);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    entry: Entry,
    known: Known,
}

impl Envelope {
    /// Reads an entry as an event.
    ///
    /// # Errors
    /// If it is none: the entry is returned with the reason.
    pub fn decode(entry: Entry) -> Result<Self, (Entry, DecodeError)> {
        match codec::find(&entry.fields) {
            Ok(known) => Ok(Envelope { entry, known }),
            Err(error) => Err((entry, error)),
        }
    }

    /// An event of `event_type` without data, for tests and for [`Publisher`](crate::Publisher). A type that is none is told of
    /// when it is published.
    pub fn new(event_type: impl Into<String>) -> Self {
        let event_type: String = event_type.into();
        let mut fields = Fields::with_capacity(USUAL.0, USUAL.1);
        fields.push("type", event_type);
        let entry = Entry {
            id: EntryId::default(),
            fields,
        };
        let known = codec::find(&entry.fields).expect("a type alone is an event");
        Envelope { entry, known }
    }

    /// The same event with `data` as JSON.
    ///
    /// # Errors
    /// If the data can't be written as JSON, as a map whose keys are no text.
    pub fn json<T: Encodable + ?Sized>(self, data: &T) -> crate::Result<Self> {
        let data = codec::encode(codec::Format::Json, data)?;
        Ok(self.with("datacontenttype", codec::JSON).with("data", data))
    }

    /// The same event with `data` as MessagePack, fields by name.
    ///
    /// # Errors
    /// If the data can't be written so.
    pub fn msgpack<T: Encodable + ?Sized>(self, data: &T) -> crate::Result<Self> {
        let data = codec::encode(codec::Format::MessagePack, data)?;
        Ok(self
            .with("datacontenttype", codec::MSGPACK)
            .with("data", data))
    }

    /// The same event with a field added, or replaced where it is there. For values that are known to be right; others go
    /// to [`try_with`](Self::try_with).
    ///
    /// # Panics
    /// If [`try_with`](Self::try_with) returns an error.
    #[must_use]
    pub fn with(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        match self.try_with(name, value) {
            Ok(envelope) => envelope,
            Err(error) => panic!("{error}"),
        }
    }

    /// The same event with a field added, or replaced where it is there.
    ///
    /// ```
    /// # use streamhand::Envelope;
    /// # fn example(from_elsewhere: &str) -> streamhand::Result<Envelope> {
    /// Envelope::new("order.created").try_with("time", from_elsewhere)
    /// # }
    /// # assert!(example("2026-01-31T12:00:00Z").is_ok());
    /// # assert!(example("yesterday").is_err());
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the field has a meaning and the value can't have it: a
    /// `schemaversion` or `maxattempts` that is no whole number from 1, a `time` or `expires` that is not as RFC 3339 writes it or does not
    /// say its offset from UTC, a `traceparent` that is none by the W3C's trace context, or a text that is not UTF-8. An empty
    /// value says nothing, and is none.
    pub fn try_with(self, name: &str, value: impl AsRef<[u8]>) -> crate::Result<Self> {
        let wrong = match (name, value.as_ref()) {
            (_, []) => None,
            ("time", time) => match std::str::from_utf8(time).map(rfc3339::parse) {
                Ok(Err(why)) => Some(why.to_string()),
                _ => None,
            },
            ("expires", time) => match std::str::from_utf8(time).map(rfc3339::parse) {
                Ok(Ok(_)) => None,
                Ok(Err(why)) => Some(why.to_string()),
                Err(_) => Some("is not UTF-8".to_owned()),
            },
            ("maxattempts", number) if codec::max_attempts(number).is_none() => {
                Some("is no whole number from 1".to_owned())
            }
            ("traceparent", text) if !traceparent::is_valid(text) => Some(format!(
                "is none by the W3C's trace context; write it like {}",
                traceparent::EXAMPLE
            )),
            _ => None,
        };
        if let Some(why) = wrong {
            let text = String::from_utf8_lossy(value.as_ref());
            return Err(invalid(format!("the {name} \"{}\" {why}", shown(&text))));
        }
        self.put(name, value)
            .map_err(|error| invalid(error.to_string()))
    }

    /// The same event, said to have happened at `time`, to the millisecond. What lies beyond the years that RFC 3339 has is the first or the
    /// last of them.
    #[must_use]
    pub fn with_time(self, time: SystemTime) -> Self {
        self.with_known("time", rfc3339::millis(time))
    }

    /// The same event with a deadline: no handler starts for it from `time` on, by the clock of Redis. It is then a dead letter, for
    /// which it says `expired`.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use streamhand::Envelope;
    /// let code = Envelope::new("code.sent").with_expires(SystemTime::now() + Duration::from_secs(600));
    /// assert!(code.expires().is_some());
    /// ```
    #[must_use]
    pub fn with_expires(self, time: SystemTime) -> Self {
        self.with_known("expires", rfc3339::millis(time))
    }

    /// The same event with at most so many attempts, one at least. Its handler's `max_attempts` holds if that is less.
    #[must_use]
    pub fn with_max_attempts(self, most: u32) -> Self {
        self.with_known("maxattempts", most.max(1).to_string())
    }

    /// As [`with`](Self::with), of a value that was made here: a time or a trace context is not looked at.
    pub(crate) fn with_known(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        match self.put(name, value) {
            Ok(envelope) => envelope,
            Err(error) => panic!("{name}: {error}"),
        }
    }

    fn put(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, DecodeError> {
        let fields = &mut self.entry.fields;
        if fields.value(name).is_none() {
            let at = fields.len().min(u16::MAX as usize) as u16;
            fields.push(name, &value);
            self.known.learn(at, name.as_bytes(), value.as_ref())?;
        } else {
            let mut new = Some(value.as_ref());
            let replaced = fields.iter().map(|(n, old)| {
                let is_first = n == name.as_bytes();
                (
                    n,
                    if is_first {
                        new.take().unwrap_or(old)
                    } else {
                        old
                    },
                )
            });
            *fields = replaced.collect();
            self.known = codec::find(fields)?;
        }
        Ok(self)
    }

    /// The type, such as `order.created`.
    pub fn event_type(&self) -> &str {
        self.text(self.known.event_type).unwrap_or_default()
    }

    /// The event's id: the field `id`, or the entry's id if there is none, or an empty one.
    pub fn id(&self) -> Cow<'_, str> {
        match self.text(self.known.id) {
            Some(id) => Cow::Borrowed(id),
            None => Cow::Owned(self.entry.id.to_string()),
        }
    }

    /// The id Redis gave the entry.
    pub fn entry_id(&self) -> EntryId {
        self.entry.id
    }

    /// When it happened: the field `time` (RFC 3339, with any offset; in UTC if it says none), or the time in the
    /// entry's id if there is none or it can't be read.
    pub fn time(&self) -> SystemTime {
        self.text(self.known.time)
            .and_then(rfc3339::parse_or_utc)
            .unwrap_or_else(|| self.entry.id.time())
    }

    /// Who published it; none if the field is empty.
    pub fn source(&self) -> Option<&str> {
        self.text(self.known.source)
    }

    /// What it is about: the ordering key, an aggregate's id; none if the field is empty.
    pub fn subject(&self) -> Option<&str> {
        self.text(self.known.subject)
    }

    /// The version of the event's schema, 1 if the entry says nothing.
    pub fn version(&self) -> u32 {
        self.known.version.unwrap_or(1)
    }

    /// Its deadline: the field `expires` (RFC 3339, with any offset; in UTC if it says none). From then on no handler starts
    /// for it. None if there is none, or it can't be read.
    pub fn expires(&self) -> Option<SystemTime> {
        rfc3339::parse_or_utc(self.text(self.known.expires)?)
    }

    /// How many attempts it has at most by its own field `maxattempts`; none if there is none, or it is no whole number
    /// from 1.
    pub fn max_attempts(&self) -> Option<u32> {
        self.known.max_attempts
    }

    /// The W3C trace context it was published in; none if the field is no such thing, as the W3C wants it. What it
    /// says all the same is its [`field`](Self::field).
    pub fn traceparent(&self) -> Option<&str> {
        self.text(self.known.traceparent)
            .filter(|text| traceparent::is_valid(text.as_bytes()))
    }

    /// The content type of the data, `application/json` if the entry says nothing.
    pub fn content_type(&self) -> &str {
        self.text(self.known.content_type).unwrap_or(codec::JSON)
    }

    /// The data, undecoded; empty if there is none.
    pub fn data(&self) -> &[u8] {
        self.known.data.map(|at| self.bytes(at)).unwrap_or_default()
    }

    /// Decodes the data by its content type.
    ///
    /// # Errors
    /// If it is no `T`, or of a content type that is not known.
    pub fn decode_data<T: Decodable>(&self) -> Result<T, DecodeError> {
        let content_type = self.known.content_type.map(|at| self.bytes(at));
        codec::decode(content_type.unwrap_or(codec::JSON.as_bytes()), self.data())
    }

    /// The fields that have no meaning of their own here.
    pub fn extensions(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entry
            .fields
            .iter()
            .filter(|(name, _)| !codec::is_known(name))
    }

    /// The value of a field, if it is there and text.
    pub fn field(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.entry.fields.value(name)?).ok()
    }

    /// All fields, as they came.
    pub fn fields(&self) -> &Fields {
        &self.entry.fields
    }

    /// The field `time` as it came, whatever it holds; none if it is empty.
    pub(crate) fn time_as_it_came(&self) -> Option<&str> {
        self.text(self.known.time)
    }

    /// The type, not made sure of once more to be text: for the path of an entry.
    pub(crate) fn type_bytes(&self) -> &[u8] {
        self.known
            .event_type
            .map(|at| self.bytes(at))
            .unwrap_or_default()
    }

    /// The field `traceparent`, likewise, whatever it holds.
    #[inline]
    pub(crate) fn traceparent_as_it_came(&self) -> Option<&[u8]> {
        self.known.traceparent.map(|at| self.bytes(at))
    }

    /// Whether it says a deadline.
    #[inline]
    pub(crate) fn may_expire(&self) -> bool {
        self.known.expires.is_some()
    }

    /// The field `id`, likewise.
    pub(crate) fn id_bytes(&self) -> Option<&[u8]> {
        self.known.id.map(|at| self.bytes(at))
    }

    /// The field `source`, likewise; empty if there is none.
    pub(crate) fn source_bytes(&self) -> &[u8] {
        self.known
            .source
            .map(|at| self.bytes(at))
            .unwrap_or_default()
    }

    /// Whether a field is there and says something: an empty one is none.
    pub(crate) fn says(&self, name: &str) -> bool {
        match self.known.slot(name) {
            Some(slot) => slot.is_some(),
            None => {
                let value = self.entry.fields.value(name);
                value.is_some_and(|value| !value.is_empty())
            }
        }
    }

    fn bytes(&self, at: u16) -> &[u8] {
        self.entry.fields.at(at as usize).1
    }

    fn text(&self, at: Option<u16>) -> Option<&str> {
        // `find` has seen that it is UTF-8; a field that is not there is None.
        std::str::from_utf8(self.bytes(at?)).ok()
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("entry_id", &self.entry.id)
            .field("type", &self.event_type())
            .field(
                "data",
                &String::from_utf8_lossy(&self.data()[..self.data().len().min(200)]),
            )
            .finish_non_exhaustive()
    }
}

fn invalid(message: String) -> crate::Error {
    crate::Error::new(crate::ErrorKind::Invalid, message)
}

/// Stops the compiler at an event whose type or version can't be one.
pub(crate) const fn demand<E: Event>() {
    event_type::demand(E::TYPE);
    assert!(E::VERSION > 0, "Event::VERSION counts from 1");
}

/// The same event with an id if it has none, or an empty one.
pub(crate) fn with_id(envelope: Envelope) -> Envelope {
    if envelope.says("id") {
        return envelope;
    }
    let id = Uuid::now_v7().hyphenated();
    envelope.with_known("id", id.encode_lower(&mut Uuid::encode_buffer()))
}

/// The envelope of an event: its type, its version and its data.
pub(crate) fn envelope_of<E: Event + Encodable>(
    event: &E,
    format: Format,
) -> crate::Result<Envelope> {
    let data = codec::encode(format, event)?;
    let envelope = Envelope::new(E::TYPE)
        .with("datacontenttype", format.content_type())
        .with("data", data);
    Ok(if E::VERSION == 1 {
        envelope
    } else {
        envelope.with("schemaversion", E::VERSION.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_field_can_not_mean_is_refused_with_what_would_be_right() {
        let refusals = [
            ("time", "yesterday"),
            ("time", "2026-01-31T12:00:00"),
            ("time", "\u{1b}[31m"),
            ("traceparent", "00-1-2-01"),
            ("schemaversion", "0"),
        ]
        .map(|(name, value)| {
            // Whether it is there already or not.
            let event = Envelope::new("order.created");
            let there = event.clone().with_known("schemaversion", "7");
            let error = event.try_with(name, value).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid);
            let again = there.try_with(name, value).unwrap_err();
            assert_eq!(error.to_string(), again.to_string());
            error.to_string()
        })
        .join("\n");
        insta::assert_snapshot!(refusals, @r#"
        the time "yesterday" is no time as RFC 3339 writes it; write 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00
        the time "2026-01-31T12:00:00" does not say its offset from UTC; write 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00
        the time "\u{1b}[31m" is no time as RFC 3339 writes it; write 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00
        the traceparent "00-1-2-01" is none by the W3C's trace context; write it like 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
        the field `schemaversion` is "0", not a whole number from 1
        "#);
        let error = Envelope::new("order.created").try_with("id", [0xFF]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "the field `id` is not UTF-8"
        );
    }

    #[test]
    fn what_is_right_or_empty_or_has_no_meaning_is_taken() {
        let event = Envelope::new("order.created")
            .with("time", "2026-01-31T13:00:00+01:00")
            .with("traceparent", traceparent::EXAMPLE)
            .with("subject", "")
            .with("tracestate", "a=1");
        assert_eq!(rfc3339::written(event.time()), "2026-01-31T12:00:00Z");
        assert_eq!(event.traceparent(), Some(traceparent::EXAMPLE));
        let event = event.with("time", "").with("traceparent", "");
        assert_eq!(event.time(), EntryId::default().time());
        assert_eq!(event.traceparent(), None);
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        assert_eq!(
            event.with_time(at).field("time"),
            Some("1970-01-01T00:00:01.500Z")
        );
    }

    #[test]
    fn what_others_have_written_is_taken_as_it_came() {
        let fields = [
            ("type", "a.b"),
            ("time", "soon"),
            ("traceparent", "00-1-2-01"),
        ];
        let id = EntryId { ms: 7, seq: 0 };
        let fields = fields.into_iter().collect();
        let event = Envelope::decode(Entry { id, fields }).unwrap();
        assert_eq!((event.time(), event.traceparent()), (id.time(), None));
        assert_eq!(event.field("traceparent"), Some("00-1-2-01"));
    }

    #[test]
    #[should_panic(expected = "the time \"now\" is no time")]
    fn a_value_that_was_to_be_right_and_is_not_panics() {
        let _ = Envelope::new("order.created").with("time", "now");
    }
}
