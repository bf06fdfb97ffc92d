//! What a dead letter says, and taking one apart.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::as_json::{as_text, as_time, serialize_fields};
use super::notes::LetterNotes;
use super::reason::BuriedFor;
use crate::codec;
use crate::event::{Entry, EntryId};
use crate::fields::Fields;
use crate::rfc3339;
use crate::stream::{DEATH, Head, Ticket, split_death};

/// A dead letter without its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its id among the dead letters.
    #[serde(serialize_with = "as_text")]
    pub id: EntryId,
    /// The stream the entry was read from.
    pub stream: String,
    /// The event's type; None if the entry has none.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// Why it was buried.
    pub reason: BuriedFor,
    /// The last error; long ones are cut off.
    pub error: String,
    /// How many attempts it had.
    pub attempts: u32,
    /// How often it ran behind its last attempt, in which its worker had died, to find out whether it kills its worker.
    pub crash_checks: u32,
    /// The handler that it was for.
    pub handler: String,
    /// The group that buried it.
    pub group: String,
    /// The id of the entry when it was buried. That of a replayed copy is the copy's.
    pub entry: String,
    /// The consumer that buried it.
    pub consumer: String,
    /// When it was first delivered, by the server's clock.
    #[serde(serialize_with = "as_time")]
    pub first_delivered: SystemTime,
    /// When it was buried, by the server's clock.
    #[serde(serialize_with = "as_time")]
    pub at: SystemTime,
    /// How often it had been replayed before.
    pub replays: u32,
    /// How many fields the entry had.
    pub field_count: usize,
    /// Bytes of the entry and of what is said of it here.
    pub bytes: u64,
    /// What letters that are alike have in common, by [`DeadLetters::groups`](super::DeadLetters::groups).
    pub fingerprint: String,
    /// The schema version of its event.
    #[serde(rename = "schemaversion")]
    pub version: u32,
    /// Its error without what differs among letters that are alike, where that was asked for.
    #[serde(skip)]
    pub(super) masked: Box<str>,
    /// Tells it from another letter that got the same id after a failover.
    #[serde(skip)]
    mark: Box<str>,
}

/// A dead letter with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WholeLetter {
    /// What is said of it.
    #[serde(flatten)]
    pub head: DeadLetter,
    /// The fields of the entry, byte for byte as they were published.
    #[serde(serialize_with = "serialize_fields")]
    pub fields: Fields,
    /// The four fields that the last replay put behind them, `replay.entry` to `replay.by`; none if it was never
    /// replayed.
    #[serde(serialize_with = "serialize_fields")]
    pub replay: Fields,
    /// What is noted of it: an edit, that it is held, the errors before the last one.
    #[serde(flatten)]
    pub notes: LetterNotes,
}

impl DeadLetter {
    /// None if it does not say what every dead letter says.
    pub(super) fn new(stream: &str, head: Head) -> Option<Self> {
        let Head {
            id,
            event_type,
            fields,
            bytes,
            death,
            fingerprint,
            masked,
            version,
        } = head;
        let [
            reason,
            error,
            attempts,
            checks,
            handler,
            _,
            group,
            entry,
            consumer,
            first,
            at,
            replays,
        ]: [String; DEATH.len()] = death.try_into().ok()?;
        let mark = format!("{entry} {at}").into();
        let time = |text: &str| rfc3339::parse(text).unwrap_or_else(|_| id.time());
        Some(DeadLetter {
            id,
            stream: stream.to_owned(),
            event_type,
            attempts: attempts.parse().unwrap_or(0),
            crash_checks: checks.parse().unwrap_or(0),
            first_delivered: time(&first),
            at: time(&at),
            replays: replays.parse().unwrap_or(0),
            field_count: fields,
            bytes,
            fingerprint,
            masked: masked.unwrap_or_default().into(),
            version: version.and_then(|text| text.parse().ok()).unwrap_or(1),
            reason: reason.as_str().into(),
            error,
            handler,
            group,
            entry,
            consumer,
            mark,
        })
    }

    /// How long ago it was buried at this time of the server, by [`DeadLetters::now`](super::DeadLetters::now).
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.at).unwrap_or_default()
    }

    pub(super) fn ticket(&self) -> Ticket {
        Ticket {
            id: self.id,
            mark: self.mark.clone(),
        }
    }
}

