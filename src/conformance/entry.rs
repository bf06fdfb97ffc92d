//! One entry against the rules. What comes of it is asked of the code that reads entries for workers; what is beside
//! that is looked for here.

use std::borrow::Cow;

use super::data;
use super::rule::Rule;
use crate::codec::{self, DecodeError};
use crate::event::{Entry, Envelope};
use crate::event_type;
use crate::fields::Fields;
use crate::names::shown;
use crate::partition;
use crate::rfc3339::{self, NoTime};
use crate::traceparent;

/// Earlier ids are not from a clock: the year 2010.
const FIRST_MS: u64 = 1_262_304_000_000;
/// So much may clocks differ.
const AHEAD_MS: u64 = 3_600_000;

/// What an entry breaks, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub rule: Rule,
    pub wrong: String,
}

/// Where an entry was found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Of a topic: which partition it stands in, and how many there are.
    pub partition: Option<(u32, u32)>,
    /// The server's time in ms; 0 if ids are not looked at.
    pub now_ms: u64,
}

/// Which rules an entry breaks, and the event that it is.
pub(crate) fn judge(entry: &Entry, found: Found) -> (Vec<Broken>, Option<Envelope>) {
    let mut broken = Vec::new();
    if found.now_ms > 0 && !(FIRST_MS..=found.now_ms + AHEAD_MS).contains(&entry.id.ms) {
        let what = "the entry's id is not from the server's clock";
        put(&mut broken, Rule::EntryId, what);
    }
    let fields = match codec::unpack(entry.fields.clone()) {
        Ok(fields) => fields,
        Err((_, error)) => {
            put(&mut broken, Rule::Packed, error.to_string());
            return (broken, None);
        }
    };
    names(&fields, &mut broken);
    let id = entry.id;
    let envelope = match Envelope::decode(Entry { id, fields }) {
        Ok(envelope) => envelope,
        Err((entry, error)) => {
            let rule = match &error {
                DecodeError::NotUtf8(_) => Rule::NotUtf8,
                DecodeError::Version(_) => Rule::SchemaVersion,
                _ => Rule::Type,
            };
            put(&mut broken, rule, error.to_string());
            if entry.fields.value("id").is_none_or(<[u8]>::is_empty) {
                put(&mut broken, Rule::NoId, NO_ID);
            }
            return (broken, None);
        }
    };
    event(&envelope, found, &mut broken);
    (broken, Some(envelope))
}

const NO_ID: &str = "no `id`, or an empty one: a copy of it is never known for one";

fn event(envelope: &Envelope, found: Found, broken: &mut Vec<Broken>) {
    let event_type = envelope.event_type();
    if let Err(why) = event_type::check(event_type) {
        let event_type = shown(event_type);
        put(
            broken,
            Rule::Type,
            format!("the type \"{event_type}\" {why}"),
        );
    }
    match envelope.id_bytes() {
        None => put(broken, Rule::NoId, NO_ID),
        Some(id) => {
            let address = partition::address(envelope.subject().map(str::as_bytes), id);
            if let Some((number, of)) = found.partition
                && let right = partition::partition_of(address, of)
                && right != number
            {
                let what = format!(
                    "\"{}\" belongs to partition {right} of {of}, and stands in {number}",
                    shown(&String::from_utf8_lossy(address))
                );
                put(broken, Rule::Partition, what);
            }
        }
    }
    if let Some(time) = envelope.time_as_it_came() {
        match rfc3339::parse(time) {
            Ok(_) => {}
            Err(NoTime::NoOffset) => {
                let what = format!(
                    "the time \"{}\" does not say its offset from UTC",
                    shown(time)
                );
                put(broken, Rule::TimeWithoutOffset, what);
            }
            Err(_) => {
                let what = format!("the time \"{}\" is no time by RFC 3339", shown(time));
                put(broken, Rule::Time, what);
            }
        }
    }
    if let Some(deadline) = set(envelope, "expires")
        && rfc3339::parse(&deadline).is_err()
    {
        let what = format!(
            "the deadline \"{}\" is no time with an offset by RFC 3339",
            shown(&deadline)
        );
        put(broken, Rule::Expires, what);
    }
    if let Some(number) = set(envelope, "maxattempts")
        && codec::max_attempts(number.as_bytes()).is_none()
    {
        let what = format!(
            "the maxattempts \"{}\" is no whole number from 1",
            shown(&number)
        );
        put(broken, Rule::MaxAttempts, what);
    }
    if let Some(text) = envelope.traceparent_as_it_came()
        && !traceparent::is_valid(text)
    {
        let text = String::from_utf8_lossy(text);
        let what = format!("the traceparent \"{}\" is none", shown(&text));
        put(broken, Rule::Traceparent, what);
    }
    match codec::format(envelope.content_type()) {
        Err(error) => put(broken, Rule::ContentType, error.to_string()),
        Ok(_) if envelope.data().is_empty() => {
            put(broken, Rule::NoData, "no `data`, or an empty one");
        }
        Ok(format) => {
            for (rule, wrong) in data::look(format, envelope.data()) {
                put(broken, rule, wrong);
            }
        }
    }
}

