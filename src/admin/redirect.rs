//! Sending dead letters to another stream: of each a new event that the letter caused, for whoever reads that one. The letter
//! goes once its event is there.
//!
//! The two streams can be on two servers, so this is two steps. The event's id follows from the letter, and it is published
//! once: stopped between the two, or repeated, it makes one event of a letter.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Admin, check_stream};
use crate::dead_letters::{DeadLetter, Selection};
use crate::error::{ErrorKind, Result};
use crate::event::{Entry, Envelope};
use crate::fields::Fields;
use crate::publisher::Publisher;
use crate::rfc3339;

/// What ids of such events are made in: UUIDv5 of `streamhand:redirected` in the namespace of URLs.
const NAMESPACE: Uuid = Uuid::from_u128(0x6c5f_0c1b_55fb_5c0e_9d3f_0f0e_2c87_61a4);

/// What became of letters that were sent to another stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Redirected {
    /// Events that were published, or had been by an earlier try, and whose letters are gone.
    pub sent: u64,
    /// Letters that are held, and stay.
    pub held: u64,
    /// Letters that are no events, and stay.
    pub no_events: u64,
    /// Letters that were gone when their turn came.
    pub gone: u64,
}

impl Admin {
    /// Sends letters to `stream`, as new events, at most `rate` a second, and as they are edited. Each has an id of its own,
    /// the group as its source, the letter's event as its `causationid`, and `redirected.from`, `redirected.by`; all else is
    /// the letter's. `progress` is told what has been done so far.
    ///
    /// # Errors
    /// If no stream can have this name, or Redis can't be reached; what was sent by then is sent, and to do it again does no
    /// harm within a day.
    ///
    /// ```no_run
    /// use streamhand::admin::Admin;
    /// use streamhand::dead_letters::{Filter, Reason};
    ///
    /// # async fn example(admin: &Admin) -> streamhand::Result<()> {
    /// let unhandled = admin.dead_letters()?.select(Filter::new().reason(Reason::Unhandled)).await?;
    /// let sent = admin.redirect(&unhandled, "orders-v2", "alice", None, |_| ()).await?;
    /// println!("{} are on orders-v2", sent.sent);
    /// # Ok(()) }
    /// ```
    pub async fn redirect(
        &self,
        letters: &Selection,
        stream: &str,
        by: &str,
        rate: Option<NonZeroU32>,
        mut progress: impl FnMut(&Redirected),
    ) -> Result<Redirected> {
        check_stream(stream)?;
        let publisher = Publisher::with_pool(self.pool.clone());
        let (began, mut done) = (Instant::now(), Redirected::default());
        let mut letters = letters.letters();
        while let Some(letter) = letters.next().await? {
            if let Some(rate) = rate {
                let due = done.sent as f64 / f64::from(rate.get());
                tokio::time::sleep_until(began + Duration::from_secs_f64(due)).await;
            }
            self.redirect_one(&publisher, &letter, stream, by, &mut done)
                .await?;
            progress(&done);
        }
        Ok(done)
    }

    async fn redirect_one(
        &self,
        publisher: &Publisher,
        letter: &DeadLetter,
        stream: &str,
        by: &str,
        done: &mut Redirected,
    ) -> Result<()> {
        let edit = match self.edit(&letter.stream, letter.id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                done.gone += 1;
                return Ok(());
            }
            edit => edit?,
        };
        if edit.letter().notes.held.is_some() {
            done.held += 1;
            return Ok(());
        }
        let Ok(envelope) = edit.envelope() else {
            done.no_events += 1;
            return Ok(());
        };
        let caused = caused(self.group(), letter, &envelope, by);
        publisher
            .publish_envelope_once(stream, caused, Publisher::ONCE_WITHIN)
            .await?;
        let this = self.dead_letters()?.pick(&letter.stream, vec![letter.id])?;
        let purged = this.purge_letters(|_| ()).await?;
        done.sent += purged.deleted;
        done.held += purged.held;
        done.gone += purged.gone;
        Ok(())
    }
}

/// The event that a letter causes.
fn caused(group: &str, letter: &DeadLetter, event: &Envelope, by: &str) -> Envelope {
    let cause = event.id();
    let of = format!(
        "{}\0{group}\0{}\0{}",
        letter.stream,
        letter.entry,
        rfc3339::millis(letter.at)
    );
    let id = Uuid::new_v5(&NAMESPACE, of.as_bytes()).to_string();
    let correlation = event.field("correlationid").filter(|id| !id.is_empty());
    let correlation = correlation.unwrap_or(&cause).to_owned();
    let from = format!("{} {}", letter.stream, letter.entry);
    let anew = [
        ("id", &id[..]),
        ("source", group),
        ("causationid", &cause),
        ("correlationid", &correlation),
        ("redirected.from", &from),
        ("redirected.by", by),
    ];
    let mut fields = Fields::new();
    for (name, value) in event.fields() {
        let is_anew = anew.iter().any(|(known, _)| name == known.as_bytes());
        if !is_anew && !name.starts_with(b"edited.") {
            fields.push(name, value);
        }
    }
    for (name, value) in anew {
        fields.push(name, value);
    }
    let entry = Entry {
        id: letter.id,
        fields,
    };
    // It was one, and its type still stands there.
    Envelope::decode(entry).unwrap_or_else(|_| event.clone())
}
