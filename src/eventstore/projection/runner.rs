//! Runs a projection within a worker: all of its public streams, over one connection, one after the other.
//!
//! Each stream is run by one process of the fleet at a time, which has a lease for it; the others look now and then
//! whether it is free. Who has it waits for entries, and applies them a batch at a time. What could be wrong with that
//! (a lease that was lost, an answer that was) is noticed in Redis, by the step that would do harm.
//!
//! What a projection makes of events is not ours, and may take its time: it is computed on a thread for that, a while at a
//! time, and the leases are renewed meanwhile.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::Registered;
use super::batch::{End, Rules};
use super::catch_up::CatchUp;
use super::partition::{Partition, State};
use super::quarantine::{Portion, ZONE};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Entry, EntryId};
use crate::eventstore::PublicStreams;
use crate::reconnect::{self, Complaint, Pause};
use crate::stream::{
    Connector, From, LeaseStep, Link, ONE_TOO_LARGE, Pool, StreamKeys, Taken, Trouble,
};

/// Most entries that are read at once, and bytes they are to have, going by those before.
const MOST: usize = ZONE;
const BYTES: usize = 1 << 20;

/// How long an answer may take beyond the time a read blocks.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an event waits for that is to be applied alone, and what others wait for meanwhile.
const WAITING: &str = "waiting for other projections of this process";

/// How long leaving may take.
const LEAVING: Duration = Duration::from_secs(1);

/// Whom a step is taken for. A macro, for its borrows must leave the partitions free.
macro_rules! acting {
    ($runner:expr, $keys:expr) => {
        $crate::stream::ActingAs {
            keys: $keys,
            projection: $runner.rules.projection.name,
            runner: &$runner.me,
            lease: $runner.lease,
            is_rebuild: $runner.is_rebuild,
        }
    };
}
pub(super) use acting;

/// What the projections of a process share: while an event that may kill it is applied, nothing else is.
#[derive(Clone, Default)]
pub(crate) struct Alone(Arc<RwLock<()>>);

/// Runs one projection.
pub(crate) struct Runner {
    pub(super) rules: Arc<Rules>,
    pub(super) public: PublicStreams,
    pub(super) partitions: Vec<Partition>,
    pub(super) connector: Connector,
    /// For reading aggregates.
    pool: Pool,
    pub(super) me: String,
    pub(super) lease: Duration,
    alone: Alone,
    /// How many entries are read at once, by what they weigh and by how long they take to be applied.
    most: usize,
    quick: usize,
    /// At most so many of all streams, since an answer was cut off.
    caution: usize,
    /// The last read brought nothing.
    pub(super) is_at_end: bool,
    /// It builds a view beside the one that is served.
    pub(super) is_rebuild: bool,
}

impl Runner {
    /// One for the worker of this name. Does not connect yet.
    ///
    /// # Errors
    /// Where the projection's streams can be none.
    pub fn new(
        projection: Arc<Registered>,
        settings: &Settings,
        connector: &Connector,
        me: &str,
        alone: Alone,
    ) -> Result<Self> {
        let public = projection.public()?;
        let partition = |(number, stream): (usize, &str)| {
            Partition::new(number, StreamKeys::new(stream).projection(projection.name))
        };
        Ok(Runner {
            partitions: public.names().enumerate().map(partition).collect(),
            public,
            rules: Arc::new(Rules {
                retry: settings.retry.clone(),
                on_bad: settings.on_bad_event(projection.name),
                lease: settings.worker.lease,
                projection,
            }),
            pool: connector.pool(1)?,
            connector: connector.clone(),
            me: me.to_owned(),
            lease: settings.worker.lease,
            alone,
            most: MOST / 5,
            quick: MOST,
            caution: usize::MAX,
            is_at_end: false,
            is_rebuild: false,
        })
    }

