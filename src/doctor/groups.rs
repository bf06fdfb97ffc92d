//! A group's pending list, and who holds it: it may be oversized, or held by who is not there or is none of ours.

use std::time::Duration;

use super::case::Case;
use super::node::Node;
use super::report::{Finding, Severity, unknown};
use crate::admin::Standing;
use crate::called;
use crate::duration;
use crate::stream::{ConsumerInfo, Keys, PARKED, Said};

const CHECK: &str = "groups";
/// From here on a pending list is oversized: moving its slot stops the server for a tenth of a second, and looks through
/// all of it take as long.
const OVERSIZED: i64 = 100_000;
/// So many consumers are more than any fleet has.
const CONSUMERS: usize = 2000;

pub(super) async fn look(node: &Node, keys: &Keys, case: &Case) -> Vec<Finding> {
    let stream = &keys.stream;
    let groups = node.ask_words(&["XINFO", "GROUPS", stream]).await;
    if let Some(why) = groups.refusal() {
        return vec![match why.contains("no such key") {
            true => Finding::new(
                CHECK,
                Severity::Notice,
                format!("{stream}: there is no such stream yet"),
            )
            .cost("nothing, if nothing was published: a worker makes it, and the group with it")
            .mend(called::command("run")),
            false => unknown(
                CHECK,
                &format!("the groups of {stream}"),
                why,
                &case.user,
                &format!("~{stream} +xinfo"),
            ),
        }];
    }
    let mut groups = groups.items().iter();
    let Some(group) = groups.find(|of| of.get("name").and_then(Said::text) == Some(&case.group))
    else {
        return vec![
            Finding::new(CHECK, Severity::Notice, format!("{stream}: there is no group {} yet", case.group))
                .cost("nobody handles what is published; its first worker makes the group, and begins with the oldest entry")
                .mend(called::command("run")),
        ];
    };
    let consumers = node
        .ask_words(&["XINFO", "CONSUMERS", stream, &case.group])
        .await;
    let consumers: Vec<ConsumerInfo> = consumers.items().iter().filter_map(consumer).collect();
    let pending = group.get("pending").and_then(Said::number).unwrap_or(0);
    judged(stream, pending, &consumers, case)
}

fn consumer(said: &Said) -> Option<ConsumerInfo> {
    Some(ConsumerInfo {
        name: said.get("name")?.text()?.to_owned(),
        pending: said.get("pending")?.number()? as u64,
        idle_ms: said.get("idle")?.number()? as u64,
    })
}

fn judged(stream: &str, pending: i64, consumers: &[ConsumerInfo], case: &Case) -> Vec<Finding> {
    let mut found = Vec::new();
    let group = &case.group;
    let parked = consumers
        .iter()
        .find(|consumer| consumer.name == PARKED)
        .map_or(0, |parked| parked.pending);
    if pending >= OVERSIZED {
        found.push(
            Finding::new(CHECK, Severity::Warning, format!("{stream}: {pending} entries are pending, {parked} of them parked"))
                .cost("each costs the server memory, looks through all of them take long, and a move of the slot stops it; if most are parked, something that handlers need is away")
                .mend(called::command("run")),
        );
    }
    if consumers.len() >= CONSUMERS {
        found.push(
            Finding::new(CHECK, Severity::Warning, format!("{stream}: the group has {} consumers", consumers.len()))
                .cost("each look at the group goes through all of them; workers forget those of workers that are gone, others nobody does")
                .mend(called::command("run")),
        );
    }
    let others = consumers.iter().filter(|consumer| consumer.name != PARKED);
    let (ours, foreign): (Vec<_>, Vec<_>) =
        others.partition(|consumer| consumer.lease_ms().is_some());
    let is_there = |consumer: &ConsumerInfo| Standing::of(consumer).is_there(consumer.pending);
    let somebody_works = ours.iter().any(|consumer| is_there(consumer));
    for dead in ours
        .iter()
        .filter(|consumer| consumer.pending > 0 && !is_there(consumer))
    {
        let what = format!(
            "{stream}: {} was last heard of {} ago and holds {} entries",
            dead.name,
            ago(dead.idle_ms),
            dead.pending
        );
        found.push(match somebody_works {
            true => Finding::new(CHECK, Severity::Notice, what)
                .cost("other workers take over what it holds; if this stays, none of them has a free slot")
                .mend(called::command("status")),
            false => Finding::new(CHECK, Severity::Danger, what)
                .cost("nobody takes over what it holds, for no worker is there")
                .mend(called::command("run")),
        });
    }
    for foreign in foreign.iter().filter(|consumer| consumer.pending > 0) {
        let lease = u64::try_from(case.lease.as_millis()).unwrap_or(u64::MAX);
        if foreign.idle_ms <= lease {
            continue;
        }
        found.push(
            Finding::new(
                CHECK,
                Severity::Warning,
                format!(
                    "{stream}: {}, no worker of ours, was last heard of {} ago and holds {} entries",
                    foreign.name, ago(foreign.idle_ms), foreign.pending
                ),
            )
            .cost("they are left to it: nobody else handles them. The command hands over what nobody has touched for longer than a lease")
            .mend(format!("XAUTOCLAIM {stream} {group} {PARKED} {} 0 COUNT 1000 JUSTID", lease + 1)),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(
            CHECK,
            format!("{stream}: {pending} entries pending, {parked} of them parked"),
        ));
    }
    found
}

fn ago(ms: u64) -> String {
    duration::format(Duration::from_secs(ms / 1000)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(name: &str, pending: u64, idle_ms: u64) -> ConsumerInfo {
        ConsumerInfo {
            name: name.to_owned(),
            pending,
            idle_ms,
        }
    }

    #[test]
    fn who_holds_what_without_being_there_is_told() {
        let case = Case::example();
        let of = |pending, consumers: &[ConsumerInfo]| judged("orders", pending, consumers, &case);
        let dead = consumer("sh2-30000-host-1-abc", 3, 90_000);
        let alive = consumer("sh2-30000-host-2-abc", 3, 5_000);
        assert_eq!(
            of(3, std::slice::from_ref(&dead))[0].severity,
            Severity::Danger
        );
        assert_eq!(of(3, &[dead, alive.clone()])[0].severity, Severity::Notice);
        assert_eq!(
            of(3, std::slice::from_ref(&alive))[0].severity,
            Severity::Ok
        );
        let foreign = of(1, &[consumer("redis-cli", 1, 60_000), alive.clone()]);
        assert_eq!((foreign[0].severity, foreign.len()), (Severity::Warning, 1));
        let large = of(250_000, &[consumer(PARKED, 249_000, 1), alive]);
        assert!(large[0].what.contains("249000 of them parked"), "{large:?}");
    }
}
