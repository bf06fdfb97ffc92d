//! Operating a group from a program's own runtime: what the commands do, as calls that return what they print, and that
//! can be dropped half-way.

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::{FutureExt, Stream, TryStreamExt};
use redis::AsyncCommands;
use serde_json::{Value, json};
use streamhand::admin::{Admin, Cancelled, HeldBy, ProjectionState, ScheduledId, Standing, Unread};
use streamhand::dead_letters::Filter;
use streamhand::eventstore::{AggregateId, AppendError};
use streamhand::{EntryId, Envelope, ErrorKind, Publisher, Settings};
use tokio::sync::mpsc;

use crate::aggregates::ledger;
use crate::projections::views;
use crate::support::jobs::{self, Action};
use crate::support::letters::{AGAIN, DEAD, bury, bury_many, deliver, fields, settings};
use crate::support::{Cli, Proxy, Server, Setup, add, entries, eventually, scripts};

const PATIENCE: Duration = Duration::from_secs(30);

/// The group `fulfilment` of the stream `orders`.
fn admin(server: &Server) -> Admin {
    Admin::connect(&server.url(), "fulfilment", ["orders"]).expect("right names")
}

/// A value without its ages, which go on.
fn ageless(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.ends_with("_ms"));
            fields
                .values_mut()
                .for_each(|field| *field = ageless(field.take()));
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| *item = ageless(item.take())),
        _ => {}
    }
    value
}

/// What a command prints as JSON, and what a call returns as such.
async fn same(cli: &Cli, command: &[&str], called: &impl serde::Serialize) {
    let printed = cli.run(&[command, &["--json"]].concat()).await.json();
    assert_eq!(
        ageless(printed),
        ageless(serde_json::to_value(called).unwrap())
    );
}

