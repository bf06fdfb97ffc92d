//! How far a stream and a group are, and what of the stream is gone: by workers, who trim what all groups have settled and
//! count it, or by others, who may take what nobody has read.

use super::ask::Said;
use crate::event::EntryId;

/// What is known of a stream and a group at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub added: u64,
    pub length: u64,
    /// Trimmed by workers, of what all groups had settled.
    pub settled: u64,
    pub first: Option<EntryId>,
    pub last: Option<EntryId>,
    pub delivered: Option<EntryId>,
    pub read: Option<u64>,
}

impl Progress {
    /// By what Redis says of the stream (XINFO STREAM), of what workers have trimmed, and of the group (one of XINFO
    /// GROUPS). None if it is no stream.
    pub fn of(about: &Said, settled: &Said, group: Option<&Said>) -> Option<Self> {
        let number = |said: Option<&Said>| u64::try_from(said?.number()?).ok();
        let id = |said: Option<&Said>| EntryId::parse(said?.text()?.as_bytes());
        let of_group = |name: &str| group.and_then(|group| group.get(name));
        Some(Progress {
            added: number(about.get("entries-added"))?,
            length: number(about.get("length"))?,
            settled: number(Some(settled)).unwrap_or(0),
            first: id(about.get("recorded-first-entry-id")),
            last: id(about.get("last-generated-id")),
            delivered: id(of_group("last-delivered-id")),
            read: number(of_group("entries-read")),
        })
    }

    pub fn gone(&self) -> u64 {
        self.added.saturating_sub(self.length)
    }

    pub fn gone_by_others(&self) -> u64 {
        self.gone().saturating_sub(self.settled)
    }

    /// How many were removed that the group had not read, as far as it is known.
    pub fn unread(&self) -> u64 {
        let (Some(delivered), Some(last), Some(read)) = (self.delivered, self.last, self.read)
        else {
            return 0;
        };
        let nothing_left = self.length == 0;
        let gap = self.first.is_some_and(|first| first > delivered) || nothing_left;
        match gap && delivered < last {
            true => self.gone().saturating_sub(read),
            false => 0,
        }
    }
}
