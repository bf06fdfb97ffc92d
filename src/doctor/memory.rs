//! How much memory is used, and by which keys. Of many keys some are looked at: so many, and for so long.

use std::time::{Duration, Instant};

use super::case::Case;
use super::node::Node;
use super::report::{Finding, Severity, bytes, unknown};
use crate::admin::ServerStatus;
use crate::called;
use crate::stream::Said;

const CHECK: &str = "memory";
/// Keys that are sampled, how many at once, and for how long at most.
const SAMPLED: usize = 2000;
const AT_ONCE: usize = 200;
const SAMPLING: Duration = Duration::from_secs(2);
/// Keys that are named.
const NAMED: usize = 5;
/// A key smaller than this is never too large,
const LARGE: u64 = 16 << 20;
/// and one that has this part of all memory is.
const SHARE: u64 = 4;

pub(super) async fn look(node: &Node, case: &Case) -> Vec<Finding> {
    let mut found = of_server(node);
    match sizes(node, case).await {
        Ok((sizes, seen)) => found.extend(of_keys(sizes, seen, node, case)),
        Err(why) => found.push(unknown(
            CHECK,
            "the largest keys",
            &why,
            &case.user,
            "+scan +memory|usage",
        )),
    }
    found
}

fn of_server(node: &Node) -> Vec<Finding> {
    let Some(used) = node.number("used_memory") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let most = node.number("maxmemory").filter(|most| *most > 0);
    found.push(match most {
        Some(most) => {
            let what = format!("{} of {} are used", bytes(used), bytes(most));
            match ServerStatus::is_nearly_full(used, most) {
                false => Finding::ok(CHECK, what),
                true => Finding::new(CHECK, Severity::Danger, what)
                    .cost("when it is full, nothing is published, retried or buried until there is room")
                    .mend(format!("CONFIG SET maxmemory {}", used.saturating_mul(2))),
            }
        }
        None => Finding::new(CHECK, Severity::Notice, format!("{} are used, and nothing limits it", bytes(used)))
            .cost("a backlog grows until the system kills the server, where a limit would have publishers told")
            .mend(format!("CONFIG SET maxmemory {}", used.saturating_mul(4).max(1 << 30))),
    });
    if let Some(evicted @ 1..) = node.number("evicted_keys") {
        found.push(
            Finding::new(
                CHECK,
                Severity::Warning,
                format!("the server has deleted {evicted} keys to make room since its start"),
            )
            .cost("what they held is lost; CONFIG RESETSTAT forgets the count, and all others")
            .mend("CONFIG RESETSTAT"),
        );
    }
    found
}

