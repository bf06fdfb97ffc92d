//! Where settings come from and which of them wins: the defaults, then the file, then the
//! environment, then the command line.
//!
//! Everything is read into one tree, the tree into [`Settings`], and those are checked as a whole,
//! so that every problem of every source is told at once.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use toml::Value;

use super::check::check;
use super::environment::{self, Meaning};
use super::error::{ConfigError, Origin, Problem, ProblemKind};
use super::findings::Finding;
use super::redis::{password_in, secret_in};
use super::secret::Secret;
use super::sentinel::{RedisMode, SentinelSettings};
use super::tree::{KeyPath, Tree};
use super::value::typed_like;
use super::{RedisSettings, Settings, exposed, read, tls, topology};

/// What [`Settings::load`] reads, from the weakest to the strongest.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sources {
    /// The file that was asked for; an error where it is not there.
    pub file: Option<PathBuf>,
    /// The file to read where none was asked for, if it is there.
    pub default_file: PathBuf,
    /// Environment variables by name. `STREAMHAND_WORKER__LEASE` sets `worker.lease`; those that
    /// do not begin with `STREAMHAND_`, or have no two underscores together, are passed over, with a note where one was
    /// most likely meant for a setting. A list is written between commas or as
    /// TOML. `STREAMHAND_REDIS` is another name for `STREAMHAND_REDIS__URL`. Below `[app]`, names
    /// stand for lower-case keys, and values are text unless the file has a value of another type.
    pub environment: Vec<(String, String)>,
    /// What flags say: dotted keys, written as in TOML, and their values, written as in the
    /// environment.
    pub overrides: Vec<(String, String)>,
}

impl Sources {
    /// The environment of this process, and `config.toml` where it runs.
    pub fn from_process() -> Self {
        // What is not Unicode is refused when it is loaded: the replacement character tells.
        let unicode = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self {
            environment: std::env::vars_os()
                .map(|(name, value)| (unicode(name), unicode(value)))
                .filter(|(name, _)| name.starts_with(environment::PREFIX))
                .collect(),
            ..Self::default()
        }
    }
}

impl Default for Sources {
    /// `config.toml` if it is there, and nothing else.
    fn default() -> Self {
        Self {
            file: None,
            default_file: PathBuf::from("config.toml"),
            environment: Vec::new(),
            overrides: Vec::new(),
        }
    }
}

/// Without the values, which may be secrets.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |pairs: &[(String, String)]| -> Vec<String> {
            pairs.iter().map(|(name, _)| name.clone()).collect()
        };
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("default_file", &self.default_file)
            .field("environment", &names(&self.environment))
            .field("overrides", &names(&self.overrides))
            .finish()
    }
}

/// What is wrong but can be worked with is told to `note`, also where the settings are refused.
pub(super) fn load(sources: &Sources, note: impl FnMut(&Problem)) -> Result<Settings, ConfigError> {
    let mut loading = match file(sources) {
        Ok(Some((path, text))) => Loading::begin(&text, Some(path)),
        Ok(None) => Loading::begin("", None),
        Err(problem) => {
            let mut loading = Loading::begin("", None);
            loading.problems.push(problem);
            loading.whole = false;
            loading
        }
    };
    loading.environment(&sources.environment);
    loading.command_line(&sources.overrides);
    loading.finish(note)
}

pub(super) fn from_text(text: &str) -> Result<Settings, ConfigError> {
    Loading::begin(text, None).finish(|_| ())
}

/// The file that is to be read, and what is in it.
fn file(sources: &Sources) -> Result<Option<(&Path, String)>, Problem> {
    let path = sources.file.as_deref().unwrap_or(&sources.default_file);
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if sources.file.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Problem {
            kind: ProblemKind::Unreadable,
            origin: Origin::File(path.to_owned(), None),
            key: None,
            message: format!("cannot be read: {error}"),
        }),
    }
}

struct Loading {
    tree: Tree,
    problems: Vec<Problem>,
    notes: Vec<Problem>,
    /// Whether the tree holds all that the file was meant to say. Where it does not, nothing that
    /// depends on the file is judged.
    whole: bool,
}

impl Loading {
    fn begin(text: &str, file: Option<&Path>) -> Self {
        let (tree, problems) = Tree::parse(text, file);
        Self {
            whole: !problems.iter().any(|p| p.kind == ProblemKind::Syntax),
            tree,
            problems,
            notes: Vec::new(),
        }
    }

