//! How slots are shared: while handlers of several types have work, none of them takes all slots.
//!
//! Only handlers that wait for something keep a slot for long, and only those that take long are in the way of others. So
//! nothing is done before most slots are with such handlers; then it is looked which types have work. A type that is alone
//! has all slots. If there are several, one slot in sixteen is kept free for those that are quick, if any of them has
//! work. The rest is shared by those that take long: each may have an equal part of it, and more as long as one slot in
//! sixteen stays free for those of them that have less.
//!
//! What is above its share goes back to Redis and waits there, as at a limit of its handler: see
//! [`crate::worker::state::look_ahead`]. Only if entries are known to be able to wait there, though: what a user may not
//! park, or a key that is in the way, is to hold up nothing that has no need of it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::policy::Room;
use crate::worker::state::slots::Slots;

/// A handler that takes as long as this takes long: what it costs to have an entry wait in Redis is little beside it.
const LONG: Duration = Duration::from_millis(10);
/// How long handlers are looked at before it is said how long they take; and after so long without a look it begins anew.
const SPAN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// A type counts as one that has work for so long after its last entry, for each slot, and at most. The fewer slots there
/// are, the more of them is one that is kept free.
const HAS_WORK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// One of so many slots is kept free for others.
const KEPT: usize = 16;
/// When it is asked again whether a type may have more slots; that one is free is told.
const AGAIN: Duration = Duration::from_millis(250);
/// How soon it is if entries are on their way.
const TURN: Duration = Duration::from_millis(2);

/// How long it is known that entries can be parked, how long before its end it is asked again, and how long it is known
/// that they can't.
const PROOF: (Duration, Duration, Duration) = (
    Duration::from_secs(1),
    Duration::from_millis(500),
    Duration::from_secs(10),
);

/// Nothing is shared out.
const OFF: usize = 0;
/// Slots are scarce, and one type alone has work as far as is known.
const ALONE: usize = usize::MAX;

/// How a worker's slots are shared by its handlers.
pub(crate) struct Sharing {
    parts: Vec<Part>,
    slots: OnceLock<Arc<Slots>>,
    /// How many slots each type that takes long may have, or [`OFF`], or [`ALONE`].
    share: AtomicUsize,
    /// How many slots those leave free for quick ones,
    for_quick: AtomicUsize,
    /// and how many more if they have their share.
    for_others: AtomicUsize,
    /// How many are held and do not run yet.
    unstarted: AtomicUsize,
    began: Instant,
    /// When it was looked last, in ms since it began.
    now: AtomicU64,
    /// Until when it is known that entries can be parked, and that they can't, likewise.
    proved: (AtomicU64, AtomicU64),
    wants_proof: AtomicBool,
    state: Mutex<State>,
}

/// What is known of one handler.
#[derive(Default)]
struct Part {
    /// Runs of it that wait for something.
    running: AtomicUsize,
    /// How many of those have ended.
    ended: AtomicU64,
    /// When it had an entry last, by [`Sharing::now`]; 0 if never.
    seen: AtomicU64,
    takes_long: AtomicBool,
}

struct State {
    next: Instant,
    /// Slots are scarce until then.
    until: Option<Instant>,
    spans: Vec<Span>,
    looked: Instant,
}

/// Since when it is looked how long a handler takes, and how many of its runs there were then, and had ended.
#[derive(Clone, Copy)]
struct Span {
    since: Instant,
    running: usize,
    ended: u64,
}

impl Sharing {
    /// Of so many handlers.
    pub fn new(handlers: usize) -> Self {
        let now = Instant::now();
        Sharing {
            parts: (0..handlers).map(|_| Part::default()).collect(),
            slots: OnceLock::new(),
            share: AtomicUsize::new(OFF),
            for_quick: AtomicUsize::new(0),
            for_others: AtomicUsize::new(0),
            unstarted: AtomicUsize::new(0),
            began: now,
            now: AtomicU64::new(1),
            proved: Default::default(),
            wants_proof: AtomicBool::new(false),
            state: Mutex::new(State {
                next: now,
                until: None,
                spans: vec![
                    Span {
                        since: now,
                        running: 0,
                        ended: 0
                    };
                    handlers
                ],
                looked: now,
            }),
        }
    }

