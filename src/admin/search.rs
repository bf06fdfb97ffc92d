//! Looking for events by what is in them: in streams, dead letters, replayed, parked and scheduled entries.
//!
//! Redis has no index of what entries hold, so each is read and looked at. A search does so much at a time, says what it
//! has looked at, and goes on from there when it is asked again, by another process if need be. All places take turns, the
//! newest entries first; where the id that is looked for says when its event was made, that time comes before all.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::query::Query;
use super::steps::Steps;
use super::{Admin, StreamTrouble, check_stream, data};
use crate::codec;
use crate::dead_letters::WholeLetter;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Entry, EntryId};
use crate::rfc3339;
use crate::stream::{self, Keys, Sizes, Slice, StreamKeys};

/// What is looked through first where an id says when its event was made: from so long before to so long behind.
const BEFORE: u64 = 60_000;
const BEHIND: u64 = 300_000;
/// A letter is written, and a copy replayed, later than that.
const BEHIND_LETTER: u64 = 3_600_000;

/// Where events are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Place {
    /// The entries of the stream; parked ones are among them.
    Stream,
    /// The dead letters of the group.
    Dead,
    /// Entries that were replayed and are not settled.
    Replayed,
    /// Entries that wait for their retry, and no others of the stream.
    Parked,
    /// Events that are to be published later.
    Scheduled,
}

/// What is looked for, where, and how far that has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    query: Query,
    streams: Vec<String>,
    places: Vec<Place>,
    since: Option<u64>,
    until: Option<u64>,
    near: Option<u64>,
    /// None until it has begun.
    turns: Option<Vec<Turn>>,
}

/// How much is looked at in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// Most entries, about.
    pub entries: u64,
    /// Most bytes, about.
    pub bytes: u64,
    /// Longest time, about; one step of each place is done in any case.
    pub time: Duration,
    /// So many hits are enough.
    pub hits: usize,
}

/// What one call has found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SearchPage {
    /// What meets the query.
    pub hits: Vec<Hit>,
    /// What has been looked at so far, by this call and those before.
    pub covered: Vec<Covered>,
    /// Streams that were left out of this call, because the node of a cluster they lie at can't be reached. A search that
    /// goes on comes back to them.
    pub in_trouble: Vec<StreamTrouble>,
    /// Goes on from here, by [`Search::resume`]; None where all has been looked at.
    pub cursor: Option<String>,
}

/// Something that meets the query.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Hit {
    /// The stream it is of.
    pub stream: String,
    /// Where it was found.
    pub place: Place,
    /// Its id there: the entry's, or the dead letter's; of a scheduled event its own.
    pub id: String,
    /// When it was added there; of a scheduled event when it is due.
    #[serde(serialize_with = "as_time")]
    pub at: SystemTime,
    /// Bytes of its fields.
    pub bytes: u64,
    /// The event: its fields by their names, its data decoded, `entry` for the entry's id, and `dead` for what is said of
    /// a dead letter.
    pub event: Value,
}

/// How much of one place has been looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Covered {
    /// The stream.
    pub stream: String,
    /// Which of its entries.
    pub place: Place,
    /// Entries looked at.
    pub entries: u64,
    /// Entries there are, as of the last call.
    pub of: u64,
    /// Bytes looked at.
    pub bytes: u64,
    /// The lowest id looked at, and the highest; what lies between may have been left out where an id said when its
    /// event was made.
    pub from: Option<String>,
    /// The highest id looked at.
    pub to: Option<String>,
    /// Whether all has been looked at.
    pub is_done: bool,
}

/// Where a place goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Turn {
    covered: Covered,
    /// What is to be looked through, by ids as Redis writes ranges: the lowest and the highest of each.
    left: Vec<(String, String)>,
    /// Behind which scheduled event to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<(Vec<u8>, String)>,
}

