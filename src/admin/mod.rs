//! Operating a group from code: what the program's commands do, for a dashboard and for tools of your own.
//!
//! An [`Admin`] is one server, one group and some of its streams. Its calls run in your runtime, print nothing and end no
//! process; results have named fields, and those that a command shows with `--json` are serialized as it shows them.
//!
//! | method | command |
//! |---|---|
//! | [`Admin::status`], [`Admin::stream_status`], [`Admin::retention`] | `status` |
//! | [`Admin::load`] | `exporter` |
//! | [`Admin::pause`], [`Admin::pause_with`], [`Admin::resume`] and the same of a handler | `pause`, `resume` |
//! | [`Admin::search`] | `find` |
//! | [`Admin::conformance`] | `conformance` |
//! | [`Admin::fleet`], [`Admin::order`], [`Admin::orders`], [`Admin::take_back`] | `worker` |
//! | [`Admin::history`] | `top` |
//! | [`Admin::entry`], [`Admin::entry_relations`] | `entry` |
//! | [`Admin::servers`] | `redis` |
//! | [`Admin::scheduled`], [`Admin::cancel_scheduled`] | `scheduled` |
//! | [`Admin::cancel`] | `cancel` |
//! | [`Admin::crons`], [`Admin::cron`] and their like | `cron` |
//! | [`Admin::limit`], [`Admin::clear_limit`], [`Admin::limits`] | `limit` |
//! | [`Admin::grow`], [`Admin::growth`] | `topic` |
//! | [`Admin::dead_letters`], [`Admin::edit`], [`Admin::redirect`] | `dlq` |
//! | [`Admin::projections`] | `projection` |
//! | [`Admin::aggregates`] | `aggregate` |
//! | [`Admin::audit`], [`Admin::audited`] | what `web` writes down of who did what |
//!
//! Every call can be dropped before it has ended, and nothing is lost by that: a replay or a purge that was stopped
//! half-way goes on where it is begun again. Lists are `Stream`s which keep a page at a time in memory.
//!
//! ```no_run
//! use streamhand::admin::Admin;
//! use streamhand::dead_letters::Filter;
//!
//! # async fn example() -> streamhand::Result<()> {
//! let admin = Admin::connect("redis://127.0.0.1:6379", "fulfilment", ["orders"])?;
//! let stats = admin.dead_letters()?.select(Filter::new()).await?.stats().await?;
//! println!("{} dead letters", stats.total);
//! # Ok(()) }
//! ```

mod aggregates;
mod audit;
mod cancel;
mod conformance;
mod cron;
pub(crate) mod data;
mod edit;
mod entry;
mod fleet;
mod flow;
mod history;
mod known;
mod limits;
mod list;
mod load;
mod orders;
mod pause;
mod projections;
mod query;
mod redirect;
mod retention;
pub(crate) mod scheduled;
mod search;
mod server;
mod splice;
mod status;
mod steps;
pub(crate) mod topics;
mod verify;

