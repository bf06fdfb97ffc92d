//! What an observer is told of every entry: that its handler started and what it was settled as, or that it left without
//! one. Never one of the two alone, and never both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamhand::dead_letters::Reason;
use streamhand::{Context, EntryId, Failure, Observer, Outcome, Registry, Settled, Unstarted};

use crate::support::letters::fields;
use crate::support::{Server, Setup, add, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// What was told, by entry.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    delivered: usize,
    by_entry: BTreeMap<EntryId, Vec<String>>,
}

impl Watch {
    fn note(&self, entry: EntryId, what: String) {
        self.0
            .lock()
            .unwrap()
            .by_entry
            .entry(entry)
            .or_default()
            .push(what);
    }

    fn of(&self, entry: &str) -> Vec<String> {
        let told = self.0.lock().unwrap();
        told.by_entry
            .get(&entry.parse().unwrap())
            .cloned()
            .unwrap_or_default()
    }

    /// Whether each start has its end, and each delivery one or the other.
    fn balance(&self) -> Result<(), String> {
        let told = self.0.lock().unwrap();
        let count = |what: &str| {
            let all = told.by_entry.values().flatten();
            all.filter(|one| one.starts_with(what)).count()
        };
        let (started, settled, unstarted) =
            (count("started"), count("settled"), count("unstarted"));
        if started == settled && told.delivered == settled + unstarted {
            return Ok(());
        }
        Err(format!(
            "{} delivered, {started} started, {settled} settled, {unstarted} unstarted: {:#?}",
            told.delivered, told.by_entry
        ))
    }
}

impl Observer for Watch {
    fn delivered(&self, stream: &str, entries: usize) {
        assert_eq!(stream, "jobs");
        self.0.lock().unwrap().delivered += entries;
    }

    fn started(&self, context: &Context) {
        self.note(context.envelope().entry_id(), "started".to_owned());
    }

    fn settled(&self, settled: &Settled<'_>) {
        let entry = settled.context.envelope().entry_id();
        self.note(
            entry,
            says(
                "settled",
                settled.outcome,
                settled.error,
                settled.reason,
                settled.delay,
            ),
        );
    }

    fn unstarted(&self, left: &Unstarted<'_>) {
        assert_eq!(left.stream, "jobs");
        self.note(
            left.entry,
            says(
                "unstarted",
                left.outcome,
                left.error,
                left.reason,
                left.delay,
            ),
        );
    }
}

fn says(
    what: &str,
    outcome: Outcome,
    error: Option<&str>,
    reason: Option<Reason>,
    delay: Option<Duration>,
) -> String {
    let reason = reason
        .map(|reason| format!(" {reason}"))
        .unwrap_or_default();
    let delay = delay
        .map(|delay| format!(" for {delay:?}"))
        .unwrap_or_default();
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    format!("{what} {outcome:?}{reason}{delay}{error}")
}

on_both_servers! {
    async fn an_observer_is_told_of_each_entry_what_it_was_and_why(server: Server) {
        let mut redis = server.connect().await;
        let registry = Registry::new()
            .on_raw("test.fine", |_, _| async { Ok(()) })
            .on_raw("test.never", |_, _| async { Err(Failure::permanent("no such card")) })
            .on_raw("test.once", |_, _| async { Err("no stock".into()) })
            .on_raw("test.later", |_, _| async { Err(Failure::later(Duration::from_secs(60), "not yet")) })
            .on_raw("test.panics", |_, _| async { panic!("oh") })
            .ignore("test.ignored");
        let watch = Watch::default();
        let setup = Setup::new(&server)
            .retry("backoff = { initial = \"60s\", factor = 1.0, jitter = 0.0 }")
            .more("[handlers.\"test.fine\"]\ndeduplicate = \"1h\"\n[handlers.\"test.panics\"]\nmax_attempts = 1");
        let worker = setup.start_observed(registry, watch.clone());
        let mut told = BTreeMap::new();
        let mut give = async |pairs: &[(&str, &str)], last: &str| {
            let id = add(&mut redis, "jobs", &fields(pairs)).await;
            let told_of = eventually(PATIENCE, format!("{last} to be told of {pairs:?}"), async || {
                let told_of = watch.of(&id);
                match told_of.last() {
                    Some(one) if one.starts_with(last) => Ok(told_of),
                    _ => Err(format!("{told_of:?}")),
                }
            })
            .await;
            told.insert(format!("{pairs:?}"), told_of.clone());
            told_of
        };
        let fine = [("type", "test.fine"), ("id", "e-1")];
        assert_eq!(give(&fine, "settled").await, ["started", "settled Succeeded"]);
        // A copy that comes before the first one's mark is there waits for it.
        let copy = give(&fine, "unstarted Duplicate").await;
        assert!(!copy.iter().any(|one| one.starts_with("started") || one.starts_with("settled")), "{copy:?}");
        let never = give(&[("type", "test.never")], "settled").await;
        assert_eq!(never, ["started", "settled Buried permanent: no such card"]);
        let once = give(&[("type", "test.once")], "settled").await;
        assert_eq!(once, ["started", "settled Retried for 60s: no stock"]);
        let later = give(&[("type", "test.later")], "settled").await;
        assert_eq!(later, ["started", "settled Released for 60s: not yet"]);
        let panics = give(&[("type", "test.panics")], "settled").await;
        assert_eq!(panics, ["started", "settled Buried failed: the handler panicked: oh"]);
        assert_eq!(give(&[("type", "test.ignored")], "unstarted").await, ["unstarted Ignored"]);
        let typeless = give(&[("data", "{}")], "unstarted").await;
        assert_eq!(typeless, ["unstarted Buried undecodable: the entry has no field `type`"]);
        let unknown = give(&[("type", "test.unknown")], "unstarted").await;
        let [unknown] = &unknown[..] else { panic!("{unknown:?}") };
        assert!(unknown.starts_with("unstarted Released for "), "{unknown}");
        assert!(unknown.ends_with(": no handler is registered for \"test.unknown\""), "{unknown}");
        worker.stop().await;
        watch.balance().unwrap();
    }

    async fn what_a_stop_gives_back_or_cuts_off_is_told_once(server: Server) {
        let mut redis = server.connect().await;
        let registry = Registry::new().on_raw("test.hangs", |_, _| std::future::pending());
        let watch = Watch::default();
        let worker = Setup::new(&server)
            .worker("drain = \"100ms\"")
            .worker("concurrency = 2")
            .more("[handlers.\"test.hangs\"]\nconcurrency = 1")
            .start_observed(registry, watch.clone());
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(add(&mut redis, "jobs", &fields(&[("type", "test.hangs")])).await);
        }
        eventually(PATIENCE, "a handler to start", async || !watch.of(&ids[0]).is_empty()).await;
        worker.stop().await;
        watch.balance().unwrap();
        let first = watch.of(&ids[0]);
        assert_eq!(
            first,
            ["started", "settled Released for 0ns: cut off when the worker's drain time was over"]
        );
        for id in &ids[1..] {
            let told = watch.of(id);
            assert!(told.iter().all(|one| one.starts_with("unstarted Released")), "{told:?}");
        }
    }
}
