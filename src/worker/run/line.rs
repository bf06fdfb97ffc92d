//! The order of one stream's events by subject: which of them may run now. Pure: it is told what comes and what becomes of
//! it, and says what is to be done.
//!
//! It knows of every entry with a subject that is pending, wherever that is. Of each subject only the first may run. What
//! comes after one that runs waits here, as long as that is not much; what comes after one that has failed, and what is
//! too much, waits in Redis, and is woken when its turn comes.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};

use rustc_hash::FxBuildHasher;

use crate::event::EntryId;
use crate::stream::Whereabouts;

/// Most events behind a dead letter of their subject: then nothing more of the stream is read.
const HELD: usize = 1000;

/// How many entries may wait here, which takes up room that others could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    of_one: usize,
    of_all: usize,
}

impl Room {
    /// Of a worker that holds so many entries at most: all subjects together have half of them, so that the rest goes on.
    pub fn of(prefetch: usize) -> Self {
        Room {
            of_one: (prefetch / 16).min(64),
            of_all: (prefetch / 2).min(512),
        }
    }
}

/// Where an entry comes among those of its subject: replayed ones first, for they are older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub is_new: bool,
    pub id: EntryId,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Act<T> {
    Start(T),
    /// It goes back to Redis, to wait behind another.
    Park(T),
    /// It waits there, and its turn has come.
    Rouse(Place),
}

#[derive(Debug)]
enum State<T> {
    /// With another worker, or with this one and not here yet.
    Elsewhere,
    Waits(T),
    Runs,
    /// In Redis, until it is due: it failed, or its handler may not run.
    Parked,
    /// It is a dead letter, and holds those behind it.
    Dead,
    /// On its way there, only because another comes before it.
    Leaving,
    /// There, for the same reason.
    Behind,
    /// It was made due.
    Roused,
}

/// The events of one subject, in their order.
type OfSubject<T> = Vec<(Place, State<T>)>;

/// A stream's events that are pending, by subject.
pub(crate) struct Line<T> {
    subjects: HashMap<u64, OfSubject<T>, FxBuildHasher>,
    of: HashMap<Place, u64, FxBuildHasher>,
    waiting: usize,
    room: Room,
    /// The dead letters that hold others.
    dead: BTreeSet<Place>,
}

impl<T> Line<T> {
    pub fn new(room: Room) -> Self {
        Line {
            subjects: HashMap::default(),
            of: HashMap::default(),
            waiting: 0,
            room,
            dead: BTreeSet::new(),
        }
    }

