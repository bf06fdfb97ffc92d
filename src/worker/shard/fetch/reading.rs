//! One call of reading: the streams it asks of, the reads that are on their way, and what has come of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::delivery::{Deliveries, Delivery, Unread};
use super::flow_control::Limits;
use super::idle::until_something_else;
use super::met_again::met_again;
use super::prefetch::Prefetch;
use super::read_plan::{DEPTH, NAP, OFTEN};
use super::stream_rotation::Share;
use crate::event::Entry;
use crate::metrics::entries::Via;
use crate::policy::Room;
use crate::stream::{Link, Read, Reader, Trouble};
use crate::worker::run::routes::Routes;
use crate::worker::run::verdict::Verdict;
use crate::worker::shard::clock::Clock;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::{Coming, Inflight};
use crate::worker::state::signals::Signals;
use crate::worker::state::source::Source;

/// The first and the longest wait between two attempts to wake a read.
const RINGS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
const NO_ROOM: &str = "released: more came at once than there is room for";

/// What a reading goes by as long as it lasts.
pub(crate) struct Terms<'a> {
    pub identity: &'a Identity,
    pub signals: &'a Signals,
    pub inflight: &'a Inflight,
    pub routes: &'a Routes,
    pub sources: &'a [Arc<Source>],
    pub limits: &'a Limits,
    /// When it is time to look for something else.
    pub next_look: Instant,
    /// The server's clock.
    pub clock: Clock,
}

/// A reading.
pub(crate) struct Reading<'a> {
    pub terms: Terms<'a>,
    reader: &'a mut Reader,
    /// Ends reads that block, and asks for what has to be known of entries.
    link: &'a Link,
    streams: Vec<&'a str>,
    asked: VecDeque<Asked>,
    /// How many reads may be on their way.
    pub depth: usize,
    /// Whether the first reads wait for entries: if not, another worker is on duty.
    pub blocks: bool,
    /// Something else is to be done: nothing more is asked, and reads that block are ended.
    pub winds_up: bool,
    /// There was no room for what could have been asked.
    pub lacks_room: bool,
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
pub(crate) type Delivered = Vec<(usize, Vec<Entry>)>;

/// A read that has been answered.
pub(crate) struct Answered {
    pub of: Share,
    pub count: usize,
    pub since: Instant,
}

/// What is still to be handed over of an answer.
pub(crate) struct Answer {
    since: Instant,
    delivered: std::vec::IntoIter<(usize, Vec<Entry>)>,
}

impl<'a> Reading<'a> {
    pub fn new(terms: Terms<'a>, reader: &'a mut Reader, link: &'a Link, blocks: bool) -> Self {
        let streams = terms.sources.iter();
        let streams = streams.map(|source| &source.keys.stream[..]);
        Reading {
            reader,
            link,
            streams: streams.collect(),
            asked: VecDeque::with_capacity(DEPTH.0),
            terms,
            depth: 1,
            blocks,
            winds_up: false,
            lacks_room: false,
        }
    }

