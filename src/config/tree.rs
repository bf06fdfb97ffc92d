//! The TOML values of all sources in one tree, and where each of them came from.
//!
//! A file is parsed into a tree first; the environment and the command line then set single
//! values in it. What the values mean is not known here.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::error::{Origin, Position, Problem, ProblemKind};

/// What a text is told of that is not TOML: one problem a line, and no more than this. The rest is
/// most often a consequence.
const MOST_SYNTAX_PROBLEMS: usize = 10;

/// The values, and the origin of every key, value and array item among them.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) root: Table,
    places: BTreeMap<KeyPath, Place>,
}

struct Place {
    key: Origin,
    value: Origin,
}

impl Tree {
    /// Parses `text`, which is the contents of `file` or has no name. If it is not TOML the
    /// tree holds what could be made out.
    pub(super) fn parse(text: &str, file: Option<&Path>) -> (Self, Vec<Problem>) {
        let (parsed, errors) = DeTable::parse_recoverable(text);
        let mut reader = TextReader {
            lines: line_starts(text),
            text,
            file,
            places: BTreeMap::new(),
            problems: Vec::new(),
        };
        let mut last_line = 0;
        for error in &errors {
            let at = reader.position(error.span().unwrap_or_default());
            // After an unclosed bracket everything that follows looks wrong.
            if at.line == last_line || reader.problems.len() == MOST_SYNTAX_PROBLEMS {
                continue;
            }
            last_line = at.line;
            let origin = reader.origin(at);
            // Not the error's own Display, which quotes the line: there may be a secret in it.
            let message = error.message().to_owned();
            reader.problem(ProblemKind::Syntax, origin, None, message);
        }
        let root = reader.table(&KeyPath::default(), parsed.into_inner());
        let tree = Self {
            root,
            places: reader.places,
        };
        (tree, reader.problems)
    }

    /// Sets one value, making the tables above it if there are none. Where a value stands in
    /// the place of such a table nothing is set: that value is wrong and will be reported.
    pub(super) fn set(&mut self, path: &KeyPath, value: Value, origin: &Origin) {
        let Some((last, above)) = path.0.split_last() else {
            return;
        };
        let place = || Place {
            key: origin.clone(),
            value: origin.clone(),
        };
        let mut table = &mut self.root;
        let mut at = KeyPath::default();
        for step in above {
            let Step::Key(key) = step else { return };
            at = at.key(key);
            let next = table.entry(key.as_str()).or_insert_with(|| {
                self.places.insert(at.clone(), place());
                Value::Table(Table::new())
            });
            match next {
                Value::Table(next) => table = next,
                _ => return,
            }
        }
        let Step::Key(key) = last else { return };
        table.insert(key.clone(), value);
        self.places.retain(|place, _| !place.0.starts_with(&path.0));
        self.places.insert(path.clone(), place());
    }

    /// The value at `path`.
    pub(super) fn get(&self, path: &KeyPath) -> Option<&Value> {
        let (first, rest) = path.0.split_first()?;
        let Step::Key(first) = first else { return None };
        rest.iter()
            .try_fold(self.root.get(first)?, |value, step| match step {
                Step::Key(key) => value.get(key.as_str()),
                Step::Index(index) => value.get(*index),
            })
    }

    /// Where the value at `path` came from, or else the nearest value around it.
    pub(super) fn value_origin(&self, path: &KeyPath) -> Origin {
        self.nearest(path).map_or(Origin::Code, |p| p.value.clone())
    }

    /// Where the key at the end of `path` came from, or else the nearest value around it.
    pub(super) fn key_origin(&self, path: &KeyPath) -> Origin {
        match self.places.get(path) {
            Some(place) => place.key.clone(),
            None => self.value_origin(path),
        }
    }

    fn nearest(&self, path: &KeyPath) -> Option<&Place> {
        (1..=path.0.len())
            .rev()
            .find_map(|length| self.places.get(&KeyPath(path.0[..length].to_vec())))
    }
}

/// The way from the root to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// From a dotted key whose parts are plain: `worker.lease`.
    pub(super) fn plain(dotted: &str) -> Self {
        dotted.split('.').collect()
    }

    /// From a dotted key as TOML writes it, quoted parts included: `handlers."order.created"`.
    pub(super) fn parse(dotted: &str) -> Option<Self> {
        let text = format!("{dotted} = \"\"");
        let parsed = DeTable::parse(&text).ok()?.into_inner();
        let mut path = Self::default();
        let mut table = &parsed;
        loop {
            // More than one key, or another value, and it was not a key alone.
            let mut keys = table.iter();
            let (Some((key, value)), None) = (keys.next(), keys.next()) else {
                return None;
            };
            path = path.key(key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                DeValue::String(text) if text.is_empty() => return Some(path),
                _ => return None,
            }
        }
    }

    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// The first key.
    pub(super) fn first(&self) -> Option<&str> {
        self.0.first().and_then(Step::as_key)
    }

    /// The last key.
    pub(super) fn last(&self) -> Option<&str> {
        self.0.last().and_then(Step::as_key)
    }

    /// The keys from the root down, for a path without array items.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(Step::as_key)
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

