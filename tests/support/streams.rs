//! What is in a stream, as a test sees it.

use bytes::Bytes;
use redis::Value;
use redis::aio::MultiplexedConnection;
use streamhand::{Entry, Fields};

/// All entries of a stream, whole.
pub async fn entries(redis: &mut MultiplexedConnection, stream: &str) -> Vec<Entry> {
    let entries: Vec<(String, Vec<Value>)> = redis::cmd("XRANGE")
        .arg(stream)
        .arg("-")
        .arg("+")
        .query_async(redis)
        .await
        .expect("a stream, or nothing");
    entries
        .into_iter()
        .map(|(id, strings)| Entry {
            id: id.parse().expect("an id"),
            fields: fields(strings),
        })
        .collect()
}

fn fields(strings: Vec<Value>) -> Fields {
    let mut strings = strings.into_iter().map(|string| match string {
        Value::BulkString(bytes) => Bytes::from(bytes),
        other => panic!("no string: {other:?}"),
    });
    let mut fields = Fields::new();
    while let (Some(name), Some(value)) = (strings.next(), strings.next()) {
        fields.push((name, value));
    }
    fields
}