/// Reads a list to its end by waits that are dropped before a page can be there. Returns how many were.
async fn by_dropped_waits<T>(
    proxy: &Proxy,
    list: &mut (impl Stream<Item = streamhand::Result<T>> + Unpin),
) -> (Vec<T>, u32) {
    let (mut all, mut dropped) = (Vec::new(), 0);
    loop {
        proxy.pause_replies();
        match list.try_next().now_or_never() {
            Some(next) => match next.expect("the list") {
                Some(item) => all.push(item),
                None => break,
            },
            None => {
                dropped += 1;
                proxy.resume_replies();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    proxy.resume_replies();
    (all, dropped)
}

on_both_servers! {
    async fn the_status_of_a_group_is_told_with_names(server: Server) {
        let mut redis = server.connect().await;
        let toml = "[worker]\nstreams = [\"orders\", \"empty\", \"text\"]\n[streams.orders]\nretention = \"acked\"\n";
        let settings = settings(&server, toml);
        let admin = Admin::with_publisher(&Publisher::new(&settings.redis).unwrap(), &settings);
        let _: () = redis.set("text", "no stream").await.unwrap();
        bury_many(&mut redis, 2).await;
        let pending = deliver(&mut redis, "orders", &fields(&[("type", "order.created"), ("data", "{}")])).await;
        add(&mut redis, "orders", &fields(&[("type", "order.created"), ("data", "{}")])).await;
        assert!(admin.pause("orders", "alice").await.unwrap().is_new);
        assert!(!admin.pause("orders", "bob").await.unwrap().is_new);
        assert!(admin.pause_handler("orders", "order.created", "carol").await.unwrap().is_new);

        let status = admin.status().await.unwrap();
        let [orders, empty, text] = &status.streams[..] else { panic!("{status:?}") };
        assert_eq!((&orders.kind[..], &empty.kind[..], &text.kind[..]), ("stream", "none", "string"));
        assert_eq!((orders.length, orders.dead, orders.dead_too_many, orders.parked), (4, 2, false, 0));
        let paused: Vec<_> = orders.paused.iter().map(|pause| (pause.handler.as_deref(), &pause.by[..])).collect();
        assert_eq!(paused, [(None, "alice"), (Some("order.created"), "carol")]);
        assert!(orders.now.duration_since(orders.paused[0].since).unwrap() < PATIENCE);
        let group = orders.group.as_ref().unwrap();
        let oldest = group.oldest_pending.map(|id| id.to_string());
        assert_eq!((group.lag, group.pending, oldest), (Some(1), 1, Some(pending.id)));
        let [consumer] = &group.consumers[..] else { panic!("{group:?}") };
        assert_eq!((consumer.standing, consumer.lease), (Standing::Working, Some(PATIENCE)));
        assert!(consumer.is_there() && orders.is_worked_on() && !empty.is_worked_on() && !orders.is_of_newer_release());
        let held = orders.retention.as_ref().unwrap().held.as_ref().unwrap();
        assert_eq!((&held.group[..], held.why, held.pending), ("fulfilment", HeldBy::Pending, 1));
        assert_eq!(admin.retention("orders").await.unwrap().unwrap().could_trim, Some(2));
        assert_eq!((&empty.retention, status.evicts), (&None, Some(false)));
        let cli = Cli::new(&server, toml);
        same(&cli, &["status"], &status).await;

        assert!(admin.resume("orders").await.unwrap().was_paused);
        assert!(!admin.resume("orders").await.unwrap().was_paused);
        assert!(admin.resume_handler("orders", "order.created").await.unwrap().was_paused);
        assert_eq!(admin.stream_status("orders").await.unwrap().paused, []);

        let other = admin.clone().for_group("billing").unwrap();
        assert_eq!(other.stream_status("orders").await.unwrap().group, None);
        for refused in [
            admin.pause("a{b", "x").await.unwrap_err(),
            admin.pause_handler("orders", "Order Created", "x").await.unwrap_err(),
            admin.stream_status("").await.unwrap_err(),
            admin.for_group("a:b").unwrap_err(),
            Admin::connect("http://localhost", "fulfilment", ["orders"]).unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
        }
    }

    async fn what_a_worker_does_is_told_and_a_pause_holds_it(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server);
        let admin = Admin::new(&Settings::from_toml_str(&setup.toml()).unwrap()).unwrap();
        admin.pause_handler("jobs", "test.job", "alice").await.unwrap();
        let worker = setup.start();
        jobs::publish(&mut redis, "jobs", &jobs::many("job", 3, &Action::Succeed)).await;
        eventually(PATIENCE, "a worker that is there", async || admin.stream_status("jobs").await.unwrap().is_worked_on()).await;
        assert_eq!(jobs::started(&mut redis).await.len(), 0);
        admin.resume_handler("jobs", "test.job").await.unwrap();
        eventually(PATIENCE, "the jobs to be handled", async || jobs::handled(&mut redis).await.len() == 3).await;
        worker.stop().await;
        let status = admin.status().await.unwrap();
        assert!(!status.streams[0].is_worked_on(), "{status:?}");
    }

    async fn what_is_scheduled_is_listed_and_cancelled_from_code(server: Server) {
        let admin = admin(&server);
        let settings = settings(&server, "");
        let publisher = Publisher::new(&settings.redis).unwrap();
        let hour = Duration::from_secs(3600);
        let event = |event_type: &str, id: &str, source: &str| {
            let event = Envelope::new(event_type).with("id", id).with("subject", "o-1").json(&json!({})).unwrap();
            if source.is_empty() { event } else { event.with("source", source) }
        };
        for (n, event) in [event("order.reminded", "one", "shop"), event("order.reminded", "two", ""), event("order.lost", "two", "")].into_iter().enumerate() {
            publisher.publish_envelope_after("orders", event, hour * (n as u32 + 1)).await.unwrap();
        }
        let all: Vec<_> = admin.scheduled("orders").unwrap().try_collect().await.unwrap();
        assert_eq!(all.iter().map(|event| &event.id[..]).collect::<Vec<_>>(), ["one", "two", "two"]);
        let cli = Cli::new(&server, "");
        same(&cli, &["scheduled", "list"], &all).await;
        let unread = admin.unread_schedule("orders").await.unwrap().unwrap();
        assert_eq!((unread.why, unread.overdue), (Unread::NeverRead, None));
        assert_eq!(admin.stream_status("orders").await.unwrap().scheduled_unread, Some(unread));

        let asked = [ScheduledId::new("one"), ScheduledId::new("none"), ScheduledId::new("two"), ScheduledId::new("two").of("order.lost", "")];
        let cancelled = admin.cancel_scheduled("orders", &asked).await.unwrap();
        assert_eq!(cancelled, [Cancelled::Yes, Cancelled::No, Cancelled::Which(2), Cancelled::Yes]);
        let left: Vec<_> = admin.scheduled("orders").unwrap().try_collect().await.unwrap();
        let [left] = &left[..] else { panic!("{left:?}") };
        assert_eq!((&left.stream[..], left.event.as_ref().unwrap().event_type()), ("orders", "order.reminded"));

        // More than one page has, by waits that are dropped; several of one time, which come in the order of their names.
        let many = (0..450).map(|n| event("order.reminded", &format!("many-{n}"), ""));
        for event in many {
            publisher.publish_envelope_after("orders", event, hour).await.unwrap();
        }
        let proxy = Proxy::start(server.port()).await;
        let through = Admin::connect(&proxy.url(), "fulfilment", ["orders"]).unwrap();
        let (events, dropped) = by_dropped_waits(&proxy, &mut through.scheduled("orders").unwrap()).await;
        let mut ids: Vec<_> = events.into_iter().map(|event| event.id).collect();
        let listed = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert!(dropped >= 3, "each page was waited for: {dropped}");
        assert_eq!((listed, ids.len()), (451, 451));
        assert_eq!(admin.scheduled("a{b").unwrap_err().kind(), ErrorKind::Invalid);
    }

    /// A lease of half a minute, which whoever drops it does not leave to others to wait for.
    async fn a_rebuild_that_is_dropped_half_way_leaves_the_old_view_and_can_be_begun_again(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let (store, ids) = (views::store(&server, 1), views::names(10));
        let setup = views::setup(&server).worker("lease = \"30s\"");
        let worker = setup.start_with(views::registry());
        for _ in 0..100 {
            let id = &ids[fastrand::usize(..10)];
            views::happens(&store, id, (0..8).map(|_| views::any_event())).await;
        }
        views::agrees(&mut redis, &store, &ids, &[]).await;
        let registry = views::registry();
        let projections = |setup: &Setup| {
            let settings = Settings::from_toml_str(&setup.toml()).unwrap();
            Admin::new(&settings).unwrap().projections(&registry).unwrap()
        };
        let through = projections(&Setup::at(proxy.url()).worker("lease = \"30s\""));
        let straight = projections(&setup);
        let never = std::future::pending::<()>;

        let held = proxy.hold_request(scripts::call("project").second());
        let mut building = Box::pin(through.rebuild("orders-by-status", never(), |_| ()));
        let release = tokio::select! {
            built = &mut building => panic!("not held: {built:?}"),
            release = held.within(PATIENCE) => release,
        };
        let [status] = &straight.list().await.unwrap()[..] else { panic!("one") };
        assert_eq!((status.state, status.generation), (ProjectionState::Running, Some(1)));
        assert_eq!(status.rebuild.as_ref().unwrap().generation, 2);
        let error = straight.rebuild("orders-by-status", never(), |_| ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
        drop(building);
        release.now();

        let mut built = 0;
        let done = eventually(Duration::from_secs(20), "a rebuild that may begin", async || {
            straight.rebuild("orders-by-status", never(), |so_far| built = so_far.built).await.ok()
        })
        .await;
        assert_eq!((done.built, built), (800, 800));
        views::agrees(&mut redis, &store, &ids, &[]).await;
        let [status] = &straight.list().await.unwrap()[..] else { panic!("one") };
        assert!(status.generation > Some(1) && status.rebuild.is_none(), "{status:?}");

        let stopped = straight.rebuild("orders-by-status", async {}, |_| ()).await.unwrap_err();
        assert!(stopped.to_string().contains("that is served stays as it was"), "{stopped}");
        assert_eq!(straight.resume("orders-by-status").await.unwrap(), []);
        let unknown = straight.resume("orders-by-colour").await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::Invalid);
        worker.stop().await;
    }

    async fn aggregates_are_looked_at_and_appended_to_from_code(server: Server) {
        let registry = ledger::registry();
        let accounts = admin(&server).aggregates(&registry).unwrap();
        assert_eq!(accounts.kinds().collect::<Vec<_>>(), ["account"]);
        let id: AggregateId = "account:a-1".parse().unwrap();
        assert_eq!(accounts.show(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(accounts.history(&id, 1).await.unwrap_err().kind(), ErrorKind::NotFound);

        let opened = accounts.event("account", "account.opened", r#"{"name":"Ada","currency":"EUR","coulour":"red"}"#).unwrap();
        assert_eq!(opened.left_out, ["coulour"]);
        let opened = opened.with_id("e-1").event;
        for is_new in [true, false] {
            let appended = accounts.append(&id, opened.clone(), Some(0)).await.unwrap();
            assert_eq!((appended.version, &appended.id[..], appended.is_new), (1, "e-1", is_new));
        }
        let deposited = |cents: u64| accounts.event("account", "account.deposited", &json!({ "cents": cents }).to_string()).unwrap().event;
        let conflict = accounts.append(&id, deposited(1), Some(7)).await.unwrap_err();
        assert_eq!(conflict.kind(), ErrorKind::Exists);
        let source = std::error::Error::source(&conflict).and_then(|source| source.downcast_ref::<AppendError>());
        assert_eq!(source.and_then(AppendError::conflict).map(|conflict| conflict.actual), Some(1));
        let refused = accounts.append(&id, deposited(ledger::PANICS), None).await.unwrap_err();
        assert!(refused.kind() == ErrorKind::Codec && refused.to_string().contains("nothing is stored"), "{refused}");
        for cents in 1..=200 {
            accounts.append(&id, deposited(cents), None).await.unwrap();
        }
        for (kind, event_type, data) in [("acount", "account.opened", "{}"), ("account", "account.lost", "{}"), ("account", "account.deposited", "{"), ("account", "account.deposited", "{}")] {
            let refused = accounts.event(kind, event_type, data).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
        }

        let shown = accounts.show(&id).await.unwrap();
        assert_eq!((shown.version, &serde_json::from_str::<Value>(shown.state.get()).unwrap()["cents"]), (201, &json!(20_100)));
        let cli = Cli::new(&server, "").of_test("aggregates::program");
        let printed = cli.run(&["aggregate", "show", id.as_str()]).await.json();
        assert_eq!(printed, serde_json::to_value(&shown).unwrap());
        let history = accounts.history(&id, 1).await.unwrap();
        assert_eq!(history.version, 201);
        let events: Vec<_> = history.events.try_collect().await.unwrap();
        let printed = cli.run(&["aggregate", "history", id.as_str(), "--json"]).await.json();
        assert_eq!(printed, serde_json::to_value(&events).unwrap());
        assert_eq!((events.len(), events[200].stored.version, events[1].data.as_ref().unwrap().get()), (201, 201, r#"{"cents":1}"#));

        let proxy = Proxy::start(server.port()).await;
        let through = Admin::connect(&proxy.url(), "fulfilment", ["orders"]).unwrap().aggregates(&registry).unwrap();
        let mut history = through.history(&id, 2).await.unwrap().events;
        let (events, dropped) = by_dropped_waits(&proxy, &mut history).await;
        let versions: Vec<_> = events.iter().map(|event| event.stored.version).collect();
        assert!(dropped >= 2, "each page was waited for: {dropped}");
        assert_eq!(versions, (2..=201).collect::<Vec<_>>());
    }

    async fn what_must_not_be_in_aggregates_is_found_from_code(server: Server) {
        let mut redis = server.connect().await;
        let registry = ledger::registry();
        let accounts = admin(&server).aggregates(&registry).unwrap();
        for id in ["a-1", "a-2", "a-3"] {
            let id = format!("account:{id}").parse().unwrap();
            for cents in 1..=5 {
                let data = json!({ "cents": cents }).to_string();
                accounts.append(&id, accounts.event("account", "account.deposited", &data).unwrap().event, None).await.unwrap();
            }
        }
        let mut ids: Vec<_> = accounts.list("account").unwrap().map_ok(|id| id.to_string()).try_collect().await.unwrap();
        ids.sort_unstable();
        assert_eq!(ids, ["account:a-1", "account:a-2", "account:a-3"]);
        let _: u64 = redis::cmd("XDEL").arg(&["{accounts}:account:a-2", "3-0"]).query_async(&mut redis).await.unwrap();

        let mut all: Vec<_> = accounts.verify([""; 0]).unwrap().try_collect().await.unwrap();
        all.sort_unstable_by_key(|one| one.aggregate.to_string());
        let found: Vec<_> = all.iter().map(|one| (one.aggregate.id(), one.events, one.problems.len())).collect();
        assert_eq!(found, [("a-1", 5, 0), ("a-2", 4, 1), ("a-3", 5, 0)]);
        assert_eq!(all[1].problems[0].version, Some(3));
        let some: Vec<_> = accounts.verify(["account:a-3", "account:a-9", "account:a-1"]).unwrap().try_collect().await.unwrap();
        let found: Vec<_> = some.iter().map(|one| (one.aggregate.id(), one.events, one.problems.len())).collect();
        assert_eq!(found, [("a-3", 5, 0), ("a-9", 0, 1), ("a-1", 5, 0)]);
        let mut history = accounts.history(&"account:a-2".parse().unwrap(), 1).await.unwrap().events;
        let seen = [history.next().await.unwrap().unwrap().stored.version, history.next().await.unwrap().unwrap().stored.version];
        let gap = history.next().await.unwrap_err();
        assert_eq!((seen, gap.kind()), ([1, 2], ErrorKind::NotFound));
        assert_eq!(accounts.verify(["acount"]).unwrap_err().kind(), ErrorKind::Invalid);
        let none = admin(&server).aggregates(&streamhand::Registry::new()).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::Invalid);
    }

    async fn dead_letters_are_looked_through_from_code(server: Server) {
        let mut redis = server.connect().await;
        let event = fields(&[("type", "order.paid"), ("id", "e-1"), ("source", "shop"), ("data", "{}")]);
        bury(&mut redis, "orders", &event, "permanent", "no such card").await;
        bury_many(&mut redis, 3).await;
        let dead = admin(&server).dead_letters().unwrap();
        let all: Vec<_> = dead.select(Filter::new()).await.unwrap().letters().try_collect().await.unwrap();
        assert_eq!(all.len(), 4);
        let paid = &all[0];
        for id in [paid.id.to_string(), paid.entry.clone(), "e-1".to_owned()] {
            assert_eq!(&dead.find("orders", &id).await.unwrap()[..], std::slice::from_ref(paid), "{id}");
        }
        assert_eq!(dead.find("orders", "e-2").await.unwrap(), []);
        assert_eq!(dead.find("payments", "e-1").await.unwrap_err().kind(), ErrorKind::Invalid);

        let missing: EntryId = "1-1".parse().unwrap();
        let picked = dead.pick("orders", vec![paid.id, missing]).unwrap();
        let counted = picked.count(|_| ()).await.unwrap();
        assert_eq!((counted.found, &counted.missing[..], counted.strangers), (1, &[missing][..], 0));
        assert_eq!(serde_json::to_value(&counted).unwrap(), serde_json::json!({ "found": 1, "missing": ["1-1"] }));

        let stats = dead.select(Filter::new()).await.unwrap().stats().await.unwrap();
        let kinds: Vec<_> = stats.kinds.iter().map(|kind| (kind.event_type.as_deref(), kind.reason.as_str(), kind.count)).collect();
        assert_eq!(kinds, [(Some("order.created"), "failed", 3), (Some("order.paid"), "permanent", 1)]);
        assert_eq!((&stats.group[..], stats.total), ("fulfilment", 4));
    }

    /// Three pages, of which each is asked for by waits that are dropped before it is there.
    async fn a_list_that_nobody_waited_for_to_the_end_leaves_nothing_out_and_repeats_nothing(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 1100).await;
        let expected: Vec<EntryId> = entries(&mut redis, DEAD).await.iter().map(|letter| letter.id).collect();
        let proxy = Proxy::start(server.port()).await;
        let admin = Admin::connect(&proxy.url(), "fulfilment", ["orders"]).unwrap();
        let mut letters = admin.dead_letters().unwrap().select(Filter::new()).await.unwrap().letters();
        let (seen, dropped) = by_dropped_waits(&proxy, &mut letters).await;
        let seen: Vec<EntryId> = seen.iter().map(|letter| letter.id).collect();
        assert!(dropped >= 3, "each page was waited for: {dropped}");
        assert!(seen == expected, "{} in place of {}", seen.len(), expected.len());
    }

    async fn a_replay_and_a_purge_that_were_dropped_half_way_go_on(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 600).await;
        let dead = admin(&server).dead_letters().unwrap();
        let all = dead.select(Filter::new()).await.unwrap();
        let (tell, mut told) = mpsc::unbounded_channel();
        let tell = |done: u64| { let _ = tell.send(done); };
        tokio::select! {
            run = all.replay("test", NonZeroU32::new(500), |so_far| tell(so_far.replayed)) => panic!("not dropped: {run:?}"),
            () = async { while told.recv().await.unwrap() < 100 {} } => {}
        }
        let replayed = entries(&mut redis, AGAIN).await.len();
        assert!((100..600).contains(&replayed), "{replayed}");
        let first = Filter::new().limit(100);
        assert_eq!(dead.select(first).await.unwrap().replay("test", None, |_| ()).await.unwrap().replayed, 100);

        let (tell, mut told) = mpsc::unbounded_channel();
        let tell = |done: u64| { let _ = tell.send(done); };
        tokio::select! {
            biased;
            () = async { told.recv().await.unwrap(); } => {}
            purged = all.purge(tell) => panic!("not dropped: {purged:?}"),
        }
        // What was under way when it was dropped may come to its end.
        let left = all.count(|_| ()).await.unwrap().found;
        assert!(left > 0);
        let purged = all.purge(|_| ()).await.unwrap();
        assert!(purged <= left && entries(&mut redis, DEAD).await.is_empty(), "{purged} of {left}");
        let mut again: Vec<String> = entries(&mut redis, AGAIN).await.iter()
            .map(|copy| String::from_utf8(copy.fields[1].1.to_vec()).unwrap()).collect();
        let copies = again.len();
        again.sort_unstable();
        again.dedup();
        assert_eq!((copies, again.len()), (replayed + 100, replayed + 100));
    }
}
