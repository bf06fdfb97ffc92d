//! What the user may do that the configuration logs in as: each command that a worker, its scripts, and the commands of an
//! operator need, one by one. The server is asked by a script that runs none of them (`may.lua`); if it runs no scripts, by
//! ACL DRYRUN; and else those commands that need no script are called in a way that changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::case::Case;
use super::node::{Node, words};
use super::report::{Finding, Severity};
use crate::error::Result;
use crate::partition::Partition;
use crate::stream::{Keys, Said, script_commands};

const CHECK: &str = "rights";

/// A call of each command that would change nothing: `STREAM` is a stream of the group's, `OWN` a key of the group that
/// never exists, of the group's workers where nothing else is said.
const CALLS: &[(&str, &str)] = &[
    ("CLIENT ID", "CLIENT ID"),
    ("CLIENT SETNAME", "CLIENT SETNAME streamhand:doctor"),
    ("CLIENT UNBLOCK", "CLIENT UNBLOCK 0"),
    ("CONFIG GET", "CONFIG GET maxmemory-policy"),
    ("DEL", "DEL OWN"),
    (
        "EVALSHA",
        "EVALSHA 0000000000000000000000000000000000000000 1 OWN",
    ),
    (
        "EVALSHA_RO",
        "EVALSHA_RO 0000000000000000000000000000000000000000 1 OWN",
    ),
    ("EXISTS", "EXISTS OWN"),
    ("GET", "GET OWN"),
    ("HDEL", "HDEL OWN f"),
    ("HELLO", "HELLO"),
    ("HEXISTS", "HEXISTS OWN f"),
    ("HGET", "HGET OWN f"),
    ("HGETALL", "HGETALL OWN"),
    ("HINCRBY", "HINCRBY OWN f 0"),
    ("HKEYS", "HKEYS OWN"),
    ("HLEN", "HLEN OWN"),
    ("HMGET", "HMGET OWN f"),
    ("HSCAN", "HSCAN OWN 0"),
    ("HSET", "HSET OWN f v"),
    ("HSETNX", "HSETNX OWN f v"),
    ("INFO", "INFO server"),
    ("PEXPIRE", "PEXPIRE OWN 1"),
    ("PING", "PING"),
    ("PTTL", "PTTL OWN"),
    ("RENAME", "RENAME OWN OWN"),
    ("SCAN", "SCAN 0 COUNT 1"),
    ("SCARD", "SCARD OWN"),
    ("SCRIPT LOAD", "SCRIPT LOAD return(0)"),
    ("SET", "SET OWN v XX"),
    ("SISMEMBER", "SISMEMBER OWN m"),
    ("SREM", "SREM OWN m"),
    ("SLOWLOG", "SLOWLOG GET 1"),
    ("TIME", "TIME"),
    ("TYPE", "TYPE OWN"),
    ("UNLINK", "UNLINK OWN"),
    ("UNWATCH", "UNWATCH"),
    ("XACK", "XACK STREAM streamhand-doctor 0-1"),
    ("XADD", "XADD STREAM NOMKSTREAM 0-0 f v"),
    ("XCLAIM", "XCLAIM STREAM streamhand-doctor c 0 0-1"),
    ("XDEL", "XDEL OWN 0-1"),
    ("XGROUP", "XGROUP DELCONSUMER OWN g c"),
    ("XGROUP CREATE", "XGROUP CREATE STREAM streamhand-doctor 0"),
    (
        "XGROUP DELCONSUMER",
        "XGROUP DELCONSUMER STREAM streamhand-doctor c",
    ),
    ("XGROUP DESTROY", "XGROUP DESTROY OWN g"),
    ("XGROUP SETID", "XGROUP SETID OWN g 0"),
    ("XINFO", "XINFO STREAM STREAM"),
    (
        "XINFO CONSUMERS",
        "XINFO CONSUMERS STREAM streamhand-doctor",
    ),
    ("XINFO GROUPS", "XINFO GROUPS STREAM"),
    ("XINFO STREAM", "XINFO STREAM STREAM"),
    ("XLEN", "XLEN STREAM"),
    ("XPENDING", "XPENDING STREAM streamhand-doctor"),
    ("XRANGE", "XRANGE STREAM 0-1 0-1"),
    ("XREAD", "XREAD COUNT 1 STREAMS OWN 0"),
    (
        "XREADGROUP",
        "XREADGROUP GROUP streamhand-doctor c COUNT 1 STREAMS STREAM >",
    ),
    ("XREVRANGE", "XREVRANGE STREAM 0-1 0-1"),
    ("XSETID", "XSETID OWN 0-1"),
    ("XTRIM", "XTRIM OWN MINID 0"),
    ("ZADD", "ZADD OWN XX 0 m"),
    ("ZCARD", "ZCARD OWN"),
    ("ZCOUNT", "ZCOUNT OWN 0 0"),
    ("ZRANGE", "ZRANGE OWN 0 0"),
    ("ZRANGEBYLEX", "ZRANGEBYLEX OWN [a [a"),
    ("ZRANGEBYSCORE", "ZRANGEBYSCORE OWN 0 0"),
    ("ZRANK", "ZRANK OWN m"),
    ("ZREM", "ZREM OWN m"),
    ("ZREMRANGEBYRANK", "ZREMRANGEBYRANK OWN 1 0"),
    ("ZREVRANGEBYSCORE", "ZREVRANGEBYSCORE OWN 0 0"),
    ("ZSCAN", "ZSCAN OWN 0"),
    ("ZMSCORE", "ZMSCORE OWN m"),
    ("ZSCORE", "ZSCORE OWN m"),
];

