//! The life of one entry: where it stands with each group of its stream, its attempts and their errors, its dead letters
//! and replays, what caused it, and what it has caused.
//!
//! Redis keeps no history of what succeeded: of that there is what stands in the streams. What has to be looked for is
//! looked for around the entry's time, so much and no more, and it is said how far.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::search::{Budget, Covered, Hit, Place, Search, whole};
use super::{Admin, StreamTrouble, check_stream};
use crate::error::Result;
use crate::event::EntryId;
use crate::names::shown;
use crate::rfc3339;
use crate::stream::{CancelNote, ConsumerInfo, EntryStand, Keys, PARKED};

/// Longer ids are not looked for: a query has an end, and what is quoted in it takes more room.
const LONGEST_ID: usize = 800;
/// Most groups of a stream that are looked at, and most events that it has caused.
const GROUPS: usize = 20;
const CAUSED: usize = 20;

/// The separator of a record's errors.
const SEPARATOR: char = '\u{1e}';

/// The life of an entry, by [`Admin::entry`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EntryLife {
    /// The stream.
    pub stream: String,
    /// Its id.
    #[serde(serialize_with = "super::text")]
    pub id: EntryId,
    /// When it was added, by the server's clock.
    #[serde(serialize_with = "as_time")]
    pub at: SystemTime,
    /// Whether it is in the stream.
    pub is_there: bool,
    /// Its bytes, where it is there.
    pub bytes: u64,
    /// The event as JSON, its data decoded; null where it is not there.
    pub event: Value,
    /// Where it stands with each group of its stream, [the own one](Admin::group) first.
    pub groups: Vec<GroupLife>,
    /// The server's time when this was read.
    #[serde(serialize_with = "as_time")]
    pub now: SystemTime,
}

/// Where an entry stands with a group.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct GroupLife {
    /// The group.
    pub group: String,
    /// Where it stands.
    #[serde(flatten)]
    pub standing: EntryStanding,
    /// How often it was delivered, as far as is known.
    pub deliveries: u64,
    /// Attempts that were released, for a stop, a pause, a limit or an open breaker.
    pub released: u64,
    /// When it was first delivered, if it has failed or been released.
    #[serde(serialize_with = "as_some_time")]
    pub first_delivered: Option<SystemTime>,
    /// Whether the last worker that had it died with it.
    pub worker_died: bool,
    /// What it is to be buried for, once that is possible.
    pub doomed: Option<String>,
    /// Its last errors, the latest first.
    pub errors: Vec<AttemptError>,
    /// Who has asked for it to be cancelled; None where nobody has, or it has been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_be_cancelled_by: Option<String>,
}

/// An error of an entry's attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AttemptError {
    /// Of which attempt; None where that was not noted.
    pub attempt: Option<u64>,
    /// When, by the server's clock.
    #[serde(serialize_with = "as_some_time")]
    pub at: Option<SystemTime>,
    /// How often in a row.
    pub times: u64,
    /// What the handler said.
    pub error: String,
}

/// Where an entry stands with a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", rename_all = "lowercase")]
#[non_exhaustive]
pub enum EntryStanding {
    /// The group has not read it yet.
    Unread,
    /// It is with a worker.
    Held {
        /// The consumer.
        by: String,
        /// How long ago its lease was renewed.
        #[serde(serialize_with = "as_ms", rename = "renewed_ms")]
        renewed: Duration,
        /// Others take it over, or will do so soon.
        is_lapsed: bool,
        /// It runs alone, for it may kill its worker.
        is_alone: bool,
    },
    /// It waits for its next attempt.
    Parked {
        /// When it is due; None where no due time is known: it is mended within ten leases.
        #[serde(serialize_with = "as_some_time")]
        due: Option<SystemTime>,
        /// It waits for a worker that can handle it, or whose handler may run.
        is_waiting: bool,
    },
    /// It was settled: acknowledged, or buried.
    Settled {
        /// It had failed before, and came to its end a short while ago.
        after_failures: bool,
    },
    /// It was settled as cancelled: an operator had asked for that.
    Cancelled {
        /// Who.
        by: String,
        /// When it was settled.
        #[serde(serialize_with = "as_time")]
        at: SystemTime,
    },
    /// It is a dead letter of the group.
    Dead {
        /// The letter's id.
        letter: String,
        /// Why it was buried.
        reason: String,
    },
    /// Its dead letter was replayed, and the copy is not settled.
    Replayed {
        /// The copy's id.
        copy: String,
    },
    /// It left the stream while it was pending, and is lost to this group.
    Lost,
    /// It is not in the stream any more, or never was.
    Gone,
}

