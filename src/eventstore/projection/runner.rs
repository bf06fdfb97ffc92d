//! Runs a projection within a worker: all of its public streams, over one connection, one after the other.
//!
//! Each stream is run by one process of the fleet at a time, which has a lease for it; the others look now and then
//! whether it is free. Who has it waits for entries, and applies them a batch at a time. What could be wrong with that
//! (a lease that was lost, an answer that was) is noticed in Redis, by the step that would do harm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Registered;
use super::batch::Rules;
use super::partition::{Partition, State};
use super::past::Past;
use crate::config::Settings;
use crate::error::Result;
use crate::event::{Entry, EntryId};
use crate::eventstore::PublicStreams;
use crate::stream::{Connector, From, LeaseStep, Link, Pool, StreamKeys, Trouble};
use crate::worker::{Complaint, Pause};

/// Most entries that are read at once, and bytes they are to have, going by those before.
const MOST: usize = 500;
const BYTES: usize = 1 << 20;

/// How long an answer may take beyond the time a read blocks.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// Runs one projection.
pub(crate) struct Runner {
    pub(super) rules: Rules,
    pub(super) public: PublicStreams,
    pub(super) partitions: Vec<Partition>,
    pub(super) connector: Connector,
    /// For reading aggregates.
    pool: Pool,
    pub(super) me: String,
    pub(super) lease: Duration,
    /// How many entries are read at once.
    most: usize,
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
    ) -> Result<Self> {
        let public = projection.public()?;
        let partition = |(number, stream): (usize, &str)| {
            Partition::new(number, StreamKeys::new(stream).projection(projection.name))
        };
        Ok(Runner {
            partitions: public.names().enumerate().map(partition).collect(),
            public,
            rules: Rules {
                retry: settings.retry.clone(),
                on_bad: settings.on_bad_event(projection.name),
                projection,
            },
            pool: connector.pool(1)?,
            connector: connector.clone(),
            me: me.to_owned(),
            lease: settings.worker.lease,
            most: MOST / 5,
            is_at_end: false,
            is_rebuild: false,
        })
    }

    /// Runs until it is told to stop, whatever becomes of Redis.
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
                        if let Trouble::Broken(_) = trouble {
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
        let link = match slot {
            Some(link) => link,
            None => {
                let name = format!("{}:{}", self.me, self.rules.projection.name);
                let patience = self.lease / 3 + PATIENCE;
                let link = self.connector.connect(&name, patience).await;
                slot.insert(link.map_err(Trouble::Broken)?)
            }
        };
        self.look(link).await?;
        let mut is_busy = false;
        for place in 0..self.partitions.len() {
            is_busy |= self.go_through_aggregates(place, link).await?;
        }
        self.read(link, is_busy).await
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
        let State::Past(stand, until, past) = &mut partition.state else {
            return Ok(false);
        };
        let (after, until) = (stand.position, *until);
        let mut past = match past.take() {
            Some(past) => past,
            None => {
                let number = partition.number;
                let past = Past::new(
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
        let filled = {
            let mut filling = std::pin::pin!(past.fill());
            loop {
                tokio::select! {
                    filled = &mut filling => break filled,
                    () = tokio::time::sleep(self.lease / 3) => self.look(link).await?,
                }
            }
        };
        if let Err(error) = filled {
            self.put_back(place, past);
            return Err(Trouble::Refused(error));
        }
        let (entries, is_over) = (past.entries().to_vec(), past.is_over());
        self.put_back(place, past);
        let partition = &mut self.partitions[place];
        let keys = partition.keys.clone();
        let who = acting!(self, &keys);
        if is_over {
            partition.arrive(who, link).await?;
        } else {
            partition
                .apply(From::Aggregates, &entries, &self.rules, who, link)
                .await?;
        }
        Ok(true)
    }

    fn put_back(&mut self, place: usize, past: Box<Past>) {
        // Meanwhile it may have been taken from us, and be somewhere else.
        if let State::Past(_, until, slot) = &mut self.partitions[place].state
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
        let mut sources = Vec::new();
        for (place, partition) in self.partitions.iter().enumerate() {
            let Some(stand) = partition.stand() else {
                continue;
            };
            let is_live = matches!(partition.state, State::Live(_));
            match partition.head.wait {
                Some(wait) if wait > now => wakes(wait),
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
        let block =
            (!is_busy && !self.is_rebuild && !wait.is_zero()).then_some(wait.min(self.lease / 3));
        let read = link.read_behind(&streams, self.most, block).await?;
        self.is_at_end = read.is_empty();
        if let Some((_, entries)) = read.iter().max_by_key(|(_, entries)| entries.len()) {
            let bytes = entries.iter().map(Entry::size).sum::<usize>().max(1);
            self.most = (BYTES * entries.len() / bytes).clamp(1, MOST);
        }
        for (at, entries) in read {
            let (place, from, _) = sources[at];
            let partition = &mut self.partitions[place];
            let keys = partition.keys.clone();
            let who = acting!(self, &keys);
            partition
                .apply(from, &entries, &self.rules, who, link)
                .await?;
            // A view takes its time to be computed: what else runs here gets its own.
            tokio::task::yield_now().await;
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
