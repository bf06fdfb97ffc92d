//! What was found: findings, the gravest first.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Notice,
    /// It will cost something some day.
    Warning,
    /// Events are lost or handled twice, or nothing is handled, now or at the next fault.
    Danger,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Which check found it, such as `eviction`.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The server it was found at; None if it is the group's.
    pub node: Option<String>,
    /// What is so.
    pub what: String,
    /// What that costs; empty if nothing.
    pub cost: String,
    /// The command that mends it, for `redis-cli` if it does not begin with another program; None if none does.
    pub mend: Option<String>,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The gravest first.
    pub findings: Vec<Finding>,
    /// How bad the worst is.
    pub worst: Severity,
}

impl Severity {
    /// `danger`.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Notice => "notice",
            Severity::Warning => "warning",
            Severity::Danger => "danger",
        }
    }
}

impl Report {
    pub(super) fn of(mut findings: Vec<Finding>) -> Self {
        // In the order of the checks otherwise.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let worst = findings.first().map(|finding| finding.severity);
        Report {
            worst: worst.unwrap_or(Severity::Ok),
            findings,
        }
    }

    /// How many are as bad as this.
    pub fn count(&self, severity: Severity) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

impl Finding {
    pub(super) fn new(check: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        Finding {
            check,
            severity,
            node: None,
            what: what.into(),
            cost: String::new(),
            mend: None,
        }
    }

    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, what)
    }

    pub(super) fn cost(mut self, cost: impl Into<String>) -> Self {
        self.cost = cost.into();
        self
    }

    pub(super) fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend = Some(command.into());
        self
    }

    pub(super) fn at(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }
}

/// What can't be looked at, for the server said this; `right` is what its user would need.
pub(super) fn unknown(
    check: &'static str,
    what: &str,
    why: &str,
    user: &str,
    right: &str,
) -> Finding {
    let code = why.split(' ').next().unwrap_or_default();
    let finding = Finding::new(
        check,
        Severity::Notice,
        format!("{what}: not known, the server says {code}"),
    )
    .cost("what is wrong with it is not seen");
    match code {
        "NOPERM" if !right.is_empty() => finding.mend(format!("ACL SETUSER {user} {right}")),
        _ => finding,
    }
}

/// `1.5 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_comes_first_and_what_may_not_be_asked_names_its_rule() {
        let report = Report::of(vec![
            Finding::ok("a", "fine"),
            Finding::new("b", Severity::Danger, "bad"),
            unknown("c", "timeouts", "NOPERM no", "worker", "+config|get"),
        ]);
        let checks: Vec<&str> = report.findings.iter().map(|one| one.check).collect();
        assert_eq!(
            (&checks[..], report.worst),
            (&["b", "c", "a"][..], Severity::Danger)
        );
        let unknown = &report.findings[1];
        assert_eq!(
            unknown.mend.as_deref(),
            Some("ACL SETUSER worker +config|get")
        );
        assert_eq!(unknown.what, "timeouts: not known, the server says NOPERM");
        assert_eq!(
            (bytes(12), bytes(3 << 20)),
            ("12 B".to_owned(), "3.0 MiB".to_owned())
        );
    }
}
