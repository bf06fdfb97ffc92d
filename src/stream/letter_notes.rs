//! What is noted of dead letters, beside them: edits, holds, notes, whom they are assigned to, and the errors before the
//! last one.

use redis::Value;

use super::error::{Trouble, Who, refusal};
use super::keys::Keys;
use super::letters::Ticket;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;

script!(
    NOTE,
    "note",
    behind "common/ids",
    behind "common/left",
    behind "common/death",
    behind "common/rights"
);

/// Names of what is noted, as `common/left.lua` has them; the first tells whose notes they are.
const NAMES: [&str; 7] = ["of", "edit", "edited", "note", "hold", "assigned", "errors"];

/// What is noted of a letter, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// Names and values in turn, as MessagePack.
    pub edit: Option<Vec<u8>>,
    /// When, and by whom; so are the next three, the last with what was noted behind it.
    pub edited: Option<String>,
    pub note: Option<String>,
    pub hold: Option<String>,
    pub assigned: Option<String>,
    /// See `common/errors.lua`.
    pub errors: Option<String>,
}

/// What became of noting something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    Done,
    /// The letter is gone.
    Gone,
    /// It is edited already, otherwise than was thought.
    Changed,
}

impl Pool {
    /// What is noted of letters; nothing for those of which there is nothing.
    pub async fn notes(&self, keys: &Keys, tickets: &[Ticket]) -> Result<Vec<Notes>> {
        let doing = format!("reading what is noted of dead letters in {}", keys.notes);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut pipe = redis::Pipeline::with_capacity(tickets.len());
        for ticket in tickets {
            let command = pipe.cmd("HMGET").arg(&keys.notes);
            for name in NAMES {
                command.arg(format!("{} {name}", ticket.id));
            }
        }
        let values: Vec<Value> = pipe
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let parse = |(value, ticket): (Value, &Ticket)| {
            let [of, edit, edited, note, hold, assigned, errors] = reply::tuple(value)?;
            if reply::bytes(of).as_deref() != Some(ticket.mark.as_bytes()) {
                return Some(Notes::default());
            }
            let lossy = |value| Some(String::from_utf8_lossy(&reply::bytes(value)?).into_owned());
            Some(Notes {
                edit: reply::bytes(edit),
                edited: lossy(edited),
                note: lossy(note),
                hold: lossy(hold),
                assigned: lossy(assigned),
                errors: lossy(errors),
            })
        };
        let notes: Option<_> = values.into_iter().zip(tickets).map(parse).collect();
        notes.ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// Notes something of a letter, or forgets it where a value is empty. `edited`: what is to be noted of its edit so
    /// far, empty for none, None for anything.
    pub async fn note(
        &self,
        keys: &Keys,
        ticket: &Ticket,
        edited: Option<&str>,
        values: &[(&str, &[u8])],
    ) -> Result<Noted> {
        let doing = format!("noting something of a dead letter in {}", keys.notes);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut call = NOTE.key(&keys.dead);
        call.key(&keys.notes)
            .key(&keys.kept)
            .arg(ticket.id.to_string())
            .arg(&ticket.mark[..])
            .arg(edited.unwrap_or("*"));
        for (name, value) in values {
            call.arg(*name).arg(*value);
        }
        let value: Value = call
            .invoke_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        match reply::text(value).as_deref() {
            Some("ok") => Ok(Noted::Done),
            Some("gone") => Ok(Noted::Gone),
            Some("changed") => Ok(Noted::Changed),
            _ => Err(Trouble::garbled(&doing).into_error()),
        }
    }
}
