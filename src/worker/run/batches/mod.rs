//! Batch handlers: entries of one type are collected until there are enough of them, or the first has waited for long
//! enough; then their handler is called with all of them. One that fails is called again with each half, until what fails
//! stands alone. The entries are held all the while as any other.

mod call;
mod gatherer;
mod keeper;
mod release;
mod share;

pub(crate) use keeper::Keepers;
pub(crate) use share::Together;

use crate::outbox::Items;

/// Most events and effects that one step takes place with, and about how many bytes.
const MOST_ITEMS: usize = 1_000;
const MOST_BYTES: usize = 1 << 20;

/// Why this can't leave in one step with a batch, if it can't.
pub(crate) fn too_much(items: &Items) -> Option<String> {
    if !items.lines.is_empty() {
        return Some(
            "a batch handler emits events now, and asks for effects: what is emitted later, cancelled or appended is \
             for a handler of one event; emit an event to one"
                .to_owned(),
        );
    }
    let count = items.events.len() + items.effects.len();
    if count > MOST_ITEMS {
        return Some(format!(
            "a batch leaves at most {MOST_ITEMS} events and effects, and this one has {count}: have it take fewer events"
        ));
    }
    let events = items.events.iter();
    let events = events.map(|event| event.envelope.fields().size());
    let effects = items.effects.iter().flat_map(|effect| &effect.args);
    let bytes = events.sum::<usize>() + effects.map(Vec::len).sum::<usize>();
    (bytes > MOST_BYTES).then(|| {
        format!(
            "a batch leaves events and effects of at most {MOST_BYTES} bytes, and this one has {bytes}: have it take fewer \
             events"
        )
    })
}
