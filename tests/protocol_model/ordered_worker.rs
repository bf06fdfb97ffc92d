//! What a worker does that may have a stream whose events have an order, and what Redis does with what it asks.

use crate::ordered::{
    Action, COPIES, Fetch, Item, PLACES, Place, Settles, Setup, State, Steps, Taking, Who, Worker,
};
use crate::ordered_line::Known;

/// All that a worker can do, and all that can become of what it has asked.
pub fn steps(state: &State, setup: &Setup, who: Who, steps: &mut Steps) {
    redis(state, setup, who, steps);
    faults(state, who, steps);
    if state.workers[who as usize].frozen {
        return;
    }
    owns(state, setup, who, steps);
    fetches(state, setup, who, steps);
    handles(state, setup, who, steps);
    looks(state, setup, who, steps);
}

/// What Redis does with what is on its way, whatever has become of who sent it.
fn redis(state: &State, setup: &Setup, who: Who, steps: &mut Steps) {
    let worker = &state.workers[who as usize];
    let brings = |place: usize, is_new: bool| {
        let mut next = *state;
        next.places[place] = Place::With { who, lapsed: false };
        next.worker(who).fetch = Fetch::Brought {
            place: place as u8,
            is_new,
            lapsed: false,
        };
        // What it sent of an earlier delivery will be refused, and what it holds of one is not its own any more.
        let item = &mut next.worker(who).items[place];
        match *item {
            Item::Sent(settles) if settles != Settles::Acknowledges => {
                *item = Item::Answered {
                    settles,
                    is_done: false,
                };
            }
            Item::Here { .. } => *item = Item::None,
            _ => {}
        }
        next
    };
    match worker.fetch {
        Fetch::Reads => {
            let first = |mut of: std::ops::Range<usize>| {
                of.find(|place| state.places[*place] == Place::Unread)
            };
            for place in [first(0..COPIES), first(COPIES..PLACES)]
                .into_iter()
                .flatten()
            {
                steps.fair(Action::DoesTo(who, "reads", place), brings(place, true));
            }
        }
        Fetch::Asks => {
            for place in 0..PLACES {
                if may_take(state, who, place) {
                    let told = "takes over, wakes or adopts";
                    steps.fair(Action::DoesTo(who, told, place), brings(place, false));
                }
            }
        }
        Fetch::Nothing | Fetch::Brought { .. } => {}
    }
    for place in 0..PLACES {
        let Item::Sent(settles) = worker.items[place] else {
            continue;
        };
        let is_its = matches!(state.places[place], Place::With { who: with, .. } if with == who);
        let mut next = *state;
        let is_pending = matches!(
            state.places[place],
            Place::With { .. } | Place::Parked { .. }
        );
        let is_done = match settles {
            Settles::Acknowledges => true,
            _ => is_its,
        };
        if is_done && is_pending {
            next.places[place] = match settles {
                Settles::Acknowledges => Place::Done,
                Settles::ParksForRetry => Place::Parked {
                    behind: false,
                    due: false,
                },
                Settles::ParksBehind => Place::Parked {
                    behind: true,
                    due: false,
                },
                Settles::GivesBack => Place::Parked {
                    behind: false,
                    due: true,
                },
                Settles::Buries => Place::Dead,
            };
            next.notes[place] |= settles == Settles::Buries && setup.holds;
        }
        next.worker(who).items[place] = Item::Answered { settles, is_done };
        let told = match (settles, is_done) {
            (_, false) => "is refused, for it is another's:",
            (Settles::Acknowledges, _) => "has acknowledged",
            (Settles::ParksForRetry, _) => "has parked for a retry",
            (Settles::ParksBehind, _) => "has parked behind another",
            (Settles::GivesBack, _) => "has given back",
            (Settles::Buries, _) => "has buried",
        };
        steps.fair(Action::DoesTo(who, told, place), next);
    }
}

/// Whether what is due, lapsed, or not held is there for a worker.
fn may_take(state: &State, who: Who, place: usize) -> bool {
    match state.places[place] {
        Place::Parked { due, .. } => due,
        Place::With { who: with, .. } if with == who => {
            matches!(
                state.workers[who as usize].items[place],
                Item::None | Item::RunsOn
            )
        }
        Place::With { lapsed, .. } => lapsed,
        _ => false,
    }
}

