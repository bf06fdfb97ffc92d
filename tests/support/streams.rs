//! What is in a stream, as a test sees it.

use bytes::Bytes;
use redis::Value;
use redis::aio::MultiplexedConnection;
use streamhand::EntryId;

/// Names and values of an entry, in their order.
pub type Fields = Vec<(Bytes, Bytes)>;

/// An entry as a test takes it apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: EntryId,
    pub fields: Fields,
}

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

/// Adds an entry of any fields, and answers its id.
pub async fn add(redis: &mut MultiplexedConnection, stream: &str, fields: &Fields) -> String {
    let mut cmd = redis::cmd("XADD");
    cmd.arg(stream).arg("*");
    for (name, value) in fields {
        cmd.arg(&name[..]).arg(&value[..]);
    }
    cmd.query_async(redis).await.expect("the entry to be added")
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

impl From<Entry> for streamhand::Entry {
    fn from(entry: Entry) -> Self {
        streamhand::Entry {
            id: entry.id,
            fields: entry.fields.into_iter().collect(),
        }
    }
}

/// How many commands the server has been asked to run so far; those that scripts call are among them.
pub async fn calls(redis: &mut MultiplexedConnection) -> u64 {
    let info: String = redis::cmd("INFO")
        .arg("stats")
        .query_async(redis)
        .await
        .unwrap();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("total_commands_processed:"))
        .unwrap();
    line.trim().parse().unwrap()
}
