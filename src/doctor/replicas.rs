//! Who would take over from this server, and what would be lost then.

use super::node::Node;
use super::report::{Finding, Severity, bytes};

const CHECK: &str = "replicas";
/// A replica this far behind, in bytes or in seconds, is no replica for now.
const BEHIND: u64 = 16 << 20;
const SILENT: u64 = 10;

pub(super) async fn look(node: &Node) -> Vec<Finding> {
    match node.info("role") {
        Some("slave") => return vec![of_replica()],
        Some("master") => {}
        _ if node.no_info().is_some() => return Vec::new(),
        _ => {
            return vec![
                Finding::new(
                    CHECK,
                    Severity::Notice,
                    "the server does not say whether it has replicas",
                )
                .cost("what a failover loses is not known"),
            ];
        }
    }
    let Some(replicas @ 1..) = node.number("connected_slaves") else {
        return vec![
            Finding::new(CHECK, Severity::Notice, "the server has no replica")
                .cost("if its machine is lost, what it held is lost; while it restarts nothing is published or handled")
                .mend("REPLICAOF <its host> <its port> (at another server)"),
        ];
    };
    let mut found: Vec<Finding> = (0..replicas)
        .filter_map(|number| of_one(node, number))
        .collect();
    let least = node.setting("min-replicas-to-write").await;
    if let Ok(least) = least.map(|least| least.parse::<u64>().unwrap_or(0)) {
        found.extend(of_least(least, replicas));
    }
    if found.is_empty() {
        found.push(Finding::ok(
            CHECK,
            format!("replicas: {replicas}, none behind"),
        ));
    }
    found
}

fn of_replica() -> Finding {
    Finding::new(
        CHECK,
        Severity::Danger,
        "this server is a read-only replica",
    )
    .cost("no worker can work here, and nothing can be published: all they do changes something")
    .mend("REPLICAOF NO ONE")
}

/// `ip=127.0.0.1,port=6380,state=online,offset=1,lag=0`.
fn of_one(node: &Node, number: u64) -> Option<Finding> {
    let line = node.info(&format!("slave{number}"))?;
    let of = |name: &str| {
        let mut parts = line.split(',').filter_map(|part| part.split_once('='));
        parts
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    };
    let who = format!("{}:{}", of("ip").unwrap_or("?"), of("port").unwrap_or("?"));
    if of("state") != Some("online") {
        return Some(
            Finding::new(
                CHECK,
                Severity::Warning,
                format!("the replica {who} is not in step yet"),
            )
            .cost("until it is, a failover loses what it lacks, which may be everything")
            .mend("INFO replication"),
        );
    }
    let behind = node
        .number("master_repl_offset")?
        .saturating_sub(of("offset")?.parse().ok()?);
    let silent: u64 = of("lag")?.parse().ok()?;
    (behind >= BEHIND || silent >= SILENT).then(|| {
        let what = format!(
            "the replica {who} is {} behind and was heard of {silent} s ago",
            bytes(behind)
        );
        Finding::new(CHECK, Severity::Warning, what)
            .cost("a failover to it loses what it lacks")
            .mend("CONFIG SET min-replicas-to-write 1")
    })
}

fn of_least(least: u64, replicas: u64) -> Option<Finding> {
    if least == 0 {
        return Some(
            Finding::new(CHECK, Severity::Notice, "min-replicas-to-write is 0")
                .cost(
                    "a server that is cut off takes writes until it is told of the failover, and all of those are lost: \
                     those of cluster-node-timeout in a cluster, of ten seconds or so with Sentinel",
                )
                .mend("CONFIG SET min-replicas-to-write 1"),
        );
    }
    (least >= replicas).then(|| {
        Finding::new(
            CHECK,
            Severity::Notice,
            format!("min-replicas-to-write is {least}, and there are no more replicas than that"),
        )
        .cost("after a failover, or with one of them away, nothing can be written")
        .mend("REPLICAOF <its host> <its port> (at another server)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::node::list;

    async fn of(info: &str, least: &str) -> Vec<Finding> {
        let said = [(
            "CONFIG GET min-replicas-to-write",
            list(&["min-replicas-to-write", least]),
        )];
        look(&Node::recorded(info, &said)).await
    }

    #[tokio::test]
    async fn who_would_take_over_and_what_it_lacks_is_told() {
        assert_eq!(of("role:slave\n", "0").await[0].severity, Severity::Danger);
        assert_eq!(
            of("role:master\nconnected_slaves:0\n", "0").await[0].what,
            "the server has no replica"
        );
        let two = "role:master\nconnected_slaves:2\nmaster_repl_offset:100000000\n\
            slave0:ip=10.0.0.1,port=6379,state=online,offset=100000000,lag=0\n\
            slave1:ip=10.0.0.2,port=6379,state=online,offset=99999999,lag=1\n";
        assert_eq!(of(two, "1").await[0].severity, Severity::Ok);
        assert!(of(two, "0").await[0].cost.contains("cluster-node-timeout"));
        assert!(
            of(two, "2").await[0]
                .cost
                .contains("nothing can be written")
        );
        let late = two.replace("99999999,lag=1", "1,lag=40");
        let late = of(&late, "1").await.remove(0);
        assert_eq!(
            late.what,
            "the replica 10.0.0.2:6379 is 95.4 MiB behind and was heard of 40 s ago"
        );
        let syncing = two.replacen("state=online", "state=wait_bgsave", 1);
        assert!(of(&syncing, "1").await[0].what.contains("not in step"));
    }
}
