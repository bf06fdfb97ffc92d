//! Who else trims a stream: what is trimmed below what a group has read is lost. Workers trim only what every group has
//! settled, and count it; whatever else is gone, others have trimmed or deleted: publishers with MAXLEN, mostly.

use std::time::Duration;

use super::case::Case;
use super::node::{Node, owned};
use super::report::{Finding, Severity};
use crate::event::EntryId;
use crate::stream::{Keys, Progress, Said};

const CHECK: &str = "trimmers";
/// How long it is waited for somebody to trim it once more.
const MEANWHILE: Duration = Duration::from_millis(500);

/// What is known of a stream and a group at one time.
#[derive(Clone, Copy, Default)]
struct Seen {
    progress: Progress,
    /// The lowest that is pending, if it is not there any more.
    pending: Option<EntryId>,
}

pub(super) async fn look(node: &Node, keys: &Keys, case: &Case) -> Vec<Finding> {
    let Some(seen) = seen(node, keys, case).await else {
        return Vec::new();
    };
    let before = seen.progress.gone_by_others();
    let mut found = judged(keys, &seen, case);
    if before > 0 {
        tokio::time::sleep(MEANWHILE).await;
        let after = self::seen(node, keys, case)
            .await
            .map_or(before, |seen| seen.progress.gone_by_others());
        found.extend(trimming(keys, after.saturating_sub(before)));
    }
    if found.is_empty() {
        found.push(Finding::ok(
            CHECK,
            match before {
                0 => format!("{}: nobody else trims it", keys.stream),
                before => format!(
                    "{}: others have removed {before} entries so far; nothing of it was unread",
                    keys.stream
                ),
            },
        ));
    }
    found
}

async fn seen(node: &Node, keys: &Keys, case: &Case) -> Option<Seen> {
    let stream = &keys.stream;
    let asked = [
        owned(&["XINFO", "STREAM", stream]),
        owned(&["XINFO", "GROUPS", stream]),
        owned(&["HGET", &keys.trimmed, "settled"]),
        owned(&["XPENDING", stream, &case.group]),
    ];
    let said = node.ask_all(&asked).await;
    let [about, groups, settled, pending] = &said[..] else {
        return None;
    };
    let group = groups
        .items()
        .iter()
        .find(|of| of.get("name").and_then(Said::text) == Some(&case.group));
    let lowest = pending.items().get(1).and_then(Said::text);
    let is_there = match lowest {
        Some(lowest) => !node
            .ask_words(&["XRANGE", stream, lowest, lowest])
            .await
            .items()
            .is_empty(),
        None => true,
    };
    Some(Seen {
        progress: Progress::of(about, settled, group)?,
        pending: lowest
            .filter(|_| !is_there)
            .and_then(|lowest| EntryId::parse(lowest.as_bytes())),
    })
}

fn judged(keys: &Keys, seen: &Seen, case: &Case) -> Vec<Finding> {
    let (stream, group, progress) = (&keys.stream, &case.group, &seen.progress);
    let mut found = Vec::new();
    let unread = progress.unread();
    if unread > 0 {
        let delivered = progress.delivered.unwrap_or_default();
        found.push(
            Finding::new(CHECK, Severity::Danger, format!("{stream}: {unread} entries were trimmed that {group} had not read"))
                .cost("they are lost to it. See to it first that nobody trims (XADD without MAXLEN, no XTRIM); the command takes the loss for known")
                .mend(format!("XGROUP SETID {stream} {group} {delivered} ENTRIESREAD {}", progress.gone())),
        );
    }
    if let Some(pending) = seen.pending {
        found.push(
            Finding::new(CHECK, Severity::Danger, format!("{stream}: the entry {pending} is pending and was trimmed or deleted"))
                .cost("it can't be handled again: a worker that wakes it reports it as lost. It is most likely not alone")
                .mend(format!("XACK {stream} {group} {pending}")),
        );
    }
    found
}

fn trimming(keys: &Keys, removed: u64) -> Option<Finding> {
    let stream = &keys.stream;
    (removed > 0).then(|| {
        Finding::new(
            CHECK,
            Severity::Warning,
            format!("{stream}: somebody else trims it, {removed} entries in the last half second"),
        )
        .cost("as soon as the group falls behind, what it has not read is lost. Publish without MAXLEN, and let workers trim by retention; a client whose last command was XTRIM is in the list")
        .mend("CLIENT LIST")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> Option<EntryId> {
        Some(EntryId { ms, seq: 0 })
    }

    #[test]
    fn only_what_was_not_read_or_not_settled_is_lost() {
        let (keys, case) = (Keys::new("orders", "fulfilment"), Case::example());
        let progress = Progress {
            added: 10,
            length: 4,
            first: id(7),
            last: id(10),
            delivered: id(3),
            read: Some(3),
            ..Progress::default()
        };
        let of = |progress| Seen {
            progress,
            pending: None,
        };
        let lost = judged(&keys, &of(progress), &case).remove(0);
        assert_eq!(
            lost.what,
            "orders: 3 entries were trimmed that fulfilment had not read"
        );
        assert_eq!(
            lost.mend.as_deref(),
            Some("XGROUP SETID orders fulfilment 3-0 ENTRIESREAD 6")
        );
        let read = Progress {
            delivered: id(8),
            read: Some(8),
            ..progress
        };
        assert_eq!(
            (judged(&keys, &of(read), &case), read.gone_by_others()),
            (vec![], 6)
        );
        let empty = Progress {
            length: 0,
            first: id(0),
            ..progress
        };
        assert_eq!(empty.unread(), 7);
        let ours = Progress { settled: 6, ..read };
        assert_eq!(ours.gone_by_others(), 0);
        let pending = Seen {
            progress: read,
            pending: id(2),
        };
        assert_eq!(
            judged(&keys, &pending, &case)[0].mend.as_deref(),
            Some("XACK orders fulfilment 2-0")
        );
        assert!(trimming(&keys, 0).is_none() && trimming(&keys, 5).is_some());
    }
}
