//! The schema: which settings there are and where they stand. Reads a tree into [`Settings`] and
//! notes everything in it that is no setting or no value of one.

use toml::{Table, Value};

use super::error::{Origin, Problem, ProblemKind};
use super::tree::{KeyPath, Tree};
use super::value::{Given, Setting, type_name};
use super::{
    BreakerSettings, HandlerSettings, ProjectionSettings, Settings, StreamSettings, nearest,
};
use crate::retry::Backoff;

/// Reads what `tree` says over the defaults. A setting whose value is refused keeps its default.
pub(super) fn settings(tree: &Tree) -> (Settings, Vec<Problem>) {
    let mut reader = Reader {
        tree,
        problems: Vec::new(),
        known: Vec::new(),
    };
    let settings = reader.settings();
    (settings, reader.problems)
}

/// Every setting with a fixed place, which is all but those of single handlers, single streams and
/// `[app]`.
pub(super) fn known() -> Vec<KeyPath> {
    let tree = Tree::default();
    let mut reader = Reader {
        tree: &tree,
        problems: Vec::new(),
        known: Vec::new(),
    };
    let _ = reader.settings();
    reader.known
}

struct Reader<'t> {
    tree: &'t Tree,
    problems: Vec<Problem>,
    known: Vec<KeyPath>,
}

impl Reader<'_> {
    fn settings(&mut self) -> Settings {
        let mut read = Settings::default();
        let tree = self.tree;
        let mut root = Section {
            reader: self,
            path: KeyPath::default(),
            table: Some(&tree.root),
            keys: Vec::new(),
        };
        root.section("redis", |redis| {
            redis.setting("url", &mut read.redis.url);
            redis.setting("username", &mut read.redis.username);
            redis.setting("password", &mut read.redis.password);
            redis.setting("password_file", &mut read.redis.password_file);
            redis.setting("tls_ca", &mut read.redis.tls_ca);
            redis.setting("tls_cert", &mut read.redis.tls_cert);
            redis.setting("tls_key", &mut read.redis.tls_key);
            redis.setting("pool_size", &mut read.redis.pool_size);
        });
        root.section("worker", |worker| {
            worker.setting("group", &mut read.worker.group);
            worker.setting("streams", &mut read.worker.streams);
            worker.setting("concurrency", &mut read.worker.concurrency);
            worker.setting("prefetch", &mut read.worker.prefetch);
            worker.setting("lease", &mut read.worker.lease);
            worker.setting("drain", &mut read.worker.drain);
            worker.setting("unhandled", &mut read.worker.unhandled);
            worker.setting("unhandled_after", &mut read.worker.unhandled_after);
            worker.setting("start", &mut read.worker.start);
        });
        root.section("retry", |retry| {
            retry.setting("max_attempts", &mut read.retry.max_attempts);
            retry.backoff(&mut read.retry.backoff);
            retry.setting("on_crash", &mut read.retry.on_crash);
        });
        root.section("defaults", |defaults| {
            defaults.setting("timeout", &mut read.defaults.timeout);
            defaults.setting("grace", &mut read.defaults.grace);
            defaults.setting("deduplicate", &mut read.defaults.deduplicate);
            defaults.limits(&mut read.defaults);
            let mut breaker = BreakerSettings::default();
            let is_there = defaults.has("circuit_breaker");
            defaults.section("circuit_breaker", |section| section.breaker(&mut breaker));
            read.defaults.circuit_breaker = is_there.then_some(breaker);
        });
        let inherited = (read.retry.backoff, read.defaults.circuit_breaker);
        root.sections("handlers", |name, section| {
            let handler = section.handler(inherited);
            read.handlers.insert(name.to_owned(), handler);
        });
        root.sections("breakers", |name, section| {
            let mut breaker = BreakerSettings::default();
            section.breaker(&mut breaker);
            read.breakers.insert(name.to_owned(), breaker);
        });
        root.sections("projections", |name, section| {
            let mut projection = ProjectionSettings::default();
            section.setting("on_bad_event", &mut projection.on_bad_event);
            read.projections.insert(name.to_owned(), projection);
        });
        root.sections("streams", |name, section| {
            let mut stream = StreamSettings::default();
            section.setting("start", &mut stream.start);
            section.setting("retention", &mut stream.retention);
            section.setting("force", &mut stream.force);
            read.streams.insert(name.to_owned(), stream);
        });
        root.section("dead_letters", |dead| {
            dead.setting("keep", &mut read.dead_letters.keep);
            dead.setting("warn_at", &mut read.dead_letters.warn_at);
        });
        root.section("telemetry", |telemetry| {
            telemetry.setting("listen", &mut read.telemetry.listen);
            telemetry.setting("token", &mut read.telemetry.token);
            telemetry.setting("token_file", &mut read.telemetry.token_file);
        });
        root.section("web", |web| read.web.read(web));
        root.section("alerts", |alerts| read.alerts.read(alerts));
        root.free("app", &mut read.app);
        root.finish();
        read
    }
}

