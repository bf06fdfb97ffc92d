//! What a managed service refuses of what servers know, or says less of, and what streamhand does without it. Each command is
//! tried in a way that changes nothing. What only this user may not do is told by `rights.rs`.

use super::case::Case;
use super::node::{Node, owned, words};
use super::report::{Finding, Severity};
use crate::stream::Said;

const CHECK: &str = "service";
/// Most arguments of one call: a batch of 500 entries with all that belongs to each.
const ARGUMENTS: usize = 3900;

/// A command, a call of it that changes nothing, how bad it is without, and what that costs.
const PROBES: &[(&str, &str, Severity, &str)] = &[
    (
        "EVALSHA",
        "EVALSHA 0000000000000000000000000000000000000000 1 OWN",
        Severity::Danger,
        "streamhand can't work here: every step that changes several things is a script",
    ),
    (
        "SCRIPT LOAD",
        "SCRIPT LOAD return(0)",
        Severity::Danger,
        "streamhand can't work here: every step that changes several things is a script",
    ),
    (
        "EVALSHA_RO",
        "EVALSHA_RO 0000000000000000000000000000000000000000 1 OWN",
        Severity::Warning,
        "commands that only look, such as status, are refused",
    ),
    (
        "CLIENT UNBLOCK",
        "CLIENT UNBLOCK 0",
        Severity::Notice,
        "a read that waits can't be woken, so each waits for 100 ms at most: a worker at rest asks ten times a second",
    ),
    (
        "CLIENT ID",
        "CLIENT ID",
        Severity::Notice,
        "a read that waits can't be woken, so each waits for 100 ms at most; connections are numbered by streamhand itself",
    ),
    (
        "CLIENT SETNAME",
        "CLIENT SETNAME streamhand:check",
        Severity::Notice,
        "connections have no names by which the service could tell whose they are",
    ),
    (
        "HELLO",
        "HELLO",
        Severity::Notice,
        "if INFO is refused as well, whether it is a cluster is not found out: set redis.mode",
    ),
    (
        "ROLE",
        "ROLE",
        Severity::Notice,
        "nothing, for INFO or HELLO says which server is the primary",
    ),
    (
        "WAIT",
        "WAIT 0 0",
        Severity::Notice,
        "redis.replicas can't be used: whether a replica has what was published can't be asked",
    ),
    (
        "CONFIG GET",
        "CONFIG GET maxmemory-policy",
        Severity::Notice,
        "settings that cost something are not seen",
    ),
    (
        "ACL",
        "ACL WHOAMI",
        Severity::Notice,
        "which rights are missing is found out by trying alone",
    ),
    (
        "SLOWLOG",
        "SLOWLOG GET 1",
        Severity::Notice,
        "slow commands are not shown",
    ),
    (
        "MEMORY USAGE",
        "MEMORY USAGE OWN",
        Severity::Notice,
        "the largest keys are not seen",
    ),
];

/// What INFO has to say for all that is made of it, and what it costs if it does not.
const FIELDS: &[(&str, &str)] = &[
    ("redis_version", "whether it is too old is not known"),
    (
        "run_id",
        "whether it is another server is not known after a reconnect: what is held is checked each time",
    ),
    ("role", "whether it is a replica is not known"),
    (
        "maxmemory_policy",
        "whether it deletes keys when its memory is full is not known",
    ),
];

pub(super) async fn look(node: &Node, case: &Case) -> Vec<Finding> {
    let own = match case.streams.first() {
        Some(keys) => keys
            .retry
            .strip_suffix(":retry")
            .map_or(keys.retry.clone(), |own| format!("{own}:doctor")),
        None => format!("streamhand:{{{}}}:doctor", case.group),
    };
    let call = |call: &str| -> Vec<String> {
        let word = |word: String| if word == "OWN" { own.clone() } else { word };
        words(call).into_iter().map(word).collect()
    };
    let calls: Vec<Vec<String>> = PROBES.iter().map(|(_, of, ..)| call(of)).collect();
    let said = node.ask_all(&calls).await;
    let mut found: Vec<Finding> = PROBES
        .iter()
        .zip(&said)
        .filter(|(_, said)| is_refused(said))
        .map(|((name, _, severity, cost), said)| {
            let why = said.refusal().unwrap_or_default();
            Finding::new(CHECK, *severity, format!("no {name}: {why}")).cost(*cost)
        })
        .collect();
    found.extend(info(node));
    let role = PROBES.iter().position(|(name, ..)| *name == "ROLE");
    found.extend(role.and_then(|at| roles(node, &said[at])));
    let exists = ["EXISTS"]
        .into_iter()
        .chain(std::iter::repeat_n(&own[..], ARGUMENTS));
    let exists = owned(&exists.collect::<Vec<_>>());
    if let Some(why) = node
        .ask_all(&[exists])
        .await
        .first()
        .filter(|said| is_refused(said))
        .and_then(Said::refusal)
    {
        found.push(
            Finding::new(
                CHECK,
                Severity::Danger,
                format!("a call with {ARGUMENTS} arguments is refused: {why}"),
            )
            .cost("steps over many entries at once are refused, and those entries wait"),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok(
            CHECK,
            "the server refuses nothing that is used",
        ));
    }
    found
}