impl Step {
    fn as_key(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            Self::Index(_) => None,
        }
    }
}

impl<'k> FromIterator<&'k str> for KeyPath {
    fn from_iter<I: IntoIterator<Item = &'k str>>(keys: I) -> Self {
        Self(keys.into_iter().map(|k| Step::Key(k.to_owned())).collect())
    }
}

/// As TOML writes it; array items as `streams[0]`.
impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if n == 0 { "" } else { "." };
                    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                    if !key.is_empty() && key.bytes().all(bare) {
                        write!(f, "{dot}{key}")?;
                    } else {
                        write!(f, "{dot}{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Turns parsed TOML into plain values and notes where they stood.
struct TextReader<'t> {
    text: &'t str,
    lines: Vec<usize>,
    file: Option<&'t Path>,
    places: BTreeMap<KeyPath, Place>,
    problems: Vec<Problem>,
}

impl TextReader<'_> {
    fn table(&mut self, path: &KeyPath, table: DeTable<'_>) -> Table {
        let mut read = Table::new();
        for (key, value) in table {
            let path = path.key(key.get_ref());
            let place = Place {
                key: self.origin(self.position(key.span())),
                value: self.origin(self.position(value.span())),
            };
            self.places.insert(path.clone(), place);
            if let Some(value) = self.value(&path, value) {
                read.insert(key.into_inner().into_owned(), value);
            }
        }
        read
    }

    /// None if TOML allows what no program can hold; the problem has been noted.
    fn value(&mut self, path: &KeyPath, value: Spanned<DeValue<'_>>) -> Option<Value> {
        let span = value.span();
        match value.into_inner() {
            DeValue::String(text) => return Some(Value::String(text.into_owned())),
            DeValue::Boolean(value) => return Some(Value::Boolean(value)),
            DeValue::Datetime(value) => return Some(Value::Datetime(value)),
            DeValue::Table(table) => return Some(Value::Table(self.table(path, table))),
            DeValue::Array(items) => {
                let items = items.into_iter().enumerate();
                let items = items.filter_map(|(index, item)| {
                    let path = path.index(index);
                    let origin = self.origin(self.position(item.span()));
                    let place = Place {
                        key: origin.clone(),
                        value: origin,
                    };
                    self.places.insert(path.clone(), place);
                    self.value(&path, item)
                });
                return Some(Value::Array(items.collect()));
            }
            DeValue::Integer(value) => {
                if let Ok(value) = i64::from_str_radix(value.as_str(), value.radix()) {
                    return Some(Value::Integer(value));
                }
            }
            DeValue::Float(value) => {
                // Rust reads `1e999` as infinity; TOML has a word for infinity.
                let infinite = value.as_str().contains("inf");
                if let Some(value) = value
                    .as_str()
                    .parse()
                    .ok()
                    .filter(|v: &f64| v.is_finite() || v.is_nan() || infinite)
                {
                    return Some(Value::Float(value));
                }
            }
        }
        let origin = self.origin(self.position(span));
        let message = "is too large a number".to_owned();
        self.problem(ProblemKind::Invalid, origin, Some(path), message);
        None
    }

    fn problem(
        &mut self,
        kind: ProblemKind,
        origin: Origin,
        path: Option<&KeyPath>,
        message: String,
    ) {
        self.problems.push(Problem {
            kind,
            origin,
            key: path.map(KeyPath::to_string),
            message,
        });
    }

    fn position(&self, span: Range<usize>) -> Position {
        let at = span.start.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines[line - 1];
        // A character has one byte that does not continue another.
        let before = &self.text.as_bytes()[start..at];
        let column = before.iter().filter(|b| (**b & 0xC0) != 0x80).count() + 1;
        Position { line, column }
    }

    fn origin(&self, at: Position) -> Origin {
        match self.file {
            Some(path) => Origin::File(path.to_owned(), Some(at)),
            None => Origin::Text(at),
        }
    }
}

/// The byte at which each line begins.
fn line_starts(text: &str) -> Vec<usize> {
    let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    std::iter::once(0)
        .chain(ends.map(|(at, _)| at + 1))
        .collect()
}
