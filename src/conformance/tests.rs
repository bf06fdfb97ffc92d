//! The rules, held against the vectors that are published, and against the page that explains them.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::fields::Fields;
use crate::rfc3339;

#[derive(Deserialize)]
struct Vectors {
    entries: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    fields: Vec<(Text, Text)>,
    envelope: Option<Expected>,
    dead: Option<Dead>,
    rules: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Hex { hex: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(rename = "type")]
    event_type: String,
    id: Option<String>,
    version: u32,
    source: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    traceparent: Option<String>,
    content_type: String,
    expires: Option<String>,
    max_attempts: Option<u32>,
    data: Value,
}

#[derive(Deserialize)]
struct Dead {
    reason: String,
    error: String,
}

impl Text {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Text::Text(text) => text.clone().into_bytes(),
            Text::Hex { hex } => (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
                .collect(),
        }
    }
}

fn vectors() -> Vec<Vector> {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../../conformance/entries.json")).expect("vectors");
    assert!(vectors.entries.len() >= 60);
    vectors.entries
}

fn entry(vector: &Vector) -> Entry {
    let fields: Fields = vector
        .fields
        .iter()
        .map(|(name, value)| (name.bytes(), value.bytes()))
        .collect();
    let id = EntryId {
        ms: 1_769_860_800_000,
        seq: 0,
    };
    Entry { id, fields }
}

#[test]
fn entries_are_read_as_the_vectors_say() {
    for vector in vectors() {
        let (entry, name) = (entry(&vector), &vector.name);
        let fields = crate::codec::unpack(entry.fields.clone());
        let fields = fields.unwrap_or_else(|(fields, _)| fields);
        let id = entry.id;
        let read = Envelope::decode(Entry { id, fields });
        let Some(expected) = vector.envelope else {
            let dead = vector.dead.expect("an envelope, or what it dies of");
            // The others decode as events, and their handlers refuse them, or nobody handles them.
            if let Err((_, error)) = read {
                assert_eq!(dead.reason, "undecodable", "{name}");
                assert!(
                    error.to_string().starts_with(&dead.error),
                    "{name}: {error}"
                );
            }
            continue;
        };
        assert!(vector.dead.is_none(), "{name}");
        let event = read.unwrap_or_else(|(_, error)| panic!("{name}: {error}"));
        assert_eq!(event.event_type(), expected.event_type, "{name}");
        let id = expected.id.unwrap_or_else(|| entry.id.to_string());
        assert_eq!(event.id(), id, "{name}");
        assert_eq!(event.version(), expected.version, "{name}");
        assert_eq!(event.source(), expected.source.as_deref(), "{name}");
        assert_eq!(event.subject(), expected.subject.as_deref(), "{name}");
        let time = expected
            .time
            .map(|time| rfc3339::parse(&time).expect("a time"));
        assert_eq!(event.time(), time.unwrap_or(entry.id.time()), "{name}");
        assert_eq!(
            event.traceparent(),
            expected.traceparent.as_deref(),
            "{name}"
        );
        assert_eq!(event.content_type(), expected.content_type, "{name}");
        let expires = expected
            .expires
            .map(|time| rfc3339::parse(&time).expect("a time"));
        assert_eq!(event.expires(), expires, "{name}");
        assert_eq!(event.max_attempts(), expected.max_attempts, "{name}");
        // An array is read by its handler alone.
        if !vector.rules.iter().any(|rule| rule == "array") {
            let data: Value = event.decode_data().expect(name);
            for (member, value) in expected.data.as_object().into_iter().flatten() {
                assert_eq!(&data[member], value, "{name}");
            }
            if !expected.data.is_object() {
                assert_eq!(data, expected.data, "{name}");
            }
        }
    }
}

