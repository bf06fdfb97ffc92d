//! One JSON value into one event. What is wrong is said as the end of a sentence about the line it stood on.

use std::fmt;
use std::time::SystemTime;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::codec::{self, Format};
use crate::event::Envelope;
use crate::event_type;
use crate::rfc3339;
use crate::traceparent;

/// What the command line says of every event.
pub(super) struct Template {
    /// Every value is the data of an event of this type; None reads whole events.
    pub event_type: Option<String>,
    pub id: Option<String>,
    pub subject: Option<String>,
    pub version: Option<u32>,
    pub expires: Option<SystemTime>,
    pub max_attempts: Option<u32>,
    /// The data stays the JSON it is.
    pub keep_json: bool,
    /// Each value stands on a line of its own.
    pub lines: bool,
    /// A whole event says its id, too.
    pub needs_id: bool,
}

impl Template {
    /// The event that `text` describes.
    pub fn event(&self, text: &str) -> Result<Envelope, String> {
        let Some(event_type) = &self.event_type else {
            return self.whole(text);
        };
        let mut envelope = self.with_data(Envelope::new(event_type), text, self.format())?;
        for (name, value) in [("id", &self.id), ("subject", &self.subject)] {
            if let Some(value) = value {
                envelope = envelope.with(name, value.clone());
            }
        }
        if let Some(version) = self.version {
            envelope = envelope.with("schemaversion", version.to_string());
        }
        if let Some(expires) = self.expires {
            envelope = envelope.with_expires(expires);
        }
        if let Some(most) = self.max_attempts {
            envelope = envelope.with_max_attempts(most);
        }
        Ok(envelope)
    }

    fn format(&self) -> Format {
        if self.keep_json {
            Format::Json
        } else {
            Format::MessagePack
        }
    }

    fn with_data(
        &self,
        envelope: Envelope,
        json: &str,
        format: Format,
    ) -> Result<Envelope, String> {
        let value: serde_json::Value =
            serde_json::from_str(json).map_err(|error| self.no_json(json, &error))?;
        let data = match format {
            Format::Json => json.to_owned().into(),
            Format::MessagePack => {
                if let Some(number) = too_large(json) {
                    return Err(format!(
                        "has the number {number}, which MessagePack can't carry; write it in quotes, or keep the data \
                         as it is by --json-data"
                    ));
                }
                codec::encode(format, &value).map_err(|error| format!("is no data: {error}"))?
            }
        };
        Ok(envelope
            .with("datacontenttype", format.content_type())
            .with("data", data))
    }

    /// An event that says everything of itself.
    fn whole(&self, text: &str) -> Result<Envelope, String> {
        let Members(members) = serde_json::from_str(text).map_err(|error| {
            match error.classify() {
                serde_json::error::Category::Data if text.starts_with('{') => {
                    format!("is no event: {}", without_place(&error))
                }
                serde_json::error::Category::Data => {
                    "is no event: expected an object such as {\"type\":\"order.created\",\"data\":{}}; for lines \
                     that are data alone name their type in place of --envelopes"
                        .to_owned()
                }
                _ => self.no_json(text, &error),
            }
        })?;
        let member = |name: &str| members.iter().find(|(known, _)| known == name);
        let Some((_, event_type)) = member("type") else {
            return Err("is no event: it has no \"type\"".to_owned());
        };
        let event_type = string("type", event_type)?;
        event_type::check(&event_type)
            .map_err(|why| format!("has the type {event_type:?}, which {why}"))?;
        let Some((_, data)) = member("data") else {
            return Err(
                "has no \"data\"; write \"data\":null where there is nothing to say".to_owned(),
            );
        };
        let format = match member("datacontenttype") {
            None => self.format(),
            Some((name, value)) => match &string(name, value)?[..] {
                codec::JSON => Format::Json,
                codec::MSGPACK => Format::MessagePack,
                other => {
                    return Err(format!(
                        "has the datacontenttype {other:?}; data is written as {} or {}",
                        codec::JSON,
                        codec::MSGPACK
                    ));
                }
            },
        };
        let mut envelope = self
            .with_data(Envelope::new(event_type), data.get(), format)
            .map_err(|why| format!("has data that {why}"))?;
        for (name, value) in &members {
            let value = match &name[..] {
                "type" | "data" | "datacontenttype" => continue,
                "schemaversion" => version(value)?,
                "maxattempts" => max_attempts(value)?,
                "time" => time(&string(name, value)?)?,
                "traceparent" => trace_context(&string(name, value)?)?,
                "data_base64" => {
                    return Err(
                        "has \"data_base64\"; data is read as JSON, from \"data\"".to_owned()
                    );
                }
                "" => return Err("has a field without a name".to_owned()),
                _ => string(name, value)?,
            };
            envelope = envelope
                .try_with(name, value)
                .map_err(|error| format!("can't be published: {error}"))?;
        }
        if self.needs_id && !envelope.says("id") {
            return Err(
                "has no \"id\", by which it would be known again: --once, --replace and --debounce need one".to_owned(),
            );
        }
        Ok(envelope)
    }