/// What an entry has to do with others, by [`Admin::entry_relations`].
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Relations {
    /// Its dead letters in the own group, and copies of it that were replayed and are not settled.
    pub letters: Vec<Hit>,
    /// The event that caused it.
    pub cause: Option<Hit>,
    /// What it has caused, and what became of that.
    pub caused: Vec<Caused>,
    /// Where this was looked for.
    pub covered: Vec<Covered>,
    /// Streams in which it was not looked for, because the node of a cluster they lie at can't be reached.
    pub in_trouble: Vec<StreamTrouble>,
    /// Whether there may be more where it was not looked.
    pub is_cut: bool,
}

/// An event that an entry has caused.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Caused {
    /// The event.
    #[serde(flatten)]
    pub hit: Hit,
    /// Where it stands with each group of its stream.
    pub groups: Vec<GroupLife>,
}

impl Admin {
    /// The life of an entry, as far as Redis knows it. Costs one request, and one for each group of the stream.
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses it, or no stream can have this name. An entry that is not there is none.
    ///
    /// ```no_run
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// let life = admin.entry("orders", "1732360000000-0".parse()?).await?;
    /// for group in &life.groups {
    ///     println!("{}: {}", group.group, group.standing);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn entry(&self, stream: &str, id: EntryId) -> Result<EntryLife> {
        check_stream(stream)?;
        let mut names = self.pool.group_names(stream).await?;
        names.retain(|name| name != self.group() && !name.contains(':'));
        names.truncate(GROUPS - 1);
        names.insert(0, self.group().to_owned());
        let mut life = EntryLife {
            stream: stream.to_owned(),
            id,
            at: id.time(),
            is_there: false,
            bytes: 0,
            event: Value::Null,
            groups: Vec::new(),
            now: UNIX_EPOCH,
        };
        for group in names {
            let keys = Keys::new(stream, &group);
            let mut stand = self.pool.entry(&keys, &group, id).await?;
            // Who may look at all the rest may not at this.
            let cancelled = self.pool.cancel_note(&keys, id).await.unwrap_or_default();
            life.now = at(stand.now_ms);
            if let Some(entry) = stand.entry.take() {
                life.is_there = true;
                life.bytes = entry.size() as u64;
                life.event = Value::Object(whole(&entry, true));
            }
            // A group that is none is told of only if it is the own one.
            if stand.delivered.is_some() || group == self.group() {
                let mut of = GroupLife::of(group, id, life.is_there, stand);
                of.know_cancelled(cancelled);
                life.groups.push(of);
            }
        }
        Ok(life)
    }

    /// What an entry has to do with others: looked for around its time in the streams of the group, and in `streams`
    /// besides, by three searches of this budget each.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub async fn entry_relations(
        &self,
        life: &EntryLife,
        streams: &[String],
        budget: &Budget,
    ) -> Result<Relations> {
        self.relations_as_seen(life, streams, budget, &|_, _| ())
            .await
    }

    /// The same for somebody who may not see all: see [`search_as_seen`](Self::search_as_seen).
    pub(crate) async fn relations_as_seen(
        &self,
        life: &EntryLife,
        streams: &[String],
        budget: &Budget,
        hide: &(dyn Fn(&str, &mut Value) + Sync),
    ) -> Result<Relations> {
        let mut related = Relations::default();
        let entry = life.id.to_string();
        // What is longer than a query may be can't be looked for.
        let fits = |id: &&str| id.len() <= LONGEST_ID;
        let own = life.event.get("id").and_then(Value::as_str).filter(fits);
        let event = own.unwrap_or(&entry).to_owned();
        let mut all = self.streams().to_vec();
        for stream in streams.iter().chain([&life.stream]) {
            if !all.contains(stream) {
                all.push(stream.clone());
            }
        }
        let query = |name: &str, id: &str| {
            format!(
                "{name}\"{}\"",
                id.replace('\\', "\\\\").replace('"', "\\\"")
            )
        };

        // An event without an id of its own is known by that of its entry.
        let mut search = Search::new(&query("", &event))?
            .streams([&life.stream])
            .places([Place::Dead, Place::Replayed])
            .near(life.at);
        let page = self.search_as_seen(&mut search, budget, hide).await?;
        let is = |hit: &Hit, name: &str, id: &str| {
            hit.event.get(name).and_then(Value::as_str) == Some(id)
        };
        related.letters = page.hits;
        related.letters.retain(|hit| {
            is(hit, "id", &event) || is(hit, "entry", &entry) || is(hit, "replay.entry", &entry)
        });
        related.look(page.covered, page.in_trouble, page.cursor.is_some());

        let cause = life.event.get("causationid").and_then(Value::as_str);
        if let Some(cause) = cause.filter(|cause| !cause.is_empty() && fits(cause)) {
            let name = match cause.parse::<EntryId>() {
                Ok(_) => "",
                Err(_) => "id:",
            };
            let mut search = Search::new(&query(name, cause))?
                .streams(&all)
                .places([Place::Stream, Place::Dead])
                .near(life.at);
            let page = self
                .search_as_seen(&mut search, &budget.clone().hits(1), hide)
                .await?;
            related.cause = page
                .hits
                .into_iter()
                .find(|hit| is(hit, "id", cause) || is(hit, "entry", cause));
            related.look(
                page.covered,
                page.in_trouble,
                related.cause.is_none() && page.cursor.is_some(),
            );
        }

        let mut search = Search::new(&query("causationid:", &event))?
            .streams(&all)
            .places([Place::Stream])
            .near(life.at);
        let page = self
            .search_as_seen(&mut search, &budget.clone().hits(CAUSED), hide)
            .await?;
        related.look(page.covered, page.in_trouble, page.cursor.is_some());
        for hit in page.hits {
            let groups = match hit.id.parse() {
                Ok(id) => match self.entry(&hit.stream, id).await {
                    Err(error) if self.pool.is_of_one_node(&error) => Vec::new(),
                    life => life?.groups,
                },
                Err(_) => Vec::new(),
            };
            related.caused.push(Caused { hit, groups });
        }
        Ok(related)
    }
}

