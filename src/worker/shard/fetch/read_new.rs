//! Reading new entries. Redis is to be kept waiting as little as this worker: if there is a backlog, the next
//! entries are asked for before those that came are worked on; if entries come one by one but often, several reads
//! that block are sent at once. Redis then delivers what comes without having to be asked each time, and to look at its
//! sockets once more for that, which costs it more than the entry does. How many, and when, says [`super::read_plan`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fleet_shift::crew;
use super::idle::{has_else_to_do, until_something_else};
use super::prefetch::Prefetch;
use super::read_plan::{DEPTH, Flow, OFTEN, ReadPlan, Shift};
use super::reading::{Answer, Reading, Terms};
use super::stream_rotation::{ROUND, Share, StreamRotation};
use crate::stream::{Link, Reader, Trouble};
use crate::worker::pace::reads::{block, patience};
use crate::worker::shard::refusals::Refusals;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::inline::Inline;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::Sources;

/// The longest it may if it can't be woken.
const UNWAKEABLE: Duration = Duration::from_millis(100);

/// Reads new entries.
pub(crate) struct NewReads {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    inflight: Arc<Inflight>,
    inline: Arc<Inline>,
    flow: Flow,
    refusals: Refusals,
}

impl NewReads {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        sources: Arc<Sources>,
        inflight: Arc<Inflight>,
        inline: Arc<Inline>,
    ) -> Self {
        NewReads {
            identity,
            signals,
            sources,
            inflight,
            inline,
            flow: Flow::new(),
            refusals: Refusals::default(),
        }
    }

    /// Looks who else reads the stream, if there is only one and it is time.
    pub async fn look_at_crew(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let now = Instant::now();
        if !self.flow.fleet_shift.wants_to_look(self.flow.coming, now) {
            return Ok(());
        }
        let sources = self.sources.fetched();
        let [source] = &sources[..] else {
            return Ok(());
        };
        let crew = crew(source, &self.identity, link, &mut self.refusals).await?;
        self.flow.fleet_shift.looked(crew, now);
        Ok(())
    }

    /// Sends the first reads, for `budget` entries in all. They wait for entries unless there is `more` to do now.
    /// Nothing is read if something else comes up before.
    pub async fn begin<'a>(
        &mut self,
        terms: Terms<'a>,
        (reader, link): (&'a mut Reader, &'a Link),
        budget: usize,
        more: bool,
        prefetch: &mut Prefetch,
    ) -> Result<Option<Reading<'a>>, Trouble> {
        let (streams, limits) = (terms.sources.len(), terms.limits);
        let (is_limited, waits) = (limits.are_any(), limits.waits);
        let budget = limits
            .most
            .map_or(budget, |most| budget.min(most * streams));
        let ReadPlan {
            depth,
            wait,
            blocks,
        } = if more || is_limited {
            ReadPlan::ONE
        } else {
            self.read_plan(&terms)
        };
        if !blocks {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = until_something_else(&self.signals, Some(terms.next_look)) => return Ok(None),
            }
        } else if !wait.is_zero() {
            // See `Reading::nap`. Renewing can wait that long, and acknowledgements are gathered for longer.
            std::thread::sleep(wait);
        }
        let block = match waits {
            Some(wait) => wait.min(self.patience(terms.next_look)),
            None if depth == 1 => self.patience(terms.next_look),
            None => self.short_block(),
        };
        let block = match reader.greeting.can_unblock {
            true => block,
            // Nobody can end it if something else comes up.
            false => block.min(UNWAKEABLE),
        };
        let more = more || !blocks || block.is_zero();
        let of = if is_limited {
            Share::All
        } else {
            self.next_share(streams, budget, prefetch)
        };
        let mut reading = Reading::new(terms, reader, link, blocks);
        reading
            .ask(of, budget, depth, (!more).then_some(block))
            .await?;
        prefetch.asks(reading.coming());
        Ok(Some(reading))
    }

    /// The next answer, after which more has been asked if that is in order; nothing once the reading is over.
    pub async fn next(
        &mut self,
        reading: &mut Reading<'_>,
        prefetch: &mut Prefetch,
    ) -> Result<Option<Answer>, Trouble> {
        if reading.on_the_way() == 0 {
            return Ok(None);
        }
        let lacks_room = std::mem::take(&mut reading.lacks_room);
        let delivered = tokio::select! {
            biased;
            delivered = reading.answer(prefetch) => Some(delivered?),
            () = self.inflight.freed(), if lacks_room => None,
        };
        let answered = delivered.as_ref().and_then(|_| reading.answered());
        let delivered = delivered.unwrap_or_default();
        let (since, came) = match answered {
            Some(answered) => {
                let came = self.flow.came(&answered.of, answered.count, &delivered);
                (answered.since, came)
            }
            None => (Instant::now(), 0),
        };
        let is_limited = reading.terms.limits.are_any();
        if is_limited {
            // What a read of some streams, and of few entries, came to says nothing of the others.
            self.flow.rotation = StreamRotation::default();
        }
        if !reading.blocks {
            self.flow.fleet_shift.found(came, Instant::now());
        }
        reading.depth = if reading.on_the_way() == 0 && !self.flow.is_backlog {
            // The only read: nothing comes before its entries.
            1
        } else {
            reading.winds_up |= has_else_to_do(&self.signals, reading.terms.next_look);
            self.read_plan(&reading.terms).depth
        };
        if !is_limited {
            self.ask_for_more(reading, came, prefetch).await?;
        }
        Ok(Some(reading.take(delivered, since)))
    }

    /// Asks again, with so many entries that have come and are not held yet.
    async fn ask_for_more(
        &mut self,
        reading: &mut Reading<'_>,
        came: usize,
        prefetch: &mut Prefetch,
    ) -> Result<(), Trouble> {
        let (streams, depth) = (reading.terms.sources.len(), reading.depth);
        while !reading.winds_up && depth > 1 && reading.on_the_way() <= depth / 2 {
            let budget = prefetch.entries(came + reading.coming());
            if budget == 0 {
                reading.lacks_room = true;
                return Ok(());
            }
            let times = if self.flow.is_backlog {
                1
            } else {
                if depth >= OFTEN {
                    // Redis has to look at its sockets now anyway.
                    self.inflight.ack_now();
                }
                depth - reading.on_the_way()
            };
            let of = self.next_share(streams, budget, prefetch);
            reading
                .ask(of, budget, times, Some(self.short_block()))
                .await?;
            prefetch.asks(reading.coming());
        }
        Ok(())
    }

    /// How to read now.
    fn read_plan(&mut self, terms: &Terms<'_>) -> ReadPlan {
        let streams = terms.sources.len();
        let shift = (streams == 1).then(|| Shift {
            quick: self.inline.handled(),
            // Unless the server has stood still meanwhile: then it is later there.
            server_ms: terms.clock.now(),
        });
        self.flow.read_plan(streams, shift, Instant::now())
    }

    /// Which of so many streams to ask next for `budget` entries.
    fn next_share(&mut self, all: usize, budget: usize, prefetch: &mut Prefetch) -> Share {
        // If no turns are taken nothing has to be known of them.
        let reads = match self.flow.rotation.is_needed() {
            true => prefetch.ahead(ROUND) / budget.max(1),
            false => 0,
        };
        self.flow.rotation.next(all, reads)
    }

    /// How long a single read may block: until it is time for something else.
    fn patience(&self, next_look: Instant) -> Duration {
        patience(Instant::now(), next_look, self.identity.lease)
    }

    /// The longest each of several reads may block, so that all of them together block no longer than one would.
    fn short_block(&self) -> Duration {
        (block(self.identity.lease) / DEPTH.0 as u32).max(Duration::from_millis(1))
    }
}
