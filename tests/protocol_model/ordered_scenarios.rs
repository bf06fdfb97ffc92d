//! What holds of the order of a subject's events whatever happens, and what each defence is for: with it the promise is
//! kept, without it the promise is broken, by the trace told.

use crate::ordered::{Budget, Defences, Setup, State, Violation};
use crate::search::{explore, goes_by};

fn setup(events: usize, holds: bool, left: Budget) -> Setup {
    Setup {
        events,
        holds,
        left,
        defences: Defences::all(),
    }
}

macro_rules! left {
    ($($what:ident: $often:expr),*) => { Budget { $($what: $often,)* ..Budget::default() } };
}

fn holds(setup: Setup) {
    let (states, found) = explore::<State>(&setup, Violation::NeverDone);
    println!("{states} states: {:?}", setup.left);
    if let Some((violation, way)) = found {
        panic!("{violation:?}, in {setup:?}:\n  {}", way.join("\n  "));
    }
    assert!(states > 10, "{states} states are no model");
}

/// Takes a defence out: the promise is broken, by a way that has these steps in this order.
fn breaks(setup: Setup, take_out: impl FnOnce(&mut Defences), how: Violation, way: &[&str]) {
    holds(setup);
    let mut setup = setup;
    take_out(&mut setup.defences);
    let (states, found) = explore::<State>(&setup, Violation::NeverDone);
    let Some((violation, told)) = found else {
        panic!("the promise is kept without it, in {states} states");
    };
    println!("{how:?}, by {} steps:\n  {}", told.len(), told.join("\n  "));
    assert_eq!(violation, how, "{told:#?}");
    goes_by(&told, way);
}

#[test]
fn order_events_that_fail_and_workers_that_die() {
    holds(setup(3, true, left!(failures: 2)));
    holds(setup(3, true, left!(failures: 1, crashes: 1)));
    holds(setup(
        2,
        true,
        left!(failures: 1, crashes: 1, handovers: 1, losses: 1),
    ));
}

#[test]
fn order_streams_that_are_handed_over() {
    holds(setup(3, true, left!(failures: 1, handovers: 1)));
    holds(setup(2, true, left!(failures: 1, handovers: 2, losses: 1)));
}

#[test]
fn order_owners_that_stand_still() {
    holds(setup(2, true, left!(freezes: 1, failures: 1)));
    holds(setup(2, true, left!(freezes: 1, crashes: 1)));
    holds(setup(2, true, left!(freezes: 1, losses: 1)));
}

#[test]
fn order_owners_that_stand_still_and_have_the_stream_again() {
    holds(setup(2, true, left!(freezes: 1, handovers: 1)));
}

#[test]
fn order_dead_letters_hold_their_subject() {
    holds(setup(3, true, left!(deaths: 2, replays: 2, failures: 1)));
    holds(setup(
        2,
        true,
        left!(deaths: 2, replays: 1, purges: 1, crashes: 1),
    ));
    holds(setup(2, true, left!(deaths: 2, replays: 2, handovers: 1)));
}

#[test]
fn order_dead_letters_and_owners_that_stand_still() {
    holds(setup(2, true, left!(deaths: 1, replays: 1, freezes: 1)));
}

#[test]
fn order_dead_letters_release_their_subject() {
    holds(setup(3, false, left!(deaths: 2, replays: 1, handovers: 1)));
    holds(setup(2, false, left!(deaths: 1, replays: 1, freezes: 1)));
}

#[test]
fn without_a_check_behind_a_read_what_a_frozen_owner_reads_late_is_passed() {
    breaks(
        setup(2, true, left!(freezes: 1)),
        |defences| defences.checks_behind_reads = false,
        Violation::OutOfOrder,
        &[
            "A stands still",
            "B takes the stream",
            "A reads event 1",
            "B starts event 2",
        ],
    );
}

#[test]
fn without_a_look_at_what_others_have_it_is_passed_as_well() {
    breaks(
        setup(2, true, left!(freezes: 1)),
        |defences| defences.looks_at_what_others_have = false,
        Violation::OutOfOrder,
        &[
            "B looks at what is pending",
            "A reads event 1",
            "B reads event 2",
            "B starts event 2",
        ],
    );
}

#[test]
fn what_was_asked_for_under_an_earlier_lease_may_be_done_with() {
    breaks(
        setup(2, true, left!(freezes: 1, handovers: 1)),
        |defences| defences.hands_on_under_one_lease = false,
        Violation::TwoAtOnce,
        &[
            "A asks for what is due",
            "A has acknowledged event 1",
            "B starts event 2",
            "A takes the stream",
            "A hands on event 1",
        ],
    );
}

