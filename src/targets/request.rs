//! What a handler in another language is given: the event as CloudEvents have it, and what a handler here finds in its
//! context.
//!
//! Data that is MessagePack is handed on as JSON, which every language reads; where it can't be JSON it stays as it is.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::transcode;
use crate::codec::{self, Format};
use crate::context::Context;
use crate::event::Envelope;
use crate::identity::which;
use crate::rfc3339;

/// What idempotency keys are made in: UUIDv5 of `streamhand:idempotency` in the namespace of URLs.
const NAMESPACE: Uuid = Uuid::from_u128(0x5d0e_9d0c_2a8b_5d58_8f4d_2f3f_b1a9_70c3);

/// An event on its way to a handler in another language.
pub(crate) struct Request {
    pub envelope: Envelope,
    pub attempt: u32,
    pub max_attempts: u32,
    pub group: String,
    pub stream: String,
    /// The same for each attempt at an event by a group, also when it was replayed; another one for another group.
    pub idempotency_key: String,
    /// When nobody waits for its answer any more.
    pub deadline: SystemTime,
    /// The trace it is to be part of.
    pub traceparent: Option<String>,
    pub data: Data,
}

/// An event's data as it is handed on.
pub(crate) struct Data {
    pub content_type: String,
    pub bytes: Vec<u8>,
    /// Whether it is JSON, and none that only says so.
    pub is_json: bool,
}

impl Request {
    /// The event that a handler was given, which has so long for it.
    pub fn of(ctx: &Context, timeout: Duration) -> Self {
        let envelope = ctx.envelope().clone();
        let trace = ctx.trace().map(|trace| trace.to_string());
        let came_with = || envelope.traceparent().map(str::to_owned);
        Request {
            attempt: ctx.attempt(),
            max_attempts: ctx.max_attempts(),
            group: ctx.group().to_owned(),
            stream: ctx.stream().to_owned(),
            idempotency_key: idempotency_key(ctx.group(), &envelope),
            deadline: SystemTime::now() + timeout.min(Duration::from_secs(366 * 24 * 3600)),
            traceparent: trace.or_else(came_with),
            data: Data::of(&envelope),
            envelope,
        }
    }

    /// The attributes of the event by CloudEvents, but its data and the type of that, each as text. A field whose name
    /// CloudEvents do not allow is not among them.
    pub fn attributes(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let envelope = &self.envelope;
        let own = [
            ("specversion", Some(Cow::Borrowed("1.0"))),
            ("id", Some(envelope.id())),
            ("source", Some(source(&self.stream, envelope))),
            ("type", Some(Cow::Borrowed(envelope.event_type()))),
            ("subject", envelope.subject().map(Cow::Borrowed)),
            ("time", Some(time(envelope))),
            (
                "traceparent",
                self.traceparent.as_deref().map(Cow::Borrowed),
            ),
            (
                "schemaversion",
                (envelope.version() != 1).then(|| Cow::Owned(envelope.version().to_string())),
            ),
        ];
        let own = own
            .into_iter()
            .filter_map(|(name, value)| Some((Cow::Borrowed(name), value?)));
        let extensions = envelope.extensions().filter_map(|(name, value)| {
            let name = std::str::from_utf8(name)
                .ok()
                .filter(|name| is_name(name))?;
            let value = std::str::from_utf8(value).ok()?;
            (!value.is_empty()).then_some((Cow::Borrowed(name), Cow::Borrowed(value)))
        });
        own.chain(extensions)
    }

    /// The event alone, in CloudEvents' structured form.
    pub fn event_json(&self) -> Vec<u8> {
        to_json(&Event(self))
    }

    /// Everything as one JSON object on one line, and `id` as its first member if there is one: for commands.
    pub fn json(&self, id: Option<u64>) -> Vec<u8> {
        to_json(&Whole { request: self, id })
    }

    /// The deadline as text.
    pub fn deadline_text(&self) -> String {
        rfc3339::millis(self.deadline)
    }
}

impl Data {
    fn of(envelope: &Envelope) -> Self {
        let (content_type, data) = (envelope.content_type(), envelope.data());
        let as_it_is = |is_json| Data {
            content_type: content_type.to_owned(),
            bytes: data.to_vec(),
            is_json,
        };
        let is_json = |data| serde_json::from_slice::<&RawValue>(data).is_ok();
        match codec::format(content_type) {
            _ if data.is_empty() => as_it_is(false),
            Ok(Format::Json) => as_it_is(is_json(data)),
            Ok(Format::MessagePack) => match transcode::to_json(data) {
                Some(bytes) => Data {
                    content_type: codec::JSON.to_owned(),
                    bytes,
                    is_json: true,
                },
                None => as_it_is(false),
            },
            Err(_) => as_it_is(content_type.contains("+json") && is_json(data)),
        }
    }
}

struct Event<'a>(&'a Request);

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut event = to.serialize_map(None)?;
        for (name, value) in self.0.attributes() {
            event.serialize_entry(&name, &value)?;
        }
        let data = &self.0.data;
        if data.bytes.is_empty() {
            return event.end();
        }
        event.serialize_entry("datacontenttype", &data.content_type)?;
        let json = match data.is_json {
            true => serde_json::from_slice::<&RawValue>(&data.bytes).ok(),
            false => None,
        };
        match (json, std::str::from_utf8(&data.bytes)) {
            (Some(json), _) => event.serialize_entry("data", json)?,
            (None, Ok(text)) if data.content_type.starts_with("text/") => {
                event.serialize_entry("data", text)?;
            }
            _ => event.serialize_entry("data_base64", &BASE64_STANDARD.encode(&data.bytes))?,
        }
        event.end()
    }
}

