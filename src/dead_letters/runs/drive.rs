//! Driving a run: its letters are replayed as its plan says, until it is over or somebody stops it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::letters::{Letters, What};
use super::super::of_group::DeadLetters;
use super::plan::{Counts, Judge, Next};
use super::run::{LEASE, Run, RunStanding};
use super::stored::Stored;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::{RunRecord, RunTurn, Ticket, TurnOf};

/// How often it is looked at what has become of the copies.
const LOOK: Duration = Duration::from_millis(200);
/// Most letters replayed in one step: between two steps other clients have their turn.
const STEP: u64 = 100;

/// A run that is driven here.
struct Driving<'a> {
    dead: &'a DeadLetters,
    place: usize,
    number: u64,
    /// Noted in each copy.
    by: String,
    driver: String,
    stored: Stored,
    letters: Letters,
    /// Letters that were read and not replayed.
    tickets: Vec<Ticket>,
    judge: Judge,
    /// When it began to replay here, and how many letters it has replayed since: what its rate counts from.
    paced: (Instant, u64),
}

impl DeadLetters {
    /// Replays the letters of a run until it is over, and all that it replayed is settled; until it stops by itself, or
    /// somebody stops it; or until this is dropped, which leaves it to others. `progress` is told how far it is.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if another drives it; [`ErrorKind::NotFound`] if there is none of this number; if Redis can't be
    /// reached. What had been replayed by then is replayed, and the run can be driven on.
    pub async fn drive_run(
        &self,
        stream: &str,
        number: u64,
        by: &str,
        progress: impl FnMut(&Run),
    ) -> Result<Run> {
        self.take_the_seat(stream, number, by, RunTurn::Drive, progress)
            .await
    }

    /// As [`drive_run`](Self::drive_run), also of a run that is stopped, or waits for its time. Its canary comes first
    /// again, and what died before says nothing any more.
    ///
    /// # Errors
    /// As [`drive_run`](Self::drive_run); [`ErrorKind::Invalid`] if it is over.
    pub async fn resume_run(
        &self,
        stream: &str,
        number: u64,
        by: &str,
        progress: impl FnMut(&Run),
    ) -> Result<Run> {
        self.take_the_seat(stream, number, by, RunTurn::Resume, progress)
            .await
    }

    /// As [`drive_run`](Self::drive_run), for a worker and in the name of who began it. None where another drives it.
    pub(crate) async fn drive_undriven(
        &self,
        stream: &str,
        number: u64,
        driver: &str,
    ) -> Result<Option<Run>> {
        let place = self.place(stream)?;
        let turn = self.turn(place, number, RunTurn::Drive, "", driver).await?;
        if turn != TurnOf::Ok {
            return Ok(None);
        }
        let by = self.record(place, number).await?.1.by;
        self.drive(place, number, &by, driver.to_owned(), |_| ())
            .await
            .map(Some)
    }

    async fn take_the_seat(
        &self,
        stream: &str,
        number: u64,
        by: &str,
        turn: RunTurn,
        progress: impl FnMut(&Run),
    ) -> Result<Run> {
        let place = self.place(stream)?;
        let driver = format!("{by} ({:06x})", fastrand::u32(..1 << 24));
        let since = Instant::now();
        loop {
            match self.turn(place, number, turn, by, &driver).await? {
                TurnOf::Ok => break,
                TurnOf::Missing => return Err(self.no_run(place, number)),
                TurnOf::Done if turn == RunTurn::Resume => {
                    let message = format!("the run r-{number} is over: begin another one");
                    return Err(Error::new(ErrorKind::Invalid, message));
                }
                TurnOf::Done | TurnOf::Stopped(_) => return self.run(stream, number).await,
                TurnOf::Waiting(ms) => {
                    tokio::time::sleep(Duration::from_millis(ms.clamp(10, 1000))).await;
                }
                // Who was killed at it is not heard of any more.
                TurnOf::Taken(_) if since.elapsed() < LEASE + Duration::from_secs(1) => {
                    tokio::time::sleep(LOOK).await;
                }
                TurnOf::Taken(other) => {
                    let message = format!(
                        "the run r-{number} is driven by {other}: it goes on there; dlq stop r-{number} stops it"
                    );
                    return Err(Error::new(ErrorKind::Exists, message));
                }
            }
        }
        self.drive(place, number, by, driver, progress).await
    }

    /// Drives it once the seat is taken.
    async fn drive(
        &self,
        place: usize,
        number: u64,
        by: &str,
        driver: String,
        progress: impl FnMut(&Run),
    ) -> Result<Run> {
        let (record, stored) = self.record(place, number).await?;
        let what = stored.meant.what(self, place)?;
        let mut driving = Driving {
            dead: self,
            place,
            number,
            by: format!("{by} (r-{number})"),
            letters: behind(self, what, &record),
            driver,
            stored,
            tickets: Vec::new(),
            judge: Judge::default(),
            paced: (Instant::now(), 0),
        };
        let done = driving.on(record, progress).await;
        if done.is_err() {
            let leave = RunTurn::Leave;
            let _ = self.turn(place, number, leave, "", &driving.driver).await;
        }
        done
    }
}

