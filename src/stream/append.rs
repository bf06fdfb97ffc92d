//! Adding entries to a stream: pipelined, and counted from the answers.

use std::future::{Future, poll_fn};
use std::task::Poll;

use futures_util::future::maybe_done;

use super::connection::{Pool, Who, refusal};
use crate::error::Result;
use crate::event::EntryId;
use crate::fields::Fields;

/// Most entries in one pipeline, and most bytes. While one is answered the next is on its way: what a lost connection
/// leaves in doubt is two of them.
const PIPELINE: usize = 250;
const PIPELINE_BYTES: usize = 512 << 10;

/// What became of entries that were to be added, in their order.
pub(crate) struct Appended {
    /// What Redis said of each that it answered. There is none after the pipeline behind that of the first refusal:
    /// nothing more was sent.
    pub answers: Vec<Result<EntryId>>,
    /// The connection broke: so many after those were sent, and may have been added or not.
    pub in_doubt: usize,
    /// Why there are fewer answers than entries.
    pub broken: Option<crate::Error>,
}

/// What Redis says of the entries of one pipeline.
type Answers = redis::RedisResult<Vec<redis::RedisResult<String>>>;

impl Pool {
    /// Adds entries to `stream` in their order, until one is refused or the connection breaks.
    pub async fn append(&self, stream: &str, entries: &[&Fields]) -> Appended {
        let doing = format!("publishing to {stream:?}");
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
        let send = |entries: &[&Fields]| {
            let (pipe, count) = pipeline(stream, entries);
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
                    appended.broken = Some(refusal(Who::Publisher, &doing, error));
                    return appended;
                }
            };
            for answer in answers {
                let answer = answer
                    .map_err(|error| refusal(Who::Publisher, &doing, error))
                    .and_then(|id| id.parse());
                refused |= answer.is_err();
                appended.answers.push(answer);
            }
            older = newer;
        }
        appended
    }
}

/// The first of `entries` as one pipeline, and how many they are.
fn pipeline(stream: &str, entries: &[&Fields]) -> (redis::Pipeline, usize) {
    let mut pipe = redis::Pipeline::with_capacity(entries.len().min(PIPELINE));
    pipe.ignore_errors();
    let (mut count, mut bytes) = (0, 0);
    for fields in entries.iter().take(PIPELINE) {
        if bytes > PIPELINE_BYTES {
            break;
        }
        pipe.cmd("XADD").arg(stream).arg("*");
        for (name, value) in *fields {
            pipe.arg(name).arg(value);
            bytes += name.len() + value.len();
        }
        count += 1;
    }
    (pipe, count)
}

impl Appended {
    /// The ids of all of them.
    ///
    /// # Errors
    /// The first refusal, or what broke.
    pub fn into_ids(self) -> Result<Vec<EntryId>> {
        let ids = self.answers.into_iter().collect::<Result<_>>()?;
        match self.broken {
            None => Ok(ids),
            Some(error) => Err(error),
        }
    }
}
