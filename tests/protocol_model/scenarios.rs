//! What may go wrong, a scenario a test: with every defence in place all promises hold.

use crate::explore::explore;
use crate::rules::{Budget, Rules};

#[test]
fn a_lost_answer() {
    let losses = may!(losses: 1, failures: 2, releases: 1);
    holds_either_way(Rules::new(2), losses);
    holds(Rules::new(3), losses);
    holds(Rules::new(1), may!(losses: 2, failures: 2));
}

#[test]
fn two_lost_answers() {
    holds(Rules::new(2), may!(losses: 2, failures: 2, releases: 1));
    holds(Rules::new(2).commits(), may!(losses: 2, failures: 1));
}

#[test]
fn a_freeze() {
    holds_either_way(Rules::new(2), may!(freezes: 1, failures: 2, releases: 1));
    holds(Rules::new(1), may!(freezes: 2, failures: 1));
}

#[test]
fn a_freeze_and_a_lost_answer() {
    holds(
        Rules::new(2),
        may!(freezes: 1, losses: 1, failures: 1, releases: 1),
    );
    holds(
        Rules::new(2).commits(),
        may!(freezes: 1, losses: 1, failures: 1),
    );
}

#[test]
fn a_crash_and_a_restart() {
    holds_either_way(Rules::new(2), may!(crashes: 1, outages: 1, failures: 1));
    holds(Rules::new(2), may!(crashes: 1, failures: 2, releases: 1));
    holds(Rules::new(1), may!(crashes: 1, losses: 1, failures: 1));
}

#[test]
fn a_crash_and_a_freeze() {
    holds_either_way(Rules::new(2), may!(crashes: 1, freezes: 1, failures: 1));
}

#[test]
fn a_crash_and_survivors_that_are_busy() {
    holds_either_way(Rules::new(3), may!(crashes: 1, backlogs: 1, failures: 1));
    holds(Rules::new(3), may!(crashes: 2, backlogs: 1));
    holds(Rules::new(3), may!(crashes: 1, backlogs: 1, losses: 1));
}

#[test]
fn crash_after_crash() {
    holds(Rules::new(2), may!(crashes: 2, failures: 1));
    holds(Rules::new(1), may!(crashes: 3));
    holds(Rules::new(1), may!(crashes: 3, releases: 1));
    holds(Rules::new(3), may!(crashes: 3));
}

#[test]
fn a_handler_that_must_not_run_more_often_than_it_has_attempts() {
    holds_either_way(
        Rules::new(1).buries_crashed(),
        may!(crashes: 2, losses: 1, releases: 1),
    );
    holds(
        Rules::new(1).buries_crashed(),
        may!(crashes: 1, freezes: 1, failures: 1),
    );
    holds(
        Rules::new(1).buries_crashed(),
        may!(freezes: 1, losses: 1, releases: 1),
    );
    holds(
        Rules::new(2).buries_crashed(),
        may!(crashes: 2, failures: 1),
    );
}

#[test]
fn an_outage() {
    holds(Rules::new(2), may!(outages: 2, failures: 1));
    holds(Rules::new(2), may!(outages: 1, losses: 1, failures: 1));
    holds(Rules::new(2), may!(outages: 1, freezes: 1, failures: 1));
}

#[test]
fn a_failover_and_a_failure() {
    holds_either_way(Rules::new(2), may!(failovers: 1, failures: 2, releases: 1));
    holds_either_way(Rules::new(2), may!(failovers: 1, losses: 1, failures: 1));
    holds(Rules::new(1), may!(failovers: 1, crashes: 1, failures: 1));
}

#[test]
fn two_replays() {
    holds(Rules::new(2), may!(replays: 2, failures: 4));
    holds(Rules::new(1), may!(replays: 2, failures: 3, losses: 1));
    holds(Rules::new(1), may!(replays: 2, failures: 2, freezes: 1));
    holds(
        Rules::new(1).commits(),
        may!(replays: 1, failures: 1, freezes: 1, losses: 1),
    );
}

#[test]
fn a_consumer_forgotten() {
    holds(Rules::new(2), may!(forgets: 1, freezes: 1, failures: 1));
    holds(Rules::new(2), may!(forgets: 2, crashes: 1, failures: 1));
}

#[test]
fn an_entry_trimmed() {
    holds(
        Rules::new(2),
        may!(trims: 1, losses: 1, failures: 1, releases: 1),
    );
    holds_either_way(Rules::new(2), may!(trims: 1, freezes: 1, failures: 1));
    holds_either_way(Rules::new(2), may!(trims: 1, crashes: 1, failures: 1));
}

#[test]
fn a_retry_key_or_the_parked_deleted_by_hand() {
    holds(
        Rules::new(2),
        may!(retry_keys_deleted: 1, losses: 1, failures: 2, releases: 1),
    );
    holds(
        Rules::new(2),
        may!(parked_deleted: 1, losses: 1, failures: 2, releases: 1),
    );
    holds(
        Rules::new(2),
        may!(parked_deleted: 1, freezes: 1, failures: 1, releases: 1),
    );
}

#[test]
fn a_group_destroyed_by_hand() {
    holds_either_way(Rules::new(2), may!(groups_destroyed: 1, failures: 2));
    holds(
        Rules::new(2),
        may!(groups_destroyed: 1, failures: 1, releases: 1),
    );
}

#[test]
fn a_group_destroyed_by_hand_and_a_worker_in_trouble() {
    holds(
        Rules::new(1),
        may!(groups_destroyed: 1, crashes: 1, failures: 1),
    );
    holds(
        Rules::new(1),
        may!(groups_destroyed: 1, freezes: 1, failures: 1),
    );
    holds(
        Rules::new(1),
        may!(groups_destroyed: 1, losses: 1, failures: 1),
    );
}

#[test]
fn redis_emptied_under_workers_that_begin_at_the_end() {
    holds_either_way(
        Rules::new(2),
        may!(flushes: 1, losses: 1, failures: 1, releases: 1),
    );
    holds(Rules::new(2), may!(flushes: 1, freezes: 1, failures: 1));
}

#[test]
fn a_group_set_back_while_the_entry_is_parked() {
    holds_either_way(Rules::new(2), may!(set_backs: 1, failures: 2, releases: 1));
    holds(Rules::new(3), may!(set_backs: 2, failures: 2));
    holds(Rules::new(3), may!(set_backs: 1, failures: 2, losses: 1));
    holds(Rules::new(2), may!(set_backs: 1, failures: 1, freezes: 1));
}

#[test]
fn a_group_set_back_and_the_worker_that_reads_it_again_dies() {
    holds(Rules::new(3), may!(set_backs: 1, failures: 2, crashes: 1));
    holds(
        Rules::new(2),
        may!(set_backs: 1, failures: 1, crashes: 1, losses: 1),
    );
}

/// All promises hold in every state that can be reached.
pub fn holds(rules: Rules, budget: Budget) {
    let explored = explore(&rules, budget, None);
    println!(
        "{} states, {} transitions in {:.1?}",
        explored.states, explored.transitions, explored.took
    );
    if let Some((violation, trace)) = explored.found {
        panic!("{violation}, in {rules:?} with {budget:?}:\n{trace}");
    }
}

/// Whether the handler's success is an ack or, as it emitted events, a commit.
fn holds_either_way(rules: Rules, budget: Budget) {
    holds(rules, budget);
    holds(rules.commits(), budget);
}