    /// Why a value is no JSON, and what to do where that can be guessed.
    fn no_json(&self, text: &str, error: &serde_json::Error) -> String {
        let what = without_place(error);
        if text.trim().is_empty() {
            return "is empty; write {} where there is nothing to say".to_owned();
        }
        if error.is_eof() {
            let advice = "; each line must be one (jq -c . FILE writes them so, jq -c '.[]' FILE the elements of a list)";
            let advice = if self.lines { advice } else { "" };
            return format!("is no whole JSON value: {what}{advice}");
        }
        if text.starts_with('\u{feff}') {
            return "begins with a byte order mark; take it away".to_owned();
        }
        format!("is no JSON at column {}: {what}", error.column())
    }
}

/// An object's members in their order.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members, M::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        let twice = format!("it has {name:?} twice");
                        return Err(serde::de::Error::custom(twice));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

fn string(name: &str, value: &RawValue) -> Result<String, String> {
    serde_json::from_str(value.get()).map_err(|_| {
        let found = match value.get().as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'n') => "null: leave it out where there is none",
            Some(b't' | b'f') => "true or false: write it in quotes",
            _ => "a number: write it in quotes",
        };
        format!("has a {name:?} that is no text, but {found}")
    })
}

fn version(value: &RawValue) -> Result<String, String> {
    let text = value.get().trim_matches('"');
    match text.parse::<u32>() {
        Ok(version) if version > 0 => Ok(version.to_string()),
        _ => Err(format!(
            "has the schemaversion {}, which is no whole number from 1",
            value.get().chars().take(40).collect::<String>()
        )),
    }
}

fn max_attempts(value: &RawValue) -> Result<String, String> {
    let text = value.get().trim_matches('"');
    codec::max_attempts(text.as_bytes())
        .map(|number| number.to_string())
        .ok_or_else(|| {
            let text: String = value.get().chars().take(40).collect();
            format!("has the maxattempts {text}, which is no whole number from 1")
        })
}

fn time(text: &str) -> Result<String, String> {
    match rfc3339::parse(text) {
        // An empty one is none.
        _ if text.is_empty() => Ok(String::new()),
        Ok(_) => Ok(text.to_owned()),
        Err(why) => Err(format!("has the time {text:?}, which {why}")),
    }
}

fn trace_context(text: &str) -> Result<String, String> {
    // An empty one is none.
    if text.is_empty() || traceparent::is_valid(text.as_bytes()) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "has the traceparent {text:?}, which is none by the W3C's trace context; write it like {}",
        traceparent::EXAMPLE
    ))
}