/// Whether the server does not do this, whoever asks.
fn is_refused(said: &Said) -> bool {
    said.refusal()
        .is_some_and(|why| why.split(' ').next() == Some("ERR"))
}

/// What INFO does not say.
fn info(node: &Node) -> Vec<Finding> {
    match node.no_info() {
        Some(why) if why.starts_with("ERR") => {
            let costs: Vec<&str> = FIELDS.iter().map(|(_, cost)| *cost).collect();
            let what = format!("no INFO: {why}");
            vec![Finding::new(CHECK, Severity::Notice, what).cost(costs.join("; "))]
        }
        // It is the user that lacks the right.
        Some(_) => Vec::new(),
        None => {
            let is_missing = |field: &str| node.info(field).is_none_or(str::is_empty);
            FIELDS
                .iter()
                .filter(|(field, _)| is_missing(field))
                .map(|(field, cost)| {
                    let what = format!("INFO does not say {field}");
                    Finding::new(CHECK, Severity::Notice, what).cost(*cost)
                })
                .collect()
        }
    }
}

/// INFO is what is gone by.
fn roles(node: &Node, said: &Said) -> Option<Finding> {
    let (role, info) = (said.items().first()?.text()?, node.info("role")?);
    (role != info && !info.is_empty()).then(|| {
        Finding::new(
            CHECK,
            Severity::Warning,
            format!("ROLE says {role}, and INFO says {info}"),
        )
        .cost("a failover may be noticed late: streamhand goes by INFO")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::node::list;

    /// A server that knows all, in INFO's words, and what it says otherwise to some.
    async fn of(info: &str, others: &[(&str, Said)]) -> Vec<Finding> {
        let own = "{orders}:fulfilment:doctor";
        let calls: Vec<String> = PROBES
            .iter()
            .map(|(_, call, ..)| call.replace("OWN", own))
            .chain([format!("EXISTS{}", format!(" {own}").repeat(ARGUMENTS))])
            .collect();
        let mut said: Vec<(&str, Said)> = calls
            .iter()
            .map(|call| (&call[..], Said::Number(0)))
            .collect();
        said.extend(others.iter().cloned());
        look(&Node::recorded(info, &said), &Case::example()).await
    }

    const INFO: &str =
        "redis_version:7.2.4\r\nrun_id:abc\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n";

    #[tokio::test]
    async fn what_is_refused_is_told_with_what_it_costs() {
        assert_eq!(of(INFO, &[]).await[0].severity, Severity::Ok);
        let refused = |name: &str| Said::Refused(format!("ERR unknown command '{name}'"));
        let found = of(INFO, &[("CLIENT UNBLOCK 0", refused("CLIENT"))]).await;
        assert!(
            found[0].what.starts_with("no CLIENT UNBLOCK") && found[0].cost.contains("100 ms"),
            "{found:?}"
        );
        let found = of(INFO, &[("SCRIPT LOAD return(0)", refused("SCRIPT"))]).await;
        assert_eq!(found[0].severity, Severity::Danger);
        // That the script or the key is not here, or that the user may not, is no refusal of the service's.
        for other in [
            "NOSCRIPT No matching script.",
            "MOVED 1 10.0.0.1:6379",
            "NOPERM no",
        ] {
            let call =
                "EVALSHA 0000000000000000000000000000000000000000 1 {orders}:fulfilment:doctor";
            let found = of(INFO, &[(call, Said::Refused(other.to_owned()))]).await;
            assert_eq!(found[0].severity, Severity::Ok, "{other}");
        }
        let capped = format!("EXISTS{}", " {orders}:fulfilment:doctor".repeat(ARGUMENTS));
        let why = Said::Refused("ERR too many arguments".to_owned());
        let found = of(INFO, &[(&capped, why)]).await;
        assert!(
            found[0].what.contains("3900 arguments") && found[0].severity == Severity::Danger,
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn what_info_and_role_say_is_compared() {
        let found = of("redis_version:7.2.4\r\nrole:master\r\n", &[]).await;
        let said: Vec<&str> = found.iter().map(|one| &one.what[..]).collect();
        assert_eq!(
            said,
            [
                "INFO does not say run_id",
                "INFO does not say maxmemory_policy"
            ]
        );
        let found = of("-ERR command is not allowed", &[]).await;
        assert!(found[0].what.starts_with("no INFO"), "{found:?}");
        assert_eq!(of("-NOPERM no", &[]).await[0].severity, Severity::Ok);
        let found = of(INFO, &[("ROLE", list(&["slave"]))]).await;
        assert_eq!(found[0].what, "ROLE says slave, and INFO says master");
    }
}
