//! What each defence is for: with it a promise is kept, without it the promise is broken, by the trace told.

use crate::explore::explore;
use crate::properties::Violation;
use crate::rules::{Budget, Defences, Rules};
use crate::scenarios::holds;

#[test]
fn without_the_delivery_count_in_the_fence_a_repeated_park_takes_the_next_attempt() {
    breaks(
        Rules::new(2),
        may!(losses: 1, failures: 1),
        |defences| defences.fence_by_count = false,
        Violation::RunsTwice,
        &[
            "park of delivery 1: done",
            "wake: the entry, delivery 2",
            "park is lost",
            "park of delivery 1: done",
            "wake: the entry, delivery 2",
            "starts the handler",
        ],
    );
}

#[test]
fn without_waiting_for_the_fetcher_adoption_runs_what_was_delivered_too() {
    breaks(
        Rules::new(2),
        may!(),
        |defences| defences.adopt_by_fetcher = false,
        Violation::StartsTheSettled,
        &[
            "renew: the entry is pending and not held",
            "receives the answer to ack",
            "receives the answer to renew",
            "starts the handler",
        ],
    );
}

#[test]
fn without_generations_an_answer_ends_what_came_after_it() {
    breaks(
        Rules::new(2),
        may!(failures: 1),
        |defences| defences.answers_by_generation = false,
        Violation::TooManyStarts,
        &[
            "park of delivery 1: done",
            "starts the handler, attempt 2",
            "receives the answer to park",
            "adopt: the entry, delivery 2",
            "starts the handler, attempt 2",
        ],
    );
}

#[test]
fn without_asking_for_the_holder_wake_takes_what_runs() {
    breaks(
        Rules::new(2),
        may!(groups_destroyed: 1, failures: 1),
        |defences| defences.wake_asks_the_holder = false,
        Violation::TakenFromItsHolder,
        &[
            "park of delivery 1: done",
            "destroys the group",
            "deliver: the entry",
            "wake: the entry",
        ],
    );
}

#[test]
fn with_a_reclaim_in_two_commands_what_was_parked_in_between_is_taken() {
    breaks(
        Rules::new(2),
        may!(crashes: 1, failures: 1),
        |defences| defences.reclaim_in_one_script = false,
        Violation::LeavesItsBackoff,
        &[
            "XPENDING IDLE: the entry has lapsed",
            "park of delivery 1 reaches Redis",
            "XCLAIM",
        ],
    );
}

#[test]
fn without_mend_a_deleted_retry_key_parks_for_ever() {
    breaks(
        Rules::new(2),
        may!(retry_keys_deleted: 1, failures: 1),
        |defences| defences.mend = false,
        Violation::NeverSettled,
        &["park of delivery 1: done", "deletes the retry key"],
    );
}

#[test]
fn with_a_forget_in_two_commands_what_was_delivered_in_between_is_lost() {
    breaks(
        Rules::new(2),
        may!(forgets: 1, crashes: 1),
        |defences| defences.forget_in_one_step = false,
        Violation::NeverSettled,
        &[
            "forget sees nothing pending",
            "deliver reaches Redis",
            "XGROUP DELCONSUMER",
        ],
    );
}

#[test]
fn without_a_guard_of_every_burial_its_repeat_buries_twice() {
    breaks(
        Rules::new(1),
        may!(losses: 1, failures: 1),
        |defences| defences.every_burial_guarded = false,
        Violation::DeadTwice,
        &[
            "bury of delivery 1: done",
            "bury is lost",
            "bury of delivery 1: done",
        ],
    );
}

/// The record that it took along tells it as well.
#[test]
fn without_a_guard_of_its_ack_a_repeated_park_brings_back_what_succeeded() {
    breaks(
        Rules::new(2),
        may!(losses: 1, failures: 1),
        |defences| {
            defences.ack_guards_the_parked = false;
            defences.a_lost_record_tells = false;
        },
        Violation::ComesBack,
        &[
            "park of delivery 1: done",
            "park is lost",
            "park of delivery 1: done",
        ],
    );
}

#[test]
fn without_a_deadline_a_late_burial_of_a_dead_worker_buries_twice() {
    breaks(
        Rules::new(1),
        may!(crashes: 2, failures: 1),
        |defences| defences.own_has_a_deadline = false,
        Violation::DeadTwice,
        &[
            "dies",
            "the guard has lasted its time",
            "late, the dead worker's bury",
        ],
    );
}