/// What a cursor holds.
#[derive(Serialize, Deserialize)]
struct Saved {
    v: u8,
    q: String,
    s: Option<u64>,
    u: Option<u64>,
    t: Vec<Turn>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            entries: 100_000,
            bytes: 256 << 20,
            time: Duration::from_secs(10),
            hits: 20,
        }
    }
}

impl Budget {
    /// So many entries at most, about.
    #[must_use]
    pub fn entries(mut self, entries: u64) -> Self {
        self.entries = entries;
        self
    }

    /// As long as this at most, about.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// So many hits are enough.
    #[must_use]
    pub fn hits(mut self, hits: usize) -> Self {
        self.hits = hits;
        self
    }
}

impl Place {
    /// All of them but [`Parked`](Self::Parked), whose entries are in the stream as well.
    pub const ALL: [Place; 4] = [
        Place::Dead,
        Place::Replayed,
        Place::Stream,
        Place::Scheduled,
    ];

    /// Its name: `stream`, `dead`, `replayed`, `parked`, `scheduled`.
    pub fn name(self) -> &'static str {
        match self {
            Place::Stream => "stream",
            Place::Dead => "dead",
            Place::Replayed => "replayed",
            Place::Parked => "parked",
            Place::Scheduled => "scheduled",
        }
    }
}

impl std::str::FromStr for Place {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [
            Place::Stream,
            Place::Dead,
            Place::Replayed,
            Place::Parked,
            Place::Scheduled,
        ];
        all.into_iter().find(|place| place.name() == name).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("{name:?} is no place to look in; there are stream, dead, replayed, parked, scheduled"),
            )
        })
    }
}

impl Search {
    /// Looks for this in all streams of the group, and in all places: see [`Query`].
    ///
    /// # Errors
    /// If that is no query.
    pub fn new(query: &str) -> Result<Self> {
        Ok(Search {
            query: Query::parse(query)?,
            streams: Vec::new(),
            places: Place::ALL.to_vec(),
            since: None,
            until: None,
            near: None,
            turns: None,
        })
    }

    /// In these streams only, be they of the group or not.
    #[must_use]
    pub fn streams<S: Into<String>>(mut self, streams: impl IntoIterator<Item = S>) -> Self {
        self.streams = streams.into_iter().map(Into::into).collect();
        self
    }

    /// In these places only.
    #[must_use]
    pub fn places(mut self, places: impl IntoIterator<Item = Place>) -> Self {
        self.places = places.into_iter().collect();
        self
    }

    /// Only what was added then or later, by the server's clock. Scheduled events have no such time.
    #[must_use]
    pub fn since(mut self, time: SystemTime) -> Self {
        self.since = Some(millis(time));
        self
    }

