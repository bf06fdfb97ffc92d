//! Reading new entries. Redis is to be kept waiting as little as this worker: where there is a backlog, the next
//! entries are asked for before those that came are worked on; where entries come one by one but often, several reads
//! that block are sent at once. Redis then delivers what comes without having to be asked each time, and to look at its
//! sockets once more for that, which costs it more than the entry does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::arrival::Arrival;
use super::fetcher::Fetcher;
use super::pace::{Pace, SPAN};
use super::room::Plan;
use super::shared::sleep_until;
use super::turns::{ROUND, Share, Turns};
use crate::event::Entry;
use crate::stream::{Link, Read, Reader, Trouble};

/// The longest a read waits for new entries. Other work that comes up meanwhile wakes it.
const BLOCK: Duration = Duration::from_secs(1);
/// The first and the longest wait between two attempts to wake a read.
const RINGS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// Reads on their way where there is a backlog: while one answer is received, Redis works on the next.
const AHEAD: usize = 2;
/// Most reads on their way where entries come one by one, and the part of the pace's span they are to last for.
const DEPTH: (usize, usize) = (32, 20);
/// With so many reads on their way the thread is let sleep for a little between answers: Redis, which would have to wake
/// it for every entry, then does not, and several are handed over at once.
const OFTEN: usize = 16;
const NAP: Duration = Duration::from_micros(80);
/// A read that blocks on many streams costs Redis by the stream, once to block and once to be woken. So where that many
/// entries come meanwhile there is one read at a time, and a wait before each of this for every stream, but no longer.
const GATHERED: usize = 2;
const GATHERING: (Duration, Duration) = (Duration::from_micros(30), Duration::from_micros(500));
/// An answer with more entries than this may be part of a backlog, and so may more full answers than this in a row.
const FEW: usize = 8;

/// How entries have come of late.
pub(super) struct Flow {
    pace: Pace,
    came: u64,
    /// Redis has more than was asked for, as far as the last answers told.
    is_backlog: bool,
    /// So many answers in a row had all that was asked for.
    full: usize,
    turns: Turns,
}

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

impl Flow {
    pub fn new() -> Self {
        Flow {
            pace: Pace::new(Instant::now()),
            came: 0,
            is_backlog: false,
            full: 0,
            turns: Turns::default(),
        }
    }