/// What is sent without a script: by workers and publishers,
const WORK: &[(&str, &str)] = &[
    (
        "connecting",
        "INFO CLIENT|ID CLIENT|SETNAME HELLO PING UNWATCH TIME",
    ),
    ("reading", "XREADGROUP CLIENT|UNBLOCK"),
    ("acknowledging", "XACK"),
    ("publishing", "XADD"),
    ("every script", "EVALSHA SCRIPT|LOAD"),
];
/// and by what an operator calls.
const OPERATE: &[(&str, &str)] = &[
    (
        "looking",
        "EVALSHA_RO EXISTS GET HGET HGETALL HMGET TYPE XINFO XLEN XRANGE XREVRANGE ZCARD ZRANGE SCAN",
    ),
    ("following", "XREAD"),
    ("undoing", "UNLINK HDEL SET"),
];
/// What only commands of an operator, projections and the event store call.
const OPERATING: &[&str] = &[
    "alerts",
    "append_events",
    "ask",
    "browse",
    "cancel",
    "entry",
    "first_events",
    "gauges",
    "groups",
    "keep_snapshot",
    "list_scheduled",
    "newest",
    "note",
    "parked",
    "pause",
    "project",
    "project_lease",
    "project_rebuild",
    "purge",
    "purge_kept",
    "read_along",
    "replay",
    "resume",
    "run_begin",
    "run_look",
    "run_step",
    "run_turn",
    "schedule",
    "search",
    "status",
    "undo_purge",
    "unlist",
    "publish_once",
    "pulse_again",
];
/// What works on keys that the workers of a group have in common whatever they read.
const OF_THE_GROUP: &[&str] = &["pulse_again", "pulse_slot", "pulse_turn", "alerts", "rate"];

/// Something that is needed: a call, by whom, and how badly.
struct Need {
    what: String,
    command: &'static str,
    call: Vec<String>,
    severity: Severity,
}

pub(super) async fn look(node: &Node, case: &Case) -> Result<Vec<Finding>> {
    let needs = needs(case);
    let calls: Vec<Vec<String>> = needs.iter().map(|need| need.call.clone()).collect();
    let refused: Vec<(&Need, Said)> = match node.may(&calls).await? {
        Some(may) => {
            let refused: Vec<&Need> = needs
                .iter()
                .zip(may)
                .filter(|(_, may)| !may)
                .map(|(need, _)| need)
                .collect();
            // What is refused changes nothing, and the refusal says what for.
            let calls: Vec<Vec<String>> = refused.iter().map(|need| need.call.clone()).collect();
            refused
                .into_iter()
                .zip(node.ask_all(&calls).await)
                .collect()
        }
        None => {
            let dry = |need: &Need| {
                [&words(&format!("ACL DRYRUN {}", case.user))[..], &need.call].concat()
            };
            let said = node
                .ask_all(&needs.iter().map(dry).collect::<Vec<_>>())
                .await;
            let can_dry_run = said.iter().any(|said| said.refusal().is_none());
            let asked: Vec<&Need> = match can_dry_run {
                true => needs.iter().collect(),
                false => needs
                    .iter()
                    .filter(|need| need.what.is_ascii() && !need.what.starts_with("script "))
                    .collect(),
            };
            let said = match can_dry_run {
                true => said,
                false => {
                    node.ask_all(
                        &asked
                            .iter()
                            .map(|need| need.call.clone())
                            .collect::<Vec<_>>(),
                    )
                    .await
                }
            };
            let refused = asked
                .into_iter()
                .zip(said)
                .filter(|(_, said)| is_refusal(said));
            refused.collect()
        }
    };
    Ok(judged(&refused, case, needs.len()))
}

