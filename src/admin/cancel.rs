//! Cancelling an event wherever it stands: on a schedule, unread, parked, or with a worker.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::search::{Budget, Hit, Place, Search};
use super::{Admin, ScheduledId, StreamTrouble};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::names::shown;
use crate::rfc3339;
use crate::stream::{CancelAsked, CancelNote, Keys};

/// What is to be cancelled, with [`Admin::cancel`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct CancelRequest {
    id: String,
    by: String,
    event_type: Option<String>,
    streams: Vec<String>,
    entries: u64,
}

/// What became of a cancellation, by [`Admin::cancel`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Cancellation {
    /// Each event or entry of that id that there is.
    pub found: Vec<CancelledOne>,
    /// Streams at which it can't be looked.
    pub in_trouble: Vec<StreamTrouble>,
    /// Whether there may be more where it was not looked.
    pub is_cut: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CancelledOne {
    /// The stream it is of, or for.
    pub stream: String,
    /// The entry's id; the event's, where it has not come to its stream.
    pub id: String,
    /// Whether it is a copy that was replayed.
    pub is_replayed: bool,
    /// What was done.
    #[serde(flatten)]
    pub outcome: CancelOutcome,
}

/// What asking for a cancellation came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CancelOutcome {
    /// It waited for its time, and does not come to its stream.
    Unscheduled,
    /// It was parked, and is settled as cancelled.
    Cancelled,
    /// It has not been read: the worker that reads it settles it as cancelled.
    Unread,
    /// It is with this worker, which hears of it within a second or two. If its handler runs it is told, and dropped once
    /// its grace period is over. What succeeds before has succeeded.
    Held {
        /// The consumer.
        by: String,
    },
    /// It has been cancelled before.
    Before {
        /// By whom.
        by: String,
        /// When, by the server's clock.
        #[serde(serialize_with = "as_time")]
        at: SystemTime,
    },
    /// It was done already: it has succeeded, or is a dead letter.
    Done,
    /// So many are to be cancelled already that no more can be asked for.
    Refused,
}

impl CancelRequest {
    /// An event, or an entry, by its id. `by` says who does it, for [`entry`](Admin::entry) and the log to tell.
    pub fn of(id: impl Into<String>, by: impl Into<String>) -> Self {
        CancelRequest {
            id: id.into(),
            by: by.into(),
            event_type: None,
            streams: Vec::new(),
            entries: Budget::default().entries,
        }
    }

    /// Only events of this type: another event may have the same id.
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Only of these streams, or topics.
    pub fn streams<S: Into<String>>(mut self, streams: impl IntoIterator<Item = S>) -> Self {
        self.streams = streams.into_iter().map(Into::into).collect();
        self
    }

    /// Looks at about so many entries for the event's id.
    pub fn entries(mut self, entries: u64) -> Self {
        self.entries = entries;
        self
    }

    fn check(&self) -> Result<()> {
        let wrong = |message: &str| Err(Error::new(ErrorKind::Invalid, message));
        if self.id.trim().is_empty() {
            return wrong("an empty id is none: give an event's or an entry's");
        }
        if self.by.contains(['\n', '\r']) || self.by.len() > 200 {
            return wrong("who cancels it is said in one line of at most 200 bytes");
        }
        Ok(())
    }
}

