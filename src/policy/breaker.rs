//! The circuit breaker's state machine: closed, open, half-open. Pure: it is told the time.
//!
//! Closed, it lets everything through and counts failures. After so many in a row, or where so large a part of the
//! calls within a window failed, it opens: for a while nothing is let through. Then, half-open, it lets a few probes
//! through and nothing else: when all of them have succeeded it closes, when one fails it opens again. (Michael Nygard,
//! "Release It!"; the states are named as Martin Fowler does.) The kept crates (failsafe, recloser) let any number of
//! calls through while half-open and don't say when they will, and so could not keep entries in Redis until then.

use std::time::{Duration, Instant};

use crate::config::{BreakerScope, BreakerSettings};
use crate::delay;
use crate::failure::{Cause, Failure, FailureVerdict};

/// Parts of the window that calls are counted in: what is older than the window is forgotten part by part.
const PARTS: u32 = 10;

/// What comes while nobody knows who sends the group's probes waits for so long.
const ASK: Duration = Duration::from_secs(1);

/// A circuit breaker's state and counts.
#[derive(Debug)]
pub(crate) struct Machine {
    settings: BreakerSettings,
    state: Inner,
    /// Goes up with every change: what was let through before one has no say after it.
    epoch: u64,
    opened: u64,
    /// How often its own probes have closed it.
    closed: u64,
    /// If one worker of the group sends the probes: until when that is this one.
    may_probe_until: Option<Instant>,
}

#[derive(Debug)]
enum Inner {
    Closed {
        in_a_row: u32,
        window: Window,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        /// When the last probe was let through.
        probed: Instant,
        out: u32,
        succeeded: u32,
    },
}

/// What can be told of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// The right to one call, to be returned with what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(pub(super) u64);

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    /// It says nothing about the service.
    Neither,
}

/// Why a call may not be made, and how long to wait before it is worth asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub why: Why,
    pub wait: Duration,
}

/// What holds a call back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    BreakerOpen,
    /// The breaker is half-open, and its probes are out.
    Probing,
    Rate,
    /// The rate of its group can't be counted.
    Uncounted,
    Concurrency,
    /// Others have work, and its handler has its share of the worker's slots.
    Share,
    /// An operator paused the handler.
    Paused,
}

/// Calls and failures of late.
#[derive(Debug, Default)]
struct Window {
    parts: [(u32, u32); PARTS as usize],
    /// The number of the youngest part, counted from `begin`.
    at: u64,
    begin: Option<Instant>,
}

impl Machine {
    pub fn new(settings: BreakerSettings) -> Self {
        Machine {
            settings,
            state: Inner::closed(),
            epoch: 0,
            opened: 0,
            closed: 0,
            may_probe_until: None,
        }
    }

    /// Asks for one call.
    pub fn admit(&mut self, now: Instant) -> Result<Ticket, Held> {
        self.lapse(now);
        let may_probe = self.may_probe(now);
        match &mut self.state {
            Inner::Closed { .. } => {}
            Inner::Open { until } if *until > now => {
                return Err(Held {
                    why: Why::BreakerOpen,
                    wait: *until - now,
                });
            }
            Inner::Open { .. } if !may_probe => {
                return Err(Held {
                    why: Why::BreakerOpen,
                    wait: ASK.min(self.settings.open_for),
                });
            }
            Inner::Open { .. } => {
                self.change(Inner::HalfOpen {
                    probed: now,
                    out: 1,
                    succeeded: 0,
                });
            }
            Inner::HalfOpen { probed, out, .. } if *out >= self.settings.probes => {
                return Err(Held {
                    why: Why::Probing,
                    // The longer the probes take the less often anybody asks; but no less often than while it is
                    // open. When it began says nothing: with no calls it stays half-open for however long.
                    wait: now
                        .duration_since(*probed)
                        .min(self.settings.open_for)
                        .max(Duration::from_millis(250)),
                });
            }
            Inner::HalfOpen { probed, out, .. } => {
                *probed = now;
                *out += 1;
            }
        }
        Ok(Ticket(self.epoch))
    }