pub use crate::conformance::{BrokenRule, Level};
pub use crate::eventstore::Problem;
pub use crate::group_gauges::{
    Blocked, GroupLoad, LoadTrouble, OutboxLoad, PausedLoad, ProjectionLoad, StreamLoad,
    WorkerCounts,
};
pub use aggregates::{AggregateState, Aggregates, AppendedEvent, NewEvent};
pub use audit::Audited;
pub(crate) use cancel::HEARD_WITHIN as CANCEL_HEARD_WITHIN;
pub use cancel::{CancelOutcome, CancelRequest, Cancellation, CancelledOne};
pub use conformance::{Conformance, JudgedStream};
pub use cron::{
    ClockChange, CronLast, CronOccurrence, CronPause, CronPauseRequest, CronRun, CronStatus,
};
pub use edit::{FieldChange, LetterEdit};
pub use entry::{AttemptError, Caused, EntryLife, EntryStanding, GroupLife, Relations};
pub use fleet::{Fleet, FleetWorker, LongRun, WorkerBreaker, WorkerState};
pub use flow::{Deploy, GroupHistory, HistorySlot, Resolution};
pub use history::{History, HistoryEvent};
pub use limits::{LimitRequest, StandingLimit};
pub use list::List;
pub use orders::{StandingOrder, WorkerOrder};
pub use pause::{PauseRequest, Paused, Resumed};
pub use projections::{
    ProjectionResumed, ProjectionState, ProjectionStatus, Projections, RebuildProgress,
    RebuildStatus,
};
pub use query::Query;
pub use redirect::Redirected;
pub use retention::{Held, HeldBy, RetentionStatus};
pub use scheduled::{Cancelled, ScheduledId, Unread, UnreadSchedule};
pub use search::{Budget, Covered, Hit, Place, Search, SearchPage};
pub use server::{ServerStatus, SlowCommand};
pub use status::{
    BreakerStatus, ConsumerStatus, GroupStatus, InTheWay, OrderStatus, OutboxStatus, PROTOCOL,
    Pause, Standing, Status, StreamStatus, StreamTrouble,
};
pub use topics::{TopicGrowth, TopicStatus};
pub use verify::Verified;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::config::{RedisUrl, Settings, check};
use crate::dead_letters::DeadLetters;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::handler::Cron;
use crate::publisher::Publisher;
use crate::stream::{Connector, Line, Pool};

/// Looks at a group and its streams, and acts on them. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Admin {
    pool: Pool,
    /// For aggregates, of which many steps go over one connection.
    line: Line,
    settings: Arc<Settings>,
    /// What it looks at: those of a partitioned topic one by one.
    streams: Arc<[String]>,
    /// The crons of a program whose events it can make.
    crons: Arc<[Arc<Cron>]>,
}

impl Admin {
    /// Whether what failed says nothing of what is at other nodes.
    #[cfg(feature = "cli")]
    pub(crate) fn is_of_one_node(&self, error: &crate::Error) -> bool {
        self.pool.is_of_one_node(error)
    }

    /// The group and the streams of `[worker]`, at the server of `[redis]`. Its connections are made when they are
    /// needed.
    ///
    /// The other settings say what the group's workers go by: what a stream is trimmed to, and from how many dead letters
    /// on it is warned of.
    ///
    /// # Errors
    /// Where the address is not one.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use streamhand::admin::Admin;
    /// use streamhand::config::{Settings, Sources};
    ///
    /// let settings = Settings::load(Sources::from_process())?;
    /// let admin = Admin::new(&settings)?;
    /// # Ok(()) }
    /// ```
    pub fn new(settings: &Settings) -> Result<Self> {
        let redis = &settings.redis;
        Ok(Self::at(
            Connector::new(redis)?.pool(redis.pool_size)?,
            settings,
        ))
    }

    /// A group and its streams at the server of this URL, with the default settings.
    ///
    /// # Errors
    /// Where the address is not one, or a name can't be one.
    ///
    /// ```
    /// use streamhand::admin::Admin;
    ///
    /// # fn main() -> streamhand::Result<()> {
    /// let admin = Admin::connect("redis://127.0.0.1:6379", "fulfilment", ["orders", "payments"])?;
    /// assert_eq!(admin.group(), "fulfilment");
    /// # Ok(()) }
    /// ```
    pub fn connect<S: Into<String>>(
        url: &str,
        group: &str,
        streams: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let mut settings = Settings::default();
        settings.redis.url = RedisUrl::parse(url)
            .map_err(|why| Error::new(ErrorKind::Invalid, format!("the address {why}")))?;
        Self::new(&settings)?.for_group(group)?.for_streams(streams)
    }

