//! What is said where events are scheduled for a stream that no worker reads: they never come to it.

use super::text::rough;
use crate::admin::scheduled::unread;
use crate::admin::{Unread, UnreadSchedule};
use crate::error::Result;
use crate::stream::Pool;

/// Why a stream's scheduled events do not come, if that is so.
pub(super) async fn warning(pool: &Pool, stream: &str) -> Result<Option<String>> {
    let unread = unread(pool, stream).await?;
    Ok(unread.map(|unread| line(stream, unread)))
}

/// A line for people.
pub(super) fn line(stream: &str, unread: UnreadSchedule) -> String {
    let why = match unread.why {
        Unread::NeverRead => "no worker has ever read it".to_owned(),
        Unread::NotSeenFor(ago) => format!("no worker of it was seen for {}", rough(ago)),
        Unread::NobodyThere => "no worker of it is there".to_owned(),
    };
    let late = match unread.overdue {
        Some(overdue) => format!(", and the first has been due for {}", rough(overdue)),
        None => String::new(),
    };
    format!(
        "{stream}: {why}: its scheduled events come once a worker has it in worker.streams{late}"
    )
}
