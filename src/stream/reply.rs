//! Taking answers apart without copying what is in them.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use crate::event::EntryId;
use crate::fields::{Block, Fields};

/// An array's items; a map's keys and values in turn. Anything else is None.
pub(super) fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        Value::Map(pairs) => Some(
            pairs
                .into_iter()
                .flat_map(|(key, value)| [key, value])
                .collect(),
        ),
        _ => None,
    }
}

/// An array of exactly `N` items, or of at least so many: what a later release adds is passed over.
pub(super) fn tuple<const N: usize>(value: Value) -> Option<[Value; N]> {
    let mut items = array(value)?;
    items.truncate(N);
    items.try_into().ok()
}

pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into()),
        Value::Okay => Some(b"OK".to_vec()),
        Value::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

pub(super) fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}

pub(super) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

/// How long it is until a due time in ms, as a sorted set tells it; zero if it has come. None if there is none.
pub(super) fn until(due: Value, now_ms: u64) -> Option<Duration> {
    let due = text(due)?.parse::<f64>().ok()?;
    Some(Duration::from_millis((due as u64).saturating_sub(now_ms)))
}

pub(super) fn id(value: &Value) -> Option<EntryId> {
    match value {
        Value::BulkString(bytes) => EntryId::parse(bytes),
        _ => None,
    }
}

pub(super) fn ids(value: Value) -> Option<Vec<EntryId>> {
    array(value)?.iter().map(id).collect()
}

/// Names and values of an entry. None if Redis answers nil: the entry is no longer in the stream.
pub(super) fn fields(value: Value) -> Option<Fields> {
    let mut strings = Vec::new();
    for item in array(value)? {
        strings.push(bytes(item)?);
    }
    let mut block = Block::with_capacity(strings.iter().map(Vec::len).sum(), strings.len());
    for pair in strings.chunks_exact(2) {
        pair.iter().for_each(|string| block.push(string));
    }
    let count = block.count();
    Some(Fields::of_block(&Arc::new(block), 0, count))
}

/// A hash's fields and their values, those that are text.
pub(super) fn pairs(value: Value) -> Option<Vec<(String, String)>> {
    let mut items = array(value)?.into_iter();
    let mut pairs = Vec::new();
    while let (Some(field), Some(value)) = (items.next(), items.next()) {
        if let (Some(field), Some(value)) = (text(field), text(value)) {
            pairs.push((field, value));
        }
    }
    Some(pairs)
}