    fn environment(&mut self, variables: &[(String, String)]) {
        let mut set = BTreeMap::<KeyPath, &str>::new();
        for (name, value) in variables {
            let origin = Origin::Variable(name.clone());
            let path = match environment::meaning(name, value) {
                Ok(Meaning::Setting(path)) => path,
                Ok(Meaning::Nothing) => continue,
                Ok(Meaning::NearMiss(message)) => {
                    self.note(origin, message);
                    continue;
                }
                Err(message) => {
                    self.problem(ProblemKind::UnknownKey, origin, None, message);
                    continue;
                }
            };
            if value.contains(char::REPLACEMENT_CHARACTER) {
                let message = "is not valid Unicode".to_owned();
                self.problem(ProblemKind::Invalid, origin, Some(&path), message);
            } else if value.is_empty() && path.first() != Some("app") {
                let message = "is empty; unset it or give it a value".to_owned();
                self.problem(ProblemKind::Invalid, origin, Some(&path), message);
            } else if let Some(other) = set.insert(path.clone(), name) {
                let message = format!("is set by {other} too; unset one of them");
                self.problem(ProblemKind::Invalid, origin, Some(&path), message);
            } else {
                self.set(&path, value, &origin);
            }
        }
    }

    fn command_line(&mut self, overrides: &[(String, String)]) {
        for (key, value) in overrides {
            match KeyPath::parse(key) {
                Some(path) => self.set(&path, value, &Origin::CommandLine),
                None => {
                    let message =
                        format!("{key:?} is not a dotted key; write it as in worker.lease");
                    self.problem(ProblemKind::UnknownKey, Origin::CommandLine, None, message);
                }
            }
        }
    }

    fn set(&mut self, path: &KeyPath, text: &str, origin: &Origin) {
        // The user's own settings have no known types but those of the values in the file.
        let like = self.tree.get(path).filter(|_| path.first() == Some("app"));
        let value = match like {
            Some(like) => typed_like(like, text),
            None => Ok(Value::String(text.to_owned())),
        };
        match value {
            Ok(value) => self.tree.set(path, value, origin),
            Err(refusal) => {
                self.problem(refusal.kind, origin.clone(), Some(path), refusal.message);
            }
        }
    }

