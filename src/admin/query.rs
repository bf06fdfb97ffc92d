//! What a search looks for, as text: `subject:o-1 data.amount:>100`.
//!
//! Words that stand side by side must all be met. A bare word is the event's id, its subject, its type, its source, or an
//! id that it names as its cause; `name:value` is a field of the event, `data.items.sku:a-7` a value in its data, whatever
//! lists are on the way. `*` stands for any text, `"…"` keeps spaces, and `>`, `>=`, `<`, `<=` compare numbers. Of a
//! dead letter `reason`, `error`, `handler` and the others it says are fields as well; `error` is met by a part of it.

use std::fmt;

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;

/// Where a bare word is looked for.
const NAMES: [&str; 9] = [
    "entry",
    "letter",
    "replay.entry",
    "id",
    "subject",
    "type",
    "source",
    "correlationid",
    "causationid",
];

/// Most words of a query, and most bytes.
const WORDS: usize = 16;
const BYTES: usize = 2_000;

/// What is looked for: see [`Search`](super::Search).
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    text: String,
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    /// The way to the value; none for a bare word.
    path: Vec<String>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    /// Parts of the text with anything between them; a single part is all of it.
    Text(Vec<String>),
    Compare(Ordering, f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ordering {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// If it is empty or too long, or a word of it is none; the message says which.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why));
        if text.len() > BYTES {
            return invalid(format!("a query has at most {BYTES} bytes"));
        }
        let words = match words(text) {
            Some(words) => words,
            None => {
                return invalid(format!(
                    "the query {text:?} has a quotation mark that nothing ends: write \"…\""
                ));
            }
        };
        match words.len() {
            0 => {
                return invalid(
                    "nothing to look for: write an id, a subject, or a value such as data.order_id:o-1"
                        .to_owned(),
                );
            }
            1..=WORDS => {}
            many => {
                return invalid(format!(
                    "the query has {many} words, and at most {WORDS} go"
                ));
            }
        }
        let terms = words.into_iter().map(Term::of).collect::<Result<_>>()?;
        Ok(Query {
            text: text.trim().to_owned(),
            terms,
        })
    }

    /// Whether an event as JSON meets it: an object with its envelope, its `data`, and `dead` if it is a dead letter.
    pub(crate) fn matches(&self, event: &Value) -> bool {
        self.terms.iter().all(|term| term.matches(event))
    }

    /// Whether it takes the data to know.
    pub(crate) fn needs_data(&self) -> bool {
        let is_data = |term: &Term| term.path.first().is_some_and(|first| first == "data");
        self.terms.iter().any(is_data)
    }

    /// When an event with the id that is looked for was probably made, in ms since 1970: its id says so.
    pub(crate) fn made_at(&self) -> Option<u64> {
        self.terms.iter().find_map(|term| {
            let Test::Text(parts) = &term.test else {
                return None;
            };
            let [id] = &parts[..] else {
                return None;
            };
            let names = ["entry", "letter", "id", "causationid", "correlationid"];
            let is_id = term.path.is_empty()
                || matches!(&term.path[..], [name] if names.contains(&&name[..]));
            is_id.then(|| time_of(id)).flatten()
        })
    }
}

/// The time in an entry's id, or in a UUID of version 7.
pub(crate) fn time_of(id: &str) -> Option<u64> {
    if let Ok(id) = id.parse::<EntryId>() {
        // Else any small number would be one.
        return id_is_time(id.ms).then_some(id.ms);
    }
    let uuid = uuid::Uuid::parse_str(id).ok()?;
    if uuid.get_version_num() != 7 {
        return None;
    }
    let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
    Some(seconds * 1000 + u64::from(nanos) / 1_000_000)
}

fn id_is_time(ms: u64) -> bool {
    (1_000_000_000_000..100_000_000_000_000).contains(&ms)
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A word: what stands before its first colon, and the rest.
struct Word {
    name: Option<String>,
    value: String,
    /// It was quoted: nothing in it is anything but text.
    is_literal: bool,
}

/// The words of a text; None if a quotation mark is not closed.
fn words(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Some(words);
        }
        let mut word = Word {
            name: None,
            value: String::new(),
            is_literal: false,
        };
        while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
            match c {
                '"' if word.value.is_empty() => {
                    word.is_literal = true;
                    loop {
                        match chars.next()? {
                            '"' => break,
                            '\\' => word.value.push(chars.next()?),
                            other => word.value.push(other),
                        }
                    }
                    break;
                }
                ':' if word.name.is_none() && is_name(&word.value) => {
                    word.name = Some(std::mem::take(&mut word.value));
                }
                other => word.value.push(other),
            }
        }
        words.push(word);
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '*');
    !text.is_empty() && text.chars().all(is_part)
}

