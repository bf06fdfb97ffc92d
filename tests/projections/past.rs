//! A view is made from the aggregates where the public stream does not have it all, and made anew from them.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::cli::Program;
use streamhand::eventstore::{AggregateEvent, EventStore, Expected, ProjectionView};
use streamhand::{Format, Registry, Settings};
use tokio::time::sleep;

use super::views::{
    ByStatus, FAILS_FOR_GOOD, InFour, PANICS, PATIENCE, agrees, any_event, checkpoint, happens,
    lag, names, registry, setup, store, view, view_of,
};
use crate::eventstore::orders::Added;
use crate::eventstore::shelf::order;
use crate::support::{Proxy, Server, Setup, WorkerProcess, entries, eventually, scripts};

/// What a process of this program is to do, and over how many partitions.
const ARGS: &str = "STREAMHAND_TEST_ARGS";
const PARTITIONS: &str = "STREAMHAND_TEST_PARTITIONS";

/// The last event of an aggregate happens once more, on a public stream that is just made, and nobody sees it there: that
/// is deleted at once, and may be made anew.
const HAPPENS_AND_IS_GONE: &str = r"
local t = redis.call('TIME')
local position = string.format('%.0f-0', t[1] * 1000 + math.floor(t[2] / 1000) + 1)
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local version = string.format('%d-0', string.match(last[1], '^%d+') + 1)
local fields = last[2]
for i = 1, #fields, 2 do
  if fields[i] == 'position' then fields[i + 1] = position end
  if fields[i] == 'id' then fields[i + 1] = 'again-' .. version end
end
redis.call('XADD', KEYS[2], version, unpack(fields))
redis.call('DEL', KEYS[1])
if ARGV[1] == 'anew' then redis.call('XGROUP', 'CREATE', KEYS[1], 'others', '$', 'MKSTREAM') end
";

#[test]
#[ignore = "run by other tests"]
fn program_with_views() {
    program_of(match std::env::var(PARTITIONS).as_deref() {
        Ok("4") => Registry::new().projection(InFour(ByStatus::default())),
        _ => registry(),
    });
}

/// What a process of this program does: a command with these projections. Never returns.
pub fn program_of(registry: Registry) -> ! {
    let args = std::env::var(ARGS).expect("arguments");
    let config = std::env::var("STREAMHAND_TEST_CONFIG").expect("a configuration");
    let args = ["streamhand", "--config", &config]
        .into_iter()
        .chain(args.split(' '));
    let code = match Program::new(registry).run_from(args) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            error.code().into()
        }
    };
    std::process::exit(code)
}

fn program(setup: &Setup, args: &str, partitions: u32) -> WorkerProcess {
    process_of("projections::past::program_with_views", setup, args)
        .env(PARTITIONS, partitions.to_string())
        .start()
}

/// A process that an ignored test is, which calls [`program_of`].
pub fn process_of(test: &str, setup: &Setup, args: &str) -> crate::support::ProcessBuilder {
    let process = WorkerProcess::builder().test(test);
    process.config(&setup.toml()).env(ARGS, args)
}

/// Runs a command to its end; answers its exit code and what it said.
pub async fn ran(setup: &Setup, args: &str, partitions: u32) -> (i32, String) {
    let mut process = program(setup, args, partitions);
    let status = process.wait(PATIENCE).await;
    (status.code().unwrap_or(-1), process.log())
}

/// Builds the view anew, and makes sure that it was.
pub async fn rebuilt(setup: &Setup, partitions: u32) {
    let (code, said) = ran(setup, "projection rebuild orders-by-status", partitions).await;
    assert!(
        code == 0 && said.contains("built orders-by-status anew"),
        "{code}: {said}"
    );
}

async fn trimmed(redis: &mut MultiplexedConnection, stream: &str) {
    let _: () = redis::cmd("XTRIM")
        .arg(stream)
        .arg("MAXLEN")
        .arg(0)
        .query_async(redis)
        .await
        .unwrap();
}

/// Generations of which there are keys.
async fn generations(redis: &mut MultiplexedConnection) -> BTreeSet<String> {
    let keys: Vec<String> = redis
        .keys("{orders}:orders-by-status:view:*")
        .await
        .unwrap();
    keys.iter()
        .map(|key| key.split(':').nth(3).unwrap().to_owned())
        .collect()
}

