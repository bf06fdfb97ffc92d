//! What is said where events are scheduled for a stream that no worker reads: they never come to it.

use std::time::Duration;

use super::text::rough;
use crate::error::Result;
use crate::stream::{Adding, Pool, Readers, StreamKeys};

/// Workers that were there so recently are being restarted.
const RESTART: Duration = Duration::from_secs(5 * 60);
/// What is later than this was not added because nobody does.
const LATE: Duration = Duration::from_secs(60);

/// Why a stream's scheduled events do not come, if that is so: a line for people. Workers that are merely restarting
/// are no reason.
pub(super) async fn warning(pool: &Pool, stream: &str) -> Result<Option<String>> {
    let Adding { readers, overdue } = pool.adding(&StreamKeys::new(stream)).await?;
    let why = match readers {
        Readers::Now => return Ok(None),
        Readers::Never => "no worker has ever read it".to_owned(),
        Readers::Ago(ago) if ago >= RESTART => {
            format!("no worker of it was seen for {}", rough(ago))
        }
        Readers::Ago(_) | Readers::Once if overdue >= LATE => "no worker of it is there".to_owned(),
        Readers::Ago(_) | Readers::Once => return Ok(None),
    };
    let late = match overdue >= LATE {
        true => format!(", and the first has been due for {}", rough(overdue)),
        false => String::new(),
    };
    Ok(Some(format!(
        "{stream}: {why}: its scheduled events come once a worker has it in worker.streams{late}"
    )))
}