impl Term {
    fn of(word: Word) -> Result<Self> {
        let path = match &word.name {
            None => Vec::new(),
            Some(name) => name.split('.').map(str::to_owned).collect(),
        };
        let no_value = || {
            let name = word.name.clone().unwrap_or_default();
            Error::new(
                ErrorKind::Invalid,
                format!("{name}: has no value; write {name}:value, or {name}:* for any"),
            )
        };
        let compared = [
            (">=", Ordering::AtLeast),
            ("<=", Ordering::AtMost),
            (">", Ordering::Above),
            ("<", Ordering::Below),
        ];
        let compared = compared
            .iter()
            .filter(|_| word.name.is_some() && !word.is_literal)
            .find_map(|(sign, ordering)| Some((*ordering, word.value.strip_prefix(sign)?)));
        let test = match compared {
            Some((ordering, number)) => match number.parse() {
                Ok(number) => Test::Compare(ordering, number),
                Err(_) => {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        format!("{number:?} in the query is no number to compare with"),
                    ));
                }
            },
            None if word.value.is_empty() && !word.is_literal => return Err(no_value()),
            None if word.is_literal => Test::Text(vec![word.value]),
            None => Test::Text(word.value.split('*').map(str::to_owned).collect()),
        };
        // Errors are sentences: nobody writes them whole.
        let test = match (&path[..], test) {
            ([name], Test::Text(parts)) if name == "error" && parts.len() == 1 => {
                Test::Text([&[String::new()], &parts[..], &[String::new()]].concat())
            }
            (_, test) => test,
        };
        Ok(Term { path, test })
    }

    fn matches(&self, event: &Value) -> bool {
        let met = |name: &str| event.get(name).is_some_and(|value| self.test.is_met(value));
        match &self.path[..] {
            [] => NAMES.iter().any(|name| met(name)),
            [name] if event.get(name).is_none() => {
                let of_letter = event.get("dead").and_then(|dead| dead.get(name));
                of_letter.is_some_and(|value| self.test.is_met(value))
            }
            path => reaches(event, path, &self.test),
        }
    }
}

/// Whether a value on this way meets the test, in any item of the lists on it.
fn reaches(value: &Value, path: &[String], test: &Test) -> bool {
    match (value, path.split_first()) {
        (Value::Array(items), _) => items.iter().any(|item| reaches(item, path, test)),
        (value, None) => test.is_met(value),
        (Value::Object(fields), Some((key, rest))) if key == "*" => {
            fields.values().any(|field| reaches(field, rest, test))
        }
        (Value::Object(fields), Some((key, rest))) => {
            // A name may have dots of its own.
            let whole = || fields.get(&path.join("."));
            match fields.get(key) {
                Some(field) => reaches(field, rest, test),
                None if !rest.is_empty() => whole().is_some_and(|field| test.is_met(field)),
                None => false,
            }
        }
        _ => false,
    }
}

impl Test {
    fn is_met(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Array(items)) => items.iter().any(|item| self.is_met(item)),
            (Test::Text(parts), Value::String(text)) => is_like(text, parts),
            (Test::Text(parts), Value::Object(_)) => is_like(&value.to_string(), parts),
            (Test::Text(parts), Value::Number(number)) => {
                let text = number.to_string();
                let same = |part: &String| {
                    let is_whole = number.is_i64() || number.is_u64();
                    !is_whole && part.parse::<f64>().ok() == number.as_f64()
                };
                is_like(&text, parts) || matches!(&parts[..], [only] if same(only))
            }
            (Test::Text(parts), other) => is_like(&other.to_string(), parts),
            (Test::Compare(ordering, than), value) => {
                let number = match value {
                    Value::Number(number) => number.as_f64(),
                    Value::String(text) => text.parse().ok(),
                    _ => None,
                };
                number.is_some_and(|number| match ordering {
                    Ordering::Above => number > *than,
                    Ordering::AtLeast => number >= *than,
                    Ordering::Below => number < *than,
                    Ordering::AtMost => number <= *than,
                })
            }
        }
    }
}

