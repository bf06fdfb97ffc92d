//! What `status` says of retention: what a stream is trimmed to, what holds it, and what became of dead letters.

use super::text::{count, rough};
use crate::admin::{Held, HeldBy, RetentionStatus, StreamStatus};
use crate::config::DeadLetterSettings;
use crate::names::shown;

/// Lines for people.
pub(super) fn notes(status: &StreamStatus, settings: &DeadLetterSettings) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(retention) = &status.retention {
        let force = if retention.force { ", by force" } else { "" };
        let found = found(retention);
        notes.push(format!("retention {}{force}: {found}", retention.keeps));
    }
    if status.dead_too_many {
        notes.push(format!(
            "{}, and {} is many: dlq stats says of what kind; replay or purge them",
            count(status.dead, "dead letter"),
            settings.warn_at
        ));
    }
    if status.dead_dropped > 0 {
        let by = match settings.keep {
            Some(keep) => format!("dead_letters.keep = \"{keep}\""),
            None => "a dead_letters.keep that is no longer set".to_owned(),
        };
        notes.push(format!(
            "{} dropped so far by {by}",
            count(status.dead_dropped, "dead letter")
        ));
    }
    notes
        .into_iter()
        .map(|note| format!("{}: {note}", status.stream))
        .collect()
}

fn found(status: &RetentionStatus) -> String {
    let Some(could) = status.could_trim else {
        let trouble = status.trouble.clone();
        return trouble
            .unwrap_or_else(|| "nothing is trimmed before the group is there".to_owned());
    };
    let more = match status.could_trim_more {
        Some(true) => "+",
        _ => "",
    };
    let entries = if could == 1 { "entry" } else { "entries" };
    let could = format!("{could}{more} {entries} could be trimmed");
    match &status.held {
        None => format!("{could}; nothing is held"),
        Some(held) => format!("{could}; {}", by(held)),
    }
}

fn by(held: &Held) -> String {
    let why = match held.why {
        HeldBy::Unread | HeldBy::Pending => match (held.unread, held.unread_at_least) {
            (Some(unread), _) => format!("{} pending, {unread} unread", held.pending),
            (None, Some(unread)) => format!("{} pending, {unread}+ unread", held.pending),
            (None, None) => format!("{} pending", held.pending),
        },
        HeldBy::Parked => "made anew: what was parked is not back yet".to_owned(),
        HeldBy::Gone => "destroyed a moment ago".to_owned(),
    };
    let too_long = if held.too_long {
        ", and should not"
    } else {
        ""
    };
    format!(
        "the group {} holds {} ({} old; {why}){too_long}",
        shown(&held.group),
        held.id,
        rough(held.age)
    )
}
