//! The acker: tells Redis what has succeeded. While answers are on their way what finishes next is gathered, so that
//! acknowledgements coalesce; where they come faster than once a millisecond and nobody waits for the room they take, a
//! lot is a millisecond's worth. One whose answer got lost is repeated until it is known; until then its entries stay
//! held, and are renewed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::complaint::{Complaint, Pause};
use super::held::Batch;
use super::shared::{Shared, sleep_until};
use super::steps::by_source;
use crate::stream::{Ack, Link, Trouble};

/// Most ids in one XACK, so that Redis does nothing for too long.
const ACKS: usize = 1000;
/// Most lots whose answers are waited for at once.
const FLIGHTS: usize = 3;
/// Most acknowledgements that are taken in at once.
const NEWS: usize = 1024;
/// So many ids are sent at once; fewer wait for others as long as [`GATHER`].
const WORTHWHILE: usize = 256;
const GATHER: Duration = Duration::from_millis(1);

/// Entries of one batch that have succeeded.
pub(super) struct Acks {
    pub batch: Arc<Batch>,
    pub slots: Vec<u32>,
}

/// Acknowledges entries.
pub(super) struct Acker {
    shared: Arc<Shared>,
    waiting: Vec<Acks>,
    ids: usize,
    sent: Option<Instant>,
    complaint: Complaint,
    pause: Pause,
    /// Something was refused or got no answer: nothing is sent before.
    not_before: Option<Instant>,
}

/// What became of a lot.
struct Answer {
    link: Link,
    acks: Vec<(Acks, Option<Trouble>)>,
}

impl Acker {
    pub fn new(shared: Arc<Shared>) -> Self {
        Acker {
            shared,
            waiting: Vec::new(),
            ids: 0,
            sent: None,
            complaint: Complaint::default(),
            pause: Pause::new(),
            not_before: None,
        }
    }

    /// Acknowledges what comes in until nothing more can come and all of it is known to be acknowledged, or the worker
    /// gives up.
    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Acks>) {
        let abandon = self.shared.abandon.clone();
        let mut flights = FuturesUnordered::new();
        let mut news = Vec::new();
        let mut closed = false;
        loop {
            if closed && self.waiting.is_empty() && flights.is_empty() {
                return;
            }
            let has_room = !self.waiting.is_empty() && flights.len() < FLIGHTS;
            let send_at = has_room.then(|| self.send_at(closed)).flatten();
            if has_room && send_at.is_none() {
                let link = tokio::select! {
                    link = self.shared.settle_link() => link,
                    () = abandon.cancelled() => return,
                };
                match link {
                    Ok(link) => {
                        self.sent = Some(Instant::now());
                        self.ids = 0;
                        let lot = std::mem::take(&mut self.waiting);
                        flights.push(acknowledge(self.shared.clone(), link, lot));
                    }
                    Err(error) => self.wait(&Trouble::Broken(error)),
                }
                continue;
            }
            tokio::select! {
                biased;
                () = abandon.cancelled() => return,
                Some(answer) = flights.next(), if !flights.is_empty() => self.answered(answer).await,
                count = inbox.recv_many(&mut news, NEWS), if !closed => {
                    closed = count == 0;
                    self.ids += news.iter().map(|acks| acks.slots.len()).sum::<usize>();
                    self.waiting.append(&mut news);
                }
                () = self.shared.ack_now.notified(), if send_at.is_some() => self.sent = None,
                () = sleep_until(send_at), if send_at.is_some() => {}
            }
        }
    }

    /// When the next lot is to be sent if nobody waits for it; None for now.
    fn send_at(&mut self, closed: bool) -> Option<Instant> {
        let now = Instant::now();
        let gathered = self.sent.map(|at| at + GATHER);
        let at = match self.not_before {
            Some(at) => Some(at),
            None if closed || self.ids >= WORTHWHILE => None,
            None => gathered,
        };
        let at = at.filter(|at| *at > now);
        if at.is_none() {
            self.not_before = None;
        }
        at
    }

    async fn answered(&mut self, Answer { link, acks }: Answer) {
        let mut trouble = None;
        for (acks, met) in acks {
            let Acks { batch, slots } = &acks;
            match met {
                None => {
                    let slots = || slots.iter().map(|at| &batch.slots[*at as usize]);
                    let marked = slots().map(|slot| (slot.id, slot.mark())).collect();
                    let (source, lease) = (&batch.source, self.shared.lease);
                    self.shared.memory.acknowledged(source, marked, lease);
                    self.shared.acknowledged(batch, slots());
                }
                Some(met) => {
                    trouble = Some(met);
                    self.ids += slots.len();
                    self.waiting.push(acks);
                }
            }
        }
        match trouble {
            None => self.pause.reset(),
            Some(trouble) => {
                if matches!(trouble, Trouble::Broken(_)) {
                    self.shared.settle_link_broke(&link).await;
                }
                self.wait(&trouble);
            }
        }
    }

    /// Nothing is sent for a while; what was not acknowledged stays here.
    fn wait(&mut self, trouble: &Trouble) {
        if matches!(trouble, Trouble::NoGroup(_)) {
            self.shared.rejoin();
        }
        self.complaint.warn(trouble.error().to_string());
        self.not_before = Some(Instant::now() + self.pause.next());
    }
}

/// Acknowledges slots of batches. Answers for each what stood in the way, if anything.
async fn acknowledge(shared: Arc<Shared>, mut link: Link, acks: Vec<Acks>) -> Answer {
    let mut out: Vec<(Acks, Option<Trouble>)> = acks.into_iter().map(|acks| (acks, None)).collect();
    let all_fenced = shared.is_fenced();
    for (source, lots) in by_source(&out, |(acks, _)| &acks.batch.source) {
        let group = &source.surroundings.group;
        let (mut plain, mut scripted, mut fenced) = (Vec::new(), Vec::new(), Vec::new());
        for lot in &lots {
            let (Acks { batch, slots }, _) = &out[*lot];
            let consumer = if batch.alone {
                &shared.alone
            } else {
                &shared.consumer
            };
            let is_fenced = all_fenced || batch.is_fenced();
            for slot in slots.iter().map(|at| &batch.slots[*at as usize]) {
                let (id, count) = (slot.id, slot.count);
                let ack = Ack {
                    id,
                    consumer,
                    count,
                };
                if is_fenced {
                    fenced.push(ack);
                } else if slot.recorded || source.deletes() {
                    scripted.push(ack);
                } else {
                    plain.push(id);
                }
            }
        }
        let mut trouble = None;
        for ids in plain.chunks(ACKS) {
            if let Err(met) = link.ack(&source.keys, group, ids).await {
                trouble = Some(met);
                break;
            }
        }
        for (acks, is_fenced) in [(scripted, false), (fenced, true)] {
            if trouble.is_none() && !acks.is_empty() {
                let acked = link
                    .ack_with_records(&source.keys, group, is_fenced, source.deletes(), &acks)
                    .await;
                trouble = acked.err();
            }
        }
        if let Some(trouble) = trouble {
            for lot in lots {
                out[lot].1 = Some(trouble.again());
            }
        }
    }
    Answer { link, acks: out }
}
