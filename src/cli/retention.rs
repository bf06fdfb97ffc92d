//! What `status` says of retention: what a stream is trimmed to, what holds it, and what became of dead letters.

use serde_json::{Value, json};

use super::text::{count, rough};
use crate::config::{DeadLetterSettings, Settings};
use crate::error::{ErrorKind, Result};
use crate::names::shown;
use crate::stream::{
    Hold, HoldWhy, Keys, Policy, Pool, StreamStatus, Trimmed, Trimming, trim_policy, trim_rhythm,
};

/// What is kept of a stream and of its dead letters.
pub(super) struct Kept {
    stream: String,
    policy: Option<Policy>,
    trimmed: Option<Trimmed>,
    /// Why nothing can be said of it.
    trouble: Option<String>,
    dead: u64,
    dropped: u64,
    settings: DeadLetterSettings,
}

impl Kept {
    /// Looks at a stream whose status is known.
    pub async fn look(
        pool: &Pool,
        settings: &Settings,
        stream: &str,
        group: &str,
        status: &StreamStatus,
    ) -> Result<Self> {
        let keys = Keys::new(stream, group);
        let policy = trim_policy(settings, stream);
        let (mut trimmed, mut trouble) = (None, None);
        if let (Some(policy), "stream") = (policy, &status.kind[..]) {
            let of = Trimming {
                keys: &keys,
                group,
                policy,
                consumer: "",
                rhythm: trim_rhythm(settings.worker.lease),
                groups: &[group.as_bytes().to_vec()],
            };
            match pool.look_at_trimming(of).await {
                Ok(looked) => trimmed = looked,
                // A key that is in the way of this is none to the rest.
                Err(error) if error.kind() == ErrorKind::Redis => trouble = Some(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(Kept {
            stream: stream.to_owned(),
            policy,
            trimmed,
            trouble,
            dead: status.dead,
            dropped: pool.dropped_letters(&keys).await?,
            settings: settings.dead_letters.clone(),
        })
    }

    /// Lines for people.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(policy) = self.policy {
            let force = if policy.force { ", by force" } else { "" };
            let found = match (&self.trimmed, &self.trouble) {
                (Some(trimmed), _) => found(trimmed),
                (None, Some(trouble)) => trouble.clone(),
                (None, None) => "nothing is trimmed before the group is there".to_owned(),
            };
            notes.push(format!("retention {}{force}: {found}", policy.retention));
        }
        if self.is_too_much() {
            notes.push(format!(
                "{}, and {} is many: dlq stats says of what kind; replay or purge them",
                count(self.dead, "dead letter"),
                self.settings.warn_at
            ));
        }
        if self.dropped > 0 {
            let by = match self.settings.keep {
                Some(keep) => format!("dead_letters.keep = \"{keep}\""),
                None => "a dead_letters.keep that is no longer set".to_owned(),
            };
            notes.push(format!(
                "{} dropped so far by {by}",
                count(self.dropped, "dead letter")
            ));
        }
        notes
            .into_iter()
            .map(|note| format!("{}: {note}", self.stream))
            .collect()
    }

    /// Adds what is known to the stream's JSON.
    pub fn add_to(&self, stream: &mut Value) {
        stream["retention"] = self.policy.map_or(Value::Null, |policy| {
            json!({
                "keeps": policy.retention.to_string(),
                "force": policy.force,
                "could_trim": self.trimmed.as_ref().map(|trimmed| trimmed.could),
                "could_trim_more": self.trimmed.as_ref().map(|trimmed| trimmed.could_at_least),
                "held": self.trimmed.as_ref().and_then(|trimmed| trimmed.hold.as_ref()).map(held),
            })
        });
        stream["dead_too_many"] = self.is_too_much().into();
        stream["dead_dropped"] = self.dropped.into();
    }

    fn is_too_much(&self) -> bool {
        self.dead >= self.settings.warn_at
    }
}

fn found(trimmed: &Trimmed) -> String {
    let more = if trimmed.could_at_least { "+" } else { "" };
    let entries = if trimmed.could == 1 {
        "entry"
    } else {
        "entries"
    };
    let could = format!("{}{more} {entries} could be trimmed", trimmed.could);
    let Some(hold) = &trimmed.hold else {
        return format!("{could}; nothing is held");
    };
    let age = rough(hold.age);
    let group = shown(&hold.group);
    let why = match hold.why {
        HoldWhy::Unread | HoldWhy::Pending => match hold.unread {
            Some(unread) => format!("{} pending, {unread} unread", hold.pending),
            None => format!("{} pending", hold.pending),
        },
        HoldWhy::Parked => "made anew: what was parked is not back yet".to_owned(),
        HoldWhy::Gone => "destroyed a moment ago".to_owned(),
    };
    let too_long = if hold.too_long {
        ", and should not"
    } else {
        ""
    };
    let id = hold.id;
    format!("{could}; the group {group} holds {id} ({age} old; {why}){too_long}")
}

fn held(hold: &Hold) -> Value {
    json!({
        "group": hold.group,
        "why": hold.why.name(),
        "from": hold.id.to_string(),
        "age_ms": hold.age.as_millis() as u64,
        "pending": hold.pending,
        "unread": hold.unread.and_then(|unread| unread.known().0),
        "unread_at_least": hold.unread.map(|unread| unread.known().1),
        "too_long": hold.too_long,
    })
}
