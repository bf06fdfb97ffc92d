//! Changing an aggregate: load, decide, save, and once more if somebody else was faster.

use std::fmt;
use std::time::Duration;

use super::EventStore;
use super::aggregate::{Aggregate, AggregateEvent};
use super::append::AppendError;
use super::catch_panic::catch_panic;
use super::loaded::Loaded;
use super::repository::Repository;
use crate::conflict::Conflict;
use crate::error::{Error, ErrorKind};
use crate::event::with_id;
use crate::retry::Backoff;

/// How long an update waits after an answer got lost: until Redis is back, or there is another one.
const IN_DOUBT: Backoff = Backoff {
    initial: Duration::from_millis(4),
    factor: 1.6,
    max: Duration::from_millis(500),
    jitter: 1.0,
};

/// Why an update was not done.
#[derive(Debug)]
#[non_exhaustive]
pub enum UpdateError<E> {
    /// What was to decide refused.
    Refused(E),
    /// The aggregate can't be loaded, or the events can't be stored. A conflict where all tries met one.
    Failed(AppendError),
}

impl<A: Aggregate, S: EventStore> Repository<A, S> {
    /// Changes an aggregate: loads it, has `decide` say what happens, and saves that. On a conflict it decides again, on
    /// the state as it is by then, for which only what has come since is read; where the answer to a save got lost the
    /// save alone is repeated. After a bounded number of tries it gives up with the last error. Returns the aggregate
    /// after its new events.
    ///
    /// # Errors
    /// If `decide` refuses, and as [`load`](Self::load) and [`save`](Self::save).
    pub async fn update<E>(
        &self,
        id: &str,
        mut decide: impl FnMut(&A) -> Result<Vec<A::Event>, E>,
    ) -> Result<Loaded<A>, UpdateError<E>> {
        let mut failed = 0;
        let mut loaded = self.load(id).await?;
        'anew: loop {
            // They happen to the state when they are stored: until then it is what others' events are applied to.
            let events = decide(loaded.state()).map_err(UpdateError::Refused)?;
            let encoded = events.iter().map(|event| event.encode(self.format));
            let encoded: Vec<_> = encoded
                .map(|event| event.map(with_id))
                .collect::<Result<_, _>>()?;
            let Some(last) = encoded.last() else {
                return Ok(loaded);
            };
            loop {
                let error = match self.append_to(&loaded, &encoded).await {
                    Ok(appended) => {
                        let id = loaded.id().clone();
                        for (version, event) in appended.versions().zip(events) {
                            let why = catch_panic("applied,", || loaded.apply(version, event));
                            why.map_err(|why| {
                                let message = format!("event {version} of {id} is stored: {why}");
                                Error::new(ErrorKind::Codec, message)
                            })?;
                        }
                        loaded.is_at(last);
                        self.take_snapshot(&mut loaded).await;
                        return Ok(loaded);
                    }
                    Err(error) => error,
                };
                failed += 1;
                let is_conflict = error.conflict().is_some();
                if failed >= self.tries || !(is_conflict || is_in_doubt(&error)) {
                    return Err(UpdateError::Failed(error));
                }
                let backoff = if is_conflict {
                    &self.backoff
                } else {
                    &IN_DOUBT
                };
                tokio::time::sleep(backoff.delay(failed, fastrand::f64())).await;
                if is_conflict {
                    if !self.catch_up(&mut loaded).await? {
                        loaded = self.load(id).await?;
                    }
                    continue 'anew;
                }
            }
        }
    }
}

/// Whether the events may be stored all the same, or are, and replicas may have them by now.
fn is_in_doubt(error: &AppendError) -> bool {
    match error {
        AppendError::Failed(error) => error.kind() == ErrorKind::Unreachable,
        AppendError::NotReplicated { .. } => true,
        _ => false,
    }
}

impl<E> UpdateError<E> {
    /// The conflict that every try met, where it is one.
    pub fn conflict(&self) -> Option<&Conflict> {
        match self {
            UpdateError::Failed(error) => error.conflict(),
            UpdateError::Refused(_) => None,
        }
    }
}

impl<E> From<Error> for UpdateError<E> {
    fn from(error: Error) -> Self {
        UpdateError::Failed(error.into())
    }
}

impl<E: fmt::Display> fmt::Display for UpdateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpdateError::Refused(error) => error.fmt(f),
            UpdateError::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for UpdateError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            UpdateError::Refused(_) => None,
            UpdateError::Failed(error) => error.source(),
        }
    }
}
