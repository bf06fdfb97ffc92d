//! The search of the projection's model: every state that can be reached, breadth first, so that the first trace found is
//! a shortest one; and from each of them some way of fair steps that ends well.

use std::collections::HashMap;

use crate::projection::{Setup, State, Violation};

/// How many states there are, and what was found amiss, with the way there.
pub fn explore(setup: &Setup) -> (usize, Option<(Violation, Vec<String>)>) {
    let mut known = HashMap::new();
    let mut states = vec![State::start(setup)];
    let mut ways: Vec<(usize, String)> = vec![(0, String::new())];
    let mut before: Vec<Vec<usize>> = vec![Vec::new()];
    known.insert(states[0], 0);
    let mut at = 0;
    while at < states.len() {
        for step in states[at].steps(setup) {
            if let Some(violation) = step.breaks {
                let mut way = way_to(&ways, at);
                way.push(step.told);
                return (states.len(), Some((violation, way)));
            }
            let id = *known.entry(step.state).or_insert_with(|| {
                states.push(step.state);
                ways.push((at, step.told.clone()));
                before.push(Vec::new());
                states.len() - 1
            });
            if step.fair {
                before[id].push(at);
            }
        }
        at += 1;
    }
    let mut well: Vec<bool> = states.iter().map(|state| state.is_done(setup)).collect();
    let mut open: Vec<usize> = (0..well.len()).filter(|id| well[*id]).collect();
    while let Some(id) = open.pop() {
        for from in &before[id] {
            if !std::mem::replace(&mut well[*from], true) {
                open.push(*from);
            }
        }
    }
    let never = well.iter().position(|well| !well);
    let never = never.map(|id| (Violation::NeverDone, way_to(&ways, id)));
    (states.len(), never)
}

fn way_to(ways: &[(usize, String)], mut id: usize) -> Vec<String> {
    let mut told = Vec::new();
    while id != 0 {
        told.push(ways[id].1.clone());
        id = ways[id].0;
    }
    told.reverse();
    told
}