    /// These are the slots that are shared.
    pub fn of(&self, slots: &Arc<Slots>) {
        let _ = self.slots.set(slots.clone());
    }

    /// A run of a handler waits for something, with a slot.
    pub fn begins(&self, place: usize) {
        self.parts[place].running.fetch_add(1, Relaxed);
    }

    /// It has ended. Returns whether that leaves a slot to entries that wait for one in Redis.
    pub fn ends(&self, place: usize) -> bool {
        let part = &self.parts[place];
        part.running.fetch_sub(1, Relaxed);
        part.ended.fetch_add(1, Relaxed);
        self.share.load(Relaxed) != OFF
    }

    /// Whether an entry of a handler may start, for which a slot was taken.
    #[inline]
    pub fn admits(&self, place: usize) -> bool {
        self.share.load(Relaxed) == OFF || self.admits_in_turn(place)
    }

    #[cold]
    fn admits_in_turn(&self, place: usize) -> bool {
        self.saw(place);
        let share = self.share.load(Relaxed);
        let is_bound = share != ALONE && self.takes_long(place);
        // The slot that was taken for it is not among those that are free.
        let free = || self.slots.get().map_or(0, |slots| slots.free() + 1);
        !is_bound || self.room_of_long(place, share, free()) > 0
    }

    /// How many more runs of a handler that takes long there may be, with so many slots free.
    fn room_of_long(&self, place: usize, share: usize, free: usize) -> usize {
        let running = self.parts[place].running.load(Relaxed);
        let free = free.saturating_sub(self.for_quick.load(Relaxed));
        let others = self.for_others.load(Relaxed);
        let own = share.saturating_sub(running);
        own.max(free.saturating_sub(others)).min(free)
    }

    /// An entry of a handler has come, or is in sight.
    pub fn saw(&self, place: usize) {
        self.parts[place]
            .seen
            .store(self.now.load(Relaxed), Relaxed);
    }

    /// Whether it is a handler that keeps slots for long, as far as is known.
    pub fn takes_long(&self, place: usize) -> bool {
        self.parts[place].takes_long.load(Relaxed)
    }

    /// Whether slots are scarce: then it is to be looked for types that have none.
    pub fn is_scarce(&self) -> bool {
        self.share.load(Relaxed) != OFF
    }

    /// Whether some entries have to wait for others' sake.
    pub fn is_limited(&self) -> bool {
        !matches!(self.share.load(Relaxed), OFF | ALONE)
    }

    /// Whether it is to be found out if entries can be parked: see [`proved`](Self::proved).
    pub fn wants_proof(&self) -> bool {
        self.wants_proof.load(Relaxed)
    }

    /// It was found out.
    pub fn proved(&self, can_be_parked: bool, now: Instant) {
        let now = self.since_it_began(now);
        let (can, can_not) = match can_be_parked {
            true => (now + ms(PROOF.0), 0),
            false => (0, now + ms(PROOF.2)),
        };
        self.proved.0.store(can, Relaxed);
        self.proved.1.store(can_not, Relaxed);
        self.wants_proof.store(false, Relaxed);
    }

    /// Whether what is over its share can wait in Redis, as far as is known.
    fn can_wait(&self, now: u64) -> bool {
        let (can, can_not) = (self.proved.0.load(Relaxed), self.proved.1.load(Relaxed));
        if now + ms(PROOF.1) >= can && now >= can_not {
            self.wants_proof.store(true, Relaxed);
        }
        now < can
    }

    fn since_it_began(&self, now: Instant) -> u64 {
        ms(now.saturating_duration_since(self.began)) + 1
    }

    /// How many more entries of a handler may come.
    pub fn room(&self, place: usize) -> Room {
        let share = self.share.load(Relaxed);
        let Some(slots) = self.slots.get() else {
            return Room::Any;
        };
        if matches!(share, OFF | ALONE) || !self.takes_long(place) {
            return Room::Any;
        }
        let room = self.room_of_long(place, share, slots.free());
        match (room, room.saturating_sub(self.unstarted.load(Relaxed))) {
            (0, _) => Room::None(AGAIN),
            (_, 0) => Room::None(TURN),
            (_, room) => Room::Some(room),
        }
    }