impl Admin {
    /// Cancels an event, by its id or its entry's, in this group. What is scheduled or parked is cancelled at once; what has
    /// not been read, once it is; what a worker has, within a second or two.
    ///
    /// What has been cancelled is acknowledged, and counts as done: it is no dead letter, and what comes behind it in an order
    /// goes on. What a worker has done by the time it hears of it has been done: [`entry`](Self::entry) tells. Another worker's
    /// entry is never acknowledged. A mark that nobody has met ends after seven days.
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses it; [`ErrorKind::Invalid`] where events of several types have this id, and none
    /// is said: none is cancelled then.
    ///
    /// ```no_run
    /// use streamhand::admin::CancelRequest;
    ///
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// let cancelled = admin.cancel(CancelRequest::of("invoice-417", "alice")).await?;
    /// for one in &cancelled.found {
    ///     println!("{} of {}: {}", one.id, one.stream, one.outcome);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn cancel(&self, request: CancelRequest) -> Result<Cancellation> {
        request.check()?;
        let streams: Vec<String> = match request.streams.is_empty() {
            true => self.streams().to_vec(),
            false => request
                .streams
                .iter()
                .flat_map(|name| self.streams_of(name))
                .collect(),
        };
        let mut done = Cancellation {
            found: Vec::new(),
            in_trouble: Vec::new(),
            is_cut: false,
        };
        if let Ok(id) = request.id.parse::<EntryId>() {
            let mut there = Vec::new();
            for stream in &streams {
                for is_replayed in [false, true] {
                    let keys = self.keys_for(stream, is_replayed);
                    match self.pool.entry(&keys, self.group(), id).await {
                        Ok(stand) if stand.entry.is_some() => there.push((stream, is_replayed)),
                        Ok(_) => {}
                        Err(error) if self.pool.is_of_one_node(&error) => {
                            done.trouble(stream, &error);
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            // Two streams may have given the same id in one millisecond.
            if there.len() > 1 {
                let there: Vec<&str> = there.iter().map(|(stream, _)| &stream[..]).collect();
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "{id} is an entry of {}: say which is meant by its stream",
                        there.join(" and of ")
                    ),
                ));
            }
            for (stream, is_replayed) in there {
                let one = self.cancel_at(stream, id, is_replayed, &request.by).await?;
                done.found.extend(one);
            }
            if !done.found.is_empty() {
                return Ok(done);
            }
        }
        let query = format!(
            "id:\"{}\"",
            request.id.replace('\\', "\\\\").replace('"', "\\\"")
        );
        let places = [Place::Scheduled, Place::Stream, Place::Replayed];
        let mut search = Search::new(&query)?.streams(&streams).places(places);
        let budget = Budget::default().entries(request.entries).hits(1000);
        let page = self.search(&mut search, &budget).await?;
        let text = |hit: &Hit, name: &str| {
            let value = hit.event.get(name).and_then(|value| value.as_str());
            value.unwrap_or_default().to_owned()
        };
        let mut hits = page.hits;
        hits.retain(|hit| {
            let is_it = text(hit, "id") == request.id;
            let of = request.event_type.as_deref();
            is_it && of.is_none_or(|of| of == text(hit, "type"))
        });
        let kinds: BTreeSet<String> = hits.iter().map(|hit| text(hit, "type")).collect();
        if kinds.len() > 1 {
            let kinds: Vec<String> = kinds.iter().map(|kind| shown(kind).to_string()).collect();
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "events of several types have the id \"{}\": say which is meant by its type, of {}",
                    shown(&request.id),
                    kinds.join(", ")
                ),
            ));
        }
        for trouble in page.in_trouble {
            done.in_trouble.push(trouble);
        }
        done.is_cut = page.cursor.is_some();
        for hit in hits {
            let one = match hit.place {
                Place::Scheduled => {
                    let id =
                        ScheduledId::new(&request.id).of(text(&hit, "type"), text(&hit, "source"));
                    let taken = self.cancel_scheduled(&hit.stream, &[id]).await?;
                    (taken == [super::Cancelled::Yes]).then(|| CancelledOne {
                        stream: hit.stream.clone(),
                        id: request.id.clone(),
                        is_replayed: false,
                        outcome: CancelOutcome::Unscheduled,
                    })
                }
                place => match hit.id.parse() {
                    Ok(id) => {
                        let is_replayed = place == Place::Replayed;
                        self.cancel_at(&hit.stream, id, is_replayed, &request.by)
                            .await?
                    }
                    Err(_) => None,
                },
            };
            done.found.extend(one);
        }
        Ok(done)
    }

    /// What has become of an entry that is to be cancelled; None if nobody has asked for that, or it has been forgotten.
    pub(crate) async fn cancel_note(&self, one: &CancelledOne) -> Result<Option<CancelNote>> {
        let Ok(id) = one.id.parse() else {
            return Ok(None);
        };
        let keys = self.keys_for(&one.stream, one.is_replayed);
        self.pool.cancel_note(&keys, id).await
    }

    fn keys_for(&self, stream: &str, is_replayed: bool) -> Keys {
        let keys = Keys::new(stream, self.group());
        match is_replayed {
            true => keys.again(self.group()),
            false => keys,
        }
    }

    async fn cancel_at(
        &self,
        stream: &str,
        id: EntryId,
        is_replayed: bool,
        by: &str,
    ) -> Result<Option<CancelledOne>> {
        let keys = self.keys_for(stream, is_replayed);
        let asked = self
            .pool
            .cancel_entry(&keys, self.group(), id, by, is_replayed)
            .await?;
        let outcome = match asked {
            CancelAsked::Missing => return Ok(None),
            CancelAsked::Cancelled => CancelOutcome::Cancelled,
            CancelAsked::Held(by) => CancelOutcome::Held { by },
            CancelAsked::Unread => CancelOutcome::Unread,
            CancelAsked::Before(note) if note.is_done => CancelOutcome::Before {
                by: note.by,
                at: crate::stream::time(note.at_ms),
            },
            // It was asked for before, and has not been heard of: how it stands is what counts.
            CancelAsked::Before(_) => {
                let stand = self.pool.entry(&keys, self.group(), id).await?;
                match stand.pending {
                    Some((by, ..)) => CancelOutcome::Held { by },
                    None => CancelOutcome::Unread,
                }
            }
            CancelAsked::Settled => CancelOutcome::Done,
            CancelAsked::NoGroup => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "the group {} does not read {}: name the group that is meant",
                        self.group(),
                        shown(stream)
                    ),
                ));
            }
            CancelAsked::Full => CancelOutcome::Refused,
        };
        Ok(Some(CancelledOne {
            stream: stream.to_owned(),
            id: id.to_string(),
            is_replayed,
            outcome,
        }))
    }
}

