//! One value within JSON or MessagePack put in the place of another: all other bytes stay as they are, so that no number
//! and no binary string is lost on its way through another form.

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Nesting that is followed.
const DEEPEST: usize = 128;

/// Names and places on the way to a value: `a.0.b`. A dot of a name's own is written `\.`.
pub(super) fn path(text: &str) -> Vec<String> {
    let mut path = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = path.last_mut().expect("there is always one");
        match c {
            '.' => path.push(String::new()),
            '\\' => last.push(chars.next().unwrap_or('\\')),
            c => last.push(c),
        }
    }
    path
}

/// JSON with another value at a path. A name that is not there is added at the end of its object, and a value behind the last
/// of an array.
pub(super) fn set_in_json(json: &str, path: &[String], value: &str) -> Result<String, String> {
    set_json(json, path, value, &mut Vec::new())
}

fn set_json<'p>(
    json: &str,
    path: &'p [String],
    value: &str,
    way: &mut Vec<&'p str>,
) -> Result<String, String> {
    let Some((head, rest)) = path.split_first() else {
        return Ok(value.to_owned());
    };
    let parts = parts(json).map_err(|error| format!("{} is no JSON: {error}", shown(way)))?;
    let splice = |part: &RawValue, new: &str| {
        let at = part.get().as_ptr() as usize - json.as_ptr() as usize;
        [&json[..at], new, &json[at + part.get().len()..]].concat()
    };
    let add = |new: String, is_empty: bool, close: char| {
        let at = json.rfind(close).unwrap_or(json.len());
        let comma = if is_empty { "" } else { "," };
        [json[..at].trim_end(), comma, &new, &json[at..]].concat()
    };
    let found = match &parts {
        Parts::Object(pairs) => pairs.iter().rev().find(|(name, _)| name == head),
        Parts::Array(items) => place(head, items.len(), way)?.and_then(|at| items.get(at)),
        Parts::Other => return Err(format!("{} is neither an object nor a list", shown(way))),
    };
    if let Some((_, part)) = found {
        way.push(head);
        return Ok(splice(part, &set_json(part.get(), rest, value, way)?));
    }
    if !rest.is_empty() {
        return Err(format!("there is no {head} in {}", shown(way)));
    }
    Ok(match &parts {
        Parts::Object(pairs) => {
            let name = Value::from(head.as_str());
            add(format!("{name}:{value}"), pairs.is_empty(), '}')
        }
        _ => add(value.to_owned(), json.trim() == "[]", ']'),
    })
}

/// Which item of a list is meant; one behind the last may be added.
fn place(head: &str, len: usize, way: &[&str]) -> Result<Option<usize>, String> {
    match head.parse::<usize>() {
        Ok(at) if at < len => Ok(Some(at)),
        Ok(at) if at == len => Ok(None),
        Ok(_) => Err(format!("{} has {len} items, counted from 0", shown(way))),
        Err(_) => Err(format!(
            "{} is a list: its items are counted from 0",
            shown(way)
        )),
    }
}

fn shown(way: &[&str]) -> String {
    let mut text = "data".to_owned();
    for name in way {
        text.push('.');
        text.push_str(name);
    }
    text
}

/// A JSON value, taken apart by one level.
enum Parts<'a> {
    Object(Vec<(String, &'a RawValue)>),
    Array(Vec<(String, &'a RawValue)>),
    Other,
}

fn parts(json: &str) -> serde_json::Result<Parts<'_>> {
    struct Level;
    impl<'de> Visitor<'de> for Level {
        type Value = Parts<'de>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object or a list")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parts<'de>, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(Parts::Object(pairs))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Parts<'de>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                items.push((String::new(), item));
            }
            Ok(Parts::Array(items))
        }
    }
    let mut from = serde_json::Deserializer::from_str(json);
    let parts = match json.trim_start().as_bytes().first() {
        Some(b'{') => from.deserialize_map(Level)?,
        Some(b'[') => from.deserialize_seq(Level)?,
        _ => {
            serde_json::from_str::<serde::de::IgnoredAny>(json)?;
            return Ok(Parts::Other);
        }
    };
    from.end()?;
    Ok(parts)
}

/// MessagePack with another value at a path, as [`set_in_json`].
pub(super) fn set_in_msgpack(
    data: &[u8],
    path: &[String],
    value: &Value,
) -> Result<Vec<u8>, String> {
    set_msgpack(data, path, value, &mut Vec::new())
}

