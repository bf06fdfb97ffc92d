//! The quarantine: where an entry that may have killed its workers runs, one at a time and with nothing else running
//! beside it, so that a worker that dies now names its culprit.
//!
//! The fetcher closes the gate, lets a suspect in once nothing else runs, and opens the gate again; lanes only pass
//! it. How long the gate may be closed is bounded, so that suspects never stop the rest: see [`Visits`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long the first suspect waits for running handlers to end. Each try that finds no quiet doubles it.
const PATIENCE: Duration = Duration::from_millis(250);
/// After so many tries a suspect runs beside handlers that have outlived all of them.
const TRIES: u32 = 8;
/// How long suspects may follow each other while others wait to start, and how long those have then.
const TURN: Duration = Duration::from_millis(500);

/// The gate that every handler passes before it starts.
#[derive(Default)]
pub(crate) struct Quarantine {
    closed: AtomicBool,
    occupied: AtomicBool,
    /// Whose suspects may come, of the shards that share it: the number of their visits, or 0.
    turn: AtomicUsize,
    visitors: AtomicUsize,
    /// Signalled when others may start again.
    opened: Notify,
}

/// When suspects may come, as the fetcher keeps count of it.
pub(crate) struct Visits {
    /// Since when the gate has been closed.
    closed: Option<Instant>,
    /// Since when a suspect has been running.
    suspect: Option<Instant>,
    tries: u32,
    /// No suspect comes before.
    rest_until: Instant,
    /// The last look left suspects that have still to come in.
    waiting: bool,
    /// Its number, once it has asked.
    number: usize,
}

/// What a suspect that would come in is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Nothing else runs: come in now.
    Enter,
    /// Ask again then.
    At(Instant),
}

impl Quarantine {
    /// Whether a suspect is in it.
    pub fn is_occupied(&self) -> bool {
        self.occupied.load(Ordering::SeqCst)
    }

    /// Whether other handlers may start now.
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::SeqCst)
    }

    /// Whether a handler may start that has just taken its slot. A slot taken before this look and a look at the slots
    /// behind the closed gate can't miss each other.
    pub fn lets_in(&self) -> bool {
        fence(Ordering::SeqCst);
        self.is_open()
    }

    /// Waits until other handlers may start. Costs one load where nothing is in the way.
    pub async fn pass(&self) {
        loop {
            let opened = self.opened.notified();
            if self.is_open() {
                return;
            }
            opened.await;
        }
    }

    /// The suspect is settled.
    pub fn leave(&self) {
        self.occupied.store(false, Ordering::SeqCst);
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // Before the slots are looked at: see `Quarantine::lets_in`.
        fence(Ordering::SeqCst);
    }

    fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }
}

impl Visits {
    pub fn new() -> Self {
        Visits {
            closed: None,
            suspect: None,
            tries: 0,
            rest_until: Instant::now(),
            waiting: false,
            number: 0,
        }
    }

    /// May a suspect come in? `running` counts the handlers that run.
    pub fn ask(
        &mut self,
        quarantine: &Quarantine,
        running: impl Fn() -> usize,
        lease: Duration,
    ) -> Admission {
        let now = Instant::now();
        if self.closed.is_none() && now < self.rest_until {
            return Admission::At(self.rest_until);
        }
        if self.closed.is_none() && !self.takes_turn(quarantine) {
            return Admission::At(now + TURN / 4);
        }
        quarantine.close();
        let since = *self.closed.get_or_insert(now);
        // Counted behind the closed gate: whoever passed it before has taken its slot by now.
        if running() == 0 {
            return Admission::Enter;
        }
        let patience = self.patience();
        if now < since + patience {
            return Admission::At(now + Duration::from_millis(5));
        }
        self.tries += 1;
        if self.tries >= TRIES {
            return Admission::Enter;
        }
        // The gate is closed for a fifth of the time at most.
        self.reopen(quarantine, lease.max(patience * 4));
        Admission::At(self.rest_until)
    }

    /// A suspect has come in.
    pub fn entered(&mut self, quarantine: &Quarantine) {
        quarantine.close();
        quarantine.occupied.store(true, Ordering::SeqCst);
        let now = Instant::now();
        self.closed.get_or_insert(now);
        self.suspect = Some(now);
        self.tries = 0;
    }

    /// Opens the gate where that is due; `others` is how many entries are held besides. Answers whether the next
    /// suspect may be looked for at once.
    pub fn tend(&mut self, quarantine: &Quarantine, others: usize, lease: Duration) -> bool {
        let Some(closed) = self.closed else {
            return false;
        };
        if quarantine.is_occupied() {
            // It has outlived its first lease: others need not wait for its end.
            if self.suspect.is_some_and(|since| since.elapsed() > lease) && !quarantine.is_open() {
                quarantine.open();
            }
            return false;
        }
        let left = self.suspect.take().is_some();
        if left && !self.waiting {
            self.reopen(quarantine, Duration::ZERO);
            return false;
        }
        // Nobody has asked for it any more: looking for suspects has met with trouble.
        let forgotten = !left && closed.elapsed() > self.patience() + TURN;
        if forgotten || (left && others > 0 && closed.elapsed() > TURN) {
            self.reopen(quarantine, TURN);
        }
        left
    }

