//! Who works in a group, by what each worker tells of itself: what version it has, what it runs and since when.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::{Admin, since_1970};
use crate::error::Result;
use crate::event::EntryId;
use crate::pulse::fleet::{self, Member, State};
use crate::pulse::message::{Breaker, Run};
use crate::stream::PulseKeys;

/// The workers of a group, by [`Admin::fleet`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Fleet {
    /// The group.
    pub group: String,
    /// Its workers, those that have ended within a day among them; by state, and then by name.
    pub workers: Vec<FleetWorker>,
    /// The server's time when this was read.
    #[serde(rename = "now_ms", serialize_with = "since_1970")]
    pub now: SystemTime,
}

/// A worker, by its last pulse.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FleetWorker {
    /// Its name: that of its consumer.
    pub name: String,
    /// Whether it is there.
    pub state: WorkerState,
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: u64,
    /// The version of its program.
    pub version: String,
    /// A hash of its configuration: the same for workers that are configured alike.
    pub configuration: String,
    /// When it began, by its own clock.
    #[serde(rename = "started_ms", serialize_with = "since_1970")]
    pub started: SystemTime,
    /// When it was last heard of, by the server's clock.
    #[serde(rename = "last_seen_ms", serialize_with = "since_1970")]
    pub last_seen: SystemTime,
    /// The streams that it reads.
    pub streams: Vec<String>,
    /// The event types that it handles.
    pub types: Vec<String>,
    /// How many handlers it runs at once,
    pub slots: u64,
    /// and how many run.
    pub running: u64,
    /// Entries that it has and that are not settled.
    pub held: u64,
    /// Memory of its process that is in RAM, in bytes; zero where its system does not tell.
    pub memory: u64,
    /// How many CPUs it uses, one being 1.0.
    pub cpu: f64,
    /// How long its last pulse took to Redis and back.
    #[serde(rename = "round_trip_ms", serialize_with = "fractions_of_ms")]
    pub round_trip: Duration,
    /// Its circuit breakers that are not closed.
    pub breakers: Vec<WorkerBreaker>,
    /// What it has run for longest, the longest first; at most 50.
    pub runs: Vec<LongRun>,
    /// Types whose entries it logs one by one.
    pub debugged: Vec<String>,
    /// Numbers of [orders](Admin::order) that stand and that it has carried out.
    pub carried_out: Vec<u64>,
}

/// Whether a worker is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum WorkerState {
    /// It works.
    Alive,
    /// It takes up nothing new until it is told to go on.
    Quiet,
    /// It stops once what it runs has ended.
    Draining,
    /// It has ended, or was not heard of for too long.
    Gone,
}

/// A circuit breaker that is not closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkerBreaker {
    /// Its name.
    pub name: String,
    /// Until when it is open, by the server's clock; None where it lets probes through.
    #[serde(rename = "until_ms", serialize_with = "some_since_1970")]
    pub until: Option<SystemTime>,
}

/// A handler that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LongRun {
    /// The stream of its entry.
    pub stream: String,
    /// Its entry.
    #[serde(serialize_with = "super::text")]
    pub id: EntryId,
    /// The type of its event; None where it has not let go of its thread since it began, which only it knows.
    pub event_type: Option<String>,
    /// Which attempt it is; None likewise.
    pub attempt: Option<u64>,
    /// Since when it runs, by the server's clock; None likewise.
    #[serde(rename = "since_ms", serialize_with = "some_since_1970")]
    pub since: Option<SystemTime>,
}

