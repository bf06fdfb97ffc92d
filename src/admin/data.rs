//! Data of events as JSON, where it is that or MessagePack.

use std::borrow::Cow;
use std::fmt::{self, Write};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::codec::{self, Format};
use crate::fields::Fields;

/// The data of an event of this content type as JSON, and what it was; None where it is not what it says it is.
pub(crate) fn json<'a>(content_type: &str, data: &'a [u8]) -> Option<(&'static str, Cow<'a, str>)> {
    if content_type.contains("json") && serde_json::from_slice::<IgnoredAny>(data).is_ok() {
        return Some(("JSON", std::str::from_utf8(data).ok()?.into()));
    }
    if content_type.contains("msgpack")
        && let Ok(Any(value)) = codec::decode(codec::MSGPACK.as_bytes(), data)
    {
        return Some(("MessagePack", serde_json::to_string(&value).ok()?.into()));
    }
    None
}

/// An entry as one JSON object: the fields of its event by their names, its data decoded, what is no text as
/// `{"base64": "…"}`. Without its data where that is not asked for.
pub(crate) fn event(fields: &Fields, with_data: bool) -> serde_json::Map<String, Value> {
    let mut event = serde_json::Map::new();
    for (name, value) in fields {
        let name = String::from_utf8_lossy(name);
        if name == "data" && !with_data || event.contains_key(&*name) {
            continue;
        }
        let value = match &*name {
            "data" => data_of(fields, value),
            _ => text(value),
        };
        event.insert(name.into_owned(), value);
    }
    event
}

fn data_of(fields: &Fields, data: &[u8]) -> Value {
    let content_type = fields.value("datacontenttype").unwrap_or_default();
    let decoded = match content_type {
        b"" => serde_json::from_slice(data).ok(),
        kind => match codec::format(&String::from_utf8_lossy(kind)) {
            Ok(Format::Json) => serde_json::from_slice(data).ok(),
            Ok(Format::MessagePack) => codec::decode(codec::MSGPACK.as_bytes(), data)
                .ok()
                .map(|Any(value)| value),
            Err(_) => None,
        },
    };
    decoded.unwrap_or_else(|| text(data))
}

fn text(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => serde_json::json!({ "base64": BASE64_STANDARD.encode(value) }),
    }
}

/// JSON on one line, its numbers and strings as they were written.
pub(crate) fn on_one_line(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.chars()
        .filter(|&c| {
            if in_string {
                in_string = escaped || c != '"';
                escaped = !escaped && c == '\\';
                return true;
            }
            in_string = c == '"';
            !c.is_ascii_whitespace()
        })
        .collect()
}

/// Any MessagePack value as JSON: binary strings in hexadecimal, keys as text.
struct Any(Value);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Any;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Any, E> {
        Ok(Any(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Any, E> {
        Ok(Any(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Any, E> {
        Ok(Any(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Any, E> {
        // JSON has no NaN and no infinity.
        Ok(Any(serde_json::Number::from_f64(value).map_or_else(
            || Value::from(value.to_string()),
            Value::from,
        )))
    }

    fn visit_str<E>(self, value: &str) -> Result<Any, E> {
        Ok(Any(value.into()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Any, E> {
        let text = value.iter().fold("0x".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Ok(Any(text.into()))
    }

    fn visit_unit<E>(self) -> Result<Any, E> {
        Ok(Any(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Any, E> {
        Ok(Any(Value::Null))
    }

    /// An extension type: its number and its bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Any, D::Error> {
        Any::deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Any, A::Error> {
        let mut list = Vec::new();
        while let Some(Any(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Any(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Any, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some((Any(key), Any(value))) = map.next_entry()? {
            let key = match key {
                Value::String(text) => text,
                other => other.to_string(),
            };
            object.insert(key, value);
        }
        Ok(Any(object.into()))
    }
}