    /// Only what was added then or earlier.
    #[must_use]
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(millis(time));
        self
    }

    /// Begins around this time, and goes on with the rest.
    #[must_use]
    pub fn near(mut self, time: SystemTime) -> Self {
        self.near = Some(millis(time));
        self
    }

    /// Goes on where a search was left, by [`SearchPage::cursor`].
    ///
    /// # Errors
    /// If that is no cursor, or one of another release.
    pub fn resume(cursor: &str) -> Result<Self> {
        let saved = BASE64_URL_SAFE_NO_PAD
            .decode(cursor.trim())
            .ok()
            .and_then(|json| serde_json::from_slice::<Saved>(&json).ok())
            .filter(|saved| saved.v == 1);
        let Some(saved) = saved else {
            return Err(Error::new(
                ErrorKind::Invalid,
                "this is not where a search was left: take it whole from what the search before has said, or begin anew",
            ));
        };
        let mut streams: Vec<String> = Vec::new();
        for turn in &saved.t {
            check_stream(&turn.covered.stream)?;
            let sound = turn
                .left
                .iter()
                .all(|(low, high)| is_bound(low) && is_bound(high));
            if !sound {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "where a search was left was changed: begin anew",
                ));
            }
            if !streams.contains(&turn.covered.stream) {
                streams.push(turn.covered.stream.clone());
            }
        }
        let mut search = Search::new(&saved.q)?.streams(streams);
        (search.since, search.until) = (saved.s, saved.u);
        search.turns = Some(saved.t);
        Ok(search)
    }

    /// What is looked for.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// The streams it was told to look in, or has begun to; none where those of the group are meant.
    pub fn in_streams(&self) -> &[String] {
        &self.streams
    }

    /// Whether all has been looked at.
    pub fn is_done(&self) -> bool {
        self.turns
            .as_ref()
            .is_some_and(|turns| turns.iter().all(|turn| turn.covered.is_done))
    }

    fn cursor(&self) -> Option<String> {
        let turns = self.turns.as_ref().filter(|_| !self.is_done())?;
        let saved = Saved {
            v: 1,
            q: self.query.to_string(),
            s: self.since,
            u: self.until,
            t: turns.clone(),
        };
        let json = serde_json::to_vec(&saved).unwrap_or_default();
        Some(BASE64_URL_SAFE_NO_PAD.encode(json))
    }

    fn begin(&self, streams: &[String]) -> Vec<Turn> {
        let streams = match self.streams.is_empty() {
            true => streams,
            false => &self.streams,
        };
        let made_at = self.near.or_else(|| self.query.made_at());
        let turn = |place: Place, stream: &String| Turn {
            covered: Covered {
                stream: stream.clone(),
                place,
                entries: 0,
                of: 0,
                bytes: 0,
                from: None,
                to: None,
                is_done: false,
            },
            left: ranges(place, self.since, self.until, made_at),
            after: None,
        };
        let mut places = self.places.clone();
        places.sort_unstable();
        places.dedup();
        places
            .into_iter()
            .flat_map(|place| streams.iter().map(move |stream| (place, stream)))
            .map(|(place, stream)| turn(place, stream))
            .collect()
    }
}

