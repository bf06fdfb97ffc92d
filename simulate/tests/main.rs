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

#[test]
fn partitions_with_an_order_have_an_owner_through_a_failover_and_a_restart_of_all() {
    let told = story::tell(
        &Fleet {
            ordered: true,
            ..Fleet::new(60, 60, 4)
        },
        500.0,
    );
    let by_name = |name| {
        let mut chapters = told.chapters.iter();
        chapters.find(|it| it.name == name).expect("a chapter")
    };
    let second = Duration::from_secs(1);
    assert!(by_name("steady load").delay < second, "{told}");
    assert!(
        by_name("a node dies").recovered.expect("an end") < 8 * second,
        "{told}"
    );
    // The leases of those that were killed have to lapse.
    assert!(
        by_name("all restart").recovered.expect("an end") < 40 * second,
        "{told}"
    );
}

#[test]
fn every_partition_is_read_through_a_failover_and_a_restart_of_all() {
    let told = story::tell(&Fleet::new(100, 100, 5), 500.0);
    println!("{told}");
    let by_name = |name| {
        let mut chapters = told.chapters.iter();
        chapters.find(|it| it.name == name).expect("a chapter")
    };
    let second = Duration::from_secs(1);
    assert!(by_name("steady load").delay < second, "{told}");
    assert!(
        by_name("a node dies").recovered.expect("an end") < 8 * second,
        "{told}"
    );
    assert!(
        by_name("all restart").recovered.expect("an end") < 5 * second,
        "{told}"
    );
    assert!(told.readers.0 >= 16, "{told}");
    assert!(told.read_by_each.0 >= 8, "{told}");
}
