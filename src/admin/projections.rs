//! Projections: how far their views are, going on with one that has stopped, and building a view anew.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Admin;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::eventstore::projection::{self, Registered};
use crate::handler::Registry;
use crate::stream::{self, StreamKeys};

/// How a projection stands with one public stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// The public stream, or the partition of it.
    pub stream: String,
    /// In one word.
    pub state: ProjectionState,
    /// Entries behind its view; None where Redis does not know.
    pub lag: Option<u64>,
    /// The generation of the view that is served; None where there is none yet.
    pub generation: Option<u64>,
    /// The position up to which events are in it, as Redis writes ids.
    pub position: Option<String>,
    /// Events that could not be applied.
    pub bad_events: u64,
    /// Who runs it.
    pub runner: Option<String>,
    /// The position it has stopped at, where it has.
    pub stopped_at: Option<String>,
    /// Why it has stopped.
    pub stopped_why: Option<String>,
    /// Whether it has stopped until it is resumed or built anew, whatever is started.
    pub held: bool,
    /// How many have died one after the other who ran it.
    pub deaths: u64,
    /// The view that is built anew, where one is.
    pub rebuild: Option<RebuildStatus>,
    /// Where the stream ends, where the view stands behind that: it was deleted or made anew.
    #[serde(skip)]
    pub behind_end: Option<EntryId>,
}

/// What a projection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProjectionState {
    /// It has no view yet.
    New,
    /// Somebody runs it.
    Running,
    /// Nobody does.
    Idle,
    /// It has stopped at an event.
    Stopped,
}

/// A view that is built beside the one that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RebuildStatus {
    /// Its generation.
    pub generation: u64,
    /// The position up to which events are in it, as Redis writes ids.
    pub position: String,
}

/// The projections of a registry, by [`Admin::projections`]. Cheap to clone.
#[derive(Clone)]
pub struct Projections {
    admin: Admin,
    all: Arc<[Arc<Registered>]>,
}

/// A projection that goes on, by [`Projections::resume`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectionResumed {
    /// The public stream, or the partition of it.
    pub stream: String,
    /// The position it had stopped at, as Redis writes ids.
    pub at: String,
}

/// How far a view is that is built anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebuildProgress {
    /// Events that are in it.
    pub built: u64,
    /// Events in the view that is served, of the partitions that were begun; 0 where there is none.
    pub of: u64,
}

impl Admin {
    /// The projections of a registry: what can be done with their views.
    ///
    /// # Errors
    /// Where something is wrong with the registry.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin, registry: &streamhand::Registry) -> streamhand::Result<()> {
    /// for one in admin.projections(registry)?.list().await? {
    ///     println!("{} of {}: {:?} behind", one.name, one.stream, one.lag);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn projections(&self, registry: &Registry) -> Result<Projections> {
        registry.check()?;
        Ok(Projections {
            admin: self.clone(),
            all: registry.projections().into(),
        })
    }

    /// Has a projection of a public stream go on that has stopped, whatever program it is of. Returns the position it had
    /// stopped at, as Redis writes ids; None where it had not.
    ///
    /// # Errors
    /// Where no stream can have this name, or Redis can't be reached or refuses it.
    pub async fn resume_projection(&self, stream: &str, name: &str) -> Result<Option<String>> {
        super::check_stream(stream)?;
        let keys = StreamKeys::new(stream).projection(name);
        self.pool.resume_projection(&keys).await
    }

    /// The projections that are groups of these streams, whatever program they are of.
    pub(super) async fn projections_on(&self, streams: &[String]) -> Result<Vec<ProjectionStatus>> {
        let mut found = Vec::new();
        for stream in streams {
            let all = self.pool.projections(&StreamKeys::new(stream), &[]).await?;
            found.extend(all.iter().map(|one| ProjectionStatus::of(stream, one)));
        }
        Ok(found)
    }
}