/// What is left of its letters.
fn behind(dead: &DeadLetters, what: Arc<What>, record: &RunRecord) -> Letters {
    let cursor = record.cursor.parse().ok();
    Letters::behind(dead.clone(), what, cursor, record.replayed + record.gone)
}

impl Driving<'_> {
    async fn on(&mut self, mut record: RunRecord, mut progress: impl FnMut(&Run)) -> Result<Run> {
        let mut looked = Instant::now();
        let mut exhausted = false;
        loop {
            if looked.elapsed() >= LOOK {
                match self.turn(RunTurn::Drive, "").await? {
                    TurnOf::Ok => {}
                    _ => return self.left().await,
                }
                record = self.dead.record(self.place, self.number).await?.0;
                looked = Instant::now();
            }
            let now = std::time::SystemTime::UNIX_EPOCH;
            progress(
                &self
                    .dead
                    .shown(self.place, record.clone(), self.stored.clone(), now),
            );
            match self.judge.next(&self.stored.plan, counts(&record)) {
                Next::Stop(why) => {
                    self.turn(RunTurn::Trip, &why).await?;
                    return self.left().await;
                }
                Next::Replay { most, unsettled } if !exhausted => {
                    if self.tickets.is_empty() {
                        let most = most.min(self.step()) as usize;
                        match self.letters.lot(most).await? {
                            Some((_, tickets)) => self.tickets = tickets,
                            None => exhausted = true,
                        }
                    }
                    if !exhausted && self.replay(most, unsettled, &mut record).await? {
                        continue;
                    }
                }
                Next::Wait | Next::Replay { .. } => {}
            }
            if exhausted && record.replayed == record.died + record.succeeded {
                self.turn(RunTurn::Finish, "").await?;
                return self.left().await;
            }
            tokio::time::sleep_until(looked + LOOK).await;
        }
    }

    /// Replays what was read. Returns whether it is to go on at once.
    async fn replay(&mut self, most: u64, unsettled: u64, record: &mut RunRecord) -> Result<bool> {
        let (began, replayed) = self.paced;
        if let Some(rate) = self.stored.plan.rate.filter(|_| most == u64::MAX) {
            let due = began + Duration::from_secs_f64(replayed as f64 / f64::from(rate.get()));
            if due > Instant::now() + LOOK {
                return Ok(false);
            }
            tokio::time::sleep_until(due).await;
        }
        let lot = &self.tickets[..self
            .tickets
            .len()
            .min(usize::try_from(most).unwrap_or(usize::MAX))];
        let Some(last) = lot.last() else {
            return Ok(true);
        };
        let lease = LEASE.as_millis() as u64;
        let keys = &self.dead.streams[self.place];
        let next = last.id.to_string();
        let stepped = self
            .dead
            .pool
            .step_run(
                keys,
                self.number,
                &self.by,
                &self.driver,
                lease,
                unsettled,
                &next,
                lot,
            )
            .await?;
        let replayed = stepped.copies.iter().flatten().count() as u64;
        record.replayed += replayed;
        record.gone += stepped.copies.len() as u64 - replayed;
        self.tickets.drain(..stepped.copies.len());
        if most == u64::MAX {
            self.paced.1 += replayed;
        } else {
            // The rate counts from behind the canary.
            self.paced = (Instant::now(), 0);
        }
        Ok(stepped.goes_on && !stepped.copies.is_empty())
    }

    /// Letters of one step.
    fn step(&self) -> u64 {
        let rate = self.stored.plan.rate;
        rate.map_or(STEP, |rate| u64::from(rate.get() / 10).clamp(1, STEP))
    }

    async fn turn(&mut self, turn: RunTurn, said: &str) -> Result<TurnOf> {
        self.dead
            .turn(self.place, self.number, turn, said, &self.driver)
            .await
    }

    /// How it is where it is not driven here any more.
    async fn left(&mut self) -> Result<Run> {
        let stream = &self.dead.streams[self.place].stream;
        let run = self.dead.run(stream, self.number).await?;
        match (run.state, &run.driver) {
            (RunStanding::Running, Some(other)) if *other != self.driver => {
                let message = format!(
                    "the run r-{} is driven by {other} by now: Redis had not heard of this driver for {} s",
                    self.number,
                    LEASE.as_secs()
                );
                Err(Error::new(ErrorKind::Exists, message))
            }
            _ => Ok(run),
        }
    }
}

/// Since it began, or was last resumed.
fn counts(record: &RunRecord) -> Counts {
    let [replayed, died, succeeded] = record.base;
    Counts {
        replayed: record.replayed.saturating_sub(replayed),
        died: record.died.saturating_sub(died),
        succeeded: record.succeeded.saturating_sub(succeeded),
    }
}
