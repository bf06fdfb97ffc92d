//! What is known of a stream whose events have an order: everything that is pending of it, with whomever, and what has
//! become of it.

use std::sync::Arc;

use crate::event::EntryId;
use crate::stream::{Link, Trouble};
use crate::worker::run::line::Place;
use crate::worker::run::orderer::{BEHIND, Orderer};
use crate::worker::state::inflight::Inflight;
use crate::worker::state::source::Source;

/// Most ids that are asked about at once.
const CHUNK: usize = 500;

/// Learns everything that is pending of a stream and of its replayed entries.
pub(crate) async fn load(
    link: &mut Link,
    source: &Arc<Source>,
    orderer: &Orderer,
) -> Result<(), Trouble> {
    let stream = &source.surroundings.stream;
    orderer.begins_to_look(stream);
    for of in with_replayed(source).filter(|of| !of.is_barred()) {
        let mut from = Some("-".to_owned());
        while let Some(at) = from {
            let group = &of.surroundings.group;
            let page = match link.order_pending(&of.keys, group, &at, BEHIND).await {
                // Nothing was ever replayed.
                Err(Trouble::NoGroup(_)) if of.deletes() => break,
                page => page?,
            };
            orderer.knows(of, &page.0);
            from = page.1;
        }
    }
    look_at_dead(link, source, orderer, true).await?;
    orderer.has_looked(stream);
    Ok(())
}

/// Looks which dead letters of a stream hold their subjects, if they are to. Copies of those that do no more are known before
/// what they held goes on, read or not. With `lists_copies` all are: a letter that nobody here knew may be one of those, and
/// whoever had the stream before may have noted that it is gone.
pub(crate) async fn look_at_dead(
    link: &mut Link,
    source: &Arc<Source>,
    orderer: &Orderer,
    lists_copies: bool,
) -> Result<(), Trouble> {
    let holds = source.order.as_ref().is_some_and(|order| order.holds);
    if !holds || source.deletes() {
        return Ok(());
    }
    let stream = &source.surroundings.stream;
    let before = orderer.dead(stream);
    let mut held = link.order_held(&source.keys).await?;
    let is_gone = |place: &Place| {
        let there = held.there.iter();
        !there
            .clone()
            .any(|(is_new, id, _)| (*is_new, *id) == (place.is_new, place.id))
    };
    // Behind that: what was gone then has its copy now.
    if lists_copies || !held.gone.is_empty() || before.iter().any(is_gone) {
        held.copies = link.order_copies(&source.keys).await?;
    }
    orderer.held(stream, &before, &held);
    link.order_held_done(&source.keys, &held.gone).await
}

/// Looks what has become of entries that are the first of their subjects: what is done with makes room for the next, and
/// what only waited behind another is due. Returns whether any is.
pub(crate) async fn look_at(
    link: &mut Link,
    source: &Arc<Source>,
    orderer: &Orderer,
    places: &[Place],
) -> Result<bool, Trouble> {
    let mut any_is_due = false;
    for of in with_replayed(source) {
        let is_new = !of.deletes();
        let of_it = places.iter().filter(|place| place.is_new == is_new);
        let ids: Vec<EntryId> = of_it.map(|place| place.id).collect();
        for ids in ids.chunks(CHUNK) {
            let group = &of.surroundings.group;
            let (gone, due) = match link.order_rouse(&of.keys, group, BEHIND, ids).await {
                // Copies are there that nobody has read.
                Err(Trouble::NoGroup(_)) if of.deletes() => break,
                looked => looked?,
            };
            any_is_due |= due;
            if gone.is_empty() {
                continue;
            }
            // By whose hands is not known: it may be a dead letter that holds its subject.
            look_at_dead(link, source, orderer, true).await?;
            let gone = gone.into_iter().map(|id| Place { is_new, id });
            orderer.gone(&source.surroundings.stream, gone);
        }
    }
    Ok(any_is_due)
}

/// The stream is another worker's: of what is held of it nothing starts, and what runs is told.
pub(crate) fn lose(inflight: &Inflight, source: &Source) {
    for batch in inflight.snapshot() {
        if batch.source.surroundings.stream == source.surroundings.stream {
            batch.kept().for_each(|slot| slot.is_anothers());
        }
    }
}

/// A stream, and that of its replayed entries.
fn with_replayed(source: &Arc<Source>) -> impl Iterator<Item = &Arc<Source>> {
    std::iter::once(source).chain(&source.again)
}
