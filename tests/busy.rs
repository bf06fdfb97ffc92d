//! Workers whose slots are full: what a dead worker held comes before what is new, and starves nothing else.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use crate::support::jobs::{self, Action, Job, Trace, many};
use crate::support::{InProcess, Server, Setup, WorkerProcess, dead, eventually, pending};

const PATIENCE: Duration = Duration::from_secs(40);
const LEASE: Duration = Duration::from_secs(1);
/// Of so many entries that start one may be another than a reclaimed one.
const TURN: usize = 8;

fn setup(server: &Server, concurrency: usize) -> Setup {
    Setup::new(server)
        .worker("lease = \"1s\"")
        .worker(&format!("concurrency = {concurrency}"))
}

/// A worker that runs so many jobs until it is killed; elsewhere each then takes so many milliseconds.
async fn holder(server: &Server, count: usize, ms: u64) -> WorkerProcess {
    let mut redis = server.connect().await;
    let held = many("held", count, &Action::TakeOrLess(120_000, ms));
    jobs::publish(&mut redis, "jobs", &held).await;
    let holder = setup(server, count).process();
    eventually(PATIENCE, "the holder to run all of them", async || {
        jobs::started(&mut redis).await.len() == count
    })
    .await;
    holder
}

/// Waits until workers that have just started may take over, and have their slots full.
async fn busy(redis: &mut MultiplexedConnection, slots: usize) {
    let since = Instant::now();
    eventually(PATIENCE, "them to be busy for a while", async || {
        let started = jobs::started(redis).await;
        let others = started.iter().filter(|trace| !is_held(trace));
        others.count() >= slots && since.elapsed() > LEASE * 3 / 2
    })
    .await;
}

fn is_held(trace: &Trace) -> bool {
    trace.id.starts_with("held-")
}

/// Waits until all that the dead worker held has started again. What started from the first of it to the last, in its
/// order.
async fn taken_over(redis: &mut MultiplexedConnection, count: usize) -> Vec<Trace> {
    let again = |trace: &Trace| is_held(trace) && trace.attempt == 2;
    let started = eventually(PATIENCE, "all of it to be taken over", async || {
        let started = jobs::started(redis).await;
        match started.iter().filter(|trace| again(trace)).count() {
            all if all == count => Ok(started),
            some => Err(format!("{some} of {count}")),
        }
    })
    .await;
    let first = started.iter().position(again).expect("some");
    let last = started.iter().rposition(again).expect("some");
    started[first..=last].to_vec()
}

/// A worker is killed that held 40 entries, and the others have more to do than they will ever get done.
async fn a_dead_workers_come_first(server: Server, workers: usize, concurrency: usize) {
    const HELD: usize = 40;
    let mut redis = server.connect().await;
    let mut holder = holder(&server, HELD, 300).await;
    let slots = workers * concurrency;
    let backlog = many("new", slots * 200, &Action::TakeUnseen(300));
    jobs::publish(&mut redis, "jobs", &backlog).await;
    let setup = setup(&server, concurrency);
    let fleet: Vec<InProcess> = (0..workers).map(|_| setup.start()).collect();
    busy(&mut redis, slots).await;

    holder.kill();
    let killed = jobs::now_ms();
    let started = taken_over(&mut redis, HELD).await;
    let others = started.iter().filter(|trace| !is_held(trace)).count();
    let took = started.last().expect("some").at.saturating_sub(killed);
    println!("{slots} slots: {HELD} taken over within {took} ms, {others} others in between");
    assert!(
        others <= HELD / (TURN - 1) + 4 * slots,
        "{others} others started among them"
    );
    let handlers = 300 * HELD.div_ceil(slots) as u64;
    let most = LEASE.as_millis() as u64 + 1_000 + handlers;
    assert!(took < most + 2_000, "{took} ms, for {most}");
    drop(fleet);
}

