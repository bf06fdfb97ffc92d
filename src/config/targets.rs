//! `[targets.billing]`: who handles events in place of a function of this program: an address, or a command.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use url::Url;

use super::error::ProblemKind;
use super::findings::Findings;
use super::nearest;
use super::redis::secret_in;
use super::secret::{HIDDEN, Secret, hide_credentials};
use super::section::Section;
use super::setters::setters;
use super::size::ByteSize;
use super::tree::KeyPath;
use super::value::{Given, Refusal, Setting, invalid, one_of, text};
use super::web::Network;
use crate::duration;
use crate::error::{Error, ErrorKind};

/// More processes of one target on one machine are a slip.
const MOST_PROCESSES: usize = 1_000;
/// No process gets by with less.
const LEAST_MEMORY: u64 = 1 << 20;

/// `[targets.billing]`: who handles events in any language: a service at an address, or processes that this one starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct TargetSettings {
    /// Where events are sent by POST. It is this or `url_file` or `command`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<TargetUrl>,
    /// The file that holds the address, if any part of that is a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// How an event is written into a request; as CloudEvents' binary mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<TargetFormat>,
    /// What its answers mean; streamhand's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<TargetContract>,
    /// Files of secrets that each request is signed with, all of them, as Standard Webhooks have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_files: Vec<PathBuf>,
    /// The file that holds a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The certificates (PEM) of who issued the service's; those the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate (PEM) to show to the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// The key (PEM) of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Addresses that are no public ones and may be connected to all the same. Without any, no address of this machine, of
    /// its networks, or of the metadata of a cloud is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Network>,
    /// The program that handles events, and its arguments. No shell reads it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Whether its processes live for many events or for one; for many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TargetMode>,
    /// How many processes of it this worker keeps; as many as this machine has processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
    /// Where they run; where this program runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// What they have in their environment, beside the little that they have anyway.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Secret>,
    /// Variables that they have from the environment of this program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pass_env: Vec<String>,
    /// How long a process of a pool may take until it says hello; a minute.
    #[serde(
        serialize_with = "duration::serialize_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub start_timeout: Option<Duration>,
    /// After so many events a process of a pool is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recycle_after: Option<u64>,
    /// At this age it is.
    #[serde(
        serialize_with = "duration::serialize_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_age: Option<Duration>,
    /// And once it takes so much memory, where the system says how much that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<ByteSize>,
}

/// How an event is written into a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TargetFormat {
    /// `"binary"`: the body is the data, and headers that begin with `ce-` say the rest.
    #[default]
    Binary,
    /// `"structured"`: the body is the whole event as JSON.
    Structured,
}

/// What the answers of a service mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TargetContract {
    /// `"answer"`: a body that is a JSON object says what is to leave with the acknowledgement, or what failed.
    #[default]
    Answer,
    /// `"status"`: the status alone counts, and no body is read of a success.
    Status,
    /// `"dapr"`: `{"status": "SUCCESS" | "RETRY" | "DROP"}`, where a dropped event is a dead letter.
    Dapr,
    /// `"lambda"`: an event whose id is among `batchItemFailures` has failed.
    Lambda,
}

/// For how many events a process of a command lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TargetMode {
    /// `"pool"`: it takes one after the other, as lines of JSON.
    #[default]
    Pool,
    /// `"once"`: it is started for each event.
    Once,
}

/// Where a service is: `http://` or `https://`. A user, a password and a query are not shown by `Debug`, `Display` or serde,
/// only by [`TargetUrl::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct TargetUrl {
    url: Url,
}

/// Which of the two kinds of targets it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Address,
    Command,
}

impl TargetSettings {
    /// A service at this address.
    pub fn url(url: TargetUrl) -> Self {
        TargetSettings {
            url: Some(url),
            ..Self::default()
        }
    }