    /// What came of a call. Returns whether that changed the state.
    pub fn record(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) -> bool {
        if ticket.0 != self.epoch {
            return false;
        }
        let opens = match (&mut self.state, outcome) {
            (Inner::Closed { .. }, Outcome::Neither) | (Inner::Open { .. }, _) => return false,
            (Inner::Closed { in_a_row, window }, outcome) => {
                let failed = outcome == Outcome::Failure;
                *in_a_row = if failed { *in_a_row + 1 } else { 0 };
                let too_many = self.settings.failures > 0 && *in_a_row >= self.settings.failures;
                let rate = self.settings.failure_rate;
                let too_large_a_part = rate > 0.0 && {
                    let (calls, failures) = window.count(failed, now, self.settings.window);
                    failed
                        && calls >= self.settings.minimum
                        && f64::from(failures) >= rate * f64::from(calls)
                };
                too_many || too_large_a_part
            }
            (Inner::HalfOpen { out, .. }, Outcome::Neither) => {
                *out -= 1;
                return false;
            }
            (Inner::HalfOpen { .. }, Outcome::Failure) => true,
            (Inner::HalfOpen { succeeded, .. }, Outcome::Success) => {
                *succeeded += 1;
                if *succeeded < self.settings.probes {
                    return false;
                }
                false
            }
        };
        if opens {
            self.opened += 1;
            let until = delay::after(now, self.settings.open_for);
            self.change(Inner::Open { until });
        } else if matches!(self.state, Inner::HalfOpen { .. }) {
            self.closed += 1;
            self.change(Inner::closed());
        } else {
            return false;
        }
        true
    }

    /// A call has shown that there is no use in others: opens, however few have failed. Returns whether that changed the
    /// state.
    pub fn trip(&mut self, ticket: Ticket, now: Instant) -> bool {
        if ticket.0 != self.epoch || matches!(self.state, Inner::Open { .. }) {
            return false;
        }
        self.opened += 1;
        let until = delay::after(now, self.settings.open_for);
        self.change(Inner::Open { until });
        true
    }

    /// How many more calls would be let through: None for any number.
    pub fn room(&self, now: Instant) -> Option<usize> {
        match self.state {
            Inner::Closed { .. } => None,
            Inner::Open { until } if until > now => Some(0),
            _ if self.wants_to_probe(now) => Some(0),
            Inner::Open { .. } => Some(self.settings.probes as usize),
            Inner::HalfOpen { out, .. } => Some(self.settings.probes.saturating_sub(out) as usize),
        }
    }

