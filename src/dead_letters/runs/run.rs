//! A run as it stands: its state, and what has become of what it replayed.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::super::as_json::as_time;
use super::super::of_group::DeadLetters;
use super::plan::RunPlan;
use super::stored::Stored;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::{RunRecord, RunState, RunTurn, TurnOf};

/// For so long nobody else drives a run after its driver was last heard of.
pub(super) const LEASE: Duration = Duration::from_secs(5);

/// A run of replays.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Run {
    /// Its number among those of its stream, as `r-7`.
    #[serde(rename = "run", serialize_with = "as_name")]
    pub number: u64,
    /// The stream whose letters it replays.
    pub stream: String,
    /// Whether it goes on.
    pub state: RunStanding,
    /// Why it is stopped.
    pub why: String,
    /// Who began it.
    pub by: String,
    /// What was noted of it.
    pub note: String,
    /// How it replays.
    #[serde(flatten)]
    pub plan: RunPlan,
    /// How many letters were meant when it began.
    pub found: u64,
    /// Letters it has replayed.
    pub replayed: u64,
    /// Of these, those that succeeded.
    pub succeeded: u64,
    /// Of these, those that died again.
    pub died: u64,
    /// Of these, those of which it is not known yet.
    pub unsettled: u64,
    /// Letters that were gone when their turn came: somebody else had replayed or purged them.
    pub gone: u64,
    /// Who drives it, while somebody does.
    pub driver: Option<String>,
    /// When it was noted.
    #[serde(serialize_with = "as_time")]
    pub began: SystemTime,
    /// When it begins, if it waits for that.
    #[serde(serialize_with = "as_some_time")]
    pub at: Option<SystemTime>,
    /// When it was over, or stopped by itself.
    #[serde(serialize_with = "as_some_time")]
    pub ended: Option<SystemTime>,
}

/// Whether a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RunStanding {
    /// Its time has not come.
    Waiting,
    /// It goes on.
    Running,
    /// It was stopped, by somebody or by itself, and can be resumed.
    Stopped,
    /// All is replayed and settled.
    Done,
}

impl DeadLetters {
    /// The runs of all streams that are remembered, the first of each stream first, with what has become of what they
    /// replayed by now.
    ///
    /// # Errors
    /// If Redis can't be reached.
    pub async fn runs(&self) -> Result<Vec<Run>> {
        let now = self.now().await?;
        let (mut all, mut others) = (Vec::new(), self.streams.len());
        for place in 0..self.streams.len() {
            let records = self.records(place).await;
            let records = self.or_left_out(place, records, &mut others)?;
            for record in records.unwrap_or_default() {
                if let Ok(stored) = Stored::of(&record) {
                    all.push(self.shown(place, record, stored, now));
                }
            }
        }
        Ok(all)
    }

    /// One run.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of this number; if Redis can't be reached.
    pub async fn run(&self, stream: &str, number: u64) -> Result<Run> {
        let place = self.place(stream)?;
        let (record, stored) = self.record(place, number).await?;
        let now = self.now().await?;
        Ok(self.shown(place, record, stored, now))
    }

    /// Stops a run, whoever drives it: what it has not replayed stays a dead letter. Returns whether it went on until now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of this number; if Redis can't be reached.
    pub async fn stop_run(&self, stream: &str, number: u64, by: &str) -> Result<bool> {
        let place = self.place(stream)?;
        let why = format!("stopped by {by}");
        match self.turn(place, number, RunTurn::Stop, &why, "").await? {
            TurnOf::Ok => Ok(true),
            TurnOf::Missing => Err(self.no_run(place, number)),
            _ => Ok(false),
        }
    }

    pub(super) async fn turn(
        &self,
        place: usize,
        number: u64,
        turn: RunTurn,
        said: &str,
        driver: &str,
    ) -> Result<TurnOf> {
        let keys = &self.streams[place];
        let lease = LEASE.as_millis() as u64;
        self.pool
            .turn_run(keys, number, turn, said, driver, lease)
            .await
    }

    /// The runs of one stream.
    pub(super) async fn records(&self, place: usize) -> Result<Vec<RunRecord>> {
        let keys = &self.streams[place];
        match self.pool.look_at_runs(keys).await {
            // Who may not write sees what others have counted.
            Err(error) if error.kind() != ErrorKind::Redis => return Err(error),
            _ => {}
        }
        self.pool.runs(keys).await
    }

    pub(super) async fn record(&self, place: usize, number: u64) -> Result<(RunRecord, Stored)> {
        let records = self.records(place).await?.into_iter();
        let mut records = records.filter(|record| record.number == number);
        let record = records.next().ok_or_else(|| self.no_run(place, number))?;
        let stored = Stored::of(&record)?;
        Ok((record, stored))
    }

    pub(super) fn no_run(&self, place: usize, number: u64) -> Error {
        let message = format!(
            "there is no run r-{number} of {:?} in the group {:?}: see dlq runs",
            self.streams[place].stream,
            self.group()
        );
        Error::new(ErrorKind::NotFound, message)
    }

    pub(super) fn shown(
        &self,
        place: usize,
        record: RunRecord,
        stored: Stored,
        now: SystemTime,
    ) -> Run {
        let time = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let settled = record.died + record.succeeded;
        Run {
            number: record.number,
            stream: self.streams[place].stream.clone(),
            state: match record.state {
                RunState::Waiting => RunStanding::Waiting,
                RunState::Running => RunStanding::Running,
                RunState::Stopped => RunStanding::Stopped,
                RunState::Done => RunStanding::Done,
            },
            driver: record.driver.filter(|_| time(record.until_ms) > now),
            why: record.why,
            by: stored.by,
            note: stored.note,
            plan: stored.plan,
            found: stored.found,
            replayed: record.replayed,
            succeeded: record.succeeded,
            died: record.died,
            unsettled: record.replayed.saturating_sub(settled),
            gone: record.gone,
            began: time(record.began_ms),
            at: record.at_ms.map(time),
            ended: record.ended_ms.map(time),
        }
    }
}

impl RunStanding {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            RunStanding::Waiting => "waiting",
            RunStanding::Running => "running",
            RunStanding::Stopped => "stopped",
            RunStanding::Done => "done",
        }
    }
}

fn as_name<S: serde::Serializer>(number: &u64, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("r-{number}"))
}

fn as_some_time<S: serde::Serializer>(
    at: &Option<SystemTime>,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    match at {
        Some(at) => as_time(at, to),
        None => to.serialize_none(),
    }
}
