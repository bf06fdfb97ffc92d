//! How large an answer may be before the server cuts the connection.

use super::case::Case;
use super::node::Node;
use super::report::{Finding, Severity, bytes, unknown};

const CHECK: &str = "output buffers";
const SETTING: &str = "client-output-buffer-limit";
/// What a worker holds at most, in bytes, and so may ask for.
const MOST_HELD_BYTES: u64 = 16 << 20;

pub(super) async fn look(node: &Node, case: &Case) -> Vec<Finding> {
    match node.setting(SETTING).await {
        Ok(limits) => judged(&limits),
        Err(why) => vec![unknown(CHECK, SETTING, &why, &case.user, "+config|get")],
    }
}

/// `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`.
fn judged(limits: &str) -> Vec<Finding> {
    let mut words = limits.split_whitespace();
    let normal = words.find(|word| *word == "normal").and_then(|_| {
        let mut next = || words.next()?.parse::<u64>().ok();
        Some((next()?, next()?))
    });
    let limit = match normal {
        Some((hard, soft)) => [hard, soft].into_iter().filter(|limit| *limit > 0).min(),
        None => None,
    };
    match limit {
        None => vec![Finding::ok(CHECK, "answers may be of any size")],
        // What is asked for, and an entry beyond it.
        Some(limit) if limit >= 2 * MOST_HELD_BYTES => {
            vec![Finding::ok(CHECK, format!("an answer may be of {}", bytes(limit)))]
        }
        Some(limit) => vec![
            Finding::new(CHECK, Severity::Warning, format!("the server cuts a connection at {} that wait to be read", bytes(limit)))
                .cost("reads are made smaller until they come through, which costs throughput, and an event that is larger is buried as too_large")
                .mend("CONFIG SET client-output-buffer-limit \"normal 0 0 0\""),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_what_a_worker_asks_for_is_told_of() {
        let of = |normal: &str| {
            judged(&format!(
                "{normal} slave 268435456 67108864 60 pubsub 33554432 8388608 60"
            ))
            .remove(0)
        };
        assert_eq!(of("normal 0 0 0").severity, Severity::Ok);
        assert_eq!(of("normal 67108864 0 0").severity, Severity::Ok);
        assert_eq!(of("normal 1048576 0 0").severity, Severity::Warning);
        assert_eq!(of("normal 67108864 1048576 60").severity, Severity::Warning);
    }
}
