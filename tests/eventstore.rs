//! Events of aggregates are stored once, in order, with what others are told of them, whatever happens.

mod category;
mod contract;
mod loading;
pub mod orders;
mod refusals;
mod repository;
pub mod shelf;
mod snapshots;
mod storm;
mod subscriptions;
mod updating;

use std::collections::HashSet;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::eventstore::{
    Append, AppendError, Appended, EventStore, Expected, MemoryEventStore, PublicStreams,
    RedisEventStore,
};
use streamhand::{Envelope, ErrorKind, Settings};
use tokio::time::sleep;

use self::shelf::{Shelf, event, events, ids, order, orders, said, stored};
use crate::support::{Proxy, Server, entries, scripts};

const PATIENCE: Duration = Duration::from_secs(30);

pub fn store_of(url: &str, public: PublicStreams) -> RedisEventStore {
    let settings = Settings::from_toml_str(&format!("[redis]\nurl = \"{url}\"\npool_size = 4"));
    RedisEventStore::new(&settings.expect("settings").redis, public).expect("a store")
}

/// A store on a server, and a look at its public streams.
struct OnServer {
    store: RedisEventStore,
    redis: MultiplexedConnection,
}

impl OnServer {
    async fn new(server: &Server, public: PublicStreams) -> Self {
        OnServer {
            store: store_of(&server.url(), public),
            redis: server.connect().await,
        }
    }
}

impl Shelf for OnServer {
    type Store = RedisEventStore;

    fn store(&self) -> &RedisEventStore {
        &self.store
    }

    async fn published(&self, stream: &str) -> Vec<Envelope> {
        published(&mut self.redis.clone(), stream).await
    }
}

pub async fn published(redis: &mut MultiplexedConnection, stream: &str) -> Vec<Envelope> {
    let entries = entries(redis, stream).await.into_iter();
    entries
        .map(|entry| Envelope::decode(entry.into()).expect("an event"))
        .collect()
}

pub async fn run(redis: &mut MultiplexedConnection, command: &[&str]) {
    let mut cmd = redis::cmd(command[0]);
    let _: redis::Value = cmd.arg(&command[1..]).query_async(redis).await.unwrap();
}

/// Any append to one or two of three aggregates, of a few events that are often the same.
fn any_append(random: &mut fastrand::Rng) -> Vec<Append> {
    let mut parts: Vec<Append> = Vec::new();
    for name in ["a", "b", "c"]
        .iter()
        .filter(|_| random.u8(..) < 110)
        .collect::<Vec<_>>()
    {
        let mut names: Vec<String> = Vec::new();
        let begin = random.u32(1..12);
        for n in begin..begin + random.u32(1..4) {
            let n = if random.u8(..) < 25 {
                random.u32(1..12)
            } else {
                n
            };
            let id = format!("{name}-{n}");
            if !names.contains(&id) {
                names.push(id);
            }
        }
        let expected = match random.u8(..6) {
            0 => Expected::NoStream,
            1 => Expected::Exists,
            2 => Expected::Any,
            _ => Expected::Exact(u64::from(begin - 1)),
        };
        let names: Vec<&str> = names.iter().map(|name| &name[..]).collect();
        let nameless = || vec![Envelope::new("order.changed"); names.len()];
        let events = if random.u8(..) < 80 {
            nameless()
        } else {
            events(&names)
        };
        parts.push(Append::new(order(name), events, expected));
    }
    parts
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    contract::kept(&MemoryEventStore::new(orders())).await;
}