    /// One for each hash slot of its partitions: a read takes streams of one. If it is no cluster that is this one.
    pub fn by_slot(mut self) -> Vec<Self> {
        let partitions = std::mem::take(&mut self.partitions);
        let connector = &self.connector;
        let lots = connector.by_slot(&partitions, |partition| &partition.keys.stream);
        let mut partitions: Vec<_> = partitions.into_iter().map(Some).collect();
        let lots = lots.into_iter().map(|places| {
            let lot = places.iter().filter_map(|place| partitions[*place].take());
            lot.collect::<Vec<_>>()
        });
        let runner = |partitions: Vec<Partition>| Runner {
            rules: self.rules.clone(),
            public: self.public.clone(),
            connector: self.connector.at(&partitions[0].keys.stream),
            pool: self.pool.clone(),
            me: self.me.clone(),
            alone: self.alone.clone(),
            partitions,
            ..self
        };
        lots.map(runner).collect()
    }

    /// Runs until it is told to stop, whatever becomes of Redis. Its partitions lie in one slot, or it is no cluster.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut pause, mut complaint) = (Pause::new(), Complaint::default());
        let mut link = None;
        let running = async {
            loop {
                let wait = match self.round(&mut link).await {
                    Ok(()) => {
                        complaint.clear();
                        pause.reset();
                        continue;
                    }
                    Err(trouble) => {
                        complaint.warn(trouble.error().to_string());
                        if trouble.ends_the_link() {
                            link = None;
                        }
                        pause.next()
                    }
                };
                tokio::time::sleep(wait).await;
            }
        };
        tokio::select! {
            () = running => {}
            () = stop.cancelled() => {}
        }
        let leaving = tokio::time::timeout(LEAVING, self.leave()).await;
        if let Ok(Err(trouble)) = leaving {
            tracing::debug!("{}", trouble.error());
        }
    }

    /// Looks after the leases, and applies what there is to apply, or waits for it.
    pub(super) async fn round(&mut self, slot: &mut Option<Link>) -> Result<(), Trouble> {
        let link = reconnect::connected(slot, async {
            let name = format!("{}:{}", self.me, self.rules.projection.name);
            let patience = self.lease / 3 + PATIENCE;
            let link = self.connector.connect_alone(&name, patience).await;
            link.map_err(Trouble::Broken)
        })
        .await?;
        self.look(link).await?;
        let mut is_busy = false;
        for place in 0..self.partitions.len() {
            is_busy |= self.go_through_aggregates(place, link).await?;
        }
        self.read(link, is_busy).await?;
        for partition in &mut self.partitions {
            let keys = partition.keys.clone();
            partition
                .calm(&self.rules, acting!(self, &keys), link)
                .await?;
        }
        Ok(())
    }

    /// Takes and renews leases.
    async fn look(&mut self, link: &mut Link) -> Result<(), Trouble> {
        for partition in &mut self.partitions {
            let keys = partition.keys.clone();
            partition.look(acting!(self, &keys), link).await?;
        }
        Ok(())
    }

    /// Reads events of a partition from its aggregates, where they are to be read there. Answers whether there was
    /// something to do.
    async fn go_through_aggregates(
        &mut self,
        place: usize,
        link: &mut Link,
    ) -> Result<bool, Trouble> {
        let partition = &mut self.partitions[place];
        let State::CatchUp(stand, until, past) = &mut partition.state else {
            return Ok(false);
        };
        let (after, until) = (stand.position, *until);
        let mut past = match past.take() {
            Some(past) => past,
            None => {
                let number = partition.number;
                let past = CatchUp::new(
                    &self.pool,
                    &self.public,
                    &self.rules.projection,
                    number,
                    after,
                    until,
                );
                Box::new(past.map_err(Trouble::Refused)?)
            }
        };
        if self.partitions[place]
            .head
            .wait
            .is_some_and(|wait| wait > Instant::now())
        {
            self.put_back(place, past);
            return Ok(false);
        }
        // Looking for the aggregates may take longer than the leases last.
        let filled = self
            .meanwhile(link, "reading the aggregates", past.fill())
            .await?;
        if let Err(error) = filled {
            self.put_back(place, past);
            return Err(Trouble::Refused(error));
        }
        let is_over = past.is_over();
        let entries: Vec<Entry> = past.entries().iter().take(self.quick).cloned().collect();
        self.put_back(place, past);
        let partition = &mut self.partitions[place];
        let keys = partition.keys.clone();
        let who = acting!(self, &keys);
        if is_over {
            partition.arrive(who, link).await?;
        } else {
            self.apply(place, From::Aggregates, entries, link).await?;
        }
        Ok(true)
    }

    /// Does something that may take longer than the leases last, and renews them.
    async fn meanwhile<T>(
        &mut self,
        link: &mut Link,
        doing: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, Trouble> {
        let mut work = std::pin::pin!(work);
        let (begun, mut is_said) = (Instant::now(), false);
        loop {
            if begun.elapsed() > self.lease && !std::mem::replace(&mut is_said, true) {
                let projection = self.rules.projection.name;
                tracing::warn!(
                    projection,
                    "{doing} has taken longer than the lease, which is renewed meanwhile; nothing else is applied"
                );
            }
            let due = self.partitions.iter().map(|partition| partition.due).min();
            let due = due.unwrap_or_else(|| Instant::now() + self.lease / 3);
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep_until(due.into()) => self.look(link).await?,
            }
        }
    }

    /// Applies as many entries as there is time for, the first one at least.
    async fn apply(
        &mut self,
        place: usize,
        from: From,
        mut entries: Vec<Entry>,
        link: &mut Link,
    ) -> Result<(), Trouble> {
        // Who has stood still may have lost it, and is not to die of an event where nobody counts it.
        self.look(link).await?;
        let rules = self.rules.clone();
        let partition = &mut self.partitions[place];
        let Some(stand) = partition.stand() else {
            return Ok(());
        };
        let Portion {
            entries: count,
            noted,
            killed,
        } = partition.portion(from, &entries, &rules);
        entries.truncate(count);
        let keys = partition.keys.clone();
        let is_noted = noted.is_some() && killed.is_none();
        let alone = self.alone.clone();
        let (mut shared, mut own) = (None, None);
        if is_noted {
            // Until it is in the view: who dies before that is taken to have died of it.
            own = Some(self.meanwhile(link, WAITING, alone.0.write()).await?);
            let note = LeaseStep::Note(noted);
            match link.lease_projection(acting!(self, &keys), note).await? {
                Taken::Done => {}
                // Another's by now.
                _ => {
                    self.partitions[place].look_again();
                    return Ok(());
                }
            }
        } else {
            shared = Some(self.meanwhile(link, WAITING, alone.0.read()).await?);
        }
        let making = self.partitions[place].make(from, entries, killed, &rules);
        let (entries, head, made) = self
            .meanwhile(link, "applying an event", making)
            .await?
            .map_err(|error| {
                let message = format!("applying events: {error}");
                Trouble::Refused(Error::new(ErrorKind::Internal, message))
            })?;
        drop(shared);
        // What takes long is not read again and again.
        self.quick = match made.end {
            End::Whole if made.entries == entries.len() && made.entries >= self.quick => {
                (self.quick * 4).min(MOST)
            }
            End::Whole if made.entries < entries.len() => made.entries.max(1),
            _ => self.quick,
        };
        let is_tried_again = is_noted && matches!(made.end, End::Retried(..));
        let who = acting!(self, &keys);
        let partition = &mut self.partitions[place];
        let applied = partition
            .apply(from, stand, (&entries, head, made), &rules, who, link)
            .await;
        // It has killed nobody, and those who die from here on die of something else.
        if is_tried_again || is_noted && partition.stand().is_none() {
            link.lease_projection(who, LeaseStep::Note(None)).await?;
        }
        drop(own);
        applied
    }

    fn put_back(&mut self, place: usize, past: Box<CatchUp>) {
        // Meanwhile it may have been taken from us, and be somewhere else.
        if let State::CatchUp(_, until, slot) = &mut self.partitions[place].state
            && *until == past.until
        {
            *slot = Some(past);
        }
    }

    /// Reads the public streams and replayed events, and applies them. Waits for them, unless there is something else
    /// to do, until the next lease is due.
    async fn read(&mut self, link: &mut Link, is_busy: bool) -> Result<(), Trouble> {
        let now = Instant::now();
        let mut next = self.partitions.iter().map(|partition| partition.due).min();
        let mut wakes = |at: Instant| next = next.map_or(Some(at), |next| Some(next.min(at)));
        let (mut sources, mut is_all) = (Vec::new(), !is_busy);
        for (place, partition) in self.partitions.iter().enumerate() {
            let Some(stand) = partition.stand() else {
                continue;
            };
            let is_live = matches!(partition.state, State::Live(_));
            match partition.head.wait {
                Some(wait) if wait > now => {
                    wakes(wait);
                    is_all = false;
                }
                _ if is_live => sources.push((place, From::Public, stand.position)),
                _ => {}
            }
            match partition.again.wait {
                Some(wait) if wait > now => wakes(wait),
                // What was replayed is for the view that is served.
                _ if self.is_rebuild => {}
                _ => sources.push((place, From::Again, EntryId::default())),
            }
        }
        let wait = next.map_or(self.lease / 3, |next| next.saturating_duration_since(now));
        if sources.is_empty() {
            if !is_busy {
                tokio::time::sleep(wait).await;
            }
            return Ok(());
        }
        // The server may let no more through than some entries, of some streams: each has its turn.
        let is_some = self.caution < sources.len();
        if is_some {
            let turn = fastrand::usize(..sources.len());
            sources.rotate_left(turn);
            sources.truncate(self.caution);
        }
        let streams: Vec<(&str, EntryId)> = sources
            .iter()
            .map(|(place, from, position)| {
                let keys = &self.partitions[*place].keys;
                let stream = if *from == From::Again {
                    &keys.again
                } else {
                    &keys.stream
                };
                (&stream[..], *position)
            })
            .collect();
        let block = (!is_busy && !self.is_rebuild && !is_some && !wait.is_zero())
            .then_some(wait.min(self.lease / 3));
        let most = self.most.min(self.quick);
        let most = most.min(self.caution / streams.len()).max(1);
        let read = link.read_behind(&streams, most, block).await;
        if read.as_ref().is_err_and(Trouble::is_cut) {
            let asked = most * streams.len();
            self.caution = (asked / 2).max(1);
            return Err(match read {
                Err(Trouble::Broken(error)) if asked == 1 => {
                    let (stream, position) = streams[0];
                    let message = format!("{error} behind {position} of {stream}; {ONE_TOO_LARGE}");
                    Trouble::Broken(error.say(message))
                }
                Err(trouble) => trouble,
                Ok(_) => return Ok(()),
            });
        }
        let read = read?;
        self.caution = self.caution.saturating_mul(2);
        self.is_at_end = read.is_empty() && !is_some;
        if let Some((_, entries)) = read.iter().max_by_key(|(_, entries)| entries.len()) {
            let bytes = entries.iter().map(Entry::size).sum::<usize>().max(1);
            self.most = (BYTES * entries.len() / bytes).clamp(1, MOST);
        }
        for (at, entries) in read {
            let (place, from, _) = sources[at];
            self.apply(place, from, entries, link).await?;
        }
        for partition in &mut self.partitions {
            if let Some(quarantine) = &mut partition.quarantine {
                quarantine.applied(is_all && self.is_at_end);
            }
        }
        Ok(())
    }

    /// Lets others run it at once.
    async fn leave(&mut self) -> Result<(), Trouble> {
        if self
            .partitions
            .iter()
            .all(|partition| partition.stand().is_none())
        {
            return Ok(());
        }
        // On its own: over the old connection it would have to wait until the read there has ended.
        let link = self.connector.connect("streamhand:leave", LEAVING).await;
        let mut link = link.map_err(Trouble::Broken)?;
        for partition in &self.partitions {
            if partition.stand().is_some() {
                let who = acting!(self, &partition.keys);
                link.lease_projection(who, LeaseStep::Leave).await?;
            }
        }
        Ok(())
    }
}
