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
    look_at_dead(link, source, orderer).await?;
    orderer.has_looked(stream);
    Ok(())
}

/// Looks which dead letters of a stream hold their subjects, if they are to.
pub(crate) async fn look_at_dead(
    link: &mut Link,
    source: &Arc<Source>,
    orderer: &Orderer,
) -> Result<(), Trouble> {
    let holds = source.order.as_ref().is_some_and(|order| order.holds);
    if !holds || source.deletes() {
        return Ok(());
    }
    let stream = &source.surroundings.stream;
    let before = orderer.dead(stream);
    let held = link.order_held(&source.keys, &[]).await?;
    orderer.held(stream, &before, &held);
    if !held.gone.is_empty() {
        link.order_held(&source.keys, &held.gone).await?;
    }
    Ok(())
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
            let (gone, due) = link.order_rouse(&of.keys, group, BEHIND, ids).await?;
            any_is_due |= due;
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
