//! Giving entries to Redis, to be added to a stream now or later: pipelined, and counted from the answers.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{join_all, maybe_done};
use redis::{Cmd, Pipeline, RedisResult, ServerErrorKind, Value};
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::connection::Link;
use super::error::{Trouble, Who, elsewhere, is_half_done, is_sealed, refusal};
use super::keys::StreamKeys;
use super::pool::{Pool, PooledConnection};
use super::replicated::{NOT_WRITTEN, NotReplicated, Replicas};
use super::reply;
use super::schedule::time;
use super::script::{Script, script};
use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{EntryId, Envelope};
use crate::fields::Fields;
use crate::identity::{self, Identity};
use crate::names::shown;
use crate::rfc3339;

script!(PUBLISH_ONCE, "publish_once", behind "common/rights");
script!(
    SCHEDULE,
    "schedule",
    behind "common/scheduled",
    behind "common/on_schedule",
    behind "common/rights",
    behind "common/sealed"
);

/// Most entries in one pipeline, and most bytes. While one is answered the next is on its way: what a lost connection
/// leaves in doubt is two of them.
const PIPELINE: usize = 250;
const PIPELINE_BYTES: usize = 512 << 10;
/// Most arguments of a script before an entry's fields, and about how many bytes they have besides names and ids.
const BEFORE_FIELDS: (usize, usize) = (9, 192);
/// So often in a row a server may have forgotten the script before the first of a pipeline.
const PATIENCE: u32 = 20;

/// What becomes of entries that are given to Redis.
pub(crate) enum How {
    /// They are added now.
    Now,
    /// The same, of each id one only within this time.
    Once(Duration),
    /// They are added at this time, in ms since 1970.
    At(u64),
    /// They are added so much later than Redis gets them.
    After(Duration),
    /// The same, in place of what waits for its time under their ids.
    ReplaceAt(u64),
    ReplaceAfter(Duration),
}

/// What Redis did with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Added(EntryId),
    /// An entry with its event's id had been added before, and this one was not.
    AddedBefore(EntryId),
    Scheduled {
        due_ms: u64,
        /// False where an entry with its event's id had been scheduled before, and is kept as it was.
        is_new: bool,
        /// It has taken the place of that one.
        replaced: bool,
    },
}

/// What became of one entry that was to be added.
#[derive(Debug)]
pub(crate) enum Fate {
    Done(Done),
    /// It was dealt with, and fewer replicas are known to have it than were asked for, for this reason.
    NotReplicated(Done, Arc<str>),
    Refused(Error),
    /// It was sent, and there is no answer: it may have been dealt with or not.
    InDoubt,
    /// Nothing was done with it.
    NotSent,
}

/// What became of entries that were to be added, in their order. It is known as well where the request is dropped.
#[derive(Default)]
pub(crate) struct Appended {
    pub fates: Vec<Fate>,
    /// Why some have no answer.
    pub broken: Option<Error>,
    /// Some were not added because their stream is sealed: its topic has grown.
    pub sealed: bool,
}

/// One event, where it goes, and which one it is where that is asked for.
#[derive(Clone)]
pub(crate) struct Addition<'a> {
    /// The stream it is added to.
    keys: &'a StreamKeys,
    event: &'a Envelope,
    identity: Option<Identity>,
}

/// Entries of one hash slot, of many that are added at once.
struct Lot<'a> {
    places: Vec<usize>,
    entries: Vec<Addition<'a>>,
    appended: Appended,
}

/// Entries of several hash slots. What became of them is put in order in the end, whatever brings that about.
struct Scattered<'a, 'b> {
    lots: Vec<Lot<'a>>,
    all: &'b mut Appended,
}

impl Drop for Scattered<'_, '_> {
    fn drop(&mut self) {
        for lot in self.lots.drain(..) {
            for (place, fate) in lot.places.into_iter().zip(lot.appended.fates) {
                self.all.fates[place] = fate;
            }
            if self.all.broken.is_none() {
                self.all.broken = lot.appended.broken;
            }
            self.all.sealed |= lot.appended.sealed;
        }
    }
}

/// What entries are sent over.
enum Over {
    Pooled(PooledConnection),
    /// The connection that what waits for replicas has in common.
    InTurn(Link, Replicas),
}

/// What Redis says of the entries of one pipeline, and why replicas are not known to have them, if that was asked.
type Answers = RedisResult<(Vec<RedisResult<Value>>, Option<Arc<str>>)>;

