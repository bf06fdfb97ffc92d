//! Waiting until replicas have what was written.
//!
//! WAIT covers what its own connection wrote, and everything behind it on that connection waits as well. So what is to be on
//! replicas goes over a connection of its own to each server, in turns: what comes while a turn is under way goes with the
//! next one, in one pipeline that ends in one WAIT. However many publish and however long replicas take, nobody waits for
//! more than two turns, and nobody who does not ask for replicas waits at all.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, Value};
use tokio::sync::oneshot;

use super::reply;
use crate::duration;
use crate::error::{Error, ErrorKind};
use crate::event::EntryId;
use crate::sync::lock;

/// Most requests in one turn, unless a single caller has more.
const MOST: usize = 1000;

/// Why replicas are not known to have what was stored before.
pub(super) const NOT_WRITTEN: &str =
    "it was stored before, and the server takes no write now by which its replicas could be asked";

/// The longest wait in ms: well below what an answer may take.
const LONGEST: u128 = 5_000;

/// How many replicas are to have what is written, and how long that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replicas {
    pub count: u32,
    pub timeout: Duration,
}

/// An event is stored, and fewer replicas are known to have it than were asked for: a failover may lose it. To be taken
/// from an [`Error`] of [`ErrorKind::NotReplicated`].
///
/// It is not to be published again as if it were not there, unless once within a window ([`Publisher::publish_once`]) or as
/// the same append: a repeat of those writes no second one, and waits for the replicas anew.
///
/// ```no_run
/// # use streamhand::{Envelope, NotReplicated, Publisher};
/// # async fn example(publisher: Publisher, event: Envelope) -> streamhand::Result<()> {
/// match publisher.replicas(1).publish_envelope("orders", event).await {
///     Ok(entry) => println!("{entry} is at two servers"),
///     Err(error) => match NotReplicated::of(&error) {
///         Some(stored) => println!("{:?} is at one: {error}", stored.entry()),
///         None => return Err(error),
///     },
/// }
/// # Ok(()) }
/// ```
///
/// [`Publisher::publish_once`]: crate::Publisher::publish_once
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReplicated {
    entry: Option<EntryId>,
    is_new: bool,
    why: Arc<str>,
}

impl NotReplicated {
    pub(crate) fn new(entry: Option<EntryId>, is_new: bool, why: Arc<str>) -> Self {
        NotReplicated { entry, is_new, why }
    }

    /// What an error says of it, if it is of that kind.
    pub fn of(error: &Error) -> Option<&NotReplicated> {
        std::error::Error::source(error)?.downcast_ref()
    }

    /// The entry that the event is; none if it is scheduled, or of an aggregate.
    pub fn entry(&self) -> Option<EntryId> {
        self.entry
    }

    /// False if the event had been published or scheduled before, and was not again.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    pub(crate) fn into_error(self) -> Error {
        Error::new(ErrorKind::NotReplicated, self.to_string()).with_source(self)
    }
}

impl fmt::Display for NotReplicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            Some(entry) => write!(f, "stored as {entry}, not replicated: {}", self.why),
            None => write!(f, "stored, not replicated: {}", self.why),
        }
    }
}

impl std::error::Error for NotReplicated {}

impl Replicas {
    /// These, if any are asked for.
    pub fn asked(self) -> Option<Self> {
        (self.count > 0).then_some(self)
    }

    /// Why an answer to WAIT does not say that enough of them have it.
    pub fn lacking(&self, answer: &RedisResult<Value>) -> Option<Arc<str>> {
        let Replicas { count, timeout } = self;
        let why = match answer {
            Ok(value) => match reply::int(value) {
                Some(have) if have >= i64::from(*count) => return None,
                Some(have) => format!(
                    "{have} of the {count} replicas that were asked for had it within {}",
                    duration::format(*timeout)
                ),
                None => "the answer to WAIT can't be understood".to_owned(),
            },
            Err(error) => format!("the server does not say whether replicas have it: {error}"),
        };
        Some(why.into())
    }
}

