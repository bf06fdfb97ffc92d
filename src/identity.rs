//! Which event an entry is: its source, its id and its type say it together, as CloudEvents has it for the first two. Two
//! producers may count from one, and one thing that happened may be told under several types.
//!
//! What is kept of an identity is a hash, so that the keys it becomes part of are short whatever an id is, and no
//! separator in one makes another event of it. Beside it stands a hash of the data, by which a copy that is none is told:
//! of what the data says, not of how it is written, for a map may be written in another order each time.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use crate::codec::{self, Format, Known};
use crate::fields::Fields;
use crate::names::shown;

/// What identities are hashed in: UUIDv5 of `streamhand:identity` in the namespace of URLs.
const NAMESPACE: Uuid = Uuid::from_u128(0x0811_d2b0_9371_559c_aed3_d939_0360_12fc);

/// The identity of an event that has an id of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    which: String,
    data: String,
}

impl Identity {
    /// The identity of an entry; None of one that has no id, or is no event: it is like no other.
    pub fn of(fields: &Fields) -> Option<Self> {
        let known = codec::find(fields).ok()?;
        let value = |at: Option<u16>| at.map(|at| fields.at(at as usize).1);
        let (id, event_type) = (value(known.id)?, value(known.event_type)?);
        let source = value(known.source).unwrap_or_default();
        Some(Identity {
            which: which(source, id, event_type),
            data: data(&known, fields),
        })
    }

    /// Which event it is: 32 hexadecimal digits.
    pub fn which(&self) -> &str {
        &self.which
    }

    /// What it says: 16 hexadecimal digits.
    pub fn data(&self) -> &str {
        &self.data
    }
}

/// Which event it is that has these: see [`Identity::which`]. No source is the empty one.
pub(crate) fn which(source: &[u8], id: &[u8], event_type: &[u8]) -> String {
    let mut name = Vec::with_capacity(source.len() + id.len() + event_type.len() + 16);
    for part in [source, id, event_type] {
        put(&mut name, b's', part);
    }
    hash(&name).simple().to_string()
}

/// Which emit it is of an event that is emitted by what these say, at the same place each time: 32 hexadecimal digits.
pub(crate) fn emitted(by: &[&str], fields: &Fields) -> String {
    let mut name = Vec::new();
    by.iter()
        .for_each(|part| put(&mut name, b'e', part.as_bytes()));
    if let Some(event) = Identity::of(fields) {
        put(&mut name, b's', event.which.as_bytes());
        put(&mut name, b's', event.data.as_bytes());
    }
    hash(&name).simple().to_string()
}

/// An event in a message: `an event order.created with the id "7" of the source "shop"`.
pub(crate) fn named(fields: &Fields) -> String {
    let known = codec::find(fields).unwrap_or_default();
    let text = |at: Option<u16>| Some(String::from_utf8_lossy(fields.at(at? as usize).1));
    let event_type = text(known.event_type).unwrap_or_default();
    let id = text(known.id).unwrap_or_default();
    let (event_type, id) = (shown(&event_type), shown(&id));
    match text(known.source) {
        Some(source) => {
            let source = shown(&source);
            format!("an event {event_type} with the id \"{id}\" of the source \"{source}\"")
        }
        None => format!("an event {event_type} with the id \"{id}\""),
    }
}