    pub fn state(&self) -> State {
        match self.state {
            Inner::Closed { .. } => State::Closed,
            Inner::Open { until } => State::Open { until },
            Inner::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Others of the group have it open for so long; zero if it waits for probes.
    pub fn hear_open(&mut self, now: Instant, left: Duration) {
        let until = now + left.min(self.settings.open_for);
        match &mut self.state {
            Inner::Open { until: known } if !left.is_zero() => *known = until,
            Inner::Open { .. } => {}
            // It is this worker that sends the probes.
            Inner::HalfOpen { .. } if left.is_zero() => {}
            Inner::HalfOpen { .. } | Inner::Closed { .. } => self.change(Inner::Open { until }),
        }
    }

    /// Another one's probes have succeeded.
    pub fn hear_closed(&mut self) {
        if !matches!(self.state, Inner::Closed { .. }) {
            self.change(Inner::closed());
        }
    }

    /// This worker may send the group's probes for so long.
    pub fn grant(&mut self, now: Instant, lasts: Duration) {
        self.may_probe_until = Some(now + lasts);
    }

    /// Whether its time has come, and it is not known who sends the group's probes.
    pub fn wants_to_probe(&self, now: Instant) -> bool {
        match self.state {
            Inner::Closed { .. } => false,
            Inner::Open { until } => until <= now && !self.may_probe(now),
            Inner::HalfOpen { out, succeeded, .. } => out == succeeded && !self.may_probe(now),
        }
    }

    /// Whether probes are on their way that others are to wait for.
    pub fn is_probing(&self) -> bool {
        matches!(self.state, Inner::HalfOpen { out, succeeded, .. } if out > succeeded)
    }

    /// The right to probe has lapsed with no probe on its way: it is anybody's.
    pub fn lapse(&mut self, now: Instant) {
        if matches!(self.state, Inner::HalfOpen { .. }) && self.wants_to_probe(now) {
            self.change(Inner::Open { until: now });
        }
    }

    fn may_probe(&self, now: Instant) -> bool {
        self.settings.scope == BreakerScope::Worker
            || self.may_probe_until.is_some_and(|until| until > now)
    }

    /// How often its own probes have closed it.
    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a success would change nothing at all.
    pub fn is_clean(&self) -> bool {
        self.settings.failure_rate == 0.0 && matches!(self.state, Inner::Closed { in_a_row: 0, .. })
    }

    /// What a handler's failure says, by the settings.
    pub fn outcome_of(settings: &BreakerSettings, failure: &Failure) -> Outcome {
        let counts = settings.counts;
        let counted = match (failure.cause, failure.verdict) {
            (Cause::BreakerOpen | Cause::Uncounted | Cause::Unhandled, _) => false,
            (_, FailureVerdict::Later(_) | FailureVerdict::Undecodable) => false,
            (Cause::TimedOut, _) => counts.timeout,
            (Cause::Panicked, _) => counts.panic,
            (Cause::Error, FailureVerdict::Permanent) => counts.permanent,
            (Cause::Error, _) => counts.error,
        };
        if counted {
            Outcome::Failure
        } else {
            Outcome::Neither
        }
    }

    fn change(&mut self, to: Inner) {
        if !matches!(to, Inner::HalfOpen { .. }) {
            // It was for this opening.
            self.may_probe_until = None;
        }
        self.state = to;
        self.epoch += 1;
    }
}

impl Inner {
    fn closed() -> Self {
        Inner::Closed {
            in_a_row: 0,
            window: Window::default(),
        }
    }
}

impl Window {
    /// Notes a call; answers how many there were in the window, and how many of them failed.
    fn count(&mut self, failed: bool, now: Instant, length: Duration) -> (u32, u32) {
        let begin = *self.begin.get_or_insert(now);
        let part = (length / PARTS).max(Duration::from_nanos(1));
        let at = (now.saturating_duration_since(begin).as_nanos() / part.as_nanos()) as u64;
        let at = at.max(self.at);
        for passed in self.at + 1..=at.min(self.at + u64::from(PARTS)) {
            self.parts[(passed % u64::from(PARTS)) as usize] = (0, 0);
        }
        self.at = at;
        let (calls, failures) = &mut self.parts[(at % u64::from(PARTS)) as usize];
        *calls = calls.saturating_add(1);
        *failures = failures.saturating_add(u32::from(failed));
        self.parts.iter().fold((0, 0), |(calls, failures), part| {
            (
                u32::saturating_add(calls, part.0),
                u32::saturating_add(failures, part.1),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(failures: u32, probes: u32) -> BreakerSettings {
        BreakerSettings {
            failures,
            probes,
            ..BreakerSettings::default()
        }
    }

    fn fail(machine: &mut Machine, times: u32, now: Instant) {
        for _ in 0..times {
            let ticket = machine.admit(now).unwrap();
            machine.record(ticket, Outcome::Failure, now);
        }
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row_and_closes_when_its_probes_succeed() {
        let now = Instant::now();
        let mut machine = Machine::new(settings(3, 2));
        fail(&mut machine, 2, now);
        let ticket = machine.admit(now).unwrap();
        machine.record(ticket, Outcome::Success, now);
        fail(&mut machine, 2, now);
        assert_eq!(machine.state(), State::Closed);
        fail(&mut machine, 1, now);
        let until = now + Duration::from_secs(60);
        assert_eq!(machine.state(), State::Open { until });
        let held = machine.admit(now + Duration::from_secs(20)).unwrap_err();
        assert_eq!(held.wait, Duration::from_secs(40));

        let (first, second) = (machine.admit(until).unwrap(), machine.admit(until).unwrap());
        assert_eq!(machine.state(), State::HalfOpen);
        assert_eq!(machine.admit(until).unwrap_err().why, Why::Probing);
        assert!(!machine.record(first, Outcome::Success, until));
        assert_eq!(machine.admit(until).unwrap_err().why, Why::Probing);
        assert!(machine.record(second, Outcome::Success, until));
        assert_eq!(machine.state(), State::Closed);
    }

    #[test]
    fn a_probe_that_fails_opens_it_again_and_one_that_says_nothing_leaves_room_for_another() {
        let now = Instant::now();
        let mut machine = Machine::new(settings(1, 1));
        fail(&mut machine, 1, now);
        let later = now + Duration::from_secs(61);
        let probe = machine.admit(later).unwrap();
        machine.record(probe, Outcome::Neither, later);
        let probe = machine.admit(later).unwrap();
        assert!(machine.record(probe, Outcome::Failure, later));
        assert!(matches!(machine.state(), State::Open { .. }));
        assert_eq!(machine.opened(), 2);
    }

    #[test]
    fn what_was_let_through_before_it_opened_has_no_say_in_whether_it_closes() {
        let now = Instant::now();
        let mut machine = Machine::new(settings(1, 1));
        let old = machine.admit(now).unwrap();
        fail(&mut machine, 1, now);
        let later = now + Duration::from_secs(61);
        let _probe = machine.admit(later).unwrap();
        assert!(!machine.record(old, Outcome::Success, later));
        assert!(!machine.record(old, Outcome::Failure, later));
        assert_eq!(machine.state(), State::HalfOpen);
    }

    #[test]
    fn where_one_worker_of_the_group_probes_the_others_wait_until_they_hear_of_it() {
        let now = Instant::now();
        let of_the_group = || {
            Machine::new(BreakerSettings {
                scope: BreakerScope::Group,
                ..settings(1, 1)
            })
        };
        let (mut one, mut other) = (of_the_group(), of_the_group());
        fail(&mut one, 1, now);
        other.hear_open(now, Duration::from_secs(60));
        let later = now + Duration::from_secs(61);
        for machine in [&mut one, &mut other] {
            assert!(machine.wants_to_probe(later));
            assert_eq!(machine.room(later), Some(0));
            assert_eq!(machine.admit(later).unwrap_err().why, Why::BreakerOpen);
        }
        one.grant(later, Duration::from_secs(5));
        assert_eq!(one.room(later), Some(1));
        let probe = one.admit(later).unwrap();
        // What others see in Redis is that it waits for probes.
        one.hear_open(later, Duration::ZERO);
        assert!(one.record(probe, Outcome::Success, later));
        assert_eq!((one.state(), one.closed()), (State::Closed, 1));
        other.hear_closed();
        assert!(other.admit(later).is_ok());
    }

    #[test]
    fn the_right_to_probe_lapses_unless_a_probe_is_on_its_way() {
        let now = Instant::now();
        let mut machine = Machine::new(BreakerSettings {
            scope: BreakerScope::Group,
            ..settings(1, 2)
        });
        fail(&mut machine, 1, now);
        let later = now + Duration::from_secs(61);
        machine.grant(later, Duration::from_secs(5));
        let probe = machine.admit(later).unwrap();
        let lapsed = later + Duration::from_secs(6);
        machine.lapse(lapsed);
        assert!(machine.is_probing() && machine.state() == State::HalfOpen);
        machine.record(probe, Outcome::Success, lapsed);
        machine.lapse(lapsed);
        assert_eq!(machine.state(), State::Open { until: lapsed });
        assert!(machine.wants_to_probe(lapsed));
    }

    #[test]
    fn it_opens_by_the_part_of_calls_that_failed_within_the_window() {
        let start = Instant::now();
        let mut machine = Machine::new(BreakerSettings {
            failures: 0,
            failure_rate: 0.5,
            window: Duration::from_secs(10),
            minimum: 10,
            ..BreakerSettings::default()
        });
        let mut call = |failed: bool, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            let ticket = machine.admit(now).unwrap();
            let outcome = if failed {
                Outcome::Failure
            } else {
                Outcome::Success
            };
            machine.record(ticket, outcome, now)
        };
        assert!((0..9).all(|_| !call(true, 0)), "too few to tell");
        // Those are forgotten by now.
        assert!((0..9).all(|nth| !call(nth % 2 == 0, 20)));
        assert!((0..4).all(|_| !call(false, 21)));
        // 5 of 13 failed; with three more it is 8 of 16.
        assert!(!call(true, 22) && !call(true, 22));
        assert!(call(true, 22));
    }

    proptest! {
        /// Whatever happens: no more probes are out than there may be, nothing is let through before its time, and
        /// only failures open it.
        #[test]
        fn it_keeps_to_its_rules(
            failures in 1..4_u32,
            probes in 1..4_u32,
            steps in proptest::collection::vec((0..5_u8, 0..40_u64), 1..200),
        ) {
            let mut machine = Machine::new(settings(failures, probes));
            let mut now = Instant::now();
            let mut out: Vec<Ticket> = Vec::new();
            for (step, wait) in steps {
                now += Duration::from_secs(wait);
                let before = machine.state();
                match step {
                    0 | 1 => match machine.admit(now) {
                        Ok(ticket) => {
                            let is_open = matches!(before, State::Open { until } if until > now);
                            prop_assert!(!is_open);
                            out.push(ticket);
                        }
                        Err(held) => {
                            prop_assert!(before != State::Closed);
                            prop_assert!(!held.wait.is_zero());
                            prop_assert!(held.wait <= BreakerSettings::default().open_for);
                        }
                    },
                    _ if out.is_empty() => {}
                    step => {
                        let ticket = out.swap_remove(wait as usize % out.len());
                        let outcome = [Outcome::Success, Outcome::Failure, Outcome::Neither][step as usize - 2];
                        let changed = machine.record(ticket, outcome, now);
                        prop_assert_eq!(changed, before != machine.state());
                        if changed && matches!(machine.state(), State::Open { .. }) {
                            prop_assert_eq!(outcome, Outcome::Failure);
                        }
                    }
                }
                let probing = out.iter().filter(|ticket| ticket.0 == machine.epoch()).count();
                if machine.state() == State::HalfOpen {
                    prop_assert!(probing <= probes as usize);
                }
            }
        }
    }
}
