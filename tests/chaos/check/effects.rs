//! Effects and emitted events took place once for each event that was handled, and never for others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Known, field};
use crate::chaos::history::Stored;
use crate::chaos::rules;
use crate::support::Entry;

pub fn check(known: &Known, findings: &mut Findings) {
    let mut emitted: BTreeMap<String, Vec<&Entry>> = BTreeMap::new();
    for entry in &known.history.emitted {
        let of = emitted.entry(field(entry, "causationid")).or_default();
        of.push(entry);
    }
    let counted = &known.history.counted;
    let events: BTreeSet<&str> = known
        .published
        .keys()
        .copied()
        .chain(counted.keys().map(|event| &event[..]))
        .chain(emitted.keys().map(|event| &event[..]))
        .collect();
    for event in events {
        let expected = expected(known, event);
        let times = counted.get(event).copied().unwrap_or(0);
        if times != expected {
            findings.wrong(
                event,
                format!("its effect took place {times} times, not {expected}"),
            );
        }
        let emitted = emitted.get(event).map_or(&[][..], |all| all);
        if emitted.len() as i64 != expected {
            let times = emitted.len();
            findings.wrong(event, format!("it emitted {times} times, not {expected}"));
        }
        for done in emitted {
            if field(done, "type") != "chaos.done" || field(done, "source") != rules::GROUP {
                findings.wrong(event, format!("what it emitted, {}, is not whole", done.id));
            }
        }
    }
}

fn expected(known: &Known, event: &str) -> i64 {
    let Some(published) = known.published.get(event) else {
        return 0;
    };
    let event = &published[0].event;
    if !event.job.effect {
        return 0;
    }
    let entries = known.entries.get(&event.id).map_or(&[][..], |all| all);
    let is_alive = |entry: &&&Stored| !known.letters.contains_key(&entry.key());
    let alive = entries.iter().filter(is_alive).count() as i64;
    if rules::of(event.event_type).deduplicates {
        alive.min(1)
    } else {
        alive
    }
}
