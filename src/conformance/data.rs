//! What an event's data is, whatever it is to be read as: whether it decodes at all, and what in it is read by some and
//! not by others.

use std::collections::HashSet;
use std::io::Cursor;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::rule::Rule;
use crate::codec::Format;
use crate::names::shown;

/// The largest integer up to which all are the same in a double.
const EXACT: i128 = 1 << 53;
/// Names of members that are remembered to find those that come twice, in one object.
const MEMBERS: usize = 10_000;

/// Which rules data breaks that says of itself that it is this, and how. `error` is what a handler that takes anything
/// would say of it.
pub(super) fn look(format: Format, data: &[u8]) -> Vec<(Rule, String)> {
    let mut seen = Seen::default();
    let read = match format {
        Format::Json => json(data, &mut seen),
        Format::MessagePack => msgpack(data, &mut seen),
    };
    let mut broken = Vec::new();
    match read {
        Err(error) => broken.push((Rule::Data, error)),
        Ok(behind) => {
            if seen.ext {
                let what = "the data has a MessagePack extension type in it, such as a timestamp";
                broken.push((Rule::Ext, what.to_owned()));
            }
            if behind > 0 {
                let what = format!("{behind} bytes stand behind the MessagePack value");
                broken.push((Rule::Behind, what));
            }
            if seen.top == Some(Top::Array) && format == Format::MessagePack {
                broken.push((Rule::Array, "the data is an array".to_owned()));
            }
            if let Some(name) = seen.twice {
                let what = format!("the member \"{}\" stands there twice", shown(&name));
                broken.push((Rule::MemberTwice, what));
            }
            if seen.top == Some(Top::JsonText) {
                let what = "the data is a text that is JSON itself: it was encoded twice";
                broken.push((Rule::JsonInJson, what.to_owned()));
            }
            if format == Format::Json
                && let Some(number) = beyond(data)
            {
                let what = format!("the data has the integer {}", shown(&number));
                broken.push((Rule::Integer, what));
            }
        }
    }
    broken
}

fn json(data: &[u8], seen: &mut Seen) -> Result<usize, String> {
    let wrong = |error: serde_json::Error| {
        let hint = match data {
            [0xef, 0xbb, 0xbf, ..] => "; it begins with a byte order mark",
            [b'{', b'\'', ..] => "; it looks like a dict that Python printed",
            [0x80..=0x9f | 0xdc..=0xdf, ..] => {
                "; it looks like MessagePack, and `datacontenttype` does not say so"
            }
            _ if std::str::from_utf8(data).is_err() => "; it is not UTF-8",
            _ => "",
        };
        format!("the data does not decode as JSON: {error}{hint}")
    };
    let mut decoder = serde_json::Deserializer::from_slice(data);
    Look { seen, depth: 0 }
        .deserialize(&mut decoder)
        .map_err(wrong)?;
    decoder.end().map_err(wrong)?;
    Ok(0)
}

/// How many bytes stand behind the value.
fn msgpack(data: &[u8], seen: &mut Seen) -> Result<usize, String> {
    if matches!(data, [b'{' | b'[' | b'"', ..]) && json(data, &mut Seen::default()).is_ok() {
        let what = "the data says that it is MessagePack, and is JSON";
        return Err(what.to_owned());
    }
    // As deep as the decoder of handlers follows.
    let mut decoder = rmp_serde::Deserializer::new(Cursor::new(data));
    decoder.set_max_depth(crate::codec::MSGPACK_DEPTH);
    Look { seen, depth: 0 }
        .deserialize(&mut decoder)
        .map_err(|error| format!("the data does not decode as MessagePack: {error}"))?;
    Ok(data.len() - decoder.get_ref().position() as usize)
}

/// The first integer of valid JSON that a double can't hold for sure.
fn beyond(json: &[u8]) -> Option<String> {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'"' => {
                at += 1;
                while at < json.len() && json[at] != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let length = json[at..].iter().take_while(|byte| is_part(byte)).count();
                let number = &json[at..at + length];
                at += length;
                // Shorter ones are lower.
                if length < 16 || number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
                    continue;
                }
                let number = String::from_utf8_lossy(number);
                let is_exact = |number: i128| (-EXACT..=EXACT).contains(&number);
                if !number.parse().is_ok_and(is_exact) {
                    return Some(number.into_owned());
                }
            }
            _ => at += 1,
        }
    }
    None
}

#[derive(Clone, Copy, PartialEq)]
enum Top {
    Array,
    JsonText,
}

#[derive(Default)]
struct Seen {
    top: Option<Top>,
    twice: Option<String>,
    ext: bool,
}

/// Looks at a value.
struct Look<'a> {
    seen: &'a mut Seen,
    depth: usize,
}

impl Look<'_> {
    fn below(&mut self) -> Look<'_> {
        Look {
            seen: self.seen,
            depth: self.depth + 1,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

/// A member's name; none if it is no text.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<String>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Option<String>;
    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a member's name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Some(name.to_owned()))
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.seen.ext = true;
        let depth = self.depth + 1;
        from.deserialize_any(Look {
            seen: self.seen,
            depth,
        })
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let looks_like_it = text.trim_start().starts_with(['{', '[']);
        if self.depth == 0
            && looks_like_it
            && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
        {
            self.seen.top = Some(Top::JsonText);
        }
        Ok(())
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        if self.depth == 0 {
            self.seen.top = Some(Top::Array);
        }
        while seq.next_element_seed(self.below())?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key_seed(Name)? {
            if let Some(name) = name
                && names.len() < MEMBERS
                && let Some(twice) = names.replace(name)
            {
                self.seen.twice.get_or_insert(twice);
            }
            map.next_value_seed(self.below())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_that_a_double_can_not_hold_are_found_in_numbers_alone() {
        for (json, found) in [
            ("9007199254740992", None),
            ("9007199254740993", Some("9007199254740993")),
            ("[-9007199254740993]", Some("-9007199254740993")),
            (r#"{"9007199254740993":"9007199254740993"}"#, None),
            (
                r#"{"a\"":"\\","b":18446744073709551616}"#,
                Some("18446744073709551616"),
            ),
            ("[1e300,12345678901234567.5]", None),
        ] {
            assert_eq!(beyond(json.as_bytes()).as_deref(), found, "{json}");
        }
    }
}
