//! One table of the configuration while it is read: what asks for a key knows it, and what nothing has asked for is wrong.

use toml::{Table, Value};

use super::error::{Origin, Problem, ProblemKind};
use super::nearest;
use super::tree::{KeyPath, Tree};
use super::value::{Given, Setting, type_name};

/// Reads a tree, and notes what is wrong in it.
pub(super) struct Reader<'t> {
    pub(super) tree: &'t Tree,
    pub(super) problems: Vec<Problem>,
    pub(super) known: Vec<KeyPath>,
    /// Every setting that has a fixed place.
    pub(super) all: fn() -> Vec<KeyPath>,
}

/// One table of the configuration while it is read.
pub(super) struct Section<'r, 't> {
    pub(super) reader: &'r mut Reader<'t>,
    pub(super) path: KeyPath,
    pub(super) table: Option<&'t Table>,
    /// The keys that it may have, as far as they have been asked for.
    pub(super) keys: Vec<&'static str>,
}

impl<'t> Section<'_, 't> {
    /// Reads the value of `key` into `into`, which stays as it is where there is none.
    pub(super) fn setting<T: Setting>(&mut self, key: &'static str, into: &mut T) {
        let path = self.path.key(key);
        if let Some(value) = self.value(key) {
            let untyped = self.reader.tree.value_origin(&path).is_untyped();
            let given = match value {
                Value::String(text) if untyped => Given::Text(text),
                value => Given::Toml(value),
            };
            match T::read(given) {
                Ok(value) => *into = value,
                Err(refusal) => {
                    let origin = self.reader.tree.value_origin(&path);
                    self.problem(refusal.kind, origin, &path, refusal.message);
                }
            }
        }
        self.reader.known.push(path);
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Reads a table within this one, or none.
    pub(super) fn section(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_, 't>)) {
        let value = self.value(key);
        self.inner(key, value, read);
    }

    /// Reads a table of tables, whose keys are the user's names for something.
    pub(super) fn sections(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Section<'_, 't>),
    ) {
        self.section(key, |tables| {
            for (name, value) in tables.table.into_iter().flatten() {
                if tables.is_unquoted(name, value) {
                    continue;
                }
                tables.inner(name, Some(value), |section| read(name, section));
            }
            tables.table = None;
        });
    }

    /// Reads a table of values, whose keys are the user's names for something.
    pub(super) fn values<T: Setting>(&mut self, key: &'static str, mut read: impl FnMut(&str, T)) {
        self.section(key, |values| {
            for (name, value) in values.table.take().into_iter().flatten() {
                let path = values.path.key(name);
                match T::read(Given::Toml(value)) {
                    Ok(value) => read(name, value),
                    Err(refusal) => {
                        let origin = values.reader.tree.value_origin(&path);
                        values.problem(refusal.kind, origin, &path, refusal.message);
                    }
                }
            }
        });
    }

    /// Catches `[handlers.order.created]`, which TOML takes for `created` within `order`.
    pub(super) fn is_unquoted(&mut self, name: &str, value: &Value) -> bool {
        let within = value.as_table().into_iter().flatten();
        let of_its_own = |key: &str| {
            matches!(
                key,
                "backoff" | "batch" | "circuit_breaker" | "streams" | "env" | "data"
            )
        };
        let mut inner = within.filter(|(key, value)| value.is_table() && !of_its_own(key));
        let Some((inner, _)) = inner.next().filter(|_| !name.contains('.')) else {
            return false;
        };
        let quoted = self.path.key(&format!("{name}.{inner}"));
        let message = format!("a name with dots needs quotes; write [{quoted}]");
        let path = self.path.key(name).key(inner);
        let origin = self.reader.tree.key_origin(&path);
        self.problem(ProblemKind::UnknownKey, origin, &path, message);
        true
    }

    /// Takes a table as it is.
    pub(super) fn free(&mut self, key: &'static str, into: &mut Table) {
        self.section(key, |section| {
            *into = section.table.take().cloned().unwrap_or_default();
        });
    }

    pub(super) fn inner(
        &mut self,
        key: &str,
        value: Option<&'t Value>,
        read: impl FnOnce(&mut Section<'_, 't>),
    ) {
        let path = self.path.key(key);
        let table = value.and_then(Value::as_table);
        if let (Some(value), None) = (value, table) {
            let origin = self.reader.tree.value_origin(&path);
            let found = type_name(value);
            let message = format!("expected a section, [{path}], found {found}");
            self.problem(ProblemKind::WrongType, origin, &path, message);
        }
        let mut section = Section {
            reader: self.reader,
            path,
            table,
            keys: Vec::new(),
        };
        read(&mut section);
        section.finish();
    }

    pub(super) fn value(&mut self, key: &'static str) -> Option<&'t Value> {
        self.keys.push(key);
        self.table.and_then(|table| table.get(key))
    }

    /// Notes the keys that nothing has asked for.
    pub(super) fn finish(&mut self) {
        for key in self.table.into_iter().flat_map(Table::keys) {
            if self.keys.contains(&key.as_str()) {
                continue;
            }
            let path = self.path.key(key);
            let message = format!("unknown key{}", self.advice(key));
            let origin = self.reader.tree.key_origin(&path);
            self.problem(ProblemKind::UnknownKey, origin, &path, message);
        }
    }

    pub(super) fn advice(&self, key: &str) -> String {
        if let Some(meant) = nearest::of(key, self.keys.iter().copied()) {
            return format!("; did you mean `{}`?", self.path.key(meant));
        }
        let elsewhere = (self.reader.all)()
            .into_iter()
            .find(|known| known.last() == Some(key));
        if let Some(elsewhere) = elsewhere {
            return format!("; did you mean `{elsewhere}`?");
        }
        format!("; known here: {}", self.keys.join(", "))
    }

    pub(super) fn problem(
        &mut self,
        kind: ProblemKind,
        origin: Origin,
        path: &KeyPath,
        message: String,
    ) {
        self.reader.problems.push(Problem {
            kind,
            origin,
            key: Some(path.to_string()),
            message,
        });
    }
}