fn faults(state: &State, who: Who, steps: &mut Steps) {
    let worker = &state.workers[who as usize];
    if worker.frozen {
        let mut next = *state;
        next.worker(who).frozen = false;
        // If the other one stands still as well, one of them wakes up.
        let is_alone = state.workers[who.other() as usize].frozen;
        steps.add(Action::Does(who, "wakes up"), is_alone, next, None);
    } else if state.left.freezes > 0 && *worker != Worker::default() {
        let mut next = *state;
        next.left.freezes -= 1;
        next.worker(who).frozen = true;
        steps.chance(Action::Does(who, "stands still"), next);
    }
    if state.left.crashes > 0 && *worker != Worker::default() {
        let mut next = *state;
        next.left.crashes -= 1;
        *next.worker(who) = Worker::default();
        for place in &mut next.places {
            if let Place::With { who: with, .. } = place
                && *with == who
            {
                *with = Who::Gone;
            }
        }
        if next.owner == Some(who) {
            next.owner = Some(Who::Gone);
        }
        steps.chance(
            Action::Does(who, "dies, and another one comes in its place"),
            next,
        );
    }
    if state.left.losses > 0 {
        let mut lost = *state;
        lost.left.losses -= 1;
        if worker.taking != Taking::No {
            let mut next = lost;
            next.worker(who).taking = Taking::No;
            steps.chance(
                Action::Does(who, "is not told that it has the stream"),
                next,
            );
        }
        for place in (0..PLACES).filter(|place| worker.rouses[*place]) {
            let mut next = lost;
            next.worker(who).rouses[place] = false;
            steps.chance(
                Action::DoesTo(who, "loses the request that wakes", place),
                next,
            );
        }
    }
}

/// It has the stream, or not.
fn owns(state: &State, setup: &Setup, who: Who, steps: &mut Steps) {
    let worker = &state.workers[who as usize];
    let defences = &setup.defences;
    if let Taking::Told { epoch, is_old } = worker.taking {
        let mut next = *state;
        *next.worker(who) = Worker {
            epoch,
            waits_for_others: defences.copies_wait_for_others,
            is_sure: !is_old || !defences.lease_runs_from_asking,
            reads: true,
            taking: Taking::No,
            line: Default::default(),
            rouses: Default::default(),
            ..*worker
        };
        if defences.loads_before_it_starts {
            loads(&mut next, setup, who);
            next.worker(who).goes_on();
        }
        steps.fair(
            Action::Does(who, "looks at what is pending, and begins"),
            next,
        );
        return;
    }
    let is_preferred = state.preferred == who;
    if worker.epoch == 0 {
        let may_take = match state.owner {
            None => true,
            Some(owner) if owner == who => true,
            Some(_) => state.lapsed || !defences.takes_what_has_lapsed,
        };
        if is_preferred && may_take {
            let mut next = *state;
            if state.owner != Some(who) {
                next.epoch += 1;
            }
            (next.owner, next.lapsed) = (Some(who), false);
            next.worker(who).taking = Taking::Told {
                epoch: next.epoch,
                is_old: false,
            };
            steps.fair(Action::Does(who, "takes the stream"), next);
        } else if state.owner == Some(who) {
            let mut next = *state;
            (next.owner, next.lapsed) = (None, false);
            steps.fair(Action::Does(who, "releases what it was not told of"), next);
        }
        return;
    }
    if !state.is_owner(who) {
        let mut next = *state;
        let worker = next.worker(who);
        loses(worker);
        forgets(worker);
        steps.fair(
            Action::Does(who, "finds that the stream is another's"),
            next,
        );
        return;
    }
    if state.lapsed || !worker.is_sure || (is_preferred && !worker.reads) {
        let mut next = *state;
        next.lapsed = false;
        next.worker(who).is_sure = true;
        next.worker(who).reads = is_preferred;
        steps.fair(Action::Does(who, "renews its lease"), next);
    }
    if !is_preferred {
        let mut next = *state;
        next.worker(who).reads = false;
        next.worker(who).leaves();
        if next != *state {
            steps.fair(Action::Does(who, "reads no more of it"), next);
        }
        let only_runs = |item: &Item| matches!(item, Item::None | Item::Runs { .. });
        let is_still = worker.fetch == Fetch::Nothing && worker.items.iter().all(only_runs);
        if !worker.reads && (is_still || !defences.releases_when_still) {
            let mut next = *state;
            (next.owner, next.lapsed) = (None, false);
            forgets(next.worker(who));
            steps.fair(Action::Does(who, "releases the stream"), next);
        }
    }
}

