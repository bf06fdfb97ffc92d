//! Beginning a run: what it is to do is noted, and who else means the same letters is told.

use std::time::SystemTime;

use super::super::of_group::DeadLetters;
use super::super::selection::Selection;
use super::plan::RunPlan;
use super::run::Run;
use super::stored::{Meant, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::stream::RunState;

/// A run that was noted, by [`DeadLetters::begin_run`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BegunRun {
    /// The run.
    pub run: Run,
    /// Other runs that are not over and mean some of the same letters, each with how many. Whichever comes first replays a
    /// letter.
    pub shared: Vec<(Run, u64)>,
}

impl DeadLetters {
    /// Notes a run over the letters of a selection, which has to be of one stream. It replays nothing before somebody drives
    /// it: the same program, by [`drive_run`](Self::drive_run), or a worker of the group within a minute or so. `at` is when
    /// it begins, if not at once; `found` is how many letters are meant, as [`Selection::count`] tells.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the letters are of several streams, or the plan can't be one; if Redis can't be reached.
    ///
    /// ```no_run
    /// use std::num::NonZeroU32;
    /// use streamhand::dead_letters::{DeadLetters, Filter, Reason, RunPlan};
    ///
    /// # async fn example(dead: &DeadLetters) -> streamhand::Result<()> {
    /// let meant = dead.select(Filter::new().stream("orders").reason(Reason::Failed)).await?;
    /// let found = meant.count(|_| ()).await?.found;
    /// let plan = RunPlan::new().canary(10).rate(NonZeroU32::new(50)).stop_at(5.0);
    /// let begun = dead.begin_run(&meant, "alice", "after the fix", plan, None, found).await?;
    /// let run = dead.drive_run("orders", begun.run.number, "alice", |so_far| println!("{}", so_far.replayed)).await?;
    /// println!("{} succeeded, {} died again: {}", run.succeeded, run.died, run.why);
    /// # Ok(()) }
    /// ```
    pub async fn begin_run(
        &self,
        meant: &Selection,
        by: &str,
        note: &str,
        plan: RunPlan,
        at: Option<SystemTime>,
        found: u64,
    ) -> Result<BegunRun> {
        plan.check()?;
        let (place, which) = Meant::of(&meant.what)?;
        let keys = &self.streams[place];
        let shared = self.shared(place, meant).await?;
        let stored = Stored {
            by: by.to_owned(),
            note: note.to_owned(),
            plan,
            found,
            meant: which,
        };
        let json = serde_json::to_string(&stored).map_err(|error| {
            Error::new(ErrorKind::Internal, error.to_string()).with_source(error)
        })?;
        let at = at.map(|at| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap_or_default().as_millis() as u64
        });
        let number = self.pool.begin_run(keys, &json, at).await?;
        let run = self.run(&keys.stream, number).await?;
        Ok(BegunRun { run, shared })
    }

    /// Which letters of a selection other runs mean that are not over, and how many.
    async fn shared(&self, place: usize, meant: &Selection) -> Result<Vec<(Run, u64)>> {
        let now = self.now().await?;
        let mut others = Vec::new();
        for record in self.records(place).await? {
            if record.state != RunState::Done
                && let Ok(stored) = Stored::of(&record)
            {
                others.push((record, stored, 0));
            }
        }
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let mut letters = meant.letters();
        while let Some(letter) = letters.next().await? {
            for (record, stored, count) in &mut others {
                *count += u64::from(stored.meant.means(&letter, record.cursor.parse().ok()));
            }
        }
        let others = others.into_iter().filter(|(.., count)| *count > 0);
        Ok(others
            .map(|(record, stored, count)| (self.shown(place, record, stored, now), count))
            .collect())
    }
}