on_both_servers! {
    async fn a_worker_with_four_busy_slots_takes_over_at_once(server: Server) {
        a_dead_workers_come_first(server, 1, 4).await;
    }

    async fn a_worker_with_sixteen_busy_slots_takes_over_at_once(server: Server) {
        a_dead_workers_come_first(server, 1, 16).await;
    }

    async fn two_busy_workers_take_over_at_once(server: Server) {
        a_dead_workers_come_first(server, 2, 4).await;
    }

    async fn a_worker_with_one_slot_takes_over_one_after_the_other_without_a_pause(server: Server) {
        let mut redis = server.connect().await;
        let mut holder = holder(&server, 20, 20).await;
        let worker = setup(&server, 1).start();
        let since = Instant::now();
        eventually(PATIENCE, "it to be there for a lease", async || since.elapsed() > LEASE * 3 / 2).await;
        holder.kill();
        let started = taken_over(&mut redis, 20).await;
        let gaps = started.windows(2).map(|two| two[1].at.saturating_sub(two[0].at));
        let longest = gaps.max().expect("some");
        println!("the longest pause: {longest} ms");
        assert!(longest < LEASE.as_millis() as u64 / 2, "a pause of {longest} ms");
        worker.stop().await;
    }

    /// Quick handlers have had the worker take many entries, and those turn out to be slow ones.
    async fn what_a_worker_holds_already_waits_for_what_it_takes_over(server: Server) {
        const HELD: usize = 12;
        let mut redis = server.connect().await;
        let mut holder = holder(&server, HELD, 50).await;
        jobs::publish(&mut redis, "jobs", &many("quick", 10_000, &Action::Nothing)).await;
        jobs::publish(&mut redis, "jobs", &many("slow", 700, &Action::TakeUnseen(400))).await;
        let worker = setup(&server, 4).start();
        busy(&mut redis, 4).await;
        let held = pending(&mut redis, "jobs").await;
        let most = held.iter().map(|(_, count)| *count).max().expect("some");
        println!("the busiest worker holds {most}");
        assert!(most > 60, "nothing waits in the worker: {held:?}");
        holder.kill();
        let started = taken_over(&mut redis, HELD).await;
        let others = started.iter().filter(|trace| !is_held(trace)).count();
        assert!(others <= HELD / (TURN - 1) + 2 * 4, "{others} others started among them");
        drop(worker);
    }

    /// Seven of eight for what a dead worker held; the rest, and all before, in halves.
    async fn new_due_and_reclaimed_entries_have_their_shares(server: Server) {
        const HELD: usize = 84;
        let mut redis = server.connect().await;
        let mut holder = holder(&server, HELD, 100).await;
        jobs::publish(&mut redis, "jobs", &many("due", 400, &Action::FailThenTake(1, 100))).await;
        // Another worker has had them fail.
        let before = setup(&server, 16).start();
        eventually(PATIENCE, "all of them to fail", async || {
            let started = jobs::started(&mut redis).await;
            started.iter().filter(|trace| trace.id.starts_with("due-") && trace.attempt == 1).count() == 400
        })
        .await;
        before.stop().await;
        jobs::publish(&mut redis, "jobs", &many("new", 1_200, &Action::TakeUnseen(100))).await;
        let worker = setup(&server, 4).start();
        let of = |traces: &[Trace], name: &str| {
            let second = |trace: &&Trace| trace.id.starts_with(name) && (name != "due-" || trace.attempt == 2);
            traces.iter().filter(second).count()
        };
        let before = eventually(PATIENCE, "new ones to be handled", async || {
            let started = jobs::started(&mut redis).await;
            if of(&started, "new-") >= 40 { Ok(started) } else { Err(started.len()) }
        })
        .await;
        let first_new = before.iter().position(|trace| trace.id.starts_with("new-")).expect("some");
        let (due, new) = (of(&before[first_new..], "due-"), of(&before[first_new..], "new-"));
        println!("before: {due} due, {new} new");
        assert!(due >= new / 3 && new >= due / 3, "{due} due and {new} new");

        holder.kill();
        let started = taken_over(&mut redis, HELD).await;
        let (due, new) = (of(&started, "due-"), of(&started, "new-"));
        println!("among {HELD} reclaimed: {due} due, {new} new");
        assert!(due + new <= HELD / (TURN - 1) + 8, "{due} due and {new} new");
        assert!(due >= 2 && new >= 2, "{due} due and {new} new");
        drop(worker);
    }

    /// It kills three workers, the third while it runs alone, in front of a backlog that does not end.
    async fn what_kills_its_workers_is_buried_however_much_there_is_to_do(server: Server) {
        const ALL: usize = 3_000;
        let mut redis = server.connect().await;
        let setup = setup(&server, 4).retry("max_attempts = 3");
        jobs::publish(&mut redis, "jobs", &[Job::new("culprit", Action::AbortAfter(20))]).await;
        jobs::publish(&mut redis, "jobs", &many("new", ALL, &Action::TakeUnseen(150))).await;
        let mut fleet = [setup.process(), setup.process()];
        eventually(PATIENCE, "it to be buried", async || {
            for worker in &mut fleet {
                if worker.has_ended() {
                    *worker = setup.process();
                }
            }
            dead(&mut redis).await == 1
        })
        .await;
        assert_eq!(jobs::starts_of(&mut redis, "culprit").await, 3);
        let started = jobs::started(&mut redis).await.len();
        println!("{started} of {ALL} had started by then");
        assert!(started < ALL - 500, "the backlog was over");
    }
}