impl Admin {
    /// Looks for events by what is in them, as much as the budget allows; asked again, it goes on.
    ///
    /// Dropped before it has ended, it has found nothing and is where it was.
    ///
    /// # Errors
    /// Where Redis can't be reached or refuses it, or no stream can have such a name. If only the nodes of some streams are
    /// away, the others are looked through; it fails once nothing else is left.
    ///
    /// ```no_run
    /// use streamhand::admin::{Budget, Search};
    ///
    /// # async fn example(admin: &streamhand::admin::Admin) -> streamhand::Result<()> {
    /// let mut search = Search::new("data.order_id:o-17 type:order.*")?;
    /// while !search.is_done() {
    ///     let page = admin.search(&mut search, &Budget::default()).await?;
    ///     for hit in page.hits {
    ///         println!("{} in {}: {}", hit.id, hit.stream, hit.event["type"]);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn search(&self, search: &mut Search, budget: &Budget) -> Result<SearchPage> {
        self.search_as_seen(search, budget, &|_, _| ()).await
    }

    /// The same for somebody who may not see all: `hide` takes away of each event of a stream what they may not, before
    /// it is compared with the query.
    pub(crate) async fn search_as_seen(
        &self,
        search: &mut Search,
        budget: &Budget,
        hide: &(dyn Fn(&str, &mut Value) + Sync),
    ) -> Result<SearchPage> {
        let began = Instant::now();
        let mut turns = match &search.turns {
            Some(turns) => turns.clone(),
            None => search.begin(self.streams()),
        };
        let mut away = Away::default();
        let answered = self.count(&mut turns, &mut away).await?;
        let is_stuck = search.turns.is_some() && !turns.iter().any(|turn| away.leaves(turn));
        if let Some(error) = away.last.take().filter(|_| answered == 0 || is_stuck) {
            // Who asks until all has been looked at would ask for ever.
            return Err(error);
        }
        let (mut hits, mut entries, mut bytes) = (Vec::new(), 0, 0);
        let needs_data = search.query.needs_data();
        let mut steps = Steps::of(budget.time, stream::SLICE as u64);
        'rounds: while turns.iter().any(|turn| away.leaves(turn)) {
            for turn in &mut turns {
                if !away.leaves(turn) {
                    continue;
                }
                let (begun, most) = (Instant::now(), budget.entries.saturating_sub(entries));
                let slice = match self.step(turn, steps.next().min(most)).await {
                    Err(error) if self.pool.is_of_one_node(&error) => {
                        away.add(&turn.covered.stream, error);
                        continue;
                    }
                    slice => slice?,
                };
                entries += slice.entries.len() as u64;
                bytes += slice.bytes;
                turn.covered.entries += slice.entries.len() as u64;
                turn.covered.bytes += slice.bytes;
                let last = slice.entries.len().saturating_sub(1);
                for (at, found) in slice.entries.iter().enumerate() {
                    let Some(mut hit) = found.seen(&turn.covered, needs_data) else {
                        continue;
                    };
                    hide(&hit.stream, &mut hit.event);
                    if !search.query.matches(&hit.event) {
                        continue;
                    }
                    if !needs_data {
                        // Only now that it is one.
                        let Some(whole) = found.seen(&turn.covered, true) else {
                            continue;
                        };
                        hit = whole;
                        hide(&hit.stream, &mut hit.event);
                    }
                    hits.push(hit);
                    if hits.len() >= budget.hits && at < last {
                        turn.go_on_behind(found, &slice.of);
                        turn.covered.entries -= (last - at) as u64;
                        break;
                    }
                }
                steps.took(begun.elapsed());
                if hits.len() >= budget.hits || entries >= budget.entries || bytes >= budget.bytes {
                    break 'rounds;
                }
            }
            // Each place has its turn before.
            if began.elapsed() >= budget.time {
                break;
            }
        }
        let covered = turns.iter().map(|turn| turn.covered.clone()).collect();
        search.turns = Some(turns);
        Ok(SearchPage {
            hits,
            covered,
            in_trouble: away.streams,
            cursor: search.cursor(),
        })
    }

    /// Learns how many entries there are of each place; one request a stream. Returns how many streams have answered.
    async fn count(&self, turns: &mut [Turn], away: &mut Away) -> Result<usize> {
        let mut known: Vec<(String, Sizes)> = Vec::new();
        for turn in turns.iter_mut() {
            let stream = &turn.covered.stream;
            if away.is(stream) {
                continue;
            }
            let sizes = match known.iter().find(|(name, _)| name == stream) {
                Some((_, sizes)) => *sizes,
                None => {
                    check_stream(stream)?;
                    match self.pool.sizes(&Keys::new(stream, self.group())).await {
                        Err(error) if self.pool.is_of_one_node(&error) => {
                            away.add(stream, error);
                            continue;
                        }
                        sizes => {
                            let sizes = sizes?;
                            known.push((stream.clone(), sizes));
                            sizes
                        }
                    }
                }
            };
            turn.covered.of = match turn.covered.place {
                Place::Stream => sizes.stream,
                Place::Dead => sizes.dead,
                Place::Replayed => sizes.again,
                Place::Parked => sizes.parked,
                Place::Scheduled => sizes.scheduled,
            };
            if turn.covered.of == 0 {
                turn.covered.is_done = true;
                turn.left.clear();
            }
        }
        Ok(known.len())
    }

    /// Reads some entries of a place.
    async fn step(&self, turn: &mut Turn, most: u64) -> Result<Seen> {
        let keys = Keys::new(&turn.covered.stream, self.group());
        let most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
        let key = match turn.covered.place {
            Place::Stream => &keys.stream,
            Place::Dead => &keys.dead,
            Place::Replayed => &keys.again,
            Place::Parked => &keys.stream,
            Place::Scheduled => return self.scheduled_step(turn).await,
        };
        let Some((low, high)) = turn.left.first().cloned() else {
            turn.covered.is_done = true;
            return Ok(Seen::default());
        };
        let goes_up = turn.covered.place == Place::Parked;
        let slice = match goes_up {
            true => {
                self.pool
                    .parked_slice(&keys, self.group(), (&low, &high), most)
                    .await?
            }
            false => self.pool.slice(key, &low, &high, most).await?,
        };
        turn.covered.met(&slice);
        match slice.next {
            Some(next) if goes_up => turn.left[0].0 = next.to_string(),
            Some(next) => turn.left[0].1 = next.to_string(),
            None => {
                turn.left.remove(0);
                turn.covered.is_done = turn.left.is_empty();
            }
        }
        let found = slice.entries.into_iter().map(Found::Entry).collect();
        Ok(Seen {
            entries: found,
            bytes: slice.bytes,
            of: (low, high),
        })
    }

    async fn scheduled_step(&self, turn: &mut Turn) -> Result<Seen> {
        let keys = StreamKeys::new(&turn.covered.stream);
        let after = turn.after.clone();
        let after = after.map(|(name, due)| stream::Place { name, due });
        let (events, more) = self.pool.scheduled(&keys, after.as_ref()).await?;
        let last = events
            .last()
            .map(|last| (last.place.name.clone(), last.place.due.clone()));
        turn.covered.is_done = !more || last.is_none();
        turn.after = last.filter(|_| more);
        let mut seen = Seen::default();
        for event in events {
            let packed = event.packed.unwrap_or_default();
            seen.bytes += packed.len() as u64;
            let fields = codec::packed(packed).unwrap_or_default();
            let id = String::from_utf8_lossy(&event.id).into_owned();
            let place = (event.place.name, event.place.due);
            seen.entries
                .push(Found::Scheduled(id, event.due_ms, fields, place));
        }
        Ok(seen)
    }
}