impl Cancellation {
    fn trouble(&mut self, stream: &str, error: &Error) {
        let known = &mut self.in_trouble;
        if known.iter().all(|trouble| trouble.stream != stream) {
            known.push(StreamTrouble {
                stream: stream.to_owned(),
                error: error.to_string(),
            });
        }
    }
}

impl CancelOutcome {
    /// Whether it will not be handled to its end, as far as that is known: false of what is done, and where nothing can be
    /// asked for.
    pub fn is_cancelled(&self) -> bool {
        !matches!(self, CancelOutcome::Done | CancelOutcome::Refused)
    }
}

impl fmt::Display for CancelOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CancelOutcome::Unscheduled => f.write_str("cancelled: it waited for its time"),
            CancelOutcome::Cancelled => f.write_str("cancelled: it was parked"),
            CancelOutcome::Unread => {
                f.write_str("not read yet: it ends as cancelled when a worker reads it")
            }
            CancelOutcome::Held { by } => write!(f, "with {by}, which is told"),
            CancelOutcome::Before { by, at } => {
                let at = rfc3339::millis(*at);
                write!(f, "cancelled before, at {at} by {}", shown(by))
            }
            CancelOutcome::Done => {
                f.write_str("nothing to cancel: it is done, or a dead letter")
            }
            CancelOutcome::Refused => f.write_str(
                "10000 entries are to be cancelled already: a mark that nobody meets ends after 7 days",
            ),
        }
    }
}

/// For how long a command waits for a worker to hear of it, if it is not said.
pub(crate) const HEARD_WITHIN: Duration = Duration::from_secs(5);

fn as_time<S: Serializer>(time: &SystemTime, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(&rfc3339::millis(*time))
}
