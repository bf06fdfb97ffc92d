//! What a projection asks of Redis: whose it is to run it, what comes next on its public streams, and its batches, which
//! go into the view together with how far it is.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;

use super::connection::{Link, Pool, Trouble, Who, refusal};
use super::events::entry;
use super::history::literally;
use super::keys::{ProjectionKeys, StreamKeys};
use super::reply;
use super::settle::script;
use crate::effects::Effect;
use crate::error::Result;
use crate::event::{Entry, EntryId};
use crate::fields::Fields;

script!(LEASE, "project_lease", behind "common/projection");
script!(REBUILD, "project_rebuild", behind "common/projection");
script!(PROJECT, "project", behind "common/effects", behind "common/letter", behind "common/projection");

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
    /// The first of a process: goes on even where it has stopped.
    First,
    Take,
    Keep,
    /// The aggregates have been gone through up to where the public stream stood.
    Arrive(Stand, Standing),
    Stop(Stand, EntryId, &'a str),
    Leave,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Taken {
    Yours {
        stand: Stand,
        public: Standing,
        /// Entries behind the position were deleted before they were read.
        gap: bool,
    },
    Theirs(Duration),
    Stopped,
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
            Step::Stop(stand, at, why) => call
                .arg("stop")
                .arg(told)
                .arg(stand.generation)
                .arg(stand.position.to_string())
                .arg(at.to_string())
                .arg(why),
        };
        let answer: Value = call
            .invoke_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(&doing(), error))?;
        taken(answer).ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// Waits for entries behind positions, at most so many of each stream. Answers them by the place of the stream.
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
            let entries = reply::array(entries)?.into_iter().map(entry);
            Some((place, entries.collect::<Option<_>>()?))
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
            .key(&who.keys.again);
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

