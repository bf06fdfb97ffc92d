use super::*;
use crate::config::alerts::ALERTS;
use crate::metrics::histogram::Histogram;
use crate::metrics::snapshot::{Snapshot, Value, of};

/// Evidence with nothing in it.
fn nothing(settings: &AlertSettings, gauges: Snapshot) -> Evidence<'_> {
    Evidence {
        settings,
        gauges,
        counted: Default::default(),
        lags: Default::default(),
        new_failures: Vec::new(),
        lease: Some(Duration::from_secs(30)),
    }
}

fn gauge(id: Id, labels: &[&str], value: f64) -> Snapshot {
    let mut gauges = Snapshot::default();
    gauges.gauge(id, labels, value);
    gauges
}

/// What a rule says of this.
fn look(name: &str, evidence: &Evidence) -> Vec<String> {
    let rule = RULES.iter().find(|rule| rule.name == name).expect(name);
    let found = (rule.look)(evidence).into_iter();
    found
        .map(|finding| {
            let labels: Vec<String> = finding.labels.into_iter().map(|(_, value)| value).collect();
            format!("{}: {}", labels.join(" "), finding.text)
        })
        .collect()
}

fn settled(counts: &[(&str, u64)]) -> Snapshot {
    let mut counted = Snapshot::default();
    for (outcome, count) in counts {
        let labels = of(&["orders", "shop", "order.created", outcome]);
        counted.add(Id::Settled, labels, Value::Counter(*count));
    }
    counted
}

#[test]
fn rules_are_named_as_settings_name_them() {
    let names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names, ALERTS);
}

#[test]
fn of_a_group_that_stands_well_nothing_is_said() {
    let settings = AlertSettings::default().end_to_end(Duration::from_secs(60));
    let mut gauges = Snapshot::default();
    gauges.gauge(Id::GroupOldestUnread, &["orders", "shop"], 299.0);
    gauges.gauge(Id::GroupRunnable, &["orders", "shop"], 5.0);
    gauges.gauge(Id::GroupWorkers, &["orders", "shop", "working"], 1.0);
    gauges.gauge(Id::GroupPaused, &["orders", "shop", "stream"], 3599.0);
    gauges.gauge(Id::GroupScheduledOverdue, &["orders", "shop"], 0.0);
    gauges.gauge(Id::RetentionBlocked, &["orders", "shop"], 3599.0);
    gauges.gauge(Id::ProjectionLag, &["totals"], 299.0);
    gauges.gauge(Id::RedisEvicts, &["noeviction"], 0.0);
    gauges.gauge(Id::RedisAppendOnly, &[], 1.0);
    gauges.gauge(Id::BreakerState, &["shop", "payments", "closed"], 1.0);
    gauges.gauge(Id::BreakerState, &["shop", "payments", "open"], 0.0);
    let mut evidence = nothing(&settings, gauges);
    for counted in &mut evidence.counted {
        *counted = settled(&[("acked", 1000), ("retried", 900), ("dead", 9)]);
    }
    for rule in RULES {
        assert_eq!((rule.look)(&evidence), [], "{}", rule.name);
    }
}

#[test]
fn gauges_are_held_against_their_bounds() {
    let settings = AlertSettings::default();
    let orders = &["orders", "shop"][..];
    for (name, gauges, said) in [
        (
            "waiting",
            gauge(Id::GroupOldestUnread, orders, 301.0),
            "orders: the oldest entry has waited for 5m 1s",
        ),
        (
            "no_workers",
            gauge(Id::GroupRunnable, orders, 5.0),
            "orders: 5 entries could be worked on, and no worker is there",
        ),
        (
            "paused",
            gauge(
                Id::GroupPaused,
                &["orders", "shop", "order.created"],
                3660.0,
            ),
            "orders order.created: paused for 1h 1m",
        ),
        (
            "scheduled",
            gauge(Id::GroupScheduledOverdue, orders, 3.0),
            "orders: 3 scheduled events are overdue",
        ),
        (
            "retention",
            gauge(Id::RetentionBlocked, orders, 7200.0),
            "orders: the group has kept it from being trimmed for 2h",
        ),
        (
            "projection",
            gauge(Id::ProjectionLag, &["totals"], 600.0),
            "totals: the projection is 10m behind",
        ),
        (
            "breaker",
            gauge(Id::BreakerState, &["shop", "payments", "open"], 1.0),
            "payments: the circuit breaker is open",
        ),
        (
            "eviction",
            gauge(Id::RedisEvicts, &["allkeys-lru"], 1.0),
            "allkeys-lru: Redis deletes keys when its memory is full; set maxmemory-policy to noeviction",
        ),
        (
            "persistence",
            gauge(Id::RedisAppendOnly, &[], 0.0),
            ": Redis writes no append-only file; set appendonly to yes",
        ),
    ] {
        assert_eq!(look(name, &nothing(&settings, gauges)), [said]);
    }
}

#[test]
fn a_group_whose_workers_have_all_lapsed_has_none() {
    let settings = AlertSettings::default();
    let mut gauges = gauge(Id::GroupRunnable, &["orders", "shop"], 5.0);
    gauges.gauge(Id::GroupWorkers, &["orders", "shop", "lapsed"], 2.0);
    gauges.gauge(Id::GroupWorkers, &["orders", "shop", "working"], 0.0);
    assert_eq!(look("no_workers", &nothing(&settings, gauges)).len(), 1);
}