/// One table of the configuration while it is read.
pub(super) struct Section<'r, 't> {
    reader: &'r mut Reader<'t>,
    path: KeyPath,
    table: Option<&'t Table>,
    /// The keys that it may have, as far as they have been asked for.
    keys: Vec<&'static str>,
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

    /// Reads a backoff; what it does not say stays as it is.
    fn backoff(&mut self, into: &mut Backoff) {
        self.section("backoff", |section| {
            section.setting("initial", &mut into.initial);
            section.setting("factor", &mut into.factor);
            section.setting("max", &mut into.max);
            section.setting("jitter", &mut into.jitter);
        });
    }

    /// Reads a circuit breaker; what it does not say stays as it is.
    fn breaker(&mut self, into: &mut BreakerSettings) {
        self.setting("enabled", &mut into.enabled);
        self.setting("failures", &mut into.failures);
        self.setting("failure_rate", &mut into.failure_rate);
        self.setting("window", &mut into.window);
        self.setting("minimum", &mut into.minimum);
        self.setting("open_for", &mut into.open_for);
        self.setting("probes", &mut into.probes);
        self.setting("scope", &mut into.scope);
        self.setting("counts", &mut into.counts);
    }

    fn limits(&mut self, into: &mut HandlerSettings) {
        self.setting("concurrency", &mut into.concurrency);
        self.setting("rate", &mut into.rate);
        self.setting("rate_scope", &mut into.rate_scope);
    }

    fn handler(&mut self, inherited: (Backoff, Option<BreakerSettings>)) -> HandlerSettings {
        let mut handler = HandlerSettings::default();
        self.setting("timeout", &mut handler.timeout);
        self.setting("grace", &mut handler.grace);
        self.setting("deduplicate", &mut handler.deduplicate);
        self.setting("max_attempts", &mut handler.max_attempts);
        self.setting("on_crash", &mut handler.on_crash);
        self.limits(&mut handler);
        if self.has("backoff") {
            let mut backoff = inherited.0;
            self.backoff(&mut backoff);
            handler.backoff = Some(backoff);
        } else {
            self.keys.push("backoff");
        }
        if self.has("circuit_breaker") {
            let mut breaker = inherited.1.unwrap_or_default();
            self.section("circuit_breaker", |section| section.breaker(&mut breaker));
            handler.circuit_breaker = Some(breaker);
        } else {
            self.keys.push("circuit_breaker");
        }
        handler
    }

    fn has(&self, key: &str) -> bool {
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
    fn is_unquoted(&mut self, name: &str, value: &Value) -> bool {
        let within = value.as_table().into_iter().flatten();
        let of_its_own = |key: &str| matches!(key, "backoff" | "circuit_breaker" | "streams");
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
    fn free(&mut self, key: &'static str, into: &mut Table) {
        self.section(key, |section| {
            *into = section.table.take().cloned().unwrap_or_default();
        });
    }

    fn inner(
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

    fn value(&mut self, key: &'static str) -> Option<&'t Value> {
        self.keys.push(key);
        self.table.and_then(|table| table.get(key))
    }

    /// Notes the keys that nothing has asked for.
    fn finish(&mut self) {
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

    fn advice(&self, key: &str) -> String {
        if let Some(meant) = nearest::of(key, self.keys.iter().copied()) {
            return format!("; did you mean `{}`?", self.path.key(meant));
        }
        let elsewhere = known().into_iter().find(|known| known.last() == Some(key));
        if let Some(elsewhere) = elsewhere {
            return format!("; did you mean `{elsewhere}`?");
        }
        format!("; known here: {}", self.keys.join(", "))
    }

    fn problem(&mut self, kind: ProblemKind, origin: Origin, path: &KeyPath, message: String) {
        self.reader.problems.push(Problem {
            kind,
            origin,
            key: Some(path.to_string()),
            message,
        });
    }
}