fn set_msgpack<'p>(
    data: &[u8],
    path: &'p [String],
    value: &Value,
    way: &mut Vec<&'p str>,
) -> Result<Vec<u8>, String> {
    let Some((head, rest)) = path.split_first() else {
        if end_of(data, 0).is_some() && !is_plain(data) {
            return Err(format!(
                "{} holds binary data or a type of its own, which JSON can't hold",
                shown(way)
            ));
        }
        return encoded(value);
    };
    let broken = |way: &[&str]| format!("{} does not decode as MessagePack", shown(way));
    let kind = Kind::of(data, 0).ok_or_else(|| broken(way))?;
    let (len, mut at) = match kind {
        Kind::Map(len, at) | Kind::Array(len, at) => (len, at),
        Kind::Scalar(_) => return Err(format!("{} is neither an object nor a list", shown(way))),
    };
    let is_map = matches!(kind, Kind::Map(..));
    let wanted = match is_map {
        true => None,
        false => place(head, len, way)?,
    };
    let begin = at;
    for n in 0..len {
        let is_it = if is_map {
            let key_end = end_of(data, at).ok_or_else(|| broken(way))?;
            let key = rmp_serde::from_slice::<String>(&data[at..key_end]);
            at = key_end;
            key.is_ok_and(|key| key == *head)
        } else {
            wanted == Some(n)
        };
        let end = end_of(data, at).ok_or_else(|| broken(way))?;
        if is_it {
            way.push(head);
            let new = set_msgpack(&data[at..end], rest, value, way)?;
            return Ok([&data[..at], &new, &data[end..]].concat());
        }
        at = end;
    }
    if !rest.is_empty() {
        return Err(format!("there is no {head} in {}", shown(way)));
    }
    let mut new = header(is_map, len + 1);
    new.extend_from_slice(&data[begin..at]);
    if is_map {
        new.extend(encoded(&Value::from(head.as_str()))?);
    }
    new.extend(encoded(value)?);
    new.extend_from_slice(&data[at..]);
    Ok(new)
}

/// Where what differs between two JSON values is to be set in the first to make the second of it. Objects keep what both
/// have; what has lost a name, or is a list of another length, is set as a whole.
pub(super) fn differences(before: &Value, after: &Value) -> Vec<(Vec<String>, Value)> {
    let mut found = Vec::new();
    differ(before, after, &mut Vec::new(), &mut found);
    found
}

fn differ(
    before: &Value,
    after: &Value,
    way: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, Value)>,
) {
    let mut each = |name: String, old: Option<&Value>, new: &Value| {
        way.push(name);
        match old {
            Some(old) => differ(old, new, way, found),
            None => found.push((way.clone(), new.clone())),
        }
        way.pop();
    };
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(before), Value::Object(after))
            if before.keys().all(|name| after.contains_key(name)) =>
        {
            for (name, new) in after {
                each(name.clone(), before.get(name), new);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (at, new) in after.iter().enumerate() {
                each(at.to_string(), before.get(at), new);
            }
        }
        _ => found.push((way.clone(), after.clone())),
    }
}

fn encoded(value: &Value) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec(value).map_err(|error| format!("the value can't be written: {error}"))
}

fn header(is_map: bool, len: usize) -> Vec<u8> {
    let (small, of16, of32) = if is_map {
        (0x80, 0xde, 0xdf)
    } else {
        (0x90, 0xdc, 0xdd)
    };
    match len {
        0..=15 => vec![small | len as u8],
        16..=0xffff => [&[of16][..], &(len as u16).to_be_bytes()].concat(),
        _ => [&[of32][..], &(len as u32).to_be_bytes()].concat(),
    }
}

/// What stands at a place in MessagePack: so many values, and where the first begins; or where a scalar ends.
enum Kind {
    Map(usize, usize),
    Array(usize, usize),
    Scalar(usize),
}

