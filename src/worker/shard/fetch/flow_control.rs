//! How many more entries of each stream may come, by the limits of all handlers there are. What may not come is not read,
//! and not woken: it stays where it is.
//!
//! A stream is left alone if all handlers are closed. If some are not it is read on, as far as there is something for
//! them: see [`crate::worker::state::look_ahead`]. What comes for a closed handler meanwhile goes back to Redis, where it
//! waits until that is free, before what is new.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::policy::Room;
use crate::worker::run::routes::{Bound, Routes};
use crate::worker::state::source::Source;

/// How often a stream is looked at that is paused, or is not to be read yet.
const LOOK: Duration = Duration::from_millis(500);
/// How soon it is looked again if entries are on their way to their handler.
const TURN: Duration = Duration::from_millis(2);

/// Says which streams may be read.
#[derive(Default)]
pub(crate) struct FlowControl {
    /// The last read was one of streams without limits alone.
    free_only: bool,
}

/// What may be read now.
pub(crate) enum MayRead {
    Streams(Readable),
    /// None of them for so long.
    NothingFor(Duration),
}

/// Streams that may be read, and how.
pub(crate) struct Readable {
    pub sources: Vec<Arc<Source>>,
    pub limits: Limits,
}

/// What the limits of handlers leave of a read.
#[derive(Default)]
pub(crate) struct Limits {
    /// How many of each handler's entries may come of each stream, if some have limits.
    pub rooms: Option<Vec<Vec<Room>>>,
    /// Most entries of each stream, if some have limits.
    pub most: Option<usize>,
    /// How long the read may block, if something is closed or limited: zero for not at all.
    pub waits: Option<Duration>,
}

impl FlowControl {
    /// Which of these streams to read next. Without limits there are all of them; `is_limited` says whether there may be
    /// some: see [`is_limited`].
    pub fn may_read(
        &mut self,
        sources: Vec<Arc<Source>>,
        routes: &Routes,
        is_limited: bool,
    ) -> MayRead {
        if sources.is_empty() {
            return MayRead::NothingFor(LOOK);
        }
        if !is_limited {
            let limits = Limits::default();
            return MayRead::Streams(Readable { sources, limits });
        }
        let now = Instant::now();
        let rooms: Vec<(Arc<Source>, Vec<Room>, Room)> = sources
            .into_iter()
            .map(|source| {
                let of_each = rooms(routes, &source);
                let room = source.ahead().room(&of_each, now);
                (source, of_each, room)
            })
            .collect();
        let closed = rooms.iter().filter_map(|(_, _, room)| match room {
            Room::None(wait) => Some(*wait),
            _ => None,
        });
        let closed = closed.min();
        let least = rooms.iter().filter_map(|(_, _, room)| match room {
            Room::Some(room) => Some(*room),
            _ => None,
        });
        let least = least.min();
        let is_free = |room: &Room| *room == Room::Any;
        let any_free = rooms.iter().any(|(_, _, room)| is_free(room));
        // COUNT is the same for all streams of a read: those without limits have every other read to themselves.
        self.free_only = least.is_some() && any_free && !self.free_only;
        let free_only = self.free_only;
        let (sources, rooms): (Vec<Arc<Source>>, Vec<Vec<Room>>) = rooms
            .into_iter()
            .filter(|(_, _, room)| match room {
                Room::None(_) => false,
                room => is_free(room) || !free_only,
            })
            .map(|(source, of_each, _)| (source, of_each))
            .unzip();
        if sources.is_empty() {
            return MayRead::NothingFor(closed.unwrap_or(LOOK));
        }
        let waits = if free_only {
            Some(Duration::ZERO)
        } else {
            closed.map(|wait| wait.max(Duration::from_millis(1)))
        };
        let limits = Limits {
            rooms: Some(rooms),
            most: least.filter(|_| !free_only),
            waits,
        };
        MayRead::Streams(Readable { sources, limits })
    }
}

impl Limits {
    /// Whether there are any: then there is one read at a time, and none that outlasts a change of them.
    pub fn are_any(&self) -> bool {
        self.most.is_some() || self.waits.is_some()
    }
}

/// Whether not all entries of these streams may come: a handler has a limit, entries were ever released because of one,
/// or something is paused.
pub(crate) fn is_limited(routes: &Routes, holds_back: bool, sources: &[Arc<Source>]) -> bool {
    routes.is_limited()
        || routes.sharing.is_limited()
        || holds_back
        || sources.iter().any(|source| source.pauses.any())
}

/// How many new entries of each handler may come of a stream. Those that wait come before.
pub(crate) fn rooms(routes: &Routes, source: &Source) -> Vec<Room> {
    let listed = source.listed();
    let room = |bound: &Bound| {
        if listed.contains(&bound.place) {
            return Room::None(LOOK);
        }
        let overfull = bound.gate.is_overfull().map(Room::None);
        overfull.unwrap_or_else(|| room_of(routes, source, bound))
    };
    if source.pauses.stream() {
        return vec![Room::None(LOOK); routes.all().len()];
    }
    routes.all().iter().map(room).collect()
}

/// How many parked entries of a stream may come back.
pub(crate) fn room_to_wake(routes: &Routes, source: &Source) -> Room {
    if source.pauses.stream() {
        return Room::None(LOOK);
    }
    if !routes.is_limited() && !source.pauses.any() {
        return Room::Any;
    }
    let rooms = routes
        .all()
        .iter()
        .map(|bound| room_of(routes, source, bound));
    rooms.reduce(Room::or).unwrap_or(Room::Any)
}

/// How many more entries of a handler may come of a stream.
pub(crate) fn room_of(routes: &Routes, source: &Source, bound: &Bound) -> Room {
    if source.pauses.handler(&bound.gate.name) {
        return Room::None(LOOK);
    }
    let share = bound.entries_of(routes.sharing.room(bound.place));
    match bound.room().and(share) {
        Room::Some(room) => match room.saturating_sub(source.on_the_way()) {
            0 => Room::None(TURN),
            room => Room::Some(room),
        },
        room => room,
    }
}
