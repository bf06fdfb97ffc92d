//! The search of the smaller models: every state that can be reached, breadth first, so that the first way found is a
//! shortest one; and from each of them some way of fair steps that ends well.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::{BuildHasherDefault, Hash};

use crate::fingerprint::Fingerprint;

/// What is searched.
pub trait Model: Copy + Eq + Hash {
    type Setup;
    type Violation: Copy;
    type Action: Display;

    fn start(setup: &Self::Setup) -> Self;

    /// All steps that can be taken.
    fn steps(&self, setup: &Self::Setup) -> Vec<Step<Self>>;

    fn is_done(&self, setup: &Self::Setup) -> bool;
}

/// A step; `fair`: it comes to pass if it can for long enough.
pub struct Step<M: Model> {
    pub action: M::Action,
    pub fair: bool,
    pub state: M,
    pub breaks: Option<M::Violation>,
}

/// What was found amiss, and the way there.
type Amiss<M> = (<M as Model>::Violation, Vec<String>);

/// How many states there are, and what was found amiss, with the way there; `never` is to be able to do no more what
/// ends well.
pub fn explore<M: Model>(setup: &M::Setup, never: M::Violation) -> (usize, Option<Amiss<M>>) {
    let mut known: HashMap<M, u32, BuildHasherDefault<Fingerprint>> = HashMap::default();
    let mut search = Search {
        setup,
        states: vec![M::start(setup)],
        parents: vec![0],
    };
    let mut fair: Vec<(u32, u32)> = Vec::new();
    known.insert(search.states[0], 0);
    let mut at = 0;
    while at < search.states.len() {
        let from = at as u32;
        for step in search.states[at].steps(setup) {
            if let Some(violation) = step.breaks {
                let mut way = search.way_to(from);
                way.push(step.action.to_string());
                return (search.states.len(), Some((violation, way)));
            }
            let id = *known.entry(step.state).or_insert_with(|| {
                search.states.push(step.state);
                search.parents.push(from);
                search.states.len() as u32 - 1
            });
            if step.fair {
                fair.push((id, from));
            }
        }
        at += 1;
    }
    let never = search
        .first_without_end(fair)
        .map(|id| (never, search.way_to(id)));
    (search.states.len(), never)
}

struct Search<'a, M: Model> {
    setup: &'a M::Setup,
    /// In the order in which they were found.
    states: Vec<M>,
    /// By which each was reached first.
    parents: Vec<u32>,
}

impl<M: Model> Search<'_, M> {
    /// The first state from which no fair steps lead to an end; `fair` are those steps, as (to, from).
    fn first_without_end(&self, mut fair: Vec<(u32, u32)>) -> Option<u32> {
        fair.sort_unstable();
        let ends = self.states.iter().map(|state| state.is_done(self.setup));
        let mut well: Vec<bool> = ends.collect();
        let mut open: Vec<u32> = (0..well.len() as u32)
            .filter(|id| well[*id as usize])
            .collect();
        while let Some(id) = open.pop() {
            let first = fair.partition_point(|(to, _)| *to < id);
            for (_, from) in fair[first..].iter().take_while(|(to, _)| *to == id) {
                if !std::mem::replace(&mut well[*from as usize], true) {
                    open.push(*from);
                }
            }
        }
        well.iter().position(|well| !well).map(|id| id as u32)
    }

    fn way_to(&self, mut id: u32) -> Vec<String> {
        let mut told = Vec::new();
        while id != 0 {
            let (before, state) = (self.parents[id as usize], self.states[id as usize]);
            let mut steps = self.states[before as usize].steps(self.setup).into_iter();
            let step = steps.find(|step| step.state == state);
            told.extend(step.map(|step| step.action.to_string()));
            id = before;
        }
        told.reverse();
        told
    }
}

/// A way has these steps, in this order.
pub fn goes_by(told: &[String], way: &[&str]) {
    let mut rest = told.iter();
    for step in way {
        assert!(
            rest.any(|told| told.contains(step)),
            "no {step:?} in its turn: {told:#?}"
        );
    }
}
