//! Stream fields to event and back: which field means what, and how the data is encoded.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::fields::Fields;

/// The content type of JSON data, and of data that says nothing.
pub const JSON: &str = "application/json";
/// The content type of MessagePack data, which the publisher writes.
pub const MSGPACK: &str = "application/msgpack";
/// One field in place of more than a script can carry: the whole entry, as a MessagePack array of its strings.
pub(crate) const PACKED: &[u8] = b"streamhand.packed";

/// The largest JSON nesting `serde_json` follows is 128; MessagePack gets the same, for the same reason: the stack.
pub(crate) const MSGPACK_DEPTH: usize = 128;

/// Bytes there is room for in MessagePack that is being written, as `serde_json` has it for JSON: most has no more.
const USUAL: usize = 128;

/// How an event's data is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// `application/msgpack`, structs with their fields' names.
    #[default]
    MessagePack,
    /// `application/json`.
    Json,
}

impl Format {
    /// The content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::MessagePack => MSGPACK,
            Format::Json => JSON,
        }
    }
}

/// What can be an event's data: everything that serde can write. There is nothing to implement; this trait is there for
/// the compiler to say in one sentence what is missing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be written as an event's data: it does not implement `serde::Serialize`",
    label = "this can't be written as data",
    note = "add `#[derive(serde::Serialize)]` to `{Self}`"
)]
pub trait Encodable: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> Encodable for T {}

/// What an event's data can be read as: everything that serde can read without borrowing. There is nothing to implement;
/// this trait is there for the compiler to say in one sentence what is missing.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be read from an event's data: it does not implement `serde::Deserialize`",
    label = "this can't be read from data",
    note = "add `#[derive(serde::Deserialize)]` to `{Self}`; it must borrow nothing from the data"
)]
pub trait Decodable: DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> Decodable for T {}

/// Why an entry is no event, or its data not what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There is no field `type`.
    #[error("the entry has no field `type`")]
    MissingType,
    /// A field with a meaning is not UTF-8.
    #[error("the field `{0}` is not UTF-8")]
    NotUtf8(&'static str),
    /// The field `schemaversion` is no whole number from 1 to 4294967295.
    #[error("the field `schemaversion` is {0:?}, not a whole number from 1")]
    Version(String),
    /// The data's content type is neither JSON nor MessagePack.
    #[error("the content type {0:?} is neither application/json nor application/msgpack")]
    ContentType(String),
    /// The data does not decode.
    #[error("the data does not decode as {format}: {error}")]
    Data {
        /// The format it was read as.
        format: &'static str,
        /// What the decoder says.
        error: String,
    },
    /// An entry packed into one field does not unpack.
    #[error("the packed entry does not unpack")]
    Packed,
}

/// Where the fields with a meaning stand in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Known {
    pub event_type: Option<u16>,
    pub id: Option<u16>,
    pub time: Option<u16>,
    pub source: Option<u16>,
    pub subject: Option<u16>,
    pub content_type: Option<u16>,
    pub traceparent: Option<u16>,
    pub data: Option<u16>,
    pub expires: Option<u16>,
    pub version: Option<u32>,
    pub max_attempts: Option<u32>,
}

/// Finds the fields with a meaning. Where a name stands twice the first one that says something counts; an empty `id`,
/// `time`, `source`, `subject`, `traceparent` or `datacontenttype` is none. This is the one place that decides it.
pub(crate) fn find(fields: &Fields) -> Result<Known, DecodeError> {
    let mut known = Known::default();
    for (at, (name, value)) in fields.iter().enumerate().take(u16::MAX as usize) {
        known.learn(at as u16, name, value)?;
    }
    match known.event_type {
        Some(_) => Ok(known),
        None => Err(DecodeError::MissingType),
    }
}

impl Known {
    /// Where the field of this name stands, if that is one of those with a text that has a meaning.
    pub fn slot(&self, name: &str) -> Option<Option<u16>> {
        Some(match name {
            "id" => self.id,
            "type" => self.event_type,
            "time" => self.time,
            "source" => self.source,
            "subject" => self.subject,
            "traceparent" => self.traceparent,
            "expires" => self.expires,
            "datacontenttype" => self.content_type,
            _ => return None,
        })
    }

    /// The field at this place has this name and value.
    pub fn learn(&mut self, at: u16, name: &[u8], value: &[u8]) -> Result<(), DecodeError> {
        // By length first: most fields of most entries are told apart by it alone.
        let (slot, field) = match (name.len(), name) {
            (2, b"id") => (&mut self.id, "id"),
            (4, b"type") => (&mut self.event_type, "type"),
            (4, b"time") => (&mut self.time, "time"),
            (4, b"data") => {
                self.data.get_or_insert(at);
                return Ok(());
            }
            (6, b"source") => (&mut self.source, "source"),
            (7, b"subject") => (&mut self.subject, "subject"),
            (7, b"expires") => {
                // What can't be read is none, as with a time.
                if self.expires.is_none() && !value.is_empty() && std::str::from_utf8(value).is_ok()
                {
                    self.expires = Some(at);
                }
                return Ok(());
            }
            (11, b"maxattempts") => {
                self.max_attempts = self.max_attempts.or_else(|| max_attempts(value));
                return Ok(());
            }
            (11, b"traceparent") => (&mut self.traceparent, "traceparent"),
            (13, b"schemaversion") => {
                if self.version.is_none() {
                    self.version = Some(version(value)?);
                }
                return Ok(());
            }
            (15, b"datacontenttype") => (&mut self.content_type, "datacontenttype"),
            _ => return Ok(()),
        };
        // What is empty says nothing: an empty id would make one event of all that have it.
        if slot.is_none() && (!value.is_empty() || field == "type") {
            // Looked at by the word where it is ASCII, as it is nearly always.
            if !value.is_ascii() && std::str::from_utf8(value).is_err() {
                return Err(DecodeError::NotUtf8(field));
            }
            *slot = Some(at);
        }
        Ok(())
    }
}

