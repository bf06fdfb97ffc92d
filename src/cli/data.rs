//! Values of an entry as text: JSON and MessagePack laid out, other text as it is, the rest in hexadecimal.

use std::borrow::Cow;
use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::codec;

/// A value to be shown.
#[derive(Debug, PartialEq)]
pub(super) enum Shown {
    Text(String),
    /// What it is, and its lines.
    Block(&'static str, String),
}

/// The data of an event of this content type; where it is not what it says it is, as any other value.
pub(super) fn decoded(content_type: Option<&str>, data: &[u8]) -> Shown {
    match json(content_type.unwrap_or(codec::JSON), data) {
        Some((format, json)) => Shown::Block(format, laid_out(&json)),
        None => value(data),
    }
}

/// The data of an event of this content type as JSON, and what it was; None where it is not what it says it is.
pub(super) fn json<'a>(content_type: &str, data: &'a [u8]) -> Option<(&'static str, Cow<'a, str>)> {
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

/// Any other value.
pub(super) fn value(bytes: &[u8]) -> Shown {
    match std::str::from_utf8(bytes) {
        Ok(text) => Shown::Text(text.to_owned()),
        Err(_) => Shown::Block("not UTF-8, in hexadecimal", hexadecimal(bytes)),
    }
}

/// JSON on one line, its numbers and strings as they were written.
pub(super) fn on_one_line(json: &str) -> String {
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

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for line in bytes.chunks(32) {
        for (at, byte) in line.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            let _ = write!(text, "{space}{byte:02x}");
        }
        text.push('\n');
    }
    text
}

/// JSON over several lines, its numbers and strings as they were written.
pub(super) fn laid_out(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let (mut in_string, mut escaped) = (false, false);
    let mut chars = json.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_and_otherwise_left_alone() {
        let json = r#"{ "n":99999999999999999999,"s":"a{\"b\\",  "l":[1, [ ] ,{}],"e":"" }"#;
        let Shown::Block("JSON", text) = decoded(None, json.as_bytes()) else {
            panic!("no JSON");
        };
        insta::assert_snapshot!(text, @r#"
        {
          "n": 99999999999999999999,
          "s": "a{\"b\\",
          "l": [
            1,
            [],
            {}
          ],
          "e": ""
        }
        "#);
        assert_eq!(on_one_line(&text), json.replace([' '], ""));
    }

    #[test]
    fn messagepack_is_shown_as_json_whatever_is_in_it() {
        // {"id": 7, 1: bin(ff 00), "x": ext(5, aa bb)}
        let data = b"\x83\xa2id\x07\x01\xc4\x02\xff\x00\xa1x\xd5\x05\xaa\xbb";
        let Shown::Block("MessagePack", text) = decoded(Some("application/msgpack"), data) else {
            panic!("no MessagePack");
        };
        insta::assert_snapshot!(text, @r#"
        {
          "1": "0xff00",
          "id": 7,
          "x": [
            5,
            "0xaabb"
          ]
        }
        "#);
    }

    #[test]
    fn what_is_not_what_it_says_is_shown_all_the_same() {
        assert_eq!(decoded(None, b"{oops"), Shown::Text("{oops".to_owned()));
        let data = b"\x93\x01\xff";
        assert_eq!(
            decoded(Some("application/msgpack"), data),
            Shown::Block("not UTF-8, in hexadecimal", "93 01 ff\n".to_owned())
        );
    }
}