impl EntryLife {
    /// Has the own group stand as its dead letters and copies say that were found: what was settled may have been buried.
    pub fn know(&mut self, relations: &Relations) {
        let text = |value: &Value, name: &str| {
            value
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let own = self.groups.first_mut().filter(|own| {
            matches!(
                own.standing,
                EntryStanding::Settled { .. } | EntryStanding::Gone
            )
        });
        let entry = self.id.to_string();
        let is_of_it = |hit: &&Hit| match hit.place {
            Place::Dead => {
                text(&hit.event, "entry") == entry || text(&hit.event, "replay.entry") == entry
            }
            _ => text(&hit.event, "replay.entry") == entry,
        };
        let last = relations
            .letters
            .iter()
            .filter(is_of_it)
            .max_by_key(|hit| hit.at);
        if let (Some(own), Some(last)) = (own, last) {
            own.standing = match last.place {
                Place::Dead => EntryStanding::Dead {
                    letter: last.id.clone(),
                    reason: text(&last.event["dead"], "reason"),
                },
                _ => EntryStanding::Replayed {
                    copy: last.id.clone(),
                },
            };
        }
    }
}

impl Relations {
    fn look(&mut self, covered: Vec<Covered>, in_trouble: Vec<StreamTrouble>, is_cut: bool) {
        self.is_cut |= is_cut;
        for trouble in in_trouble {
            if self
                .in_trouble
                .iter()
                .all(|known| known.stream != trouble.stream)
            {
                self.in_trouble.push(trouble);
            }
        }
        for covered in covered {
            let is_same = |known: &&mut Covered| {
                known.stream == covered.stream && known.place == covered.place
            };
            match self.covered.iter_mut().find(is_same) {
                // What was looked at less is what is known for certain.
                Some(known) if covered.entries < known.entries => *known = covered,
                Some(_) => {}
                None => self.covered.push(covered),
            }
        }
    }
}

impl GroupLife {
    fn of(group: String, id: EntryId, is_there: bool, stand: EntryStand) -> Self {
        let record = stand
            .record
            .as_deref()
            .and_then(Noted::parse)
            .unwrap_or_default();
        let standing = standing(id, is_there, &stand, &record);
        let pending = stand.pending.as_ref().map(|(_, _, count)| *count);
        let delivered = stand.delivered.is_some_and(|last| id <= last);
        GroupLife {
            group,
            deliveries: pending.unwrap_or(record.deliveries.max(delivered.into())),
            standing,
            released: record.released,
            first_delivered: record.first_ms.map(at),
            worker_died: record.died,
            doomed: record.doomed,
            errors: record.errors,
            to_be_cancelled_by: None,
        }
    }

