//! The bare loop: XREADGROUP COUNT 500, the ids moved out of the raw reply, one XACK for all of them, no handler.

use redis::Value;

use super::measure::{Meter, Run, refused};
use crate::cli::CommandError;

const GROUP: &str = "bare";

pub(super) async fn run(meter: &mut Meter, stream: &str, events: u64) -> Result<Run, CommandError> {
    let _: () = redis::cmd("XGROUP")
        .arg("CREATE")
        .arg(stream)
        .arg(GROUP)
        .arg("0")
        .query_async(&mut meter.conn)
        .await
        .map_err(refused)?;
    let mut conn = meter.conn.clone();
    let begun = meter.begin().await?;
    let mut done = 0;
    while done < events {
        let reply: Value = redis::cmd("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg("bare")
            .arg("COUNT")
            .arg(500)
            .arg("STREAMS")
            .arg(stream)
            .arg(">")
            .query_async(&mut conn)
            .await
            .map_err(refused)?;
        let ids = ids(reply)
            .ok_or_else(|| CommandError::failed("the bench: the stream ended too early"))?;
        done += ids.len() as u64;
        let acked: u64 = redis::cmd("XACK")
            .arg(stream)
            .arg(GROUP)
            .arg(ids)
            .query_async(&mut conn)
            .await
            .map_err(refused)?;
        debug_assert!(acked > 0);
    }
    let run = meter.end(begun, events).await?;
    // The other way through the same stream must not pay for this group.
    let _: i64 = redis::cmd("XGROUP")
        .arg("DESTROY")
        .arg(stream)
        .arg(GROUP)
        .query_async(&mut meter.conn)
        .await
        .map_err(refused)?;
    Ok(run)
}

fn ids(reply: Value) -> Option<Vec<Vec<u8>>> {
    let array = |value| {
        if let Value::Array(items) = value {
            Some(items)
        } else {
            None
        }
    };
    let entries = array(array(array(reply)?.pop()?)?.pop()?)?;
    let id = |entry| match array(entry)?.swap_remove(0) {
        Value::BulkString(id) => Some(id),
        _ => None,
    };
    entries.into_iter().map(id).collect()
}
