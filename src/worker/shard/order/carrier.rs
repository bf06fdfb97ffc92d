//! Carries out what follows for a stream's order from what was settled: what waited is handed on, goes back to Redis, or is
//! woken there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::known::look_at;
use crate::stream::Trouble;
use crate::worker::run::dispatch::Dispatcher;
use crate::worker::run::line::{Act, Place};
use crate::worker::run::orderer::{BEHIND, Orderer, Task, Waiting};
use crate::worker::run::outcome::{Body, Settlement};
use crate::worker::run::verdict::Verdict;
use crate::worker::shard::links::{KeptLink, Links};
use crate::worker::shard::unit::Shard;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// What waits behind another comes by itself after so long, if nobody wakes it.
const LONG: Duration = Duration::from_secs(3600);

/// Carries out.
pub(crate) struct Carrier {
    orderer: Arc<Orderer>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    link: KeptLink,
    runs: Dispatcher,
    settle: mpsc::UnboundedSender<Settlement>,
}

impl Carrier {
    pub fn new(
        shard: &Shard,
        orderer: Arc<Orderer>,
        runs: Dispatcher,
        settle: mpsc::UnboundedSender<Settlement>,
    ) -> Self {
        let links: Arc<Links> = shard.links.clone();
        Carrier {
            orderer,
            signals: shard.signals.clone(),
            sources: shard.sources.clone(),
            link: KeptLink::new(links, "order", Duration::from_secs(10)),
            runs,
            settle,
        }
    }

    /// Carries out until the worker stops; then hands on what waits, which is released unstarted.
    pub async fn run(mut self, mut tasks: mpsc::UnboundedReceiver<Task>) {
        let signals = self.signals.clone();
        loop {
            let task = tokio::select! {
                biased;
                () = signals.stopped() => break,
                task = tasks.recv() => task,
            };
            let Some(task) = task else { break };
            tokio::select! {
                biased;
                () = signals.stopped() => break,
                () = self.carry_out(task) => {}
            }
        }
        for (batch, item) in self.orderer.ends() {
            self.runs.send(&batch, std::iter::once(item));
        }
        // What was on its way here is released as well.
        while let Ok(task) = tasks.try_recv() {
            for act in task.acts {
                if let Act::Start((batch, item)) | Act::Park((batch, item)) = act {
                    self.runs.send(&batch, std::iter::once(item));
                }
            }
        }
    }

    async fn carry_out(&mut self, task: Task) {
        let mut rouse: Vec<Place> = Vec::new();
        for act in task.acts {
            match act {
                Act::Start((batch, item)) => self.runs.send(&batch, std::iter::once(item)),
                Act::Park(waiting) => self.park(waiting),
                Act::Rouse(place) => rouse.push(place),
            }
        }
        if rouse.is_empty() {
            return;
        }
        let sources = self.sources.named();
        let mut sources = sources.iter();
        let Some(source) = sources.find(|source| source.surroundings.stream == task.stream) else {
            return;
        };
        if let Err(trouble) = self.rouse(source, &rouse).await {
            // Who has the stream looks at the first of every subject now and then, and asks again.
            tracing::debug!("{}", trouble.error());
        }
    }

    async fn rouse(&mut self, source: &Arc<Source>, places: &[Place]) -> Result<(), Trouble> {
        let link = self.link.get().await?;
        let looked = look_at(link, source, &self.orderer, places).await;
        if looked.as_ref().is_err_and(Trouble::ends_the_link) {
            self.link.broke();
        }
        if looked? {
            self.signals.due_in(Duration::ZERO);
        }
        Ok(())
    }

    fn park(&self, (batch, item): Waiting) {
        let slot = &batch.slots[item.index as usize];
        slot.finish();
        batch.source.arrived();
        let record = item.past.as_ref().and_then(|past| past.record.as_ref());
        let released = record.map_or(0, |record| record.released);
        let attempt = slot.count.saturating_sub(released).max(1);
        let _ = self.settle.send(Settlement {
            index: item.index,
            verdict: Verdict::release(LONG, BEHIND),
            body: Body::Raw(item.entry),
            attempt,
            batch,
        });
    }
}