/// Streams whose node is away: they have no turn in this call.
#[derive(Default)]
struct Away {
    streams: Vec<StreamTrouble>,
    last: Option<Error>,
}

impl Away {
    fn add(&mut self, stream: &str, error: Error) {
        if !self.is(stream) {
            self.streams.push(StreamTrouble {
                stream: stream.to_owned(),
                error: error.to_string(),
            });
        }
        self.last = Some(error);
    }

    fn is(&self, stream: &str) -> bool {
        self.streams.iter().any(|away| away.stream == stream)
    }

    /// Whether a place can be looked at, and there is something left of it.
    fn leaves(&self, turn: &Turn) -> bool {
        !turn.covered.is_done && !self.is(&turn.covered.stream)
    }
}

/// What a step has brought.
#[derive(Default)]
struct Seen {
    entries: Vec<Found>,
    bytes: u64,
    /// The range it is of.
    of: (String, String),
}

enum Found {
    Entry(Entry),
    /// An event's id, when it is due, its fields, and its place among the others.
    Scheduled(String, u64, crate::fields::Fields, (Vec<u8>, String)),
}

impl Turn {
    /// Sets it back to what comes next of this step, whose range that was.
    fn go_on_behind(&mut self, found: &Found, of: &(String, String)) {
        self.covered.is_done = false;
        let id = match found {
            Found::Scheduled(.., place) => {
                self.after = Some(place.clone());
                return;
            }
            Found::Entry(entry) => entry.id,
        };
        let (low, high) = of.clone();
        let rest = match self.covered.place {
            Place::Parked => (just_above(id).to_string(), high),
            _ => (low, just_below(id).to_string()),
        };
        // What is left of the range stands first, unless nothing was.
        let is_first = |range: &(String, String)| match self.covered.place {
            Place::Parked => range.1 == rest.1,
            _ => range.0 == rest.0,
        };
        match self.left.first().is_some_and(is_first) {
            true => self.left[0] = rest,
            false => self.left.insert(0, rest),
        }
    }
}

