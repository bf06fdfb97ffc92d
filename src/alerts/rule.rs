//! The table of what there is to be told of: each rule as what this program looks for, and as what Prometheus does.

use std::time::Duration;

use super::evidence::{Evidence, Finding, Series, WINDOWS};
use crate::config::AlertSettings;
use crate::duration::rounded;
use crate::metrics::table::Id;

/// One rule.
pub(super) struct Rule {
    /// Its name in settings and messages,
    pub name: &'static str,
    /// and in Prometheus.
    pub alert: &'static str,
    pub severity: Severity,
    /// For how long it must be so before it is told of.
    pub lasting: Duration,
    /// What it means and what to do about it, in a sentence or two.
    pub help: &'static str,
    /// What Prometheus tells of a case of it.
    pub summary: &'static str,
    /// What it is in Prometheus' words; none of what Prometheus can't know, or of what is not set.
    pub expr: fn(&AlertSettings) -> Option<String>,
    /// What of it there is now.
    pub look: fn(&Evidence) -> Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// Somebody is to look at it now.
    Critical,
    /// Somebody is to look at it today.
    Warning,
}

impl Rule {
    /// Whether it is of what happened, and not of what is so.
    pub fn is_once(&self) -> bool {
        self.name == "new_failure"
    }
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
        }
    }
}

const SUDDEN: Duration = WINDOWS[0];
const LATELY: Duration = WINDOWS[1];
const HOUR: Duration = WINDOWS[2];
const SIX_HOURS: Duration = WINDOWS[3];
const NOW: Duration = Duration::ZERO;
const MINUTE: Duration = Duration::from_secs(60);
/// How many times faster than it may an error budget of a month is used up, so that it is told of: 2 % of it in an hour, and
/// 5 % of it in six.
const FAST: f64 = 14.4;
const SLOW: f64 = 6.0;
/// Fewer entries than this are no rate, and no backlog.
const ENOUGH: f64 = 20.0;
const BACKLOG: u64 = 100;

