//! Reading new entries. Redis is to be kept waiting as little as this worker: where there is a backlog, the next
//! entries are asked for before those that came are worked on; where entries come one by one but often, several reads
//! that block are sent at once. Redis then delivers what comes without having to be asked each time, and to look at its
//! sockets once more for that, which costs it more than the entry does. How many, and when, says [`super::read_plan`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::delivery::Delivery;
use super::fetcher::Fetcher;
use super::flow_control::Plan;
use super::read_plan::{DEPTH, Flow, NAP, OFTEN, ReadPlan, Shift};
use super::stream_rotation::{ROUND, Share, StreamRotation};
use crate::event::{Entry, EntryId};
use crate::policy::Room;
use crate::stream::{Link, MetAgain, Read, Reader, Trouble};
use crate::worker::state::inflight::Coming;
use crate::worker::state::shared::sleep_until;
use crate::worker::state::source::Source;

/// The longest a read waits for new entries. Other work that comes up meanwhile wakes it.
const BLOCK: Duration = Duration::from_secs(1);
/// The first and the longest wait between two attempts to wake a read.
const RINGS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// What one call of [`Fetcher::read`] reads, and the reads that are on their way.
struct Reading<'a> {
    reader: &'a mut Reader,
    group: &'a str,
    consumer: &'a str,
    streams: Vec<&'a str>,
    asked: VecDeque<Asked>,
}

/// A read on its way.
struct Asked {
    of: Share,
    /// Most entries of each stream.
    count: usize,
    since: Instant,
    block: Option<Duration>,
}

/// Entries that have come, by the place of their stream.
type Delivered = Vec<(usize, Vec<Entry>)>;

impl Reading<'_> {
    /// Sends up to `times` reads for `budget` entries in all.
    async fn ask(
        &mut self,
        of: Share,
        budget: usize,
        times: usize,
        block: Option<Duration>,
    ) -> Result<(), Trouble> {
        let of_each = budget / of.len(self.streams.len());
        let times = times.min(of_each).max(1);
        let count = (of_each / times).max(1);
        // Others must not wait for those whose turn it is.
        let block = block.filter(|_| of == Share::All);
        let some: Vec<&str>;
        let streams = match &of {
            Share::All => &self.streams,
            Share::Some(places) => {
                some = places.iter().map(|at| self.streams[*at]).collect();
                &some
            }
        };
        let read = Read {
            group: self.group,
            consumer: self.consumer,
            count,
            block,
            streams,
        };
        let since = Instant::now();
        self.reader.send(&read, times).await?;
        self.asked.extend((0..times).map(|_| Asked {
            of: of.clone(),
            count,
            since,
            block,
        }));
        Ok(())
    }

    /// Takes note of the answer to the oldest read. Answers when it was asked for, and how many entries came.
    fn came(&mut self, delivered: &Delivered, flow: &mut Flow) -> (Instant, usize) {
        let Some(Asked {
            of, count, since, ..
        }) = self.asked.pop_front()
        else {
            return (Instant::now(), 0);
        };
        (since, flow.came(&of, count, delivered))
    }

    /// How many entries may come by what is on its way.
    fn coming(&self) -> usize {
        let all = self.streams.len();
        self.asked
            .iter()
            .map(|read| read.count * read.of.len(all))
            .sum()
    }
}