    /// A look has ended that found so many suspects left to come in.
    pub fn looked(&mut self, quarantine: &Quarantine, waiting: u64) {
        self.waiting = waiting > 0;
        if !self.waiting && !quarantine.is_occupied() && self.closed.is_some() {
            self.reopen(quarantine, Duration::ZERO);
        }
    }

    /// Whether no other shard's suspects have their turn.
    fn takes_turn(&mut self, quarantine: &Quarantine) -> bool {
        if self.number == 0 {
            self.number = quarantine.visitors.fetch_add(1, Ordering::SeqCst) + 1;
        }
        let (free, mine) = (0, self.number);
        let taken = &quarantine.turn;
        let turn = taken.compare_exchange(free, mine, Ordering::SeqCst, Ordering::SeqCst);
        turn.is_ok() || turn == Err(mine)
    }

    fn patience(&self) -> Duration {
        PATIENCE * 2u32.pow(self.tries.min(TRIES))
    }

    fn reopen(&mut self, quarantine: &Quarantine, rest: Duration) {
        self.closed = None;
        self.rest_until = Instant::now() + rest;
        let (mine, free) = (self.number, 0);
        let turn = &quarantine.turn;
        let _ = turn.compare_exchange(mine, free, Ordering::SeqCst, Ordering::SeqCst);
        quarantine.open();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    #[test]
    fn a_suspect_comes_in_when_nothing_else_runs_and_keeps_others_out_until_it_is_settled() {
        let (quarantine, mut visits) = (Quarantine::default(), Visits::new());
        assert!(matches!(
            visits.ask(&quarantine, || 1, LEASE),
            Admission::At(_)
        ));
        assert!(!quarantine.is_open());
        assert_eq!(visits.ask(&quarantine, || 0, LEASE), Admission::Enter);
        visits.entered(&quarantine);
        assert!(!visits.tend(&quarantine, 5, LEASE));
        assert!(quarantine.is_occupied() && !quarantine.is_open());
        quarantine.leave();
        visits.tend(&quarantine, 5, LEASE);
        assert!(quarantine.is_open());
    }

    #[test]
    fn what_runs_is_counted_once_nothing_more_can_start() {
        let (quarantine, mut visits) = (Quarantine::default(), Visits::new());
        let open_when_counted = || usize::from(quarantine.is_open());
        assert_eq!(
            visits.ask(&quarantine, open_when_counted, LEASE),
            Admission::Enter
        );
    }

    #[test]
    fn the_next_suspect_follows_at_once_but_others_get_their_turn() {
        let (quarantine, mut visits) = (Quarantine::default(), Visits::new());
        visits.ask(&quarantine, || 0, LEASE);
        visits.entered(&quarantine);
        visits.waiting = true;
        quarantine.leave();
        assert!(visits.tend(&quarantine, 5, LEASE));
        assert!(
            !quarantine.is_open(),
            "the gate stays closed for the next one"
        );
        visits.entered(&quarantine);
        quarantine.leave();
        visits.closed = Instant::now().checked_sub(TURN * 2);
        assert!(visits.tend(&quarantine, 5, LEASE));
        assert!(quarantine.is_open());
        assert!(
            matches!(visits.ask(&quarantine, || 0, LEASE), Admission::At(_)),
            "others have their turn"
        );
    }

    #[test]
    fn a_worker_that_never_falls_quiet_lets_a_suspect_in_at_last_and_keeps_working_meanwhile() {
        let (quarantine, mut visits) = (Quarantine::default(), Visits::new());
        for _ in 1..TRIES {
            visits.ask(&quarantine, || 1, LEASE);
            visits.closed = Instant::now().checked_sub(Duration::from_secs(100));
            assert!(
                matches!(visits.ask(&quarantine, || 1, LEASE), Admission::At(at) if at > Instant::now() + LEASE / 2)
            );
            assert!(quarantine.is_open());
            visits.rest_until = Instant::now();
        }
        visits.ask(&quarantine, || 1, LEASE);
        visits.closed = Instant::now().checked_sub(Duration::from_secs(100));
        assert_eq!(visits.ask(&quarantine, || 1, LEASE), Admission::Enter);
    }

    #[test]
    fn a_gate_that_is_forgotten_opens_by_itself() {
        let (quarantine, mut visits) = (Quarantine::default(), Visits::new());
        visits.ask(&quarantine, || 1, LEASE);
        visits.tend(&quarantine, 5, LEASE);
        assert!(!quarantine.is_open());
        visits.closed = Instant::now().checked_sub(Duration::from_secs(100));
        visits.tend(&quarantine, 5, LEASE);
        assert!(quarantine.is_open());
    }

    #[test]
    fn a_suspect_that_runs_for_long_does_not_keep_others_out() {
        let (quarantine, mut visits) = (Quarantine::default(), Visits::new());
        visits.ask(&quarantine, || 0, LEASE);
        visits.entered(&quarantine);
        visits.suspect = Instant::now().checked_sub(LEASE * 2);
        visits.tend(&quarantine, 5, LEASE);
        assert!(quarantine.is_occupied() && quarantine.is_open());
    }
}