/// All rules.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "waiting",
        alert: "StreamhandWaiting",
        severity: Severity::Critical,
        lasting: MINUTE,
        help: "The oldest entry has waited for longer than `alerts.oldest`. Are there workers, and do they keep up? See \
               the lag and what is paused, and start more of them.",
        summary: "the oldest entry of {{ $labels.stream }} has waited for {{ $value | humanizeDuration }}",
        expr: |settings| {
            let oldest = settings.oldest.as_secs_f64();
            Some(format!("streamhand_group_oldest_unread_seconds > {oldest}"))
        },
        look: |evidence| {
            let oldest = evidence.settings.oldest.as_secs_f64();
            let late = evidence.gauge(Id::GroupOldestUnread);
            late.filter(|(_, age)| *age > oldest)
                .map(|(of, age)| {
                    let text = format!("the oldest entry has waited for {}", seconds(age));
                    of_stream(of, text)
                })
                .collect()
        },
    },
    Rule {
        name: "late_fast",
        alert: "StreamhandLateFast",
        severity: Severity::Critical,
        lasting: MINUTE,
        help: "So many events end later than `alerts.end_to_end` that 2 % of a month's budget for that is gone within an hour. See which type is slow, and since which version.",
        summary: "{{ $value | humanizePercentage }} of what {{ $labels.stream }} brought within the hour ended too late",
        expr: |settings| burning(settings, FAST, "1h", "5m"),
        look: |evidence| late(evidence, FAST, HOUR, SUDDEN),
    },
    Rule {
        name: "late_slow",
        alert: "StreamhandLateSlow",
        severity: Severity::Warning,
        lasting: MINUTE,
        help: "So many events end later than `alerts.end_to_end` that 5 % of a month's budget for that is gone within six \
               hours.",
        summary: "{{ $value | humanizePercentage }} of what {{ $labels.stream }} brought within six hours ended too late",
        expr: |settings| burning(settings, SLOW, "6h", "10m"),
        look: |evidence| late(evidence, SLOW, SIX_HOURS, LATELY),
    },
    Rule {
        name: "lag",
        alert: "StreamhandLagGrows",
        severity: Severity::Warning,
        lasting: NOW,
        help: "More comes than is handled, for a quarter of an hour by now. Start more workers, or see what slows these \
               down.",
        summary: "{{ $value | humanize }} entries of {{ $labels.stream }} are unread, and they have been getting more for 15 minutes",
        expr: |_| {
            // Where it was at each third of the quarter of an hour: higher each time.
            let lag = "streamhand_group_lag";
            Some(format!(
                "{lag} > {BACKLOG} and {lag} > {lag} offset 5m and {lag} offset 5m > {lag} offset 10m \
                 and {lag} offset 10m > {lag} offset 15m"
            ))
        },
        look: |evidence| {
            let grows = |lags: &[u64]| {
                let thirds = [15, 10, 5, 0].map(|ago| lags.len().checked_sub(1 + ago));
                let thirds: Option<Vec<u64>> =
                    thirds.iter().map(|at| at.map(|at| lags[at])).collect();
                thirds.is_some_and(|thirds| thirds.is_sorted_by(|before, after| before < after))
            };
            let lags = evidence.lags.iter();
            lags.filter_map(|(stream, lags)| {
                let last = *lags.last().filter(|last| **last > BACKLOG)?;
                let first = lags[lags.len().checked_sub(16)?];
                grows(lags).then(|| Finding {
                    labels: vec![("stream", stream.clone())],
                    text: format!(
                        "{last} entries are unread, {} more than 15 minutes ago, and they get more",
                        last - first
                    ),
                })
            })
            .collect()
        },
    },
    Rule {
        name: "retries",
        alert: "StreamhandRetries",
        severity: Severity::Warning,
        lasting: SUDDEN,
        help: "More than half of all attempts end in a retry: what a handler calls is probably away. See the failures by \
               type; a circuit breaker spares the service behind them.",
        summary: "{{ $value | humanizePercentage }} of what {{ $labels.stream }} brings ends in a retry",
        expr: |_| Some(share_of("retried", "0.5")),
        look: |evidence| {
            shares(evidence, "retried", 0.5, |share| {
                format!("{} of what is settled is a retry", percent(share))
            })
        },
    },
    Rule {
        name: "dead",
        alert: "StreamhandDead",
        severity: Severity::Critical,
        lasting: NOW,
        help: "More than one entry in a hundred goes to the dead letters. See them by what went wrong, mend that, and \
               replay them.",
        summary: "{{ $value | humanizePercentage }} of what {{ $labels.stream }} brings ends in the dead letters",
        expr: |_| Some(share_of("dead", "0.01")),
        look: |evidence| {
            shares(evidence, "dead", 0.01, |share| {
                format!(
                    "{} of what is settled ends in the dead letters",
                    percent(share)
                )
            })
        },
    },
    Rule {
        name: "new_failure",
        alert: "StreamhandNewFailure",
        severity: Severity::Warning,
        lasting: NOW,
        help: "There is a dead letter of a kind that was never seen before: another type, reason or error. It is told of once.",
        summary: "",
        // Errors are no labels.
        expr: |_| None,
        look: |evidence| {
            let new = evidence.new_failures.iter();
            new.map(|new| Finding {
                labels: vec![
                    ("stream", new.stream.clone()),
                    ("type", new.event_type.clone()),
                    ("fingerprint", new.fingerprint.clone()),
                ],
                text: format!("a failure that is new: {}", new.error),
            })
            .collect()
        },
    },
    Rule {
        name: "no_workers",
        alert: "StreamhandNoWorkers",
        severity: Severity::Critical,
        lasting: MINUTE,
        help: "Entries could be worked on, and no worker of the group is there. A worker can't tell of its own absence: this \
               one needs Prometheus with the exporter, or a dashboard that runs beside the workers.",
        summary: "{{ $value | humanize }} entries of {{ $labels.stream }} could be worked on, and no worker is there",
        expr: |_| {
            Some(
                "streamhand_group_runnable > 0 unless on (stream, group) \
                 sum by (stream, group) (streamhand_group_workers{state=\"working\"}) > 0"
                    .to_owned(),
            )
        },
        look: |evidence| {
            let there = |of: Series| {
                let workers = evidence.gauge(Id::GroupWorkers);
                workers
                    .filter(|(each, _)| each.label("stream") == of.label("stream"))
                    .any(|(each, workers)| each.label("state") == Some("working") && workers > 0.0)
            };
            let runnable = evidence.gauge(Id::GroupRunnable);
            runnable
                .filter(|(of, runnable)| *runnable > 0.0 && !there(*of))
                .map(|(of, runnable)| {
                    let text =
                        format!("{runnable} entries could be worked on, and no worker is there");
                    of_stream(of, text)
                })
                .collect()
        },
    },
    Rule {
        name: "crashed",
        alert: "StreamhandCrashed",
        severity: Severity::Critical,
        lasting: NOW,
        help: "An entry killed its workers, attempt by attempt, and is a dead letter. See its data and the workers' last \
               logs; what kills workers one entry at a time is usually memory or a stack.",
        summary: "an entry of {{ $labels.stream }} ({{ $labels.type }}) has killed its workers",
        expr: |_| {
            let crashed = "streamhand_dead_letters_total{reason=\"crashed\"}";
            // A series that has just appeared has not increased.
            Some(format!(
                "sum by (stream, group, type) (increase({crashed}[10m]) > 0 or ({crashed} unless {crashed} offset 10m))"
            ))
        },
        look: |evidence| {
            counted(
                evidence,
                Id::DeadLetters,
                ("reason", "crashed"),
                |crashed| format!("{crashed} entries killed their workers and are dead letters"),
            )
        },
    },
    Rule {
        name: "lease_margin",
        alert: "StreamhandLeaseMargin",
        severity: Severity::Warning,
        lasting: SUDDEN,
        help: "Leases are renewed when less than a third of them is left: the worker's machine is busy beyond what it can, or \
               Redis is slow. A lease that lapses has its entry handled twice. See the latency of Redis, or give \
               `worker.lease` more time.",
        summary: "leases of {{ $labels.group }} are renewed with {{ $value | humanizeDuration }} left",
        expr: |_| {
            Some(
                "histogram_quantile(0.05, sum by (group, le) (rate(streamhand_lease_margin_seconds_bucket[10m]))) \
                 < on (group) min by (group) (streamhand_lease_seconds) / 3"
                    .to_owned(),
            )
        },
        look: |evidence| {
            let margins = evidence.within(LATELY).histogram(Id::LeaseMargin, &[]);
            let low = margins.quantile(0.05).zip(evidence.lease);
            low.filter(|(low, lease)| *low < lease.as_secs_f64() / 3.0)
                .map(|(low, lease)| Finding {
                    labels: Vec::new(),
                    text: format!(
                        "leases of {} are renewed with {} left",
                        rounded(lease),
                        seconds(low)
                    ),
                })
                .into_iter()
                .collect()
        },
    },
    Rule {
        name: "breaker",
        alert: "StreamhandBreakerOpen",
        severity: Severity::Warning,
        lasting: LATELY,
        help: "A circuit breaker has been open for ten minutes: the service behind it is away, and what needs it waits.",
        summary: "the circuit breaker {{ $labels.breaker }} of {{ $labels.group }} is open",
        expr: |_| {
            Some(
                "max by (group, breaker) (streamhand_breaker_state{state=\"open\"}) == 1"
                    .to_owned(),
            )
        },
        look: |evidence| {
            let states = evidence.gauge(Id::BreakerState);
            let open = states.filter(|(of, is)| of.label("state") == Some("open") && *is == 1.0);
            let mut open: Vec<Finding> = open
                .map(|(of, _)| Finding {
                    labels: vec![of.own("breaker")],
                    text: "the circuit breaker is open".to_owned(),
                })
                .collect();
            open.dedup();
            open
        },
    },
    Rule {
        name: "paused",
        alert: "StreamhandPaused",
        severity: Severity::Warning,
        lasting: NOW,
        help: "Something has been paused for over an hour. Was it forgotten? `resume` ends it.",
        summary: "{{ $labels.what }} of {{ $labels.stream }} has been paused for {{ $value | humanizeDuration }}",
        expr: |_| Some("streamhand_group_paused_seconds > 3600".to_owned()),
        look: |evidence| {
            let paused = evidence.gauge(Id::GroupPaused);
            paused
                .filter(|(_, since)| *since > HOUR.as_secs_f64())
                .map(|(of, since)| Finding {
                    labels: vec![of.own("stream"), of.own("what")],
                    text: format!("paused for {}", seconds(since)),
                })
                .collect()
        },
    },
    Rule {
        name: "scheduled",
        alert: "StreamhandScheduledOverdue",
        severity: Severity::Critical,
        lasting: SUDDEN,
        help: "Events whose time has come are not added to their stream. Workers of any group that reads it do that: are \
               there any, and does `scheduled list` say what is in the way?",
        summary: "{{ $value | humanize }} scheduled events of {{ $labels.stream }} are overdue",
        expr: |_| Some("streamhand_group_scheduled_overdue > 0".to_owned()),
        look: |evidence| {
            above(evidence, Id::GroupScheduledOverdue, 0.0, |overdue| {
                format!("{overdue} scheduled events are overdue")
            })
        },
    },
    Rule {
        name: "projection",
        alert: "StreamhandProjectionStalled",
        severity: Severity::Warning,
        lasting: SUDDEN,
        help: "A projection is over five minutes behind. `projection status` says what it stands at, and the worker's log why.",
        summary: "the projection {{ $labels.projection }} is {{ $value | humanizeDuration }} behind",
        expr: |_| {
            Some(
                "streamhand_projection_lag_seconds > 300 and streamhand_projection_lag_events > 0"
                    .to_owned(),
            )
        },
        look: |evidence| {
            let behind = evidence.gauge(Id::ProjectionLag);
            behind
                .filter(|(_, age)| *age > SUDDEN.as_secs_f64())
                .map(|(of, age)| Finding {
                    labels: vec![of.own("projection")],
                    text: format!("the projection is {} behind", seconds(age)),
                })
                .collect()
        },
    },
    Rule {
        name: "retention",
        alert: "StreamhandRetentionBlocked",
        severity: Severity::Warning,
        lasting: NOW,
        help: "A stream has not been trimmed for an hour, for a group has not settled what should go. It grows until it is. \
               `retention` says which group holds it.",
        summary: "{{ $labels.group }} has kept {{ $labels.stream }} from being trimmed for {{ $value | humanizeDuration }}",
        expr: |_| Some("streamhand_retention_blocked_seconds > 3600".to_owned()),
        look: |evidence| {
            above(
                evidence,
                Id::RetentionBlocked,
                HOUR.as_secs_f64(),
                |blocked| {
                    format!(
                        "the group has kept it from being trimmed for {}",
                        seconds(blocked)
                    )
                },
            )
        },
    },
    Rule {
        name: "eviction",
        alert: "StreamhandRedisEvicts",
        severity: Severity::Critical,
        lasting: NOW,
        help: "Redis deletes keys when its memory is full: streams, retries and dead letters among them. Set \
               `maxmemory-policy noeviction`.",
        summary: "Redis deletes keys when its memory is full ({{ $labels.policy }})",
        expr: |_| Some("streamhand_redis_evicts == 1".to_owned()),
        look: |evidence| {
            let evicts = evidence.gauge(Id::RedisEvicts);
            evicts
                .filter(|(_, is)| *is == 1.0)
                .map(|(of, _)| Finding {
                    labels: vec![of.own("policy")],
                    text: "Redis deletes keys when its memory is full; set maxmemory-policy to noeviction"
                        .to_owned(),
                })
                .collect()
        },
    },
    Rule {
        name: "persistence",
        alert: "StreamhandRedisForgets",
        severity: Severity::Warning,
        lasting: NOW,
        help: "Redis writes no append-only file: what was acknowledged since its last snapshot is lost with it. Set \
               `appendonly yes`.",
        summary: "Redis writes no append-only file",
        expr: |_| Some("streamhand_redis_append_only == 0".to_owned()),
        look: |evidence| {
            let writes = evidence.gauge(Id::RedisAppendOnly);
            writes
                .filter(|(_, is)| *is == 0.0)
                .map(|_| Finding {
                    labels: Vec::new(),
                    text: "Redis writes no append-only file; set appendonly to yes".to_owned(),
                })
                .collect()
        },
    },
];