struct Whole<'a> {
    request: &'a Request,
    id: Option<u64>,
}

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Request {
            attempt,
            max_attempts,
            group,
            stream,
            idempotency_key,
            ..
        } = self.request;
        let mut whole = to.serialize_map(None)?;
        if let Some(id) = self.id {
            whole.serialize_entry("id", &id)?;
        }
        whole.serialize_entry("event", &Event(self.request))?;
        whole.serialize_entry("attempt", attempt)?;
        whole.serialize_entry("max_attempts", max_attempts)?;
        whole.serialize_entry("group", group)?;
        whole.serialize_entry("stream", stream)?;
        whole.serialize_entry("idempotency_key", idempotency_key)?;
        whole.serialize_entry("deadline", &self.request.deadline_text())?;
        whole.end()
    }
}

/// JSON on one line: data that was written over several is not broken where a line ends.
fn to_json(what: &impl Serialize) -> Vec<u8> {
    let mut json =
        serde_json::to_vec(what).expect("texts, numbers and JSON can be written as JSON");
    // Between the parts of JSON, which is the only place where they can be.
    for byte in &mut json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    json
}

fn idempotency_key(group: &str, envelope: &Envelope) -> String {
    let id = envelope.id();
    let which = which(
        envelope.source_bytes(),
        id.as_bytes(),
        envelope.type_bytes(),
    );
    let name = format!("{group}\0{which}");
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
        .hyphenated()
        .to_string()
}

/// Where an event comes from that does not say it: its id is one of its stream's.
fn source<'a>(stream: &str, envelope: &'a Envelope) -> Cow<'a, str> {
    match envelope.source() {
        Some(source) => Cow::Borrowed(source),
        None => {
            let encoded: String = url::form_urlencoded::byte_serialize(stream.as_bytes()).collect();
            Cow::Owned(format!("/streams/{}", encoded.replace('+', "%20")))
        }
    }
}

fn time(envelope: &Envelope) -> Cow<'_, str> {
    match envelope.field("time") {
        Some(time) if rfc3339::parse(time).is_ok() => Cow::Borrowed(time),
        _ => Cow::Owned(rfc3339::millis(envelope.time())),
    }
}

/// What CloudEvents allow as the name of an attribute, and use themselves for nothing else.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !name.is_empty() && name.chars().all(plain) && name != "specversion"
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(envelope: Envelope) -> Request {
        let ctx = Context::for_test_with(envelope, None);
        Request::of(&ctx, Duration::from_secs(10))
    }

    fn parsed(json: &[u8]) -> Value {
        assert!(!json.contains(&b'\n'), "one line");
        serde_json::from_slice(json).expect("JSON")
    }

    #[test]
    fn an_event_is_a_cloud_event_with_what_a_handler_knows_beside_it() {
        let envelope = Envelope::new("order.created")
            .with("id", "e-1")
            .with("source", "shop")
            .with("subject", "o-1")
            .with("time", "2026-01-31T12:00:00Z")
            .with("tenant", "a")
            .with("Not-One", "x")
            .with("data", "{\"n\":\n 12345678901234567890}");
        let whole = parsed(&of(envelope.clone()).json(Some(7)));
        let said = json!({
            "specversion": "1.0", "id": "e-1", "source": "shop", "type": "order.created", "subject": "o-1",
            "time": "2026-01-31T12:00:00Z", "tenant": "a", "datacontenttype": "application/json",
            "data": {"n": 12_345_678_901_234_567_890_u64},
        });
        assert_eq!(whole["event"], said);
        assert_eq!(parsed(&of(envelope).event_json()), said);
        for (name, value) in [
            ("id", json!(7)),
            ("attempt", json!(1)),
            ("max_attempts", json!(5)),
            ("group", json!("test")),
            ("stream", json!("test")),
        ] {
            assert_eq!(whole[name], value, "{name}");
        }
    }

    #[test]
    fn messagepack_comes_as_json_and_what_is_no_json_as_it_is() {
        let event = Envelope::new("a.b")
            .msgpack(&json!({"n": [1, -2, 1.5, null, "ä"]}))
            .expect("data");
        let said = parsed(&of(event).event_json());
        assert_eq!(said["data"], json!({"n": [1, -2, 1.5, null, "ä"]}));
        assert_eq!(said["datacontenttype"], "application/json");

        let broken = Envelope::new("a.b").with("data", "{");
        let said = parsed(&of(broken).event_json());
        assert_eq!(
            (&said["data_base64"], said.get("data")),
            (&json!("ew=="), None)
        );

        let text = Envelope::new("a.b")
            .with("datacontenttype", "text/plain")
            .with("data", "hello");
        assert_eq!(parsed(&of(text).event_json())["data"], "hello");
    }

    #[test]
    fn the_idempotency_key_is_that_of_the_event_and_the_group() {
        let key = |id: &str, source: &str| {
            let envelope = Envelope::new("a.b").with("id", id).with("source", source);
            of(envelope).idempotency_key
        };
        assert_eq!(key("1", "a"), key("1", "a"));
        assert_ne!(key("1", "a"), key("2", "a"));
        assert_ne!(key("1", "a"), key("1", "b"));
    }
}
