//! Which of several copies of an event runs.

use std::time::Duration;

use redis::Value;

use super::call::at_once;
use super::connection::Link;
use super::error::Trouble;
use super::keys::Keys;
use super::obstacle::need;
use super::reply;
use super::script::script;
use crate::event::EntryId;
use crate::identity::Identity;

script!(CLAIM, "claim");

/// Most entries in one call: each has three arguments and a key.
const CHUNK: usize = at_once(4);
/// The shortest time a claim is kept: it is void as soon as its entry is settled, and only has to go some time.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// An entry, which event it is, and how long the event is known once it is done.
pub(crate) struct Claim<'a> {
    pub id: EntryId,
    pub event: &'a Identity,
    pub lasts: Duration,
}

/// What a claim comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    Run,
    /// The event has succeeded.
    Done,
    /// The same, with other data.
    DoneDiffers,
    /// Another copy of it is with a worker, or waits to be tried again.
    Wait,
}

impl Link {
    /// Claims the events of entries of one stream; answers for each what that comes to.
    pub async fn claim(
        &mut self,
        keys: &Keys,
        group: &str,
        claims: &[Claim<'_>],
    ) -> Result<Vec<Claimed>, Trouble> {
        let doing = || format!("looking for copies of events of {}", keys.stream);
        let mut claimed = Vec::with_capacity(claims.len());
        for chunk in claims.chunks(CHUNK) {
            let mut call = CLAIM.key(&keys.stream);
            call.arg(group);
            for claim in chunk {
                call.key(keys.seen(claim.event.which()))
                    .arg(claim.id.to_string())
                    .arg(claim.lasts.max(KEPT).as_millis() as u64)
                    .arg(claim.event.data());
            }
            let answer = call.invoke_async(&mut self.conn).await;
            let mark = keys.seen(chunk[0].event.which());
            let needs = || {
                vec![
                    need(&keys.stream, "stream", "XPENDING"),
                    need(&mark, "", "GET SET"),
                ]
            };
            let value: Value = self.answered(doing, answer, needs).await?;
            for answer in reply::array(value).unwrap_or_default() {
                claimed.push(match reply::bytes(answer).as_deref() {
                    Some(b"run") => Claimed::Run,
                    Some(b"done") => Claimed::Done,
                    Some(b"differs") => Claimed::DoneDiffers,
                    Some(b"wait") => Claimed::Wait,
                    _ => return Err(Trouble::garbled(&doing())),
                });
            }
        }
        match claimed.len() == claims.len() {
            true => Ok(claimed),
            false => Err(Trouble::garbled(&doing())),
        }
    }
}