#[test]
fn entries_break_the_rules_that_the_vectors_say() {
    let mut all = BTreeSet::new();
    for vector in vectors() {
        let mut judging = Judging::default();
        judging.entry("orders", &entry(&vector), Found::default(), |_| None);
        let counts = (judging.dead_letters, judging.warned_of, judging.right);
        let broken = judging.broken();
        let rules: BTreeSet<&str> = broken.iter().map(|it| it.rule).collect();
        let expected: BTreeSet<&str> = vector.rules.iter().map(String::as_str).collect();
        assert_eq!(rules, expected, "{}: {broken:?}", vector.name);
        let is_dead = broken.iter().any(|it| it.level == Level::DeadLetter);
        // What is said to die does. What dies and is not said to, dies of its handler.
        assert!(!is_dead || vector.dead.is_some(), "{}", vector.name);
        let expected = match (is_dead, rules.is_empty()) {
            (true, _) => (1, 0, 0),
            (false, false) => (0, 1, 0),
            (false, true) => (0, 0, 1),
        };
        assert_eq!(counts, expected, "{}", vector.name);
        all.extend(vector.rules);
    }
    let others = [
        Rule::Topic,
        Rule::Unread,
        Rule::Handler,
        Rule::OtherData,
        Rule::Partition,
        Rule::EntryId,
        Rule::Removed,
    ];
    let shown = all.len() + others.len();
    assert_eq!(
        shown,
        Rule::ALL.len(),
        "each rule of an entry has a vector: {all:?}"
    );
}

/// As the page has it.
#[test]
fn json_is_read_127_deep() {
    for (depth, is_read) in [(127, true), (128, false)] {
        let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let event = Envelope::new("a.b").with("data", &data);
        assert_eq!(event.decode_data::<Value>().is_ok(), is_read, "{depth}");
        let broken = data::look(crate::codec::Format::Json, data.as_bytes());
        assert_eq!(broken.is_empty(), is_read, "{depth}: {broken:?}");
    }
}

fn judged(entries: &[(EntryId, &[(&str, &str)])], found: Found) -> Vec<(String, u64, String)> {
    let mut judging = Judging::default();
    for (id, fields) in entries {
        let fields = fields.iter().copied().collect();
        let entry = Entry { id: *id, fields };
        judging.entry("{orders:1}", &entry, found, |_| None);
    }
    let broken = judging.broken().into_iter();
    broken
        .map(|it| (it.rule.to_owned(), it.count, it.wrong))
        .collect()
}

#[test]
fn copies_places_and_ids_are_looked_at() {
    let id = |ms| EntryId { ms, seq: 0 };
    let now = 1_769_860_800_000;
    let order = [("type", "a.b"), ("id", "7"), ("data", "1")];
    let same = [("type", "a.b"), ("data", " 1 "), ("id", "7")];
    let other = [("type", "a.b"), ("id", "7"), ("data", "2")];
    let crm = [
        ("type", "a.b"),
        ("id", "7"),
        ("data", "2"),
        ("source", "crm"),
    ];
    let found = Found {
        partition: None,
        now_ms: now,
    };
    let all: [(EntryId, &[(&str, &str)]); 4] = [
        (id(now), &order),
        (id(now), &same),
        (id(now), &other),
        (id(now), &crm),
    ];
    let broken = judged(&all, found);
    let wrong = "an event a.b with the id \"7\" is there with other data";
    assert_eq!(broken, [("other-data".to_owned(), 1, wrong.to_owned())]);

    let found = Found {
        partition: Some((1, 8)),
        now_ms: now,
    };
    let order = |subject| {
        [
            ("type", "a.b"),
            ("id", "7"),
            ("data", "1"),
            ("subject", subject),
        ]
    };
    let (here, elsewhere) = (order("account:1"), order("order:o-1"));
    let all: [(EntryId, &[(&str, &str)]); 3] =
        [(id(now), &here), (id(1), &here), (id(now), &elsewhere)];
    let broken = judged(&all, found);
    let wrong = "\"order:o-1\" belongs to partition 2 of 8, and stands in 1";
    assert_eq!(
        broken,
        [
            ("partition".to_owned(), 1, wrong.to_owned()),
            (
                "entry-id".to_owned(),
                1,
                "the entry's id is not from the server's clock".to_owned()
            ),
        ]
    );
}

#[test]
fn the_page_explains_every_rule() {
    let page = include_str!("../../docs/wire.md");
    let names: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), Rule::ALL.len());
    for name in names {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}