/// The message without the line and column it ends in: a line of a file is always the first of its own.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// The first whole number in a JSON text that no integer of 64 bits holds: as a floating-point number it would
/// silently become another.
fn too_large(json: &str) -> Option<&str> {
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                while at < bytes.len()
                    && matches!(bytes[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
                {
                    at += 1;
                }
                let number = &json[start..at];
                let whole = !number.contains(['.', 'e', 'E']);
                if whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
            }
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(event_type: Option<&str>) -> Template {
        Template {
            event_type: event_type.map(str::to_owned),
            id: None,
            subject: Some("o-1".to_owned()),
            expires: None,
            max_attempts: None,
            version: Some(3),
            keep_json: false,
            lines: true,
            needs_id: false,
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_found_outside_of_strings_alone() {
        for (json, found) in [
            ("18446744073709551616", Some("18446744073709551616")),
            (
                r#"{"a":[1,-9223372036854775809]}"#,
                Some("-9223372036854775809"),
            ),
            (
                r#"{"\"18446744073709551616":"99999999999999999999\\"}"#,
                None,
            ),
            (
                "[18446744073709551615,-9223372036854775808,1e30,99999999999999999999.5]",
                None,
            ),
        ] {
            assert!(
                serde_json::from_str::<serde_json::Value>(json).is_ok(),
                "{json}"
            );
            assert_eq!(too_large(json), found, "{json}");
        }
    }

    #[test]
    fn data_becomes_an_event_of_the_type() {
        let event = template(Some("order.created"))
            .event(r#"{"order_id":"o-1","amount":12}"#)
            .unwrap();
        assert_eq!(event.event_type(), "order.created");
        assert_eq!((event.subject(), event.version()), (Some("o-1"), 3));
        assert_eq!(event.content_type(), codec::MSGPACK);
        let data: serde_json::Value = event.decode_data().unwrap();
        assert_eq!(data, serde_json::json!({"order_id": "o-1", "amount": 12}));
    }

    #[test]
    fn a_whole_event_says_everything_of_itself() {
        let event = template(None)
            .event(
                r#"{"shard":"7","type":"order.created","id":"e-1","time":"2026-01-31T12:00:00Z","schemaversion":2,
                    "datacontenttype":"application/json","data": {"b":1, "a":2},"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#,
            )
            .unwrap();
        assert_eq!(event.id(), "e-1");
        assert_eq!((event.subject(), event.version()), (None, 2));
        assert_eq!(event.data(), br#"{"b":1, "a":2}"#);
        assert_eq!(event.field("shard"), Some("7"));
        assert_eq!(
            event.traceparent(),
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        );
    }

    #[test]
    fn what_is_no_event_is_refused_with_what_would_be_right() {
        let refusals = [
            r#"{"order_id": "o-1""#,
            "[",
            r#"{"type":"order.created","data":{}}, "#,
            r#"["order.created",{}]"#,
            "17",
            r#"{"data":{}}"#,
            r#"{"type":"order.created"}"#,
            r#"{"type":"Order.created","data":{}}"#,
            r#"{"type":7,"data":{}}"#,
            r#"{"type":"order.created","data":{},"data":1}"#,
            r#"{"type":"order.created","data":99999999999999999999}"#,
            r#"{"type":"order.created","data":{},"subject":null}"#,
            r#"{"type":"order.created","data":{},"tenant":7}"#,
            r#"{"type":"order.created","data":{},"tags":["a"]}"#,
            r#"{"type":"order.created","data":{},"schemaversion":0}"#,
            r#"{"type":"order.created","data":{},"time":"yesterday"}"#,
            r#"{"type":"order.created","data":{},"traceparent":"00-1-2-01"}"#,
            r#"{"type":"order.created","data":{},"datacontenttype":"text/xml"}"#,
            r#"{"type":"order.created","data_base64":"AA==","data":null}"#,
            r#"{"type":"order.created","data":{},"":"x"}"#,
        ]
        .map(|line| template(None).event(line).expect_err(line))
        .join("\n");
        insta::assert_snapshot!(refusals, @r#"
        is no whole JSON value: EOF while parsing an object; each line must be one (jq -c . FILE writes them so, jq -c '.[]' FILE the elements of a list)
        is no event: expected an object such as {"type":"order.created","data":{}}; for lines that are data alone name their type in place of --envelopes
        is no JSON at column 35: trailing characters
        is no event: expected an object such as {"type":"order.created","data":{}}; for lines that are data alone name their type in place of --envelopes
        is no event: expected an object such as {"type":"order.created","data":{}}; for lines that are data alone name their type in place of --envelopes
        is no event: it has no "type"
        has no "data"; write "data":null where there is nothing to say
        has the type "Order.created", which has the upper-case letter 'O' at position 1; write "order.created"
        has a "type" that is no text, but a number: write it in quotes
        is no event: it has "data" twice
        has data that has the number 99999999999999999999, which MessagePack can't carry; write it in quotes, or keep the data as it is by --json-data
        has a "subject" that is no text, but null: leave it out where there is none
        has a "tenant" that is no text, but a number: write it in quotes
        has a "tags" that is no text, but a list
        has the schemaversion 0, which is no whole number from 1
        has the time "yesterday", which is no time as RFC 3339 writes it; write 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00
        has the traceparent "00-1-2-01", which is none by the W3C's trace context; write it like 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
        has the datacontenttype "text/xml"; data is written as application/json or application/msgpack
        has "data_base64"; data is read as JSON, from "data"
        has a field without a name
        "#);
    }
}
