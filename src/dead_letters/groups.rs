//! Dead letters that are alike: of one reason, type and handler, and of one error but for numbers, ids and what is quoted.
//!
//! What makes letters alike is decided in `common/fingerprint.lua`. Redis counts them as they come and go, so that a look at
//! a million letters costs no more than one at a few. Filters that tell apart what is alike, such as a time, have the
//! letters gone through instead, a page at a time; so has a user who may not write. At most [`MOST`] groups of a stream are
//! told apart, however many there are.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::as_json::as_time;
use super::filter::Filter;
use super::letter::DeadLetter;
use super::of_group::DeadLetters;
use super::reason::BuriedFor;
use crate::error::{ErrorKind, Result};
use crate::stream::{CountedGroup, Counting};

/// Most groups of one stream; what comes above is counted together, as `other`.
const MOST: usize = 1000;

/// The fingerprint of the group of what came above that.
const OTHER: &str = "other";

/// Dead letters, by what they have in common, by [`DeadLetters::groups`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Groups {
    /// The group whose letters they are.
    pub group: String,
    /// How many letters there are.
    pub total: u64,
    /// Those that are alike; the most first.
    pub groups: Vec<Group>,
}

/// Dead letters that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Group {
    /// The stream the entries were read from.
    pub stream: String,
    /// What they have in common, in 12 hexadecimal digits; `other` for what is above the thousand groups that are told
    /// apart.
    pub fingerprint: String,
    /// How many there are.
    pub count: u64,
    /// Why they were buried; `other` as well if they are not told apart.
    pub reason: BuriedFor,
    /// Their event type; None if they have none.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// The handler they were for.
    pub handler: String,
    /// Their error, without numbers, ids and what is quoted.
    pub error: String,
    /// The error of one of them.
    pub example: String,
    /// When the first of them was buried that was counted here, be it gone by now.
    #[serde(serialize_with = "as_time")]
    pub first: SystemTime,
    /// When the last one was.
    #[serde(serialize_with = "as_time")]
    pub last: SystemTime,
    /// The schema versions of their events.
    pub versions: Vec<u32>,
}

