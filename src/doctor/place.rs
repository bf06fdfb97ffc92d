//! Where things are: what kind of deployment was found, which node each stream lies at, and which can't be reached.

use super::report::{Finding, Severity};
use crate::config::RedisSettings;
use crate::config::topology::{Topology, topology};
use crate::error::{Error, Result};
use crate::stream::{Keys, Pool};

const CHECK: &str = "place";

/// What was found behind the address, or the addresses, of the settings.
pub(super) fn found(redis: &RedisSettings, pool: &Pool, masters: &[Pool]) -> Finding {
    let address = pool.address();
    Finding::ok(
        CHECK,
        match (pool.is_cluster(), topology(redis)) {
            (true, _) => {
                let nodes: Vec<&str> = masters.iter().map(Pool::address).collect();
                format!(
                    "a cluster, found from {address}; its masters are {}",
                    nodes.join(", ")
                )
            }
            (false, Ok(Topology::Sentinel { .. })) => format!("the primary of {address}"),
            (false, _) => format!("one server, at {address}"),
        },
    )
}

/// Where a stream lies.
pub(super) async fn of_stream(pool: &Pool, keys: &Keys) -> Result<Finding> {
    let stream = &keys.stream;
    Ok(match pool.slot_and_master(stream).await? {
        Some((slot, node)) => Finding::ok(CHECK, format!("{stream}: slot {slot}")).at(&node),
        None => Finding::ok(CHECK, format!("{stream}: with all others")),
    })
}

/// A node that can't be reached.
pub(super) fn away(node: &str, error: &Error) -> Finding {
    Finding::new(CHECK, Severity::Danger, error.to_string())
        .cost("streams in its slots are neither read nor published to; nothing of it could be looked at")
        .at(node)
}

/// A stream whose node can't be reached.
pub(super) fn stream_away(keys: &Keys, error: &Error) -> Finding {
    let what = format!("{}: can't be looked at: {error}", keys.stream);
    Finding::new(CHECK, Severity::Danger, what).cost("it is neither read nor published to")
}
