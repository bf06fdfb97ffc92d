//! What is wrong with a stream, a type or a worker, in a few words.

use crate::admin::{Fleet, FleetWorker, StreamStatus, WorkerState};

/// Fewer entries than this say nothing of shares.
const ENOUGH: f64 = 5.0;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lint {
    pub text: String,
    /// Or worth knowing alone.
    pub is_bad: bool,
}

fn bad(text: impl Into<String>) -> Lint {
    Lint {
        text: text.into(),
        is_bad: true,
    }
}

fn note(text: impl Into<String>) -> Lint {
    Lint {
        text: text.into(),
        is_bad: false,
    }
}

/// Of a type, by how many were done, retried and buried in the last minute.
pub(super) fn of_type(done: f64, retried: f64, dead: f64) -> Vec<Lint> {
    let all = done + retried + dead;
    let mut lints = Vec::new();
    if all >= ENOUGH && retried > all / 2.0 {
        lints.push(bad("retries over half"));
    }
    if dead > 0.0 && dead > all / 100.0 {
        lints.push(bad("dead over 1 %"));
    }
    lints
}

pub(super) fn of_stream(status: &StreamStatus, fleet: &Fleet) -> Vec<Lint> {
    let mut lints = Vec::new();
    let waits = status
        .group
        .as_ref()
        .is_some_and(|group| group.lag_at_least > 0 || group.pending > 0);
    let mut readers = fleet
        .there()
        .filter(|worker| worker.streams.contains(&status.stream));
    if status.kind != "stream" {
        lints.push(note(match &status.kind[..] {
            "none" => "no such stream yet".to_owned(),
            kind => format!("is a {kind}"),
        }));
    } else if readers.next().is_none() && !status.is_worked_on() {
        lints.push(if waits {
            bad("no worker")
        } else {
            note("no worker")
        });
    }
    for pause in &status.paused {
        lints.push(match &pause.handler {
            None => bad("paused"),
            Some(event_type) => bad(format!("paused {event_type}")),
        });
    }
    for breaker in &status.circuit_breakers {
        let text = format!("breaker {}", breaker.name);
        if !lints.iter().any(|lint| lint.text == text) {
            lints.push(bad(text));
        }
    }
    if !status.in_the_way.is_empty() {
        lints.push(bad("a key is in the way"));
    }
    if status.dead_too_many {
        lints.push(bad("many dead letters"));
    }
    lints
}

/// Of a worker, with the shortest margin of a lease it told of last, in seconds.
pub(super) fn of_worker(worker: &FleetWorker, margin: Option<f64>) -> Vec<Lint> {
    let mut lints = Vec::new();
    match worker.state {
        WorkerState::Quiet => lints.push(note("quiet")),
        WorkerState::Draining => lints.push(note("draining")),
        WorkerState::Alive | WorkerState::Gone => {}
    }
    if let (Some(lease), Some(margin)) = (lease_of(&worker.name), margin)
        && margin < lease / 3.0
    {
        lints.push(bad("lease margin low"));
    }
    for breaker in &worker.breakers {
        lints.push(bad(format!("breaker {}", breaker.name)));
    }
    if worker.slots > 0 && worker.running >= worker.slots {
        lints.push(note("all slots taken"));
    }
    if worker.cpu > 0.95 {
        lints.push(note("a CPU full"));
    }
    lints
}

/// A worker's name has its lease in it, in milliseconds.
fn lease_of(name: &str) -> Option<f64> {
    let lease: f64 = name.split('-').nth(1)?.parse().ok()?;
    Some(lease / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_enough_entries() {
        let texts = |lints: Vec<Lint>| lints.into_iter().map(|lint| lint.text).collect::<Vec<_>>();
        assert_eq!(texts(of_type(1.0, 3.0, 0.0)), [""; 0]);
        assert_eq!(texts(of_type(4.0, 5.0, 0.0)), ["retries over half"]);
        assert_eq!(texts(of_type(98.0, 0.0, 2.0)), ["dead over 1 %"]);
        assert_eq!(texts(of_type(299.0, 0.0, 1.0)), [""; 0]);
        assert_eq!(lease_of("sh2-30000-host-12-00ff"), Some(30.0));
        assert_eq!(lease_of("somebody"), None);
    }
}
