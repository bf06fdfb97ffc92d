//! A hundred thousand parked entries: no burden while they wait, and no flood when they fall due.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::{EntryId, Observer, Outcome, Settled};
use tokio::sync::mpsc;

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Proxy, Server, Setup, eventually, parked, scripts, settled};

const PATIENCE: Duration = Duration::from_secs(60);
const PARKED: usize = 100_000;
const LIVE: usize = 500;
/// Most that a step takes: far from the 8,000 values at which Lua's unpack ends.
const STEP: usize = 500;
const RETRY: &str = "{jobs}:workers:retry";

on_both_servers! {
    /// Counted as they are sent, a script as one, and with live entries that come one by one, so that none shares a
    /// command with another. A look at a clock is all that parked entries may cost, and that is none of a live one's.
    async fn they_add_no_command_per_live_entry_while_they_wait(server: Server) {
        let mut redis = server.connect().await;
        let without = commands_of_live_entries(&server, &mut redis).await;
        park(&mut redis, Duration::from_secs(3600)).await;
        let with = commands_of_live_entries(&server, &mut redis).await;
        println!("{LIVE} live entries took {without} commands with none parked, {with} with {PARKED}");
        assert_eq!(parked(&mut redis).await, PARKED);
        let tolerance = LIVE as u64 / 10;
        assert!(without <= 2 * LIVE as u64 + tolerance, "{without}: a read and an acknowledgement each");
        assert!(with <= without + tolerance, "{with} commands instead of {without}");
    }

    /// The worker may hold more than Lua could carry, and is quick enough to want it.
    async fn when_all_fall_due_at_once_they_come_in_steps_and_starve_no_new_entry(server: Server) {
        let mut redis = server.connect().await;
        let due = park(&mut redis, Duration::ZERO).await;
        let first = jobs::publish(&mut redis, "jobs", &many("live", 100, &Action::Nothing)).await;
        let watch = Watch::default();
        let setup = Setup::new(&server).worker("prefetch = 50000");
        let worker = setup.start_observed(jobs::registry(), watch.clone());
        // What comes while they are being woken is not put off until all of them are.
        eventually(PATIENCE, "a good part to be handled", async || watch.count() > PARKED / 4).await;
        let late = jobs::publish(&mut redis, "jobs", &many("late", 100, &Action::Nothing)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(worker.stop().await.settled as usize, PARKED + 200);

        {
            let seen = watch.seen.lock().unwrap();
            println!("the largest step brought {}", seen.largest);
            assert!(seen.largest <= STEP, "a step brought {}", seen.largest);
            let once = |id: &String, attempt: u32| {
                let settled = seen.settled.get(&id.parse().unwrap()).map(|at| &at[..]);
                assert!(matches!(settled, Some([(_, tried)]) if *tried == attempt), "{id}: {settled:?}");
                settled.unwrap()[0].0
            };
            let last_due = due.iter().map(|id| once(id, 2)).max().unwrap();
            let last_of_first = first.iter().map(|id| once(id, 1)).max().unwrap();
            let last_of_late = late.iter().map(|id| once(id, 1)).max().unwrap();
            println!("new entries were done after {last_of_first} and {last_of_late} of {last_due}");
            assert!(last_of_first < PARKED / 20, "new entries were done only as number {last_of_first}");
            assert!(last_of_late < last_due, "entries that came later waited for all parked ones");
        }
        assert_eq!(parked(&mut redis).await, 0);
        let records: u64 = redis::cmd("HLEN").arg("{jobs}:workers:failures").query_async(&mut redis).await.unwrap();
        assert_eq!(records, 0);
    }
}

/// What a worker sends, all in all, for live entries that come one by one.
async fn commands_of_live_entries(server: &Server, redis: &mut MultiplexedConnection) -> u64 {
    let proxy = Proxy::start(server.port()).await;
    let (tell, mut handled) = mpsc::unbounded_channel();
    let setup = Setup::at(proxy.url()).worker("lease = \"30s\"");
    let worker = setup.start_observed(jobs::registry(), Tell(tell));
    jobs::publish(redis, "jobs", &[Job::new("first", Action::Nothing)]).await;
    handled.recv().await;
    let before = proxy.traffic().requests();
    for n in 0..LIVE {
        let job = Job::new(format!("live-{n}"), Action::Nothing);
        jobs::publish(redis, "jobs", &[job]).await;
        handled.recv().await;
    }
    let sent = proxy.traffic().requests() - before;
    worker.stop().await;
    sent
}

/// Tells of every entry that is handled.
struct Tell(mpsc::UnboundedSender<()>);

impl Observer for Tell {
    fn settled(&self, _: &Settled<'_>) {
        let _ = self.0.send(());
    }
}

/// Remembers everything.
#[derive(Clone, Default)]
struct Watch {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The largest delivery.
    largest: usize,
    count: usize,
    /// Of every entry that succeeded: as which, and at which attempt.
    settled: BTreeMap<EntryId, Vec<(usize, u32)>>,
}

impl Watch {
    fn count(&self) -> usize {
        self.seen.lock().unwrap().count
    }
}

impl Observer for Watch {
    fn delivered(&self, _: &str, entries: usize) {
        let mut seen = self.seen.lock().unwrap();
        seen.largest = seen.largest.max(entries);
    }

    fn settled(&self, settled: &Settled<'_>) {
        assert_eq!(settled.outcome, Outcome::Succeeded);
        let mut seen = self.seen.lock().unwrap();
        seen.count += 1;
        let place = (seen.count, settled.context.attempt());
        let id = settled.context.envelope().entry_id();
        seen.settled.entry(id).or_default().push(place);
    }
}

/// Parks entries as a worker does whose handlers failed; they are due after `delay`. Answers their ids.
async fn park(redis: &mut MultiplexedConnection, delay: Duration) -> Vec<String> {
    let worker = "sh1-30000-elsewhere-1-0000000000000000";
    let ids = jobs::publish(redis, "jobs", &many("parked", PARKED, &Action::Nothing)).await;
    let _: redis::Value = redis::cmd("XGROUP")
        .arg("CREATE")
        .arg("jobs")
        .arg("workers")
        .arg("0")
        .query_async(redis)
        .await
        .unwrap_or(redis::Value::Nil);
    scripts::load(redis).await;
    for chunk in ids.chunks(500) {
        let mut pipe = redis::pipe();
        pipe.cmd("XREADGROUP")
            .arg("GROUP")
            .arg("workers")
            .arg(worker);
        pipe.arg("COUNT")
            .arg(500)
            .arg("STREAMS")
            .arg("jobs")
            .arg(">")
            .ignore();
        pipe.cmd("EVALSHA").arg(scripts::hash("park")).arg(4);
        pipe.arg("jobs")
            .arg(RETRY)
            .arg("{jobs}:workers:failures")
            .arg("{jobs}:workers:waiting");
        let delay = delay.as_millis().to_string();
        let mut args = vec![
            "workers",
            worker,
            &chunk[0],
            &chunk[chunk.len() - 1],
            "",
            "",
            "",
        ];
        for id in chunk {
            // At its first delivery, a moment ago; the attempt counts, and it is not doomed.
            args.extend([
                &id[..],
                worker,
                "1",
                &delay,
                "0",
                "1",
                "-",
                "asked to fail",
                "-",
            ]);
        }
        pipe.arg(scripts::packed(&args));
        let (outcomes,): (Vec<String>,) = pipe.query_async(redis).await.unwrap();
        assert!(
            outcomes.iter().all(|outcome| outcome == "ok"),
            "{outcomes:?}"
        );
    }
    assert_eq!(parked(redis).await, PARKED);
    ids
}