    /// What is noted of its cancellation. A note that it is to be cancelled may stand beside one that had succeeded by then.
    fn know_cancelled(&mut self, note: Option<CancelNote>) {
        let is_over = matches!(
            self.standing,
            EntryStanding::Settled { .. } | EntryStanding::Gone
        );
        match note {
            Some(note) if note.is_done && is_over => {
                self.standing = EntryStanding::Cancelled {
                    by: note.by,
                    at: at(note.at_ms),
                };
            }
            Some(note) if !note.is_done && !is_over => self.to_be_cancelled_by = Some(note.by),
            _ => {}
        }
    }

    /// Attempts it has had, the one that runs among them.
    pub fn attempts(&self) -> u64 {
        self.deliveries.saturating_sub(self.released)
    }
}

fn standing(id: EntryId, is_there: bool, stand: &EntryStand, record: &Noted) -> EntryStanding {
    let Some(delivered) = stand.delivered else {
        return match is_there {
            true => EntryStanding::Unread,
            false => EntryStanding::Gone,
        };
    };
    match &stand.pending {
        Some(_) if !is_there => EntryStanding::Lost,
        Some((consumer, ..)) if consumer == PARKED => EntryStanding::Parked {
            due: stand.due_ms.map(at),
            is_waiting: record.is_waiting,
        },
        Some((consumer, idle, _)) => {
            let holder = ConsumerInfo {
                name: consumer.clone(),
                pending: 1,
                idle_ms: *idle,
            };
            EntryStanding::Held {
                by: consumer.clone(),
                renewed: Duration::from_millis(*idle),
                is_lapsed: holder.lease_ms().is_some_and(|lease| *idle > lease),
                is_alone: holder.is_alone(),
            }
        }
        None if id > delivered && is_there => EntryStanding::Unread,
        None if id > stand.last || id > delivered => EntryStanding::Gone,
        None if is_there => EntryStanding::Settled {
            after_failures: stand.guarded_ms.is_some_and(|until| until > stand.now_ms),
        },
        None => EntryStanding::Gone,
    }
}

/// In a sentence: `waits for its next attempt, at 12:00:01`.
impl fmt::Display for EntryStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryStanding::Unread => f.write_str("not read yet"),
            EntryStanding::Held {
                by,
                renewed,
                is_lapsed,
                is_alone,
            } => {
                write!(f, "with {by}")?;
                if *is_alone {
                    f.write_str(", alone, for it may kill its worker")?;
                }
                let ago = crate::duration::rounded(*renewed);
                match is_lapsed {
                    true => write!(f, ", not heard of for {ago}: others take it over"),
                    false => write!(f, ", renewed {ago} ago"),
                }
            }
            EntryStanding::Parked { due, is_waiting } => {
                f.write_str(match is_waiting {
                    true => "waits for a worker that can handle it or whose handler may run",
                    false => "waits for its next attempt",
                })?;
                match due {
                    Some(due) => write!(f, ", due at {}", rfc3339::millis(*due)),
                    None => f.write_str(", without a due time: that is mended within ten leases"),
                }
            }
            EntryStanding::Settled {
                after_failures: false,
            } => f.write_str("settled"),
            EntryStanding::Settled {
                after_failures: true,
            } => f.write_str("settled, after failures, a short while ago"),
            EntryStanding::Cancelled { by, at } => {
                write!(f, "cancelled at {} by {}", rfc3339::millis(*at), shown(by))
            }
            EntryStanding::Dead { letter, reason } => write!(f, "dead letter {letter}: {reason}"),
            EntryStanding::Replayed { copy } => {
                write!(f, "replayed as {copy}, which is not settled")
            }
            EntryStanding::Lost => {
                f.write_str("lost: it was deleted from the stream while it was pending")
            }
            EntryStanding::Gone => {
                f.write_str("not in the stream: trimmed, deleted, or never there")
            }
        }
    }
}

