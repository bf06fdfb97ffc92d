//! How many more entries of each stream may come, by the limits of the handlers it has been seen to have entries for.
//! What may not come is not read, and not woken: it stays where it is.
//!
//! A stream whose handlers are all closed is left alone. One that has entries for others as well is read on: what comes
//! for a closed handler goes back to Redis until its time, in bounded number; where that is reached the stream waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fetcher::Fetcher;
use super::shared::sleep_until;
use super::source::Source;
use crate::policy::Room;
use crate::stream::Trouble;

/// How often a stream is looked at that is paused.
const LOOK: Duration = Duration::from_millis(500);
/// The bit of all handlers that have none of their own.
const OTHERS: u64 = 1 << 63;

/// Which streams are read, and how.
pub(super) struct Plan {
    pub sources: Vec<Arc<Source>>,
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
                most: None,
                waits: None,
            });
        }
        let rooms: Vec<(Arc<Source>, Room)> = sources
            .into_iter()
            .map(|source| {
                let room = self.room_to_read(&source);
                (source, room)
            })
            .collect();
        let closed = rooms.iter().filter_map(|(_, room)| match room {
            Room::None(wait) => Some(*wait),
            _ => None,
        });
        let closed = closed.min();
        let least = rooms.iter().filter_map(|(_, room)| match room {
            Room::Some(room) => Some(*room),
            _ => None,
        });
        let least = least.min();
        let is_free = |room: &Room| *room == Room::Any;
        let any_free = rooms.iter().any(|(_, room)| is_free(room));
        // COUNT is the same for all streams of a read: those without limits have every other read to themselves.
        self.free_only = least.is_some() && any_free && !self.free_only;
        let free_only = self.free_only;
        let sources: Vec<Arc<Source>> = rooms
            .iter()
            .filter(|(_, room)| match room {
                Room::None(_) => false,
                room => is_free(room) || !free_only,
            })
            .map(|(source, _)| source.clone())
            .collect();
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
            most: least.filter(|_| !free_only),
            waits,
        })
    }

    /// How many entries of a stream may be read.
    fn room_to_read(&self, source: &Source) -> Room {
        let room = self.room_to_wake(source);
        let overfull = self
            .seen_by(source)
            .filter_map(|bound| bound.gate.is_overfull());
        overfull.map(Room::None).fold(room, Room::and)
    }

    /// How many parked entries of a stream may come back: what was put back is not in its own way.
    pub(super) fn room_to_wake(&self, source: &Source) -> Room {
        let routes = &self.shared.routes;
        if source.pauses.stream() {
            return Room::None(LOOK);
        }
        if !routes.is_limited() && !source.pauses.any() {
            return Room::Any;
        }
        let is_paused = |name: &str| source.pauses.handler(name);
        let room = match source.seen() {
            // What it has is not known yet: no more than would do for whichever it is.
            0 => routes
                .all()
                .iter()
                .map(|bound| bound.room())
                .fold(Room::Any, |a, b| match b {
                    Room::None(_) => a.and(Room::Some(1)),
                    b => a.and(b),
                }),
            seen if seen & OTHERS != 0 => Room::Any,
            _ => self
                .seen_by(source)
                .map(|bound| match is_paused(&bound.gate.name) {
                    true => Room::None(LOOK),
                    false => bound.room(),
                })
                .reduce(Room::or)
                .unwrap_or(Room::Any),
        };
        match room {
            Room::Some(room) => {
                match room.saturating_sub(source.on_the_way.load(Ordering::Relaxed)) {
                    0 => Room::None(Duration::from_millis(2)),
                    room => Room::Some(room),
                }
            }
            room => room,
        }
    }

    /// The handlers that entries of a stream have gone to.
    fn seen_by<'a>(
        &'a self,
        source: &Source,
    ) -> impl Iterator<Item = &'a super::admission::Bound> + use<'a> {
        let seen = source.seen();
        let all = self.shared.routes.all().iter();
        all.filter(move |bound| bound.bit & seen != 0)
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
            () = self.shared.held.freed.notified() => {}
            () = self.shared.nudge.notified() => {}
            () = self.shared.due_changed.notified() => {}
            () = self.shared.stopping.cancelled() => {}
            () = sleep_until(due), if due.is_some() => {}
            () = sleep_until(Some(until)) => {}
        }
        Ok(())
    }
}
