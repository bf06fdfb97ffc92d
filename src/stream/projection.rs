//! What a projection asks of Redis: whose it is to run it, what comes next on its public streams, and its batches, which
//! go into the view together with how far it is. `projection_rebuild.rs` has what builds a view anew,
//! `projection_status.rs` how views stand.

use std::time::Duration;

use redis::Value;

use super::connection::Link;
use super::error::Trouble;
use super::events;
use super::keys::ProjectionKeys;
use super::reply;
use super::script::script;
use crate::effects::Effect;
use crate::error::Result;
use crate::event::{Entry, EntryId};
use crate::fields::Fields;

script!(LEASE, "project_lease", behind "common/ids", behind "common/reached", behind "common/projection");
script!(PROJECT, "project", behind "common/effects", behind "common/letter", behind "common/ids", behind "common/reached", behind "common/projection");

/// Whose view it is that a step is about.
#[derive(Clone, Copy)]
pub(crate) struct ActingAs<'a> {
    pub keys: &'a ProjectionKeys,
    pub projection: &'a str,
    /// Which process.
    pub runner: &'a str,
    pub lease: Duration,
    /// The view is built beside the one that is served.
    pub is_rebuild: bool,
}

/// How far a view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    pub generation: u64,
    /// Everything up to there is in it.
    pub position: EntryId,
}

/// What is known of a public stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Its last id.
    pub last: EntryId,
    /// How many entries it ever got.
    pub added: u64,
}

/// A step towards running it, or away.
#[derive(Clone, Copy)]
pub(crate) enum Step<'a> {
    /// The first of a process: goes on even if it has stopped.
    First,
    Take,
    Keep,
    /// The aggregates have been gone through up to where the public stream stood.
    Arrive(Stand, Standing),
    /// This event is about to be applied, alone: should its process die, the next one knows of what. None: it is not.
    Note(Option<Noted>),
    /// Whatever has killed those who ran it before is behind it.
    Calm,
    Stop {
        stand: Stand,
        at: EntryId,
        why: &'a str,
        /// Until it is resumed: no process that is started tries it again.
        is_held: bool,
    },
    Leave,
}

/// An event by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// Among the replayed ones, not on the public stream.
    pub is_again: bool,
    pub id: EntryId,
}

/// What is known of those who ran a projection and died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deaths {
    /// How many, one after the other.
    pub count: u32,
    /// Where it stood when the last one died.
    pub at: EntryId,
    /// The event that was noted then, and how many have died with that.
    pub suspect: Option<(Noted, u32)>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Taken {
    Yours {
        stand: Stand,
        public: Standing,
        /// Entries behind the position were deleted before they were read.
        gap: bool,
        deaths: Deaths,
    },
    Theirs(Duration),
    /// It has stopped, there, for this reason.
    Stopped(EntryId, String),
    /// It is another's by now, or somewhere else.
    Gone,
    Done,
}

/// Where the events of a batch come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Public,
    Aggregates,
    Again,
}

/// An event that is not passed over.
pub(crate) struct Told {
    pub id: EntryId,
    /// How many entries of the batch there are up to it.
    pub upto: usize,
    pub what: What,
}

/// What it does.
pub(crate) enum What {
    Effects(Vec<Effect>),
    Bury {
        fields: Fields,
        reason: &'static str,
        error: String,
        attempts: u32,
        replays: String,
        age: Duration,
    },
}

/// A batch to be applied.
pub(crate) struct Batch<'a> {
    pub from: From,
    pub stand: Stand,
    /// The position behind it.
    pub to: EntryId,
    /// How many entries it has, those that are passed over among them.
    pub entries: usize,
    pub events: &'a [Told],
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum AppliedBatch {
    Done(EntryId),
    /// The event at this place can't be done; those before it are.
    Refused(usize, String, EntryId),
    /// Another runs it by now, or it stands elsewhere: nothing was done.
    Moved,
    /// Entries were deleted before they were read: nothing was done.
    Gap(Standing),
}