    /// Sends up to `times` reads for `budget` entries in all.
    pub async fn ask(
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
            group: &self.terms.identity.group,
            consumer: &self.terms.identity.name,
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

    /// How many reads are on their way.
    pub fn on_the_way(&self) -> usize {
        self.asked.len()
    }

    /// How many entries may come by what is on its way.
    pub fn coming(&self) -> usize {
        let all = self.streams.len();
        self.asked
            .iter()
            .map(|read| read.count * read.of.len(all))
            .sum()
    }

    /// The answer to the oldest read. Ends a read that blocks if something else comes up.
    pub async fn answer(&mut self, prefetch: &Prefetch) -> Result<Delivered, Trouble> {
        let (signals, inflight) = (self.terms.signals, self.terms.inflight);
        // What comes beyond is passed over, but for an entry that has all the room there is.
        let is_first = inflight.entries() == 0;
        let room = prefetch.room().max(usize::from(is_first));
        let (reader, streams) = (&mut *self.reader, &self.streams);
        let (client, can_wake) = (reader.greeting.client, reader.greeting.can_unblock);
        let Some(block) = self.asked.front().and_then(|read| read.block) else {
            return reader.receive(streams, Duration::ZERO, room).await;
        };
        // A single read ends by itself when it is time to look.
        let look = (self.asked.len() > 1).then_some(self.terms.next_look);
        let answer = reader.receive(streams, block, room);
        tokio::pin!(answer);
        let mut wait = RINGS.0;
        loop {
            tokio::select! {
                biased;
                delivered = &mut answer => return delivered,
                () = until_something_else(signals, look), if !self.winds_up => self.winds_up = true,
                () = ring(self.link.clone(), client, wait), if self.winds_up && can_wake => wait = (wait * 2).min(RINGS.1),
            }
        }
    }

    /// The oldest read has been answered.
    pub fn answered(&mut self) -> Option<Answered> {
        let Asked {
            of, count, since, ..
        } = self.asked.pop_front()?;
        Some(Answered { of, count, since })
    }

    /// What has come to the read that was sent at `since`, to be handed over.
    pub fn take(&self, delivered: Delivered, since: Instant) -> Answer {
        if self.terms.limits.are_any() {
            // What others have read is not there any more.
            let brought = |at: &usize| delivered.iter().any(|(of, _)| of == at);
            let nothing = (0..self.terms.sources.len()).filter(|at| !brought(at));
            nothing.for_each(|at| self.terms.sources[at].ahead().gone(0, None));
        }
        Answer {
            since,
            delivered: delivered.into_iter(),
        }
    }

    /// What an answer has of the next stream; nothing once that was all.
    pub async fn next_of(&mut self, answer: &mut Answer) -> Result<Option<Deliveries>, Trouble> {
        let Some((at, entries)) = answer.delivered.next() else {
            return Ok(None);
        };
        let Terms {
            identity,
            inflight,
            routes,
            sources,
            limits,
            clock,
            ..
        } = &self.terms;
        let source = &sources[at];
        let last = entries.last().map(|entry| entry.id);
        let known = entries
            .first()
            .is_some_and(|entry| entry.id <= source.read_up_to());
        let entries: Vec<Delivery> = if known {
            let me = &identity.name;
            met_again(source, entries, inflight, me, clock, &mut self.link.clone()).await?
        } else {
            last.into_iter().for_each(|id| source.has_read(id));
            entries.into_iter().map(Delivery::new).collect()
        };
        if let Some(rooms) = &limits.rooms {
            let places = entries.iter().map(|delivery| {
                let event_type = delivery.entry.fields.value("type")?;
                routes.place(event_type)
            });
            let mut ahead = source.ahead();
            ahead.read(&rooms[at], places, last);
            // More is asked of all of them only as long as all may come.
            self.winds_up |= ahead.room(&rooms[at], Instant::now()) != Room::Any;
        }
        Ok(Some(Deliveries {
            via: via(source),
            source: source.clone(),
            coming: Coming::InTurn,
            since: answer.since,
            entries,
        }))
    }

    /// Entries of an answer that there was no room for: they were delivered, and are left to whoever has room.
    pub fn take_passed(&mut self, answer: Answer) -> Vec<Unread> {
        let passed = self.reader.take_passed().into_iter();
        let unread = passed.map(|(at, ids)| {
            let source = &self.terms.sources[at];
            if self.terms.limits.are_any() {
                source.ahead().gone(ids.len(), ids.last().copied());
            }
            let (stream, count) = (&source.keys.stream, ids.len());
            tracing::debug!(stream, count, "more came at once than there is room for");
            Unread {
                via: via(source),
                source: source.clone(),
                coming: Coming::InTurn,
                since: answer.since,
                entries: ids.into_iter().map(|id| (id, 1)).collect(),
                verdict: Verdict::release(Duration::ZERO, NO_ROOM),
                attempt: 1,
            }
        });
        unread.collect()
    }

    /// Lets the thread sleep for a little if answers come often.
    pub fn nap(&self) {
        if self.depth >= OFTEN && self.reader.is_drained() {
            // Not by the runtime's timer, whose unit is a millisecond. Only what speaks to Redis is on this thread.
            std::thread::sleep(NAP);
        }
    }
}

/// How what is new on a stream comes.
fn via(source: &Source) -> Via {
    match source.again {
        Some(_) => Via::Read,
        None => Via::Replay,
    }
}

/// Ends a read that blocks, and waits for it to end. It may not have begun to block when the bell rings: the caller
/// rings again until the read has ended, less and less often if its reply is lost.
async fn ring(mut bell: Link, client: i64, wait: Duration) {
    // Without the right to do this a read ends when its time is over.
    let _ = bell.unblock(client).await;
    tokio::time::sleep(wait).await;
}