/// What goes over one connection in turns.
#[derive(Default)]
pub(super) struct Turns(Mutex<State>);

#[derive(Default)]
struct State {
    is_under_way: bool,
    waiting: VecDeque<Request>,
}

struct Request {
    pipe: Pipeline,
    replicas: Replicas,
    reply: oneshot::Sender<RedisResult<(Vec<Value>, Value)>>,
}

impl Turns {
    /// The answers to these commands, which go with the next turn, and the one to WAIT.
    pub async fn ask(
        self: &Arc<Self>,
        conn: &MultiplexedConnection,
        pipe: Pipeline,
        replicas: Replicas,
    ) -> RedisResult<(Vec<Value>, Value)> {
        let (reply, told) = oneshot::channel();
        let is_first = {
            let mut state = lock(&self.0);
            state.waiting.push_back(Request {
                pipe,
                replicas,
                reply,
            });
            !std::mem::replace(&mut state.is_under_way, true)
        };
        // Nobody's turn ends with whoever began it.
        if is_first {
            let until_broken_off = BrokenOff(Some(self.clone()));
            let taking = self.clone().take_turns(conn.clone(), until_broken_off);
            tokio::spawn(taking);
        }
        let gone = |_| Err(io::Error::from(io::ErrorKind::NotConnected).into());
        told.await.unwrap_or_else(gone)
    }

    /// Whether something is asked that is not answered.
    pub fn are_under_way(&self) -> bool {
        lock(&self.0).is_under_way
    }

    async fn take_turns(
        self: Arc<Self>,
        mut conn: MultiplexedConnection,
        mut broken_off: BrokenOff,
    ) {
        while let Some(requests) = self.next() {
            let replicas = requests[0].replicas;
            let commands = requests.iter().flat_map(|request| request.pipe.cmd_iter());
            let mut all = Pipeline::new();
            for command in commands {
                all.add_command(command.clone());
            }
            let timeout = replicas.timeout.as_millis().clamp(1, LONGEST) as u64;
            all.cmd("WAIT").arg(replicas.count).arg(timeout);
            let count = all.cmd_iter().count();
            match conn.send_packed_commands(&all, 0, count).await {
                Ok(values) if values.len() == count => tell(requests, values),
                Ok(_) => {
                    let error = (redis::ErrorKind::Parse, "another number of answers");
                    for request in requests {
                        let _ = request.reply.send(Err(error.into()));
                    }
                }
                Err(error) => {
                    for request in requests {
                        let _ = request.reply.send(Err(error.clone()));
                    }
                }
            }
        }
        broken_off.0 = None;
    }

    /// Those of the next turn. Who has given up is passed over.
    fn next(&self) -> Option<Vec<Request>> {
        let mut state = lock(&self.0);
        let State {
            is_under_way,
            waiting,
        } = &mut *state;
        waiting.retain(|request| !request.reply.is_closed());
        let Some(replicas) = waiting.front().map(|request| request.replicas) else {
            *is_under_way = false;
            return None;
        };
        let mut room = MOST;
        let mut goes = |request: &Request| {
            let size = request.pipe.cmd_iter().count();
            let goes = request.replicas == replicas && (room == MOST || size <= room);
            room = room.saturating_sub(size);
            goes
        };
        let count = waiting.iter().take_while(|request| goes(request)).count();
        Some(waiting.drain(..count).collect())
    }
}

/// Whoever takes turns ends with its runtime, which need not be everybody's: those that wait are told, and the next one who asks
/// begins anew.
struct BrokenOff(Option<Arc<Turns>>);

impl Drop for BrokenOff {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            let mut state = lock(&turns.0);
            state.is_under_way = false;
            state.waiting.clear();
        }
    }
}

/// Gives everybody the answers to what they asked, and the last one.
fn tell(requests: Vec<Request>, values: Vec<Value>) {
    let mut values = values;
    let waited = values.pop().unwrap_or(Value::Nil);
    let mut values = values.into_iter();
    for request in requests {
        let its = values.by_ref().take(request.pipe.cmd_iter().count());
        let _ = request.reply.send(Ok((its.collect(), waited.clone())));
    }
}

