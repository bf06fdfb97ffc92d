//! The fields of a dead letter as JSON: pairs in their order, and what is no text in base64.

use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::event::EntryId;
use crate::fields::Fields;
use crate::rfc3339;

/// Fields in their order, as pairs.
pub(super) fn serialize_fields<S: Serializer>(fields: &Fields, to: S) -> Result<S::Ok, S::Error> {
    let mut list = to.serialize_seq(Some(fields.len()))?;
    for (name, value) in fields {
        list.serialize_element(&(Text(name), Text(value)))?;
    }
    list.end()
}

/// An id as Redis writes it.
pub(super) fn as_text<S: Serializer>(id: &EntryId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

/// A time to the millisecond, RFC 3339.
pub(super) fn as_time<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&rfc3339::millis(*time))
}

/// A string where it is one, else its bytes.
struct Text<'a>(&'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => to.serialize_str(text),
            Err(_) => {
                let mut object = to.serialize_map(Some(1))?;
                object.serialize_entry("base64", &BASE64_STANDARD.encode(self.0))?;
                object.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_the_rest_is_base64() {
        let values = [&b"o-1"[..], b"\xde\x00\x01", "\u{7f}ä\0".as_bytes()]
            .map(|value| serde_json::to_string(&Text(value)).unwrap());
        assert_eq!(
            values,
            [r#""o-1""#, r#"{"base64":"3gAB"}"#, "\"\u{7f}ä\\u0000\""]
        );
    }
}
