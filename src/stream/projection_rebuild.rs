//! Building a view beside the one that is served, and having it served in its place.

use std::time::Duration;

use redis::Value;

use super::connection::Link;
use super::error::Trouble;
use super::history::literally;
use super::keys::ProjectionKeys;
use super::projection::ActingAs;
use super::reply;
use super::script::{ScriptInvocation, script};
use crate::event::EntryId;

script!(REBUILD, "project_rebuild", behind "common/ids", behind "common/reached", behind "common/projection");

/// What came of beginning a view beside the one that is served.
pub(crate) enum Begun {
    /// Another builds one, for so long at least.
    Busy(String, Duration),
    Yours {
        generation: u64,
        /// The one that is served, 0 if there is none.
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
    Behind {
        at: EntryId,
        served: EntryId,
    },
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
            Some("behind") => {
                let at = |place: usize| EntryId::parse(answer.get(place)?.as_bytes());
                match (at(1), at(2)) {
                    (Some(at), Some(served)) => Ok(Switched::Behind { at, served }),
                    _ => Err(Trouble::garbled(&doing())),
                }
            }
            Some("gone") => Ok(Switched::Gone),
            _ => Err(Trouble::garbled(&doing())),
        }
    }

    /// Deletes keys of views that are neither of these generations nor newer than the last, some at a time. Returns where
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

fn rebuild(who: ActingAs<'_>, step: &str) -> ScriptInvocation<'static> {
    let keys = who.keys;
    let mut call = REBUILD.key(&keys.stream);
    call.key(&keys.checkpoint)
        .key(&keys.rebuild)
        .key(&keys.dead)
        .key(&keys.rebuild_dead)
        .key(&keys.again)
        .key(&keys.reached)
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