fn just_above(id: EntryId) -> EntryId {
    match id.seq.checked_add(1) {
        Some(seq) => EntryId { ms: id.ms, seq },
        None => EntryId {
            ms: id.ms.saturating_add(1),
            seq: 0,
        },
    }
}

fn just_below(id: EntryId) -> EntryId {
    match id.seq.checked_sub(1) {
        Some(seq) => EntryId { ms: id.ms, seq },
        None => EntryId {
            ms: id.ms.saturating_sub(1),
            seq: u64::MAX,
        },
    }
}

impl Found {
    /// As it is compared and shown; None if it is nothing of the kind.
    fn seen(&self, of: &Covered, with_data: bool) -> Option<Hit> {
        let (id, at, bytes, event) = match self {
            Found::Scheduled(id, due, fields, _) => {
                let event = data::event(fields, with_data);
                (id.clone(), stream::time(*due), fields.size(), event)
            }
            Found::Entry(entry) => {
                let id = entry.id.to_string();
                let event = match of.place {
                    Place::Dead => letter(entry, &of.stream, with_data)?,
                    _ => whole(entry, with_data),
                };
                (id, entry.id.time(), entry.size(), event)
            }
        };
        Some(Hit {
            stream: of.stream.clone(),
            place: of.place,
            id,
            at,
            bytes: bytes as u64,
            event: Value::Object(event),
        })
    }
}

type Object = serde_json::Map<String, Value>;

/// An entry as JSON. One that was packed into a field by a script is unpacked.
pub(super) fn whole(entry: &Entry, with_data: bool) -> Object {
    let fields = match entry.fields.get(0) {
        Some((codec::PACKED, _)) => {
            &codec::unpack(entry.fields.clone()).unwrap_or_else(|(fields, _)| fields)
        }
        _ => &entry.fields,
    };
    let mut event = data::event(fields, with_data);
    event.insert("entry".to_owned(), entry.id.to_string().into());
    event
}

fn letter(entry: &Entry, stream: &str, with_data: bool) -> Option<Object> {
    let letter = WholeLetter::parse(entry.clone(), stream)?;
    let mut event = data::event(&letter.fields, with_data);
    event.insert("entry".to_owned(), letter.head.entry.clone().into());
    event.insert("letter".to_owned(), letter.head.id.to_string().into());
    for (name, value) in data::event(&letter.replay, true) {
        event.entry(name).or_insert(value);
    }
    event.insert("dead".to_owned(), serde_json::to_value(&letter.head).ok()?);
    Some(event)
}

impl Covered {
    fn met(&mut self, slice: &Slice) {
        let bound = |id: &Option<String>| id.as_ref().and_then(|id| id.parse::<EntryId>().ok());
        for id in slice
            .entries
            .first()
            .into_iter()
            .chain(slice.entries.last())
            .map(|entry| entry.id)
        {
            if bound(&self.from).is_none_or(|from| id < from) {
                self.from = Some(id.to_string());
            }
            if bound(&self.to).is_none_or(|to| id > to) {
                self.to = Some(id.to_string());
            }
        }
    }
}