/// What is to be sent, by places among the entries: those that are new, and those that have to be sent again.
struct Queue {
    next: usize,
    all: usize,
    again: VecDeque<usize>,
    /// The first that was refused: nothing behind it is sent any more.
    refused: Option<usize>,
}

impl Pool {
    /// As [`append`](Self::append), with entries that have these places among all.
    pub async fn append_at(
        &self,
        stream: &str,
        how: &How,
        (entries, places): (Vec<Addition<'_>>, Vec<usize>),
        replicas: Option<Replicas>,
        stop: &CancellationToken,
        all: &mut Appended,
    ) {
        let mut scattered = Scattered {
            lots: vec![Lot {
                places,
                entries,
                appended: Appended::default(),
            }],
            all,
        };
        for lot in &mut scattered.lots {
            let to = self.append(stream, how, &lot.entries, replicas, stop, &mut lot.appended);
            to.await;
        }
    }

    /// Gives entries of a stream, or of the partitions of a topic, which is called `stream`, to Redis in their order,
    /// until one is refused, the connection breaks, or `stop` says so, or until some are not with as many `replicas` as are
    /// asked for. What a server has refused because it no longer
    /// knew the script, it did not do: that is sent again, behind what was on its way meanwhile. So is, once and to the
    /// server there is by then, what was refused because the server was not the one to ask any more.
    async fn append(
        &self,
        stream: &str,
        how: &How,
        entries: &[Addition<'_>],
        replicas: Option<Replicas>,
        stop: &CancellationToken,
        appended: &mut Appended,
    ) {
        appended.fates = entries.iter().map(|_| Fate::NotSent).collect();
        let lots = match self.by_slot(entries, |entry| &entry.keys.stream).await {
            Ok(lots) => lots,
            Err(error) => {
                appended.broken = Some(error);
                return;
            }
        };
        if lots.len() < 2 {
            return self
                .append_in_slot(stream, how, entries, replicas, stop, appended)
                .await;
        }
        let lots = lots.into_iter().map(|(_, places)| Lot {
            entries: places.iter().map(|place| entries[*place].clone()).collect(),
            appended: Appended::default(),
            places,
        });
        let mut scattered = Scattered {
            lots: lots.collect(),
            all: appended,
        };
        let lots = scattered.lots.iter_mut().map(|lot| {
            let (entries, appended) = (&lot.entries, &mut lot.appended);
            self.append_in_slot(stream, how, entries, replicas, stop, appended)
        });
        join_all(lots).await;
    }

    /// The same with entries of one hash slot.
    async fn append_in_slot(
        &self,
        stream: &str,
        how: &How,
        entries: &[Addition<'_>],
        replicas: Option<Replicas>,
        stop: &CancellationToken,
        appended: &mut Appended,
    ) {
        appended.fates = entries.iter().map(|_| Fate::NotSent).collect();
        let Some(first) = entries.first() else {
            return;
        };
        let mut queue = Queue::of(0, entries.len(), VecDeque::new());
        for is_last in [false, true] {
            let key = &first.keys.stream;
            let over = match replicas {
                None => self.at(key).get().await.map(Over::Pooled),
                Some(replicas) => Box::pin(self.in_turn(key))
                    .await
                    .map(|link| Over::InTurn(link, replicas)),
            };
            let over = match over {
                Ok(over) => over,
                Err(error) => {
                    appended.broken = Some(error);
                    return;
                }
            };
            let all = (stream, how, entries);
            let is_elsewhere = send_all(&over, all, queue, stop, appended, is_last).await;
            if let (Over::InTurn(link, _), Some(_)) = (&over, &appended.broken) {
                self.in_turn_broke(key, link).await;
            }
            let is_refused = |fate: &Fate| {
                matches!(
                    fate,
                    Fate::Refused(_) | Fate::InDoubt | Fate::NotReplicated(..)
                )
            };
            if !is_elsewhere || appended.fates.iter().any(is_refused) {
                return;
            }
            let rest = (0..entries.len())
                .filter(|place| matches!(appended.fates[*place], Fate::NotSent))
                .collect();
            queue = Queue::of(entries.len(), entries.len(), rest);
        }
    }
}

/// Sends what is queued of entries of a stream. Answers whether the server is not the one to ask any more: then what is
/// not sent can be sent to another, unless this was the last try.
async fn send_all(
    over: &Over,
    (stream, how, entries): (&str, &How, &[Addition<'_>]),
    mut queue: Queue,
    stop: &CancellationToken,
    appended: &mut Appended,
    is_last: bool,
) -> bool {
    let doing = how.doing(stream);
    let mut is_elsewhere = false;
    let send = |queue: &mut Queue, fates: &mut Vec<Fate>| {
        if stop.is_cancelled() {
            return None;
        }
        let (pipe, places) = pipeline(how, entries, over.waits(), queue)?;
        for place in &places {
            fates[*place] = Fate::InDoubt;
        }
        let answers = maybe_done(over.ask(pipe));
        Some((places, Box::pin(answers)))
    };
    let mut unknown = 0;
    let mut older = send(&mut queue, &mut appended.fates);
    while let Some((places, mut answers)) = older {
        let mut newer = send(&mut queue, &mut appended.fates);
        // The older one is polled first, and so sent first.
        poll_fn(|cx| match answers.as_mut().poll(cx) {
            Poll::Pending => {
                if let Some((_, newer)) = &mut newer {
                    let _ = newer.as_mut().poll(cx);
                }
                Poll::Pending
            }
            ready => ready,
        })
        .await;
        let answers: Answers = answers
            .as_mut()
            .take_output()
            .expect("it has been polled to its end");
        let (mut answers, lacking) = match answers {
            Ok((answers, lacking)) => (answers.into_iter(), lacking),
            Err(error) => {
                appended.broken = Some(refusal(how.who(), &doing, error));
                return false;
            }
        };
        let mut loaded = how
            .script()
            .and_then(|_| answers.next())
            .unwrap_or(Ok(Value::Nil));
        let count = places.len();
        let mut again = VecDeque::new();
        for (place, answer) in places.into_iter().zip(answers) {
            let fate = match answer {
                Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                    // Where the server does not take the script at all, that is why.
                    let why = std::mem::replace(&mut loaded, Ok(Value::Nil)).err();
                    if why.is_none() && unknown < PATIENCE {
                        again.push_back(place);
                        appended.fates[place] = Fate::NotSent;
                        continue;
                    }
                    Fate::Refused(refusal(how.who(), &doing, why.unwrap_or(error)))
                }
                Err(error) if !is_last && elsewhere(&error).is_some() => {
                    is_elsewhere = true;
                    Fate::NotSent
                }
                Err(error) if is_sealed(&error) => {
                    appended.sealed = true;
                    Fate::NotSent
                }
                // A part of it may be done.
                Err(error) if is_half_done(&error) => {
                    appended.broken = Some(refusal(how.who(), &doing, error));
                    Fate::InDoubt
                }
                Err(error) => Fate::Refused(refusal(how.who(), &doing, error)),
                Ok(answer) => match (how.done(answer, &entries[place], &doing), &lacking) {
                    (Ok((done, _)), Some(why)) => Fate::NotReplicated(done, why.clone()),
                    // Nothing was written that replicas could be asked for.
                    (Ok((done, false)), None) if over.waits() => {
                        Fate::NotReplicated(done, NOT_WRITTEN.into())
                    }
                    (Ok((done, _)), None) => Fate::Done(done),
                    (Err(error), _) => Fate::Refused(error),
                },
            };
            let goes_on = matches!(fate, Fate::Done(_) | Fate::InDoubt);
            if !goes_on {
                queue.refused = queue.refused.min(Some(place)).or(Some(place));
            }
            appended.fates[place] = fate;
        }
        unknown = if again.len() == count { unknown + 1 } else { 0 };
        again.append(&mut queue.again);
        queue.again = again;
        older = newer.or_else(|| send(&mut queue, &mut appended.fates));
    }
    is_elsewhere
}

impl Over {
    /// Whether it is waited for replicas.
    fn waits(&self) -> bool {
        matches!(self, Over::InTurn(..))
    }

    async fn ask(&self, pipe: Pipeline) -> Answers {
        match self {
            Over::Pooled(conn) => Ok((pipe.query_async(&mut conn.wire()).await?, None)),
            Over::InTurn(link, replicas) => {
                let asking = link.conn.ask_in_turn(&link.turns, &pipe, *replicas);
                let (values, waited) = Box::pin(asking).await?;
                let values = values.into_iter().map(Value::extract_error);
                Ok((values.collect(), replicas.lacking(&waited.extract_error())))
            }
        }
    }
}

impl Queue {
    fn of(next: usize, all: usize, again: VecDeque<usize>) -> Self {
        Queue {
            next,
            all,
            again,
            refused: None,
        }
    }

    /// The next place; what has to be sent again comes first.
    fn pop(&mut self) -> Option<usize> {
        let is_sent = |place: usize| self.refused.is_none_or(|refused| place < refused);
        if let Some(place) = self.again.front().copied().filter(|place| is_sent(*place)) {
            self.again.pop_front();
            return Some(place);
        }
        if self.next < self.all && is_sent(self.next) {
            self.next += 1;
            return Some(self.next - 1);
        }
        None
    }
}

impl<'a> Addition<'a> {
    /// An event that is complete.
    pub fn new(keys: &'a StreamKeys, event: &'a Envelope, how: &How) -> Self {
        let identity = match how {
            How::Now => None,
            _ => Identity::of(event.fields()),
        };
        Addition {
            keys,
            event,
            identity,
        }
    }

    /// Whether these fields of the same event say something else.
    fn has_other_data(&self, fields: &Fields) -> bool {
        let data = |identity: &Option<Identity>| identity.as_ref().map(|it| it.data().to_owned());
        data(&Identity::of(fields)) != data(&self.identity)
    }
}

/// The first of what is to be sent as one pipeline, and their places. Its first answer is that of loading the script,
/// where there is one.
fn pipeline(
    how: &How,
    entries: &[Addition<'_>],
    waits: bool,
    queue: &mut Queue,
) -> Option<(redis::Pipeline, Vec<usize>)> {
    let mut pipe = redis::Pipeline::with_capacity((queue.all - queue.next).min(PIPELINE) + 1);
    pipe.ignore_errors();
    if let Some(script) = how.script() {
        pipe.load_script(script.text());
    }
    let (mut places, mut bytes) = (Vec::new(), 0);
    while places.len() < PIPELINE && bytes <= PIPELINE_BYTES {
        let Some(place) = queue.pop() else { break };
        let entry = &entries[place];
        pipe.add_command(how.request(entry, waits));
        bytes += entry.event.fields().size();
        places.push(place);
    }
    (!places.is_empty()).then_some((pipe, places))
}

/// The request that adds an entry to a stream, under the next id.
pub(super) fn xadd(stream: &str, fields: &Fields) -> Cmd {
    let bytes = "XADD*".len() + stream.len() + fields.size();
    let mut request = Cmd::with_capacity(3 + 2 * fields.len(), bytes);
    request.arg("XADD").arg(stream).arg("*");
    for (name, value) in fields {
        request.arg(name).arg(value);
    }
    request
}

impl How {
    fn doing(&self, stream: &str) -> String {
        match self {
            How::Now | How::Once(_) => format!("publishing to {stream:?}"),
            _ => format!("scheduling events of {stream:?}"),
        }
    }

    /// Who is told of an error: there are more keys than the stream in the way of a script.
    fn who(&self) -> Who {
        match self {
            How::Now => Who::Publisher,
            _ => Who::Operator,
        }
    }

    fn script(&self) -> Option<&'static Script> {
        match self {
            How::Now => None,
            How::Once(_) => Some(&PUBLISH_ONCE),
            _ => Some(&SCHEDULE),
        }
    }

    /// The request for an entry. If it `waits` for replicas a repeat writes something that they can be asked for.
    fn request(&self, entry: &Addition<'_>, waits: bool) -> Cmd {
        let keys = entry.keys;
        let fields = entry.event.fields();
        let id = entry.event.id();
        let (which, data) = match &entry.identity {
            Some(identity) => (identity.which(), identity.data()),
            None => ("", ""),
        };
        let room = (
            BEFORE_FIELDS.0 + 2 * fields.len(),
            BEFORE_FIELDS.1 + id.len() + fields.size(),
        );
        let schedule = |due: Option<u64>, delay: Duration, replaces: bool| {
            let replaces = if replaces { "r" } else { "" };
            let its = [&keys.stream, &keys.scheduled, &keys.events];
            let mut call = Call::of(&SCHEDULE, its.into_iter().map(String::as_str), room);
            call.arg(&*id)
                .arg(which)
                .arg(due.map_or(String::new(), |due| due.to_string()))
                .arg(delay.as_millis() as u64)
                .arg(format!("{}{replaces}", u8::from(waits)));
            call
        };
        let mut call = match *self {
            How::Now => return xadd(&keys.stream, fields),
            How::At(due) => schedule(Some(due), Duration::ZERO, false),
            How::After(delay) => schedule(None, delay, false),
            How::ReplaceAt(due) => schedule(Some(due), Duration::ZERO, true),
            How::ReplaceAfter(delay) => schedule(None, delay, true),
            How::Once(window) => {
                let published = keys.published(which);
                let its = [&keys.stream[..], &published[..]];
                let mut call = Call::of(&PUBLISH_ONCE, its.into_iter(), room);
                call.arg(window.as_millis() as u64);
                call.arg(data).arg(u8::from(waits));
                call
            }
        };
        for (name, value) in fields {
            call.arg(name).arg(value);
        }
        call.into_command()
    }

    /// What the answer to that request says, and whether something was written.
    fn done(&self, answer: Value, entry: &Addition<'_>, doing: &str) -> Result<(Done, bool)> {
        let (done, differs, is_written) = self
            .parse(answer, entry)
            .ok_or_else(|| Trouble::garbled(doing).into_error())?;
        let exists = |message| Err(Error::new(ErrorKind::Exists, message));
        if differs {
            let which = identity::named(entry.event.fields());
            let another = "what is another event needs another id";
            return exists(match done {
                Done::Scheduled { due_ms, .. } => {
                    let at = rfc3339::millis(time(due_ms));
                    format!("{which} is scheduled for {at} already, with other data: {another}")
                }
                Done::Added(entry) | Done::AddedBefore(entry) => format!(
                    "{which} was published before, as entry {entry}, with other data: {another}"
                ),
            });
        }
        match (self, done) {
            (How::At(asked), Done::Scheduled { due_ms, .. }) if *asked != due_ms => {
                exists(format!(
                    "an event with the id \"{}\" is scheduled for {} already: cancel that one first",
                    shown(&entry.event.id()),
                    rfc3339::millis(time(due_ms))
                ))
            }
            (_, done) => Ok((done, is_written)),
        }
    }

    /// What was done, whether that was with other data, and whether something was written.
    fn parse(&self, answer: Value, entry: &Addition<'_>) -> Option<(Done, bool, bool)> {
        if let How::Now = self {
            return reply::id(&answer).map(|id| (Done::Added(id), false, true));
        }
        let [what, is_new, differs, is_written] = reply::tuple(answer)?;
        let replaced = reply::int(&is_new)? == 2;
        let is_new = replaced || reply::int(&is_new)? == 1;
        let is_written = reply::int(&is_written)? == 1;
        let (done, differs) = match self {
            How::At(_) | How::After(_) | How::ReplaceAt(_) | How::ReplaceAfter(_) => {
                let due_ms = reply::text(what)?.parse::<f64>().ok()? as u64;
                let kept = reply::bytes(differs).and_then(codec::packed);
                let differs = kept.is_some_and(|kept| entry.has_other_data(&kept));
                let done = Done::Scheduled {
                    due_ms,
                    is_new,
                    replaced,
                };
                (done, differs)
            }
            _ if is_new => (reply::id(&what).map(Done::Added)?, false),
            _ => (
                reply::id(&what).map(Done::AddedBefore)?,
                reply::int(&differs)? == 1,
            ),
        };
        Some((done, differs, is_written))
    }
}

impl Appended {
    /// What Redis did with all of them.
    ///
    /// # Errors
    /// The first refusal, or what broke.
    pub fn into_done(self) -> Result<Vec<Done>> {
        let mut done = Vec::with_capacity(self.fates.len());
        for fate in self.fates {
            match fate {
                Fate::Done(one) => done.push(one),
                Fate::NotReplicated(one, why) => {
                    return Err(one.not_replicated(why).into_error());
                }
                Fate::Refused(error) => return Err(error),
                Fate::InDoubt | Fate::NotSent => {
                    return Err(self.broken.unwrap_or_else(|| {
                        Error::new(ErrorKind::Internal, "publishing was ended before its end")
                    }));
                }
            }
        }
        Ok(done)
    }
}

impl Done {
    /// What is said of it if replicas are not known to have it.
    pub fn not_replicated(self, why: Arc<str>) -> NotReplicated {
        let is_new = match self {
            Done::Added(_) => true,
            Done::AddedBefore(_) => false,
            Done::Scheduled { is_new, .. } => is_new,
        };
        NotReplicated::new(self.entry(), is_new, why)
    }

    /// The entry there is in the stream.
    pub fn entry(self) -> Option<EntryId> {
        match self {
            Done::Added(id) | Done::AddedBefore(id) => Some(id),
            Done::Scheduled { .. } => None,
        }
    }
}
