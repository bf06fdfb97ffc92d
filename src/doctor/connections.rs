//! How many connections there are, against how many there may be.

use super::case::Case;
use super::node::Node;
use super::report::{Finding, Severity};

const CHECK: &str = "connections";

pub(super) fn look(node: &Node, _: &Case) -> Vec<Finding> {
    let (Some(clients), Some(most)) = (node.number("connected_clients"), node.number("maxclients"))
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let what = format!("{clients} connections of the {most} that there may be");
    let severity = match clients * 100 / most.max(1) {
        95.. => Severity::Danger,
        80.. => Severity::Warning,
        _ => Severity::Ok,
    };
    let finding = Finding::new(CHECK, severity, what);
    found.push(match severity {
        Severity::Ok => finding,
        _ => finding
            .cost("when there are no more, whoever connects is turned away: a worker that starts, and one that reconnects. A worker needs some six, and redis.pool_size more")
            .mend(format!("CONFIG SET maxclients {}", (clients * 2).max(most * 2))),
    });
    if let Some(rejected @ 1..) = node.number("rejected_connections") {
        found.push(
            Finding::new(CHECK, Severity::Notice, format!("{rejected} connections were turned away since the server's start"))
                .cost("those clients had to come again; CONFIG RESETSTAT forgets the count, and all others")
                .mend("CONFIG RESETSTAT"),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_connections_left_are_told_of() {
        let of = |clients: u64| {
            let info =
                format!("connected_clients:{clients}\nmaxclients:100\nrejected_connections:0\n");
            look(&Node::recorded(&info, &[]), &Case::example()).remove(0)
        };
        assert_eq!(
            (of(10).severity, of(80).severity, of(96).severity),
            (Severity::Ok, Severity::Warning, Severity::Danger)
        );
        assert_eq!(of(96).mend.as_deref(), Some("CONFIG SET maxclients 200"));
        let info = "connected_clients:1\nmaxclients:100\nrejected_connections:7\n";
        assert_eq!(
            look(&Node::recorded(info, &[]), &Case::example())[1].severity,
            Severity::Notice
        );
    }
}