    fn finish(mut self, note: impl FnMut(&Problem)) -> Result<Settings, ConfigError> {
        let (mut settings, problems) = read::settings(&self.tree);
        let whole = self.whole;
        let judged = |problem: &Problem| whole || problem.origin.is_untyped();
        self.problems.extend(problems.into_iter().filter(judged));
        self.place(&mut settings.redis);
        self.credentials(&mut settings.redis);
        let sentinel = &mut settings.redis.sentinel;
        let (password, file) = (&mut sentinel.password, &mut sentinel.password_file);
        self.secret("redis.sentinel", "password", password, file);
        let telemetry = &mut settings.telemetry;
        let (token, file) = (&mut telemetry.token, &mut telemetry.token_file);
        self.secret("telemetry", "token", token, file);
        let otlp = &mut telemetry.otlp;
        let (headers, file) = (&mut otlp.headers, &mut otlp.headers_file);
        self.secret("telemetry.otlp", "headers", headers, file);
        let alerts = &mut settings.alerts;
        let (webhook, file) = (&mut alerts.webhook, &mut alerts.webhook_file);
        self.secret("alerts", "webhook", webhook, file);
        self.certificates(&mut settings.redis);
        self.target_files(&settings);
        for finding in check(&settings) {
            self.finding(finding);
        }
        self.notes.extend(exposed::notes(&settings, &self.tree));
        self.notes.iter().for_each(note);
        if self.problems.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError::new(self.problems))
        }
    }

    /// Lets an address of a stronger source win over nodes and sentinels: who says `--redis URL` means that server.
    fn place(&self, redis: &mut RedisSettings) {
        let layer = |key| {
            let path = KeyPath::plain(key);
            let is_set = self.tree.get(&path).is_some();
            is_set.then(|| self.tree.value_origin(&path).layer())
        };
        let others = [
            "redis.mode",
            "redis.nodes",
            "redis.sentinel.master",
            "redis.sentinel.nodes",
        ];
        if layer("redis.url") > others.into_iter().map(layer).max().flatten() {
            redis.mode = RedisMode::default();
            redis.nodes.clear();
            redis.sentinel = SentinelSettings::default();
        }
    }

    /// Lets the credentials of the stronger source win, however they are given, and reads the
    /// password file.
    fn credentials(&mut self, redis: &mut RedisSettings) {
        let at = |key| KeyPath::plain("redis").key(key);
        let layer = |key| self.tree.value_origin(&at(key)).layer();
        let (url, user) = (layer("url"), layer("username"));
        let (password, file) = (layer("password"), layer("password_file"));
        if redis.url.has_user() && url > user {
            redis.username = None;
        }
        if redis.url.has_password() && url > password {
            redis.password = None;
        }
        if redis.url.has_password() && url > file {
            redis.password_file = None;
        }
        let Some(path) = redis.password_file.clone() else {
            return;
        };
        if redis.password.is_some() && password > file {
            redis.password_file = None;
            return;
        }
        let place = at("password_file");
        let origin = self.tree.value_origin(&place);
        if redis.password.is_some() && password == file {
            let message = "stands beside redis.password; leave one of them out".to_owned();
            self.problem(ProblemKind::Invalid, origin, Some(&place), message);
        } else if !path.as_os_str().is_empty() {
            match password_in(&path) {
                Ok(password) => redis.password = Some(password),
                Err((kind, message)) => self.problem(kind, origin, Some(&place), message),
            }
        }
    }

    /// Lets the stronger source of a secret win, itself or the file that holds it, and reads the file. `what` it is called
    /// is its key as well, and that of its file with `_file` behind it.
    fn secret(
        &mut self,
        section: &str,
        what: &str,
        secret: &mut Option<Secret>,
        named: &mut Option<PathBuf>,
    ) {
        let itself = KeyPath::plain(section).key(what);
        let place = KeyPath::plain(section).key(&format!("{what}_file"));
        let origin = self.tree.value_origin(&place);
        let (layer, file) = (self.tree.value_origin(&itself).layer(), origin.layer());
        let Some(path) = named.clone() else {
            return;
        };
        if secret.is_some() && layer > file {
            *named = None;
        } else if secret.is_some() && layer == file {
            let message = format!("stands beside {itself}; leave one of them out");
            self.problem(ProblemKind::Invalid, origin, Some(&place), message);
        } else if !path.as_os_str().is_empty() {
            match secret_in(&path, what) {
                Ok(read) => *secret = Some(read),
                Err((kind, message)) => self.problem(kind, origin, Some(&place), message),
            }
        }
    }

    /// Leaves out what is for TLS where a stronger source names a server without it, and tries the rest.
    fn certificates(&mut self, redis: &mut RedisSettings) {
        let at = |key| KeyPath::plain("redis").key(key);
        let layer = |key| self.tree.value_origin(&at(key)).layer();
        if !redis.url.is_tls() {
            for (key, path) in [
                ("tls_ca", &mut redis.tls_ca),
                ("tls_cert", &mut redis.tls_cert),
                ("tls_key", &mut redis.tls_key),
            ] {
                if layer("url") > layer(key) {
                    *path = None;
                }
            }
        }
        for unusable in tls::read(redis).err().unwrap_or_default() {
            let place = at(unusable.key);
            let origin = self.tree.value_origin(&place);
            self.problem(unusable.kind, origin, Some(&place), unusable.message);
        }
        if redis.sentinel.is_unset() {
            return;
        }
        let of_sentinels = topology::of_sentinels(redis);
        for unusable in tls::read(&of_sentinels).err().unwrap_or_default() {
            let place = KeyPath::plain("redis.sentinel").key(unusable.key);
            // What they have from `[redis]` was looked at there.
            if self.tree.get(&place).is_some() {
                let origin = self.tree.value_origin(&place);
                self.problem(unusable.kind, origin, Some(&place), unusable.message);
            }
        }
    }

    /// Tries the files of targets, which read them when a worker begins.
    fn target_files(&mut self, settings: &Settings) {
        for (name, target) in &settings.targets {
            for (key, kind, message) in target.unusable() {
                let place = KeyPath::plain("targets").key(name).key(key);
                let origin = self.tree.value_origin(&place);
                self.problem(kind, origin, Some(&place), message);
            }
        }
    }

    /// Reports what the check has found, where it was said.
    fn finding(&mut self, finding: Finding) {
        let involved: Vec<KeyPath> = std::iter::once(&finding.path)
            .chain(&finding.with)
            .map(|path| self.said_at(path))
            .collect();
        let refused = |path: &KeyPath| {
            let key = path.to_string();
            self.problems
                .iter()
                .any(|problem| problem.key.as_ref() == Some(&key))
        };
        // A value that was refused has left its default in place, which says nothing about it.
        if involved.iter().any(refused) {
            return;
        }
        // What a handler inherits is judged where it stands.
        let of_handler = |path: &KeyPath| path.first() == Some("handlers");
        if of_handler(&finding.path) && !involved.iter().any(of_handler) {
            return;
        }
        // The strongest source is the one that has made it wrong; of equals, the setting itself.
        let origin = involved
            .iter()
            .filter(|path| self.tree.get(path).is_some())
            .map(|path| self.tree.value_origin(path))
            .reduce(|first, next| {
                if next.layer() > first.layer() {
                    next
                } else {
                    first
                }
            })
            .unwrap_or_else(|| self.tree.value_origin(&finding.path));
        if self.whole || origin.is_untyped() {
            self.problem(
                ProblemKind::Invalid,
                origin,
                Some(&finding.path),
                finding.message,
            );
        }
    }

    /// Where the value at `path` is said: a handler's backoff may leave it to that of `[retry]`.
    fn said_at(&self, path: &KeyPath) -> KeyPath {
        let inherited = path.first() == Some("handlers") && self.tree.get(path).is_none();
        match path.last() {
            Some(key) if inherited => KeyPath::plain("retry.backoff").key(key),
            _ => path.clone(),
        }
    }

    fn note(&mut self, origin: Origin, message: String) {
        self.notes.push(Problem {
            kind: ProblemKind::UnknownKey,
            origin,
            key: None,
            message,
        });
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
}