impl Pool {
    /// Which generation of a view is served beside each of these public streams; None where there is none yet.
    pub async fn views_served(&self, all: &[ProjectionKeys]) -> Result<Vec<Option<u64>>> {
        let doing = "looking for a view";
        let mut conn = self.get().await?;
        let mut pipe = redis::Pipeline::with_capacity(all.len());
        for keys in all {
            pipe.cmd("HGET").arg(&keys.checkpoint).arg("generation");
        }
        pipe.query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, doing, error))
    }

    /// How projections stand that are groups of a public stream; those of these names also where they are none yet.
    pub async fn projections(
        &self,
        of: &StreamKeys,
        names: &[&str],
    ) -> Result<Vec<ProjectionStatus>> {
        let doing = || format!("looking at projections of {:?}", of.stream);
        let failed = |error| refusal(Who::Operator, &doing(), error);
        let mut conn = self.get().await?;
        let mut groups = redis::cmd("XINFO");
        let groups: Value = match groups
            .arg("GROUPS")
            .arg(&of.stream)
            .query_async(&mut conn)
            .await
        {
            Ok(groups) => groups,
            Err(error) if error.to_string().contains("no such key") => Value::Array(Vec::new()),
            // The key holds something else: whoever asked has said so.
            Err(error) if error.code() == Some("WRONGTYPE") => Value::Array(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = groups_in(groups).ok_or_else(|| Trouble::garbled(&doing()).into_error())?;
        for name in names {
            if !found.iter().any(|(known, _)| known == name) {
                found.push(((*name).to_owned(), None));
            }
        }
        let mut pipe = redis::Pipeline::with_capacity(2 * found.len());
        for (name, _) in &found {
            let keys = of.projection(name);
            pipe.cmd("HGETALL").arg(&keys.checkpoint);
            pipe.cmd("HGETALL").arg(&keys.rebuild);
        }
        pipe.cmd("TIME");
        // A key of that name may be another's.
        pipe.ignore_errors();
        let answers: Vec<redis::RedisResult<Value>> =
            pipe.query_async(&mut conn).await.map_err(failed)?;
        let mut answers = answers
            .into_iter()
            .map(|answer| answer.unwrap_or(Value::Nil));
        let mut all = Vec::new();
        for (name, lag) in found {
            let checkpoint = answers.next().and_then(fields_of).unwrap_or_default();
            let rebuild = answers.next().and_then(fields_of).unwrap_or_default();
            if !checkpoint.is_empty() || names.contains(&&name[..]) {
                all.push(ProjectionStatus {
                    name,
                    lag,
                    checkpoint,
                    rebuild,
                });
            }
        }
        Ok(all)
    }
}

/// The groups of a stream, with their lag where it is known.
fn groups_in(groups: Value) -> Option<Vec<(String, Option<u64>)>> {
    let one = |group: Value| {
        let fields = reply::array(group)?;
        let value = |name: &str| {
            let mut pairs = fields.chunks_exact(2);
            let pair = pairs.find(|pair| reply::text(pair[0].clone()).as_deref() == Some(name))?;
            Some(pair[1].clone())
        };
        let name = String::from_utf8_lossy(&reply::bytes(value("name")?)?).into_owned();
        let lag = value("lag")
            .and_then(|lag| reply::int(&lag))
            .map(|lag| lag as u64);
        Some((name, lag))
    };
    reply::array(groups)?.into_iter().map(one).collect()
}

fn fields_of(hash: Value) -> Option<BTreeMap<String, String>> {
    let fields = reply::array(hash)?;
    let pairs = fields.chunks_exact(2);
    Some(
        pairs
            .filter_map(|pair| Some((reply::text(pair[0].clone())?, reply::text(pair[1].clone())?)))
            .collect(),
    )
}

/// How a projection stands with one public stream.
#[derive(Debug)]
pub(crate) struct ProjectionStatus {
    pub name: String,
    /// Entries behind it, None where Redis does not know.
    pub lag: Option<u64>,
    checkpoint: BTreeMap<String, String>,
    rebuild: BTreeMap<String, String>,
}

impl ProjectionStatus {
    pub fn generation(&self) -> Option<u64> {
        self.checkpoint.get("generation")?.parse().ok()
    }

    pub fn position(&self) -> Option<&str> {
        self.checkpoint.get("position").map(String::as_str)
    }

    /// Events that could not be applied.
    pub fn bad(&self) -> u64 {
        self.checkpoint
            .get("bad")
            .and_then(|bad| bad.parse().ok())
            .unwrap_or(0)
    }

    pub fn runner(&self) -> Option<&str> {
        self.checkpoint.get("runner").map(String::as_str)
    }

    /// Where it has stopped, and why.
    pub fn stopped(&self) -> Option<(&str, &str)> {
        let is_stopped = self
            .checkpoint
            .get("state")
            .is_some_and(|state| state == "stopped");
        let of = |name| self.checkpoint.get(name).map_or("", String::as_str);
        is_stopped.then(|| (of("stopped.at"), of("stopped.why")))
    }

    /// The generation that is built, and how far it is.
    pub fn rebuild(&self) -> Option<(u64, &str)> {
        let generation = self.rebuild.get("generation")?.parse().ok()?;
        Some((
            generation,
            self.rebuild.get("position").map_or("0-0", String::as_str),
        ))
    }

    /// In one word.
    pub fn state(&self) -> &'static str {
        match (self.generation(), self.stopped(), self.runner()) {
            (None, ..) => "new",
            (_, Some(_), _) => "stopped",
            (_, _, Some(_)) => "running",
            _ => "idle",
        }
    }
}

/// What came of beginning a view beside the one that is served.
pub(crate) enum Begun {
    /// Another builds one, for so long at least.
    Busy(String, Duration),
    Yours {
        generation: u64,
        /// The one that is served, 0 where there is none.
        beside: u64,
        /// How many events are in that.
        passed: u64,
    },
}

/// What came of having a view served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Switched {
    Done,
    /// What is served is further.
    Behind,
    /// Another builds one by now.
    Gone,
}