impl WholeLetter {
    /// Takes an entry of the dead letters apart; None if it is none. What a worker wrote are the last
    /// fields, whatever the names of those before them.
    ///
    /// Its fingerprint is for whoever has read it to fill in.
    pub(crate) fn parse(entry: Entry, stream: &str) -> Option<Self> {
        let (id, bytes) = (entry.id, entry.size() as u64);
        let mut fields = entry.fields;
        let death = split_death(&mut fields)?;
        // What can't be unpacked is shown as it is.
        let mut fields = codec::unpack(fields).unwrap_or_else(|(fields, _)| fields);
        let replayed = death.last().is_some_and(|replays| replays != "0");
        let replay = if replayed {
            split_replay(&mut fields)
        } else {
            Fields::new()
        };
        let event_type = fields
            .value("type")
            .map(|value| String::from_utf8_lossy(value).into_owned());
        let version = fields
            .value("schemaversion")
            .map(|value| String::from_utf8_lossy(value).into_owned());
        let head = Head {
            id,
            event_type,
            fields: fields.len(),
            bytes,
            death,
            fingerprint: String::new(),
            masked: None,
            version,
        };
        Some(WholeLetter {
            head: DeadLetter::new(stream, head)?,
            fields,
            replay,
            notes: LetterNotes::default(),
        })
    }
}

/// Takes the four fields of a replay off the end, if they are there.
fn split_replay(fields: &mut Fields) -> Fields {
    const NAMES: [&str; 4] = [
        "replay.entry",
        "replay.count",
        "replay.first_delivered",
        "replay.by",
    ];
    let Some(at) = fields.len().checked_sub(NAMES.len()) else {
        return Fields::new();
    };
    let last = fields.iter().skip(at).map(|(name, _)| name);
    if last.eq(NAMES.map(str::as_bytes)) {
        fields.split_off(at)
    } else {
        Fields::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Field = (String, String);

    fn field(name: &str, value: &str) -> Field {
        (name.to_owned(), value.to_owned())
    }

    fn death(replays: &str) -> Vec<Field> {
        let values = [
            "failed",
            "no stock",
            "5",
            "1",
            "order.created",
            "orders",
            "fulfilment",
            "1-0",
            "sh1-1-h-1-a",
            "2026-01-31T12:00:00.000Z",
            "2026-01-31T12:00:09.500Z",
            replays,
        ];
        DEATH
            .iter()
            .zip(values)
            .map(|(name, value)| field(&format!("dead.{name}"), value))
            .collect()
    }

    fn parse(fields: Vec<Field>) -> Option<WholeLetter> {
        let fields = fields.into_iter().collect();
        let id = EntryId { ms: 7, seq: 1 };
        WholeLetter::parse(Entry { id, fields }, "orders")
    }

    #[test]
    fn what_the_worker_wrote_is_told_by_its_place_and_not_by_its_name() {
        // An event may itself be about a dead letter.
        let original = [vec![field("type", "a.b"), field("type", "c.d")], death("9")].concat();
        let letter = parse([original.clone(), death("0")].concat()).unwrap();
        assert_eq!(letter.fields, original);
        assert_eq!(letter.replay, Fields::new());
        assert_eq!(letter.head.event_type.as_deref(), Some("a.b"));
        assert_eq!((letter.head.attempts, letter.head.replays), (5, 0));
        assert_eq!(letter.head.crash_checks, 1);
        // An earlier release did not tell of crash checks.
        let earlier = |fields: Vec<Field>| -> Vec<Field> {
            let is_other = |field: &Field| field.0 != "dead.crash_checks";
            fields.into_iter().filter(is_other).collect()
        };
        let letter = parse([original.clone(), earlier(death("3"))].concat()).unwrap();
        assert_eq!(letter.fields, original);
        assert_eq!((letter.head.attempts, letter.head.replays), (5, 3));
        assert_eq!(
            (letter.head.crash_checks, &letter.head.handler[..]),
            (0, "order.created")
        );
        let letter = parse([original.clone(), death("0")].concat()).unwrap();
        let ran = letter.head.at.duration_since(letter.head.first_delivered);
        assert_eq!(ran.unwrap(), Duration::from_millis(9_500));
    }

    #[test]
    fn what_a_replay_added_is_cut_off_where_there_was_one() {
        let replay = vec![
            field("replay.entry", "1-0"),
            field("replay.count", "1"),
            field("replay.first_delivered", "2026-01-31T12:00:00.000Z"),
            field("replay.by", "alice@ops"),
        ];
        let fields = [vec![field("type", "a.b")], replay.clone()].concat();
        let copy = parse([fields.clone(), death("1")].concat()).unwrap();
        assert_eq!((copy.fields.len(), copy.replay == replay), (1, true));
        let lookalike = parse([fields.clone(), death("0")].concat()).unwrap();
        assert_eq!(lookalike.fields, fields);
        assert!(lookalike.replay.is_empty());
    }

    #[test]
    fn what_no_worker_wrote_is_no_dead_letter() {
        assert_eq!(parse(vec![field("type", "a.b")]), None);
        let mut fields = death("0");
        fields.swap(0, 1);
        assert_eq!(parse(fields), None);
    }
}
