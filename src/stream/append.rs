//! Adding entries to a stream: pipelined, and counted from the answers.

use super::connection::{Pool, Who, refusal};
use crate::error::Result;
use crate::event::EntryId;
use crate::fields::Fields;

/// Most entries in one pipeline, and most bytes: what a lost connection leaves in doubt is one pipeline.
const PIPELINE: usize = 500;
const PIPELINE_BYTES: usize = 1 << 20;

/// What became of entries that were to be added, in their order.
pub(crate) struct Appended {
    /// What Redis said of each that it answered. There is no answer after the pipeline of the first refusal: nothing
    /// more was sent.
    pub answers: Vec<Result<EntryId>>,
    /// The connection broke: so many after those were sent, and may have been added or not.
    pub in_doubt: usize,
    /// Why there are fewer answers than entries.
    pub broken: Option<crate::Error>,
}

impl Pool {
    /// Adds entries to `stream` in their order, until one is refused or the connection breaks.
    pub async fn append(&self, stream: &str, entries: &[&Fields]) -> Appended {
        let doing = format!("publishing to {stream:?}");
        let mut appended = Appended {
            answers: Vec::with_capacity(entries.len()),
            in_doubt: 0,
            broken: None,
        };
        let mut conn = match self.get().await {
            Ok(conn) => conn,
            Err(error) => {
                appended.broken = Some(error);
                return appended;
            }
        };
        let mut rest = entries;
        while !rest.is_empty() {
            let (pipe, count) = pipeline(stream, rest);
            let answers: Vec<redis::RedisResult<String>> = match pipe.query_async(&mut conn).await {
                Ok(answers) => answers,
                Err(error) => {
                    appended.in_doubt = count;
                    appended.broken = Some(refusal(Who::Publisher, &doing, error));
                    return appended;
                }
            };
            let mut refused = false;
            for answer in answers {
                let answer = answer
                    .map_err(|error| refusal(Who::Publisher, &doing, error))
                    .and_then(|id| id.parse());
                refused |= answer.is_err();
                appended.answers.push(answer);
            }
            if refused {
                return appended;
            }
            rest = &rest[count..];
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
