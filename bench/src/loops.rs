//! What the runtime is measured against: the least one can do. XREADGROUP, the ids moved out of the raw reply, one
//! XACK for all of them, one after the other on one connection, and no handler.

use std::time::Duration;

use redis::{Cmd, ConnectionLike, Value};

use super::measure::refused;
use super::rig::reader;
use super::tally::{Stop, Tally};
use streamhand::Settings;
use streamhand::cli::CommandError;
use streamhand::unstable::{connect, connect_blocking};

/// How long a read waits, and with it how long a loop goes on after it was told to stop, in ms.
const BLOCK: u64 = 100;

/// COUNT 500 over the connection that the client crate is mostly used with.
pub(super) async fn bare(
    settings: &Settings,
    tally: &Tally,
    stop: &Stop,
) -> Result<(), CommandError> {
    let mut conn = connect(
        &settings.redis,
        &reader(&settings.worker.group),
        Duration::from_secs(60),
    )
    .await?;
    let (stream, group) = (&settings.worker.streams[0], &settings.worker.group);
    let read = read(stream, group, 500);
    while !stop.is_set() {
        let reply: Value = read.query_async(&mut conn).await.map_err(refused)?;
        let Some(ids) = take(reply, tally)? else {
            continue;
        };
        let _: u64 = ack(stream, group, ids)
            .query_async(&mut conn)
            .await
            .map_err(refused)?;
    }
    Ok(())
}

/// The same over a blocking socket, with COUNT `count`: nothing is faster from an event's arrival to its handler.
pub(super) fn blocking(
    settings: &Settings,
    count: usize,
    tally: &Tally,
    stop: &Stop,
) -> Result<(), CommandError> {
    let mut conn = connect_blocking(&settings.redis)?;
    let mut name = redis::cmd("CLIENT");
    let () = name
        .arg("SETNAME")
        .arg(reader(&settings.worker.group))
        .query(&mut conn)
        .map_err(refused)?;
    let (stream, group) = (&settings.worker.streams[0], &settings.worker.group);
    let read = read(stream, group, count).get_packed_command();
    while !stop.is_set() {
        let reply = conn.req_packed_command(&read).map_err(refused)?;
        if let Some(ids) = take(reply, tally)? {
            let _: u64 = ack(stream, group, ids).query(&mut conn).map_err(refused)?;
        }
    }
    Ok(())
}

fn read(stream: &str, group: &str, count: usize) -> Cmd {
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg(group).arg("bare");
    read.arg("COUNT").arg(count).arg("BLOCK").arg(BLOCK);
    read.arg("STREAMS").arg(stream).arg(">");
    read
}

fn ack(stream: &str, group: &str, ids: Vec<Vec<u8>>) -> Cmd {
    let mut ack = redis::cmd("XACK");
    ack.arg(stream).arg(group).arg(ids);
    ack
}

/// The ids of a reply; None where it has no entries. Here, if anywhere, a handler would start.
fn take(reply: Value, tally: &Tally) -> Result<Option<Vec<Vec<u8>>>, CommandError> {
    if reply == Value::Nil {
        return Ok(None);
    }
    let entries = entries(reply)
        .ok_or_else(|| CommandError::failed("the bench: a reply that can't be understood"))?;
    tally.handled_all(entries.len(), || entries.iter().filter_map(data).collect());
    let id = |entry| match array(entry)?.swap_remove(0) {
        Value::BulkString(id) => Some(id),
        _ => None,
    };
    Ok(entries.into_iter().map(id).collect())
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn entries(reply: Value) -> Option<Vec<Value>> {
    array(array(array(reply)?.pop()?)?.pop()?)
}

/// The field `data` of an entry.
fn data(entry: &Value) -> Option<&[u8]> {
    let Value::Array(parts) = entry else {
        return None;
    };
    let Some(Value::Array(fields)) = parts.get(1) else {
        return None;
    };
    let mut pairs = fields.chunks_exact(2);
    pairs.find_map(|pair| match pair {
        [Value::BulkString(name), Value::BulkString(value)] if name == b"data" => Some(&value[..]),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_data_are_found_in_a_reply() {
        let reply = b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n7-0\r\n*4\r\n$4\r\ntype\r\n$1\r\nt\r\n$4\r\ndata\r\n$2\r\nxy\r\n";
        let entries = entries(redis::parse_redis_value(reply).unwrap()).unwrap();
        assert_eq!(entries.iter().filter_map(data).collect::<Vec<_>>(), [b"xy"]);
    }
}
