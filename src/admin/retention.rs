//! What a stream is trimmed to, what could be trimmed now, and what holds the rest. Workers trim; here it is only looked.

use std::time::Duration;

use serde::Serialize;

use super::{Admin, check_stream, in_ms, text};
use crate::config::Retention;
use crate::error::{ErrorKind, Result};
use crate::event::EntryId;
use crate::stream::{Hold, HoldWhy, Keys, Policy, Trimmed, Trimming, trim_policy, trim_rhythm};

/// What a stream is trimmed to, by [`Admin::retention`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RetentionStatus {
    /// `retention` of the stream.
    pub keeps: Retention,
    /// Whether also what a group has not settled is trimmed.
    pub force: bool,
    /// Entries that could be trimmed now; None where the group is not there yet, or it can't be known.
    pub could_trim: Option<u64>,
    /// Whether there may be more than these.
    pub could_trim_more: Option<bool>,
    /// What holds the rest.
    pub held: Option<Held>,
    /// Why it can't be known what could be trimmed.
    #[serde(skip)]
    pub trouble: Option<String>,
}

/// What keeps a stream from being trimmed further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Held {
    /// The group that holds it.
    pub group: String,
    /// Why it does.
    pub why: HeldBy,
    /// The first entry that stays.
    #[serde(rename = "from", serialize_with = "text")]
    pub id: EntryId,
    /// How old that is.
    #[serde(rename = "age_ms", serialize_with = "age")]
    pub age: Duration,
    /// Entries of the group that are not settled.
    pub pending: u64,
    /// Entries it has not read; None where they were not counted, or are too many to be.
    pub unread: Option<u64>,
    /// So many there are at least; None where they were not counted.
    pub unread_at_least: Option<u64>,
    /// Whether it holds what should have gone.
    pub too_long: bool,
}

/// Why a group holds entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HeldBy {
    /// It has not read them.
    Unread,
    /// They are not settled.
    Pending,
    /// It was made anew, and what was parked is not back yet.
    Parked,
    /// It was destroyed a moment ago.
    Gone,
}

impl Admin {
    /// What `stream` is trimmed to by the settings, what could be trimmed of it now, and what holds the rest; None where
    /// it is not trimmed.
    ///
    /// # Errors
    /// Where Redis can't be reached, or no stream can have this name.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// if let Some(retention) = admin.retention("orders").await?
    ///     && let Some(held) = retention.held
    /// {
    ///     println!("{} keeps {} and what follows", held.group, held.id);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn retention(&self, stream: &str) -> Result<Option<RetentionStatus>> {
        check_stream(stream)?;
        self.look_at_retention(&Keys::new(stream, self.group()))
            .await
    }

    pub(super) async fn look_at_retention(&self, keys: &Keys) -> Result<Option<RetentionStatus>> {
        let Some(policy) = trim_policy(&self.settings, &keys.stream) else {
            return Ok(None);
        };
        let of = Trimming {
            keys,
            group: self.group(),
            policy,
            consumer: "",
            rhythm: trim_rhythm(self.settings.worker.lease),
            groups: &[self.group().as_bytes().to_vec()],
        };
        let mut status = RetentionStatus::set(policy);
        match self.pool.look_at_trimming(of).await {
            Ok(looked) => status.looked(looked),
            // A key that is in the way of this is none to the rest.
            Err(error) if error.kind() == ErrorKind::Redis => {
                status.trouble = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(Some(status))
    }

    /// The same where there is no stream to look at.
    pub(super) fn retention_set(&self, stream: &str) -> Option<RetentionStatus> {
        trim_policy(&self.settings, stream).map(RetentionStatus::set)
    }
}

impl RetentionStatus {
    fn set(policy: Policy) -> Self {
        RetentionStatus {
            keeps: policy.retention,
            force: policy.force,
            could_trim: None,
            could_trim_more: None,
            held: None,
            trouble: None,
        }
    }

    fn looked(&mut self, looked: Option<Trimmed>) {
        if let Some(trimmed) = looked {
            self.could_trim = Some(trimmed.could);
            self.could_trim_more = Some(trimmed.could_at_least);
            self.held = trimmed.hold.map(Held::of);
        }
    }
}

impl Held {
    fn of(hold: Hold) -> Self {
        let unread = hold.unread.map(|unread| unread.known());
        Held {
            group: hold.group,
            why: match hold.why {
                HoldWhy::Unread => HeldBy::Unread,
                HoldWhy::Pending => HeldBy::Pending,
                HoldWhy::Parked => HeldBy::Parked,
                HoldWhy::Gone => HeldBy::Gone,
            },
            id: hold.id,
            age: hold.age,
            pending: hold.pending,
            unread: unread.and_then(|(exactly, _)| exactly),
            unread_at_least: unread.map(|(_, at_least)| at_least),
            too_long: hold.too_long,
        }
    }
}

fn age<S: serde::Serializer>(age: &Duration, to: S) -> Result<S::Ok, S::Error> {
    in_ms(&Some(*age), to)
}
