//! Of a cluster: whether all slots are served, and none stands open half-way between two nodes.

use super::node::Node;
use super::report::{Finding, Severity};
use crate::stream::Said;

const CHECK: &str = "slots";
const SLOTS: u64 = 16384;

pub(super) async fn look(node: &Node) -> Vec<Finding> {
    if node.info("cluster_enabled") != Some("1") {
        return Vec::new();
    }
    let (info, nodes) = (
        node.ask("CLUSTER INFO").await,
        node.ask("CLUSTER NODES").await,
    );
    let full = node.setting("cluster-require-full-coverage").await;
    judged(&info, &nodes, full.ok().as_deref())
}

fn judged(info: &Said, nodes: &Said, full: Option<&str>) -> Vec<Finding> {
    let mut found = Vec::new();
    let text = info.text().unwrap_or_default();
    let of = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let assigned: Option<u64> = of("cluster_slots_assigned").and_then(|slots| slots.parse().ok());
    let failing: u64 = of("cluster_slots_fail")
        .and_then(|slots| slots.parse().ok())
        .unwrap_or(0);
    let unserved = unserved(nodes.text().unwrap_or_default());
    if assigned.is_some_and(|assigned| assigned < SLOTS) {
        let ranges: Vec<String> = unserved
            .iter()
            .map(|(from, to)| format!("{from} {to}"))
            .collect();
        let finding = Finding::new(
            CHECK,
            Severity::Danger,
            format!("{} slots are nobody's", SLOTS - assigned.unwrap_or(0)),
        )
        .cost("streams in them are neither read nor published to");
        found.push(match ranges.is_empty() {
            true => finding,
            false => finding.mend(format!("CLUSTER ADDSLOTSRANGE {}", ranges.join(" "))),
        });
    }
    if failing > 0 {
        found.push(
            Finding::new(
                CHECK,
                Severity::Danger,
                format!("{failing} slots are of nodes that have failed"),
            )
            .cost("streams in them wait for a replica to take over")
            .mend("CLUSTER FAILOVER TAKEOVER (at a replica of the failed node)"),
        );
    }
    if found.is_empty() && of("cluster_state").is_some_and(|state| state != "ok") {
        found.push(
            Finding::new(
                CHECK,
                Severity::Danger,
                "the cluster does not take requests (cluster_state is not ok)",
            )
            .cost("nothing is published or handled")
            .mend("CLUSTER NODES"),
        );
    }
    found.extend(open(nodes.text().unwrap_or_default()));
    if full == Some("yes") {
        found.push(
            Finding::new(
                CHECK,
                Severity::Notice,
                "cluster-require-full-coverage is yes",
            )
            .cost("one master that is lost with its replicas stops all others, too")
            .mend("CONFIG SET cluster-require-full-coverage no"),
        );
    }
    if found
        .iter()
        .all(|finding| finding.severity < Severity::Warning)
    {
        found.push(Finding::ok(CHECK, "all slots are served"));
    }
    found
}

/// `[93->-<node>]` of a slot that leaves, `[93-<-<node>]` of one that comes, in the node's own line.
fn open(nodes: &str) -> Vec<Finding> {
    let own = nodes.lines().filter(|line| line.contains("myself"));
    let slots = own.flat_map(|line| {
        line.split(' ')
            .filter_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
    });
    let slots = slots.filter_map(|word| {
        let (slot, rest) = word.split_once('-')?;
        Some((
            slot,
            if rest.starts_with('>') {
                "leaves this node"
            } else {
                "comes to this node"
            },
        ))
    });
    slots
        .map(|(slot, how)| {
            Finding::new(CHECK, Severity::Warning, format!("slot {slot} stands open: it {how}"))
                .cost("if nobody moves it on, its streams wait: steps of several keys are refused there until it is closed")
                .mend(format!("CLUSTER SETSLOT {slot} STABLE"))
        })
        .collect()
}

/// Ranges of slots that no node has.
fn unserved(nodes: &str) -> Vec<(u64, u64)> {
    let words = nodes.lines().flat_map(|line| line.split(' ').skip(8));
    let mut served: Vec<(u64, u64)> = words
        .filter_map(|word| match word.split_once('-') {
            Some((from, to)) => Some((from.parse().ok()?, to.parse().ok()?)),
            None => word.parse().ok().map(|slot| (slot, slot)),
        })
        .collect();
    served.sort_unstable();
    let (mut next, mut gaps) = (0, Vec::new());
    for (from, to) in served {
        if from > next {
            gaps.push((next, from - 1));
        }
        next = next.max(to + 1);
    }
    if next < SLOTS {
        gaps.push((next, SLOTS - 1));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    const MYSELF: &str = "07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30001@31001 myself,master - 0 0 1 connected";

    fn of(info: &str, slots: &str) -> Vec<Finding> {
        judged(
            &Said::Text(info.to_owned()),
            &Said::Text(format!("{MYSELF} {slots}\n")),
            Some("no"),
        )
    }

    #[test]
    fn gaps_failures_and_open_slots_are_told_with_what_closes_them() {
        let sound = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_fail:0\r\n";
        assert_eq!(of(sound, "0-16383")[0].severity, Severity::Ok);
        let gap = of(
            "cluster_state:fail\r\ncluster_slots_assigned:16380\r\n",
            "0-99 104-16383",
        )
        .remove(0);
        assert_eq!(
            (gap.severity, gap.mend.as_deref()),
            (Severity::Danger, Some("CLUSTER ADDSLOTSRANGE 100 103"))
        );
        let open = of(
            sound,
            "0-16383 [93->-67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1]",
        )
        .remove(0);
        assert_eq!(
            (open.severity, open.mend.as_deref()),
            (Severity::Warning, Some("CLUSTER SETSLOT 93 STABLE"))
        );
        let failed = of(
            "cluster_state:fail\r\ncluster_slots_assigned:16384\r\ncluster_slots_fail:5461\r\n",
            "0-16383",
        )
        .remove(0);
        assert!(failed.what.contains("5461"));
    }
}
