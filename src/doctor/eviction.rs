//! Whether the server deletes keys when its memory is full. `volatile-*` is unsafe, too: guards and marks have TTLs.

use super::node::Node;
use super::report::{Finding, Severity};
use crate::stream::{Eviction, Risk};

const CHECK: &str = "eviction";

pub(super) fn look(node: &Node) -> Vec<Finding> {
    if node.no_info().is_some() {
        return Vec::new();
    }
    let Some(policy) = node
        .info("maxmemory_policy")
        .filter(|policy| !policy.is_empty())
    else {
        return vec![
            Finding::new(
                CHECK,
                Severity::Warning,
                "whether the server deletes keys when its memory is full is not known",
            )
            .cost("if it does, events are lost or handled twice, and nothing says so")
            .mend("CONFIG GET maxmemory-policy"),
        ];
    };
    match Eviction::By(policy.to_owned()).risk() {
        Some(Risk { what, cost, .. }) => vec![
            Finding::new(CHECK, Severity::Danger, what)
                .cost(cost)
                .mend("CONFIG SET maxmemory-policy noeviction"),
        ],
        None => vec![Finding::ok(CHECK, "the server deletes no keys")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_that_deletes_is_a_danger_and_an_unknown_one_is_said() {
        let of = |info: &str| look(&Node::recorded(info, &[]));
        for policy in ["allkeys-lru", "volatile-ttl", "volatile-lru"] {
            let found = of(&format!("maxmemory_policy:{policy}\r\n")).remove(0);
            assert_eq!(found.severity, Severity::Danger);
            assert!(found.what.contains(policy));
        }
        assert_eq!(
            of("maxmemory_policy:noeviction\n")[0].severity,
            Severity::Ok
        );
        // Redis Enterprise says ''.
        for unknown in ["maxmemory_policy:\n", "used_memory:1\n"] {
            assert_eq!(of(unknown)[0].severity, Severity::Warning);
        }
    }
}