    /// How many reads of so many streams are to be on their way, and how long to wait before each where it is one.
    fn gait(&mut self, streams: usize, now: Instant) -> (usize, Duration) {
        if self.is_backlog {
            return (AHEAD, Duration::ZERO);
        }
        let coming = self.pace.ahead(now, self.came);
        let gathering = (GATHERING.0 * streams as u32).min(GATHERING.1);
        if streams > 1 && coming >= GATHERED * (SPAN.as_nanos() / gathering.as_nanos()) as usize {
            return (1, gathering);
        }
        let depth = (coming / DEPTH.1).clamp(1, DEPTH.0);
        (depth, Duration::ZERO)
    }
}

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
        let came: usize = delivered.iter().map(|(_, entries)| entries.len()).sum();
        let most = delivered.iter().map(|(_, entries)| entries.len()).max();
        let most = most.unwrap_or(0);
        flow.came += came as u64;
        flow.full = if most >= count { flow.full + 1 } else { 0 };
        let is_backlog = (came > FEW && most >= count.div_ceil(2)) || flow.full > FEW;
        if is_backlog || flow.turns.is_needed() {
            let is_full = |at| {
                delivered
                    .iter()
                    .any(|(of, entries)| *of == at && entries.len() >= count)
            };
            flow.turns.learn(&of, is_full);
        }
        flow.is_backlog = is_backlog || flow.turns.is_needed();
        (since, came)
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
        let Plan {
            sources,
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
        let (depth, gathering) = if more || is_limited {
            (1, Duration::ZERO)
        } else {
            self.flow.gait(sources.len(), Instant::now())
        };
        if !gathering.is_zero() {
            // As below. Renewing can wait that long, and acknowledgements are gathered for longer.
            std::thread::sleep(gathering);
        }
        let block = match waits {
            Some(wait) => wait.min(self.patience()),
            None if depth == 1 => self.patience(),
            None => self.short_block(),
        };
        let more = more || block.is_zero();
        let of = if is_limited {
            Share::All
        } else {
            self.next_share(sources.len(), budget)
        };
        reading
            .ask(of, budget, depth, (!more).then_some(block))
            .await?;
        // Once something else is to be done nothing more is asked, and reads that block are ended.
        let (mut winds_up, mut lacks_room) = (false, false);
        while !reading.asked.is_empty() {
            let delivered = tokio::select! {
                biased;
                delivered = self.await_answer(&mut reading, link, &mut winds_up) => Some(delivered?),
                () = shared.held.freed.notified(), if lacks_room => None,
            };
            let (since, came) = match &delivered {
                Some(delivered) => reading.came(delivered, &mut self.flow),
                None => (Instant::now(), 0),
            };
            if is_limited {
                // What a read of some streams, and of few entries, came to says nothing of the others.
                self.flow.turns = Turns::default();
            }
            winds_up |= self.has_else_to_do();
            lacks_room = false;
            let (depth, _) = self.flow.gait(sources.len(), Instant::now());
            while !winds_up
                && !lacks_room
                && !is_limited
                && depth > 1
                && reading.asked.len() <= depth / 2
            {
                let budget = self.budget.entries(&shared, came + reading.coming());
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
                }
            }
            for (at, entries) in delivered.unwrap_or_default() {
                let entries: Vec<Arrival> = entries.into_iter().map(Arrival::new).collect();
                if shared.routes.has_group_rates() {
                    self.ask_for_rates(&mut link.clone(), &entries).await?;
                }
                self.hand_over(&sources[at], false, since, entries);
            }
            if self.runs.waits_here() {
                // They are handled before anything else is done.
                super::io::handle_now().await;
            }
            if depth >= OFTEN && reading.reader.is_drained() {
                // Not by the runtime's timer, whose unit is a millisecond. Only what speaks to Redis is on this thread.
                std::thread::sleep(NAP);
            }
        }
        Ok(())
    }

    /// Which of so many streams to ask next for `budget` entries.
    fn next_share(&mut self, all: usize, budget: usize) -> Share {
        // Where no turns are taken nothing has to be known of them.
        let reads = match self.flow.turns.is_needed() {
            true => self.budget.ahead(&self.shared, ROUND) / budget.max(1),
            false => 0,
        };
        self.flow.turns.next(all, reads)
    }

    /// The answer to the oldest read. Ends a read that blocks where something else comes up.
    async fn await_answer(
        &self,
        reading: &mut Reading<'_>,
        link: &Link,
        winds_up: &mut bool,
    ) -> Result<Delivered, Trouble> {
        let (reader, streams) = (&mut *reading.reader, &reading.streams);
        let client = reader.greeting.client;
        let Some(block) = reading.asked.front().and_then(|read| read.block) else {
            return reader.receive(streams, Duration::ZERO).await;
        };
        // A single read ends by itself when it is time to look.
        let look = (reading.asked.len() > 1).then(|| self.next_look());
        let answer = reader.receive(streams, block);
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
        self.alarm.next.min(self.reclaims.next())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done where so many entries have come each millisecond.
    fn gait_at(each_ms: u64, streams: usize) -> (usize, u128) {
        let (mut flow, start) = (Flow::new(), Instant::now());
        let mut gait = (0, Duration::ZERO);
        for ms in 1..=200 {
            flow.came += each_ms;
            gait = flow.gait(streams, start + ms * Duration::from_millis(1));
        }
        (gait.0, gait.1.as_micros())
    }

    #[test]
    fn of_one_stream_several_reads_are_on_their_way_and_of_many_one_that_gathers() {
        assert_eq!([1, 10].map(|streams| gait_at(0, streams)), [(1, 0); 2]);
        assert_eq!([1, 10].map(|streams| gait_at(2, streams)), [(10, 0); 2]);
        let often = [1, 2, 10, 100].map(|streams| gait_at(10, streams));
        assert_eq!(often, [(32, 0), (32, 0), (1, 300), (1, 500)]);
        assert_eq!(gait_at(50, 2), (1, 60));
    }
}