#[test]
fn with_repeats_without_an_end_a_freeze_buries_twice() {
    breaks(
        Rules::new(1),
        may!(losses: 1, freezes: 1, failures: 1),
        |defences| defences.repeats_have_an_end = false,
        Violation::DeadTwice,
        &[
            "bury of delivery 1: done",
            "bury is lost",
            "the guard has lasted its time",
            "bury of delivery 1: done",
        ],
    );
}

#[test]
fn with_guards_that_go_too_soon_a_repeat_buries_twice() {
    breaks(
        Rules::new(1),
        may!(losses: 1, failures: 1),
        |defences| defences.guards_outlast_repeats = false,
        Violation::DeadTwice,
        &[
            "bury of delivery 1: done",
            "bury is lost",
            "the guard has lasted its time",
            "bury of delivery 1: done",
        ],
    );
}

#[test]
fn with_guards_of_nobodys_that_go_soon_two_deliveries_bury_it() {
    breaks(
        Rules::new(2),
        may!(trims: 1, losses: 1, failures: 1, releases: 1),
        |defences| defences.guards_of_nobodys_stay = false,
        Violation::DeadTwice,
        &[
            "the answer to A's park is lost",
            "bury of delivery 1: done",
            "the guard has lasted its time",
            "bury of delivery 2: done",
        ],
    );
}

#[test]
fn with_an_ack_that_leaves_the_due_time_a_late_one_sets_the_attempts_back() {
    breaks(
        Rules::new(2),
        may!(crashes: 1, failures: 2, releases: 1),
        |defences| defences.ack_clears_the_due_time = false,
        Violation::AttemptTwice,
        &[
            "release of delivery 3: done",
            "ack of delivery 2 reaches Redis",
            "wake: the entry, delivery 1, attempt 1",
        ],
    );
}

#[test]
fn with_a_forced_count_of_one_the_attempts_begin_again() {
    breaks(
        Rules::new(2),
        may!(parked_deleted: 1, failures: 2),
        |defences| defences.forced_count_goes_on = false,
        Violation::AttemptTwice,
        &[
            "deletes the consumer (parked)",
            "wake: the entry, delivery 1, attempt 1",
        ],
    );
}

#[test]
fn without_a_note_of_a_lone_death_adopt_runs_what_is_to_be_buried() {
    breaks(
        Rules::new(1),
        may!(crashes: 2, losses: 1),
        |defences| defences.lone_death_noted = false,
        Violation::TooManyStarts,
        &[
            "reclaim: the entry, delivery 3, attempt 3, alone, to be buried as crashed",
            "reclaim is lost",
            "adopt: the entry, delivery 3",
            "starts the handler, attempt 3",
        ],
    );
}

#[test]
fn without_a_note_of_a_death_in_company_adopt_runs_what_must_run_once() {
    breaks(
        Rules::new(1).buries_crashed(),
        may!(crashes: 1, losses: 1),
        |defences| defences.death_in_company_noted = false,
        Violation::TooManyStarts,
        &[
            "starts the handler, attempt 1",
            "dies",
            "to be buried as crashed",
            "reclaim is lost",
            "adopt: the entry, delivery 2",
            "starts the handler, attempt 2",
        ],
    );
}

#[test]
fn with_a_death_forgotten_by_a_release_what_must_run_once_runs_again() {
    breaks(
        Rules::new(1).buries_crashed(),
        may!(crashes: 1, releases: 1),
        |defences| defences.release_keeps_the_death = false,
        Violation::TooManyStarts,
        &["dies", "release", "wake", "starts the handler, attempt 2"],
    );
}

#[test]
fn without_an_end_to_crash_checks_one_that_was_given_back_runs_again_and_again() {
    breaks(
        Rules::new(1),
        may!(crashes: 2, releases: 1),
        |defences| defences.one_crash_check = false,
        Violation::TooManyStarts,
        &[
            "dies",
            "release",
            "wake",
            "dies",
            "reclaim",
            "starts the handler, attempt 3",
        ],
    );
}

#[test]
fn with_a_look_that_uses_up_the_turn_busy_workers_never_take_over() {
    breaks(
        Rules::new(3),
        may!(crashes: 1, backlogs: 1),
        |defences| defences.reclaimed_come_first = false,
        Violation::NeverSettled,
        &["a backlog comes", "deliver: the entry", "dies"],
    );
}