fn data(known: &Known, fields: &Fields) -> String {
    let value = |at: Option<u16>| at.map(|at| fields.at(at as usize).1);
    let data = value(known.data).unwrap_or_default();
    let content_type = value(known.content_type).unwrap_or(codec::JSON.as_bytes());
    let mut said = known.version.unwrap_or(1).to_be_bytes().to_vec();
    let before = said.len();
    if says(content_type, data, &mut said).is_none() {
        said.truncate(before);
        put(&mut said, b'?', content_type);
        said.extend_from_slice(data);
    }
    let hash = hash(&said).into_bytes();
    // Not those that say which version of a UUID it is.
    let [a, b, c, d, e, f, _, _, _, _, g, h, ..] = hash;
    format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

fn hash(bytes: &[u8]) -> Uuid {
    Uuid::new_v5(&NAMESPACE, bytes)
}

/// What data says, in one form whatever it is written in; None if it does not decode.
fn says(content_type: &[u8], data: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match codec::format(&String::from_utf8_lossy(content_type)).ok()? {
        Format::Json => {
            let mut json = serde_json::Deserializer::from_slice(data);
            Said(out).deserialize(&mut json).ok()?;
            json.end().ok()
        }
        Format::MessagePack => {
            let mut decoder = codec::msgpack(data);
            Said(out).deserialize(&mut decoder).ok()
        }
    }
}

/// A value of this kind, by its length.
fn put(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Writes a value behind the others, the members of a map in the order of what is written of them.
struct Said<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Said<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Said<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(b'n');
        Ok(())
    }
    fn visit_none<E>(self) -> Result<(), E> {
        self.0.push(b'n');
        Ok(())
    }
    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.0.push(b'x');
        from.deserialize_any(self)
    }
    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push(if value { b't' } else { b'f' });
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        put(self.0, b'i', &i128::from(value).to_be_bytes());
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        put(self.0, b'i', &i128::from(value).to_be_bytes());
        Ok(())
    }
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        put(self.0, b'd', &value.to_bits().to_be_bytes());
        Ok(())
    }
    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        put(self.0, b's', value.as_bytes());
        Ok(())
    }
    fn visit_bytes<E>(self, value: &[u8]) -> Result<(), E> {
        put(self.0, b'b', value);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.push(b'[');
        while seq.next_element_seed(Said(self.0))?.is_some() {}
        self.0.push(b']');
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut members = Vec::new();
        let mut member = Vec::new();
        while map.next_key_seed(Said(&mut member))?.is_some() {
            map.next_value_seed(Said(&mut member))?;
            members.push(std::mem::take(&mut member));
        }
        members.sort_unstable();
        self.0.push(b'{');
        members
            .iter()
            .for_each(|member| self.0.extend_from_slice(member));
        self.0.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Envelope;

    fn of(event: &Envelope) -> Identity {
        Identity::of(event.fields()).expect("it has an id")
    }

    fn event() -> Envelope {
        Envelope::new("order.created").with("id", "7")
    }

    #[test]
    fn source_id_and_type_say_which_event_it_is() {
        let shop = event().with("source", "shop");
        let all = [
            event(),
            shop.clone(),
            event().with("source", "crm"),
            Envelope::new("order.shipped").with("id", "7"),
            Envelope::new("order.created").with("id", "7shop"),
            Envelope::new("order.created")
                .with("id", "77")
                .with("source", "shop"),
            Envelope::new("order.created")
                .with("id", "7")
                .with("source", "shop7"),
        ];
        let which: std::collections::HashSet<String> =
            all.iter().map(|event| of(event).which).collect();
        assert_eq!(which.len(), all.len());
        assert!(which.iter().all(|which| which.len() == 32));
        let subject = shop
            .clone()
            .with("subject", "o-1")
            .with("time", "2026-01-31T12:00:00Z");
        assert_eq!(of(&subject), of(&shop));
        assert_eq!(of(&event().with("source", "")), of(&event()));
        assert_eq!(
            of(&event()).which,
            super::which(b"", b"7", b"order.created")
        );
        assert_eq!(Identity::of(Envelope::new("order.created").fields()), None);
        let empty = Envelope::new("order.created").with("id", "");
        assert_eq!(Identity::of(empty.fields()), None);
    }

    /// Publishers in other languages come to the same.
    #[test]
    fn identities_are_those_that_are_published() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../conformance/identity.json")).unwrap();
        assert_eq!(vectors["namespace"], NAMESPACE.hyphenated().to_string());
        let bytes = |value: &serde_json::Value| match value.as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => {
                let hex = value["hex"].as_str().unwrap();
                let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                (0..hex.len()).step_by(2).map(byte).collect()
            }
        };
        let events = vectors["events"].as_array().unwrap();
        assert!(events.len() > 20);
        for event in events {
            let fields = event["fields"].as_array().unwrap().iter();
            let fields = fields.map(|field| (bytes(&field[0]), bytes(&field[1])));
            let identity = Identity::of(&fields.collect()).unwrap();
            assert_eq!(event["which"], identity.which(), "{event}");
            assert_eq!(event["says"], identity.data(), "{event}");
        }
    }

    /// A rolling deploy compares what two builds have hashed.
    #[test]
    fn hashes_stay_what_they_are() {
        let identity = of(&event()
            .with("source", "shop")
            .with("data", r#"{"a":[1,null,true,-2.5,"x"]}"#));
        insta::assert_snapshot!(format!("{} {}", identity.which(), identity.data()), @"cc340d59c88d5589b619c3781381a82e 85c172c406c446fe");
    }

    #[test]
    fn data_is_the_same_however_it_is_written_and_another_where_it_says_anything_else() {
        let data = |text: &str| of(&event().with("data", text)).data;
        let one = data(r#"{"a":1,"b":[2,{"c":null,"d":"x"}]}"#);
        assert_eq!(one.len(), 16);
        assert_eq!(data(r#" {"b":[2,{"d":"x","c":null}],"a":1} "#), one);
        let value: serde_json::Value =
            serde_json::from_str(r#"{"a":1,"b":[2,{"c":null,"d":"x"}]}"#).unwrap();
        assert_eq!(of(&event().msgpack(&value).unwrap()).data, one);
        for other in [
            r#"{"a":1,"b":[{"c":null,"d":"x"},2]}"#,
            r#"{"a":1,"b":[2,{"c":null,"d":"y"}]}"#,
            r#"{"a":1,"b":[2,{"c":null},"x"]}"#,
            r#"{"a":1.0,"b":[2,{"c":null,"d":"x"}]}"#,
            r#"{"a":"1","b":[2,{"c":null,"d":"x"}]}"#,
            r#"{"a":1}"#,
            "",
            "no JSON",
            "no json",
        ] {
            assert_ne!(data(other), one, "{other}");
        }
        assert_ne!(data("no JSON"), data("no json"));
        assert_ne!(data(""), of(&event().with("schemaversion", "2")).data);
        // Deeper than any stack: told by its bytes.
        let deep = "[".repeat(100_000);
        assert_ne!(data(&deep), data(&deep[1..]));
        let binary = rmp_serde::to_vec(&(1, "x")).unwrap();
        let binary = of(&event()
            .with("datacontenttype", codec::MSGPACK)
            .with("data", binary));
        assert_eq!(binary.data, data(r#"[1,"x"]"#));
    }

    #[test]
    fn long_names_are_cut_in_messages() {
        let long = event().with("source", "ä".repeat(5_000));
        let said = named(long.fields());
        assert!(
            said.starts_with("an event order.created with the id \"7\" of the source \"ää"),
            "{said}"
        );
        assert!(said.len() < 400, "{said}");
    }
}