    /// A program, and its arguments.
    pub fn command<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        TargetSettings {
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// The same settings with `secret_files`, in place of those that were there.
    pub fn secret_files<P: Into<PathBuf>>(mut self, files: impl IntoIterator<Item = P>) -> Self {
        self.secret_files = files.into_iter().map(Into::into).collect();
        self
    }

    /// Reads what the section says.
    pub(super) fn read(&mut self, section: &mut Section<'_, '_>) {
        section.setting("url", &mut self.url);
        section.setting("url_file", &mut self.url_file);
        section.setting("format", &mut self.format);
        section.setting("contract", &mut self.contract);
        section.setting("secret_files", &mut self.secret_files);
        section.setting("token_file", &mut self.token_file);
        section.setting("tls_ca", &mut self.tls_ca);
        section.setting("tls_cert", &mut self.tls_cert);
        section.setting("tls_key", &mut self.tls_key);
        section.setting("allow", &mut self.allow);
        section.setting("command", &mut self.command);
        section.setting("mode", &mut self.mode);
        section.setting("processes", &mut self.processes);
        section.setting("directory", &mut self.directory);
        section.values("env", |name, value: Secret| {
            self.env.insert(name.to_owned(), value);
        });
        section.setting("pass_env", &mut self.pass_env);
        section.setting("start_timeout", &mut self.start_timeout);
        section.setting("recycle_after", &mut self.recycle_after);
        section.setting("max_age", &mut self.max_age);
        section.setting("max_memory", &mut self.max_memory);
    }

    /// The files it names, by their keys.
    pub(super) fn files(&self) -> Vec<(&'static str, &Path)> {
        let one = [
            ("url_file", &self.url_file),
            ("token_file", &self.token_file),
            ("tls_ca", &self.tls_ca),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
        ];
        let one = one
            .into_iter()
            .filter_map(|(key, file)| Some((key, file.as_deref()?)));
        let secrets = self.secret_files.iter();
        one.chain(secrets.map(|file| ("secret_files", file.as_path())))
            .collect()
    }

    /// The address, read from its file if it is in one; an error is the end of a sentence about the setting.
    pub(crate) fn address(&self) -> Result<Option<TargetUrl>, String> {
        match (&self.url, &self.url_file) {
            (Some(url), _) => Ok(Some(url.clone())),
            (None, Some(file)) => {
                let text = secret_in(file, "address").map_err(|(_, why)| why)?;
                let url = TargetUrl::checked(text.expose());
                url.map(Some)
                    .map_err(|why| format!("the address in {} {why}", file.display()))
            }
            (None, None) => Ok(None),
        }
    }

    /// Which of its files can't be used, by their keys, and why.
    pub(super) fn unusable(&self) -> Vec<(&'static str, ProblemKind, String)> {
        let mut unusable: Vec<_> = self
            .files()
            .into_iter()
            .filter(|(_, file)| !file.as_os_str().is_empty())
            .filter_map(|(key, file)| {
                let what = match key {
                    "url_file" => "address",
                    "token_file" => "token",
                    "secret_files" => "secret",
                    "tls_key" => "key",
                    _ => "certificate",
                };
                let (kind, message) = secret_in(file, what).err()?;
                Some((key, kind, message))
            })
            .collect();
        if !unusable.iter().any(|(key, ..)| *key == "url_file")
            && let Err(why) = self.address()
        {
            unusable.push(("url_file", ProblemKind::Invalid, why));
        }
        unusable
    }

    fn check(&self, at: &KeyPath, findings: &mut Findings) {
        let all = || vec![at.key("url"), at.key("url_file"), at.key("command")];
        let has_url = self.url.is_some() || self.url_file.is_some();
        let kind = match (has_url, !self.command.is_empty()) {
            (true, false) => Kind::Address,
            (false, true) => Kind::Command,
            (true, true) => {
                let message =
                    "has an address and a command; it is one of them: leave the other out";
                return findings.add_with(at.clone(), all(), message);
            }
            (false, false) => {
                let message = "says neither where events are sent nor what handles them; \
                               write `url = \"https://host/path\"` or `command = [\"python3\", \"worker.py\"]`";
                return findings.add_with(at.clone(), all(), message);
            }
        };
        if self.url.is_some() && self.url_file.is_some() {
            let message = format!("stands beside {}; leave one of them out", at.key("url"));
            findings.add_with(at.key("url_file"), vec![at.key("url")], message);
        }
        for (key, of, is_set) in [
            ("format", Kind::Address, self.format.is_some()),
            ("contract", Kind::Address, self.contract.is_some()),
            ("secret_files", Kind::Address, !self.secret_files.is_empty()),
            ("token_file", Kind::Address, self.token_file.is_some()),
            ("tls_ca", Kind::Address, self.tls_ca.is_some()),
            ("tls_cert", Kind::Address, self.tls_cert.is_some()),
            ("tls_key", Kind::Address, self.tls_key.is_some()),
            ("allow", Kind::Address, !self.allow.is_empty()),
            ("mode", Kind::Command, self.mode.is_some()),
            ("processes", Kind::Command, self.processes.is_some()),
            ("directory", Kind::Command, self.directory.is_some()),
            ("env", Kind::Command, !self.env.is_empty()),
            ("pass_env", Kind::Command, !self.pass_env.is_empty()),
            ("start_timeout", Kind::Command, self.start_timeout.is_some()),
            ("recycle_after", Kind::Command, self.recycle_after.is_some()),
            ("max_age", Kind::Command, self.max_age.is_some()),
            ("max_memory", Kind::Command, self.max_memory.is_some()),
        ] {
            if is_set && of != kind {
                let message = match of {
                    Kind::Address => "is for a target with an address, and this one is a command",
                    Kind::Command => {
                        "is for a target that is a command, and this one has an address"
                    }
                };
                findings.add(at.key(key), message);
            }
        }
        for (key, file) in self.files() {
            findings.text(at.key(key), file.to_str());
        }
        self.check_tls(at, findings);
        if self.command.first().is_some_and(String::is_empty) {
            let path = at.key("command").index(0);
            findings.add(path, "is empty; the first is the program");
        }
        if let Some(nul) = self.command.iter().position(|part| part.contains('\0')) {
            let path = at.key("command").index(nul);
            findings.add(path, "has a NUL, which no argument can have");
        }
        if let Some(processes) = self.processes {
            findings.count(at.key("processes"), processes, MOST_PROCESSES);
        }
        self.check_processes(at, findings);
    }

    fn check_processes(&self, at: &KeyPath, findings: &mut Findings) {
        const SECOND: Duration = Duration::from_secs(1);
        const DAY: Duration = Duration::from_secs(24 * 3600);
        for (key, is_set) in [
            ("start_timeout", self.start_timeout.is_some()),
            ("recycle_after", self.recycle_after.is_some()),
            ("max_age", self.max_age.is_some()),
            ("max_memory", self.max_memory.is_some()),
        ] {
            if is_set && self.mode == Some(TargetMode::Once) {
                let message = "is for processes that live for many events, and these live for one: `mode` is \"once\"";
                findings.add_with(at.key(key), vec![at.key("mode")], message);
            }
        }
        if let Some(timeout) = self.start_timeout {
            findings.duration(at.key("start_timeout"), timeout, SECOND / 10, DAY);
        }
        if let Some(age) = self.max_age {
            findings.duration(at.key("max_age"), age, SECOND, 366 * DAY);
        }
        if self.recycle_after == Some(0) {
            findings.add(at.key("recycle_after"), "0 is too few; at least 1");
        }
        if self
            .max_memory
            .is_some_and(|size| size.bytes() < LEAST_MEMORY)
        {
            findings.add(at.key("max_memory"), "is too little; at least \"1MiB\"");
        }
        let directory = self.directory.as_deref();
        findings.text(at.key("directory"), directory.and_then(Path::to_str));
        let is_name = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        for (index, name) in self.pass_env.iter().enumerate() {
            if !is_name(name) {
                let path = at.key("pass_env").index(index);
                findings.add(path, format!("{name:?} is no name of a variable"));
            }
        }
        for (name, value) in &self.env {
            if !is_name(name) {
                findings.add(at.key("env").key(name), "is no name of a variable");
            } else if value.expose().contains('\0') {
                findings.add(
                    at.key("env").key(name),
                    "has a NUL, which no variable can have",
                );
            }
        }
    }

    fn check_tls(&self, at: &KeyPath, findings: &mut Findings) {
        let is_plain = self.url.as_ref().is_some_and(|url| !url.is_tls());
        for (key, other, is_set, has_other) in [
            ("tls_ca", "tls_ca", self.tls_ca.is_some(), true),
            (
                "tls_cert",
                "tls_key",
                self.tls_cert.is_some(),
                self.tls_key.is_some(),
            ),
            (
                "tls_key",
                "tls_cert",
                self.tls_key.is_some(),
                self.tls_cert.is_some(),
            ),
        ] {
            if is_set && is_plain {
                let message =
                    "is for TLS, which its url does not ask for; write \"https://host/path\"";
                findings.add_with(at.key(key), vec![at.key("url")], message);
            } else if is_set && !has_other {
                findings.add(
                    at.key(key),
                    format!("stands alone; set {} too", at.key(other)),
                );
            }
        }
    }
}

setters!(TargetSettings {
    some_into url_file: PathBuf,
    some format: TargetFormat,
    some contract: TargetContract,
    some_into token_file: PathBuf,
    some_into tls_ca: PathBuf,
    some_into tls_cert: PathBuf,
    some_into tls_key: PathBuf,
    plain allow: Vec<Network>,
    some mode: TargetMode,
    some processes: usize,
    some_into directory: PathBuf,
    plain env: BTreeMap<String, Secret>,
    plain pass_env: Vec<String>,
    some start_timeout: Duration,
    some recycle_after: u64,
    some max_age: Duration,
    some max_memory: ByteSize,
});

/// Looks for targets that can't work, and for handlers that name none that is there: `named` are types and the targets of
/// their handlers.
pub(super) fn check<'a>(
    targets: &BTreeMap<String, TargetSettings>,
    named: impl Iterator<Item = (&'a str, &'a str)>,
    findings: &mut Findings,
) {
    for (name, target) in targets {
        let at = KeyPath::plain("targets").key(name);
        if let Err(refusal) = check_name(name) {
            findings.add(at.clone(), format!("the target's name {refusal}"));
        }
        target.check(&at, findings);
    }
    for (event_type, named) in named {
        if !targets.contains_key(named) {
            let at = KeyPath::plain("handlers").key(event_type).key("target");
            findings.add(at, unknown(named, targets));
        }
    }
}