on_both_servers! {
    async fn the_store_in_redis_keeps_the_contract(server: Server) {
        contract::kept(&OnServer::new(&server, orders()).await).await;
    }

    async fn both_stores_answer_alike_whatever_is_appended(server: Server) {
        let shelf = OnServer::new(&server, orders()).await;
        let mut redis = server.connect().await;
        let (mut seen, seed) = (HashSet::new(), fastrand::u64(..));
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..30 {
            run(&mut redis, &["FLUSHALL"]).await;
            let memory = MemoryEventStore::new(orders());
            for _ in 0..60 {
                let append = any_append(&mut random);
                let in_memory = said(&memory.append_all(append.clone()).await);
                let in_redis = said(&shelf.store.append_all(append.clone()).await);
                assert_eq!(in_redis, in_memory, "seed {seed}: {append:?}");
                seen.insert(in_redis.split([':', ' ']).next().unwrap().to_owned());
                seen.extend(in_redis.ends_with("again").then(|| "again".to_owned()));
            }
            // Ids that a store has made are its own.
            let given = |id: String| if id.len() == 36 { "made".to_owned() } else { id };
            for id in ["a", "b", "c"].map(order) {
                let stored = [ids(&shelf.store, &id).await, ids(&memory, &id).await];
                let [redis, memory] = stored.map(|ids| ids.into_iter().map(given).collect::<Vec<_>>());
                assert_eq!(redis, memory, "seed {seed}");
            }
            let told = |events: Vec<Envelope>| -> Vec<String> {
                events.iter().map(|event| given(event.id().into_owned())).collect()
            };
            assert_eq!(told(shelf.published("orders").await), told(memory.published("orders")), "seed {seed}");
        }
        for outcome in ["conflict", "overlap", "again"] {
            assert!(seen.contains(outcome), "seed {seed}: nothing came to {outcome}");
        }
    }

    async fn aggregates_are_spread_over_partitions_each_with_its_public_stream(server: Server) {
        let mut redis = server.connect().await;
        let shelf = OnServer::new(&server, orders().partitions(4).unwrap()).await;
        let public = shelf.store.public().clone();
        let all: Vec<_> = (0..24).map(|n| order(&format!("o-{n}"))).collect();
        for id in &all {
            shelf.store.append(id, vec![event(id.id()), event("then")], Expected::NoStream).await.unwrap();
            let stored = entries(&mut redis, &format!("{}:{id}", public.of(id))).await;
            assert_eq!(stored.iter().map(|entry| entry.id.to_string()).collect::<Vec<_>>(), ["1-0", "2-0"]);
        }
        for (partition, stream) in public.names().enumerate() {
            assert_eq!(stream, format!("{{orders:{partition}}}"));
            let mine: Vec<_> = all.iter().filter(|id| public.partition(id) == partition).collect();
            let told = shelf.published(stream).await;
            assert_eq!((told.len(), mine.is_empty()), (2 * mine.len(), false));
            assert!(mine.iter().zip(told.chunks(2)).all(|(id, told)| told[0].id() == id.id()));
        }
        let two = |a: usize, b: usize, name: &str| {
            let part = |at: usize| Append::new(all[at].clone(), vec![event(&format!("{name}-{at}"))], Expected::Exact(2));
            vec![part(a), part(b)]
        };
        let beside = (1..24).find(|n| public.partition(&all[*n]) == public.partition(&all[0])).unwrap();
        let apart = (1..24).find(|n| public.partition(&all[*n]) != public.partition(&all[0])).unwrap();
        assert_eq!(said(&shelf.store.append_all(two(0, beside, "x")).await), "3..=3 new, 3..=3 new");
        let refused = said(&shelf.store.append_all(two(0, apart, "y")).await);
        assert!(refused.contains("is in another partition"), "{refused}");
    }

    async fn an_append_whose_answer_got_lost_can_be_repeated(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let (store, id) = (store_of(&proxy.url(), orders()), order("o-1"));
        for (round, was_done) in [true, false, true].into_iter().enumerate() {
            let version = 2 * round as u64;
            let names = [format!("e-{version}"), format!("f-{version}")];
            let batch = || events(&[&names[0], &names[1]]);
            let step = scripts::call("append_events");
            let caught = if was_done { proxy.cut_after(step) } else { proxy.cut_before(step) };
            let lost = store.append(&id, batch(), Expected::Exact(version)).await.unwrap_err();
            let AppendError::Failed(error) = &lost else { panic!("{lost:?}") };
            assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
            caught.within(PATIENCE).await;
            let again = store.append(&id, batch(), Expected::Exact(version)).await.unwrap();
            assert_eq!((again.versions(), again.is_new), (version + 1..=version + 2, !was_done));
        }
        let all = stored(&store, &id, 1).await;
        let told = published(&mut redis, "orders").await;
        assert!(all.iter().map(|one| one.version).eq(1..=6) && told.len() == 6);
        assert!(all.iter().zip(&told).all(|(one, told)| one.envelope.id() == told.id() && one.position == told.entry_id()));
    }

    async fn what_stands_in_the_way_is_an_error_and_nothing_is_stored(server: Server) {
        let mut redis = server.connect().await;
        let store = store_of(&server.url(), orders());
        let failed = async |id: &str, expected| match store.append(&order(id), events(&["x-1", "x-2"]), expected).await {
            Err(AppendError::Failed(error)) => error,
            other => panic!("{other:?}"),
        };
        let one = store.append(&order("o-1"), events(&["e-1"]), Expected::NoStream).await.unwrap();
        assert!(one.is_new);

        run(&mut redis, &["SET", "{orders}:order:string", "no stream"]).await;
        let error = failed("string", Expected::Any).await;
        assert_eq!(error.kind(), ErrorKind::Redis);
        assert!(error.to_string().contains("WRONGTYPE {orders}:order:string holds something else"), "{error}");
        assert!(store.page(&order("string"), 1, 10).await.is_err());
        assert!(store.version(&order("string")).await.is_err());

        // Another stream, and an aggregate of which somebody has cut off the beginning.
        run(&mut redis, &["XADD", "{orders}:order:stranger", "1700000000000-0", "a", "b"]).await;
        store.append(&order("cut"), events(&["c-1", "c-2"]), Expected::NoStream).await.unwrap();
        run(&mut redis, &["XDEL", "{orders}:order:cut", "1-0"]).await;
        for id in ["stranger", "cut"] {
            let error = failed(id, Expected::Any).await.to_string();
            assert!(error.contains(&format!("does not begin with the first event of order:{id}")), "{error}");
        }
        let lacks = store.read(&order("cut"), 1).next().await.unwrap_err();
        assert!(lacks.to_string().contains("order:cut lacks its events 1 to 1"), "{lacks}");
        assert_eq!(store.read(&order("stranger"), 1).next().await.unwrap_err().kind(), ErrorKind::Codec);

        // Events that nobody has seen before go a shorter way, and meet the same.
        let nameless = || vec![Envelope::new("order.changed"); 2];
        let told = published(&mut redis, "orders").await.len();
        store.append(&order("end"), nameless(), Expected::NoStream).await.unwrap();
        run(&mut redis, &["XDEL", "{orders}:order:end", "2-0"]).await;
        for (id, expected, why) in [
            ("string", Expected::NoStream, "WRONGTYPE {orders}:order:string holds"),
            ("stranger", Expected::Exact(1), "does not begin with the first event"),
            ("cut", Expected::Exact(1), "does not begin with the first event"),
            ("end", Expected::Exact(1), "order:end is at version 2, and was expected at 1"),
        ] {
            let error = store.append(&order(id), nameless(), expected).await.unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        assert_eq!(published(&mut redis, "orders").await.len(), told + 2, "nothing is left of what was refused");
        run(&mut redis, &["DEL", "{orders}:order:end"]).await;

        run(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
        let full = store.append(&order("o-1"), nameless(), Expected::Exact(1)).await.unwrap_err();
        assert!(full.to_string().contains("maxmemory is reached"), "{full}");
        for (id, expected) in [("o-1", Expected::Exact(1)), ("o-2", Expected::NoStream)] {
            let full = failed(id, expected).await;
            assert!(full.to_string().contains("maxmemory is reached"), "{full}");
        }
        run(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
        assert_eq!((ids(&store, &order("o-1")).await, published(&mut redis, "orders").await.len()), (vec!["e-1".into()], 5));
        assert_eq!(store.version(&order("o-2")).await.unwrap(), 0);
        assert!(store.append(&order("o-1"), events(&["x-1"]), Expected::Exact(1)).await.unwrap().is_new);

        run(&mut redis, &["RENAME", "orders", "elsewhere"]).await;
        run(&mut redis, &["SET", "orders", "no stream"]).await;
        let error = store.append(&order("o-1"), nameless(), Expected::Exact(2)).await.unwrap_err().to_string();
        assert!(error.contains("WRONGTYPE orders holds something else"), "{error}");
        let error = failed("o-1", Expected::Exact(2)).await.to_string();
        assert!(error.contains("WRONGTYPE orders holds something else"), "{error}");
        assert_eq!(ids(&store, &order("o-1")).await, ["e-1", "x-1"]);
    }

    async fn positions_go_up_when_the_public_stream_is_deleted_in_between(server: Server) {
        let mut redis = server.connect().await;
        let (store, id) = (store_of(&server.url(), orders()), order("o-1"));
        let mut last = None;
        let nameless = |count| vec![Envelope::new("order.changed"); count];
        store.append(&id, nameless(5), Expected::NoStream).await.unwrap();
        for version in (5..500).step_by(5) {
            // A stream that was made anew is a millisecond ahead, of which no other knows.
            sleep(Duration::from_millis(3)).await;
            // Most of the time all of this happens within a millisecond, which only ids of one stream tell apart.
            for (first, append) in [(version, nameless(3)), (version + 3, nameless(1)), (version + 4, events(&[&format!("e-{version}")]))] {
                let done = store.append(&id, append, Expected::Exact(first)).await.unwrap();
                assert!(last < Some(done.positions[0]) && done.positions.is_sorted(), "{last:?} and then {done:?}");
                last = done.positions.last().copied();
                if first == version {
                    run(&mut redis, &["DEL", "orders"]).await;
                }
            }
        }
        let stored = stored(&store, &id, 1).await;
        assert!(stored.len() == 500 && stored.is_sorted_by_key(|event| event.position));
    }

    async fn memory_that_runs_short_within_an_append_does_not_stop_it(server: Server) {
        let mut redis = server.connect().await;
        let store = store_of(&server.url(), orders());
        let mut full = 0;
        for version in 0.. {
            let append: Vec<_> = (0..40).map(|n| event(&format!("{version}-{n}")).with("data", "x".repeat(20_000))).collect();
            let done: Result<Appended, _> = store.append(&order("o-1"), append, Expected::Exact(40 * (version - full))).await;
            full += u64::from(done.is_err());
            if version == 0 {
                // Room for one more append, and half of another.
                let info: redis::InfoDict = redis::cmd("INFO").arg("memory").query_async(&mut redis).await.unwrap();
                let used: u64 = info.get("used_memory").unwrap();
                run(&mut redis, &["CONFIG", "SET", "maxmemory", &(used + 2_000_000).to_string()]).await;
            } else if full == 3 {
                break;
            }
            let (stored, told) = (store.version(&order("o-1")).await.unwrap(), published(&mut redis, "orders").await.len());
            assert_eq!((stored, told as u64), (40 * (version + 1 - full), stored), "all or nothing");
        }
    }
}
