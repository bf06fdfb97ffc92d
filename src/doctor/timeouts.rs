//! When the server closes connections that are at rest, and when it notices that one's other end is gone.

use super::case::Case;
use super::node::Node;
use super::report::{Finding, Severity, unknown};

const CHECK: &str = "timeouts";

pub(super) async fn look(node: &Node, case: &Case) -> Vec<Finding> {
    let idle = match node.setting("timeout").await {
        Ok(idle) => idle.parse::<u64>().unwrap_or(0),
        Err(why) => {
            return vec![unknown(
                CHECK,
                "timeout and tcp-keepalive",
                &why,
                &case.user,
                "+config|get",
            )];
        }
    };
    let keepalive = node.setting("tcp-keepalive").await;
    judged(
        idle,
        keepalive.ok().and_then(|seconds| seconds.parse().ok()),
    )
}

fn judged(idle: u64, keepalive: Option<u64>) -> Vec<Finding> {
    let mut found = Vec::new();
    if idle > 0 {
        let severity = if idle < 60 {
            Severity::Warning
        } else {
            Severity::Notice
        };
        found.push(
            Finding::new(CHECK, severity, format!("the server closes connections that were at rest for {idle} s"))
                .cost("a worker or a publisher with little to do connects again and again, and logs it; a publisher's first event after a rest may fail")
                .mend("CONFIG SET timeout 0"),
        );
    }
    if keepalive == Some(0) {
        found.push(
            Finding::new(CHECK, Severity::Notice, "tcp-keepalive is 0")
                .cost("connections of machines that are gone stay open for ever, and count towards maxclients")
                .mend("CONFIG SET tcp-keepalive 300"),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "connections at rest stay open"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_rests_are_warned_of() {
        let of = |idle, keepalive| {
            judged(idle, Some(keepalive))
                .into_iter()
                .map(|one| one.severity)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0, 300), [Severity::Ok]);
        assert_eq!(of(10, 300), [Severity::Warning]);
        assert_eq!(of(300, 0), [Severity::Notice, Severity::Notice]);
    }
}