/// The stream is another's: what is held of it is not this worker's any more.
fn loses(worker: &mut Worker) {
    for item in &mut worker.items {
        *item = match *item {
            Item::Here { .. } => Item::None,
            Item::Runs { .. } => Item::RunsOn,
            other => other,
        };
    }
}

fn forgets(worker: &mut Worker) {
    worker.leaves();
    (worker.epoch, worker.is_sure, worker.reads) = (0, false, false);
    (worker.line, worker.rouses) = Default::default();
}

/// It learns everything that is pending, with whomever.
fn loads(state: &mut State, setup: &Setup, who: Who) {
    for place in 0..PLACES {
        match state.places[place] {
            Place::With { .. } => state.worker(who).knows(place, Known::Elsewhere),
            Place::Parked { behind: false, .. } => state.worker(who).knows(place, Known::Parked),
            Place::Parked { behind: true, .. } => state.worker(who).knows(place, Known::Behind),
            _ => {}
        }
    }
    looks_at_dead(state, setup, who, setup.defences.unread_copies_are_loaded);
}

/// It learns which dead letters hold the subject, and which do no more.
/// Copies that nobody has read are listed if a letter is gone, and if `lists_copies`.
fn looks_at_dead(state: &mut State, setup: &Setup, who: Who, lists_copies: bool) {
    let before = state.workers[who as usize].line;
    let noted = state.notes;
    let is_there = |state: &State, place: usize| noted[place] && state.places[place] == Place::Dead;
    // Whoever had the stream may have taken the note away.
    let any_gone = lists_copies
        || (0..PLACES)
            .any(|place| (noted[place] || before[place] == Known::Dead) && !is_there(state, place));
    for copy in 0..COPIES {
        let is_one = matches!(
            state.places[copy],
            Place::Unread | Place::With { .. } | Place::Parked { .. }
        );
        if any_gone && is_one && setup.defences.copies_before_a_hold_ends {
            state.worker(who).knows(copy, Known::Elsewhere);
        }
    }
    for place in 0..PLACES {
        if is_there(state, place) {
            state.worker(who).is_held(place);
        } else {
            state.notes[place] = false;
        }
    }
    for (place, known) in before.iter().enumerate() {
        if *known == Known::Dead && !is_there(state, place) {
            state.worker(who).done(place);
        }
    }
}

fn fetches(state: &State, setup: &Setup, who: Who, steps: &mut Steps) {
    let worker = &state.workers[who as usize];
    let may_fetch = worker.epoch > 0 && worker.reads;
    match worker.fetch {
        Fetch::Nothing if may_fetch => {
            let mut next = *state;
            next.worker(who).fetch_epoch = worker.epoch;
            if state.places.contains(&Place::Unread) {
                next.worker(who).fetch = Fetch::Reads;
                steps.fair(Action::Does(who, "begins to read"), next);
            }
            if (0..PLACES).any(|place| may_take(state, who, place)) {
                next.worker(who).fetch = Fetch::Asks;
                steps.fair(Action::Does(who, "asks for what is due or was left"), next);
            }
        }
        Fetch::Reads if !state.places.contains(&Place::Unread) => {
            let mut next = *state;
            (next.worker(who).fetch, next.worker(who).fetch_epoch) = (Fetch::Nothing, 0);
            steps.fair(Action::Does(who, "has read nothing"), next);
        }
        Fetch::Asks if !(0..PLACES).any(|place| may_take(state, who, place)) => {
            let mut next = *state;
            (next.worker(who).fetch, next.worker(who).fetch_epoch) = (Fetch::Nothing, 0);
            steps.fair(Action::Does(who, "has got nothing"), next);
        }
        Fetch::Brought { .. } => brought(state, setup, who, steps),
        _ => {}
    }
    // What is pending with a worker that does not hold it, and is not about to, grows old.
    for at in 0..PLACES {
        let is_coming =
            matches!(worker.fetch, Fetch::Brought { place, .. } if place as usize == at);
        let is_held = !matches!(worker.items[at], Item::None | Item::RunsOn);
        let is_unheld = !is_held && !is_coming && !may_fetch;
        if state.places[at] == (Place::With { who, lapsed: false }) && is_unheld {
            let mut next = *state;
            next.places[at] = Place::With { who, lapsed: true };
            steps.fair(
                Action::DoesTo(who, "does not renew what it does not hold:", at),
                next,
            );
        }
    }
}