on_both_servers! {
    async fn a_projection_that_is_new_has_what_was_before_it(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(30));
        for n in 0..150 {
            happens(&store, &ids[fastrand::usize(..30)], (0..fastrand::usize(1..12)).map(|_| any_event())).await;
            match n {
                50 => trimmed(&mut redis, "orders").await,
                // Whoever looks only at what it has now would think that nothing is missing.
                100 => redis.del("orders").await.unwrap(),
                _ => {}
            }
        }
        let worker = setup(&server).start_with(registry());
        for _ in 0..50 {
            happens(&store, &ids[fastrand::usize(..30)], [any_event()]).await;
        }
        agrees(&mut redis, &store, &ids, &[]).await;
        eventually(PATIENCE, "no lag", async || lag(&mut redis, "orders").await == Some(0)).await;
        worker.stop().await;
    }

    async fn nothing_is_missed_where_the_stream_was_made_anew_a_moment_ago(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(1));
        let worker = setup(&server).start_with(registry());
        happens(&store, &ids[0], [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        for and in ["gone", "anew"].repeat(4) {
            // Each may begin a little ahead of the clock: not again and again within so little.
            sleep(Duration::from_millis(5)).await;
            let happens_and_is_gone = redis::Script::new(HAPPENS_AND_IS_GONE);
            let mut call = happens_and_is_gone.key("orders");
            call.key(format!("{{orders}}:order:{}", ids[0]));
            call.arg(and);
            call.invoke_async::<()>(&mut redis).await.unwrap();
            agrees(&mut redis, &store, &ids, &[]).await;
        }
        worker.stop().await;
    }

    async fn what_was_trimmed_before_it_was_seen_is_read_from_the_aggregates(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(5));
        let worker = setup(&server).start_with(registry());
        happens(&store, "o-0", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        worker.stop().await;
        for round in 0..4 {
            for _ in 0..20 {
                happens(&store, &ids[fastrand::usize(..5)], [any_event(), any_event()]).await;
            }
            match round {
                0 => trimmed(&mut redis, "orders").await,
                1 => redis::cmd("XTRIM").arg("orders").arg("MAXLEN").arg(7).query_async(&mut redis).await.unwrap(),
                2 => redis.del("orders").await.unwrap(),
                // One in the middle, by hand.
                _ => {
                    let all = entries(&mut redis, "orders").await;
                    let _: () = redis.xdel("orders", &[all[all.len() - 9].id.to_string()]).await.unwrap();
                }
            }
            if round % 2 == 1 {
                happens(&store, &ids[fastrand::usize(..5)], [any_event()]).await;
            }
            let worker = setup(&server).start_with(registry());
            agrees(&mut redis, &store, &ids, &[]).await;
            // And while it looks on.
            happens(&store, &ids[fastrand::usize(..5)], [any_event()]).await;
            trimmed(&mut redis, "orders").await;
            happens(&store, &ids[fastrand::usize(..5)], [any_event()]).await;
            agrees(&mut redis, &store, &ids, &[]).await;
            worker.stop().await;
        }
    }

    async fn a_view_is_built_anew_while_the_old_one_is_served_and_kept_up(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(30));
        let setup = setup(&server);
        let worker = setup.start_with(registry());
        for _ in 0..150 {
            happens(&store, &ids[fastrand::usize(..30)], (0..fastrand::usize(1..12)).map(|_| any_event())).await;
        }
        agrees(&mut redis, &store, &ids, &[]).await;
        trimmed(&mut redis, "orders").await;
        // What is wrong with the old one is not carried over.
        let _: () = redis.hincr("{orders}:orders-by-status:view:1:counts", "created", 1000).await.unwrap();
        let writing = {
            let (store, ids) = (store.clone(), ids.clone());
            tokio::spawn(async move {
                loop {
                    happens(&store, &ids[fastrand::usize(..30)], [any_event()]).await;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        };
        let settings = Settings::from_toml_str(&format!("[redis]\nurl = \"{}\"", server.url())).unwrap();
        let reader = ProjectionView::of::<ByStatus>(&settings.redis).unwrap();
        let reading = {
            let mut redis = redis.clone();
            tokio::spawn(async move {
                let (mut least, mut seen) = (0, 0);
                while seen < u64::MAX {
                    let keys = reader.keys("versions").await.unwrap();
                    assert_eq!(keys.len(), 1);
                    let versions: Vec<u64> = redis.hvals(&keys[0]).await.unwrap();
                    let events = versions.iter().sum::<u64>();
                    assert!(events >= least, "{} had {events} events after {least}", keys[0]);
                    (least, seen) = (events, seen + 1);
                }
            })
        };
        let building = program(&setup, "projection rebuild orders-by-status", 1);
        let mut building = building;
        let status = building.wait(PATIENCE).await;
        assert!(status.success(), "{}", building.log());
        assert!(!reading.is_finished(), "the view could be read all the time: {:?}", reading.await);
        reading.abort();
        writing.abort();
        let _ = writing.await;
        assert_eq!(checkpoint(&mut redis, "{orders}").await["generation"], "2");
        agrees(&mut redis, &store, &ids, &[]).await;
        eventually(PATIENCE, "no lag", async || lag(&mut redis, "orders").await == Some(0)).await;
        assert_eq!(generations(&mut redis).await, ["2".to_owned()].into());
        assert!(!redis.exists::<_, bool>("{orders}:orders-by-status:rebuild").await.unwrap());
        worker.stop().await;
    }

    async fn a_rebuild_that_is_interrupted_leaves_the_old_view_and_can_be_begun_again(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let (store, ids) = (store(&server, 1), names(10));
        let setup = setup(&server).worker("lease = \"1500ms\"");
        let worker = setup.start_with(registry());
        for _ in 0..100 {
            happens(&store, &ids[fastrand::usize(..10)], (0..fastrand::usize(5..12)).map(|_| any_event())).await;
        }
        agrees(&mut redis, &store, &ids, &[]).await;
        let held = proxy.hold_request(scripts::call("project").second());
        let through = Setup::at(proxy.url()).worker("lease = \"1500ms\"");
        let mut building = program(&through, "projection rebuild orders-by-status", 1);
        let release = held.within(PATIENCE).await;
        assert_eq!(generations(&mut redis).await, ["1".to_owned(), "2".to_owned()].into());
        let (code, said) = ran(&setup, "projection rebuild orders-by-status", 1).await;
        assert!(code == 1 && said.contains("builds orders-by-status of orders anew"), "{code}: {said}");
        let (_, listed) = ran(&setup, "projection list", 1).await;
        assert!(listed.contains("generation 2 of orders-by-status is being built"), "{listed}");
        building.kill();
        happens(&store, "o-0", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        assert_eq!(checkpoint(&mut redis, "{orders}").await["generation"], "1");
        eventually(PATIENCE, "a rebuild that may begin", async || {
            ran(&setup, "projection rebuild orders-by-status", 1).await.0 == 0
        })
        .await;
        agrees(&mut redis, &store, &ids, &[]).await;
        let now = checkpoint(&mut redis, "{orders}").await["generation"].clone();
        assert!(now.parse::<u64>().unwrap() >= 3, "{now}");
        assert_eq!(generations(&mut redis).await, [now].into());
        // What was held comes now, and finds that it is over.
        release.now();
        happens(&store, "o-0", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        worker.stop().await;
    }

    async fn a_rebuild_that_lacks_an_aggregate_is_not_served(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(3));
        let setup = setup(&server);
        let worker = setup.start_with(registry());
        for id in &ids {
            happens(&store, id, [any_event(), any_event()]).await;
        }
        agrees(&mut redis, &store, &ids, &[]).await;
        let before = view(&mut redis, "{orders}").await;
        let _: () = redis.rename("{orders}:order:o-1", "kept").await.unwrap();
        let _: () = redis.set("{orders}:order:o-1", "no aggregate").await.unwrap();
        let (code, said) = ran(&setup, "projection rebuild orders-by-status", 1).await;
        assert!(code == 1 && said.contains("order:o-1 has been overwritten: its key {orders}:order:o-1 holds a string"), "{code}: {said}");
        assert_eq!(checkpoint(&mut redis, "{orders}").await["generation"], "1");
        assert_eq!(view(&mut redis, "{orders}").await, before);
        let _: () = redis.rename("kept", "{orders}:order:o-1").await.unwrap();
        rebuilt(&setup, 1).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        worker.stop().await;
    }

    async fn a_rebuild_that_is_told_to_stop_leaves_the_old_view_and_holds_nobody_up(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let (store, ids) = (store(&server, 1), names(10));
        let setup = setup(&server).worker("lease = \"30s\"");
        let worker = setup.start_with(registry());
        for _ in 0..100 {
            happens(&store, &ids[fastrand::usize(..10)], (0..fastrand::usize(5..12)).map(|_| any_event())).await;
        }
        agrees(&mut redis, &store, &ids, &[]).await;
        let held = proxy.hold_request(scripts::call("project").second());
        let through = Setup::at(proxy.url()).worker("lease = \"30s\"");
        let mut building = program(&through, "projection rebuild orders-by-status", 1);
        let release = held.within(PATIENCE).await;
        building.terminate();
        // It hears of it while its request is on the way.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        release.now();
        assert_eq!(building.wait(PATIENCE).await.code(), Some(1), "{}", building.log());
        let said = building.log();
        assert!(said.contains("stopped; the view of orders-by-status that is served stays as it was"), "{said}");
        assert_eq!(checkpoint(&mut redis, "{orders}").await["generation"], "1");
        // Its lease of half a minute holds nobody up.
        rebuilt(&setup, 1).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        worker.stop().await;
    }

    async fn all_partitions_are_built_anew(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 4), names(20));
        for _ in 0..100 {
            happens(&store, &ids[fastrand::usize(..20)], [any_event(), any_event()]).await;
        }
        for stream in store.public().names() {
            trimmed(&mut redis, stream).await;
        }
        let setup = setup(&server);
        let worker = setup.start_with(Registry::new().projection(InFour(ByStatus::default())));
        agrees(&mut redis, &store, &ids, &[]).await;
        let _: () = redis.del("{orders:2}:orders-by-status:view:1:counts").await.unwrap();
        rebuilt(&setup, 4).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        let (code, listed) = ran(&setup, "projection list --json", 4).await;
        // Behind what the test's harness has begun to say.
        let json = &listed[listed.find('{').expect("JSON")..=listed.rfind('}').expect("JSON")];
        let listed: serde_json::Value = serde_json::from_str(json).unwrap();
        let all = listed["projections"].as_array().unwrap();
        assert!(code == 0 && all.len() == 4);
        assert!(all.iter().all(|one| one["generation"] == 2 && one["state"] == "running" && one["lag"] == 0), "{listed}");
        worker.stop().await;
    }

    async fn a_live_view_and_one_that_was_built_anew_are_the_same_whatever_happened(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(6));
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let setup = setup(&server);
        let letters = async |redis: &mut MultiplexedConnection| -> Vec<_> {
            let letters = entries(redis, "{orders}:orders-by-status:dead").await.into_iter();
            letters.map(|letter| letter.fields.into_iter().filter(|(name, _)| name != "dead.at" && name != "dead.consumer" && name != "dead.first_delivered").collect::<Vec<_>>()).collect()
        };
        let worker = setup.start_with(registry());
        for round in 1..4 {
            for _ in 0..random.usize(20..120) {
                let id = &ids[random.usize(..6)];
                match random.u8(..20) {
                    0 => happens(&store, id, [Added { cents: FAILS_FOR_GOOD }.into()]).await,
                    1 => happens(&store, id, [Added { cents: PANICS }.into(), any_event()]).await,
                    2 => {
                        let garbage = streamhand::Envelope::new("order.created").json(&random.u8(..)).unwrap();
                        store.append(&order(id), vec![garbage], Expected::Any).await.unwrap();
                    }
                    3 => trimmed(&mut redis, "orders").await,
                    4 => {
                        let two = [order("o-0"), order("o-5")].map(|id| {
                            let events = (0..3).map(|_| any_event().encode(Format::MessagePack).unwrap()).collect();
                            streamhand::eventstore::Append::new(id, events, Expected::Any)
                        });
                        store.append_all(two.into()).await.unwrap();
                    }
                    _ => happens(&store, id, (0..random.usize(1..5)).map(|_| any_event())).await,
                }
            }
            let last: String = {
                let info: redis::streams::StreamInfoStreamReply = redis.xinfo_stream("orders").await.unwrap();
                info.last_generated_id
            };
            eventually(PATIENCE, "all of it to be passed", async || checkpoint(&mut redis, "{orders}").await["position"] == last).await;
            let live = (view(&mut redis, "{orders}").await, letters(&mut redis).await, checkpoint(&mut redis, "{orders}").await["bad"].clone());
            rebuilt(&setup, 1).await;
            let anew = (view(&mut redis, "{orders}").await, letters(&mut redis).await, checkpoint(&mut redis, "{orders}").await["bad"].clone());
            assert_eq!((&live.0, &live.2), (&anew.0, &anew.2), "seed {seed}, round {round}");
            for (live, anew) in live.1.iter().zip(&anew.1) {
                assert_eq!(live, anew, "seed {seed}, round {round}");
            }
            assert_eq!(live.1.len(), anew.1.len(), "seed {seed}, round {round}");
            assert_eq!(checkpoint(&mut redis, "{orders}").await["generation"], (round + 1).to_string());
            assert!(view_of(&mut redis, "{orders}", &round.to_string()).await.is_empty());
        }
        worker.stop().await;
    }
}