impl Fetcher {
    /// Reads new entries as long as they keep coming and nothing else is to be done; waits for some where there is
    /// nothing else to do now.
    pub(super) async fn read(
        &mut self,
        reader: &mut Reader,
        link: &Link,
        budget: usize,
        more: bool,
    ) -> Result<(), Trouble> {
        let shared = self.shared.clone();
        self.look_ahead(link).await?;
        let Plan {
            sources,
            rooms,
            most,
            waits,
        } = match self.plan(shared.active_sources()) {
            Ok(plan) => plan,
            Err(wait) => return self.until_there_may_be_more(wait).await,
        };
        // With limits to keep to there is one read at a time, and none that outlasts a change of them.
        let is_limited = most.is_some() || waits.is_some();
        let budget = most.map_or(budget, |most| budget.min(most * sources.len()));
        let mut reading = Reading {
            reader,
            group: &shared.group,
            consumer: &shared.consumer,
            streams: sources
                .iter()
                .map(|source| &source.keys.stream[..])
                .collect(),
            asked: VecDeque::with_capacity(DEPTH.0),
        };
        let ReadPlan {
            depth,
            wait,
            blocks,
        } = if more || is_limited {
            ReadPlan::ONE
        } else {
            self.read_plan(sources.len())
        };
        if !blocks {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.something_else(Some(self.next_look())) => return Ok(()),
            }
        } else if !wait.is_zero() {
            // As below. Renewing can wait that long, and acknowledgements are gathered for longer.
            std::thread::sleep(wait);
        }
        let block = match waits {
            Some(wait) => wait.min(self.patience()),
            None if depth == 1 => self.patience(),
            None => self.short_block(),
        };
        let more = more || !blocks || block.is_zero();
        let of = if is_limited {
            Share::All
        } else {
            self.next_share(sources.len(), budget)
        };
        reading
            .ask(of, budget, depth, (!more).then_some(block))
            .await?;
        self.prefetch.asks(reading.coming());
        // Once something else is to be done nothing more is asked, and reads that block are ended.
        let (mut winds_up, mut lacks_room) = (false, false);
        while !reading.asked.is_empty() {
            let delivered = tokio::select! {
                biased;
                delivered = self.await_answer(&mut reading, link, &mut winds_up) => Some(delivered?),
                () = shared.inflight.freed.notified(), if lacks_room => None,
            };
            let (since, came) = match &delivered {
                Some(delivered) => reading.came(delivered, &mut self.flow),
                None => (Instant::now(), 0),
            };
            if is_limited {
                // What a read of some streams, and of few entries, came to says nothing of the others.
                self.flow.rotation = StreamRotation::default();
            }
            lacks_room = false;
            if !blocks {
                self.flow.fleet_shift.found(came, Instant::now());
            }
            let depth = if reading.asked.is_empty() && !self.flow.is_backlog {
                // The only read: nothing comes before its entries.
                1
            } else {
                winds_up |= self.has_else_to_do();
                self.read_plan(sources.len()).depth
            };
            while !winds_up
                && !lacks_room
                && !is_limited
                && depth > 1
                && reading.asked.len() <= depth / 2
            {
                let budget = self.prefetch.entries(&shared, came + reading.coming());
                lacks_room = budget == 0;
                if !lacks_room {
                    let wanted = depth - reading.asked.len();
                    let times = if self.flow.is_backlog {
                        1
                    } else {
                        if depth >= OFTEN {
                            // Redis has to look at its sockets now anyway.
                            shared.ack_now.notify_one();
                        }
                        wanted
                    };
                    let of = self.next_share(sources.len(), budget);
                    reading
                        .ask(of, budget, times, Some(self.short_block()))
                        .await?;
                    self.prefetch.asks(reading.coming());
                }
            }
            let delivered = delivered.unwrap_or_default();
            if is_limited {
                // What others have read is not there any more.
                let brought = |at: &usize| delivered.iter().any(|(of, _)| of == at);
                let nothing = (0..sources.len()).filter(|at| !brought(at));
                nothing.for_each(|at| sources[at].ahead().gone(0, None));
            }
            for (at, entries) in delivered {
                let source = &sources[at];
                let last = entries.last().map(|entry| entry.id);
                let known = entries
                    .first()
                    .is_some_and(|entry| entry.id <= source.read_up_to());
                let entries: Vec<Delivery> = if known {
                    self.met_again(&mut link.clone(), source, entries).await?
                } else {
                    entries
                        .last()
                        .into_iter()
                        .for_each(|entry| source.has_read(entry.id));
                    entries.into_iter().map(Delivery::new).collect()
                };
                if let Some(rooms) = &rooms {
                    let places = entries.iter().map(|arrival| {
                        let event_type = arrival.entry.fields.value("type")?;
                        shared.routes.place(event_type)
                    });
                    let mut ahead = sources[at].ahead();
                    ahead.read(&rooms[at], places, last);
                    // More is asked of all of them only as long as all may come.
                    winds_up |= ahead.room(&rooms[at], Instant::now()) != Room::Any;
                }
                if shared.routes.has_group_rates() {
                    self.ask_for_rates(&mut link.clone(), &entries).await?;
                }
                self.hand_over(&sources[at], Coming::InTurn, since, entries);
            }
            for (at, ids) in reading.reader.take_passed() {
                if is_limited {
                    sources[at].ahead().gone(ids.len(), ids.last().copied());
                }
                self.pass_on(&sources[at], since, ids);
            }
            if self.runs.waits_here() {
                // They are handled before anything else is done.
                crate::worker::state::inline::handle_now().await;
            }
            if depth >= OFTEN && reading.reader.is_drained() {
                // Not by the runtime's timer, whose unit is a millisecond. Only what speaks to Redis is on this thread.
                std::thread::sleep(NAP);
            }
        }
        Ok(())
    }

    /// Entries that the group had read before come as new ones: it was set back, or made anew below them. What was parked
    /// waits for its due time as it did, what had failed goes on, and what is held here stays held.
    async fn met_again(
        &self,
        link: &mut Link,
        source: &Arc<Source>,
        entries: Vec<Entry>,
    ) -> Result<Vec<Delivery>, Trouble> {
        let read = source.read_up_to();
        let held: Vec<EntryId> = self
            .shared
            .inflight
            .snapshot()
            .iter()
            .filter(|batch| !batch.alone && Arc::ptr_eq(&batch.source, source))
            .flat_map(|batch| {
                batch
                    .kept()
                    .filter(|slot| slot.count == 1)
                    .map(|slot| slot.id)
            })
            .collect();
        let (known, new): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.id <= read);
        // What is held here at its first delivery still is: this delivery changed nothing.
        let known: Vec<Entry> = known
            .into_iter()
            .filter(|entry| !held.contains(&entry.id))
            .collect();
        let ids: Vec<EntryId> = known.iter().map(|entry| entry.id).collect();
        let (group, me) = (&source.surroundings.group, &self.shared.consumer);
        let met = link.met_again(&source.keys, group, me, &ids).await?;
        new.last()
            .into_iter()
            .for_each(|entry| source.has_read(entry.id));
        let now = self.server_time();
        let arrival = |(entry, met): (Entry, MetAgain)| match met {
            MetAgain::New => Some(Delivery::new(entry)),
            MetAgain::GoesOn(count, record) => Some(Delivery::going_on(entry, count, record, now)),
            MetAgain::NotOurs => None,
        };
        let known = known.into_iter().zip(met).filter_map(arrival);
        Ok(known.chain(new.into_iter().map(Delivery::new)).collect())
    }

    /// How to read so many streams.
    fn read_plan(&mut self, streams: usize) -> ReadPlan {
        let shift = (streams == 1).then(|| Shift {
            quick: self.shared.inline.handled(),
            server_ms: self.server_time(),
        });
        self.flow.read_plan(streams, shift, Instant::now())
    }

    /// Which of so many streams to ask next for `budget` entries.
    fn next_share(&mut self, all: usize, budget: usize) -> Share {
        // Where no turns are taken nothing has to be known of them.
        let reads = match self.flow.rotation.is_needed() {
            true => self.prefetch.ahead(&self.shared, ROUND) / budget.max(1),
            false => 0,
        };
        self.flow.rotation.next(all, reads)
    }

    /// The answer to the oldest read. Ends a read that blocks where something else comes up.
    async fn await_answer(
        &self,
        reading: &mut Reading<'_>,
        link: &Link,
        winds_up: &mut bool,
    ) -> Result<Delivered, Trouble> {
        // What comes beyond is passed over, but for an entry that has all the room there is.
        let is_first = self.shared.inflight.entries() == 0;
        let room = self.prefetch.room(&self.shared).max(usize::from(is_first));
        let (reader, streams) = (&mut *reading.reader, &reading.streams);
        let client = reader.greeting.client;
        let Some(block) = reading.asked.front().and_then(|read| read.block) else {
            return reader.receive(streams, Duration::ZERO, room).await;
        };
        // A single read ends by itself when it is time to look.
        let look = (reading.asked.len() > 1).then(|| self.next_look());
        let answer = reader.receive(streams, block, room);
        tokio::pin!(answer);
        let mut wait = RINGS.0;
        loop {
            tokio::select! {
                biased;
                delivered = &mut answer => return delivered,
                () = self.something_else(look), if !*winds_up => *winds_up = true,
                () = ring(link.clone(), client, wait), if *winds_up => wait = (wait * 2).min(RINGS.1),
            }
        }
    }

    /// Whether something is to be done that a read must not keep waiting.
    fn has_else_to_do(&self) -> bool {
        let next = self
            .shared
            .next_due()
            .map_or(self.next_look(), |due| due.min(self.next_look()));
        self.shared.is_wanted() || next <= Instant::now()
    }

    /// When it is time to look for what is due, and for what others left.
    pub(super) fn next_look(&self) -> Instant {
        let waiting = self.waiting_next;
        self.alarm.next.min(self.reclaims.next()).min(waiting)
    }

    /// How long a single read may block: until it is time for something else.
    fn patience(&self) -> Duration {
        self.next_look()
            .saturating_duration_since(Instant::now())
            .clamp(Duration::from_millis(1), self.block())
    }

    /// The longest a read may block: the server can't tell a worker that waits from one that is gone.
    fn block(&self) -> Duration {
        BLOCK.min(self.shared.lease / 3)
    }

    /// The longest each of several reads may block, so that all of them together block no longer than one would.
    fn short_block(&self) -> Duration {
        (self.block() / DEPTH.0 as u32).max(Duration::from_millis(1))
    }

    /// Waits for a reason to end a read that blocks.
    async fn something_else(&self, look: Option<Instant>) {
        loop {
            // What was parked here while the read blocked may fall due before the read ends by itself.
            let due = self.shared.next_due();
            tokio::select! {
                () = self.shared.stopping.cancelled() => return,
                () = self.shared.nudge.notified() => return,
                () = sleep_until(due), if due.is_some() => return,
                () = sleep_until(look) => return,
                () = self.shared.due_changed.notified() => {}
            }
        }
    }
}

/// Ends a read that blocks, and waits for it to end. It may not have begun to block when the bell rings: the caller
/// rings again until the read has ended, less and less often where its reply is lost.
async fn ring(mut bell: Link, client: i64, wait: Duration) {
    // Without the right to do this a read ends when its time is over.
    let _ = bell.unblock(client).await;
    tokio::time::sleep(wait).await;
}