#[test]
fn without_loading_before_it_starts_it_begins_with_what_comes_first() {
    breaks(
        setup(2, true, left!(crashes: 1)),
        |defences| defences.loads_before_it_starts = false,
        Violation::OutOfOrder,
        &[
            "A reads event 1",
            "A reads event 2",
            "A dies",
            "A takes over, wakes or adopts event 2",
        ],
    );
}

#[test]
fn without_the_bound_of_the_lease_an_owner_that_was_frozen_goes_on() {
    breaks(
        setup(2, true, left!(freezes: 1)),
        |defences| defences.lease_bound = false,
        Violation::TwoAtOnce,
        &[
            "A wakes up",
            "B takes the stream",
            "A starts event 2",
            "B starts event 1",
        ],
    );
}

#[test]
fn with_a_lease_that_runs_from_its_answer_who_was_frozen_begins() {
    breaks(
        setup(2, true, left!(freezes: 1, crashes: 1)),
        |defences| defences.lease_runs_from_asking = false,
        Violation::OutOfOrder,
        &[
            "A stands still",
            "A looks at what is pending",
            "B takes the stream",
            "A starts event 2",
        ],
    );
}

#[test]
fn what_is_taken_before_its_lease_has_lapsed_has_two_owners() {
    breaks(
        setup(2, true, left!(deaths: 1, replays: 1, handovers: 1)),
        |defences| defences.takes_what_has_lapsed = false,
        Violation::OutOfOrder,
        &[
            "A looks at what is pending",
            "B takes the stream",
            "A starts event 2",
        ],
    );
}

#[test]
fn what_came_late_and_is_given_back_is_passed() {
    breaks(
        setup(2, true, left!(freezes: 1)),
        |defences| defences.late_reads_stay = false,
        Violation::OutOfOrder,
        &[
            "A reads event 1",
            "A has given back event 1",
            "B reads event 2",
            "B starts event 2",
        ],
    );
}

#[test]
fn without_looking_for_copies_before_a_hold_ends_what_waited_passes_them() {
    breaks(
        setup(2, true, left!(deaths: 1, replays: 1)),
        |defences| defences.copies_before_a_hold_ends = false,
        Violation::OutOfOrder,
        &[
            "an operator replays",
            "A looks what has become",
            "A starts event 2",
        ],
    );
}

#[test]
fn a_copy_that_nobody_has_read_is_passed_by_the_next_owner() {
    breaks(
        setup(2, true, left!(deaths: 1, replays: 1, handovers: 1)),
        |defences| defences.unread_copies_are_loaded = false,
        Violation::OutOfOrder,
        &[
            "an operator replays",
            "A releases the stream",
            "B starts event 2",
        ],
    );
}

#[test]
fn a_copy_that_nobody_has_read_is_not_done_with() {
    breaks(
        setup(2, true, left!(deaths: 1, replays: 1)),
        |defences| defences.unread_is_not_done = false,
        Violation::OutOfOrder,
        &[
            "an operator replays",
            "A looks what has become",
            "A starts event 2",
        ],
    );
}

#[test]
fn a_copy_that_waits_for_nobody_runs_beside_what_was_left_running() {
    breaks(
        setup(2, false, left!(deaths: 1, replays: 1, handovers: 1)),
        |defences| defences.copies_wait_for_others = false,
        Violation::TwoAtOnce,
        &[
            "A starts event 2",
            "A releases the stream",
            "B starts copy 1",
        ],
    );
}

#[test]
fn what_is_gone_may_be_a_dead_letter_by_the_hands_of_the_owner_before() {
    breaks(
        setup(2, true, left!(deaths: 1, replays: 1, handovers: 1)),
        |defences| defences.gone_may_be_dead = false,
        Violation::OutOfOrder,
        &[
            "A releases the stream",
            "A has buried event 1",
            "B starts event 2",
        ],
    );
}

#[test]
fn without_looking_again_nobody_hears_what_the_owner_before_has_done() {
    breaks(
        setup(2, true, left!(handovers: 1)),
        |defences| defences.looks_again = false,
        Violation::NeverDone,
        &["A starts event 1", "A releases the stream"],
    );
}

#[test]
fn a_stream_that_is_released_while_something_waits_leaves_it_behind() {
    breaks(
        setup(2, true, left!(handovers: 1)),
        |defences| defences.releases_when_still = false,
        Violation::NeverDone,
        &["A hands on event 1", "A releases the stream"],
    );
}
