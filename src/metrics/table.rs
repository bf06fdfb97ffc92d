//! The table of everything that is counted: name, kind, unit, labels and what it means. What is served, sent, documented,
//! drawn and alerted upon is made from it.

use std::ops::RangeInclusive;

/// What all names begin with.
pub const PREFIX: &str = "streamhand_";

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name without [`PREFIX`]; a counter's ends in `_total`.
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    /// The names of its labels, in the order in which series have their values.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub help: &'static str,
    pub scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Of a number of things.
    One,
    Seconds,
    Bytes,
}

/// Who tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every worker and every publisher, each of its own.
    Process,
    /// One for the whole group, so that sums over workers are right: the dashboard or the exporter.
    Group,
}

macro_rules! table {
    ($($id:ident: $scope:ident $kind:ident $name:literal $unit:ident [$($label:literal),*] $help:literal;)*) => {
        /// A metric's row in the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Id {
            $(#[doc = $help] $id,)*
        }

        /// All metrics.
        pub const TABLE: &[(Id, Metric)] = &[$((Id::$id, Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
            scope: Scope::$scope,
        }),)*];
    };
}

table! {
    Delivered: Process Counter "delivered_total" One ["stream", "group", "via"]
        "Entries that came to the worker: new ones by `read`, parked ones by `wake`, those of workers that are gone by `reclaim`, those of a reply that got lost by `adopt`, dead letters that were replayed by `replay`.";
    Settled: Process Counter "settled_total" One ["stream", "group", "type", "outcome"]
        "Entries that the worker is done with, by what Redis says became of them: `acked`, `committed`, `retried`, `released`, `dead`, `duplicate` (done before), `lost` (no longer its own), or `cancelled` (by an operator).";
    DeadLetters: Process Counter "dead_letters_total" One ["stream", "group", "type", "reason"]
        "Entries that were moved to the dead letters.";
    Failures: Process Counter "failures_total" One ["stream", "group", "type", "kind"]
        "Attempts that failed: by an `error`, a `timeout`, a `panic`, or because the `lease` was lost.";
    ProcessDuration: Process Histogram "process_duration_seconds" Seconds ["stream", "group", "type", "outcome"]
        "From a handler's start to its end.";
    Wait: Process Histogram "wait_seconds" Seconds ["stream", "group", "type"]
        "From an entry's time to its handler's first start.";
    EndToEnd: Process Histogram "end_to_end_seconds" Seconds ["stream", "group", "type"]
        "From an entry's time to its end, all retries included.";
    Attempts: Process Histogram "attempts" One ["stream", "group", "type"]
        "How many attempts an entry had taken by its end.";
    Running: Process Gauge "running" One ["stream", "group"]
        "Entries whose handlers run.";
    Held: Process Gauge "held" One ["stream", "group"]
        "Entries that the worker has and that are not settled.";
    Slots: Process Gauge "slots" One ["group"]
        "Most handlers that run at once.";
    LeaseMargin: Process Histogram "lease_margin_seconds" Seconds ["group"]
        "What was left of the lease when it was renewed.";
    Lease: Process Gauge "lease_seconds" Seconds ["group"]
        "How long an entry stays its worker's without a renewal.";
    LeaseLapsed: Process Counter "lease_lapsed_total" One ["stream", "group"]
        "Entries whose lease ran out before it was renewed.";
    HeldBack: Process Counter "held_back_total" One ["stream", "group", "type", "by"]
        "Entries that were released unstarted: their `breaker` is open, their `rate` used up, all `places` are taken (of the handler, or its part of the slots while others have work), or a `pause`.";
    BreakerState: Process Gauge "breaker_state" One ["group", "breaker", "state"]
        "1 for the state that a circuit breaker is in: `closed`, `open` or `half-open`.";
    HandlerBlocked: Process Counter "handler_blocked_total" One ["group", "type"]
        "How often a handler held up the thread that speaks to Redis, so that another one took over.";
    RedisRequestDuration: Process Histogram "redis_request_duration_seconds" Seconds ["request"]
        "From a request to Redis to its reply; one that waits for entries is not counted.";
    RedisErrors: Process Counter "redis_errors_total" One ["request", "kind"]
        "Requests to Redis that failed.";
    RedisReconnects: Process Counter "redis_reconnects_total" One ["connection"]
        "Connections to Redis that were made anew.";
    Published: Process Counter "published_total" One ["stream", "type", "status"]
        "Events that were given to a publisher: `ok`, `duplicate` (published before), `scheduled`, `not_replicated` (stored, and not known to be with as many replicas as were asked for), or `error`.";
    PublishDuration: Process Histogram "publish_duration_seconds" Seconds ["stream", "status"]
        "From giving events to a publisher to the reply of Redis.";
    BuildInfo: Process Gauge "build_info" One ["version"]
        "1, with the version of streamhand.";
    ProcessMemory: Process Gauge "process_resident_memory_bytes" Bytes []
        "Memory of the process that is in RAM.";
    ProcessCpu: Process Counter "process_cpu_seconds_total" Seconds []
        "CPU time of the process.";
    ProcessStart: Process Gauge "process_start_time_seconds" Seconds []
        "When the process began, in seconds since 1970.";
    ProcessFds: Process Gauge "process_open_fds" One []
        "Files and sockets that the process has open.";
    GroupRunnable: Group Gauge "group_runnable" One ["stream", "group"]
        "Entries that could be worked on now: unread, due, replayed, of a lapsed lease, or running. The number to scale workers by.";
    GroupLag: Group Gauge "group_lag" One ["stream", "group"]
        "Entries that the group has not read.";
    GroupPending: Group Gauge "group_pending" One ["stream", "group"]
        "Entries that were delivered and not acknowledged, parked ones included.";
    GroupParked: Group Gauge "group_parked" One ["stream", "group"]
        "Entries that wait for their next attempt.";
    GroupParkedDue: Group Gauge "group_parked_due" One ["stream", "group"]
        "Entries whose wait for their next attempt is over.";
    GroupReplayed: Group Gauge "group_replayed" One ["stream", "group"]
        "Dead letters that were replayed and have not been read.";
    GroupDead: Group Gauge "group_dead" One ["stream", "group"]
        "Dead letters.";
    GroupScheduledOverdue: Group Gauge "group_scheduled_overdue" One ["stream", "group"]
        "Scheduled events whose time has passed.";
    GroupOldestUnread: Group Gauge "group_oldest_unread_seconds" Seconds ["stream", "group"]
        "Age of the oldest entry that the group has not read.";
    GroupOldestPending: Group Gauge "group_oldest_pending_seconds" Seconds ["stream", "group"]
        "Age of the oldest entry that was delivered and not acknowledged.";
    GroupOldestDead: Group Gauge "group_oldest_dead_seconds" Seconds ["stream", "group"]
        "Age of the oldest dead letter.";
    GroupWorkers: Group Gauge "group_workers" One ["stream", "group", "state"]
        "Workers of the group.";
    GroupPaused: Group Gauge "group_paused_seconds" Seconds ["stream", "group", "what"]
        "For how long a type's entries, or all of the `stream`, have been paused.";
    StreamLength: Group Gauge "stream_length" One ["stream"]
        "Entries of the stream.";
    StreamOutbox: Group Gauge "stream_outbox" One ["stream", "target"]
        "Events that handlers have emitted to a stream of another slot of a cluster, and that are not there yet.";
    StreamOutboxOldest: Group Gauge "stream_outbox_oldest_seconds" Seconds ["stream", "target"]
        "Age of the oldest of these.";
    RetentionBlocked: Group Gauge "retention_blocked_seconds" Seconds ["stream", "group"]
        "For how long the group has kept the stream from being trimmed.";
    ProjectionLagEvents: Group Gauge "projection_lag_events" One ["projection"]
        "Events that the projection has not seen.";
    ProjectionLag: Group Gauge "projection_lag_seconds" Seconds ["projection"]
        "How far the projection is behind the youngest event.";
    RedisEvicts: Group Gauge "redis_evicts" One ["policy"]
        "1 if Redis deletes keys when its memory is full, by its `maxmemory-policy`; 0 if it doesn't.";
    RedisAppendOnly: Group Gauge "redis_append_only" One []
        "1 if Redis writes an append-only file; 0 if what was acknowledged may be lost with the server.";
}

