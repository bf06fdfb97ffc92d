//! What is sent: to a webhook a JSON of our own, whose `text` chats show; to an Alertmanager what its interface wants.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::rule::Severity;
use super::standing::Case;
use crate::duration::rounded;
use crate::rfc3339;

/// Alertmanager takes what it is not told of again for over. It is told at every look, and by turns.
const LASTS: Duration = Duration::from_secs(180);

/// What a webhook is sent of these cases.
pub(super) fn webhook(group: &str, cases: &[&Case], now: SystemTime) -> Value {
    let alerts = cases.iter().filter_map(|case| {
        let rule = case.rule()?;
        Some(json!({
            "alert": rule.name,
            "status": if case.over { "resolved" } else { "firing" },
            "severity": rule.severity.name(),
            "labels": case.labels,
            "summary": case.text,
            "help": rule.help,
            "since": time(case.since),
        }))
    });
    json!({
        "version": 1,
        "group": group,
        "at": rfc3339::seconds(now),
        "text": text(group, cases, now),
        "alerts": alerts.collect::<Vec<_>>(),
    })
}

/// The same for people: a line each.
pub(super) fn text(group: &str, cases: &[&Case], now: SystemTime) -> String {
    let line = |case: &&Case| {
        let severity = case.rule().map_or(Severity::Warning, |rule| rule.severity);
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(case.since);
        let for_so_long = rounded(whole_seconds(now.duration_since(began).unwrap_or_default()));
        let labels = case
            .labels
            .iter()
            .filter(|(name, _)| *name != "fingerprint");
        let labels: Vec<&str> = labels.map(|(_, value)| &value[..]).collect();
        let of = match labels.is_empty() {
            true => String::new(),
            false => format!(" {}", labels.join(" ")),
        };
        match case.over {
            true => format!("over after {for_so_long}: {group}{of}: {}", case.text),
            false => format!(
                "{}: {group}{of}: {} (for {for_so_long})",
                severity.name(),
                case.text
            ),
        }
    };
    cases.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What an Alertmanager is sent of everything that fires or is over.
pub(super) fn alertmanager(group: &str, cases: &[&Case], now: SystemTime) -> Value {
    let alerts = cases.iter().filter_map(|case| {
        let rule = case.rule()?;
        let mut labels = case.labels.clone();
        labels.insert("alertname".to_owned(), rule.alert.to_owned());
        labels.insert("severity".to_owned(), rule.severity.name().to_owned());
        labels.insert("group".to_owned(), group.to_owned());
        let ends = match case.over {
            true => now,
            false => now + LASTS,
        };
        Some(json!({
            "labels": labels,
            "annotations": { "summary": case.text, "description": rule.help },
            "startsAt": time(case.since),
            "endsAt": rfc3339::seconds(ends),
        }))
    });
    Value::Array(alerts.collect())
}

fn time(ms: u64) -> String {
    rfc3339::seconds(SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