/// Of two answers to WAIT the one that says less.
pub(super) fn lesser(one: Value, other: Value) -> Value {
    match (&one, &other) {
        (Value::Int(a), Value::Int(b)) if b < a => other,
        (Value::Int(_), Value::Int(_)) => one,
        (Value::Int(_), _) => other,
        _ => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(
        turns: &Turns,
        commands: usize,
        count: u32,
    ) -> oneshot::Receiver<RedisResult<(Vec<Value>, Value)>> {
        let (reply, told) = oneshot::channel();
        let mut pipe = Pipeline::new();
        for _ in 0..commands {
            pipe.cmd("XADD");
        }
        let replicas = Replicas {
            count,
            timeout: Duration::from_secs(1),
        };
        lock(&turns.0).waiting.push_back(Request {
            pipe,
            replicas,
            reply,
        });
        told
    }

    #[test]
    fn a_turn_takes_all_that_ask_the_same_and_fit() {
        let turns = Turns::default();
        let all = [(1, 1), (MOST, 1), (2, 1), (3, 1), (1, 2)]
            .map(|(commands, count)| request(&turns, commands, count));
        let gave_up = request(&turns, 1, 2);
        drop(gave_up);
        let sizes = |requests: Option<Vec<Request>>| {
            requests.map(|all| {
                all.iter()
                    .map(|one| one.pipe.cmd_iter().count())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(sizes(turns.next()), Some(vec![1]));
        assert_eq!(sizes(turns.next()), Some(vec![MOST]));
        assert_eq!(sizes(turns.next()), Some(vec![2, 3]));
        assert_eq!(sizes(turns.next()), Some(vec![1]));
        assert_eq!(sizes(turns.next()), None);
        drop(all);
    }

    #[test]
    fn everybody_is_told_their_own_answers_and_what_replicas_have() {
        let turns = Turns::default();
        let mut told = [request(&turns, 2, 1), request(&turns, 1, 1)];
        let values = [1, 2, 3, 7].map(Value::Int);
        tell(turns.next().unwrap(), values.to_vec());
        let mut said = |at: usize| told[at].try_recv().unwrap().unwrap();
        assert_eq!(said(0), (vec![Value::Int(1), Value::Int(2)], Value::Int(7)));
        assert_eq!(said(1), (vec![Value::Int(3)], Value::Int(7)));
    }

    #[test]
    fn turns_that_are_broken_off_leave_nobody_waiting() {
        let turns = Arc::new(Turns::default());
        let mut told = request(&turns, 1, 1);
        lock(&turns.0).is_under_way = true;
        drop(BrokenOff(Some(turns.clone())));
        assert!(told.try_recv().is_err() && !turns.are_under_way());
    }

    #[test]
    fn it_is_told_how_many_have_it_or_why_that_is_not_known() {
        let replicas = Replicas {
            count: 2,
            timeout: Duration::from_secs(1),
        };
        assert_eq!(replicas.lacking(&Ok(Value::Int(2))), None);
        let why = replicas.lacking(&Ok(Value::Int(1))).unwrap();
        assert_eq!(
            &*why,
            "1 of the 2 replicas that were asked for had it within 1s"
        );
        let error = NotReplicated::new(EntryId::parse(b"1-2"), true, why).into_error();
        assert!(
            error
                .to_string()
                .starts_with("stored as 1-2, not replicated: 1 of the 2"),
            "{error}"
        );
        assert_eq!(
            NotReplicated::of(&error).unwrap().entry(),
            EntryId::parse(b"1-2")
        );
        assert!(replicas.lacking(&Ok(Value::Nil)).is_some());
        assert_eq!(lesser(Value::Int(2), Value::Int(1)), Value::Int(1));
        assert_eq!(lesser(Value::Int(2), Value::Nil), Value::Nil);
    }
}
