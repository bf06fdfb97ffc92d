//! How many more entries of each stream may come, by the limits of all handlers there are. What may not come is not read,
//! and not woken: it stays where it is.
//!
//! A stream is left alone where all handlers are closed. Where some are not it is read on, as far as there is something
//! for them: see [`crate::worker::state::look_ahead`]. What comes for a closed handler meanwhile goes back to Redis,
//! where it waits until that is free, before what is new.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fetcher::Fetcher;
use crate::policy::Room;
use crate::stream::{Link, Trouble};
use crate::worker::run::routes::Bound;
use crate::worker::shard::refusals::Chore;
use crate::worker::state::look_ahead::LookAhead;
use crate::worker::state::shared::sleep_until;
use crate::worker::state::source::Source;

/// How often a stream is looked at that is paused.
const LOOK: Duration = Duration::from_millis(500);
/// How soon it is looked again where entries are on their way to their handler.
const TURN: Duration = Duration::from_millis(2);

/// Which streams are read, and how.
pub(crate) struct Plan {
    pub sources: Vec<Arc<Source>>,
    /// How many of each handler's entries may come of each, where some have limits.
    pub rooms: Option<Vec<Vec<Room>>>,
    /// Most entries of each, where some have limits.
    pub most: Option<usize>,
    /// How long the read may block, where something is closed or limited: zero for not at all.
    pub waits: Option<Duration>,
}

impl Fetcher {
    /// Which of these streams to read next; or, where none may be read, for how long.
    pub(super) fn plan(&mut self, sources: Vec<Arc<Source>>) -> Result<Plan, Duration> {
        if !self.has_limits(&sources) {
            return Ok(Plan {
                sources,
                rooms: None,
                most: None,
                waits: None,
            });
        }
        let now = Instant::now();
        let rooms: Vec<(Arc<Source>, Vec<Room>, Room)> = sources
            .into_iter()
            .map(|source| {
                let of_each = self.rooms(&source);
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
            return Err(closed.unwrap_or(LOOK));
        }
        let waits = if free_only {
            Some(Duration::ZERO)
        } else {
            closed.map(|wait| wait.max(Duration::from_millis(1)))
        };
        Ok(Plan {
            sources,
            rooms: Some(rooms),
            most: least.filter(|_| !free_only),
            waits,
        })
    }

    /// How many new entries of each handler may come of a stream. Those that wait come before.
    pub(super) fn rooms(&self, source: &Source) -> Vec<Room> {
        let listed = source.listed();
        let room = |bound: &Bound| {
            if listed.contains(&bound.place) {
                return Room::None(LOOK);
            }
            let overfull = bound.gate.is_overfull().map(Room::None);
            overfull.unwrap_or_else(|| self.room_of(source, bound))
        };
        if source.pauses.stream() {
            return vec![Room::None(LOOK); self.shared.routes.all().len()];
        }
        self.shared.routes.all().iter().map(room).collect()
    }

    /// How many parked entries of a stream may come back.
    pub(super) fn room_to_wake(&self, source: &Source) -> Room {
        let routes = &self.shared.routes;
        if source.pauses.stream() {
            return Room::None(LOOK);
        }
        if !routes.is_limited() && !source.pauses.any() {
            return Room::Any;
        }
        let rooms = routes.all().iter().map(|bound| self.room_of(source, bound));
        rooms.reduce(Room::or).unwrap_or(Room::Any)
    }

    /// How many more entries of a handler may come of a stream.
    pub(super) fn room_of(&self, source: &Source, bound: &Bound) -> Room {
        if source.pauses.handler(&bound.gate.name) {
            return Room::None(LOOK);
        }
        match bound.room() {
            Room::Some(room) => {
                match room.saturating_sub(source.on_the_way.load(Ordering::Relaxed)) {
                    0 => Room::None(TURN),
                    room => Room::Some(room),
                }
            }
            room => room,
        }
    }

    /// Looks at the next new entries of streams of which not all may come, where that has to be known before they are
    /// read.
    pub(super) async fn look_ahead(&mut self, link: &Link) -> Result<(), Trouble> {
        let shared = self.shared.clone();
        for source in shared.active_sources() {
            if !self.has_limits(std::slice::from_ref(&source)) {
                continue;
            }
            let (rooms, since) = (self.rooms(&source), Instant::now());
            let Some(known) = source.ahead().looks(&rooms, since) else {
                continue;
            };
            let group = &source.surroundings.group;
            let stream = &source.keys.stream;
            let seen = match self.refusals.wait(Chore::LookAhead, stream) {
                Some(_) => None,
                None => {
                    let seen = link.clone().look_ahead(&source.keys, group, known).await;
                    self.refusals.heard(Chore::LookAhead, stream, seen)?
                }
            };
            let Some(seen) = seen else {
                // What can't be looked at is read.
                *source.ahead() = LookAhead::default();
                continue;
            };
            let place = |kind: &[u8]| shared.routes.place(kind);
            source.ahead().looked(&seen, &rooms, place, since.elapsed());
        }
        Ok(())
    }

    fn has_limits(&self, sources: &[Arc<Source>]) -> bool {
        self.shared.routes.is_limited()
            || self.shared.holds_back()
            || sources.iter().any(|source| source.pauses.any())
    }

    /// Waits until more of some stream may come, but no longer than there is nothing else to do.
    pub(super) async fn until_there_may_be_more(&self, wait: Duration) -> Result<(), Trouble> {
        let until = (Instant::now() + wait).min(self.next_look());
        let due = self.shared.next_due();
        tokio::select! {
            () = self.shared.inflight.freed.notified() => {}
            () = self.shared.nudge.notified() => {}
            () = self.shared.due_changed.notified() => {}
            () = self.shared.stopping.cancelled() => {}
            () = sleep_until(due), if due.is_some() => {}
            () = sleep_until(Some(until)) => {}
        }
        Ok(())
    }
}