impl ActingAs<'_> {
    fn checkpoint(&self) -> &str {
        match self.is_rebuild {
            true => &self.keys.rebuild,
            false => &self.keys.checkpoint,
        }
    }

    fn dead(&self) -> &str {
        match self.is_rebuild {
            true => &self.keys.rebuild_dead,
            false => &self.keys.dead,
        }
    }
}

impl Link {
    /// Takes a step towards running a projection, or away.
    pub async fn lease_projection(
        &mut self,
        who: ActingAs<'_>,
        step: Step<'_>,
    ) -> Result<Taken, Trouble> {
        let doing = || {
            format!(
                "asking for the projection {:?} of {}",
                who.projection, who.keys.stream
            )
        };
        let mut call = LEASE.key(&who.keys.stream);
        call.key(who.checkpoint())
            .key(&who.keys.reached)
            .arg(who.projection)
            .arg(who.runner)
            .arg(who.lease.as_millis() as u64);
        let told = u8::from(!who.is_rebuild);
        match step {
            Step::First => call.arg("first").arg(told),
            Step::Take => call.arg("take").arg(told),
            Step::Keep => call.arg("keep").arg(told),
            Step::Leave => call.arg("leave").arg(told),
            Step::Arrive(stand, public) => call
                .arg("arrive")
                .arg(told)
                .arg(stand.generation)
                .arg(stand.position.to_string())
                .arg(public.last.to_string())
                .arg(public.added),
            Step::Note(noted) => call
                .arg("note")
                .arg(told)
                .arg(noted.map_or(String::new(), |noted| noted.to_string())),
            Step::Calm => call.arg("calm").arg(told),
            Step::Stop {
                stand,
                at,
                why,
                is_held,
            } => call
                .arg("stop")
                .arg(told)
                .arg(stand.generation)
                .arg(stand.position.to_string())
                .arg(at.to_string())
                .arg(why)
                .arg(u8::from(is_held)),
        };
        let answer: Value = call
            .invoke_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(&doing(), error))?;
        taken(answer).ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// Waits for entries behind positions, at most so many of each stream. Returns them by the place of the stream.
    pub async fn read_behind(
        &mut self,
        streams: &[(&str, EntryId)],
        most: usize,
        block: Option<Duration>,
    ) -> Result<Vec<(usize, Vec<Entry>)>, Trouble> {
        const DOING: &str = "reading for a projection";
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(most);
        if let Some(block) = block {
            command.arg("BLOCK").arg(block.as_millis().max(1) as u64);
        }
        command.arg("STREAMS");
        for (stream, _) in streams {
            command.arg(stream);
        }
        for (_, position) in streams {
            command.arg(position.to_string());
        }
        let answer: Value = command
            .query_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(DOING, error))?;
        if answer == Value::Nil {
            return Ok(Vec::new());
        }
        let parse = |of_stream: Value| {
            let [name, entries] = reply::tuple(of_stream)?;
            let name = reply::bytes(name)?;
            let place = streams
                .iter()
                .position(|(stream, _)| stream.as_bytes() == name)?;
            Some((place, events::entries(entries)?))
        };
        reply::array(answer)
            .and_then(|all| all.into_iter().map(parse).collect())
            .ok_or_else(|| Trouble::garbled(DOING))
    }

    /// Applies a batch to a view, together with how far it is.
    pub async fn project(
        &mut self,
        who: ActingAs<'_>,
        batch: &Batch<'_>,
    ) -> Result<AppliedBatch, Trouble> {
        let doing = || {
            format!(
                "applying events of {} to {:?}",
                who.keys.stream, who.projection
            )
        };
        let view = who.keys.view(batch.stand.generation);
        let mut call = PROJECT.key(&who.keys.stream);
        call.key(who.checkpoint())
            .key(who.dead())
            .key(&who.keys.again)
            .key(&who.keys.reached);
        call.arg(who.projection)
            .arg(who.runner)
            .arg(who.lease.as_millis() as u64)
            .arg(batch.stand.generation)
            .arg(batch.stand.position.to_string())
            .arg(match batch.from {
                From::Public => "public",
                From::Aggregates => "aggregates",
                From::Again => "again",
            })
            .arg(u8::from(!who.is_rebuild))
            .arg(batch.to.to_string())
            .arg(batch.entries);
        for event in batch.events {
            call.arg(event.id.to_string()).arg(event.upto);
            match &event.what {
                What::Effects(effects) => {
                    call.arg("do").arg(effects.len());
                    for effect in effects {
                        call.key(format!("{view}{}", effect.key));
                        call.arg(effect.command).arg(effect.args.len());
                        effect.args.iter().for_each(|arg| {
                            call.arg(&arg[..]);
                        });
                    }
                }
                What::Bury {
                    fields,
                    reason,
                    error,
                    attempts,
                    replays,
                    age,
                } => {
                    call.arg("bury")
                        .arg(reason)
                        .arg(error)
                        .arg(attempts)
                        .arg(&who.keys.stream)
                        .arg(replays)
                        .arg(age.as_millis() as u64)
                        .arg(2 * fields.len());
                    for (name, value) in fields {
                        call.arg(name).arg(value);
                    }
                }
            }
        }
        let answer: Value = call
            .invoke_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(&doing(), error))?;
        applied(answer).ok_or_else(|| Trouble::garbled(&doing()))
    }
}