#[test]
fn without_a_deadline_a_reclaim_takes_what_aged_while_redis_stood_still() {
    breaks(
        Rules::new(2),
        may!(outages: 1),
        |defences| defences.reclaim_has_a_deadline = false,
        Violation::RunsTwice,
        &[
            "sends reclaim",
            "Redis stands still",
            "reclaim: the entry",
            "starts the handler",
        ],
    );
}

#[test]
fn with_a_group_made_anew_at_once_what_a_dead_worker_held_is_lost() {
    breaks(
        Rules::new(1),
        may!(groups_destroyed: 1, crashes: 1),
        |defences| defences.join_waits_a_lease = false,
        Violation::NeverSettled,
        &[
            "renew: mine",
            "dies",
            "destroys the group",
            "made anew at once",
        ],
    );
}

#[test]
fn with_a_position_of_the_held_alone_what_was_never_received_is_lost() {
    breaks(
        Rules::new(1),
        may!(groups_destroyed: 1, losses: 1),
        |defences| defences.position_tells_the_settled = false,
        Violation::NeverSettled,
        &[
            "deliver: the entry",
            "renew: nothing",
            "deliver is lost",
            "destroys the group",
        ],
    );
}

#[test]
fn without_a_commit_of_what_is_nobodys_its_effect_is_lost() {
    breaks(
        Rules::new(2).commits(),
        may!(trims: 1),
        |defences| defences.nobodys_commit = false,
        Violation::NeverSettled,
        &["the entry is trimmed", "renew: trimmed"],
    );
}

#[test]
fn with_burials_of_what_is_nobodys_a_late_success_and_a_release_make_a_dead_letter() {
    breaks(
        Rules::new(3),
        may!(freezes: 1, releases: 1),
        |defences| defences.nobodys_are_brought_back = false,
        Violation::DeadTooSoon,
        &[
            "freezes",
            "reclaim: the entry, delivery 2",
            "ack of delivery 1",
            "bury of delivery 2: done",
        ],
    );
}

#[test]
fn with_a_repeated_release_that_does_not_ask_the_record_an_attempt_is_had_twice() {
    breaks(
        Rules::new(2),
        may!(parked_deleted: 1, losses: 1, failures: 1, releases: 1),
        |defences| defences.a_repeat_asks_the_record = false,
        Violation::AttemptTwice,
        &[
            "release of delivery 2: done",
            "release is lost",
            "deletes the consumer (parked)",
            "release of delivery 2: done",
            "starts the handler, attempt 1",
        ],
    );
}

#[test]
fn without_a_look_for_its_record_what_a_dead_worker_has_settled_runs_too_often() {
    breaks(
        Rules::new(1),
        may!(crashes: 3, releases: 1),
        |defences| defences.a_lost_record_tells = false,
        Violation::TooManyStarts,
        &[
            "dies",
            "ack of delivery 2 reaches Redis",
            "release of delivery 3: done",
            "starts the handler",
        ],
    );
}

#[test]
fn with_a_lease_on_what_is_nobodys_a_freeze_loses_it() {
    breaks(
        Rules::new(2),
        may!(trims: 1, freezes: 1),
        |defences| defences.nobodys_has_no_lease = false,
        Violation::NeverSettled,
        &[
            "receives the answer to renew: trimmed",
            "freezes",
            "a lease passes",
        ],
    );
}

#[test]
fn with_leases_that_outlive_a_failover_an_effect_is_committed_twice() {
    breaks(
        Rules::new(2).commits(),
        may!(failovers: 1),
        |defences| defences.failover_ends_leases = false,
        Violation::EffectTwice,
        &[
            "lacks the last write",
            "commit of delivery 1: done",
            "commit of delivery 1: done",
        ],
    );
}

#[test]
fn with_a_commit_under_a_lapsed_lease_an_effect_is_committed_twice() {
    breaks(
        Rules::new(2).commits(),
        may!(failovers: 1),
        |defences| defences.lapsed_is_confirmed_first = false,
        Violation::EffectTwice,
        &[
            "lacks the last write",
            "commit of delivery 1: done",
            "commit of delivery 1: done",
        ],
    );
}

