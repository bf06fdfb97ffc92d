//! What becomes of entries that have come: from here on this worker holds them. They go to whoever handles them, or, if
//! nobody here can read them, straight to be settled.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::delivery::{Deliveries, Delivery, Unread};
use crate::event::Entry;
use crate::fields::Fields;
use crate::worker::run::dispatch::Dispatcher;
use crate::worker::run::outcome::{Body, Settlement};
use crate::worker::run::work::Item;
use crate::worker::state::inflight::Slot;
use crate::worker::state::shared::Shared;

/// Hands entries over.
pub(crate) struct HandOver {
    shared: Arc<Shared>,
    runs: Dispatcher,
    settle: mpsc::UnboundedSender<Settlement>,
}

impl HandOver {
    pub fn new(
        shared: Arc<Shared>,
        runs: Dispatcher,
        settle: mpsc::UnboundedSender<Settlement>,
    ) -> Self {
        HandOver {
            shared,
            runs,
            settle,
        }
    }

    /// Gives entries to the executor, from now on held.
    pub fn deliver(&self, deliveries: Deliveries) {
        let Deliveries {
            source,
            coming,
            since,
            entries,
        } = deliveries;
        source.coming(entries.len());
        if let Some(observer) = &self.shared.observer {
            observer.delivered(&source.surroundings.stream, entries.len());
        }
        let slots = entries.iter().map(Delivery::slot).collect();
        let batch =
            self.shared
                .inflight
                .add(&source, coming, since, self.shared.identity.lease, slots);
        let items = entries.into_iter().enumerate();
        let items = items.map(|(index, delivery)| Item {
            index: index as u32,
            entry: delivery.entry,
            past: delivery.past,
        });
        self.runs.send(&batch, items);
    }

    /// Has entries settled that no handler is to see.
    pub fn settle_unread(&self, unread: Unread) {
        let Unread {
            source,
            coming,
            since,
            entries,
            verdict,
            attempt,
        } = unread;
        let slot = |(id, count): &_| Slot::new(*id, *count, false, 0);
        let slots = entries.iter().map(slot).collect();
        let lease = self.shared.identity.lease;
        let batch = self
            .shared
            .inflight
            .add(&source, coming, since, lease, slots);
        for (index, (id, _)) in entries.into_iter().enumerate() {
            batch.slots[index].finish();
            let _ = self.settle.send(Settlement {
                batch: batch.clone(),
                index: index as u32,
                verdict: verdict.clone(),
                body: Body::Raw(Entry {
                    id,
                    fields: Fields::new(),
                }),
                attempt,
            });
        }
    }

    /// Whether something waits to be handled on the thread that fetches.
    pub fn waits_here(&self) -> bool {
        self.runs.waits_here()
    }
}
