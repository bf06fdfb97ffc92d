//! MessagePack as JSON, value by value, so that no number is rounded on the way.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, SerializeMap, SerializeSeq, Serializer};

use crate::codec;

/// The same as JSON; None of what JSON can't say: bytes, keys that are no text, and what is no MessagePack.
pub(crate) fn to_json(messagepack: &[u8]) -> Option<Vec<u8>> {
    let mut json = Vec::with_capacity(messagepack.len() * 2);
    let mut from = codec::msgpack(messagepack);
    let mut to = serde_json::Serializer::new(&mut json);
    from_to(&mut from, &mut to).ok()?;
    Some(json)
}

fn from_to<'de, D: Deserializer<'de>, S: Serializer>(from: D, to: S) -> Result<S::Ok, D::Error> {
    from.deserialize_any(Into(to))
}

struct Into<S>(S);

fn failed<E: serde::de::Error>(error: impl fmt::Display) -> E {
    E::custom(error)
}

macro_rules! visit {
    ($($visit:ident: $type:ty => $write:ident),* $(,)?) => {
        $(fn $visit<E: serde::de::Error>(self, value: $type) -> Result<S::Ok, E> {
            self.0.$write(value).map_err(failed)
        })*
    };
}

impl<'de, S: Serializer> Visitor<'de> for Into<S> {
    type Value = S::Ok;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what JSON has")
    }

    visit! {
        visit_bool: bool => serialize_bool,
        visit_i64: i64 => serialize_i64,
        visit_u64: u64 => serialize_u64,
        visit_str: &str => serialize_str,
    }

    fn visit_f32<E: serde::de::Error>(self, value: f32) -> Result<S::Ok, E> {
        match value.is_finite() {
            true => self.0.serialize_f32(value).map_err(failed),
            false => Err(failed("no number")),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<S::Ok, E> {
        match value.is_finite() {
            true => self.0.serialize_f64(value).map_err(failed),
            false => Err(failed("no number")),
        }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<S::Ok, E> {
        self.0.serialize_unit().map_err(failed)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<S::Ok, E> {
        self.0.serialize_unit().map_err(failed)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<S::Ok, D::Error> {
        from_to(from, self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<S::Ok, A::Error> {
        let mut to = self.0.serialize_seq(from.size_hint()).map_err(failed)?;
        while from.next_element_seed(Item(&mut to))?.is_some() {}
        to.end().map_err(failed)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<S::Ok, A::Error> {
        let mut to = self.0.serialize_map(from.size_hint()).map_err(failed)?;
        while let Some(key) = from.next_key::<String>()? {
            to.serialize_key(&key).map_err(failed)?;
            from.next_value_seed(Member(&mut to))?;
        }
        to.end().map_err(failed)
    }
}

struct Item<'a, S>(&'a mut S);

impl<'de, S: SerializeSeq> DeserializeSeed<'de> for Item<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.0.serialize_element(&Once::new(from)).map_err(failed)
    }
}

struct Member<'a, S>(&'a mut S);

impl<'de, S: SerializeMap> DeserializeSeed<'de> for Member<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.0.serialize_value(&Once::new(from)).map_err(failed)
    }
}

/// What can be read once, as a value that is written once.
struct Once<D>(RefCell<Option<D>>);

impl<D> Once<D> {
    fn new(from: D) -> Self {
        Once(RefCell::new(Some(from)))
    }
}

impl<'de, D: Deserializer<'de>> ser::Serialize for Once<D> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let from = self.0.borrow_mut().take();
        let from = from.ok_or_else(|| ser::Error::custom("read already"))?;
        from_to(from, to).map_err(ser::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl serde::Serialize) -> Option<String> {
        let packed = rmp_serde::to_vec_named(value).expect("MessagePack");
        to_json(&packed).map(|json| String::from_utf8(json).expect("text"))
    }

    #[test]
    fn what_json_has_is_the_same_and_what_it_has_not_is_refused() {
        assert_eq!(json(&u64::MAX).as_deref(), Some("18446744073709551615"));
        assert_eq!(json(&0.1_f32).as_deref(), Some("0.1"));
        assert_eq!(
            json(&(1, "a", None::<u8>)).as_deref(),
            Some("[1,\"a\",null]")
        );
        let nested = std::collections::BTreeMap::from([("a", vec![-1]), ("b", vec![])]);
        assert_eq!(json(&nested).as_deref(), Some(r#"{"a":[-1],"b":[]}"#));
        assert_eq!(json(&f64::NAN), None);
        assert_eq!(json(&std::collections::BTreeMap::from([(1, 2)])), None);
        // Bytes; less than a value.
        for broken in [&[0xc4, 1, 7][..], &[0x92, 1]] {
            assert_eq!(to_json(broken), None, "{broken:?}");
        }
        let deep = [vec![0x91; 100_000], vec![1]].concat();
        assert_eq!(to_json(&deep), None);
    }
}
