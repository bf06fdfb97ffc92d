//! Giving entries to Redis, to be added to a stream now or later: pipelined, and counted from the answers.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::maybe_done;
use redis::{Cmd, Value};

use super::call::Call;
use super::connection::{Pool, Trouble, Who, refusal};
use super::keys::StreamKeys;
use super::reply;
use super::schedule::time;
use super::settle::script;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;
use crate::fields::Fields;

script!(PUBLISH_ONCE, "publish_once");
script!(SCHEDULE, "schedule");

/// Most entries in one pipeline, and most bytes. While one is answered the next is on its way: what a lost connection
/// leaves in doubt is two of them.
const PIPELINE: usize = 250;
const PIPELINE_BYTES: usize = 512 << 10;
/// Most arguments of a script before an entry's fields, and about how many bytes they have besides names and ids.
const BEFORE_FIELDS: (usize, usize) = (6, 128);

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
    },
}

/// What became of entries that were to be added, in their order.
pub(crate) struct Appended {
    /// What Redis said of each that it answered. There is none after the pipeline behind that of the first refusal:
    /// nothing more was sent.
    pub answers: Vec<Result<Done>>,
    /// The connection broke: so many after those were sent, and may have been dealt with or not.
    pub in_doubt: usize,
    /// Why there are fewer answers than entries.
    pub broken: Option<crate::Error>,
}

/// One entry, and its event's id.
pub(crate) struct Addition<'a> {
    pub id: Cow<'a, str>,
    pub fields: &'a Fields,
}

/// What Redis says of the entries of one pipeline.
type Answers = redis::RedisResult<Vec<redis::RedisResult<Value>>>;

impl Pool {
    /// Gives entries of `stream` to Redis in their order, until one is refused or the connection breaks.
    pub async fn append(&self, stream: &str, how: &How, entries: &[Addition<'_>]) -> Appended {
        let doing = how.doing(stream);
        let keys = StreamKeys::new(stream);
        let mut appended = Appended {
            answers: Vec::with_capacity(entries.len()),
            in_doubt: 0,
            broken: None,
        };
        let conn = match self.get().await {
            Ok(conn) => conn,
            Err(error) => {
                appended.broken = Some(error);
                return appended;
            }
        };
        let send = |entries: &[Addition<'_>]| {
            let (pipe, count) = pipeline(&keys, how, entries);
            let mut conn = (*conn).clone();
            let answers = maybe_done(async move { pipe.query_async(&mut conn).await });
            (count, Box::pin(answers))
        };
        let mut rest = entries;
        let mut take = |refused: bool| {
            let (count, answers) = (!refused && !rest.is_empty()).then(|| send(rest))?;
            rest = &rest[count..];
            Some((count, answers))
        };
        let mut refused = false;
        let mut older = take(refused);
        while let Some((count, mut answers)) = older {
            let mut newer = take(refused);
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
            let answers = match answers {
                Ok(answers) => answers,
                Err(error) => {
                    appended.in_doubt = count + newer.map_or(0, |(count, _)| count);
                    appended.broken = Some(refusal(how.who(), &doing, error));
                    return appended;
                }
            };
            for answer in answers {
                let answer = answer
                    .map_err(|error| refusal(how.who(), &doing, error))
                    .and_then(|answer| how.done(answer, &entries[appended.answers.len()], &doing));
                refused |= answer.is_err();
                appended.answers.push(answer);
            }
            older = newer;
        }
        appended
    }
}

/// The first of `entries` as one pipeline, and how many they are.
fn pipeline(keys: &StreamKeys, how: &How, entries: &[Addition<'_>]) -> (redis::Pipeline, usize) {
    let mut pipe = redis::Pipeline::with_capacity(entries.len().min(PIPELINE) + 1);
    pipe.ignore_errors();
    if let Some(script) = how.script() {
        pipe.load_script(script).ignore();
    }
    let (mut count, mut bytes) = (0, 0);
    for entry in entries.iter().take(PIPELINE) {
        if bytes > PIPELINE_BYTES {
            break;
        }
        pipe.add_command(how.request(keys, entry));
        bytes += entry.fields.size();
        count += 1;
    }
    (pipe, count)
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
            How::At(_) | How::After(_) => format!("scheduling events of {stream:?}"),
        }
    }