fn brought(state: &State, setup: &Setup, who: Who, steps: &mut Steps) {
    let Fetch::Brought {
        place,
        is_new,
        lapsed,
    } = state.workers[who as usize].fetch
    else {
        return;
    };
    let place = place as usize;
    let defences = &setup.defences;
    let mut next = *state;
    (next.worker(who).fetch, next.worker(who).fetch_epoch) = (Fetch::Nothing, 0);
    let worker = &state.workers[who as usize];
    let is_same = worker.epoch == worker.fetch_epoch || !defences.hands_on_under_one_lease;
    let had = worker.epoch > 0 && is_same;
    if had && is_new && defences.checks_behind_reads {
        if !state.is_owner(who) {
            let worker = next.worker(who);
            (worker.is_sure, worker.reads) = (false, false);
            loses(worker);
            leaves_it(&mut next, setup, who, place);
            let told = "checks, and does not hand on:";
            return steps.fair(Action::DoesTo(who, told, place), next);
        }
        let others = State::of_its_stream(place)
            .any(|at| matches!(state.places[at], Place::With { who: with, .. } if with != who));
        if others && defences.looks_at_what_others_have {
            loads(&mut next, setup, who);
        }
    }
    if !had && worker.epoch > 0 && is_new {
        // It is adopted, at its place.
        loads(&mut next, setup, who);
        return steps.fair(
            Action::DoesTo(who, "has asked under an earlier lease for", place),
            next,
        );
    }
    if !had {
        leaves_it(&mut next, setup, who, place);
        return steps.fair(
            Action::DoesTo(who, "has the stream no more, and drops", place),
            next,
        );
    }
    // Nothing is held for longer than the stream is its worker's.
    let is_bound = defences.lease_bound && !state.workers[who as usize].is_sure;
    next.worker(who).arrives(place, lapsed || is_bound);
    steps.fair(Action::DoesTo(who, "hands on", place), next);
}

fn leaves_it(state: &mut State, setup: &Setup, who: Who, place: usize) {
    if !setup.defences.late_reads_stay {
        state.worker(who).items[place] = Item::Sent(Settles::GivesBack);
    }
}