/// What is noted of an entry's failures; see `park.lua`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Noted {
    first_ms: Option<u64>,
    released: u64,
    deliveries: u64,
    died: bool,
    doomed: Option<String>,
    is_waiting: bool,
    errors: Vec<AttemptError>,
}

impl Noted {
    fn parse(record: &str) -> Option<Self> {
        let mut parts = record.splitn(6, ' ');
        let first_ms = parts.next()?.parse().ok()?;
        let (released, deliveries) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let (died, doomed) = (parts.next()?, parts.next()?);
        Some(Noted {
            first_ms: Some(first_ms),
            released,
            deliveries,
            died: died != "-",
            doomed: Some(doomed.to_owned()).filter(|reason| !matches!(&reason[..], "-" | "?")),
            is_waiting: doomed == "?",
            errors: errors(parts.next().unwrap_or_default()),
        })
    }
}

/// The last error, then, behind a separator each, `<attempt> <when> <how often in a row>` of it, and the same with the error
/// of those before. An earlier release notes the last one only.
fn errors(tail: &str) -> Vec<AttemptError> {
    let mut parts = tail.split(SEPARATOR);
    let last = parts.next().unwrap_or_default();
    let mut errors = Vec::new();
    if !last.is_empty() {
        errors.push(AttemptError {
            attempt: None,
            at: None,
            times: 1,
            error: last.to_owned(),
        });
    }
    for part in parts {
        let mut words = part.splitn(4, ' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (Some(attempt), Some(ms), Some(times)) = (number(), number(), number()) else {
            continue;
        };
        let noted = AttemptError {
            attempt: Some(attempt),
            at: Some(at(ms)),
            times,
            error: words.next().unwrap_or_default().to_owned(),
        };
        match errors.first_mut() {
            Some(latest) if noted.error.is_empty() => {
                let error = std::mem::take(&mut latest.error);
                *latest = AttemptError { error, ..noted };
            }
            _ if noted.error.is_empty() => {}
            _ => errors.push(noted),
        }
    }
    errors
}

fn at(ms: u64) -> SystemTime {
    crate::stream::time(ms)
}

fn as_time<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&rfc3339::millis(*time))
}

fn as_some_time<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => as_time(time, to),
        None => to.serialize_none(),
    }
}

fn as_ms<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(duration.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_of_failures_is_read_whatever_release_wrote_it() {
        let noted = Noted::parse("1732360000000 2 5 ! ? no stock: a b").unwrap();
        assert_eq!(
            (noted.first_ms, noted.released, noted.deliveries),
            (Some(1_732_360_000_000), 2, 5)
        );
        assert!(noted.died && noted.is_waiting && noted.doomed.is_none());
        assert_eq!(noted.errors.len(), 1);
        let several = "1 0 3 - failed late\u{1e}3 5000 2\u{1e}1 1000 1 early: x";
        let noted = Noted::parse(several).unwrap();
        let told: Vec<_> = noted
            .errors
            .iter()
            .map(|e| (e.attempt, e.times, &e.error[..]))
            .collect();
        assert_eq!(told, [(Some(3), 2, "late"), (Some(1), 1, "early: x")]);
        assert_eq!(noted.doomed.as_deref(), Some("failed"));
        assert_eq!(Noted::parse("1 0 3 - - ").unwrap().errors, []);
        assert_eq!(Noted::parse("nonsense"), None);
    }
}