#[test]
fn without_memory_of_a_group_what_comes_after_redis_was_emptied_is_passed_over() {
    breaks(
        Rules::new(2),
        may!(flushes: 1),
        |defences| {
            defences.joined_once_is_remembered = false;
            defences.passed_over_comes_back = false;
        },
        Violation::NeverSettled,
        &["empties Redis, and the entry comes after that"],
    );
}

#[test]
fn with_a_second_worker_that_joins_first_the_memory_of_others_comes_too_late() {
    breaks(
        Rules::new(2),
        may!(flushes: 1),
        |defences| defences.passed_over_comes_back = false,
        Violation::NeverSettled,
        &[
            "empties Redis, and the entry comes after that",
            "another worker makes a new group, which begins at the end",
        ],
    );
}

#[test]
fn without_a_look_at_what_is_known_a_group_set_back_has_an_attempt_twice() {
    breaks(
        Rules::new(2),
        may!(set_backs: 1, failures: 1),
        |defences| defences.looks_at_the_known = false,
        Violation::AttemptTwice,
        &[
            "park of delivery 1: done",
            "sets the group back",
            "deliver: the entry, delivery 1",
            "wake: nothing",
            "starts the handler, attempt 1",
        ],
    );
}

#[test]
fn without_a_look_at_what_is_known_a_group_set_back_takes_what_is_parked_out_of_its_backoff() {
    breaks(
        Rules::new(2),
        may!(set_backs: 1, failures: 1),
        |defences| defences.looks_at_the_known = false,
        Violation::LeavesItsBackoff,
        &[
            "park of delivery 1: done",
            "sets the group back",
            "deliver: the entry, delivery 1",
            "starts the handler",
        ],
    );
}

#[test]
fn with_an_adopt_that_does_not_look_a_lost_read_of_a_group_set_back_has_an_attempt_twice() {
    breaks(
        Rules::new(2),
        may!(set_backs: 1, failures: 1, losses: 1),
        |defences| defences.adopt_looks_at_the_known = false,
        Violation::AttemptTwice,
        &[
            "park of delivery 1: done",
            "sets the group back",
            "deliver reaches Redis",
            "adopt: the entry, delivery 1",
            "starts the handler, attempt 1",
        ],
    );
}

#[test]
fn with_a_reclaim_that_does_not_look_a_death_after_a_group_was_set_back_has_an_attempt_twice() {
    breaks(
        Rules::new(3),
        may!(set_backs: 1, failures: 2, crashes: 1),
        |defences| defences.reclaim_looks_at_the_known = false,
        Violation::AttemptTwice,
        &[
            "park of delivery 2: done",
            "sets the group back",
            "the dead worker's deliver reaches Redis",
            "reclaim: the entry, delivery 2",
            "starts the handler, attempt 2",
        ],
    );
}

#[test]
fn with_a_park_that_does_not_ask_the_record_a_late_one_sets_the_attempts_back() {
    breaks(
        Rules::new(3),
        may!(set_backs: 1, failures: 2, losses: 1),
        |defences| defences.park_asks_the_record = false,
        Violation::AttemptTwice,
        &[
            "park of delivery 2: done",
            "sets the group back",
            "deliver: the entry, delivery 1",
            "park of delivery 1 reaches Redis",
            "starts the handler, attempt 2",
        ],
    );
}

#[test]
fn with_a_wake_of_what_is_to_be_delivered_a_group_set_back_takes_it_from_its_holder() {
    breaks(
        Rules::new(2),
        may!(set_backs: 1, failures: 1),
        |defences| defences.wake_leaves_what_is_to_come = false,
        Violation::TakenFromItsHolder,
        &[
            "park of delivery 1: done",
            "sets the group back",
            "wake: the entry, delivery 2",
            "deliver: the entry, delivery 1",
        ],
    );
}

/// With the defence this promise is kept; without it the promise is broken, by a way on which these steps
/// follow each other.
fn breaks(
    rules: Rules,
    budget: Budget,
    take_out: impl FnOnce(&mut Defences),
    violation: Violation,
    steps: &[&str],
) {
    holds(rules, budget);
    let explored = explore(&rules.without(take_out), budget, Some(violation));
    let Some((found, trace)) = explored.found else {
        panic!("\"{violation}\" is not found in {} states", explored.states);
    };
    println!("{found}:\n{trace}");
    assert_eq!(found, violation);
    let mut told = trace.0.iter();
    for step in steps {
        assert!(
            told.any(|line| line.contains(step)),
            "\"{step}\" does not follow in\n{trace}"
        );
    }
}
