//! Decodes the replies to XREADGROUP in place: what is in them is copied once, into blocks that a few entries share.
//! Nothing else is read this way. The client crate's tree of values costs several allocations an entry. Nor would
//! `redis-protocol` do, the crate kept for decoding without copying: it begins anew with every piece that comes, and its
//! frames cost an allocation a list and two counters a string. `docs/hot-path.md` has the figures.

use std::sync::Arc;

use crate::event::{Entry, EntryId};
use crate::fields::{Block, Fields};

/// Most entries that share a block, which lives until the last of them is settled, and about most bytes.
const ENTRIES: usize = 32;
const BYTES: usize = 64 << 10;
/// The longest string and the longest list Redis can send.
const LONGEST: i64 = i32::MAX as i64;

/// One answer to XREADGROUP.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// Of each stream that has some its name and its entries; nothing if there are none.
    Entries(Vec<(Vec<u8>, Vec<Entry>)>),
    /// The server's error, without the leading `-`.
    Error(String),
}

/// What is no answer to XREADGROUP.
#[derive(Debug, PartialEq)]
pub(super) struct Garbled;

/// Decodes answers out of the pieces in which they arrive.
#[derive(Default)]
pub(super) struct Decoder {
    expected: Expected,
    streams_left: usize,
    entries_left: usize,
    streams: Vec<(Vec<u8>, Vec<Entry>)>,
    block: Block,
    /// Entries of the block: their ids, and which of its strings are theirs.
    open: Vec<(EntryId, u32, u32)>,
    /// After so many bytes of an answer further entries are passed over; None keeps all.
    pub room: Option<usize>,
    kept: usize,
    passes: bool,
    passed: Vec<(usize, EntryId)>,
    names: Vec<Vec<u8>>,
}

/// What comes next.
#[derive(Clone, Copy, Default)]
enum Expected {
    #[default]
    Answer,
    Stream,
    Entry,
    Strings {
        id: EntryId,
        first: u32,
        left: usize,
    },
}

/// Why a piece can't be decoded now.
enum Stop {
    More,
    Garbled,
}

