//! The server's clock against ours.

use std::time::Duration;

use super::node::Node;
use super::report::{Finding, Severity};
use crate::duration;
use crate::error::Result;

const CHECK: &str = "clock";
/// By how much clocks may differ that are kept right.
const KEPT: Duration = Duration::from_secs(1);
/// From here on it is seen in what people read.
const SEEN: Duration = Duration::from_secs(30);

pub(super) async fn look(node: &Node) -> Result<Vec<Finding>> {
    let (ahead_ms, unsure) = node.clock_ahead().await?;
    Ok(vec![judged(ahead_ms, unsure)])
}

fn judged(ahead_ms: i64, unsure: Duration) -> Finding {
    let off = Duration::from_millis(ahead_ms.unsigned_abs());
    let sure = off.saturating_sub(unsure);
    let severity = match sure {
        sure if sure < KEPT => {
            return Finding::ok(CHECK, "the server's clock and this machine's agree");
        }
        sure if sure < SEEN => Severity::Notice,
        _ => Severity::Warning,
    };
    let which = if ahead_ms > 0 { "ahead of" } else { "behind" };
    let off = duration::format(Duration::from_secs(off.as_secs()));
    Finding::new(CHECK, severity, format!("the server's clock is {off} {which} this machine's"))
        .cost(
            "workers go by the server's, so that nothing is lost; but times that publishers write, logs, and events \
             scheduled for a time of day are off by as much, and after a failover to a server with another clock retries \
             and schedules jump",
        )
        .mend("chronyc makestep")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_the_round_trip_are_told_of() {
        let of = |ms, unsure| judged(ms, Duration::from_millis(unsure)).severity;
        assert_eq!(of(900, 1), Severity::Ok);
        assert_eq!(of(-2_000, 1_500), Severity::Ok);
        assert_eq!(of(-2_000, 1), Severity::Notice);
        let hour = judged(3_600_000, Duration::ZERO);
        assert_eq!(hour.severity, Severity::Warning);
        assert_eq!(
            hour.what,
            "the server's clock is 1h ahead of this machine's"
        );
    }
}
