//! A chain of three handlers over three streams, each of which counts its event and emits the next: however its workers
//! die and freeze, every effect happens exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use serde::{Deserialize, Serialize};
use streamhand::{Context, Effect, Event, Failure, Registry};

use crate::support::{Server, Setup, WorkerProcess, entries, run_worker, settled};

const EVENTS: usize = 20_000;
const WORKERS: usize = 3;
const STORM: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct First {
    id: String,
}

#[derive(Serialize, Deserialize)]
struct Second {
    id: String,
}

#[derive(Serialize, Deserialize)]
struct Third {
    id: String,
}

impl Event for First {
    const TYPE: &'static str = "chain.first";
}

impl Event for Second {
    const TYPE: &'static str = "chain.second";
}

impl Event for Third {
    const TYPE: &'static str = "chain.third";
}

async fn first(First { id }: First, ctx: Context) -> Result<(), Failure> {
    ctx.effect(Effect::hincr_by("counted:first", &id, 1));
    ctx.emit("second", Second { id });
    Ok(())
}

/// Decides by itself, on a guard that refuses every third time.
async fn second(Second { id }: Second, ctx: Context) -> Result<(), Failure> {
    let refuses = id.bytes().map(usize::from).sum::<usize>() % 3 == 0;
    let least = if refuses { 1 << 40 } else { 0 };
    ctx.effect(Effect::incr_by("counted:sum", 1).at_least(least));
    ctx.effect(Effect::hincr_by("counted:second", &id, 1));
    ctx.emit("third", Third { id: id.clone() });
    if let streamhand::Committed::Refused(_) = ctx.commit().await? {
        ctx.effect(Effect::hincr_by("counted:refused", &id, 1));
        ctx.effect(Effect::hincr_by("counted:second", &id, 1));
        ctx.emit("third", Third { id });
    }
    Ok(())
}

async fn third(Third { id }: Third, ctx: Context) -> Result<(), Failure> {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..5))).await;
    ctx.effect(Effect::hincr_by("counted:third", &id, 1));
    Ok(())
}

/// A worker of the chain in a process of its own.
#[test]
#[ignore = "run by other tests"]
fn chain_worker_process() {
    run_worker(Registry::new().on(first).on(second).on(third));
}

fn start(setup: &Setup) -> WorkerProcess {
    let builder = WorkerProcess::builder().test("chain::chain_worker_process");
    builder.config(&setup.toml()).start()
}

on_both_servers! {
    /// In turns a worker is killed and replaced, and one is frozen for longer than its lease.
    async fn every_effect_happens_once_however_workers_die_and_freeze(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server)
            .worker("streams = [\"first\", \"second\", \"third\"]")
            .worker(&format!("lease = \"{}ms\"", LEASE.as_millis()))
            // A crash is nobody's fault here.
            .retry("max_attempts = 50");
        let mut fleet: Vec<WorkerProcess> = (0..WORKERS).map(|_| start(&setup)).collect();
        let (begin, mut published, mut kills, mut freezes) = (Instant::now(), 0, 0, 0);
        let mut frozen: Option<(usize, Instant)> = None;
        while published < EVENTS || begin.elapsed() < STORM {
            let due = EVENTS.min((EVENTS as f64 * begin.elapsed().as_secs_f64() / STORM.as_secs_f64()) as usize);
            let mut pipe = redis::pipe();
            for n in published..due {
                let (id, data) = (format!("e-{n}"), format!("{{\"id\":\"e-{n}\"}}"));
                pipe.cmd("XADD").arg("first").arg("*").arg(&["type", First::TYPE, "id", &id, "data", &data]).ignore();
            }
            if published < due {
                let _: () = pipe.query_async(&mut redis).await.unwrap();
            }
            published = due;
            let seconds = begin.elapsed().as_secs_f64();
            if frozen.is_none() && seconds > 2.0 * f64::from(freezes) + 0.5 {
                let victim = freezes as usize % WORKERS;
                fleet[victim].freeze();
                frozen = Some((victim, Instant::now()));
                freezes += 1;
            }
            if let Some((victim, _)) = frozen.take_if(|(_, since)| since.elapsed() > LEASE * 3 / 2) {
                fleet[victim].thaw();
            }
            if seconds > 1.1 * f64::from(kills) + 1.0 {
                let victim = (kills as usize + 1) % WORKERS;
                if frozen.is_none_or(|(frozen, _)| frozen != victim) {
                    fleet[victim].kill();
                    fleet[victim] = start(&setup);
                }
                kills += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if let Some((victim, _)) = frozen {
            fleet[victim].thaw();
        }
        for stream in ["first", "second", "third"] {
            settled(&mut redis, stream, PATIENCE).await;
        }
        let ids: BTreeSet<String> = (0..EVENTS).map(|n| format!("e-{n}")).collect();
        for step in ["first", "second", "third"] {
            let counted: BTreeMap<String, u64> = redis.hgetall(format!("counted:{step}")).await.unwrap();
            let more: Vec<_> = counted.iter().filter(|(_, times)| **times != 1).take(5).collect();
            assert!(more.is_empty(), "{step}: counted more than once: {more:?}");
            assert!(counted.keys().eq(&ids), "{step}: {} of {EVENTS} counted", counted.len());
            let dead: u64 = redis.xlen(format!("{{{step}}}:workers:dead")).await.unwrap();
            assert_eq!(dead, 0);
        }
        let (sum, refused): (usize, usize) =
            redis::pipe().get("counted:sum").hlen("counted:refused").query_async(&mut redis).await.unwrap();
        assert_eq!(sum + refused, EVENTS);
        for stream in ["second", "third"] {
            let emitted = entries(&mut redis, stream).await;
            let of = |name: &str| -> BTreeSet<_> {
                let field = |entry: &crate::support::Entry| entry.fields.iter().find(|(n, _)| n == name).unwrap().1.clone();
                emitted.iter().map(field).collect()
            };
            assert_eq!((emitted.len(), of("id").len(), of("causationid").len()), (EVENTS, EVENTS, EVENTS), "{stream}");
        }
        println!("{kills} kills, {freezes} freezes, in {:?}", begin.elapsed());
        assert!(kills >= 15 && freezes >= 8, "{kills} kills, {freezes} freezes");
    }
}