/// Bytes that have arrived, and how many of them are decoded.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Decoder {
    /// Decodes what it can of `bytes` and answers how much of them that was, and the answer once it is whole. What
    /// was not decoded is to be passed again, with more behind it.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<(usize, Option<Reply>), Garbled> {
        let mut cursor = Cursor { bytes, at: 0 };
        loop {
            let decoded = cursor.at;
            match self.step(&mut cursor) {
                Ok(None) => {}
                Ok(reply) => return Ok((cursor.at, reply)),
                Err(Stop::More) => {
                    // A string is decoded for good; all else only together with the rest of its piece.
                    let at = match self.expected {
                        Expected::Strings { .. } => cursor.at,
                        _ => decoded,
                    };
                    return Ok((at, None));
                }
                Err(Stop::Garbled) => return Err(Garbled),
            }
        }
    }

    /// The entries of the last answer that were passed over, by the names of their streams.
    pub fn take_passed(&mut self) -> Vec<(Vec<u8>, Vec<EntryId>)> {
        let mut passed: Vec<(Vec<u8>, Vec<EntryId>)> = Vec::new();
        let mut last = None;
        for (at, id) in self.passed.drain(..) {
            if last.replace(at) != Some(at) {
                passed.push((self.names[at].clone(), Vec::new()));
            }
            passed.last_mut().expect("it was added").1.push(id);
        }
        passed
    }

    fn step(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<Reply>, Stop> {
        match self.expected {
            Expected::Answer => return self.answer(cursor),
            Expected::Stream if self.streams_left == 0 => {
                self.expected = Expected::Answer;
                if !self.passed.is_empty() {
                    self.names = self.streams.iter().map(|(name, _)| name.clone()).collect();
                }
                return Ok(Some(Reply::Entries(std::mem::take(&mut self.streams))));
            }
            Expected::Stream => {
                cursor.list(2)?;
                let name = cursor.string()?;
                self.entries_left = cursor.count()?.unwrap_or(0);
                let room = self.entries_left.min(1 << 12);
                self.streams.push((name.to_vec(), Vec::with_capacity(room)));
                self.streams_left -= 1;
                self.expected = Expected::Entry;
            }
            Expected::Entry if self.entries_left == 0 => {
                self.close_block();
                self.expected = Expected::Stream;
            }
            Expected::Entry => {
                cursor.list(2)?;
                let id = EntryId::parse(cursor.string()?).ok_or(Stop::Garbled)?;
                let left = cursor.count()?.unwrap_or(0);
                if !left.is_multiple_of(2) {
                    return Err(Stop::Garbled);
                }
                self.entries_left -= 1;
                self.passes = self.room.is_some_and(|room| self.kept >= room);
                let first = self.block.count();
                self.expected = Expected::Strings { id, first, left };
            }
            Expected::Strings { id, left: 0, .. } if self.passes => {
                self.passed.push((self.streams.len() - 1, id));
                self.expected = Expected::Entry;
            }
            Expected::Strings { id, first, left: 0 } => {
                self.open.push((id, first, self.block.count()));
                if self.open.len() == ENTRIES || self.block.len() >= BYTES {
                    self.close_block();
                }
                self.expected = Expected::Entry;
            }
            Expected::Strings { ref mut left, .. } => {
                // As many as have arrived: an entry's strings are not a step each.
                while *left > 0 {
                    let string = cursor.string()?;
                    if self.block.len() + string.len() > u32::MAX as usize {
                        return Err(Stop::Garbled);
                    }
                    if !self.passes {
                        self.block.push(string);
                        self.kept += string.len();
                    }
                    *left -= 1;
                }
            }
        }
        Ok(None)
    }

    fn answer(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<Reply>, Stop> {
        match cursor.kind()? {
            b'*' => match cursor.count()? {
                None => Ok(Some(Reply::Entries(Vec::new()))),
                Some(streams) => {
                    self.streams_left = streams;
                    self.kept = 0;
                    self.expected = Expected::Stream;
                    Ok(None)
                }
            },
            b'-' => {
                let line = cursor.line()?;
                let error = String::from_utf8_lossy(&line[1..]).into_owned();
                Ok(Some(Reply::Error(error)))
            }
            _ => Err(Stop::Garbled),
        }
    }

    /// Entries of one block become entries of the stream that came last.
    fn close_block(&mut self) {
        if self.open.is_empty() {
            return;
        }
        // The next block will be about as large.
        let next = Block::with_capacity(self.block.len().min(BYTES), self.block.count() as usize);
        let block = Arc::new(std::mem::replace(&mut self.block, next));
        if let Some((_, entries)) = self.streams.last_mut() {
            entries.extend(self.open.drain(..).map(|(id, first, last)| Entry {
                id,
                fields: Fields::of_block(&block, first, last),
            }));
        }
    }
}

impl<'a> Cursor<'a> {
    fn kind(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::More)
    }

    /// A line, without its end.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or(Stop::More)?;
        self.at += end + 1;
        rest[..end].strip_suffix(b"\r").ok_or(Stop::Garbled)
    }

    /// The number behind `kind`; None for nil.
    fn number(&mut self, kind: u8) -> Result<Option<usize>, Stop> {
        if self.kind()? != kind {
            return Err(Stop::Garbled);
        }
        // No number that is meant has more digits than this, and without an end in sight it is none.
        let rest = &self.bytes[self.at + 1..];
        let mut number: i64 = 0;
        for (at, byte) in rest.iter().take(12).enumerate() {
            match byte {
                b'0'..=b'9' => number = number * 10 + i64::from(byte - b'0'),
                b'-' if at == 0 => {
                    let nil = rest.get(1..4).ok_or(Stop::More)?;
                    self.at += 5;
                    return if nil == b"1\r\n" {
                        Ok(None)
                    } else {
                        Err(Stop::Garbled)
                    };
                }
                b'\r' if at > 0 => {
                    if *rest.get(at + 1).ok_or(Stop::More)? != b'\n' || number > LONGEST {
                        return Err(Stop::Garbled);
                    }
                    self.at += at + 3;
                    return Ok(Some(number as usize));
                }
                _ => return Err(Stop::Garbled),
            }
        }
        Err(if rest.len() < 12 {
            Stop::More
        } else {
            Stop::Garbled
        })
    }

    /// The length of a list; None for nil.
    fn count(&mut self) -> Result<Option<usize>, Stop> {
        self.number(b'*')
    }

    /// The head of a list of this length.
    fn list(&mut self, length: usize) -> Result<(), Stop> {
        if self.count()? == Some(length) {
            Ok(())
        } else {
            Err(Stop::Garbled)
        }
    }

    fn string(&mut self) -> Result<&'a [u8], Stop> {
        let begin = self.at;
        let length = self.number(b'$')?.ok_or(Stop::Garbled)?;
        let Some(string) = self.bytes[self.at..].get(..length + 2) else {
            self.at = begin;
            return Err(Stop::More);
        };
        self.at += length + 2;
        string.strip_suffix(b"\r\n").ok_or(Stop::Garbled)
    }
}

#[cfg(test)]
mod tests;