    /// As [`new`](Self::new), over the connections of a publisher, such as the one that a handler has in its
    /// [`Context`](crate::Context). `[redis]` is not looked at.
    ///
    /// ```no_run
    /// use streamhand::admin::Admin;
    /// use streamhand::{Publisher, Settings};
    ///
    /// # fn example(settings: &Settings) -> streamhand::Result<()> {
    /// let publisher = Publisher::new(&settings.redis)?;
    /// let admin = Admin::with_publisher(&publisher, settings);
    /// # Ok(()) }
    /// ```
    pub fn with_publisher(publisher: &Publisher, settings: &Settings) -> Self {
        Self::at(publisher.pool().clone(), settings)
    }

    fn at(pool: Pool, settings: &Settings) -> Self {
        Admin {
            line: Line::new(pool.clone()),
            pool,
            streams: settings.streams_of(&settings.worker.streams).into(),
            settings: Arc::new(settings.clone()),
            crons: Arc::default(),
        }
    }

    /// The same for another group.
    ///
    /// # Errors
    /// Where no group can have this name.
    pub fn for_group(mut self, group: impl Into<String>) -> Result<Self> {
        let group = group.into();
        check::group_name(&group).map_err(|why| wrong_name("group", &group, &why))?;
        Arc::make_mut(&mut self.settings).worker.group = group;
        Ok(self)
    }

    /// The same for other streams.
    ///
    /// # Errors
    /// Where no stream can have such a name.
    pub fn for_streams<S: Into<String>>(
        mut self,
        streams: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let streams: Vec<String> = streams.into_iter().map(Into::into).collect();
        streams.iter().try_for_each(|name| check_stream(name))?;
        self.streams = self.settings.streams_of(&streams).into();
        Arc::make_mut(&mut self.settings).worker.streams = streams;
        Ok(self)
    }

    /// The lease that workers go by.
    pub(crate) fn lease(&self) -> Duration {
        self.settings.worker.lease
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.settings.worker.group
    }

    /// The group's streams, those of a partitioned topic one by one.
    pub fn streams(&self) -> &[String] {
        &self.streams
    }

    /// The streams that a name stands for: a partitioned topic's, or itself.
    pub(crate) fn streams_of(&self, name: &str) -> Vec<String> {
        self.settings.streams_of(&[name.to_owned()])
    }

    /// Its connections.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The server's time. The clock of this machine may be wrong.
    ///
    /// # Errors
    /// Where Redis can't be reached, or refuses to say.
    pub async fn now(&self) -> Result<SystemTime> {
        self.pool.now().await
    }

    /// The group's dead letters: to be looked through, replayed, exported and purged.
    ///
    /// # Errors
    /// Where a name in the settings can't be one.
    ///
    /// ```no_run
    /// use streamhand::admin::Admin;
    /// use streamhand::dead_letters::{Filter, Reason};
    ///
    /// # async fn example(admin: &Admin) -> streamhand::Result<()> {
    /// let timeouts = Filter::new().reason(Reason::Failed).error("timed out")?;
    /// let timeouts = admin.dead_letters()?.select(timeouts).await?;
    /// let run = timeouts.replay("night shift", None, |so_far| println!("{}", so_far.replayed)).await?;
    /// println!("{} are with their handlers again", run.replayed);
    /// # Ok(()) }
    /// ```
    pub fn dead_letters(&self) -> Result<DeadLetters> {
        let streams = self.streams().iter().map(String::as_str);
        DeadLetters::at(|| Ok(self.pool.clone()), self.group(), streams)
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("group", &self.group())
            .field("streams", &self.streams())
            .finish_non_exhaustive()
    }
}

fn check_stream(name: &str) -> Result<()> {
    crate::config::stream_name(name).map_err(|why| wrong_name("stream", name, &why))
}

fn wrong_name(what: &str, name: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("the {what} name {name:?} {why}"),
    )
}

/// A duration in milliseconds.
fn in_ms<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    duration
        .map(|duration| duration.as_millis() as u64)
        .serialize(to)
}

/// A time in milliseconds since 1970.
fn since_1970<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    to.serialize_u64(since.unwrap_or_default().as_millis() as u64)
}

/// An id as Redis writes it.
fn text<S: Serializer>(id: &EntryId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}
