//! Where entries go that have come. Where few come, and handlers are quick, they are handled on the thread that read
//! them: to wake another thread costs more than most handlers do, and the entry waits for it. Else they go to lanes.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::queue::{Receiver, Sender, queue};
use super::work::{Item, RUN, Run};
use crate::worker::state::inflight::Batch;
use crate::worker::state::inline::Inline;

/// Hands entries on, in runs.
pub(crate) struct Dispatcher {
    lanes: Sender<Run>,
    quarantine: mpsc::UnboundedSender<Run>,
    inline: Option<(Sender<Run>, Arc<Inline>)>,
}

/// Where runs arrive. Nothing bounds how many.
pub(crate) struct Arrivals {
    pub lanes: Receiver<Run>,
    pub quarantine: mpsc::UnboundedReceiver<Run>,
}

impl Dispatcher {
    /// To whoever looks at all entries first.
    pub fn to_deduplicator() -> (Self, Arrivals) {
        let (lanes, at_lanes) = queue();
        let (quarantine, at_quarantine) = mpsc::unbounded_channel();
        let dispatcher = Dispatcher {
            lanes,
            quarantine,
            inline: None,
        };
        let arrivals = Arrivals {
            lanes: at_lanes,
            quarantine: at_quarantine,
        };
        (dispatcher, arrivals)
    }

    /// To the executor: its lanes and its quarantine, or, what comes out at the last, where they were read.
    pub fn to_executor(inline: Arc<Inline>) -> (Self, Arrivals, Receiver<Run>) {
        let (mut dispatcher, arrivals) = Self::to_deduplicator();
        let (here, runs) = queue();
        dispatcher.inline = Some((here, inline));
        (dispatcher, arrivals, runs)
    }

    /// Another way to where this leads, for what is handed on by others than the fetcher.
    pub fn beside(&self) -> Self {
        Dispatcher {
            lanes: self.lanes.clone(),
            quarantine: self.quarantine.clone(),
            inline: None,
        }
    }

    /// Whether something waits to be handled where this is called.
    pub fn waits_here(&self) -> bool {
        self.inline
            .as_ref()
            .is_some_and(|(runs, _)| runs.holds_any())
    }

    /// A way to the lanes for what can't be handled elsewhere after all.
    pub fn lanes(&self) -> Sender<Run> {
        self.lanes.clone()
    }

    /// Hands on entries of a batch.
    pub fn send(&self, batch: &Arc<Batch>, mut items: impl ExactSizeIterator<Item = Item>) {
        let inline = self.inline.as_ref();
        let here = inline.filter(|(_, inline)| !batch.alone && inline.admits(items.len()));
        // What comes first goes one by one: whichever lane has the next free slot takes the next.
        let length = if batch.first { 1 } else { RUN };
        while items.len() > 0 {
            let run = Run {
                batch: batch.clone(),
                items: items.by_ref().take(length).collect(),
            };
            // Those who take runs end after those who send them.
            match (here, batch.alone) {
                (Some((here, _)), _) => here.send(run),
                (None, true) => drop(self.quarantine.send(run)),
                (None, false) => {
                    if let Some((_, inline)) = inline {
                        inline.left();
                    }
                    if batch.first {
                        self.lanes.send_first(run);
                    } else {
                        self.lanes.send(run);
                    }
                }
            }
        }
    }
}