fn unknown(named: &str, targets: &BTreeMap<String, TargetSettings>) -> String {
    let known = || targets.keys().map(|name| &name[..]);
    let advice = match (nearest::of(named, known()), targets.is_empty()) {
        (Some(name), _) => format!("did you mean {name:?}?"),
        (None, true) => format!("write a section [targets.{named}]"),
        (None, false) => format!("there are {}", known().collect::<Vec<_>>().join(", ")),
    };
    format!("{named:?} is no target; {advice}")
}

/// It is part of log lines, of keys in Redis and of metrics.
fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name {
        "" => Err("is empty"),
        name if name.len() > 64 => Err("is longer than 64 characters"),
        name if !name.chars().all(plain) => {
            Err("may have letters, digits, '-', '_' and '.' in it, and nothing else")
        }
        _ => Ok(()),
    }
}

impl TargetUrl {
    /// Checks `text`: `https://host/path` or `http://host:port/path`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: what is wrong with the text, without quoting it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::checked(text)
            .map_err(|why| Error::new(ErrorKind::Invalid, format!("the target's address {why}")))
    }

    fn checked(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "write \"https://host/path\"";
        let url = Url::parse(text.trim()).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => format!("has no scheme; {RIGHT}"),
            error => format!("is not a URL ({error}); {RIGHT}"),
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "has a scheme that is neither http nor https; {RIGHT}"
            ));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("has no host; {RIGHT}"));
        }
        if url.port() == Some(0) {
            return Err("has port 0; leave it out for that of the scheme".to_owned());
        }
        if url.fragment().is_some() {
            return Err(
                "has a fragment, which is never sent; leave out what begins with '#'".to_owned(),
            );
        }
        Ok(TargetUrl { url })
    }

    /// The whole address, with what may be secret in it.
    pub fn expose(&self) -> &Url {
        &self.url
    }

    fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }
}

/// As [`TargetUrl::parse`].
impl FromStr for TargetUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        if shown.query().is_some() {
            shown.set_query(Some(HIDDEN));
        }
        f.write_str(&hide_credentials(shown.as_str()))
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

impl Serialize for TargetUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Setting for TargetUrl {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        let text = text(given, "an address in quotes, as in \"https://host/path\"")?;
        TargetUrl::checked(text).map_err(invalid)
    }
}

impl Setting for TargetFormat {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        let formats = [("binary", Self::Binary), ("structured", Self::Structured)];
        one_of(given, &formats)
    }
}

impl Setting for TargetContract {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(
            given,
            &[
                ("answer", Self::Answer),
                ("status", Self::Status),
                ("dapr", Self::Dapr),
                ("lambda", Self::Lambda),
            ],
        )
    }
}

impl Setting for TargetMode {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(given, &[("pool", Self::Pool), ("once", Self::Once)])
    }
}

impl Setting for Vec<PathBuf> {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        let texts = Vec::<String>::read(given)?;
        Ok(texts.into_iter().map(PathBuf::from).collect())
    }
}
