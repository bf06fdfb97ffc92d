//! Merging: pulses to minutes, minutes to tens, tens to hours. Any worker may, and they take turns. Whoever dies in the
//! middle leaves what the next one goes on from: what is there says how far it is, everything is made of what does not
//! change any more, and Redis refuses to have a slot twice.

use std::time::Duration;

use super::fleet::Remembered;
use super::slot::{Came, Gather, Length, Minute, Slot, longer};
use super::wire::Unreadable;
use crate::stream::{Link, PulseKeys, RawPulse, RawSlot, Trouble, Turn};

/// A minute is over so long after its end: what Redis stamps a pulse with may be a moment behind what it says the time is.
const SETTLED_MS: u64 = 5_000;
/// How far back it is looked for what a pulse may be a repeat of.
const LOOK_BACK_MS: u64 = 120_000;
/// For how long pulses are kept that have been merged.
const KEPT_MS: u64 = 15 * 60_000;
/// Most versions that are remembered, the newest.
const MOST_DEPLOYS: usize = 200;

/// Whoever has the turn to merge has it for so long: nobody else does in the same minute.
const TURN: Duration = Duration::from_secs(45);

/// How far a merge got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Pulses from before this may go.
    pub keep_from_ms: u64,
    /// Pulses that could not be read.
    pub unread: u64,
    /// The newest form of any that a newer release has packed.
    pub newer: Option<u8>,
}

/// Merges what is over at this time, by the server's clock, if it is this worker's turn.
pub(crate) async fn merge(
    link: &mut Link,
    keys: &PulseKeys,
    worker: &str,
    now_ms: u64,
) -> Result<Merged, Trouble> {
    let over = Length::Minute.of(now_ms.saturating_sub(SETTLED_MS));
    let turn = Turn {
        worker,
        rest: TURN,
        over_ms: over,
        look_back_ms: LOOK_BACK_MS,
    };
    let standing = link.turn_to_merge(keys, &turn).await?;
    let from = standing.last_ms.map_or(0, |at| at + Length::Minute.ms());
    let kept = now_ms.saturating_sub(KEPT_MS);
    let mut merged = Merged {
        keep_from_ms: kept.min(from),
        ..Merged::default()
    };
    let Some(pulses) = standing.pulses else {
        return Ok(merged);
    };
    let first = (pulses, standing.has_more);
    minutes(link, keys, (from, over), first, &mut merged).await?;
    merged.keep_from_ms = kept.min(over);
    // Who reads makes tens of minutes where there are none yet, so they are in no hurry.
    if Length::Ten.of(from) != Length::Ten.of(over) {
        lengthen(link, &keys.minutes, &keys.tens, Length::Ten, over).await?;
        if lengthen(link, &keys.tens, &keys.hours, Length::Hour, over).await? > 0 {
            forget(link, keys, now_ms).await?;
        }
    }
    Ok(merged)
}

/// Merges the minutes from one time to another, of which these are the first pulses.
async fn minutes(
    link: &mut Link,
    keys: &PulseKeys,
    (from, over): (u64, u64),
    first: (Vec<RawPulse>, bool),
    merged: &mut Merged,
) -> Result<(), Trouble> {
    let (mut gather, mut page) = (Gather::default(), first);
    loop {
        let (pulses, has_more) = page;
        let Some(last) = pulses.last().map(|last| last.id) else {
            break;
        };
        for raw in &pulses {
            let came = Came::of(raw);
            if came.ms < from {
                gather.before(&came);
                continue;
            }
            if let Err(why) = &came.pulse {
                merged.unread += 1;
                if let Unreadable::Newer(form) = why {
                    merged.newer = merged.newer.max(Some(*form));
                }
            }
            if let Some(minute) = gather.take(came) {
                write(link, keys, minute).await?;
            }
        }
        if !has_more {
            break;
        }
        page = link.pulses(keys, last.next(), over).await?;
    }
    match gather.end() {
        Some(minute) => write(link, keys, minute).await,
        None => Ok(()),
    }
}

/// Writes a minute. Somebody else may have been faster, with the same.
async fn write(link: &mut Link, keys: &PulseKeys, minute: Minute) -> Result<(), Trouble> {
    let Minute {
        slot,
        last,
        deploys,
    } = minute;
    let deploys: Vec<(String, u64)> = deploys
        .into_iter()
        .map(|((version, configuration), first)| (deploy_name(&version, configuration), first))
        .collect();
    let workers: Vec<(String, Vec<u8>)> = last
        .into_iter()
        .map(|(worker, (seen_ms, pulse))| (worker, Remembered { seen_ms, pulse }.pack()))
        .collect();
    let (raw, keep_from) = raw(&slot, Length::Minute);
    let added = link.add_minute(keys, &raw, keep_from, &deploys, &workers);
    added.await.map(|_| ())
}

/// A slot as it is to stand in Redis, and from when on those of its length are kept.
fn raw(slot: &Slot, length: Length) -> (RawSlot, u64) {
    let raw = RawSlot {
        at_ms: slot.at_ms,
        packed: slot.pack(),
    };
    (raw, slot.at_ms.saturating_sub(length.kept_ms()))
}

/// Makes longer slots of all shorter ones that they are made of, once all of those are there. Returns how many.
async fn lengthen(
    link: &mut Link,
    shorter: &str,
    to: &str,
    length: Length,
    over: u64,
) -> Result<usize, Trouble> {
    let last = link.last_slot(to).await?;
    let (mut from, over) = (last.map_or(0, |at| at + length.ms()), length.of(over));
    let mut slots = Vec::new();
    while from < over {
        let page = link.slots(shorter, from, over).await?;
        let Some(last) = page.last() else { break };
        from = last.at_ms + 1;
        slots.extend(page.iter().filter_map(read));
    }
    let made = longer(slots, length);
    for slot in &made {
        let (raw, keep_from) = raw(slot, length);
        link.add_slot(to, &raw, keep_from).await?;
    }
    Ok(made.len())
}

/// A slot as it stands in Redis, if it can be read.
pub(super) fn read(raw: &RawSlot) -> Option<Slot> {
    Slot::unpack(raw.at_ms, &raw.packed).ok()
}

/// Forgets workers that have not been heard of for long, and the oldest of many versions.
async fn forget(link: &mut Link, keys: &PulseKeys, now_ms: u64) -> Result<(), Trouble> {
    let workers = link.remembered_workers(keys).await?;
    let of = |(name, packed): (String, Vec<u8>)| {
        (name, Remembered::unpack(&packed).map_or(0, |it| it.seen_ms))
    };
    let gone = Remembered::to_forget(workers.into_iter().map(of).collect(), now_ms);
    link.forget_remembered(&keys.workers, &gone).await?;
    let mut deploys: Vec<(String, u64)> =
        link.remembered_deploys(keys).await?.into_iter().collect();
    deploys.sort_by_key(|(_, first)| std::cmp::Reverse(*first));
    let old: Vec<String> = deploys
        .into_iter()
        .skip(MOST_DEPLOYS)
        .map(|(name, _)| name)
        .collect();
    link.forget_remembered(&keys.deploys, &old).await
}

/// What a version and a configuration are remembered as.
pub(super) fn deploy_name(version: &str, configuration: u64) -> String {
    format!("{version} {configuration:016x}")
}

/// The version and the configuration of that name.
pub(super) fn deploy_of(name: &str) -> Option<(String, u64)> {
    let (version, configuration) = name.rsplit_once(' ')?;
    Some((
        version.to_owned(),
        u64::from_str_radix(configuration, 16).ok()?,
    ))
}