/// `20,000 of 10,000,000 entries of orders`.
impl fmt::Display for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Covered {
            stream,
            entries,
            of,
            ..
        } = self;
        let (one, what) = match self.place {
            Place::Stream => ("entry", "entries"),
            Place::Dead => ("dead letter", "dead letters"),
            Place::Replayed => ("replayed entry", "replayed entries"),
            Place::Parked => ("parked entry", "parked entries"),
            Place::Scheduled => ("scheduled event", "scheduled events"),
        };
        match self.is_done {
            true if *of == 0 => write!(f, "no {what} of {stream}"),
            true if *of == 1 && *entries == 1 => write!(f, "the only {one} of {stream}"),
            true if entries >= of => write!(f, "all {entries} {what} of {stream}"),
            true => write!(
                f,
                "{entries} {what} of {stream} (of {of}; the others are of other times)"
            ),
            false => {
                write!(f, "{entries} of {of} {what} of {stream}")?;
                let from = self.from.as_ref().and_then(|id| id.parse::<EntryId>().ok());
                match from {
                    Some(from) => write!(f, ", the oldest from {}", rfc3339::seconds(from.time())),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What is to be looked through, in its order, by the lowest and the highest id of each range.
fn ranges(
    place: Place,
    since: Option<u64>,
    until: Option<u64>,
    made_at: Option<u64>,
) -> Vec<(String, String)> {
    let (low, high) = (since.unwrap_or(0), until.unwrap_or(u64::MAX));
    let first = |ms: u64| match ms {
        0 => "-".to_owned(),
        ms => format!("{ms}-0"),
    };
    let last = |ms: u64| match ms {
        u64::MAX => "+".to_owned(),
        // Redis takes the last id of that millisecond.
        ms => ms.to_string(),
    };
    let whole = vec![(first(low), last(high))];
    let Some(at) = made_at.filter(|_| !matches!(place, Place::Parked | Place::Scheduled)) else {
        return whole;
    };
    let behind = match place {
        Place::Stream => BEHIND,
        _ => BEHIND_LETTER,
    };
    let (from, to) = (
        at.saturating_sub(BEFORE).max(low),
        at.saturating_add(behind).min(high),
    );
    if from > to {
        return whole;
    }
    let mut ranges = vec![(first(from), last(to))];
    if to < high {
        ranges.push((first(to + 1), last(high)));
    }
    if from > low {
        ranges.push((first(low), last(from - 1)));
    }
    ranges
}

/// Whether a cursor's bound is one that was written here.
fn is_bound(bound: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.parse::<u64>().is_ok();
    match bound.split_once('-') {
        None => bound == "+" || is_number(bound),
        Some((ms, seq)) => bound == "-" || is_number(ms) && is_number(seq),
    }
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}

fn as_time<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&rfc3339::millis(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_an_id_is_looked_through_first_and_then_the_rest() {
        let text = |ranges: Vec<(String, String)>| {
            let all: Vec<String> = ranges
                .iter()
                .map(|(low, high)| format!("{low}..{high}"))
                .collect();
            all.join(" ")
        };
        assert_eq!(text(ranges(Place::Stream, None, None, None)), "-..+");
        assert_eq!(text(ranges(Place::Dead, Some(7), Some(9), None)), "7-0..9");
        let at = Some(1_000_000);
        assert_eq!(
            text(ranges(Place::Stream, None, None, at)),
            "940000-0..1300000 1300001-0..+ -..939999"
        );
        assert_eq!(
            text(ranges(Place::Stream, Some(950_000), Some(1_200_000), at)),
            "950000-0..1200000"
        );
        assert_eq!(
            text(ranges(Place::Stream, Some(5_000_000), None, at)),
            "5000000-0..+"
        );
        assert_eq!(text(ranges(Place::Parked, None, None, at)), "-..+");
    }

    #[test]
    fn a_cursor_that_was_tampered_with_is_refused() {
        let mut search = Search::new("o-1").unwrap();
        search.turns = Some(search.begin(&["orders".to_owned()]));
        let cursor = search.cursor().unwrap();
        let resumed = Search::resume(&cursor).unwrap();
        assert_eq!(
            (resumed.turns, resumed.query),
            (search.turns.clone(), search.query.clone())
        );
        assert!(Search::resume("nonsense").is_err());
        assert!(Search::resume("").is_err());
        if let Some(turns) = &mut search.turns {
            turns[0].left[0].0 = "- + COUNT".to_owned();
        }
        assert!(Search::resume(&search.cursor().unwrap()).is_err());
        if let Some(turns) = &mut search.turns {
            turns[0].left.clear();
            turns[0].covered.stream = "a{b".to_owned();
        }
        assert!(Search::resume(&search.cursor().unwrap()).is_err());
    }
}