impl DeadLetters {
    /// How many of the letters that `filter` lets through are alike, by stream.
    ///
    /// # Errors
    /// If Redis can't be reached, or the filter names a stream that is none of these.
    ///
    /// ```no_run
    /// # use streamhand::dead_letters::{DeadLetters, Filter};
    /// # async fn example(dead: &DeadLetters) -> streamhand::Result<()> {
    /// for group in dead.groups(Filter::new()).await?.groups {
    ///     println!("{} × {}: {}", group.count, group.fingerprint, group.error);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn groups(&self, filter: Filter) -> Result<Groups> {
        self.groups_told(filter, |_| ()).await
    }

    /// As [`groups`](Self::groups). `progress` is told how many letters were counted so far.
    ///
    /// # Errors
    /// As [`groups`](Self::groups).
    pub async fn groups_told(
        &self,
        filter: Filter,
        mut progress: impl FnMut(u64),
    ) -> Result<Groups> {
        filter.check()?;
        let counted = match filter.is_of_kinds() {
            true => match self.counted(&filter, &mut progress).await {
                Err(error) if error.kind() == ErrorKind::Redis => None,
                counted => Some(counted?),
            },
            false => None,
        };
        let mut groups = match counted {
            Some(groups) => groups,
            // Who may not write can look all the same.
            None => self.gone_through(filter, progress).await?,
        };
        groups.sort_by(|a, b| {
            let most = (b.count, b.last).cmp(&(a.count, a.last));
            most.then_with(|| a.fingerprint.cmp(&b.fingerprint))
        });
        Ok(Groups {
            group: self.group().to_owned(),
            total: groups.iter().map(|group| group.count).sum(),
            groups,
        })
    }

    /// As Redis has counted them.
    async fn counted(&self, filter: &Filter, progress: &mut impl FnMut(u64)) -> Result<Vec<Group>> {
        let places = match &filter.stream {
            Some(stream) => self.places(stream)?,
            None => (0..self.streams.len()).collect(),
        };
        let (mut all, mut before, mut others) = (Vec::new(), 0, places.len());
        for at in places {
            let keys = &self.streams[at];
            let counted = loop {
                match self.pool.count_groups(keys, MOST).await {
                    Ok(Counting::On(counted)) => progress(before + counted),
                    Ok(Counting::Done(groups)) => break Ok(groups),
                    Err(error) => break Err(error),
                }
            };
            let Some(groups) = self.or_left_out(at, counted, &mut others)? else {
                continue;
            };
            before += groups.iter().map(|group| group.count).sum::<u64>();
            let groups = groups
                .into_iter()
                .map(|counted| Group::of(&keys.stream, counted));
            all.extend(groups.filter(|group| filter.means_kind(group)));
        }
        Ok(all)
    }

    /// As they are found, one after the other.
    async fn gone_through(
        &self,
        filter: Filter,
        mut progress: impl FnMut(u64),
    ) -> Result<Vec<Group>> {
        let selection = self.select(filter.with_masked()).await?;
        let (mut letters, mut found) = (selection.letters(), 0);
        let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
        while let Some(letter) = letters.next().await? {
            found += 1;
            if found % 1000 == 0 {
                progress(found);
            }
            let mut key = (letter.stream.clone(), letter.fingerprint.clone());
            if groups.len() >= MOST && !groups.contains_key(&key) {
                OTHER.clone_into(&mut key.1);
            }
            match groups.get_mut(&key) {
                Some(group) => group.add(&letter),
                None => {
                    let is_other = key.1 == OTHER;
                    groups.insert(key, Group::begin(letter, is_other));
                }
            }
        }
        Ok(groups.into_values().collect())
    }
}

impl Group {
    fn of(stream: &str, counted: CountedGroup) -> Self {
        let time =
            |id: Option<crate::event::EntryId>| id.map_or(SystemTime::UNIX_EPOCH, |id| id.time());
        Group {
            stream: stream.to_owned(),
            first: time(counted.first),
            last: time(counted.last),
            fingerprint: counted.fingerprint,
            count: counted.count,
            reason: counted.reason.as_str().into(),
            event_type: counted.event_type,
            handler: counted.handler,
            error: counted.masked,
            example: counted.example,
            versions: counted.versions,
        }
    }

    fn begin(letter: DeadLetter, is_other: bool) -> Self {
        let mut group = Group {
            stream: letter.stream,
            fingerprint: letter.fingerprint,
            count: 1,
            reason: letter.reason,
            event_type: letter.event_type,
            handler: letter.handler,
            error: letter.masked.into(),
            example: letter.error,
            first: letter.id.time(),
            last: letter.id.time(),
            versions: vec![letter.version],
        };
        if is_other {
            OTHER.clone_into(&mut group.fingerprint);
            group.reason = OTHER.into();
            group.event_type = None;
            for text in [&mut group.handler, &mut group.error, &mut group.example] {
                text.clear();
            }
        }
        group
    }

    fn add(&mut self, letter: &DeadLetter) {
        self.count += 1;
        self.last = self.last.max(letter.id.time());
        if let Err(at) = self.versions.binary_search(&letter.version) {
            self.versions.insert(at, letter.version);
        }
    }
}

impl Filter {
    /// Whether it lets through all letters that are alike, or none.
    fn is_of_kinds(&self) -> bool {
        self.error.is_none()
            && self.since.is_none()
            && self.until.is_none()
            && self.limit.is_none()
            && self.about.is_none()
    }

    fn means_kind(&self, group: &Group) -> bool {
        let is = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
        };
        is(&self.fingerprint, Some(&group.fingerprint))
            && self.reason.is_none_or(|reason| group.reason == reason)
            && is(&self.event_type, group.event_type.as_deref())
    }
}
