//! What becomes of entries that have come: from here on this worker holds them. They go to whoever handles them, or, if
//! nobody here can read them, straight to be settled.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::delivery::{Deliveries, Delivery, Unread};
use super::prefetch::Prefetch;
use crate::event::Entry;
use crate::fields::Fields;
use crate::worker::observer::Observer;
use crate::worker::run::dispatch::Dispatcher;
use crate::worker::run::orderer::Orderer;
use crate::worker::run::outcome::{Body, Settlement};
use crate::worker::run::report::tell_unstarted;
use crate::worker::run::work::Item;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::{Inflight, Slot};
use crate::worker::state::signals::Signals;

/// Hands entries over.
pub(crate) struct HandOver {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    inflight: Arc<Inflight>,
    observer: Option<Arc<dyn Observer>>,
    runs: Dispatcher,
    orderer: Option<Arc<Orderer>>,
    settle: mpsc::UnboundedSender<Settlement>,
}

impl HandOver {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        inflight: Arc<Inflight>,
        observer: Option<Arc<dyn Observer>>,
        runs: Dispatcher,
        orderer: Option<Arc<Orderer>>,
        settle: mpsc::UnboundedSender<Settlement>,
    ) -> Self {
        HandOver {
            identity,
            signals,
            inflight,
            observer,
            runs,
            orderer,
            settle,
        }
    }

    /// Gives entries to the executor, from now on held. The prefetch learns how large they are.
    pub fn deliver(&self, mut deliveries: Deliveries, prefetch: &mut Prefetch) {
        if deliveries.take_seal() {
            deliveries.source.set_seal(true);
            self.signals.sealed();
        }
        if deliveries.entries.is_empty() {
            return;
        }
        prefetch.came(deliveries.largest());
        let Deliveries {
            source,
            via,
            coming,
            since,
            entries,
        } = deliveries;
        if source
            .order
            .as_ref()
            .is_some_and(|order| !order.was_mine(since))
        {
            // Another worker has the stream, or has had it meanwhile. It finds this pending here, and takes it over; or it
            // is adopted.
            return;
        }
        source.coming(entries.len());
        if let Some(counts) = &source.counts {
            counts.delivered(via, entries.len());
        }
        if let Some(observer) = &self.observer {
            observer.delivered(&source.surroundings.stream, entries.len());
        }
        let slots = entries.iter().map(Delivery::slot).collect();
        let lease = source.lease(since, self.identity.lease);
        let batch = self.inflight.add(&source, coming, since, lease, slots);
        let items = entries.into_iter().enumerate();
        let items = items.map(|(index, delivery)| Item {
            index: index as u32,
            entry: delivery.entry,
            past: delivery.past,
        });
        match (&self.orderer, &source.order) {
            (Some(orderer), Some(_)) => {
                let start = orderer.arrive(&batch, items.collect());
                self.runs.send(&batch, start.into_iter());
            }
            _ => self.runs.send(&batch, items),
        }
    }

    /// Has entries settled that no handler is to see.
    pub fn settle_unread(&self, unread: Unread) {
        let Unread {
            source,
            via,
            coming,
            since,
            entries,
            verdict,
            attempt,
        } = unread;
        if let Some(counts) = &source.counts {
            counts.delivered(via, entries.len());
        }
        let slot = |(id, count): &_| Slot::new(*id, *count, false, 0);
        let slots = entries.iter().map(slot).collect();
        let lease = self.identity.lease;
        let batch = self.inflight.add(&source, coming, since, lease, slots);
        if let Some(observer) = &self.observer {
            observer.delivered(&source.surroundings.stream, entries.len());
        }
        for (index, (id, _)) in entries.into_iter().enumerate() {
            let owner = batch.slots[index].finish();
            let fields = Fields::new();
            let body = Body::Raw(Entry { id, fields });
            if let Some(observer) = &self.observer {
                tell_unstarted(&**observer, &batch, &body, &verdict, owner);
            }
            let _ = self.settle.send(Settlement {
                batch: batch.clone(),
                index: index as u32,
                verdict: verdict.clone(),
                body,
                attempt,
            });
        }
    }

    /// Whether something waits to be handled on the thread that fetches.
    pub fn waits_here(&self) -> bool {
        self.runs.waits_here()
    }
}