/// What replayed events' notes begin with.
const AGAIN: &str = "again ";

impl Noted {
    fn parse(text: &str) -> Option<Self> {
        let again = text.strip_prefix(AGAIN);
        Some(Noted {
            is_again: again.is_some(),
            id: EntryId::parse(again.unwrap_or(text).as_bytes())?,
        })
    }
}

impl std::fmt::Display for Noted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let again = if self.is_again { AGAIN } else { "" };
        write!(f, "{again}{}", self.id)
    }
}

fn taken(answer: Value) -> Option<Taken> {
    let mut parts = reply::array(answer)?.into_iter();
    let mut next = || parts.next();
    Some(match &reply::text(next()?)?[..] {
        "theirs" => {
            let left = reply::int(&next()?)?;
            Taken::Theirs(Duration::from_millis(left.try_into().ok()?))
        }
        "stopped" => Taken::Stopped(reply::id(&next()?)?, reply::text(next()?)?),
        "gone" => Taken::Gone,
        "ok" => Taken::Done,
        "yours" => {
            let generation = reply::int(&next()?)? as u64;
            let position = reply::id(&next()?)?;
            let _read = next()?;
            let gap = reply::int(&next()?)? == 1;
            let public = Standing {
                last: reply::id(&next()?)?,
                added: reply::int(&next()?)? as u64,
            };
            let count = u32::try_from(reply::int(&next()?)?).ok()?;
            let at = reply::id(&next()?)?;
            let (suspect, killed) = (reply::text(next()?)?, reply::int(&next()?)?);
            let suspect = match &suspect[..] {
                "" => None,
                noted => Some((Noted::parse(noted)?, u32::try_from(killed).ok()?)),
            };
            Taken::Yours {
                stand: Stand {
                    generation,
                    position,
                },
                gap,
                public,
                deaths: Deaths { count, at, suspect },
            }
        }
        _ => return None,
    })
}

fn applied(answer: Value) -> Option<AppliedBatch> {
    let mut parts = reply::array(answer)?.into_iter();
    let mut next = || parts.next();
    Some(match &reply::text(next()?)?[..] {
        "done" => AppliedBatch::Done(reply::id(&next()?)?),
        "refused" => {
            let number = reply::int(&next()?)?;
            let place = usize::try_from(number).ok()?.checked_sub(1)?;
            AppliedBatch::Refused(place, reply::text(next()?)?, reply::id(&next()?)?)
        }
        "moved" => AppliedBatch::Moved,
        "gap" => AppliedBatch::Gap(Standing {
            last: reply::id(&next()?)?,
            added: reply::int(&next()?)? as u64,
        }),
        _ => return None,
    })
}