impl Admin {
    /// The workers of the group that read any of its streams: who they are, how they are, and what they have run for
    /// longest. A worker tells of itself every ten seconds, each 30 at rest, and each second while somebody looks
    /// (`[pulse]` in its settings).
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses to say.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// for worker in admin.fleet().await?.workers {
    ///     println!("{} on {}: {} of {} slots", worker.version, worker.host, worker.running, worker.slots);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn fleet(&self) -> Result<Fleet> {
        let fleet = self.fleet_now().await?;
        let now = self.pool.now().await?;
        Ok(Fleet::of(self.group(), self.streams(), &fleet, now))
    }

    /// The same as it was heard, for who goes on hearing.
    pub(crate) async fn fleet_now(&self) -> Result<fleet::Fleet> {
        let keys = PulseKeys::new(self.group());
        fleet::Fleet::read(&self.pool, &keys).await
    }
}

impl Fleet {
    /// The same of what was heard, at a time by the server's clock.
    pub(crate) fn of(
        group: &str,
        streams: &[String],
        fleet: &fleet::Fleet,
        now: SystemTime,
    ) -> Self {
        let now_ms = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as u64;
        let members = fleet.members().filter(|member| member.reads(streams));
        let mut workers: Vec<FleetWorker> = members
            .map(|member| FleetWorker::of(member, now_ms))
            .collect();
        workers.sort_by(|a, b| (a.state, &a.name).cmp(&(b.state, &b.name)));
        Fleet {
            group: group.to_owned(),
            workers,
            now,
        }
    }

    /// Those that are there.
    pub fn there(&self) -> impl Iterator<Item = &FleetWorker> {
        self.workers
            .iter()
            .filter(|worker| worker.state != WorkerState::Gone)
    }
}

impl FleetWorker {
    fn of(member: &Member, now_ms: u64) -> Self {
        let Member {
            name,
            seen_ms,
            pulse,
        } = member;
        let (who, now) = (&pulse.who, &pulse.now);
        FleetWorker {
            name: name.clone(),
            state: match member.state(now_ms) {
                State::Alive => WorkerState::Alive,
                State::Quiet => WorkerState::Quiet,
                State::Draining => WorkerState::Draining,
                State::Gone => WorkerState::Gone,
            },
            host: who.host.clone(),
            pid: who.pid,
            version: who.version.clone(),
            configuration: configuration(who.configuration),
            started: at(who.started_ms),
            last_seen: at(*seen_ms),
            streams: who.streams.clone(),
            types: who.types.clone(),
            slots: now.slots,
            running: now.running,
            held: now.held,
            memory: now.memory,
            cpu: now.cpu as f64 / 1000.0,
            round_trip: Duration::from_micros(now.round_trip_us),
            breakers: now
                .breakers
                .iter()
                .map(|breaker| WorkerBreaker::of(breaker, *seen_ms))
                .collect(),
            runs: now
                .runs
                .iter()
                .map(|run| LongRun::of(run, *seen_ms))
                .collect(),
            debugged: now.debugged.clone(),
            carried_out: now.done.clone(),
        }
    }
}

impl WorkerBreaker {
    fn of(breaker: &Breaker, seen_ms: u64) -> Self {
        WorkerBreaker {
            name: breaker.name.clone(),
            until: breaker.open_for_ms.map(|ms| at(seen_ms + ms)),
        }
    }
}

impl LongRun {
    fn of(run: &Run, seen_ms: u64) -> Self {
        let is_known = !run.event_type.is_empty();
        LongRun {
            stream: run.stream.clone(),
            id: run.id,
            event_type: is_known.then(|| run.event_type.clone()),
            attempt: is_known.then_some(run.attempt),
            since: is_known.then(|| at(seen_ms.saturating_sub(run.for_ms))),
        }
    }
}

/// A hash of a configuration, as it is shown.
pub(super) fn configuration(hash: u64) -> String {
    // Eight digits tell configurations apart well enough to be read aloud.
    format!("{:08x}", hash >> 32)
}

/// A time of milliseconds since 1970.
pub(super) fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms.min(1 << 50))
}

fn fractions_of_ms<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_micros() as f64 / 1000.0)
}

fn some_since_1970<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => since_1970(time, to),
        None => to.serialize_none(),
    }
}