/// Whether a text is these parts with anything between them.
fn is_like(text: &str, parts: &[String]) -> bool {
    let (first, rest) = match parts {
        [] => return text.is_empty(),
        [only] => return text == only,
        [first, rest @ ..] => (first, rest),
    };
    let Some(mut text) = text.strip_prefix(&first[..]) else {
        return false;
    };
    let Some((last, middle)) = rest.split_last() else {
        return true;
    };
    for part in middle {
        match text.find(&part[..]) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(&last[..])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({
            "entry": "1769860800000-0", "id": "e-1", "type": "order.created", "subject": "o-1", "tenant": "acme corp",
            "correlationid": "root",
            "data": { "amount": 120.5, "count": 7, "big": 9007199254740993_u64, "note": "said \"no\" twice", "paid": true,
                      "items": [{ "sku": "a-7" }, { "sku": "b-8", "tags": ["cold", "big"] }], "a.b": 1,
                      "address": { "city": "Köln" } },
            "dead": { "reason": "failed", "error": "no stock for 17 of a-7", "attempts": 5 },
        })
    }

    #[test]
    fn what_is_asked_for_is_found_and_nothing_else() {
        let event = event();
        for met in [
            "e-1",
            "o-1",
            "order.created",
            "1769860800000-0",
            "root",
            "id:e-1",
            "type:order.*",
            "subject:o-*",
            "*created",
            "tenant:\"acme corp\"",
            "data.amount:120.5",
            "data.amount:>100",
            "data.amount:<=120.5",
            "data.count:7",
            "data.count:>=7",
            "data.big:9007199254740993",
            "data.note:*no*",
            "data.note:\"said \\\"no\\\" twice\"",
            "data.paid:true",
            "data.items.sku:b-8",
            "data.items.tags:cold",
            "data.a.b:1",
            "data.address.city:Köln",
            "data.*.city:Köln",
            "data:*Köln*",
            "reason:failed",
            "error:stock",
            "error:\"no stock\"",
            "attempts:>4",
            "o-1 data.count:7 type:order.created",
            "data.address.city:*",
        ] {
            assert!(Query::parse(met).unwrap().matches(&event), "{met}");
        }
        for not_met in [
            "e-2",
            "order",
            "acme",
            "id:o-1",
            "type:order",
            "subject:o",
            "data.amount:>120.5",
            "data.amount:120",
            "data.big:9007199254740992",
            "data.note:no",
            "data.items.sku:a-8",
            "data.nothing:*",
            "reason:crashed",
            "error:17x",
            "o-1 data.count:8",
            "data.city:Köln",
            "data.items:<1",
            "tenant:acme",
        ] {
            assert!(!Query::parse(not_met).unwrap().matches(&event), "{not_met}");
        }
    }

    #[test]
    fn what_is_no_query_is_refused_in_words() {
        let why = |text: &str| Query::parse(text).unwrap_err().to_string();
        assert!(why("  ").contains("nothing to look for"));
        assert!(why("a \"b").contains("quotation mark"));
        assert!(why("id:").contains("id: has no value"));
        assert!(why("data.x:>soon").contains("\"soon\""));
        assert!(why(&"a ".repeat(17)).contains("17 words"));
        assert!(why(&"a".repeat(3_000)).contains("bytes"));
        assert_eq!(Query::parse(" a  b ").unwrap().to_string(), "a  b");
    }

    #[test]
    fn an_id_says_when_its_event_was_made() {
        let at = |text: &str| Query::parse(text).unwrap().made_at();
        assert_eq!(at("1769860800000-3"), Some(1_769_860_800_000));
        assert_eq!(
            at("id:019c1123-4567-7890-abcd-ef0123456789"),
            Some(0x019c_1123_4567)
        );
        assert_eq!(at("019c1123-4567-5890-abcd-ef0123456789"), None);
        assert_eq!(at("7-0"), None);
        assert_eq!(at("data.at:1769860800000-3"), None);
        assert!(!Query::parse("id:a").unwrap().needs_data());
        assert!(Query::parse("id:a data.x:1").unwrap().needs_data());
    }
}
