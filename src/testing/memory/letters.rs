//! Dead letters in memory: an entry with the fields of its death behind it, as `bury.lua` writes it; and replaying one, as
//! `replay.lua` does.

use std::time::{Duration, SystemTime};

use super::server::Memory;
use crate::event::{Entry, EntryId};
use crate::rfc3339;
use crate::stream::{Burial, Buried, DEATH, Keys, split_death};

/// What a replay puts behind the fields.
const REPLAY: [&str; 4] = [
    "replay.entry",
    "replay.count",
    "replay.first_delivered",
    "replay.by",
];

impl Memory {
    /// As `bury.lua`.
    pub fn bury(&mut self, keys: &Keys, group: &str, delete: bool, burial: &Burial<'_>) -> Buried {
        if let Err(outcome) = self.may_bury(keys, burial) {
            return outcome;
        }
        let there = self.fields(&keys.stream, burial.id);
        let fields = there.unwrap_or_else(|| burial.fields.clone());
        if fields.is_empty() {
            return Buried::Missing;
        }
        let now = self.now_ms();
        let first = self.first_ms(keys, burial.id);
        let first = first.unwrap_or(now.saturating_sub(burial.age.as_millis() as u64));
        let death = [
            burial.reason.to_owned(),
            burial.error.to_owned(),
            burial.attempts.to_string(),
            burial.crash_checks.to_string(),
            burial.handler.to_owned(),
            burial.stream.to_owned(),
            group.to_owned(),
            burial.id.to_string(),
            burial.consumer.to_owned(),
            text(first),
            text(now),
            burial.replays.to_string(),
        ];
        let mut letter = fields;
        for (name, value) in DEATH.iter().zip(death) {
            letter.push(format!("dead.{name}"), value);
        }
        self.add(&keys.dead, letter);
        self.is_buried(keys, burial);
        if delete {
            self.delete(&keys.stream, burial.id);
        }
        Buried::Done
    }

    /// Gives a dead letter back to its group. False if there is none with this id.
    pub fn replay(&mut self, keys: &Keys, id: EntryId, by: &str) -> bool {
        let Some(mut fields) = self.fields(&keys.dead, id) else {
            return false;
        };
        let Some(death) = split_death(&mut fields) else {
            return false;
        };
        let at = |name: &str| {
            let at = DEATH.iter().position(|known| *known == name);
            at.map(|at| death[at].clone()).unwrap_or_default()
        };
        let replays: u32 = at("replays").parse().unwrap_or(0);
        let (mut entry, mut first) = (at("entry"), at("first_delivered"));
        if let Some(from) = fields
            .len()
            .checked_sub(REPLAY.len())
            .filter(|_| replays > 0)
        {
            let before = fields.split_off(from);
            let value = |name| {
                let value = before.value(name).unwrap_or_default();
                String::from_utf8_lossy(value).into_owned()
            };
            (entry, first) = (value(REPLAY[0]), value(REPLAY[2]));
        }
        let values = [entry, (replays + 1).to_string(), first, by.to_owned()];
        for (name, value) in REPLAY.iter().zip(values) {
            fields.push(name, value);
        }
        self.add(&keys.again, fields);
        self.delete(&keys.dead, id);
        true
    }

    /// The dead letters of a group, as they stand there.
    pub fn letters(&self, keys: &Keys) -> Vec<Entry> {
        self.entries(&keys.dead)
    }
}

fn text(ms: u64) -> String {
    rfc3339::millis(SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
}
