//! Whether the server is one that this works on.

use super::node::Node;
use super::report::{Finding, Severity, unknown};
use crate::stream::OLDEST_SERVER;

const CHECK: &str = "version";

pub(super) fn look(node: &Node) -> Vec<Finding> {
    if let Some(why) = node.no_info() {
        return vec![unknown(
            CHECK,
            "the server's version, memory, replicas and clients",
            why,
            "worker",
            "+info",
        )];
    }
    let named = [("Valkey", "valkey_version"), ("Redis", "redis_version")];
    let named = named
        .iter()
        .find_map(|(name, field)| Some((*name, node.info(field)?)));
    let speaks = node.info("redis_version").and_then(|version| {
        let mut parts = version.split('.').map_while(|part| part.parse().ok());
        Some((parts.next()?, parts.next()?))
    });
    let (Some((name, version)), Some(speaks)) = (named, speaks) else {
        return vec![
            Finding::new(
                CHECK,
                Severity::Notice,
                "the server does not say which version it is",
            )
            .cost("whether streamhand works on it is not known: it needs what Redis 7.0 can do"),
        ];
    };
    if speaks < OLDEST_SERVER {
        return vec![
            Finding::new(
                CHECK,
                Severity::Danger,
                format!("{name} {version} is too old"),
            )
            .cost("no worker starts: streamhand needs Redis 7.0 or Valkey 7.2, or later")
            .mend("apt-get install --only-upgrade redis-server"),
        ];
    }
    vec![Finding::ok(CHECK, format!("{name} {version}"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_or_says_nothing_is_told_of() {
        let of = |info: &str| look(&Node::recorded(info, &[])).remove(0);
        let ok = of("redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n");
        assert_eq!((ok.severity, &ok.what[..]), (Severity::Ok, "Valkey 9.1.2"));
        assert_eq!(of("redis_version:6.2.14\n").severity, Severity::Danger);
        assert_eq!(of("used_memory:1\n").severity, Severity::Notice);
        let refused = of("-NOPERM this user has no permissions to run the 'info' command");
        assert_eq!(refused.mend.as_deref(), Some("ACL SETUSER worker +info"));
    }
}
