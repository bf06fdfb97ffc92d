//! Entries that the group had read before come as new ones: it was set back, or made anew below them. What was parked
//! waits for its due time as it did, what had failed goes on, and what is held here stays held. Each is asked for only as long
//! as anything may be left from before: after that a million entries that are to be handled again cost as much as new ones.

use std::sync::Arc;

use super::delivery::Delivery;
use crate::event::{Entry, EntryId};
use crate::stream::{Link, MetAgain, Trouble};
use crate::worker::shard::clock::Clock;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::source::Source;

/// What is to be handled of entries of which the first, at least, was read before.
pub(crate) async fn met_again(
    source: &Arc<Source>,
    entries: Vec<Entry>,
    inflight: &Inflight,
    me: &str,
    clock: &Clock,
    link: &mut Link,
) -> Result<Vec<Delivery>, Trouble> {
    let read = source.read_up_to();
    let held = held_at_first_delivery(inflight, source);
    let (known, new): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.id <= read);
    let known_up_to = known.last().map(|entry| entry.id);
    // What is held here at its first delivery still is: this delivery changed nothing.
    let known: Vec<Entry> = known
        .into_iter()
        .filter(|entry| !held.contains(&entry.id))
        .collect();
    let ids: Vec<EntryId> = known.iter().map(|entry| entry.id).collect();
    let group = &source.surroundings.group;
    let looked = link.met_again(&source.keys, group, me, &ids).await?;
    if looked.is_new_beyond {
        let held_from_before = held.iter().max().copied();
        source.was_set_back(known_up_to.max(held_from_before));
    }
    new.last()
        .into_iter()
        .for_each(|entry| source.has_read(entry.id));
    let now = clock.now();
    let delivery = |(entry, met): (Entry, MetAgain)| match met {
        MetAgain::New => Some(Delivery::new(entry)),
        MetAgain::GoesOn(count, record) => Some(Delivery::going_on(entry, count, record, now)),
        MetAgain::NotOurs => None,
    };
    let known = known.into_iter().zip(looked.met).filter_map(delivery);
    Ok(known.chain(new.into_iter().map(Delivery::new)).collect())
}

fn held_at_first_delivery(inflight: &Inflight, source: &Arc<Source>) -> Vec<EntryId> {
    let batches = inflight.snapshot();
    batches
        .iter()
        .filter(|batch| !batch.alone && Arc::ptr_eq(&batch.source, source))
        .flat_map(|batch| batch.kept())
        .filter(|slot| slot.count == 1)
        .map(|slot| slot.id)
        .collect()
}