#[test]
fn a_share_counts_once_enough_was_settled() {
    let settings = AlertSettings::default();
    let mut evidence = nothing(&settings, Snapshot::default());
    evidence.counted[1] = settled(&[("acked", 10), ("retried", 11), ("dead", 1)]);
    let retries = ["orders: 50.0 % of what is settled is a retry"];
    assert_eq!(look("retries", &evidence), [] as [&str; 0]);
    evidence.counted[1] = settled(&[("acked", 9), ("retried", 12), ("dead", 1)]);
    assert_ne!(look("retries", &evidence), retries);
    assert_eq!(look("retries", &evidence).len(), 1);
    assert_eq!(
        look("dead", &evidence),
        ["orders: 4.5 % of what is settled ends in the dead letters"]
    );
    evidence.counted[1] = settled(&[("retried", 8), ("dead", 4)]);
    assert_eq!(look("retries", &evidence), [] as [&str; 0]);
    assert_eq!(look("dead", &evidence), [] as [&str; 0]);
}

#[test]
fn what_ends_late_burns_a_budget_for_long_and_still_now() {
    let settings = AlertSettings::default().end_to_end(Duration::from_secs(50));
    let ends = |in_time: u64, late: u64| {
        let mut counted = settled(&[("acked", in_time + late)]);
        let mut histogram = Histogram::default();
        (0..in_time).for_each(|_| histogram.record(60.0));
        (0..late).for_each(|_| histogram.record(70.0));
        let labels = of(&["orders", "shop", "order.created"]);
        counted.add(Id::EndToEnd, labels, Value::Histogram(histogram));
        counted
    };
    let mut evidence = nothing(&settings, Snapshot::default());
    let [sudden, lately, hour, six_hours] = [0, 1, 2, 3];
    evidence.counted[hour] = ends(80, 20);
    assert_eq!(
        look("late_fast", &evidence),
        [] as [&str; 0],
        "not any more"
    );
    evidence.counted[sudden] = ends(80, 20);
    assert_eq!(
        look("late_fast", &evidence),
        ["orders: 20.0 % of what ended within 1h took longer than 50s"]
    );
    evidence.counted[hour] = ends(90, 10);
    assert_eq!(look("late_fast", &evidence), [] as [&str; 0]);
    evidence.counted[six_hours] = ends(90, 10);
    evidence.counted[lately] = ends(90, 10);
    assert_eq!(look("late_slow", &evidence).len(), 1);
    let silent = AlertSettings::default();
    evidence.settings = &silent;
    assert_eq!(look("late_slow", &evidence), [] as [&str; 0]);
}

#[test]
fn a_lag_that_grows_all_the_time_is_told() {
    let settings = AlertSettings::default();
    let mut evidence = nothing(&settings, Snapshot::default());
    let mut say = |lags: Vec<u64>| {
        evidence.lags.insert("orders".to_owned(), lags);
        look("lag", &evidence)
    };
    let grows: Vec<u64> = (0..16).map(|minute| 100 + minute * 10).collect();
    assert_eq!(
        say(grows.clone()),
        ["orders: 250 entries are unread, 150 more than 15 minutes ago, and they get more"]
    );
    assert_eq!(say(grows[1..].to_vec()), [] as [&str; 0], "for 14 minutes");
    let mut dip = grows.clone();
    dip[10] = 90;
    assert_eq!(say(dip), [] as [&str; 0]);
    assert_eq!(
        say(grows
            .iter()
            .map(|lag| lag - 100)
            .map(|lag| lag / 2)
            .collect()),
        [] as [&str; 0]
    );
}

#[test]
fn what_killed_its_workers_and_what_failed_for_the_first_time_is_told() {
    let settings = AlertSettings::default();
    let mut evidence = nothing(&settings, Snapshot::default());
    let mut counted = settled(&[("dead", 2)]);
    let labels = of(&["orders", "shop", "order.created", "crashed"]);
    counted.add(Id::DeadLetters, labels, Value::Counter(2));
    evidence.counted[1] = counted;
    assert_eq!(
        look("crashed", &evidence),
        ["orders: 2 entries killed their workers and are dead letters"]
    );
    evidence
        .new_failures
        .push(super::super::evidence::NewFailure {
            stream: "orders".to_owned(),
            fingerprint: "f1".to_owned(),
            error: "card declined".to_owned(),
            event_type: "order.created".to_owned(),
        });
    assert_eq!(
        look("new_failure", &evidence),
        ["orders order.created f1: a failure that is new: card declined"]
    );
}

#[test]
fn a_lease_that_is_renewed_late_is_told() {
    let settings = AlertSettings::default();
    let mut evidence = nothing(&settings, Snapshot::default());
    let mut margins = Histogram::default();
    (0..10).for_each(|_| margins.record(4.0));
    (0..90).for_each(|_| margins.record(20.0));
    let margins = Value::Histogram(margins);
    evidence.counted[1].add(Id::LeaseMargin, of(&["shop"]), margins);
    assert_eq!(
        look("lease_margin", &evidence),
        [": leases of 30s are renewed with 4s left"]
    );
    evidence.lease = Some(Duration::from_secs(10));
    assert_eq!(look("lease_margin", &evidence), [] as [&str; 0]);
}