/// What a field says, if it says something.
fn set<'a>(envelope: &'a Envelope, name: &str) -> Option<Cow<'a, str>> {
    let value = envelope.fields().value(name)?;
    (!value.is_empty()).then(|| String::from_utf8_lossy(value))
}

/// Names that are reserved, stand there twice, or were meant to be others.
fn names(fields: &Fields, broken: &mut Vec<Broken>) {
    let mut known = Vec::new();
    let (mut reserved, mut meant, mut twice) = (None, None, None);
    for (name, _) in fields {
        if codec::is_known(name) {
            match known.contains(&name) {
                true => twice = twice.or(Some(name)),
                false => known.push(name),
            }
            continue;
        }
        let prefixes: [&[u8]; 4] = [b"dead.", b"replay.", b"edited.", b"streamhand."];
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            reserved = reserved.or(Some(name));
        } else if meant.is_none() {
            meant = spelt(name).map(|right| (name, right));
        }
    }
    let text = |name: &[u8]| shown(&String::from_utf8_lossy(name)).to_string();
    if let Some(name) = twice {
        let what = format!("the field `{}` stands there twice", text(name));
        put(broken, Rule::Twice, what);
    }
    if let Some(name) = reserved {
        put(broken, Rule::Reserved, format!("a field `{}`", text(name)));
    }
    if let Some((name, right)) = meant {
        let what = format!("the field `{}` is not `{right}`", text(name));
        put(broken, Rule::Spelling, what);
    }
}

/// The name that was meant by one that is none: in capitals, with hyphens, or as CloudEvents' other bindings write it.
fn spelt(name: &[u8]) -> Option<&'static str> {
    const MEANT: [(&str, &str); 15] = [
        ("id", "id"),
        ("type", "type"),
        ("time", "time"),
        ("data", "data"),
        ("source", "source"),
        ("subject", "subject"),
        ("traceparent", "traceparent"),
        ("schemaversion", "schemaversion"),
        ("expires", "expires"),
        ("expirytime", "expires"),
        ("maxattempts", "maxattempts"),
        ("datacontenttype", "datacontenttype"),
        ("contenttype", "datacontenttype"),
        ("eventtype", "type"),
        ("eventid", "id"),
    ];
    if name.len() > 40 {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    let bare = ["ce-", "ce_", "ce:"];
    let bare = bare.iter().find_map(|prefix| name.strip_prefix(prefix));
    let bare: String = bare
        .unwrap_or(&name)
        .chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .collect();
    let meant = MEANT.iter().find(|(spelt, _)| *spelt == bare);
    meant.map(|(_, right)| *right)
}

fn put(broken: &mut Vec<Broken>, rule: Rule, wrong: impl Into<String>) {
    let wrong = wrong.into();
    broken.push(Broken { rule, wrong });
}