    /// An entry of a subject has come. If it may not run yet it waits here, if it `may_wait`.
    pub fn arrives(
        &mut self,
        place: Place,
        subject: u64,
        item: T,
        may_wait: bool,
        acts: &mut Vec<Act<T>>,
    ) {
        let all = self.subjects.entry(subject).or_default();
        let at = match all.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(at) => at,
            Err(at) => {
                self.of.insert(place, subject);
                all.insert(at, (place, State::Elsewhere));
                at
            }
        };
        // What was replayed comes first, and may come while something new runs, here or elsewhere.
        if at == 0 && !one_runs(all) {
            all[0].1 = State::Runs;
            acts.push(Act::Start(item));
            return;
        }
        let is_blocked = all[..at].iter().any(|(_, state)| state.is_far());
        let here = all.iter().filter(|(_, state)| state.waits()).count();
        let leaves =
            !may_wait || is_blocked || here >= self.room.of_one || self.waiting >= self.room.of_all;
        let (state, park) = match leaves {
            true => (State::Leaving, Some(item)),
            false => (State::Waits(item), None),
        };
        let before = std::mem::replace(&mut all[at].1, state);
        self.waiting += usize::from(!leaves);
        acts.extend(park.map(Act::Park));
        // It came once more: of the delivery before nothing starts.
        if let State::Waits(item) = before {
            self.waiting -= 1;
            acts.push(Act::Park(item));
        }
        // It does not run elsewhere, and a copy may have waited for that.
        if place.is_new && at > 0 {
            self.goes_on(subject, acts);
        }
    }

    /// How many wait here.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// An entry is pending, or was replayed, that has not come.
    pub fn knows(&mut self, place: Place, subject: u64, is: Whereabouts) {
        if let Slot::Vacant(of) = self.of.entry(place) {
            of.insert(subject);
            let all = self.subjects.entry(subject).or_default();
            let at = all.partition_point(|(before, _)| *before < place);
            let state = match is {
                Whereabouts::Worker => State::Elsewhere,
                Whereabouts::Behind => State::Behind,
                Whereabouts::Parked => State::Parked,
            };
            all.insert(at, (place, state));
        }
    }

    /// Of what is first, what only waits in Redis for its turn is woken.
    pub fn begins(&mut self, acts: &mut Vec<Act<T>>) {
        let all: Vec<u64> = self.subjects.keys().copied().collect();
        for subject in all {
            self.goes_on(subject, acts);
        }
    }

    /// An entry is done with.
    pub fn done(&mut self, place: Place, acts: &mut Vec<Act<T>>) {
        self.dead.remove(&place);
        let Some(subject) = self.of.remove(&place) else {
            return;
        };
        let Some(all) = self.subjects.get_mut(&subject) else {
            return;
        };
        if let Ok(at) = all.binary_search_by_key(&place, |(place, _)| *place)
            && let State::Waits(item) = all.remove(at).1
        {
            // By other hands: it is let go of as what goes back is.
            self.waiting -= 1;
            acts.push(Act::Park(item));
        }
        if all.is_empty() {
            self.subjects.remove(&subject);
        } else {
            self.goes_on(subject, acts);
        }
    }

    /// An entry is pending with nobody. What was settled here is heard of, and a dead letter holds.
    pub fn gone(&mut self, place: Place, acts: &mut Vec<Act<T>>) {
        use State::{Dead, Leaving, Runs};
        let is_known = self
            .find(place)
            .is_some_and(|(_, all, at)| matches!(all[at].1, Dead | Leaving | Runs));
        if !is_known {
            self.done(place, acts);
        }
    }

    /// An entry went back to Redis, or is another's: what comes after it waits for it.
    pub fn back(&mut self, place: Place, acts: &mut Vec<Act<T>>) {
        let Some((subject, all, at)) = self.find(place) else {
            return;
        };
        let state = &mut all[at].1;
        *state = match state {
            State::Leaving => State::Behind,
            _ => State::Parked,
        };
        if at > 0 || matches!(state, State::Behind) {
            return self.goes_on(subject, acts);
        }
        self.parks_behind(subject, acts);
    }

    /// An entry is a dead letter, and holds those behind it.
    pub fn dies(&mut self, place: Place, acts: &mut Vec<Act<T>>) {
        if let Some((subject, all, at)) = self.find(place) {
            all[at].1 = State::Dead;
            self.dead.insert(place);
            self.parks_behind(subject, acts);
        }
    }

    /// A dead letter is there that holds its subject.
    pub fn is_held(&mut self, place: Place, subject: u64, acts: &mut Vec<Act<T>>) {
        use State::{Behind, Elsewhere, Parked, Roused};
        self.knows(place, subject, Whereabouts::Worker);
        if let Some((_, all, at)) = self.find(place)
            && matches!(all[at].1, Elsewhere | Parked | Behind | Roused)
        {
            all[at].1 = State::Dead;
            self.dead.insert(place);
            self.parks_behind(subject, acts);
        }
    }

    /// The dead letters that hold their subjects.
    pub fn dead(&self) -> &BTreeSet<Place> {
        &self.dead
    }

    /// Whether so many wait behind a dead letter that no more should come.
    pub fn is_full(&self) -> bool {
        let behind = |place: &Place| self.subjects.get(self.of.get(place)?);
        let mut subjects = self.dead.iter().filter_map(behind);
        subjects.any(|all| all.len() > HELD && matches!(all[0].1, State::Dead))
    }

    /// What waits here behind the first of a subject goes back to Redis.
    fn parks_behind(&mut self, subject: u64, acts: &mut Vec<Act<T>>) {
        let Some(all) = self.subjects.get_mut(&subject) else {
            return;
        };
        let mut left = 0;
        for (_, state) in all.iter_mut().skip(1) {
            if state.waits()
                && let State::Waits(item) = std::mem::replace(state, State::Leaving)
            {
                left += 1;
                acts.push(Act::Park(item));
            }
        }
        self.waiting -= left;
    }

    /// All that waits here goes back to Redis.
    pub fn leaves(&mut self, acts: &mut Vec<Act<T>>) {
        for (_, state) in self.subjects.values_mut().flatten() {
            if state.waits()
                && let State::Waits(item) = std::mem::replace(state, State::Leaving)
            {
                acts.push(Act::Park(item));
            }
        }
        self.waiting = 0;
    }

    /// Those that others of their subject wait for and that are not here.
    pub fn awaited(&self) -> Vec<Place> {
        use State::{Dead, Runs, Waits};
        let is_away = |state: &State<T>| !matches!(state, Runs | Waits(_) | Dead);
        let of_one = |all: &'_ OfSubject<T>| {
            let first = all.iter().take(1).filter(|(_, state)| is_away(state));
            let elsewhere = elsewhere(all).map(|(place, _)| *place);
            let places: Vec<Place> = first.map(|(place, _)| *place).chain(elsewhere).collect();
            places
        };
        self.subjects.values().flat_map(of_one).collect()
    }

    fn find(&mut self, place: Place) -> Option<(u64, &mut OfSubject<T>, usize)> {
        let subject = *self.of.get(&place)?;
        let all = self.subjects.get_mut(&subject)?;
        let at = all.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        Some((subject, all, at))
    }

    /// What is first now starts or is woken, and so many behind it come along as may wait here.
    fn goes_on(&mut self, subject: u64, acts: &mut Vec<Act<T>>) {
        let Some(all) = self.subjects.get_mut(&subject) else {
            return;
        };
        if one_runs(all) {
            return;
        }
        let Some((place, first)) = all.first_mut() else {
            return;
        };
        match first {
            State::Waits(_) => {
                if let State::Waits(item) = std::mem::replace(first, State::Runs) {
                    self.waiting -= 1;
                    acts.push(Act::Start(item));
                }
            }
            State::Behind => {
                acts.push(Act::Rouse(*place));
                *first = State::Roused;
            }
            _ => {}
        }
        // What is woken behind something far would have to go back to Redis.
        if first.is_far() || self.waiting >= self.room.of_all / 2 {
            return;
        }
        let here = all
            .iter()
            .take_while(|(_, state)| !matches!(state, State::Behind | State::Leaving))
            .count();
        if here <= self.room.of_one / 4 {
            for (place, state) in all.iter_mut().skip(here).take(self.room.of_one / 2) {
                if !matches!(state, State::Behind) {
                    break;
                }
                acts.push(Act::Rouse(*place));
                *state = State::Roused;
            }
        }
    }
}

