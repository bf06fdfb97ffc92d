//! The acker: tells Redis what has succeeded. While answers are on their way what finishes next is gathered, so that
//! acknowledgements coalesce; where nobody waits for the room they take, lots are at least [`GATHER`] apart. One whose
//! answer got lost is repeated until it is known; until then its entries stay held, and are renewed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::event::EntryId;
use crate::reconnect::sleep_until;
use crate::stream::{Ack, Fence, Link, Plain, Trouble};
use crate::worker::run::outcome::Acks;
use crate::worker::shard::hold_up::HoldUp;
use crate::worker::shard::links::Links;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::{Batch, ENOUGH_TO_ACK, Inflight, Owner};
use crate::worker::state::recent_acks::RecentAcks;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::Source;
use crate::worker::state::source::by_source;

/// Most ids in one XACK, so that Redis does nothing for too long.
const ACKS: usize = 1000;
/// Most lots whose answers are waited for at once.
const FLIGHTS: usize = 3;
/// Where they are those of several streams, each of which costs Redis a command of its own, the streams that have fewer
/// wait for more, as long as others have more.
const WORTHWHILE_OF_EACH: usize = ENOUGH_TO_ACK / 2;
const GATHER: Duration = Duration::from_millis(20);

/// When what was refused is tried again.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// Acknowledges entries.
pub(crate) struct Acker {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    inflight: Arc<Inflight>,
    recent_acks: Arc<RecentAcks>,
    links: Arc<Links>,
    waiting: Vec<Acks>,
    ids: usize,
    sent: Option<Instant>,
    /// Since when some have been waiting that were left out of a lot.
    left_out: Option<Instant>,
    hold_up: HoldUp,
    /// What was refused by itself, and when it is tried again.
    refused: Vec<Acks>,
    refused_until: Option<Instant>,
}

/// What became of a lot.
struct Answer {
    link: Link,
    acks: Vec<(Acks, Option<Trouble>)>,
}

