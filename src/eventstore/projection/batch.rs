//! From entries to a batch: what each does to the view, up to one that can't be applied now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Registered;
use crate::config::{OnBadEvent, RetrySettings};
use crate::delay;
use crate::event::{Entry, EntryId};
use crate::failure::{Cause, Failure, FailureVerdict};
use crate::stream::{Told, What};

/// Most effects of a batch, and bytes of what is sent: Redis does nothing else meanwhile.
const EFFECTS: usize = 1000;
const BYTES: usize = 1 << 20;

/// How long a batch is made: what is not in it by then is in the next. Others can take over within a lease, and are to
/// find what was done.
const SLICE: Duration = Duration::from_millis(200);

/// Bytes of an error that are kept.
const ERROR: usize = 2000;

/// What is known of the event that is next, having failed.
#[derive(Clone, Default)]
pub(super) struct Head {
    id: EntryId,
    failed: u32,
    met: Option<Instant>,
    /// It is not tried again before.
    pub wait: Option<Instant>,
}

/// What a batch is made by.
pub(super) struct Rules {
    pub projection: Arc<Registered>,
    pub retry: RetrySettings,
    pub on_bad: OnBadEvent,
    /// A batch is made for a quarter of it at most.
    pub lease: Duration,
}

/// Events that can be applied, and why there are no more of them.
#[derive(Default)]
pub(super) struct Made {
    pub told: Vec<Told>,
    /// Entries they are made of, those that are passed over among them.
    pub entries: usize,
    pub end: End,
}

/// Why a batch ends.
#[derive(Debug, Default)]
pub(super) enum End {
    #[default]
    Whole,
    /// The next event is tried again later, for this reason; it was tried so often.
    Retried(String, u32),
    /// The next event is bad, and nothing behind it is to be applied.
    Bad {
        id: EntryId,
        why: String,
        attempts: u32,
        /// Who applies it dies.
        kills: bool,
    },
}

/// An event that can't be applied, ever.
pub(super) struct Bad {
    pub reason: &'static str,
    pub error: String,
    pub attempts: u32,
}

impl Rules {
    /// Makes a batch of entries, or of as many as there is time for. `is_again`: they are replayed ones. `killed`: how
    /// many have died of the last one, which is not to be applied.
    pub fn make(
        &self,
        entries: &[Entry],
        head: &mut Head,
        is_again: bool,
        killed: Option<u32>,
    ) -> Made {
        let mut made = Made::default();
        let (mut effects, mut bytes) = (0, 0);
        let until = Instant::now() + SLICE.min(self.lease / 4);
        for (place, entry) in entries.iter().enumerate() {
            if effects > EFFECTS || bytes > BYTES || place > 0 && Instant::now() >= until {
                break;
            }
            if let Some(attempts) = killed.filter(|_| place + 1 == entries.len()) {
                let error = format!(
                    "the process that applied it died, {attempts} times in a row, of late with nothing beside it"
                );
                if self.on_bad == OnBadEvent::Stop && !is_again {
                    made.end = End::Bad {
                        id: entry.id,
                        why: error,
                        attempts,
                        kills: true,
                    };
                    break;
                }
                let bad = Bad {
                    reason: "crashed",
                    error,
                    attempts,
                };
                made.told.push(bury(entry, made.entries + 1, bad, head));
                made.entries += 1;
                break;
            }
            // A replayed event stands where it stood.
            let position = is_again.then(|| original(entry)).flatten();
            match self.projection.project(entry, position.unwrap_or(entry.id)) {
                Ok(None) if !is_again => {}
                Ok(asked) => {
                    let asked = asked.unwrap_or_default();
                    effects += asked.len();
                    bytes += asked.iter().map(|effect| effect.size()).sum::<usize>();
                    made.told.push(Told {
                        id: entry.id,
                        upto: made.entries + 1,
                        what: What::Effects(asked),
                    });
                }
                Err(failure) => match self.judge(failure, entry.id, head) {
                    Ok(why) => {
                        made.end = End::Retried(why, head.failed.max(1));
                        break;
                    }
                    Err(bad) if self.on_bad == OnBadEvent::Stop && !is_again => {
                        made.end = End::Bad {
                            id: entry.id,
                            why: bad.error,
                            attempts: bad.attempts,
                            kills: false,
                        };
                        break;
                    }
                    Err(bad) => {
                        bytes += entry.size();
                        made.told.push(bury(entry, made.entries + 1, bad, head));
                    }
                },
            }
            made.entries += 1;
        }
        made
    }

    /// Whether an event that failed is to be tried again, and when; or else it is bad.
    fn judge(&self, failure: Failure, id: EntryId, head: &mut Head) -> Result<String, Bad> {
        if head.id != id {
            *head = Head::default();
        }
        head.id = id;
        head.met.get_or_insert_with(Instant::now);
        let mut error = cut(failure.to_string());
        if failure.is_cut {
            error += " (it asked for a longer delay than there is)";
        }
        // Counted where it is to be tried again only: what is sent to be buried may have to be sent once more.
        let attempts = head.failed + 1;
        let bad = |reason| {
            Err(Bad {
                reason,
                error: error.clone(),
                attempts,
            })
        };
        let delay = match failure.verdict {
            FailureVerdict::Undecodable => return bad("undecodable"),
            FailureVerdict::Permanent => return bad("permanent"),
            // It would panic again: nothing but the event has a say in what it does.
            _ if failure.cause == Cause::Panicked => return bad("failed"),
            FailureVerdict::Later(delay) => {
                head.wait = Some(delay::after(Instant::now(), delay));
                return Ok(error);
            }
            _ if attempts >= self.retry.max_attempts => return bad("failed"),
            FailureVerdict::RetryAfter(delay) => delay,
            FailureVerdict::Retry => self.retry.backoff.delay(attempts, fastrand::f64()),
        };
        head.failed = attempts;
        head.wait = Some(delay::after(Instant::now(), delay));
        Ok(error)
    }
}

/// An entry on its way to the dead letters.
pub(super) fn bury(entry: &Entry, upto: usize, bad: Bad, head: &Head) -> Told {
    let met = head.met.filter(|_| head.id == entry.id);
    let replays = entry
        .fields
        .value("replay.count")
        .and_then(|count| std::str::from_utf8(count).ok());
    Told {
        id: entry.id,
        upto,
        what: What::Bury {
            fields: entry.fields.clone(),
            reason: bad.reason,
            error: cut(bad.error),
            attempts: bad.attempts,
            replays: replays.unwrap_or("0").to_owned(),
            age: met.map_or(Duration::ZERO, |met| met.elapsed()),
        },
    }
}

/// Where a replayed event stood.
fn original(entry: &Entry) -> Option<EntryId> {
    EntryId::parse(entry.fields.value("replay.entry")?)
}

fn cut(mut error: String) -> String {
    if error.len() > ERROR {
        let at = (0..=ERROR).rev().find(|at| error.is_char_boundary(*at));
        error.truncate(at.unwrap_or(0));
    }
    error
}
