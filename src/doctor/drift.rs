//! Whether the group's workers are configured alike, and run the same version.

use std::collections::BTreeMap;
use std::time::Duration;

use super::report::{Finding, Severity};
use crate::admin::{Fleet, FleetWorker};
use crate::called;

pub(super) const CHECK: &str = "drift";
/// A deploy may take so long.
const DEPLOY: Duration = Duration::from_secs(600);

pub(super) fn look(fleet: &Fleet) -> Vec<Finding> {
    let there: Vec<&FleetWorker> = fleet.there().collect();
    let (versions, configurations) = (
        by(&there, |worker| &worker.version),
        by(&there, |worker| &worker.configuration),
    );
    let mut found = Vec::new();
    found.extend(differing(
        fleet,
        "versions",
        &versions,
        "events that only the newer ones know wait for those",
    ));
    found.extend(differing(
        fleet,
        "configurations",
        &configurations,
        "leases, attempts and limits depend on which worker an event comes to; if they differ in `order` or \
         `on_dead` of a stream there is no order of its events",
    ));
    if found.is_empty() {
        found.push(Finding::ok(
            CHECK,
            format!("workers: {}, all alike", there.len()),
        ));
    }
    found
}

type By<'a> = BTreeMap<&'a str, Vec<&'a FleetWorker>>;

fn by<'a>(workers: &[&'a FleetWorker], of: impl Fn(&'a FleetWorker) -> &'a String) -> By<'a> {
    let mut by = By::new();
    for worker in workers {
        by.entry(of(worker)).or_default().push(worker);
    }
    by
}

fn differing(fleet: &Fleet, what: &str, by: &By<'_>, cost: &str) -> Option<Finding> {
    if by.len() < 2 {
        return None;
    }
    // The one that came last is the one that is meant.
    let newest = by
        .values()
        .max_by_key(|workers| workers.iter().map(|worker| worker.started).max())?;
    let began = newest.iter().map(|worker| worker.started).min()?;
    let is_deploy = fleet.now.duration_since(began).unwrap_or_default() < DEPLOY;
    let severity = if is_deploy {
        Severity::Notice
    } else {
        Severity::Warning
    };
    let each: Vec<String> = by
        .iter()
        .map(|(of, workers)| format!("{of}: {}", workers.len()))
        .collect();
    let older = by
        .values()
        .filter(|workers| workers[0].name != newest[0].name)
        .flatten()
        .next()?;
    let during = if is_deploy {
        "; a deploy may be under way"
    } else {
        ""
    };
    Some(
        Finding::new(
            CHECK,
            severity,
            format!(
                "workers of {} {what} ({}){during}",
                by.len(),
                each.join(", ")
            ),
        )
        .cost(cost)
        .mend(called::command(format_args!("worker drain {}", older.name))),
    )
}