impl Kind {
    fn of(data: &[u8], at: usize) -> Option<Kind> {
        let first = *data.get(at)?;
        let number = |bytes: usize| -> Option<usize> {
            let digits = data.get(at + 1..at + 1 + bytes)?;
            Some(
                digits
                    .iter()
                    .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
            )
        };
        let behind = |bytes: usize| Some(Kind::Scalar(at + 1 + bytes));
        let sized = |of: usize, more: usize| {
            Some(Kind::Scalar((at + 1 + of + more).checked_add(number(of)?)?))
        };
        match first {
            0x80..=0x8f => Some(Kind::Map(usize::from(first & 15), at + 1)),
            0x90..=0x9f => Some(Kind::Array(usize::from(first & 15), at + 1)),
            0xdc => Some(Kind::Array(number(2)?, at + 3)),
            0xdd => Some(Kind::Array(number(4)?, at + 5)),
            0xde => Some(Kind::Map(number(2)?, at + 3)),
            0xdf => Some(Kind::Map(number(4)?, at + 5)),
            0xa0..=0xbf => behind(usize::from(first & 31)),
            0xd9 | 0xc4 => sized(1, 0),
            0xda | 0xc5 => sized(2, 0),
            0xdb | 0xc6 => sized(4, 0),
            0xc7 => sized(1, 1),
            0xc8 => sized(2, 1),
            0xc9 => sized(4, 1),
            0xcc | 0xd0 => behind(1),
            0xcd | 0xd1 | 0xd4 => behind(2),
            0xd5 => behind(3),
            0xca | 0xce | 0xd2 => behind(4),
            0xd6 => behind(5),
            0xcb | 0xcf | 0xd3 => behind(8),
            0xd7 => behind(9),
            0xd8 => behind(17),
            0xc1 => None,
            _ => behind(0),
        }
    }
}

/// Where the value ends that begins there; None where it is cut off, or too deep.
fn end_of(data: &[u8], at: usize) -> Option<usize> {
    walk(data, at, 0, &mut |_, _| ())
}

/// Whether JSON can hold all of it: no binary string, no type of its own, no name that is no text, no number that is none.
pub(super) fn is_plain(data: &[u8]) -> bool {
    let mut plain = true;
    let end = walk(data, 0, 0, &mut |bytes, is_name| {
        let first = bytes[0];
        let is_text = matches!(first, 0xa0..=0xbf | 0xd9..=0xdb);
        let is_odd = matches!(first, 0xc4..=0xc9 | 0xd4..=0xd8);
        let is_finite = match (first, bytes.get(1..)) {
            (0xca, Some(rest)) => rest
                .try_into()
                .is_ok_and(|rest| f32::from_be_bytes(rest).is_finite()),
            (0xcb, Some(rest)) => rest
                .try_into()
                .is_ok_and(|rest| f64::from_be_bytes(rest).is_finite()),
            _ => true,
        };
        plain &= !is_odd && is_finite && (is_text || !is_name);
    });
    plain && end == Some(data.len())
}