/// Whether one runs that is not the first, here or, as far as is known, elsewhere.
fn one_runs<T>(all: &[(Place, State<T>)]) -> bool {
    let mut behind = all.iter().skip(1);
    behind.any(|(_, state)| matches!(state, State::Runs)) || elsewhere(all).next().is_some()
}

/// What is with others and may run there though a copy comes before it.
fn elsewhere<T>(all: &[(Place, State<T>)]) -> impl Iterator<Item = &(Place, State<T>)> {
    let is_copy = all.first().is_some_and(|(place, _)| !place.is_new);
    let behind = all.iter().skip(1).filter(move |_| is_copy);
    behind.filter(|(place, state)| place.is_new && matches!(state, State::Elsewhere))
}

impl<T> State<T> {
    fn waits(&self) -> bool {
        matches!(self, State::Waits(_))
    }

    /// It may be long before it is done with: what comes after it takes up no room here meanwhile.
    fn is_far(&self) -> bool {
        use State::{Behind, Dead, Elsewhere, Leaving, Parked};
        matches!(self, Elsewhere | Parked | Leaving | Behind | Dead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Place {
        Place {
            is_new: true,
            id: EntryId { ms: n, seq: 0 },
        }
    }

    fn acts(of: impl FnOnce(&mut Vec<Act<u64>>)) -> Vec<Act<u64>> {
        let mut acts = Vec::new();
        of(&mut acts);
        acts
    }

    #[test]
    fn of_each_subject_one_runs_at_a_time_in_order() {
        let mut line = Line::new(Room::of(1024));
        let come = |line: &mut Line<u64>, n, subject| {
            acts(|acts| line.arrives(at(n), subject, n, true, acts))
        };
        assert_eq!(come(&mut line, 1, 7), [Act::Start(1)]);
        assert_eq!(come(&mut line, 2, 7), []);
        assert_eq!(come(&mut line, 3, 8), [Act::Start(3)]);
        assert_eq!(acts(|acts| line.done(at(1), acts)), [Act::Start(2)]);
        assert_eq!(acts(|acts| line.done(at(3), acts)), []);
        assert_eq!(acts(|acts| line.done(at(2), acts)), []);
        assert!(line.subjects.is_empty() && line.of.is_empty() && line.waiting == 0);
    }

    #[test]
    fn what_comes_after_a_failure_waits_in_redis_and_is_woken_in_turn() {
        let mut line = Line::new(Room::of(1024));
        for n in 1..=3 {
            acts(|acts| line.arrives(at(n), 7, n, true, acts));
        }
        let parked = acts(|acts| line.back(at(1), acts));
        assert_eq!(parked, [Act::Park(2), Act::Park(3)]);
        for n in 2..=3 {
            assert_eq!(acts(|acts| line.back(at(n), acts)), []);
        }
        assert_eq!(
            acts(|acts| line.arrives(at(4), 7, 4, true, acts)),
            [Act::Park(4)]
        );
        assert_eq!(
            acts(|acts| line.arrives(at(1), 7, 1, true, acts)),
            [Act::Start(1)]
        );
        // The fourth is still on its way to Redis.
        let woken = acts(|acts| line.done(at(1), acts));
        assert_eq!(woken, [Act::Rouse(at(2)), Act::Rouse(at(3))]);
        assert_eq!(acts(|acts| line.back(at(4), acts)), [Act::Rouse(at(4))]);
        assert_eq!(acts(|acts| line.arrives(at(3), 7, 3, true, acts)), []);
        assert_eq!(
            acts(|acts| line.arrives(at(2), 7, 2, true, acts)),
            [Act::Start(2)]
        );
        assert_eq!(acts(|acts| line.done(at(2), acts)), [Act::Start(3)]);
    }

    #[test]
    fn what_another_worker_held_comes_before_what_is_new() {
        let mut line = Line::new(Room::of(1024));
        line.knows(at(1), 7, Whereabouts::Worker);
        let come = acts(|acts| line.arrives(at(2), 7, 2, true, acts));
        assert_eq!(come, [Act::Park(2)], "it takes up no room meanwhile");
        assert_eq!(acts(|acts| line.back(at(2), acts)), []);
        assert_eq!(line.awaited(), [at(1)]);
        assert_eq!(acts(|acts| line.done(at(1), acts)), [Act::Rouse(at(2))]);
    }

    #[test]
    fn a_dead_letter_holds_those_behind_it_until_its_copy_has_succeeded() {
        let mut line = Line::new(Room::of(1024));
        for n in 1..=2 {
            acts(|acts| line.arrives(at(n), 7, n, true, acts));
        }
        assert_eq!(acts(|acts| line.dies(at(1), acts)), [Act::Park(2)]);
        assert_eq!(acts(|acts| line.back(at(2), acts)), []);
        assert_eq!(
            acts(|acts| line.arrives(at(3), 7, 3, true, acts)),
            [Act::Park(3)]
        );
        assert!(line.awaited().is_empty() && !line.is_full());
        // It was replayed.
        let copy = Place {
            is_new: false,
            id: at(9).id,
        };
        line.knows(copy, 7, Whereabouts::Worker);
        assert_eq!(acts(|acts| line.done(at(1), acts)), []);
        assert_eq!(
            acts(|acts| line.arrives(copy, 7, 9, true, acts)),
            [Act::Start(9)]
        );
        assert_eq!(acts(|acts| line.done(copy, acts)), [Act::Rouse(at(2))]);
        assert!(line.dead().is_empty());
        // Another worker has taken the stream over.
        let mut line = Line::new(Room::of(1024));
        (2..=HELD as u64 + 1).for_each(|n| line.knows(at(n), 7, Whereabouts::Behind));
        acts(|acts| line.is_held(at(1), 7, acts));
        assert_eq!(acts(|acts| line.begins(acts)), []);
        assert!(line.is_full());
    }

    #[test]
    fn what_runs_alone_waits_for_nobody_here() {
        let mut line = Line::new(Room::of(1024));
        acts(|acts| line.arrives(at(1), 7, 1, true, acts));
        let come = acts(|acts| line.arrives(at(2), 7, 2, false, acts));
        assert_eq!(come, [Act::Park(2)]);
    }

    #[test]
    fn what_is_replayed_comes_before_what_is_new() {
        let mut line = Line::new(Room::of(1024));
        let again = Place {
            is_new: false,
            id: at(9).id,
        };
        acts(|acts| line.arrives(at(1), 7, 1, true, acts));
        acts(|acts| line.arrives(at(2), 7, 2, true, acts));
        acts(|acts| line.arrives(again, 7, 9, true, acts));
        assert_eq!(acts(|acts| line.done(at(1), acts)), [Act::Start(9)]);
        assert_eq!(acts(|acts| line.done(again, acts)), [Act::Start(2)]);
    }

    #[test]
    fn no_subject_takes_up_all_room() {
        let mut line = Line::new(Room::of(1024));
        let mut parked = 0;
        for n in 1..=1000 {
            parked += acts(|acts| line.arrives(at(n), 7, n, true, acts))
                .iter()
                .filter(|act| matches!(act, Act::Park(_)))
                .count();
        }
        assert_eq!(parked, 1000 - 1 - 64);
        assert_eq!(
            acts(|acts| line.arrives(at(1001), 8, 0, true, acts)),
            [Act::Start(0)]
        );
    }

    #[test]
    fn a_copy_waits_for_what_is_new_and_runs_elsewhere() {
        let mut line = Line::new(Room::of(1024));
        let copy = Place {
            is_new: false,
            id: at(9).id,
        };
        line.knows(at(2), 7, Whereabouts::Worker);
        assert_eq!(acts(|acts| line.arrives(copy, 7, 9, true, acts)), []);
        assert_eq!(line.awaited(), [at(2)]);
        assert_eq!(acts(|acts| line.gone(at(2), acts)), [Act::Start(9)]);
        // What has come back from there waits behind it.
        let mut line = Line::new(Room::of(1024));
        line.knows(at(2), 7, Whereabouts::Worker);
        acts(|acts| line.arrives(copy, 7, 9, true, acts));
        let come = acts(|acts| line.arrives(at(2), 7, 2, true, acts));
        assert_eq!(come, [Act::Start(9)]);
        assert_eq!(acts(|acts| line.done(copy, acts)), [Act::Start(2)]);
        // What is parked runs nowhere.
        let mut line = Line::new(Room::of(1024));
        line.knows(at(2), 7, Whereabouts::Parked);
        let come = acts(|acts| line.arrives(copy, 7, 9, true, acts));
        assert_eq!(come, [Act::Start(9)]);
    }

    #[test]
    fn what_is_gone_by_other_hands_is_a_dead_letter_or_let_go_of() {
        let mut line = Line::new(Room::of(1024));
        line.knows(at(1), 7, Whereabouts::Worker);
        line.knows(at(2), 7, Whereabouts::Behind);
        acts(|acts| line.is_held(at(1), 7, acts));
        assert_eq!(acts(|acts| line.gone(at(1), acts)), [], "it holds");
        let mut line = Line::new(Room::of(1024));
        acts(|acts| line.arrives(at(1), 7, 1, true, acts));
        acts(|acts| line.arrives(at(2), 7, 2, true, acts));
        assert_eq!(acts(|acts| line.gone(at(1), acts)), [], "it runs here");
        assert_eq!(acts(|acts| line.gone(at(2), acts)), [Act::Park(2)]);
        assert_eq!(line.waiting(), 0);
    }

    #[test]
    fn a_letter_that_came_back_holds_what_waits_here() {
        let mut line = Line::new(Room::of(1024));
        acts(|acts| line.arrives(at(2), 7, 2, true, acts));
        acts(|acts| line.arrives(at(3), 7, 3, true, acts));
        let held = acts(|acts| line.is_held(at(1), 7, acts));
        assert_eq!(held, [Act::Park(3)]);
        assert_eq!(acts(|acts| line.done(at(2), acts)), []);
        assert_eq!(acts(|acts| line.back(at(3), acts)), []);
    }
}
