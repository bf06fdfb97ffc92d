//! What is known of a stream's next new entries, where not all of them may come: a handler is paused, has reached its
//! limit, or its circuit breaker is open.
//!
//! Redis hands out new entries in their order. To get at one whose handler is free, those before it must be taken too, and
//! those of them that may not come go back to Redis, to wait there. That is worth it where there is such a one. So a
//! worker reads on blindly as long as something free comes among a few entries; then it looks ahead before it reads, and
//! reads up to the last free one it has seen. Where it sees none, all of it stays where it is, and is looked at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::event::EntryId;
use crate::policy::Room;
use crate::stream::Seen;

/// So many entries in a row that are not free are read before the next ones are looked at.
const BLIND: usize = 16;
/// Where so many of those that were read last are free, the next ones are read without a bound.
const MOSTLY: usize = 32;
/// How often what has come since is looked at, where nothing of it may come.
pub(crate) const LOOK: Duration = Duration::from_millis(800);
/// Between two looks at a long stream there is so many times the time that the last one took.
const REST: u32 = 3;

/// The place of a handler among all of them; none for what has no handler here, and so no limit.
pub(crate) type Place = Option<usize>;

/// What is known of the next new entries of one stream.
#[derive(Default)]
pub(crate) struct LookAhead {
    /// So many in a row were read that are not free.
    in_row: usize,
    /// So many of those that were read last were free.
    free: usize,
    /// So many have been looked at, and to read.
    count: usize,
    upto: EntryId,
    /// How far the group had read, as far as is known.
    read: EntryId,
    /// They end where the stream ended.
    is_all: bool,
    /// The handlers of those of them that are not free.
    only: BTreeSet<usize>,
    /// The last one of so many is free.
    allowed: usize,
    last_free: EntryId,
    next: Option<Instant>,
}

impl LookAhead {
    /// How many more may be read, where so many of each handler may come.
    pub fn room(&self, rooms: &[Room], now: Instant) -> Room {
        let open = rooms.iter().copied().reduce(Room::or).unwrap_or(Room::Any);
        if rooms.len() < 2 || is_unlimited(rooms) || matches!(open, Room::None(_)) {
            return open;
        }
        if self.in_row < BLIND && self.free >= MOSTLY {
            return open;
        }
        if self.in_row < BLIND {
            return open.and(Room::Some(BLIND - self.in_row + 4 * self.free));
        }
        if self.allowed > 0 {
            return Room::Some(self.allowed);
        }
        let next = self
            .next
            .map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        let known = self.only.iter().map(|place| rooms[*place]).reduce(Room::or);
        match known {
            Some(room @ (Room::Some(_) | Room::Any)) => room.and(Room::Some(self.count.max(1))),
            Some(Room::None(wait)) => Room::None(wait.min(next)),
            None => Room::None(next),
        }
    }

    /// What to look behind now, if that is to be done: how far the group had read, and up to which entry they are known.
    pub fn looks(&self, rooms: &[Room], now: Instant) -> Option<(EntryId, EntryId)> {
        let is_open = rooms.iter().any(|room| !matches!(room, Room::None(_)));
        let looks = rooms.len() > 1
            && is_open
            && !is_unlimited(rooms)
            && self.in_row >= BLIND
            && self.allowed == 0
            && self.next.is_none_or(|next| next <= now);
        looks.then_some((self.read, self.upto))
    }

    /// What a look found that took so long. If that was all there is, the next look is after such a `rest`.
    pub fn looked(
        &mut self,
        seen: &Seen,
        rooms: &[Room],
        place: impl Fn(&[u8]) -> Place,
        (took, rest): (Duration, Duration),
    ) {
        if seen.passed {
            self.forget();
        }
        self.read = self.read.max(seen.read);
        let mut taken = BTreeMap::new();
        for run in &seen.runs {
            let before = self.count;
            self.count += run.length;
            let limited = place(&run.kind).filter(|place| rooms[*place] != Room::Any);
            let Some(place) = limited else {
                (self.allowed, self.last_free) = (self.count, run.last);
                continue;
            };
            self.only.insert(place);
            // The first ones may come, as many as there is room for.
            let taken = taken.entry(place).or_insert(0);
            let free = match rooms[place] {
                Room::Some(room) => run.length.min(room - *taken),
                _ => 0,
            };
            *taken += free;
            if free > 0 {
                (self.allowed, self.last_free) = (before + free, run.last);
            }
        }
        self.upto = seen.upto;
        self.is_all = !seen.more;
        if self.count == 0 {
            // There is nothing: what comes next is read as it comes.
            self.in_row = 0;
        }
        let rest = if seen.more { took * REST } else { rest };
        self.next = Some(Instant::now() + rest);
    }

    /// Entries were read up to `last`, of these handlers, where so many of each might come.
    pub fn read(
        &mut self,
        rooms: &[Room],
        places: impl ExactSizeIterator<Item = Place>,
        last: Option<EntryId>,
    ) {
        if is_unlimited(rooms) {
            *self = LookAhead::default();
            return;
        }
        let read = places.len();
        self.free = 0;
        for place in places {
            if place.is_some_and(|place| rooms[place] != Room::Any) {
                self.in_row += 1;
            } else {
                (self.in_row, self.free) = (0, self.free + 1);
            }
        }
        self.gone(read, last);
    }

    /// So many have been read, up to this one; none where others have read what there was.
    pub fn gone(&mut self, count: usize, last: Option<EntryId>) {
        let Some(last) = last else {
            return self.forget();
        };
        self.read = self.read.max(last);
        self.count = self.count.saturating_sub(count);
        self.allowed = self.allowed.saturating_sub(count);
        // Others read as well.
        if last >= self.last_free {
            self.allowed = 0;
        }
        if self.count == 0 || last >= self.upto {
            if self.is_all {
                self.in_row = 0;
            }
            self.forget();
        }
    }