/// Goes through a value, and shows each scalar of it, and whether it is a name. Answers where it ends.
fn walk(data: &[u8], at: usize, depth: usize, see: &mut dyn FnMut(&[u8], bool)) -> Option<usize> {
    if depth > DEEPEST {
        return None;
    }
    let (values, mut next, is_map) = match Kind::of(data, at)? {
        Kind::Scalar(end) => {
            see(data.get(at..end)?, false);
            return Some(end);
        }
        Kind::Array(len, next) => (len, next, false),
        Kind::Map(len, next) => (len, next, true),
    };
    for _ in 0..values {
        if is_map {
            next = match Kind::of(data, next)? {
                Kind::Scalar(end) => {
                    see(data.get(next..end)?, true);
                    end
                }
                // No name that JSON could have.
                _ => {
                    see(data.get(next..=next)?, true);
                    walk(data, next, depth + 1, see)?
                }
            };
        }
        next = walk(data, next, depth + 1, see)?;
    }
    Some(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn one_value_of_json_is_set_and_the_rest_stays_as_it_was_written() {
        let json = r#"{ "n": 99999999999999999999, "a": [1.10, {"b\u0063": "x"}],"e": {} }"#;
        let set = |at: &str, value| set_in_json(json, &path(at), value);
        for (at, value, expected) in [
            (
                "n",
                "0",
                r#"{ "n": 0, "a": [1.10, {"b\u0063": "x"}],"e": {} }"#,
            ),
            (
                "a.0",
                "2",
                r#"{ "n": 99999999999999999999, "a": [2, {"b\u0063": "x"}],"e": {} }"#,
            ),
            (
                "a.1.bc",
                "null",
                r#"{ "n": 99999999999999999999, "a": [1.10, {"b\u0063": null}],"e": {} }"#,
            ),
            (
                "a.2",
                "3",
                r#"{ "n": 99999999999999999999, "a": [1.10, {"b\u0063": "x"},3],"e": {} }"#,
            ),
            (
                r"e.a\.b",
                "{}",
                r#"{ "n": 99999999999999999999, "a": [1.10, {"b\u0063": "x"}],"e": {"a.b":{}} }"#,
            ),
            (
                "new",
                "[]",
                r#"{ "n": 99999999999999999999, "a": [1.10, {"b\u0063": "x"}],"e": {},"new":[]}"#,
            ),
        ] {
            assert_eq!(set(at, value).as_deref(), Ok(expected), "{at}");
        }
        for (at, why) in [
            ("x.y", "there is no x in data"),
            ("n.x", "data.n is neither an object nor a list"),
            ("a.x", "data.a is a list: its items are counted from 0"),
            ("a.3", "data.a has 2 items, counted from 0"),
        ] {
            assert_eq!(set(at, "1"), Err(why.to_owned()));
        }
        assert!(
            set_in_json("{oops", &path("a"), "1")
                .unwrap_err()
                .contains("is no JSON")
        );
    }

    #[test]
    fn one_value_of_messagepack_is_set_and_binary_ones_stay() {
        // {"id": 7, 1: bin(ff 00), "x": ext(5, aa bb), "l": [f32 0.5]}
        let data =
            b"\x84\xa2id\x07\x01\xc4\x02\xff\x00\xa1x\xd5\x05\xaa\xbb\xa1l\x91\xca\x3f\x00\x00\x00";
        let set = |at: &str, value: Value| set_in_msgpack(data, &path(at), &value);
        let id = set("id", json!("o-7")).unwrap();
        assert_eq!(id, [&b"\x84\xa2id\xa3o-7"[..], &data[5..]].concat());
        let added = set("l.1", json!(1)).unwrap();
        assert_eq!(added, [&data[..18], b"\x92", &data[19..], b"\x01"].concat());
        let added = set("n", json!(null)).unwrap();
        assert_eq!(added, [&b"\x85"[..], &data[1..], b"\xa1n\xc0"].concat());
        assert!(
            set("x", json!("0xaabb"))
                .unwrap_err()
                .contains("JSON can't hold")
        );
        assert!(set("", json!(1)).is_ok());
        assert!(
            set_in_msgpack(data, &[], &json!({}))
                .unwrap_err()
                .contains("JSON can't hold")
        );
        assert!(!is_plain(data) && is_plain(&id[..1]) == is_plain(b"\x84"));
        assert!(
            set_in_msgpack(b"\x82\xa1a\x01", &path("b"), &json!(1))
                .unwrap_err()
                .contains("does not decode")
        );
    }

    #[test]
    fn what_is_cut_off_or_claims_more_than_there_is_is_no_value() {
        for wrong in [
            &b""[..],
            b"\xc1",
            b"\xdd\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xcb\0",
            b"\x81\xa1a",
        ] {
            assert_eq!(
                end_of(wrong, 0).filter(|end| *end <= wrong.len()),
                None,
                "{wrong:?}"
            );
        }
        let deep = [vec![0x91; 1000], vec![0xc0]].concat();
        assert_eq!(end_of(&deep, 0), None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[a-c.\"\\\\ é]{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
                prop::collection::btree_map("[a-d.]{0,3}", inner, 0..20)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever differs between two values: set one after the other it makes the second of the first, in both forms.
        #[test]
        fn differences_make_the_second_of_the_first(before in any_json(), after in any_json()) {
            let (mut json, mut packed) = (before.to_string(), rmp_serde::to_vec(&before).unwrap());
            prop_assert!(is_plain(&packed));
            prop_assert_eq!(end_of(&packed, 0), Some(packed.len()));
            for (path, value) in differences(&before, &after) {
                json = set_in_json(&json, &path, &value.to_string()).unwrap();
                packed = set_in_msgpack(&packed, &path, &value).unwrap();
            }
            prop_assert_eq!(&serde_json::from_str::<Value>(&json).unwrap(), &after);
            prop_assert_eq!(&rmp_serde::from_slice::<Value>(&packed).unwrap(), &after);
        }
    }
}
