//! What the server refuses, one by one. A refusal holds up the one thing that was refused, and nothing else: it is said,
//! with what was in the way, and tried again after a wait that grows. What is no refusal is its caller's to deal with.

use std::time::{Duration, Instant};

use crate::reconnect::{Complaint, Pause};
use crate::stream::Trouble;

/// How long entries wait that can do nothing without what was refused, at first and at most.
const ENTRIES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What can be refused of a stream, and wait by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    Join,
    Renew,
    Adopt,
    Reclaim,
    Wake,
    Crew,
    /// Copies of events are looked for.
    Claim,
    Commit,
    /// Looking thoroughly, in turn with others.
    Turn,
    Mend,
    Sweep,
    Unlist,
    /// Entries that wait for a worker that knows them.
    TakeWaiting,
    LookAhead,
    /// What is to be cancelled is asked for.
    Cancel,
    Forget,
}

/// What is being refused.
#[derive(Default)]
pub(crate) struct Refusals(Vec<Refused>);

struct Refused {
    chore: Chore,
    stream: String,
    pause: Pause,
    until: Instant,
    complaint: Complaint,
}

impl Refusals {
    /// How long it still waits, where it was refused.
    pub fn wait(&self, chore: Chore, stream: &str) -> Option<Duration> {
        let refused = self.0.iter().find(|refused| refused.is(chore, stream))?;
        let left = refused.until.saturating_duration_since(Instant::now());
        Some(left).filter(|left| !left.is_zero())
    }

    /// What was asked for, or nothing where it is refused. Fails where that concerns more than this.
    pub fn heard<T>(
        &mut self,
        chore: Chore,
        stream: &str,
        answer: Result<T, Trouble>,
    ) -> Result<Option<T>, Trouble> {
        match answer {
            Ok(answer) => {
                self.0.retain(|refused| !refused.is(chore, stream));
                Ok(Some(answer))
            }
            Err(trouble) if trouble.is_a_refusal() => {
                self.refused(chore, stream, &trouble);
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    fn refused(&mut self, chore: Chore, stream: &str, trouble: &Trouble) {
        let at = self.0.iter().position(|refused| refused.is(chore, stream));
        let at = at.unwrap_or_else(|| {
            self.0.push(Refused::new(chore, stream));
            self.0.len() - 1
        });
        let refused = &mut self.0[at];
        refused.until = Instant::now() + refused.pause.next();
        refused.complaint.warn(trouble.error().to_string());
    }
}

impl Refused {
    fn new(chore: Chore, stream: &str) -> Self {
        Refused {
            chore,
            stream: stream.to_owned(),
            pause: match chore {
                Chore::Claim | Chore::Commit => Pause::between(ENTRIES.0, ENTRIES.1),
                _ => Pause::new(),
            },
            until: Instant::now(),
            complaint: Complaint::default(),
        }
    }

    fn is(&self, chore: Chore, stream: &str) -> bool {
        self.chore == chore && self.stream == stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn what_is_refused_waits_and_nothing_else_does() {
        let mut refusals = Refusals::default();
        let no = || Err::<(), _>(Trouble::Refused(Error::new(ErrorKind::Redis, "no")));
        assert_eq!(refusals.heard(Chore::Wake, "a", no()).unwrap(), None);
        assert!(refusals.wait(Chore::Wake, "a").is_some());
        assert_eq!(refusals.wait(Chore::Wake, "b"), None);
        assert_eq!(refusals.wait(Chore::Adopt, "a"), None);
        assert_eq!(refusals.heard(Chore::Wake, "a", Ok(1)).unwrap(), Some(1));
        assert_eq!(refusals.wait(Chore::Wake, "a"), None);
        let gone = Trouble::NoGroup(Error::new(ErrorKind::NotFound, "gone"));
        assert!(
            refusals
                .heard(Chore::Wake, "a", Err::<(), _>(gone))
                .is_err()
        );
        let foreign = Trouble::Refused(Error::new(ErrorKind::Protocol, "newer"));
        assert!(
            refusals
                .heard(Chore::Wake, "a", Err::<(), _>(foreign))
                .is_err()
        );
    }
}