/// Of a call, or of ACL DRYRUN, which says it as a text.
fn is_refusal(said: &Said) -> bool {
    match said {
        Said::Refused(why) => why.starts_with("NOPERM"),
        Said::Text(text) => text.contains("permissions"),
        _ => false,
    }
}

fn needs(case: &Case) -> Vec<Need> {
    let mut needs = Vec::new();
    // Of a topic's partitions the first: a rule is for all of them.
    let is_tried = |keys: &&Keys| Partition::parse(&keys.stream).is_none_or(|of| of.number == 0);
    for keys in case.streams.iter().filter(is_tried) {
        let own = format!(
            "{}:doctor",
            keys.retry.strip_suffix(":retry").unwrap_or(&keys.retry)
        );
        let mut add = |what: &str, command: &str, own: &str, severity| {
            let command = command.replace('|', " ");
            let Some((command, call)) = CALLS.iter().find(|(known, _)| *known == command) else {
                return;
            };
            let word = |word: String| match &word[..] {
                // Words first: `XINFO STREAM STREAM` is of the stream.
                "OWN" => own.to_owned(),
                _ => word,
            };
            let mut call: Vec<String> = words(call).into_iter().map(word).collect();
            let subject = if command.starts_with("XINFO") { 2 } else { 1 };
            for word in call
                .iter_mut()
                .skip(subject)
                .filter(|word| *word == "STREAM")
            {
                word.clone_from(&keys.stream);
            }
            needs.push(Need {
                what: what.to_owned(),
                command,
                call,
                severity,
            });
        };
        for (what, commands) in WORK {
            commands
                .split(' ')
                .for_each(|command| add(what, command, &own, Severity::Danger));
        }
        for (what, commands) in OPERATE {
            commands
                .split(' ')
                .for_each(|command| add(what, command, &own, Severity::Warning));
        }
        for (script, commands) in script_commands() {
            let severity = if OPERATING.contains(&script) {
                Severity::Warning
            } else {
                Severity::Danger
            };
            let is_of_group = OF_THE_GROUP.contains(&script);
            if is_of_group && !case.pulses && script != "rate" {
                continue;
            }
            let own = match is_of_group {
                true => format!("streamhand:{{{}}}:doctor", case.group),
                false => own.clone(),
            };
            for command in &commands {
                add(&format!("script {script}"), command, &own, severity);
            }
        }
    }
    needs
}

fn judged(refused: &[(&Need, Said)], case: &Case, tried: usize) -> Vec<Finding> {
    let mut found = Vec::new();
    for severity in [Severity::Danger, Severity::Warning] {
        // Each right, and what lacks it.
        let mut rights: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for (need, said) in refused.iter().filter(|(need, _)| need.severity == severity) {
            rights
                .entry(right(need, said, case))
                .or_default()
                .insert(&need.what);
        }
        // What workers lack is told of once.
        if severity == Severity::Warning {
            rights.retain(|right, _| {
                !refused.iter().any(|(need, said)| {
                    need.severity == Severity::Danger && self::right(need, said, case) == *right
                })
            });
        }
        if rights.is_empty() {
            continue;
        }
        let each = |(right, of): (&String, &BTreeSet<&str>)| {
            let mut of: Vec<&str> = of.iter().copied().collect();
            let more = of.len().saturating_sub(3);
            of.truncate(3);
            match more {
                0 => format!("{right} ({})", of.join(", ")),
                more => format!("{right} ({} and {more} more)", of.join(", ")),
            }
        };
        let list: Vec<String> = rights.iter().map(each).collect();
        let cost = match severity {
            Severity::Danger => {
                "a worker that logs in as this user leaves undone what it may not do: its entries wait, and go round"
            }
            _ => "commands of an operator, projections or the event store are refused as this user",
        };
        let rules: Vec<&str> = rights.keys().map(String::as_str).collect();
        found.push(
            Finding::new(
                CHECK,
                severity,
                format!("the user {} lacks {}", case.user, list.join(", ")),
            )
            .cost(cost)
            .mend(format!("ACL SETUSER {} {}", case.user, rules.join(" "))),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(
            CHECK,
            format!(
                "the user {} may do all that is needed ({tried} calls tried)",
                case.user
            ),
        ));
    }
    found
}