/// Sizes of the group's own keys and of others as they come, the largest first; and how many keys there are.
async fn sizes(node: &Node, case: &Case) -> Result<(Vec<(String, u64)>, usize), String> {
    let mut keys: Vec<String> = case
        .streams
        .iter()
        .flat_map(|keys| {
            [
                &keys.stream,
                &keys.dead,
                &keys.retry,
                &keys.failures,
                &keys.scheduled_events,
            ]
        })
        .cloned()
        .collect();
    let (begun, mut cursor) = (Instant::now(), "0".to_owned());
    let mut refused = None;
    loop {
        let said = node.ask(&format!("SCAN {cursor} COUNT {AT_ONCE}")).await;
        if let Some(why) = said.refusal() {
            refused = Some(why.to_owned());
            break;
        }
        let [next, page] = said.items() else { break };
        keys.extend(
            page.items()
                .iter()
                .filter_map(Said::text)
                .map(str::to_owned),
        );
        cursor = next.text().unwrap_or("0").to_owned();
        if cursor == "0" || keys.len() >= SAMPLED || begun.elapsed() > SAMPLING {
            break;
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let (mut sizes, mut asked) = (Vec::new(), 0);
    for some in keys.chunks(AT_ONCE) {
        let usage = |key: &String| {
            ["MEMORY", "USAGE", key, "SAMPLES", "5"]
                .map(str::to_owned)
                .to_vec()
        };
        let said = node
            .ask_all(&some.iter().map(usage).collect::<Vec<_>>())
            .await;
        asked += some.len();
        for (key, said) in some.iter().zip(said) {
            match said {
                Said::Number(size) => sizes.push((key.clone(), size as u64)),
                // Some of its keys this user may not look at.
                Said::Refused(why) => refused = Some(why),
                _ => {}
            }
        }
        if begun.elapsed() > 2 * SAMPLING {
            break;
        }
    }
    sizes.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    match refused {
        Some(why) if sizes.is_empty() => Err(why),
        _ => Ok((sizes, asked)),
    }
}

fn of_keys(sizes: Vec<(String, u64)>, seen: usize, node: &Node, case: &Case) -> Vec<Finding> {
    let most = node.number("maxmemory").filter(|most| *most > 0);
    let all = most
        .or_else(|| node.number("used_memory"))
        .unwrap_or(u64::MAX);
    let mut found = Vec::new();
    for (key, size) in sizes.iter().take(NAMED) {
        if *size < LARGE || *size < all / SHARE {
            continue;
        }
        let finding = Finding::new(CHECK, Severity::Warning, format!("{key} has {}, of {} in all", bytes(*size), bytes(all)))
            .cost("it can't be spread over nodes, a move of its slot stops the server while it is copied, and it grows into the limit of all others");
        found.push(match of_stream(key, case) {
            Some(mend) => finding.mend(mend),
            None => finding.mend(format!(
                "CONFIG SET maxmemory {}",
                size.saturating_mul(SHARE + 1)
            )),
        });
    }
    let largest: Vec<String> = sizes
        .iter()
        .take(NAMED)
        .map(|(key, size)| format!("{key} {}", bytes(*size)))
        .collect();
    if !largest.is_empty() {
        found.push(Finding::ok(
            CHECK,
            format!(
                "the largest of {seen} keys looked at: {}",
                largest.join(", ")
            ),
        ));
    }
    found
}

/// What makes a stream of the group, or its dead letters, shorter.
fn of_stream(key: &str, case: &Case) -> Option<String> {
    let of = case
        .streams
        .iter()
        .find(|keys| keys.stream == key || keys.dead == key)?;
    match of.dead == key {
        true => Some(called::command(format_args!(
            "dlq purge --stream {} --until 30d --yes",
            of.stream
        ))),
        // Trimming by hand loses what a group has not settled.
        false if !case.trimmed.contains(&of.stream) => Some(format!(
            "STREAMHAND_STREAMS__{}__RETENTION=acked {}",
            of.stream.to_uppercase(),
            called::command("run")
        )),
        false => Some(called::command("status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::node::list;

    #[tokio::test]
    async fn a_full_server_and_a_key_that_has_too_much_of_it_are_told() {
        let page = Said::Many(vec![Said::Text("0".to_owned()), list(&["orders", "other"])]);
        let said = [
            ("SCAN 0 COUNT 200", page),
            ("MEMORY USAGE orders SAMPLES 5", Said::Number(60 << 20)),
            ("MEMORY USAGE other SAMPLES 5", Said::Number(1000)),
        ];
        let node = Node::recorded(
            "used_memory:99000000\nmaxmemory:100000000\nevicted_keys:3\n",
            &said,
        );
        let found = look(&node, &Case::example()).await;
        let whats: Vec<(Severity, &str)> = found
            .iter()
            .map(|one| (one.severity, &one.what[..]))
            .collect();
        assert_eq!(
            whats[0],
            (Severity::Danger, "94.4 MiB of 95.4 MiB are used")
        );
        assert_eq!(whats[1].0, Severity::Warning);
        assert_eq!(
            whats[2],
            (Severity::Warning, "orders has 60.0 MiB, of 95.4 MiB in all")
        );
        assert!(whats[3].1.starts_with("the largest of "), "{whats:?}");
        let free = Node::recorded("used_memory:1000\nmaxmemory:0\nevicted_keys:0\n", &[]);
        assert_eq!(
            look(&free, &Case::example()).await[0].severity,
            Severity::Notice
        );
    }
}