    /// Looks whether slots are scarce, and who has work. So many entries are held that do not run yet.
    pub fn look(&self, unstarted: usize, now: Instant) {
        let Some(slots) = self.slots.get() else {
            return;
        };
        let (all, free) = (slots.all(), slots.free());
        let is_tight = free <= kept(all);
        if !is_tight && !self.is_scarce() {
            return;
        }
        if all < 2 || self.parts.len() < 2 {
            self.share.store(OFF, Relaxed);
            return;
        }
        self.unstarted.store(unstarted, Relaxed);
        // Another shard looks at the same.
        let Ok(mut state) = self.state.try_lock() else {
            return;
        };
        if now < state.next {
            return;
        }
        state.next = now + LOOK;
        let now_ms = self.since_it_began(now);
        self.now.store(now_ms, Relaxed);
        let has_work = (HAS_WORK.0 * all.min(1000) as u32).min(HAS_WORK.1);
        let is_new = now.saturating_duration_since(state.looked) > SPAN.1;
        state.looked = now;
        let (mut long, mut quick) = (Vec::new(), 0);
        for (part, span) in self.parts.iter().zip(&mut state.spans) {
            let (running, ended) = (part.running.load(Relaxed), part.ended.load(Relaxed));
            let time = now.saturating_duration_since(span.since);
            let most = running.max(span.running);
            if !is_new && time >= SPAN.0 && most > 0 {
                // By Little's law.
                let takes = time * most as u32 / (ended - span.ended).clamp(1, 1 << 20) as u32;
                part.takes_long.store(takes >= LONG, Relaxed);
            }
            if is_new || time >= SPAN.0 {
                *span = Span {
                    since: now,
                    running,
                    ended,
                };
            }
            let seen = part.seen.load(Relaxed);
            let has_work = running > 0 || seen > 0 && now_ms.saturating_sub(seen) <= ms(has_work);
            match part.takes_long.load(Relaxed) {
                true if has_work => long.push(running),
                false => quick += usize::from(has_work),
                true => {}
            }
        }
        let held: usize = long.iter().sum();
        if is_tight && held * 2 >= all {
            state.until = Some(now + has_work);
        }
        let is_scarce = state.until.is_some_and(|until| now < until);
        let for_quick = if quick > 0 { kept(all) } else { 0 };
        let share = match (is_scarce, long.len()) {
            (false, _) => OFF,
            (true, 0) => ALONE,
            (true, 1) if quick == 0 => ALONE,
            (true, many) => (all - for_quick).div_ceil(many),
        };
        let wants = long.iter().any(|running| *running < share);
        let for_others = if long.len() > 1 && wants {
            kept(all)
        } else {
            0
        };
        let share = match share {
            OFF | ALONE => share,
            _ if self.can_wait(now_ms) => share,
            _ => ALONE,
        };
        self.for_quick.store(for_quick, Relaxed);
        self.for_others.store(for_others, Relaxed);
        self.share.store(share, Relaxed);
    }
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// How many of so many slots are kept for others.
fn kept(all: usize) -> usize {
    (all / KEPT).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::state::slots::Permit;

    const MS: Duration = Duration::from_millis(1);

    /// A worker whose first handler takes long.
    struct Rig {
        sharing: Sharing,
        slots: Arc<Slots>,
        taken: Vec<(usize, Permit)>,
        now: Instant,
        can_be_parked: bool,
    }

    impl Rig {
        fn new(slots: usize, handlers: usize) -> Self {
            let slots = Arc::new(Slots::new(slots));
            let sharing = Sharing::new(handlers);
            sharing.of(&slots);
            Rig {
                now: Instant::now(),
                sharing,
                slots,
                taken: Vec::new(),
                can_be_parked: true,
            }
        }

        /// Starts as many as may of so many. Returns how many those were.
        fn start(&mut self, place: usize, most: usize) -> usize {
            for started in 0..most {
                let Some(permit) = self.slots.try_take() else {
                    return started;
                };
                if !self.sharing.admits(place) {
                    return started;
                }
                self.sharing.begins(place);
                self.taken.push((place, permit));
            }
            most
        }

        fn end(&mut self, place: usize) {
            let at = self.taken.iter().position(|(of, _)| *of == place);
            drop(self.taken.remove(at.expect("one runs")));
            self.sharing.ends(place);
        }

        fn pass(&mut self, ms: u32) {
            for _ in 0..ms.div_ceil(20) {
                self.now += 20 * MS;
                self.sharing.look(0, self.now);
                if self.sharing.wants_proof() {
                    self.sharing.proved(self.can_be_parked, self.now);
                    self.sharing.look(0, self.now + LOOK);
                }
            }
        }

        fn running(&self, place: usize) -> usize {
            self.taken.iter().filter(|(of, _)| *of == place).count()
        }
    }

    #[test]
    fn a_type_that_is_alone_has_all_slots() {
        let mut rig = Rig::new(16, 2);
        assert_eq!(rig.start(0, 100), 16);
        rig.pass(200);
        assert!(rig.sharing.is_scarce() && !rig.sharing.is_limited());
        for _ in 0..50 {
            rig.end(0);
            assert_eq!((rig.start(0, 100), rig.sharing.room(0)), (1, Room::Any));
            rig.pass(20);
        }
    }

    #[test]
    fn once_another_has_work_a_slot_is_kept_until_it_has_had_none_for_a_while() {
        let mut rig = Rig::new(16, 2);
        rig.start(0, 100);
        rig.pass(200);
        rig.sharing.saw(1);
        rig.pass(20);
        assert_eq!(rig.sharing.room(0), Room::None(AGAIN));
        rig.end(0);
        assert_eq!((rig.start(0, 100), rig.running(0)), (0, 15));
        assert_eq!(rig.start(1, 1), 1);
        rig.end(1);
        rig.end(0);
        assert_eq!(rig.sharing.room(0), Room::Some(1));
        assert_eq!(rig.start(0, 100), 1);
        rig.pass(9_000);
        assert_eq!(rig.start(0, 100), 1);
    }

    #[test]
    fn what_can_not_be_parked_is_not_held_back() {
        let mut rig = Rig::new(16, 2);
        rig.can_be_parked = false;
        rig.start(0, 100);
        rig.pass(200);
        rig.sharing.saw(1);
        for _ in 0..100 {
            rig.pass(20);
            rig.end(0);
            assert_eq!((rig.start(0, 100), rig.sharing.room(0)), (1, Room::Any));
        }
        rig.can_be_parked = true;
        rig.pass(11_000);
        rig.sharing.saw(1);
        rig.pass(40);
        rig.end(0);
        assert_eq!(
            (rig.start(0, 100), rig.running(0)),
            (0, 15),
            "it is asked again"
        );
    }

    #[test]
    fn types_that_take_long_have_equal_parts_and_no_slot_is_idle() {
        for (slots, types) in [(16, 2), (16, 3), (3, 2), (2, 2), (5, 4), (4, 8)] {
            let mut rig = Rig::new(slots, types);
            rig.start(0, 100);
            rig.pass(200);
            (1..types).for_each(|place| rig.sharing.saw(place));
            for turn in 0..200 {
                rig.pass(20);
                let most = (0..types).max_by_key(|place| rig.running(*place));
                rig.end(most.expect("some run"));
                // The greediest asks first.
                (0..types).for_each(|place| {
                    rig.start((place + turn) % types.min(turn + 1), 100);
                });
            }
            let running: Vec<usize> = (0..types).map(|place| rig.running(place)).collect();
            assert_eq!(
                running.iter().sum::<usize>(),
                slots,
                "{running:?} of {slots}"
            );
            let share = slots.div_ceil(types);
            assert!(
                running.iter().all(|of| *of <= share),
                "{running:?} of {slots}"
            );
        }
    }

    #[test]
    fn handlers_that_are_quick_are_left_alone() {
        let mut rig = Rig::new(4, 2);
        rig.start(0, 3);
        rig.start(1, 1);
        for _ in 0..200 {
            // Each takes 4 ms.
            for _ in 0..15 {
                rig.end(0);
                assert_eq!(rig.start(0, 1), 1);
            }
            rig.pass(20);
            assert!(!rig.sharing.is_scarce());
        }
    }
}
