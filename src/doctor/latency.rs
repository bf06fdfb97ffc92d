//! How long the server takes for nothing at all, and how long a fork has stopped it.

use std::time::Duration;

use super::case::Case;
use super::node::Node;
use super::report::{Finding, Severity};
use crate::duration;
use crate::error::Result;

const CHECK: &str = "latency";
const PINGS: usize = 200;
/// A round trip that is no longer than this is as good as any.
const QUICK: Duration = Duration::from_millis(10);

pub(super) async fn look(node: &Node, case: &Case) -> Result<Vec<Finding>> {
    let mut found = vec![of_pings(node.pings(PINGS).await?, case.lease)];
    let fork = node.number("latest_fork_usec").map(Duration::from_micros);
    found.extend(fork.and_then(|fork| of_fork(fork, case.lease)));
    Ok(found)
}

fn of_pings(mut took: Vec<Duration>, lease: Duration) -> Finding {
    took.sort_unstable();
    let at = |share: usize| {
        took.get(took.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let (median, p99) = (at(50), at(99));
    let what = format!(
        "of {} pings half took {}, 99 in 100 {}",
        took.len(),
        ms(median),
        ms(p99)
    );
    let severity = match p99 {
        p99 if p99 <= QUICK => return Finding::ok(CHECK, what),
        p99 if p99 < lease / 30 => Severity::Notice,
        p99 if p99 < lease / 3 => Severity::Warning,
        _ => Severity::Danger,
    };
    Finding::new(CHECK, severity, what)
        .cost(
            "every step of an entry waits as long; a renewal that takes longer than a lease has its entries handled twice. \
             Something slow keeps the server busy, or it is far away",
        )
        .mend("SLOWLOG GET 10")
}

fn of_fork(fork: Duration, lease: Duration) -> Option<Finding> {
    let severity = match fork {
        fork if fork < Duration::from_millis(200) => return None,
        fork if fork < lease / 10 => Severity::Notice,
        fork if fork < lease / 3 => Severity::Warning,
        _ => Severity::Danger,
    };
    let finding = Finding::new(CHECK, severity, format!("the last fork stopped the server for {}", ms(fork)))
        .cost("nothing is answered meanwhile, at each snapshot and each rewrite of the append-only file: it grows with the memory, and with huge pages")
        .mend("CONFIG SET save \"\"");
    Some(finding)
}

fn ms(time: Duration) -> String {
    match time {
        time if time < Duration::from_secs(1) => format!("{:.2} ms", time.as_secs_f64() * 1000.0),
        time => duration::format(Duration::from_millis(time.as_millis() as u64)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    #[test]
    fn the_slowest_of_a_hundred_counts_and_not_the_median() {
        let pings = |slow: u64, count: usize| {
            let mut took = vec![Duration::from_micros(100); PINGS - count];
            took.extend(vec![Duration::from_millis(slow); count]);
            of_pings(took, LEASE).severity
        };
        assert_eq!(pings(500, 1), Severity::Ok);
        assert_eq!(pings(500, 4), Severity::Notice);
        assert_eq!(pings(2_000, 4), Severity::Warning);
        assert_eq!(pings(11_000, 4), Severity::Danger);
    }

    #[test]
    fn a_fork_counts_by_the_lease() {
        assert_eq!(of_fork(Duration::from_millis(20), LEASE), None);
        let of = |ms| of_fork(Duration::from_millis(ms), LEASE).unwrap().severity;
        assert_eq!(
            (of(400), of(4_000), of(12_000)),
            (Severity::Notice, Severity::Warning, Severity::Danger)
        );
    }
}