fn of_stream(of: Series, text: String) -> Finding {
    Finding {
        labels: vec![of.own("stream")],
        text,
    }
}

fn above(evidence: &Evidence, id: Id, most: f64, text: impl Fn(f64) -> String) -> Vec<Finding> {
    let series = evidence.gauge(id).filter(|(_, value)| *value > most);
    series
        .map(|(of, value)| of_stream(of, text(value)))
        .collect()
}

/// What was counted of a counter with this label within ten minutes, by stream.
fn counted(
    evidence: &Evidence,
    id: Id,
    label: (&str, &str),
    text: impl Fn(f64) -> String,
) -> Vec<Finding> {
    let lately = evidence.within(LATELY);
    let of = |stream: &&str| {
        let count = lately.total(id, &[("stream", stream), label]);
        (count > 0.0).then(|| Finding {
            labels: vec![("stream", (*stream).to_owned())],
            text: text(count),
        })
    };
    evidence.streams(LATELY).iter().filter_map(of).collect()
}

/// Streams of which more than this share of what was settled within ten minutes had this outcome.
fn shares(
    evidence: &Evidence,
    outcome: &str,
    most: f64,
    text: impl Fn(f64) -> String,
) -> Vec<Finding> {
    let lately = evidence.within(LATELY);
    let of = |stream: &&str| {
        let all = lately.total(Id::Settled, &[("stream", stream)]);
        let these = lately.total(Id::Settled, &[("stream", stream), ("outcome", outcome)]);
        (all >= ENOUGH && these / all > most).then(|| Finding {
            labels: vec![("stream", (*stream).to_owned())],
            text: text(these / all),
        })
    };
    evidence.streams(LATELY).iter().filter_map(of).collect()
}

