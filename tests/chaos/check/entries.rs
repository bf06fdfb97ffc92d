//! Every entry was handled, or stands whole in the dead letters, once and for a reason that it can have.

use super::{Findings, Known, field, runs};
use crate::chaos::history::Stored;
use crate::chaos::plan::{Act, NewEvent};
use crate::chaos::records::How;
use crate::chaos::rules;
use crate::support::Entry;

pub fn check(known: &Known, findings: &mut Findings) {
    for (event, entries) in &known.entries {
        let Some(published) = known.published.get(&event[..]) else {
            continue;
        };
        let event = &published[0].event;
        // A copy need not run where the event was handled.
        let is_handled_elsewhere = rules::of(event.event_type).deduplicates
            && entries.iter().any(|entry| has_succeeded(known, entry));
        for entry in entries {
            one(known, findings, event, entry, is_handled_elsewhere);
        }
    }
    for (entry, letters) in &known.letters {
        let is_there = |all: &Vec<&Stored>| all.iter().any(|one| one.key() == *entry);
        if !known.entries.values().any(is_there) {
            findings.wrong(entry, format!("a letter ({}) of no entry", letters[0].id));
        }
    }
}

fn one(known: &Known, findings: &mut Findings, event: &NewEvent, entry: &Stored, elsewhere: bool) {
    let rules = rules::of(event.event_type);
    let id = entry.key();
    let letters = known.letters.get(&id).map_or(&[][..], |all| all);
    let has_succeeded = has_succeeded(known, entry);
    match letters {
        [] if rules.always_dies => findings.wrong(&id, "it is no dead letter, and has to be one"),
        [] if has_succeeded || elsewhere => {}
        [] => findings.wrong(&id, "lost: neither handled nor a dead letter"),
        [letter] => {
            buried(known, findings, entry, letter, rules);
            if rules.always_dies && has_succeeded {
                findings.wrong(&id, "a run of it succeeded, which none can");
            }
        }
        more => findings.wrong(&id, format!("{} dead letters of one entry", more.len())),
    }
}

fn has_succeeded(known: &Known, entry: &Stored) -> bool {
    let (id, event) = (entry.key(), field(&entry.entry, "id"));
    known.runs_of(&id).any(|run| run.how() == Some(How::Ok)) || has_committed(known, &event)
}

/// Whether its handler has committed by itself: it may have died before it could say so.
fn has_committed(known: &Known, event: &str) -> bool {
    let published = known.published.get(event);
    published.is_some_and(|all| all[0].event.job.act == Act::Commit)
        && known.history.counted.contains_key(event)
}

fn buried(
    known: &Known,
    findings: &mut Findings,
    stored: &Stored,
    letter: &Entry,
    rules: rules::Rules,
) {
    let (id, entry) = (stored.key(), &stored.entry);
    let original = letter.fields.get(..entry.fields.len());
    let added = letter.fields.get(entry.fields.len()..).unwrap_or_default();
    if original != Some(&entry.fields) || added.iter().any(|(name, _)| !name.starts_with(b"dead."))
    {
        findings.wrong(&id, "its dead letter is not the entry, whole and untouched");
    }
    let (reason, attempts) = (field(letter, "dead.reason"), field(letter, "dead.attempts"));
    if !rules.reasons.contains(&&reason[..]) {
        findings.wrong(&id, format!("buried as {reason}, which it is not"));
    }
    let attempts: u32 = attempts.parse().unwrap_or(u32::MAX);
    let all = rules.max_attempts;
    let has_to_have_all = reason == "failed" || reason == "crashed";
    if attempts > all || has_to_have_all && attempts != all {
        findings.wrong(
            &id,
            format!("buried as {reason} after {attempts} of {all} attempts"),
        );
    }
    // Nobody is given the next attempt of what is buried, nor buries what is on its next one.
    let later = known.runs_of(&id).find(|run| run.attempt > attempts);
    if let Some(run) = later.filter(|_| reason == "permanent") {
        findings.wrong(
            &id,
            format!(
                "buried as {reason} in attempt {attempts}, and {} had attempt {}",
                run.name(),
                run.attempt
            ),
        );
    }
    // Its end is known to have been carried out.
    let settled = known
        .runs_of(&id)
        .find(|run| run.how() == Some(How::Ok) && known.is_surely_settled(run));
    if let Some(run) = settled {
        findings.wrong(
            &id,
            format!("buried as {reason}, and {} had succeeded", run.name()),
        );
    }
    // Who fails without having failed, or dies without a death.
    let last = known.runs_of(&id).last();
    let unfinished = |run: &&runs::Run| run.end.is_none() || known.may_have_lost(run);
    match &reason[..] {
        "failed" if last.is_none() => findings.wrong(&id, "buried as failed, and never ran"),
        "crashed" if rules.max_attempts > 1 && !known.runs_of(&id).any(|run| unfinished(&run)) => {
            findings.wrong(
                &id,
                "buried as crashed, and no worker died or lost its lease",
            );
        }
        _ => {}
    }
}