fn version(value: &[u8]) -> Result<u32, DecodeError> {
    let text = std::str::from_utf8(value).map_err(|_| DecodeError::NotUtf8("schemaversion"))?;
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(DecodeError::Version(text.chars().take(40).collect())),
    }
}

/// How many attempts a value says; none if that is no whole number from 1.
pub(crate) fn max_attempts(value: &[u8]) -> Option<u32> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits)?;
    text.parse().ok().filter(|number| *number > 0)
}

/// Whether a field's name has a meaning of its own.
pub(crate) fn is_known(name: &[u8]) -> bool {
    matches!(
        name,
        b"id"
            | b"type"
            | b"time"
            | b"data"
            | b"source"
            | b"subject"
            | b"traceparent"
            | b"expires"
            | b"maxattempts"
            | b"schemaversion"
            | b"datacontenttype"
    )
}

/// Encodes an event's data.
pub(crate) fn encode<T: Serialize + ?Sized>(format: Format, data: &T) -> Result<Vec<u8>> {
    let failed = |error: String| {
        Error::new(
            ErrorKind::Codec,
            format!("the event's data can't be encoded: {error}"),
        )
    };
    match format {
        Format::MessagePack => {
            let mut encoded = Vec::with_capacity(USUAL);
            let written = rmp_serde::encode::write_named(&mut encoded, data);
            written.map_err(|e| failed(e.to_string()))?;
            Ok(encoded)
        }
        Format::Json => serde_json::to_vec(data).map_err(|e| failed(e.to_string())),
    }
}

/// Decodes an event's data by its content type; parameters such as `; charset=utf-8` are passed over.
pub(crate) fn decode<T: DeserializeOwned>(
    content_type: &[u8],
    data: &[u8],
) -> Result<T, DecodeError> {
    let format = match content_type {
        // As the publisher writes it.
        b"application/msgpack" => Format::MessagePack,
        other => format(&String::from_utf8_lossy(other))?,
    };
    decode_as(format, data)
}

/// Decodes data of a known format.
pub(crate) fn decode_as<T: DeserializeOwned>(
    format: Format,
    data: &[u8],
) -> Result<T, DecodeError> {
    match format {
        Format::MessagePack => {
            let mut decoder = msgpack(data);
            T::deserialize(&mut decoder).map_err(|error| DecodeError::Data {
                format: "MessagePack",
                error: error.to_string(),
            })
        }
        Format::Json => serde_json::from_slice(data).map_err(|error| DecodeError::Data {
            format: "JSON",
            error: error.to_string(),
        }),
    }
}

/// A decoder of MessagePack that follows no nesting deeper than a stack allows.
pub(crate) fn msgpack(
    data: &[u8],
) -> rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'_, [u8]>> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(data);
    decoder.set_max_depth(MSGPACK_DEPTH);
    decoder
}

/// The format that a content type names.
pub(crate) fn format(content_type: &str) -> Result<Format, DecodeError> {
    match content_type.split(';').next().unwrap_or_default().trim() {
        MSGPACK | "application/x-msgpack" | "application/vnd.msgpack" => Ok(Format::MessagePack),
        JSON => Ok(Format::Json),
        other => Err(DecodeError::ContentType(other.chars().take(100).collect())),
    }
}

/// Restores an entry that a script had to pack into one field, and the fields that were put behind it.
pub(crate) fn unpack(fields: Fields) -> Result<Fields, (Fields, DecodeError)> {
    let packed = match fields.get(0) {
        Some((PACKED, packed)) => packed,
        _ => return Ok(fields),
    };
    let strings: Vec<serde_bytes_like::Chunk> = match rmp_serde::from_slice(packed) {
        Ok(strings) => strings,
        Err(_) => return Err((fields, DecodeError::Packed)),
    };
    if !strings.len().is_multiple_of(2) {
        return Err((fields, DecodeError::Packed));
    }
    let mut unpacked: Fields = strings
        .chunks_exact(2)
        .map(|pair| (&pair[0].0, &pair[1].0))
        .collect();
    unpacked.extend(fields.iter().skip(1));
    Ok(unpacked)
}

/// The fields that a script has packed; None if it is something else.
pub(crate) fn packed(packed: Vec<u8>) -> Option<Fields> {
    let mut fields = Fields::new();
    fields.push(PACKED, packed);
    unpack(fields).ok()
}

/// A string of any bytes, as MessagePack's `str` or `bin`.
mod serde_bytes_like {
    use serde::de::{Deserialize, Deserializer, Error, Visitor};

    pub struct Chunk(pub Vec<u8>);

    impl<'de> Deserialize<'de> for Chunk {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Bytes;
            impl Visitor<'_> for Bytes {
                type Value = Chunk;
                fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                    f.write_str("a string of bytes")
                }
                fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Chunk, E> {
                    Ok(Chunk(bytes.to_vec()))
                }
                fn visit_str<E: Error>(self, text: &str) -> Result<Chunk, E> {
                    Ok(Chunk(text.as_bytes().to_vec()))
                }
            }
            deserializer.deserialize_bytes(Bytes)
        }
    }
}