impl Projections {
    /// Their names, in the order they were registered in.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|projection| projection.name)
    }

    /// How they stand, with each of their public streams.
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses to say.
    pub async fn list(&self) -> Result<Vec<ProjectionStatus>> {
        let mut found = Vec::new();
        for projection in &*self.all {
            let name = projection.name;
            for stream in projection.public()?.names() {
                let keys = StreamKeys::new(stream);
                let all = self.admin.pool.projections(&keys, &[name]).await?;
                let own = all.iter().filter(|status| status.name == name);
                found.extend(own.map(|status| ProjectionStatus::of(stream, status)));
            }
        }
        Ok(found)
    }

    /// Has a projection go on that has stopped, whatever it stopped at. Returns the streams it had stopped with.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where none of this name is registered; where Redis can't be reached or refuses it.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin, registry: &streamhand::Registry) -> streamhand::Result<()> {
    /// for resumed in admin.projections(registry)?.resume("orders-by-status").await? {
    ///     println!("{} goes on at {}", resumed.stream, resumed.at);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn resume(&self, name: &str) -> Result<Vec<ProjectionResumed>> {
        let projection = self.known(name)?;
        let mut resumed = Vec::new();
        for stream in projection.public()?.names() {
            let keys = StreamKeys::new(stream).projection(projection.name);
            if let Some(at) = self.admin.pool.resume_projection(&keys).await? {
                resumed.push(ProjectionResumed {
                    stream: stream.to_owned(),
                    at,
                });
            }
        }
        Ok(resumed)
    }

    /// Builds a projection's view anew from the aggregates, beside the one that is served, and has it served once it is
    /// as far. `stop` ends that before, between two batches: the view that is served stays as it was. `progress` is told
    /// how far it is.
    ///
    /// Where this is dropped it is as if it had been told to stop: what was under way comes to its end on your runtime,
    /// and then another can begin.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where none of this name is registered, or it stops at a bad event; [`ErrorKind::Exists`]
    /// where another builds it already; where it was stopped, or Redis can't be reached or refuses it. What was served
    /// still is, but for partitions that were done.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin, registry: &streamhand::Registry) -> streamhand::Result<()> {
    /// let projections = admin.projections(registry)?;
    /// let stop = std::future::pending();
    /// let built = projections
    ///     .rebuild("orders-by-status", stop, |so_far| println!("{} of {}", so_far.built, so_far.of))
    ///     .await?;
    /// println!("built from {} events", built.built);
    /// # Ok(()) }
    /// ```
    pub async fn rebuild(
        &self,
        name: &str,
        stop: impl Future<Output = ()>,
        mut progress: impl FnMut(RebuildProgress),
    ) -> Result<RebuildProgress> {
        let projection = self.known(name)?.clone();
        let host = gethostname::gethostname();
        let me = format!(
            "rebuild-{}-{}-{:08x}",
            host.to_string_lossy(),
            std::process::id(),
            fastrand::u32(..)
        );
        let (settings, token) = (self.admin.settings.clone(), CancellationToken::new());
        let (tell, mut told) = mpsc::unbounded_channel();
        let stopping = token.clone();
        // A task of its own, so that whoever drops this leaves no lease behind that others would have to wait for.
        let building = tokio::spawn(async move {
            let tell = |so_far| {
                let _ = tell.send(so_far);
            };
            projection::rebuild(projection, &settings, &me, &stopping, tell).await
        });
        let dropped = token.drop_guard();
        let mut stop = std::pin::pin!(stop);
        let mut stopped = false;
        loop {
            tokio::select! {
                biased;
                so_far = told.recv() => match so_far {
                    Some(projection::Progress { built, of, .. }) => progress(RebuildProgress { built, of }),
                    None => break,
                },
                () = &mut stop, if !stopped => {
                    stopped = true;
                    dropped.token().cancel();
                }
            }
        }
        let built = building.await.map_err(|error| {
            let message = format!("building {name} anew ended: {error}");
            Error::new(ErrorKind::Internal, message).with_source(error)
        })?;
        built.map(|projection::Progress { built, of, .. }| RebuildProgress { built, of })
    }

    fn known(&self, name: &str) -> Result<&Arc<Registered>> {
        let known = self.all.iter().find(|projection| projection.name == name);
        known.ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            let known = match names.is_empty() {
                true => "none".to_owned(),
                false => names.join(", "),
            };
            let message =
                format!("no projection {name:?} is registered in this program; there is {known}");
            Error::new(ErrorKind::Invalid, message)
        })
    }
}

impl fmt::Debug for Projections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl ProjectionStatus {
    pub(super) fn of(stream: &str, status: &stream::ProjectionStatus) -> Self {
        let stopped = status.stopped();
        ProjectionStatus {
            name: status.name.clone(),
            stream: stream.to_owned(),
            state: match (status.generation(), stopped, status.runner()) {
                (None, ..) => ProjectionState::New,
                (_, Some(_), _) => ProjectionState::Stopped,
                (_, _, Some(_)) => ProjectionState::Running,
                _ => ProjectionState::Idle,
            },
            lag: status.lag,
            generation: status.generation(),
            position: status.position().map(str::to_owned),
            bad_events: status.bad(),
            runner: status.runner().map(str::to_owned),
            stopped_at: stopped.map(|(at, _)| at.to_owned()),
            stopped_why: stopped.map(|(_, why)| why.to_owned()),
            held: status.is_held(),
            deaths: status.deaths(),
            rebuild: status
                .rebuild()
                .map(|(generation, position)| RebuildStatus {
                    generation,
                    position: position.to_owned(),
                }),
            behind_end: status.is_behind_end(),
        }
    }
}

impl ProjectionState {
    /// The word: `new`, `running`, `idle` or `stopped`.
    pub fn name(self) -> &'static str {
        match self {
            ProjectionState::New => "new",
            ProjectionState::Running => "running",
            ProjectionState::Idle => "idle",
            ProjectionState::Stopped => "stopped",
        }
    }
}

impl Serialize for ProjectionState {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}