impl Link {
    /// Begins a view beside the one that is served.
    pub async fn begin_rebuild(&mut self, who: ActingAs<'_>) -> Result<Begun, Trouble> {
        let doing = || {
            format!(
                "beginning to build {:?} of {} anew",
                who.projection, who.keys.stream
            )
        };
        let answer: Value = rebuild(who, "begin")
            .invoke_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(&doing(), error))?;
        begun(answer).ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// Has the view that was built served, if it is as far as the one that is.
    pub async fn switch_over(
        &mut self,
        who: ActingAs<'_>,
        generation: u64,
        beside: u64,
    ) -> Result<Switched, Trouble> {
        let doing = || format!("having {:?} of {} served", who.projection, who.keys.stream);
        let answer: Vec<String> = rebuild(who, "switch")
            .arg(generation)
            .arg(beside)
            .invoke_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(&doing(), error))?;
        match answer.first().map(String::as_str) {
            Some("done") => Ok(Switched::Done),
            Some("behind") => Ok(Switched::Behind),
            Some("gone") => Ok(Switched::Gone),
            _ => Err(Trouble::garbled(&doing())),
        }
    }

    /// Deletes keys of views that are neither of these generations nor newer than the last, some at a time. Answers where
    /// to go on.
    pub async fn clear_views(
        &mut self,
        keys: &ProjectionKeys,
        cursor: u64,
        is_old: impl Fn(u64) -> bool,
    ) -> Result<u64, Trouble> {
        let doing = || format!("deleting old views of {}", keys.stream);
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(literally(&keys.views) + "*")
            .arg("COUNT")
            .arg(500);
        let (next, found): (u64, Vec<Vec<u8>>) = scan
            .query_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(&doing(), error))?;
        let generation = |key: &[u8]| {
            let rest = std::str::from_utf8(
                key.strip_prefix(keys.views.as_bytes())?
                    .split(|b| *b == b':')
                    .next()?,
            );
            rest.ok()?.parse::<u64>().ok()
        };
        let old: Vec<Vec<u8>> = found
            .into_iter()
            .filter(|key| generation(key).is_some_and(&is_old))
            .collect();
        if !old.is_empty() {
            let mut unlink = redis::cmd("UNLINK");
            unlink
                .arg(old)
                .query_async::<()>(&mut self.conn)
                .await
                .map_err(|error| Trouble::of(&doing(), error))?;
        }
        Ok(next)
    }
}

fn rebuild(who: ActingAs<'_>, step: &str) -> redis::ScriptInvocation<'static> {
    let keys = who.keys;
    let mut call = REBUILD.key(&keys.stream);
    call.key(&keys.checkpoint)
        .key(&keys.rebuild)
        .key(&keys.dead)
        .key(&keys.rebuild_dead)
        .key(&keys.again)
        .arg(who.projection)
        .arg(who.runner)
        .arg(who.lease.as_millis() as u64)
        .arg(step);
    call
}

fn begun(answer: Value) -> Option<Begun> {
    let mut parts = reply::array(answer)?.into_iter();
    let mut next = || parts.next();
    let what = reply::text(next()?)?;
    if what == "busy" {
        let whose = reply::text(next()?)?;
        return Some(Begun::Busy(
            whose,
            Duration::from_millis(reply::int(&next()?)? as u64),
        ));
    }
    let mut number = || Some(reply::int(&next()?)? as u64);
    Some(Begun::Yours {
        generation: number()?,
        beside: number()?,
        passed: number()?,
    })
}

fn taken(answer: Value) -> Option<Taken> {
    let mut parts = reply::array(answer)?.into_iter();
    let mut next = || parts.next();
    Some(match &reply::text(next()?)?[..] {
        "theirs" => {
            let left = reply::int(&next()?)?;
            Taken::Theirs(Duration::from_millis(left.try_into().ok()?))
        }
        "stopped" => Taken::Stopped,
        "gone" => Taken::Gone,
        "ok" => Taken::Done,
        "yours" => {
            let generation = reply::int(&next()?)? as u64;
            let position = reply::id(&next()?)?;
            let _read = next()?;
            let gap = reply::int(&next()?)? == 1;
            Taken::Yours {
                stand: Stand {
                    generation,
                    position,
                },
                gap,
                public: Standing {
                    last: reply::id(&next()?)?,
                    added: reply::int(&next()?)? as u64,
                },
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