fn handles(state: &State, setup: &Setup, who: Who, steps: &mut Steps) {
    let worker = &state.workers[who as usize];
    for place in 0..PLACES {
        let becomes = |item: Item| {
            let mut next = *state;
            next.worker(who).items[place] = item;
            next
        };
        match worker.items[place] {
            Item::None | Item::Sent(_) => {}
            Item::Here { goes, lapsed } => {
                if lapsed {
                    renews(state, setup, who, place, steps);
                }
                let is_bound = setup.defences.lease_bound && !worker.is_sure;
                if goes && !lapsed && !is_bound {
                    let breaks = state.broken_by_start(setup, who, place);
                    let next = becomes(Item::Runs { lapsed });
                    steps.add(Action::DoesTo(who, "starts", place), true, next, breaks);
                }
            }
            Item::Runs { lapsed } => {
                if lapsed {
                    renews(state, setup, who, place, steps);
                }
                let ends = |settles| becomes(Item::Sent(settles));
                let next = ends(Settles::Acknowledges);
                steps.fair(Action::DoesTo(who, "succeeds with", place), next);
                if state.left.failures > 0 {
                    let mut next = ends(Settles::ParksForRetry);
                    next.left.failures -= 1;
                    steps.chance(Action::DoesTo(who, "fails with", place), next);
                }
                if state.left.deaths > 0 {
                    let mut next = ends(Settles::Buries);
                    next.left.deaths -= 1;
                    steps.chance(Action::DoesTo(who, "fails for good with", place), next);
                }
            }
            Item::RunsOn => {
                let next = becomes(Item::Sent(Settles::Acknowledges));
                steps.fair(Action::DoesTo(who, "succeeds late with", place), next);
                let next = becomes(Item::None);
                steps.fair(Action::DoesTo(who, "ends in vain with", place), next);
            }
            Item::Answered { settles, is_done } => {
                let mut next = becomes(Item::None);
                let worker = next.worker(who);
                match settles {
                    _ if worker.epoch == 0 => {}
                    Settles::Acknowledges => worker.done(place),
                    Settles::Buries if is_done && setup.holds => worker.dies(place),
                    Settles::Buries if is_done => worker.done(place),
                    _ => worker.back(place),
                }
                steps.fair(Action::DoesTo(who, "hears what became of", place), next);
            }
        }
    }
}

/// Its lease of an entry has run out: it asks whether that is still its own.
fn renews(state: &State, setup: &Setup, who: Who, place: usize, steps: &mut Steps) {
    let mut next = *state;
    let worker = next.worker(who);
    // It is renewed for as long as the stream is its worker's, and what was released runs on.
    let is_bound = setup.defences.lease_bound && worker.epoch > 0 && !worker.is_sure;
    if matches!(state.places[place], Place::With { who: with, .. } if with == who) {
        if is_bound {
            return;
        }
        if let Item::Here { lapsed, .. } | Item::Runs { lapsed } = &mut worker.items[place] {
            *lapsed = false;
        }
        next.places[place] = Place::With { who, lapsed: false };
        steps.fair(Action::DoesTo(who, "renews", place), next);
    } else if matches!(worker.items[place], Item::Here { .. }) {
        worker.items[place] = Item::None;
        if worker.epoch > 0 {
            worker.back(place);
        }
        steps.fair(
            Action::DoesTo(who, "is told that it is another's:", place),
            next,
        );
    }
}

/// It wakes what waits its turn, and looks what has become of what others wait for.
fn looks(state: &State, setup: &Setup, who: Who, steps: &mut Steps) {
    let worker = &state.workers[who as usize];
    for place in (0..PLACES).filter(|place| worker.rouses[*place]) {
        let mut next = *state;
        next.worker(who).rouses[place] = false;
        looks_at(&mut next, setup, who, place);
        steps.fair(Action::DoesTo(who, "wakes", place), next);
    }
    if worker.epoch == 0 || !setup.defences.looks_again {
        return;
    }
    let mut next = *state;
    if worker.line.contains(&Known::Dead) {
        looks_at_dead(&mut next, setup, who, false);
    }
    let worker = next.workers[who as usize];
    if let Some(first) = worker.first() {
        if !matches!(worker.line[first], Known::Runs | Known::Waits | Known::Dead) {
            looks_at(&mut next, setup, who, first);
        }
        for place in worker.elsewhere(first) {
            looks_at(&mut next, setup, who, place);
        }
    }
    if next != *state {
        steps.fair(
            Action::Does(who, "looks what has become of what is first"),
            next,
        );
    }
}

fn looks_at(state: &mut State, setup: &Setup, who: Who, place: usize) {
    match state.places[place] {
        Place::Parked { behind: true, .. } => {
            state.places[place] = Place::Parked {
                behind: true,
                due: true,
            };
        }
        Place::With { .. } | Place::Parked { .. } => {}
        Place::Unread if setup.defences.unread_is_not_done => {}
        _ => {
            if setup.defences.gone_may_be_dead {
                looks_at_dead(state, setup, who, true);
            }
            // What it has settled itself it will hear.
            if !matches!(
                state.workers[who as usize].line[place],
                Known::Dead | Known::Runs | Known::Leaving
            ) {
                state.worker(who).done(place);
            }
        }
    }
}
