//! What is noted of a dead letter. It stands beside the letter, which stays as it was buried, and goes with it.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::as_json::{as_time, serialize_fields};
use crate::event::EntryId;
use crate::fields::Fields;
use crate::rfc3339;
use crate::stream::Notes;

/// What is noted of a letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LetterNotes {
    /// What a replay puts in the place of original fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<Edit>,
    /// What somebody noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<Remark>,
    /// It is held: neither purged nor dropped because `keep` is over. The text is why, where that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Remark>,
    /// Whom it is assigned to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Remark>,
    /// Its last errors, five at most, the last one first; none where it had only one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<EarlierError>,
}

/// Fields that were edited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Edit {
    /// Who edited it last.
    pub by: String,
    /// When, by the server's clock.
    #[serde(serialize_with = "as_time")]
    pub at: SystemTime,
    /// The fields that are replaced or added, with their new values.
    #[serde(serialize_with = "serialize_fields")]
    pub fields: Fields,
}

/// A text, who wrote it, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Remark {
    /// What it says.
    pub text: String,
    /// Who wrote it.
    pub by: String,
    /// When, by the server's clock.
    #[serde(serialize_with = "as_time")]
    pub at: SystemTime,
}

/// An error that an attempt ended in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EarlierError {
    /// The attempt; None where an earlier release noted it.
    pub attempt: Option<u32>,
    /// When, by the server's clock; None where an earlier release noted it.
    #[serde(serialize_with = "some_time")]
    pub at: Option<SystemTime>,
    /// So often in a row it was this error.
    pub times: u32,
    /// The error; long ones are cut off.
    pub error: String,
}

impl LetterNotes {
    pub(super) fn of(notes: Notes) -> Self {
        let remark = |kept: Option<String>| {
            let kept = kept?;
            let (head, text) = kept.split_once('\n').unwrap_or((&kept, ""));
            let (at, by) = who(head)?;
            Some(Remark {
                text: text.to_owned(),
                by,
                at,
            })
        };
        let edit = notes.edit.and_then(crate::codec::packed);
        LetterNotes {
            edit: edit.and_then(|fields| {
                let (at, by) = who(&notes.edited.unwrap_or_default())?;
                Some(Edit { by, at, fields })
            }),
            note: remark(notes.note),
            held: remark(notes.hold),
            assigned: remark(notes.assigned),
            errors: errors(&notes.errors.unwrap_or_default()),
        }
    }

    /// Whether nothing is noted.
    pub fn is_empty(&self) -> bool {
        *self == LetterNotes::default()
    }
}

/// `2026-01-31T12:00:00.000Z alice@ops`
pub(super) fn written_at(at: SystemTime, by: &str) -> String {
    let by = by.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{} {by}", rfc3339::millis(at))
}

fn who(head: &str) -> Option<(SystemTime, String)> {
    let (at, by) = head.split_once(' ')?;
    Some((rfc3339::parse(at).ok()?, by.to_owned()))
}

/// Names and values in turn, as the script unpacks them.
pub(super) fn packed(fields: &Fields) -> Vec<u8> {
    let mut packed = Vec::new();
    let length = |bytes: usize, small: u8, of16: u8, of32: u8| -> Vec<u8> {
        match bytes {
            0..=15 if small == 0x90 => vec![small | bytes as u8],
            0..=31 if small == 0xa0 => vec![small | bytes as u8],
            0..=0xffff => [&[of16][..], &(bytes as u16).to_be_bytes()].concat(),
            _ => [&[of32][..], &(bytes as u32).to_be_bytes()].concat(),
        }
    };
    packed.extend(length(fields.len() * 2, 0x90, 0xdc, 0xdd));
    for string in fields.iter().flat_map(|(name, value)| [name, value]) {
        packed.extend(length(string.len(), 0xa0, 0xda, 0xdb));
        packed.extend_from_slice(string);
    }
    packed
}

/// The errors of a letter, as `common/errors.lua` joins them.
fn errors(kept: &str) -> Vec<EarlierError> {
    let one = |part: &str| {
        let mut words = part.splitn(4, ' ');
        let attempt: u32 = words.next()?.parse().ok()?;
        let at: u64 = words.next()?.parse().ok()?;
        Some(EarlierError {
            attempt: (at > 0).then_some(attempt),
            at: (at > 0).then(|| EntryId { ms: at, seq: 0 }.time()),
            times: words.next()?.parse().ok()?,
            error: words.next().unwrap_or_default().to_owned(),
        })
    };
    kept.split('\u{1e}').filter_map(one).collect()
}

fn some_time<S: Serializer>(at: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => as_time(at, to),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_packed_as_it_is_unpacked() {
        let long = "x".repeat(70_000);
        let mut fields = Fields::new();
        for (name, value) in [("data", &b"\x82\xff\x00"[..]), ("note", long.as_bytes())] {
            fields.push(name, value);
        }
        for n in 0..20 {
            fields.push(format!("n{n}"), "y".repeat(n * 20));
        }
        assert_eq!(crate::codec::packed(packed(&fields)), Some(fields));
    }

    #[test]
    fn errors_are_read_as_the_scripts_join_them() {
        let read = errors(
            "3 1732360000000 2 no stock: a b\u{1e}1 0 1 by an earlier release\u{1e}nonsense",
        );
        assert_eq!(read.len(), 2);
        assert_eq!(
            (read[0].attempt, read[0].times, &read[0].error[..]),
            (Some(3), 2, "no stock: a b")
        );
        assert_eq!((read[1].attempt, read[1].at), (None, None));
        assert!(errors("").is_empty());
    }

    #[test]
    fn a_remark_says_who_and_when() {
        let at = EntryId {
            ms: 1_732_360_000_000,
            seq: 0,
        }
        .time();
        let head = written_at(at, "alice\n of ops");
        assert_eq!(who(&head), Some((at, "alice of ops".to_owned())));
        let notes = LetterNotes::of(Notes {
            note: Some(format!("{head}\nlooks like\nthe old price")),
            hold: Some(head),
            ..Notes::default()
        });
        assert_eq!(notes.note.unwrap().text, "looks like\nthe old price");
        assert_eq!(notes.held.unwrap().text, "");
    }
}
