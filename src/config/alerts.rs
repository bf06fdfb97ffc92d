//! `[alerts]`: who is told what is wrong, and what counts as wrong.

use std::path::PathBuf;
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use url::Url;

use super::findings::Findings;
use super::nearest;
use super::secret::{HIDDEN, Secret};
use super::section::Section;
use super::setters::setters;
use super::tree::KeyPath;
use crate::delay::LONGEST;
use crate::duration;

/// Below this everything is late, and above everything would be told all the time.
const SHORTEST_OBJECTIVE: Duration = Duration::from_secs(1);
/// A look is some requests to Redis; and what is wrong is to be told while it is.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(600);
const SHORTEST_REPEAT: Duration = Duration::from_secs(60);

/// What there is to be told of, by the names that `alerts.off` has for it.
pub(crate) const ALERTS: &[&str] = &[
    "waiting",
    "late_fast",
    "late_slow",
    "lag",
    "retries",
    "dead",
    "new_failure",
    "no_workers",
    "crashed",
    "lease_margin",
    "breaker",
    "paused",
    "scheduled",
    "projection",
    "retention",
    "eviction",
    "persistence",
];

/// `[alerts]`: who is told what is wrong with the group, and what counts as wrong.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct AlertSettings {
    /// An address that a POST tells of it, as JSON with a `text` for chats; none by default. Such an address is often
    /// a secret, and is hidden as one.
    pub webhook: Option<Secret>,
    /// The file that holds that address. A newline at its end is no part of it.
    pub webhook_file: Option<PathBuf>,
    /// An Alertmanager to tell, as in `http://alertmanager:9093`; none by default.
    pub alertmanager: Option<String>,
    /// How long the oldest unread entry may wait; 5 min.
    pub oldest: Duration,
    /// Within which time events are to end, from their entry's time to their handler's success, retries included; not
    /// looked at by default. It is taken for the next power of two in seconds, where histograms have a bound.
    pub end_to_end: Option<Duration>,
    /// Which share of them may take longer; 0.01.
    pub budget: f64,
    /// How often it is looked; 30 s.
    pub every: Duration,
    /// How often it is told again what is still wrong; 4 h.
    pub repeat: Duration,
    /// Rules that are not looked at, by their names.
    pub off: Vec<String>,
}

impl Default for AlertSettings {
    fn default() -> Self {
        AlertSettings {
            webhook: None,
            webhook_file: None,
            alertmanager: None,
            oldest: Duration::from_secs(300),
            end_to_end: None,
            budget: 0.01,
            every: Duration::from_secs(30),
            repeat: Duration::from_secs(4 * 3600),
            off: Vec::new(),
        }
    }
}

impl AlertSettings {
    /// Reads what the section says.
    pub(super) fn read(&mut self, section: &mut Section<'_, '_>) {
        section.setting("webhook", &mut self.webhook);
        section.setting("webhook_file", &mut self.webhook_file);
        section.setting("alertmanager", &mut self.alertmanager);
        section.setting("oldest", &mut self.oldest);
        section.setting("end_to_end", &mut self.end_to_end);
        section.setting("budget", &mut self.budget);
        section.setting("every", &mut self.every);
        section.setting("repeat", &mut self.repeat);
        section.setting("off", &mut self.off);
    }

    /// Looks for what can't work.
    pub(super) fn check(&self, findings: &mut Findings) {
        let at = |key| KeyPath::plain("alerts").key(key);
        let webhook = self.webhook.as_ref().map(|webhook| webhook.expose());
        let file = self.webhook_file.as_ref();
        findings.text(at("webhook"), webhook);
        findings.text(at("webhook_file"), file.and_then(|path| path.to_str()));
        // What a webhook's address is may be a secret in any part.
        for (key, address) in [
            ("webhook", webhook),
            ("alertmanager", self.alertmanager.as_deref()),
        ] {
            // As it is shown by `config show`.
            let url = address.filter(|address| *address != HIDDEN).map(Url::parse);
            let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
            if url.is_some_and(|url| !url.as_ref().is_ok_and(is_http)) {
                let message = "is no address; write \"https://host/path\"";
                findings.add(at(key), message);
            }
        }
        findings.duration(at("oldest"), self.oldest, SHORTEST_OBJECTIVE, LONGEST);
        if let Some(within) = self.end_to_end {
            findings.duration(at("end_to_end"), within, SHORTEST_OBJECTIVE, LONGEST);
        }
        findings.duration(at("every"), self.every, SHORTEST_LOOK, LONGEST_LOOK);
        findings.duration(at("repeat"), self.repeat, SHORTEST_REPEAT, LONGEST);
        if !(self.budget > 0.0 && self.budget <= 0.5) {
            let message = format!(
                "{} is no share that may be late; above 0, at most 0.5",
                self.budget
            );
            findings.add(at("budget"), message);
        }
        for name in &self.off {
            if !ALERTS.contains(&&name[..]) {
                let hint = nearest::of(name, ALERTS.iter().copied())
                    .map(|name| format!("did you mean {name:?}?"))
                    .unwrap_or_else(|| format!("there are {}", ALERTS.join(", ")));
                findings.add(at("off"), format!("{name:?} is no alert; {hint}"));
            }
        }
    }

    pub(super) fn is_unset(&self) -> bool {
        *self == AlertSettings::default()
    }

    /// Whether anybody is to be told anything.
    pub fn is_on(&self) -> bool {
        self.webhook.is_some() || self.alertmanager.is_some()
    }
}

setters!(AlertSettings {
    some_into webhook: Secret,
    some_into webhook_file: PathBuf,
    some_into alertmanager: String,
    plain oldest: Duration,
    some end_to_end: Duration,
    plain budget: f64,
    plain every: Duration,
    plain repeat: Duration,
    plain off: Vec<String>,
});

/// The webhook once: from a file it is shown as the file's name alone.
impl Serialize for AlertSettings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut alerts = to.serialize_struct("alerts", 8)?;
        if let Some(path) = &self.webhook_file {
            alerts.serialize_field("webhook_file", path)?;
        } else if let Some(webhook) = &self.webhook {
            alerts.serialize_field("webhook", webhook)?;
        }
        if let Some(alertmanager) = &self.alertmanager {
            alerts.serialize_field("alertmanager", alertmanager)?;
        }
        let text = |duration| duration::format(duration).to_string();
        alerts.serialize_field("oldest", &text(self.oldest))?;
        if let Some(within) = self.end_to_end {
            alerts.serialize_field("end_to_end", &text(within))?;
        }
        alerts.serialize_field("budget", &self.budget)?;
        alerts.serialize_field("every", &text(self.every))?;
        alerts.serialize_field("repeat", &text(self.repeat))?;
        if !self.off.is_empty() {
            alerts.serialize_field("off", &self.off)?;
        }
        alerts.end()
    }
}
