//! The search: every state that can be reached, breadth first, so that the first trace found is a shortest one.
//!
//! A promise that nothing is lost is a promise about what remains possible: from every reachable state some
//! sequence of fair steps has to lead to a settled one (AG EF settled). That is found backwards, over the fair
//! steps, once all states are known. The crate `stateright` would save the search and its traces, but its
//! `eventually` does not look into cycles, and here every repeated request is one.
//!
//! A state is remembered by a fingerprint of 64 bits: of a few million states, two share one with a
//! probability below one in a million.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::{Duration, Instant};

use crate::action::Transition;
use crate::fingerprint::Fingerprint;
use crate::properties::{Violation, broken_by, is_settled};
use crate::rules::{Budget, Rules};
use crate::state::State;
use crate::{faults, network, operators, worker};

#[derive(Debug)]
pub struct Exploration {
    pub states: usize,
    pub transitions: usize,
    pub took: Duration,
    pub found: Option<(Violation, Trace)>,
}

/// What happened, step by step, in plain words.
#[derive(Debug)]
pub struct Trace(pub Vec<String>);

impl Display for Trace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

/// Explores everything within the budget. With `only`, other violations end their branch unreported.
pub fn explore(rules: &Rules, budget: Budget, only: Option<Violation>) -> Exploration {
    let started = Instant::now();
    let mut search = Search {
        rules,
        budget,
        known: HashMap::default(),
        states: Vec::new(),
        fair: Vec::new(),
    };
    let (transitions, mut found) = search.run(only);
    if found.is_none() && only.is_none_or(|only| only == Violation::NeverSettled) {
        found = search
            .first_never_settled()
            .map(|id| (Violation::NeverSettled, search.trace(id, None)));
    }
    Exploration {
        states: search.states.len(),
        transitions,
        took: started.elapsed(),
        found,
    }
}

struct Search<'a> {
    rules: &'a Rules,
    budget: Budget,
    known: HashMap<u64, u32, BuildHasherDefault<Itself>>,
    /// In the order in which they were found.
    states: Vec<Known>,
    /// The fair steps, as (from, to).
    fair: Vec<(u32, u32)>,
}

struct Known {
    fingerprint: u64,
    /// By which it was reached first; its own id for the first state.
    parent: u32,
    /// Settled, or the end of a branch that broke another promise.
    ends_well: bool,
}

impl Search<'_> {
    /// How many transitions there are, and the first violation with its trace.
    fn run(&mut self, only: Option<Violation>) -> (usize, Option<(Violation, Trace)>) {
        let (mut transitions, mut steps) = (0, Vec::new());
        let start = State::start(self.budget).canonical();
        let mut level = vec![(self.remember(&start, 0).0, start)];
        while !level.is_empty() {
            let mut next_level = Vec::new();
            for (id, state) in level {
                steps.clear();
                next_steps(self.rules, &state, &mut steps);
                transitions += steps.len();
                for step in &steps {
                    if let Some(violation) = broken_by(self.rules, &self.budget, &state, step) {
                        if only.is_none_or(|only| only == violation) {
                            return (
                                transitions,
                                Some((violation, self.trace(id, Some(violation)))),
                            );
                        }
                        self.states[id as usize].ends_well = true;
                        continue;
                    }
                    let next = step.state.canonical();
                    let (next_id, new) = self.remember(&next, id);
                    if step.fair {
                        self.fair.push((id, next_id));
                    }
                    if new {
                        next_level.push((next_id, next));
                    }
                }
            }
            level = next_level;
        }
        (transitions, None)
    }

    /// The id of a state, and whether it is new.
    fn remember(&mut self, state: &State, parent: u32) -> (u32, bool) {
        let fingerprint = fingerprint(state);
        let id = self.states.len() as u32;
        let known = *self.known.entry(fingerprint).or_insert(id);
        if known == id {
            self.states.push(Known {
                fingerprint,
                parent,
                ends_well: is_settled(self.rules, state),
            });
        }
        (known, known == id)
    }

    /// Backwards from all that ends well, over the fair steps; the first state that is not reached.
    fn first_never_settled(&self) -> Option<u32> {
        let mut first = vec![0_usize; self.states.len() + 1];
        for (_, to) in &self.fair {
            first[*to as usize + 1] += 1;
        }
        for id in 0..self.states.len() {
            first[id + 1] += first[id];
        }
        let (mut next, mut before) = (first.clone(), vec![0; self.fair.len()]);
        for (from, to) in &self.fair {
            before[next[*to as usize]] = *from;
            next[*to as usize] += 1;
        }
        let mut well: Vec<bool> = self.states.iter().map(|state| state.ends_well).collect();
        let mut open: Vec<usize> = (0..well.len()).filter(|id| well[*id]).collect();
        while let Some(id) = open.pop() {
            for from in &before[first[id]..first[id + 1]] {
                if !std::mem::replace(&mut well[*from as usize], true) {
                    open.push(*from as usize);
                }
            }
        }
        well.iter().position(|well| !well).map(|id| id as u32)
    }

    /// The way to a state and, where given, the step from it that breaks a promise. The search exchanges A and
    /// B as it likes; the way is walked again with the names kept.
    fn trace(&self, id: u32, breaks: Option<Violation>) -> Trace {
        let mut way = vec![id];
        while let Some(&last) = way.last().filter(|last| **last != 0) {
            way.push(self.states[last as usize].parent);
        }
        let mut state = State::start(self.budget);
        let (mut told, mut steps) = (Vec::new(), Vec::new());
        for id in way.iter().rev().skip(1) {
            let wanted = self.states[*id as usize].fingerprint;
            steps.clear();
            next_steps(self.rules, &state, &mut steps);
            let step = steps
                .iter()
                .find(|step| fingerprint(&step.state.canonical()) == wanted);
            let step = step.expect("a state that was reached is reached again");
            told.push(step.action.to_string());
            state = step.state;
        }
        steps.clear();
        next_steps(self.rules, &state, &mut steps);
        let last = steps.iter().find(|step| {
            breaks.is_some() && breaks == broken_by(self.rules, &self.budget, &state, step)
        });
        told.extend(last.map(|step| step.action.to_string()));
        Trace(told)
    }
}

fn next_steps(rules: &Rules, state: &State, steps: &mut Vec<Transition>) {
    worker::steps(rules, state, steps);
    network::steps(rules, state, steps);
    faults::steps(rules, state, steps);
    operators::steps(rules, state, steps);
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = Fingerprint::default();
    state.hash(&mut hasher);
    hasher.finish()
}

/// A fingerprint is its own hash.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are kept");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