/// The rule that is missing: `+xadd`, or `~{orders}:*`.
fn right(need: &Need, said: &Said, case: &Case) -> String {
    let why = match said {
        Said::Refused(why) => why,
        Said::Text(text) => text,
        _ => "",
    };
    if !why.contains(" key") {
        return format!("+{}", need.command.to_lowercase().replace(' ', "|"));
    }
    let stream = case
        .streams
        .iter()
        .find(|keys| need.call.contains(&keys.stream));
    let own = need
        .call
        .iter()
        .find_map(|word| word.strip_suffix(":doctor"));
    match (stream, own) {
        (Some(keys), _) => format!("~{}", keys.stream),
        (None, Some(own)) if own.starts_with("streamhand:") => "~streamhand:*".to_owned(),
        (None, Some(own)) => format!("~{}:*", own.rsplit_once(':').map_or(own, |(base, _)| base)),
        (None, None) => "~*".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::node::list;

    #[test]
    fn every_command_of_every_script_has_a_call_that_changes_nothing() {
        for (script, commands) in script_commands() {
            for command in commands {
                assert!(
                    CALLS.iter().any(|(known, _)| *known == command),
                    "{script}: add {command} to CALLS"
                );
            }
        }
        for (what, commands) in WORK.iter().chain(OPERATE) {
            for command in commands.split(' ').map(|command| command.replace('|', " ")) {
                assert!(
                    CALLS.iter().any(|(known, _)| *known == command),
                    "{what}: {command}"
                );
            }
        }
        for script in OPERATING.iter().chain(OF_THE_GROUP) {
            assert!(
                script_commands().any(|(known, _)| known == *script),
                "there is no script {script}"
            );
        }
    }

    #[test]
    fn keys_are_those_of_the_group() {
        let needs = needs(&Case::example());
        let of = |what: &str, command: &str| {
            needs
                .iter()
                .find(|need| need.what == what && need.command == command)
                .unwrap()
                .call
                .join(" ")
        };
        assert_eq!(of("script status", "XINFO STREAM"), "XINFO STREAM orders");
        assert_eq!(
            of("script park", "ZADD"),
            "ZADD {orders}:fulfilment:doctor XX 0 m"
        );
        assert_eq!(
            of("script pulse_slot", "XADD"),
            "XADD orders NOMKSTREAM 0-0 f v"
        );
        assert_eq!(
            of("script rate", "SET"),
            "SET streamhand:{fulfilment}:doctor v XX"
        );
    }

    #[tokio::test]
    async fn the_rules_that_are_missing_are_named() {
        let all: Vec<&str> = CALLS
            .iter()
            .map(|(command, _)| command.split(' ').next().unwrap())
            .collect();
        let but = |left: &str| {
            let may: Vec<&str> = all.iter().copied().filter(|name| *name != left).collect();
            [
                ("may", list(&may)),
                (
                    "XACK orders streamhand-doctor 0-1",
                    Said::Refused(
                        "NOPERM this user has no permissions to run the 'xack' command".to_owned(),
                    ),
                ),
            ]
        };
        let case = Case::example();
        let sound = look(&Node::recorded("", &but("")), &case)
            .await
            .unwrap()
            .remove(0);
        assert_eq!(sound.severity, Severity::Ok);
        let found = look(&Node::recorded("", &but("XACK")), &case)
            .await
            .unwrap()
            .remove(0);
        assert_eq!(
            (found.severity, found.mend.as_deref()),
            (Severity::Danger, Some("ACL SETUSER worker +xack"))
        );
        assert!(
            found.what.contains("+xack (acknowledging, script "),
            "{}",
            found.what
        );
        // Without scripts, by dry runs.
        let dry = [(
            "ACL DRYRUN worker XADD orders NOMKSTREAM 0-0 f v",
            Said::Text("User worker has no permissions to access the 'orders' key".to_owned()),
        )];
        let found = look(&Node::recorded("", &dry), &case)
            .await
            .unwrap()
            .remove(0);
        assert_eq!(found.mend.as_deref(), Some("ACL SETUSER worker ~orders"));
    }
}
