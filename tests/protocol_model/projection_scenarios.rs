//! What holds of a projection whatever happens, and what each defence is for: with it a promise is kept, without it the
//! promise is broken, by the trace told.

use crate::projection::{Defences, LAST, Setup, State, Violation};
use crate::search;

const QUIET: Setup = Setup {
    killer: 0,
    max_attempts: 5,
    crashes: 0,
    others: 0,
    freezes: 0,
    losses: 0,
    defences: Defences::all(),
};

fn explore(setup: &Setup) -> (usize, Option<(Violation, Vec<String>)>) {
    search::explore::<State>(setup, Violation::NeverDone)
}

/// Wherever the event stands that kills.
fn holds(setup: Setup) {
    for killer in 0..=LAST {
        let setup = Setup { killer, ..setup };
        let (states, found) = explore(&setup);
        assert!(found.is_none(), "{setup:?}: {found:#?}");
        assert!(states > 10, "{states} states are no model");
    }
}

/// Takes a defence out: the promise is broken, by a way that has these steps in this order.
fn breaks(setup: Setup, take_out: impl FnOnce(&mut Defences), how: Violation, way: &[&str]) {
    holds(setup);
    let mut setup = setup;
    take_out(&mut setup.defences);
    let (_, found) = explore(&setup);
    let (violation, told) = found.expect("a promise to be broken");
    println!("{how:?}, by {} steps:\n  {}", told.len(), told.join("\n  "));
    assert_eq!(violation, how, "{told:#?}");
    search::goes_by(&told, way);
}

#[test]
fn an_event_that_kills_is_found_out_and_no_other_is_buried() {
    holds(QUIET);
    holds(Setup {
        max_attempts: 3,
        ..QUIET
    });
}

#[test]
fn crashes_beside_it_bury_nobody() {
    holds(Setup {
        crashes: 2,
        ..QUIET
    });
    holds(Setup {
        crashes: 1,
        losses: 1,
        ..QUIET
    });
}

#[test]
fn another_projection_that_kills_the_process_too_buries_nobody() {
    holds(Setup { others: 4, ..QUIET });
}

#[test]
fn freezes_and_lost_answers_leave_each_event_once() {
    holds(Setup {
        freezes: 1,
        losses: 1,
        ..QUIET
    });
    holds(Setup {
        freezes: 1,
        crashes: 1,
        ..QUIET
    });
}

#[test]
fn without_the_fence_a_batch_that_is_sent_once_more_is_applied_twice() {
    breaks(
        Setup { losses: 1, ..QUIET },
        |defences| defences.fence = false,
        Violation::AppliedTwice,
        &["applies its batch; the answer is lost"],
    );
}

#[test]
fn without_renewing_meanwhile_the_lease_runs_out_under_who_works() {
    breaks(
        QUIET,
        |defences| defences.renewed_meanwhile = false,
        Violation::LapsesWhileItWorks,
        &["begins a batch", "the lease runs out"],
    );
}

#[test]
fn without_counting_deaths_it_kills_for_ever() {
    breaks(
        Setup { killer: 2, ..QUIET },
        |defences| defences.deaths_counted = false,
        Violation::TooManyDeaths,
        &["is killed by 2", "is killed by 2", "is killed by 2"],
    );
}

#[test]
fn without_a_note_nobody_knows_which_one_kills() {
    breaks(
        Setup { killer: 2, ..QUIET },
        |defences| defences.noted_before = false,
        Violation::TooManyDeaths,
        &["is killed by 2", "is killed by 2", "is killed by 2"],
    );
}

#[test]
fn without_going_one_at_a_time_the_one_in_front_of_it_is_buried() {
    breaks(
        Setup { killer: 2, ..QUIET },
        |defences| defences.one_at_a_time = false,
        Violation::InnocentBuried,
        &[
            "notes 1",
            "is killed by 2",
            "knows that 1 kills",
            "buries it",
        ],
    );
}

#[test]
fn without_being_alone_in_the_process_it_is_blamed_for_another_projections_event() {
    breaks(
        Setup { others: 5, ..QUIET },
        |defences| defences.alone_in_process = false,
        Violation::InnocentBuried,
        &[
            "notes 1",
            "dies of an event of another projection",
            "knows that 1 kills",
        ],
    );
}

#[test]
fn without_care_for_the_whole_zone_each_event_in_front_of_it_costs_two_more_deaths() {
    breaks(
        Setup {
            killer: 2,
            max_attempts: 4,
            ..QUIET
        },
        |defences| defences.whole_zone = false,
        Violation::TooManyDeaths,
        &[
            "notes 1",
            "applies its batch",
            "begins a batch",
            "is killed by 2",
        ],
    );
}

#[test]
fn without_waiting_for_what_is_applied_a_slow_killer_is_never_found_out() {
    breaks(
        Setup { killer: 1, ..QUIET },
        |defences| defences.calm_when_applied = false,
        Violation::TooManyDeaths,
        &[
            "has lived for a lease: deaths are forgotten",
            "is killed by 1",
        ],
    );
}
