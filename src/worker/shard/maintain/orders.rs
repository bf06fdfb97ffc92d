//! Carries out what operators ask of this worker. Most of it holds for a time: what the worker is to be like follows from
//! the orders that stand. What is done at once, a stop or a list of what runs, is done once, by the order's number.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::about::{About, tell};
use crate::duration;
use crate::names::shown;
use crate::pulse::message::MOST_RUNS;
use crate::pulse::orders::{Standing, Wanted, What};
use crate::reconnect::sleep_until;
use crate::worker::state::debugged;
use crate::worker::state::heard::Heard;
use crate::worker::state::held::Held;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::longest;
use crate::worker::state::signals::Signals;
use crate::worker::state::slots::Slots;

/// What is asked, and what of it has been done.
pub(crate) struct Orders {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    held: Arc<Held>,
    heard: Arc<Heard>,
    slots: Arc<Slots>,
    /// `worker.concurrency`.
    configured: usize,
    wanted: Wanted,
    /// What has been done of what still stands.
    done: BTreeSet<u64>,
}

impl Orders {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        held: Arc<Held>,
        heard: Arc<Heard>,
        slots: Arc<Slots>,
    ) -> Self {
        Orders {
            identity,
            signals,
            held,
            heard,
            configured: slots.all(),
            slots,
            wanted: Wanted::default(),
            done: BTreeSet::new(),
        }
    }

    /// Does what is asked until it is dropped.
    pub async fn run(mut self) {
        let (slots, heard, signals) =
            (self.slots.clone(), self.heard.clone(), self.signals.clone());
        let follow = async {
            loop {
                let (changed, rested) = (heard.changed(), signals.rested());
                let next = self.follow();
                tokio::select! {
                    () = changed => {}
                    () = rested => {}
                    () = sleep_until(next) => {}
                }
            }
        };
        tokio::join!(slots.tend(), follow);
    }

    /// Does what is asked now. Returns when that changes by itself.
    fn follow(&mut self) -> Option<Instant> {
        let (asked, changes) = self.heard.standing();
        let me = self.identity.name.clone();
        let wanted = asked.wanted_of(&me);
        if wanted != self.wanted {
            self.turn_into(wanted);
        }
        let (mut standing, mut carried_out) = (BTreeSet::new(), BTreeSet::new());
        for order in asked.orders_for(&me) {
            if !self.done.contains(&order.number) {
                self.carry_out(order);
            }
            standing.insert(order.number);
            // A read that was under way when it came may still bring something.
            if order.order.what != What::Quiet || self.signals.is_quiet() {
                carried_out.insert(order.number);
            }
        }
        self.heard.carried_out(carried_out.into_iter().collect());
        self.done = standing;
        changes.map(|wait| Instant::now() + wait)
    }

    fn turn_into(&mut self, wanted: Wanted) {
        let signals = &self.signals;
        if wanted.is_quiet != self.wanted.is_quiet {
            signals.set_quiet(wanted.is_quiet);
            if !wanted.is_quiet {
                tracing::info!("no longer quiet: new entries are taken up again");
            }
        }
        let slots = wanted.slots.unwrap_or(self.configured);
        if slots != self.slots.all() {
            self.slots.set(slots);
            tracing::info!("{slots} handlers run at once from now on");
            signals.replan_all();
        }
        if wanted.debugged != self.wanted.debugged {
            debugged::set(&wanted.debugged);
            if wanted.debugged.is_empty() {
                tracing::info!("no type's entries are logged one by one any more");
            }
        }
        self.wanted = wanted;
    }

    fn carry_out(&self, standing: &Standing) {
        let order = &standing.order;
        let by = shown(&order.by).to_string();
        match &order.what {
            What::Quiet => {
                tracing::info!(by, "quiet: nothing new is taken up, as an operator asks");
            }
            What::Concurrency { slots } => {
                tracing::info!(by, slots, "an operator asks for another concurrency");
            }
            What::Debug { event_type } => {
                let event_type = shown(event_type).to_string();
                tracing::info!(
                    by,
                    event_type,
                    "its entries are logged one by one, as an operator asks"
                );
            }
            What::Drain => {
                tracing::info!(by, "drains, as an operator asks");
                self.signals.stop();
            }
            What::Dump => self.dump(&by),
            What::Unknown => {
                tracing::info!(
                    by,
                    "an operator asks for something that this release does not know"
                );
            }
        }
    }

    /// Logs what runs.
    fn dump(&self, by: &str) {
        let held: usize = self
            .held
            .all()
            .iter()
            .map(|inflight| inflight.entries())
            .sum();
        let running = self.slots.running();
        tracing::info!(by, running, held, "what runs, the longest first:");
        for run in longest(&self.held.all(), MOST_RUNS) {
            let stream = &run.source.keys.stream;
            let lasts = duration::rounded(run.lasts);
            match &run.ctx {
                Some(ctx) => tell!(info, About::of(ctx, stream), %lasts, "runs"),
                None => {
                    let about = About::unread(run.id, stream, 0);
                    tell!(info, about, "runs, and has not let go of its thread yet");
                }
            }
        }
    }
}