impl Id {
    /// Its row.
    pub fn metric(self) -> &'static Metric {
        &TABLE[self as usize].1
    }

    /// The octaves, as powers of two, by which its buckets are shown where only few can be: of a histogram.
    pub fn octaves(self) -> RangeInclusive<i32> {
        match self {
            // From 61 µs to 17 min.
            Id::ProcessDuration => -14..=10,
            // From 1 ms to a day and a half.
            Id::Wait | Id::EndToEnd => -10..=17,
            Id::Attempts => 0..=8,
            // From 31 ms to 4 min.
            Id::LeaseMargin => -5..=8,
            // From 61 µs to 16 s.
            _ => -14..=4,
        }
    }

    /// The metric of this name, with or without [`PREFIX`].
    pub fn of(name: &str) -> Option<Id> {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        let row = TABLE.iter().find(|(_, metric)| metric.name == name);
        row.map(|(id, _)| *id)
    }
}

impl Metric {
    /// Its name in OpenMetrics and OTLP: a counter's has no `_total`.
    pub fn family(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_are_in_the_order_of_their_ids_and_keep_to_the_rules_of_names() {
        let mut names = HashSet::new();
        for (at, (id, metric)) in TABLE.iter().enumerate() {
            let Metric { name, .. } = metric;
            assert_eq!(*id as usize, at);
            assert_eq!((id.metric(), Id::of(name)), (metric, Some(*id)));
            assert_eq!(Id::of(&format!("{PREFIX}{name}")), Some(*id));
            assert!(names.insert(metric.family()), "{name} is there twice");
            assert_eq!(
                metric.kind == Kind::Counter,
                name.ends_with("_total"),
                "{name}"
            );
            let unit = match metric.unit {
                Unit::One => "",
                Unit::Seconds => "_seconds",
                Unit::Bytes => "_bytes",
            };
            assert!(metric.family().ends_with(unit), "{name}");
            assert!(
                metric.help.ends_with('.') && !metric.help.contains(['\\', '\n']),
                "{name}"
            );
            let mut labels = HashSet::new();
            assert!(
                metric
                    .labels
                    .iter()
                    .all(|label| labels.insert(label) && *label != "le")
            );
        }
    }
}