    /// Who is told of an error: there are more keys than the stream in the way of a script.
    fn who(&self) -> Who {
        match self {
            How::Now => Who::Publisher,
            _ => Who::Operator,
        }
    }

    fn script(&self) -> Option<&'static redis::Script> {
        match self {
            How::Now => None,
            How::Once(_) => Some(&PUBLISH_ONCE),
            How::At(_) | How::After(_) => Some(&SCHEDULE),
        }
    }

    /// The request for an entry.
    fn request(&self, keys: &StreamKeys, entry: &Addition<'_>) -> Cmd {
        let Addition { id, fields } = entry;
        let call = |script, of: usize| {
            let names = of * keys.stream.len() + id.len();
            let arguments = BEFORE_FIELDS.0 + 2 * fields.len();
            Call::of(
                script,
                of,
                (arguments, BEFORE_FIELDS.1 + names + fields.size()),
            )
        };
        let schedule = |due: Option<u64>, delay: Duration| {
            let mut call = call(&SCHEDULE, 3);
            call.arg(&keys.stream)
                .arg(&keys.scheduled)
                .arg(&keys.events);
            call.arg(&**id)
                .arg(due.map_or(String::new(), |due| due.to_string()))
                .arg(delay.as_millis() as u64);
            call
        };
        let mut call = match *self {
            How::Now => return xadd(&keys.stream, fields),
            How::At(due) => schedule(Some(due), Duration::ZERO),
            How::After(delay) => schedule(None, delay),
            How::Once(window) => {
                let mut call = call(&PUBLISH_ONCE, 2);
                call.arg(&keys.stream).arg(keys.published(id));
                call.arg(window.as_millis() as u64);
                call
            }
        };
        for (name, value) in *fields {
            call.arg(name).arg(value);
        }
        call.into_command()
    }

    /// What the answer to that request says.
    fn done(&self, answer: Value, entry: &Addition<'_>, doing: &str) -> Result<Done> {
        let done = self
            .parse(answer)
            .ok_or_else(|| Trouble::garbled(doing).into_error())?;
        match (self, done) {
            (How::At(asked), Done::Scheduled { due_ms, .. }) if *asked != due_ms => {
                let at = humantime::format_rfc3339_millis(time(due_ms));
                let message = format!(
                    "an event with the id {:?} is scheduled for {at} already: cancel that one first",
                    entry.id
                );
                Err(Error::new(ErrorKind::Exists, message))
            }
            (_, done) => Ok(done),
        }
    }

    fn parse(&self, answer: Value) -> Option<Done> {
        if let How::Now = self {
            return reply::id(&answer).map(Done::Added);
        }
        let [what, is_new] = reply::tuple(answer)?;
        let is_new = reply::int(&is_new)? == 1;
        match self {
            How::At(_) | How::After(_) => Some(Done::Scheduled {
                due_ms: reply::text(what)?.parse::<f64>().ok()? as u64,
                is_new,
            }),
            _ if is_new => reply::id(&what).map(Done::Added),
            _ => reply::id(&what).map(Done::AddedBefore),
        }
    }
}

impl Appended {
    /// What Redis did with all of them.
    ///
    /// # Errors
    /// The first refusal, or what broke.
    pub fn into_done(self) -> Result<Vec<Done>> {
        let done = self.answers.into_iter().collect::<Result<_>>()?;
        match self.broken {
            None => Ok(done),
            Some(error) => Err(error),
        }
    }
}

impl Done {
    /// The entry there is in the stream.
    pub fn entry(self) -> Option<EntryId> {
        match self {
            Done::Added(id) | Done::AddedBefore(id) => Some(id),
            Done::Scheduled { .. } => None,
        }
    }
}
