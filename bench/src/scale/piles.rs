//! What lies around in a group while its workers work: parked entries, and what a dead worker took along.

use std::time::Duration;

use crate::crew::Crew;
use crate::events::fill;
use crate::job::Job;
use crate::job::Way;
use crate::rig::Rig;
use streamhand::cli::CommandError;
use streamhand::unstable::PROTOCOL;

const PATIENCE: Duration = Duration::from_secs(300);

/// A pile of entries, and the stream it lies on once it was made.
#[derive(Clone)]
pub(super) enum Pile {
    None,
    /// They have failed and wait for a time that does not come.
    Parked(u64, Option<String>),
    /// A worker died with them whose lease has not run out.
    Dead(u64, Option<String>),
    /// A worker died with them whose lease has: they are handled as well, and made anew for every run.
    DeadAndOver(u64),
}

impl Pile {
    pub fn parked(size: u64) -> Self {
        Pile::Parked(size, None)
    }

    pub fn dead(size: u64) -> Self {
        Pile::Dead(size, None)
    }

    pub fn dead_and_over(size: u64) -> Self {
        Pile::DeadAndOver(size)
    }

    pub fn name(&self) -> String {
        match self {
            Pile::None => "0".to_owned(),
            Pile::Parked(size, _) => size.to_string(),
            Pile::Dead(size, _) => format!("{size}, lease running"),
            Pile::DeadAndOver(size) => format!("{size}, lease over"),
        }
    }

    pub fn size(&self) -> u64 {
        match self {
            Pile::None => 0,
            Pile::Parked(size, _) | Pile::Dead(size, _) | Pile::DeadAndOver(size) => *size,
        }
    }

    /// How many of them stay pending in a run, and how many are handled in it.
    pub fn counts(&self) -> (u64, u64) {
        match self {
            Pile::DeadAndOver(size) => (0, *size),
            others => (others.size(), 0),
        }
    }

    /// Whether it outlives a run.
    pub fn stays(&self) -> bool {
        matches!(self, Pile::Parked(..) | Pile::Dead(..))
    }

    /// The stream it lies on; makes it where it is not there.
    pub async fn stream(&mut self, rig: &mut Rig) -> Result<Option<String>, CommandError> {
        match self {
            Pile::None => Ok(None),
            Pile::Parked(_, Some(stream)) | Pile::Dead(_, Some(stream)) => Ok(Some(stream.clone())),
            Pile::Parked(size, at) => {
                let stream = rig.stream();
                park(rig, &stream, *size).await?;
                Ok(at.insert(stream).clone().into())
            }
            Pile::Dead(size, at) => {
                let stream = rig.stream();
                die_with(rig, &stream, *size, Duration::from_secs(24 * 60 * 60)).await?;
                Ok(at.insert(stream).clone().into())
            }
            Pile::DeadAndOver(size) => {
                let stream = rig.stream();
                die_with(rig, &stream, *size, Duration::from_millis(500)).await?;
                Ok(Some(stream))
            }
        }
    }

    pub async fn remove(&mut self, rig: &mut Rig) -> Result<(), CommandError> {
        match self {
            Pile::Parked(_, at) | Pile::Dead(_, at) => {
                let streams: Vec<String> = at.take().into_iter().collect();
                rig.drop_streams(&streams).await
            }
            _ => Ok(()),
        }
    }
}

/// Lets a worker fail with so many.
async fn park(rig: &mut Rig, stream: &str, size: u64) -> Result<(), CommandError> {
    let streams = [stream.to_owned()];
    fill(rig, &streams, size, None).await?;
    let mut job = Job::new(Way::Streamhand, &streams);
    job.fails = true;
    let mut crew = Crew::start(rig, &job, 1).await?;
    crew.go().await?;
    crew.until(size, PATIENCE).await?;
    // It settles what has failed before it ends.
    let did = crew.stop().await?;
    let mut ask = redis::cmd("XPENDING");
    ask.arg(stream).arg(rig.group());
    let (parked, _, _, _): (u64, redis::Value, redis::Value, redis::Value) =
        rig.meter.ask(&ask).await?;
    if (did.handled, parked) != (size, size) {
        return Err(CommandError::failed(format!(
            "the bench: {parked} of {size} entries were parked"
        )));
    }
    Ok(())
}

/// Reads so many in the name of a worker with this lease that is heard of no more.
async fn die_with(
    rig: &mut Rig,
    stream: &str,
    size: u64,
    lease: Duration,
) -> Result<(), CommandError> {
    let streams = [stream.to_owned()];
    fill(rig, &streams, size, None).await?;
    rig.make_groups(&streams).await?;
    let consumer = format!("sh{PROTOCOL}-{}-gone-1-0000000000000000", lease.as_millis());
    let mut left = size;
    while left > 0 {
        let some = left.min(1_000);
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(rig.group()).arg(&consumer);
        read.arg("COUNT")
            .arg(some)
            .arg("STREAMS")
            .arg(stream)
            .arg(">");
        let _: redis::Value = rig.meter.ask(&read).await?;
        left -= some;
    }
    Ok(())
}
