//! What the simulation finds holds: a fleet's cost at rest does not grow with workers times partitions, and there is no herd.

use std::time::Duration;

use simulate::{Fleet, Simulation, story};

#[test]
fn a_fleet_costs_a_node_no_more_than_its_partitions_do() {
    let rate = |workers, ordered| {
        let mut it = Simulation::new(Fleet {
            ordered,
            ..Fleet::new(workers, 100, 4)
        });
        it.start(Duration::from_secs(5));
        it.run(Duration::from_secs(180));
        assert!(it.all_are_read());
        it.run(Duration::from_secs(20)).mean()
    };
    let (few, many) = (rate(20, false), rate(200, false));
    assert!(many < 2.5 * few, "{few} of 20 workers, {many} of 200");
    let (fewer, more) = (rate(20, true), rate(200, true));
    assert!(more < 2.5 * fewer, "{fewer} of 20 workers, {more} of 200");
    assert!(
        more < many,
        "{more} if events have an order, {many} without"
    );
}

/// Tells the story of a fleet: nothing waits for a second at a steady load, and everything is read again soon after a node died,
/// and so long after all began anew.
fn tell(fleet: &Fleet, again_within: Duration) -> story::Story {
    let told = story::tell(fleet, 500.0);
    let by_name = |name| {
        let mut chapters = told.chapters.iter();
        chapters.find(|it| it.name == name).expect("a chapter")
    };
    let recovered = |name| by_name(name).recovered.expect("an end");
    assert!(
        by_name("steady load").delay < Duration::from_secs(1),
        "{told}"
    );
    assert!(recovered("a node dies") < Duration::from_secs(8), "{told}");
    assert!(recovered("all restart") < again_within, "{told}");
    told
}

#[test]
fn partitions_with_an_order_have_an_owner_through_a_failover_and_a_restart_of_all() {
    let fleet = Fleet {
        ordered: true,
        ..Fleet::new(60, 60, 4)
    };
    // The leases of those that were killed have to lapse.
    tell(&fleet, Duration::from_secs(40));
}

#[test]
fn every_partition_is_read_through_a_failover_and_a_restart_of_all() {
    let told = tell(&Fleet::new(100, 100, 5), Duration::from_secs(5));
    println!("{told}");
    assert!(told.readers.0 >= 16, "{told}");
    assert!(told.read_by_each.0 >= 8, "{told}");
}
