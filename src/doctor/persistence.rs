//! What the server keeps over a crash of its own.

use super::node::Node;
use super::report::{Finding, Severity};

const CHECK: &str = "persistence";

pub(super) async fn look(node: &Node) -> Vec<Finding> {
    if node.no_info().is_some() {
        return Vec::new();
    }
    let mut found = Vec::new();
    match node.info("aof_enabled") {
        None => found.push(
            Finding::new(
                CHECK,
                Severity::Notice,
                "the server does not say whether it writes an append-only file",
            )
            .cost("what a crash of it loses is not known"),
        ),
        Some("1") => {
            if node
                .info("aof_last_write_status")
                .is_some_and(|status| status != "ok")
            {
                found.push(
                    Finding::new(
                        CHECK,
                        Severity::Danger,
                        "the last write of the append-only file failed",
                    )
                    .cost("nothing that changes anything is taken until it succeeds")
                    .mend("df -h"),
                );
            }
            if node.setting("appendfsync").await.as_deref() == Ok("no") {
                found.push(
                    Finding::new(CHECK, Severity::Warning, "appendfsync is no: the system decides when the append-only file is written")
                        .cost("a crash of the machine loses half a minute of what was acknowledged")
                        .mend("CONFIG SET appendfsync everysec"),
                );
            }
        }
        Some(_) => found.push(without(node).await),
    }
    if node
        .info("rdb_last_bgsave_status")
        .is_some_and(|status| status != "ok")
    {
        found.push(
            Finding::new(CHECK, Severity::Danger, "the last snapshot failed")
                .cost("with stop-writes-on-bgsave-error nothing that changes anything is taken until one succeeds")
                .mend("BGSAVE"),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "there is an append-only file"));
    }
    found
}

/// There is no append-only file: are there snapshots at least, and is there a replica that a fast restart would wipe?
async fn without(node: &Node) -> Finding {
    let snapshots = node.setting("save").await;
    let has_none = snapshots.as_deref() == Ok("");
    let replicas = node.number("connected_slaves").unwrap_or(0);
    let (severity, cost) = match (has_none, replicas) {
        (true, 1..) => (
            Severity::Danger,
            "a server that restarts faster than it is failed over comes back empty, and its replicas are emptied with it",
        ),
        (true, 0) => (
            Severity::Danger,
            "a crash or a restart of the server loses everything",
        ),
        (false, _) => (
            Severity::Warning,
            "a crash of the server loses all that came since its last snapshot, which may be an hour",
        ),
    };
    let what = match has_none {
        true => "there is neither an append-only file nor a snapshot",
        false => "there is no append-only file",
    };
    Finding::new(CHECK, severity, what)
        .cost(cost)
        .mend("CONFIG SET appendonly yes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::node::list;

    async fn of(info: &str, settings: &[(&str, &str)]) -> Vec<Finding> {
        let said: Vec<_> = settings
            .iter()
            .map(|(name, value)| (format!("CONFIG GET {name}"), list(&[name, value])))
            .collect();
        let said: Vec<_> = said
            .iter()
            .map(|(ask, said)| (&ask[..], said.clone()))
            .collect();
        look(&Node::recorded(info, &said)).await
    }

    #[tokio::test]
    async fn what_a_crash_would_lose_is_told() {
        let sound = "aof_enabled:1\naof_last_write_status:ok\nrdb_last_bgsave_status:ok\n";
        assert_eq!(
            of(sound, &[("appendfsync", "everysec")]).await[0].severity,
            Severity::Ok
        );
        let lazy = of(sound, &[("appendfsync", "no")]).await.remove(0);
        assert_eq!(
            lazy.mend.as_deref(),
            Some("CONFIG SET appendfsync everysec")
        );
        let snapshots = of("aof_enabled:0\n", &[("save", "3600 1")]).await.remove(0);
        assert_eq!(snapshots.severity, Severity::Warning);
        let nothing = of("aof_enabled:0\nconnected_slaves:1\n", &[("save", "")])
            .await
            .remove(0);
        assert_eq!(nothing.severity, Severity::Danger);
        assert!(nothing.cost.contains("replicas are emptied"));
        let failed = of(
            "aof_enabled:1\naof_last_write_status:err\nrdb_last_bgsave_status:err\n",
            &[],
        )
        .await;
        assert_eq!(failed.len(), 2);
    }
}