impl Acker {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        inflight: Arc<Inflight>,
        recent_acks: Arc<RecentAcks>,
        links: Arc<Links>,
    ) -> Self {
        let hold_up = HoldUp::new(signals.clone());
        Acker {
            identity,
            signals,
            inflight,
            recent_acks,
            links,
            waiting: Vec::new(),
            ids: 0,
            sent: None,
            left_out: None,
            hold_up,
            refused: Vec::new(),
            refused_until: None,
        }
    }

    /// Acknowledges what comes in until nothing more can come and all of it is known to be acknowledged, or the worker
    /// gives up.
    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Acks>) {
        let signals = self.signals.clone();
        let mut flights = FuturesUnordered::new();
        let (mut closed, mut last_try) = (false, false);
        loop {
            closed |= self.take_in(&mut inbox);
            if self.refused_until.is_some_and(|at| at <= Instant::now()) {
                self.try_again();
            }
            if closed && self.waiting.is_empty() && flights.is_empty() {
                // What is refused still stays pending: a stop does not wait for somebody to mend that.
                if last_try || self.refused.is_empty() {
                    return;
                }
                last_try = true;
                self.try_again();
            }
            let send_at = self.send_at(closed);
            if !self.waiting.is_empty() && flights.len() < FLIGHTS && send_at.is_none() {
                let link = tokio::select! {
                    link = self.links.settle_link() => link,
                    () = signals.abandoned() => return,
                };
                match link {
                    Ok(link) => {
                        let lot = self.next_lot(closed);
                        flights.push(acknowledge(
                            self.identity.clone(),
                            self.links.is_fenced(),
                            link,
                            lot,
                        ));
                    }
                    Err(error) => self.hold_up.begin(&Trouble::Broken(error)),
                }
                continue;
            }
            // The first wakes us, so that nothing does where none comes. While more are gathered each by itself wakes
            // nobody: who finishes enough of them tells.
            let gathers = send_at.is_some() && !self.waiting.is_empty();
            tokio::select! {
                biased;
                () = signals.abandoned() => return,
                Some(answer) = flights.next(), if !flights.is_empty() => self.answered(answer).await,
                () = self.inflight.ack_wanted(), if gathers => self.sent = None,
                () = sleep_until(send_at), if gathers => {}
                () = sleep_until(self.refused_until), if self.refused_until.is_some() => {}
                first = inbox.recv(), if !gathers && !closed => match first {
                    Some(acks) => self.add(acks),
                    None => closed = true,
                }
            }
        }
    }

    /// Takes in what has been finished. Answers whether nothing more can come.
    fn take_in(&mut self, inbox: &mut mpsc::UnboundedReceiver<Acks>) -> bool {
        loop {
            match inbox.try_recv() {
                Ok(acks) => self.add(acks),
                Err(mpsc::error::TryRecvError::Empty) => return false,
                Err(mpsc::error::TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// What was refused goes out with the next lot.
    fn try_again(&mut self) {
        self.refused_until = None;
        let ids = self.refused.iter().map(|acks| acks.slots.len()).sum();
        self.ids += ids;
        self.inflight.is_tried_again(ids);
        self.waiting.append(&mut self.refused);
    }

    fn add(&mut self, acks: Acks) {
        self.inflight.taken_in(acks.slots.len());
        self.ids += acks.slots.len();
        self.waiting.push(acks);
    }

    /// What is sent next.
    fn next_lot(&mut self, closed: bool) -> Vec<Acks> {
        let now = Instant::now();
        self.sent = Some(now);
        let mut lot = std::mem::take(&mut self.waiting);
        let have_waited = self.left_out.is_some_and(|since| now - since >= GATHER);
        if self.ids >= ENOUGH_TO_ACK && !have_waited && !closed {
            let ids =
                |places: &[usize]| places.iter().map(|at| lot[*at].slots.len()).sum::<usize>();
            let mut few = by_source(&lot, |acks| &acks.batch.source);
            few.retain(|(_, places)| ids(places) < WORTHWHILE_OF_EACH);
            if !few.is_empty() {
                let of_few = |acks: &Acks| {
                    few.iter()
                        .any(|(of, _)| Arc::ptr_eq(of, &acks.batch.source))
                };
                let (left_out, rest): (Vec<Acks>, Vec<Acks>) = lot.into_iter().partition(of_few);
                lot = if rest.is_empty() {
                    left_out
                } else {
                    self.waiting = left_out;
                    rest
                };
            }
        }
        self.ids = self.waiting.iter().map(|acks| acks.slots.len()).sum();
        self.left_out = (!self.waiting.is_empty()).then(|| self.left_out.unwrap_or(now));
        lot
    }

    /// When the next lot may be sent if nobody waits for it; None for now.
    fn send_at(&mut self, closed: bool) -> Option<Instant> {
        let now = Instant::now();
        let gathered = self.sent.map(|at| at + GATHER);
        let at = match self.hold_up.until() {
            Some(at) => Some(at),
            None if closed || self.ids >= ENOUGH_TO_ACK => None,
            None => gathered,
        };
        at.filter(|at| *at > now)
    }

    async fn answered(&mut self, Answer { link, acks }: Answer) {
        let mut trouble = None;
        for (mut acks, met) in acks {
            acks.is_repeated |= met.is_some();
            let Acks { batch, slots, .. } = &acks;
            match met {
                None => {
                    let slots = || slots.iter().map(|at| &batch.slots[*at as usize]);
                    let marked = slots().map(|slot| (slot.id, slot.mark())).collect();
                    let (source, lease) = (&batch.source, self.identity.lease);
                    self.recent_acks.acknowledged(source, marked, lease);
                    self.inflight.acknowledge(batch, &acks.slots);
                }
                Some(met) if met.is_lasting() => {
                    self.hold_up.warn(met.error().to_string());
                    self.inflight.is_refused(slots.len());
                    self.refused.push(acks);
                    self.refused_until
                        .get_or_insert(Instant::now() + REFUSED_WAIT);
                }
                Some(met) => {
                    trouble = Some(met);
                    self.ids += slots.len();
                    self.waiting.push(acks);
                }
            }
        }
        match trouble {
            None => self.hold_up.is_over(),
            Some(trouble) => self.hold_up.begin_on(&trouble, &link, &self.links).await,
        }
    }
}

/// What is to be acknowledged of one stream.
struct Lot<'a> {
    source: Arc<Source>,
    /// Which of the acknowledgements it is made of.
    places: Vec<usize>,
    /// One command after the other has these.
    plain: Vec<EntryId>,
    /// Those that have records go with them by a script.
    scripted: Vec<Ack<'a>>,
    /// So do those whose ids may by now be others',
    fenced: Vec<Ack<'a>>,
    /// and those that another worker may have taken over.
    late: Vec<Ack<'a>>,
    /// When the first lease of the others runs out.
    leased_until: u64,
}

/// Acknowledges slots of batches, fenced if all have to be. Returns for each what stood in the way, if anything.
async fn acknowledge(
    identity: Arc<Identity>,
    all_fenced: bool,
    mut link: Link,
    acks: Vec<Acks>,
) -> Answer {
    let lots: Vec<Lot> = by_source(&acks, |acks| &acks.batch.source)
        .into_iter()
        .map(|(source, places)| Lot::new(&identity, all_fenced, &acks, source, places))
        .collect();
    let mut troubles: Vec<Option<Trouble>> = Vec::new();
    troubles.resize_with(acks.len(), || None);
    let mut acked = vec![0; lots.len()];
    let plain: Vec<(usize, Plain)> = lots
        .iter()
        .enumerate()
        .flat_map(|(at, lot)| lot.plain.chunks(ACKS).map(move |ids| (at, lot.of(ids))))
        .collect();
    if !plain.is_empty() {
        let (of, plain): (Vec<usize>, Vec<Plain>) = plain.into_iter().unzip();
        match link.ack(&plain).await {
            Ok(answers) => {
                for (at, answer) in of.into_iter().zip(answers) {
                    match answer {
                        Ok(count) => acked[at] += count,
                        Err(trouble) => lots[at].met(&trouble, &mut troubles),
                    }
                }
            }
            Err(trouble) => of
                .into_iter()
                .for_each(|at| lots[at].met(&trouble, &mut troubles)),
        }
    }
    for (lot, acked_of) in lots.iter().zip(&mut acked) {
        for (acks, fence) in [
            (&lot.scripted, Fence::None),
            (&lot.fenced, Fence::Mine),
            (&lot.late, Fence::Late),
        ] {
            if !acks.is_empty() {
                let (keys, group, deletes) = (&lot.source.keys, lot.group(), lot.source.deletes());
                let acked = link
                    .ack_with_records(keys, group, fence, deletes, acks)
                    .await;
                match acked {
                    Ok(count) => *acked_of += count,
                    Err(trouble) => lot.met(&trouble, &mut troubles),
                }
            }
        }
    }
    for lot in &lots {
        if let Some(overtaken) = lot.overtaken(&identity, &acks, &troubles) {
            let (keys, group, deletes) = (&lot.source.keys, lot.group(), lot.source.deletes());
            let told = link.ack_with_records(keys, group, Fence::Late, deletes, &overtaken);
            if let Err(trouble) = told.await {
                lot.met(&trouble, &mut troubles);
            }
        }
    }
    for (lot, acked) in lots.iter().zip(acked) {
        if lot.source.counts.is_some() && acked < lot.ids() {
            let places = lot.places.iter().filter(|at| troubles[**at].is_none());
            note_lost(places.map(|at| &acks[*at]), lot.ids() - acked);
        }
    }
    drop(lots);
    Answer {
        link,
        acks: acks.into_iter().zip(troubles).collect(),
    }
}

/// Redis had so many fewer of these entries to acknowledge than it was asked for. Those of a request that is repeated may
/// have been acknowledged before; of the others those are lost that are known to be another's, or nobody's, before any.
#[cold]
fn note_lost<'a>(acks: impl Iterator<Item = &'a Acks>, fewer: usize) {
    let acks: Vec<&Acks> = acks.collect();
    let (again, once): (Vec<&Acks>, Vec<&Acks>) = acks.into_iter().partition(|of| of.is_repeated);
    let again: usize = again.iter().map(|acks| acks.slots.len()).sum();
    let each = |acks: &'a Acks| acks.slots.iter().map(|at| (&*acks.batch, *at));
    let mut slots: Vec<(&Batch, u32)> = once.into_iter().flat_map(each).collect();
    slots.sort_by_key(|(batch, at)| batch.slots[*at as usize].owner() == Owner::Us);
    let lost = slots.into_iter().take(fewer.saturating_sub(again));
    for (batch, at) in lost {
        batch.times.iter().for_each(|times| times.is_lost(at));
    }
}

impl<'a> Lot<'a> {
    fn new(
        identity: &'a Identity,
        all_fenced: bool,
        acks: &'a [Acks],
        source: Arc<Source>,
        places: Vec<usize>,
    ) -> Self {
        let ids = places.iter().map(|at| acks[*at].slots.len()).sum();
        let mut lot = Lot {
            source,
            places: Vec::new(),
            plain: Vec::with_capacity(ids),
            scripted: Vec::new(),
            fenced: Vec::new(),
            late: Vec::new(),
            leased_until: u64::MAX,
        };
        let now = places.first().map_or(0, |at| acks[*at].batch.now());
        for Acks { batch, slots, .. } in places.iter().map(|at| &acks[*at]) {
            let consumer = identity.consumer(batch.alone);
            let is_fenced = all_fenced || batch.is_fenced();
            let leased_until = batch.leased_until();
            let is_lapsed = now >= leased_until;
            if !is_lapsed {
                lot.leased_until = lot.leased_until.min(leased_until);
            }
            for slot in slots.iter().map(|at| &batch.slots[*at as usize]) {
                let (id, count) = (slot.id, slot.count);
                let ack = Ack {
                    id,
                    consumer,
                    count,
                };
                if is_fenced {
                    lot.fenced.push(ack);
                } else if is_lapsed || slot.owner() == Owner::Another {
                    lot.late.push(ack);
                } else if slot.recorded || lot.source.deletes() {
                    lot.scripted.push(ack);
                } else {
                    lot.plain.push(id);
                }
            }
        }
        lot.places = places;
        lot
    }

    /// Those that were acknowledged as their worker's own, if the answer came when their lease had run out: the request may
    /// have been done after another worker took them over. That one has to learn that they succeeded.
    fn overtaken(
        &self,
        identity: &'a Identity,
        acks: &'a [Acks],
        troubles: &[Option<Trouble>],
    ) -> Option<Vec<Ack<'a>>> {
        let now = acks[*self.places.first()?].batch.now();
        if now < self.leased_until {
            return None;
        }
        // After a change of server an id may be another entry's.
        let is_told = |at: &&usize| troubles[**at].is_none() && !acks[**at].batch.is_fenced();
        let done = self.places.iter().filter(is_told);
        let all = done.flat_map(|at| {
            let Acks { batch, slots, .. } = &acks[*at];
            let consumer = identity.consumer(batch.alone);
            slots.iter().map(move |at| {
                let slot = &batch.slots[*at as usize];
                Ack {
                    id: slot.id,
                    consumer,
                    count: slot.count,
                }
            })
        });
        Some(all.collect()).filter(|all: &Vec<_>| !all.is_empty())
    }

    /// This stood in the way of it.
    fn met(&self, trouble: &Trouble, troubles: &mut [Option<Trouble>]) {
        self.places
            .iter()
            .for_each(|at| troubles[*at] = Some(trouble.again()));
    }

    /// How many entries it is of.
    fn ids(&self) -> usize {
        self.plain.len() + self.scripted.len() + self.fenced.len() + self.late.len()
    }

    fn group(&self) -> &str {
        &self.source.surroundings.group
    }

    fn of<'l>(&'l self, ids: &'l [EntryId]) -> Plain<'l> {
        Plain {
            keys: &self.source.keys,
            group: self.group(),
            ids,
        }
    }
}