    /// There are some that are free behind others: what comes next is looked at before it is read.
    pub fn has_others(&mut self) {
        self.in_row = self.in_row.max(BLIND);
        if self.allowed == 0 {
            self.next = None;
        }
    }

    fn forget(&mut self) {
        let (in_row, free) = (self.in_row, self.free);
        *self = LookAhead {
            in_row,
            free,
            ..LookAhead::default()
        };
    }
}

fn is_unlimited(rooms: &[Room]) -> bool {
    rooms.iter().all(|room| *room == Room::Any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Run;

    const CLOSED: Room = Room::None(Duration::from_secs(20));

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    fn run(kind: u8, length: usize, last: u64) -> Run {
        Run {
            kind: vec![kind],
            length,
            last: id(last),
        }
    }

    /// A stream of entries of handlers by their places, as a worker reads it.
    struct Stream {
        entries: Vec<usize>,
        read: usize,
        ahead: LookAhead,
        looks: usize,
    }

    impl Stream {
        fn of(entries: Vec<usize>) -> Self {
            Stream {
                entries,
                read: 0,
                ahead: LookAhead::default(),
                looks: 0,
            }
        }

        /// Reads as much as it may, so many times, in reads of up to 64.
        fn go(&mut self, rooms: &[Room], times: usize) {
            for _ in 0..times {
                let now = Instant::now() + Duration::from_secs(1);
                if let Some((_, known)) = self.ahead.looks(rooms, now) {
                    self.looks += 1;
                    let from = (known.ms as usize).max(self.read);
                    let to = (from + 1000).min(self.entries.len());
                    let seen = Seen {
                        runs: (from..to)
                            .map(|at| run(self.entries[at] as u8, 1, at as u64 + 1))
                            .collect(),
                        upto: id(to as u64),
                        read: id(self.read as u64),
                        more: to - from == 1000,
                        passed: from == self.read,
                    };
                    let place = |kind: &[u8]| Some(usize::from(kind[0]));
                    self.ahead
                        .looked(&seen, rooms, place, (Duration::ZERO, LOOK));
                }
                let most = match self.ahead.room(rooms, now) {
                    Room::None(_) => continue,
                    Room::Some(most) => most.min(64),
                    Room::Any => 64,
                };
                let to = (self.read + most).min(self.entries.len());
                let places = self.entries[self.read..to].iter().map(|place| Some(*place));
                let last = (to > self.read).then(|| id(to as u64));
                self.ahead.read(rooms, places, last);
                self.read = to;
            }
        }
    }

    #[test]
    fn what_may_not_come_stays_where_it_is_where_there_is_nothing_else() {
        let mut stream = Stream::of(vec![0; 20_000]);
        stream.go(&[CLOSED, Room::Any], 100);
        assert!(stream.read <= BLIND, "{} were read", stream.read);
        assert!(stream.looks <= 100);
        stream.go(&[Room::Any, Room::Any], 400);
        assert_eq!(stream.read, 20_000);
    }

    #[test]
    fn a_free_one_is_got_at_whatever_stands_before_it_and_nothing_behind_it_is_read() {
        for before in [0, 10, 100, 3_000] {
            let mut entries = vec![0; before + 5_000];
            entries[before] = 1;
            let mut stream = Stream::of(entries);
            stream.go(&[CLOSED, Room::Any], 200);
            let read = stream.read;
            assert!(
                read > before && read <= before + 3 * BLIND,
                "{read} read for {before}"
            );
        }
    }

    #[test]
    fn where_free_ones_come_all_the_time_nothing_is_looked_at() {
        let mut stream = Stream::of((0..10_000).map(|n| usize::from(n % 8 > 0)).collect());
        stream.go(&[CLOSED, Room::Any], 250);
        assert_eq!((stream.read, stream.looks), (10_000, 0));
    }

    #[test]
    fn a_handler_with_room_for_some_has_just_those_read() {
        let mut stream = Stream::of(vec![0; 5_000]);
        stream.go(&[CLOSED, Room::Any], 20);
        let before = stream.read;
        stream.go(&[Room::Some(3), Room::Any], 10);
        assert_eq!(stream.read, before + 30);
    }

    #[test]
    fn what_no_handler_is_for_is_free() {
        let mut ahead = LookAhead::default();
        let rooms = [CLOSED, Room::Any];
        ahead.read(&rooms, vec![Some(0); BLIND].into_iter(), Some(id(1)));
        assert!(ahead.looks(&rooms, Instant::now()).is_some());
        let seen = Seen {
            runs: vec![run(b'x', 5, 6), run(b'?', 2, 8), run(b'x', 9, 17)],
            upto: id(17),
            read: id(1),
            more: false,
            passed: true,
        };
        let place = |kind: &[u8]| (kind == b"x").then_some(0);
        ahead.looked(&seen, &rooms, place, (Duration::ZERO, LOOK));
        assert_eq!(ahead.room(&rooms, Instant::now()), Room::Some(7));
        // Another worker has read most of them.
        ahead.read(&rooms, vec![Some(0)].into_iter(), Some(id(8)));
        assert!(matches!(ahead.room(&rooms, Instant::now()), Room::None(_)));
    }

    #[test]
    fn one_that_has_room_for_a_few_is_got_at_in_one_read() {
        let mut entries = vec![0; 3_000];
        entries[2_500] = 1;
        entries[2_501] = 1;
        let mut stream = Stream::of(entries);
        stream.go(&[CLOSED, Room::Some(1)], 60);
        let read = stream.read;
        assert!((2_501..2_510).contains(&read), "{read} were read");
    }
}