/// The same in Prometheus' words.
fn share_of(outcome: &str, most: &str) -> String {
    let settled = |only: &str| {
        format!("sum by (stream, group) (increase(streamhand_settled_total{only}[10m]))")
    };
    let (all, these) = (settled(""), settled(&format!("{{outcome={outcome:?}}}")));
    format!("({these} / {all} > {most}) and {all} >= {ENOUGH}")
}

/// Streams whose budget for what ends too late burns faster than `times` as it may, over a long time and still now.
fn late(evidence: &Evidence, times: f64, long: Duration, short: Duration) -> Vec<Finding> {
    let Some(within) = evidence.settings.end_to_end else {
        return Vec::new();
    };
    let most = times * evidence.settings.budget;
    let share = |stream: &str, window| {
        let ends = evidence
            .within(window)
            .histogram(Id::EndToEnd, &[("stream", stream)]);
        let in_time = ends.up_to_octaves([octave(within)])[0];
        let all = ends.count() as f64;
        (all >= ENOUGH).then(|| 1.0 - in_time as f64 / all)
    };
    let of = |stream: &&str| {
        let (burnt, burns) = (share(stream, long)?, share(stream, short)?);
        (burnt > most && burns > most).then(|| Finding {
            labels: vec![("stream", (*stream).to_owned())],
            text: format!(
                "{} of what ended within {} took longer than {}",
                percent(burnt),
                rounded(long),
                rounded(within)
            ),
        })
    };
    evidence.streams(long).iter().filter_map(of).collect()
}

/// The same in Prometheus' words.
fn burning(settings: &AlertSettings, times: f64, long: &str, short: &str) -> Option<String> {
    let bound = 2f64.powi(octave(settings.end_to_end?));
    let most = (times * settings.budget * 1e6).round() / 1e6;
    // How a bound is written depends on the format it was scraped in.
    let le = match bound.fract() == 0.0 {
        true => format!("le=~\"{bound}([.]0)?\""),
        false => format!("le=\"{bound}\""),
    };
    let share = |window: &str| {
        let rate = |of: &str| {
            format!("sum by (stream, group) (rate(streamhand_end_to_end_seconds_{of}[{window}]))")
        };
        let (all, in_time) = (rate("count"), rate(&format!("bucket{{{le}}}")));
        format!("1 - {in_time} / {all}")
    };
    Some(format!(
        "({} > {most}) and ({} > {most})",
        share(long),
        share(short)
    ))
}

/// The power of two that this is, or the next higher one: buckets end there in every format.
fn octave(within: Duration) -> i32 {
    within.as_secs_f64().log2().ceil() as i32
}

fn seconds(number: f64) -> impl std::fmt::Display {
    rounded(Duration::from_secs_f64(number.max(0.0).round()))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests;
