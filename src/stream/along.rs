//! Reading along a public stream without a group: what comes behind a position, and waiting for it.

use redis::Value;

use super::connection::Trouble;
use super::events::entry;
use super::line::Line;
use super::reply;
use super::settle::script;
use crate::error::Result;
use crate::event::{Entry, EntryId};

script!(READ_ALONG, "read_along");

/// What comes behind a position.
#[allow(dead_code)]
pub(crate) struct Along {
    /// All entries that there are stand at or below it, and all that will be, above.
    pub end: EntryId,
    /// How many entries have been added to the stream, up to its end.
    pub added: u64,
    /// Whether all entries behind the position are there that ever were. Else there may be more, and none is here.
    pub is_complete: bool,
    /// The first of them.
    pub entries: Vec<Entry>,
}

impl Line {
    /// Reads entries behind a position, up to which `known` had been added, as far as is known.
    pub async fn read_along(
        &self,
        stream: &str,
        after: EntryId,
        known: Option<u64>,
        most: usize,
    ) -> Result<Along> {
        let doing = format!("reading along {stream:?}");
        let mut line = self.get().await?;
        let mut call = READ_ALONG.key(stream);
        call.arg(after.to_string());
        call.arg(known.map_or(String::new(), |known| known.to_string()));
        let answer: Value = match call.arg(most).invoke_async(&mut line.conn).await {
            Ok(answer) => answer,
            Err(error) => return Err(line.failed(&doing, error).await),
        };
        along(answer).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// Where a stream ends.
    pub async fn end_of(&self, stream: &str) -> Result<Along> {
        self.read_along(stream, EntryId::default(), None, 0).await
    }
}

fn along(answer: Value) -> Option<Along> {
    let [end, added, is_complete, entries] = reply::tuple(answer)?;
    Some(Along {
        end: reply::id(&end)?,
        added: u64::try_from(reply::int(&added)?).ok()?,
        is_complete: reply::int(&is_complete)? == 1,
        entries: reply::array(entries)?
            .into_iter()
            .map(entry)
            .collect::<Option<_>>()?,
    })
}
