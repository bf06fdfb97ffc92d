//! A replayed letter goes back to its group, whole, once, and to nobody else.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use streamhand::dead_letters::Filter;
use streamhand::{ErrorKind, Failure, Registry};
use tokio::sync::mpsc;

use crate::support::letters::{
    AGAIN, DEAD, PROTOCOL, Working, bury, bury_many, dead_letters, deliver, fields, settings,
};
use crate::support::{Fields, Server, add, entries, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// A worker's settings: every entry has one attempt.
const ONCE: &str = "[retry]\nmax_attempts = 1";

/// Values of the field `n` of all entries of a stream.
async fn numbers(redis: &mut redis::aio::MultiplexedConnection, stream: &str) -> Vec<String> {
    let data = |fields: &Fields| {
        fields
            .iter()
            .find(|(name, _)| name == "data")
            .map(|(_, value)| value.clone())
    };
    entries(redis, stream)
        .await
        .iter()
        .map(|entry| String::from_utf8(data(&entry.fields).expect("data").to_vec()).expect("text"))
        .collect()
}

on_both_servers! {
    async fn a_copy_is_the_original_and_says_what_it_is_a_copy_of(server: Server) {
        let mut redis = server.connect().await;
        let mut original = fields(&[("type", "order.created"), ("replay.count", "9"), ("dead.at", "mine"), ("type", "b.c")]);
        original.push((Bytes::from_static(b"\xff\x00"), Bytes::from_static(b"\x00\xfe\r\n")));
        let delivery = deliver(&mut redis, "orders", &original).await;
        assert_eq!(delivery.bury(&mut redis, false, "failed", "no stock").await, "ok");
        let letter = entries(&mut redis, DEAD).await.remove(0);
        let first_delivered = &letter.fields[letter.fields.len() - 3].1;

        let dead = dead_letters(&server);
        let run = dead.pick("orders", vec![letter.id]).unwrap().replay("alice@ops", None, |_| ()).await.unwrap();
        assert_eq!((run.replayed, run.gone), (1, 0));
        let copy = entries(&mut redis, AGAIN).await.remove(0);
        let (body, replay) = copy.fields.split_at(original.len());
        assert_eq!(body, original);
        let mut expected = fields(&[("replay.entry", &delivery.id), ("replay.count", "1")]);
        expected.push((Bytes::from_static(b"replay.first_delivered"), first_delivered.clone()));
        expected.extend(fields(&[("replay.by", "alice@ops")]));
        assert_eq!(replay, expected);
        assert!(entries(&mut redis, DEAD).await.is_empty());
    }

    async fn a_replay_reaches_its_group_alone_also_after_the_original_was_trimmed(server: Server) {
        let mut redis = server.connect().await;
        let (handled, mut heard) = mpsc::unbounded_channel();
        let group = |name: &'static str, fails: bool| {
            let handled = handled.clone();
            let registry = Registry::new().on_raw("order.created", move |event, _| {
                let replayed = event.field("replay.count").is_some();
                handled.send((name, replayed)).unwrap();
                async move { if fails && !replayed { Err(Failure::permanent("no stock")) } else { Ok(()) } }
            });
            Working::start(settings(&server, &format!("[worker]\ngroup = \"{name}\"")), registry)
        };
        let workers = [group("fulfilment", true), group("billing", false)];
        let _: () = redis::cmd("XGROUP").arg("CREATE").arg("orders").arg("foreign").arg("0").arg("MKSTREAM")
            .query_async(&mut redis).await.unwrap();
        add(&mut redis, "orders", &fields(&[("type", "order.created"), ("data", "1")])).await;
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("foreign").arg("c").arg("STREAMS").arg("orders").arg(">");
        let first: redis::Value = read.query_async(&mut redis).await.unwrap();
        assert_ne!(first, redis::Value::Nil);
        eventually(PATIENCE, "the letter", async || entries(&mut redis, DEAD).await.len() == 1).await;
        let _: () = redis::cmd("XTRIM").arg("orders").arg("MAXLEN").arg(0).query_async(&mut redis).await.unwrap();

        let all = dead_letters(&server).select(Filter::new()).await.unwrap();
        assert_eq!(all.replay("test", None, |_| ()).await.unwrap().replayed, 1);
        eventually(PATIENCE, "the copy to be handled", async || {
            entries(&mut redis, AGAIN).await.is_empty()
        })
        .await;
        let second: redis::Value = read.query_async(&mut redis).await.unwrap();
        assert_eq!(second, redis::Value::Nil);
        for worker in workers {
            worker.stop().await;
        }
        heard.close();
        let mut runs = Vec::new();
        while let Some(run) = heard.recv().await {
            runs.push(run);
        }
        runs.sort_unstable();
        assert_eq!(runs, [("billing", false), ("fulfilment", false), ("fulfilment", true)]);
        assert!(entries(&mut redis, "orders").await.is_empty() && entries(&mut redis, DEAD).await.is_empty());
    }

    /// As wide as fits into a script, as wide as no longer fits with what a replay adds, and wider than any script.
    async fn an_entry_however_wide_is_buried_and_replayed_whole_again_and_again(server: Server) {
        let mut redis = server.connect().await;
        for width in [3, 3_495, 3_499, 3_501, 5_000] {
            let mut original = fields(&[("type", "order.created")]);
            original.extend((1..width).map(|n| {
                (Bytes::from(format!("field-{}", n % 1000)), Bytes::from(vec![0xff, (n % 256) as u8, 0]))
            }));
            let (handled, mut heard) = mpsc::unbounded_channel();
            let registry = Registry::new().on_raw("order.created", move |event, _| {
                let last = event.field("replay.count") == Some("3");
                handled.send(event.fields().clone()).unwrap();
                async move { if last { Ok(()) } else { Err(Failure::permanent("too wide")) } }
            });
            let worker = Working::start(settings(&server, ""), registry);
            let entry = add(&mut redis, "orders", &original).await;
            assert_eq!(heard.recv().await.unwrap(), original);
            let dead = dead_letters(&server);
            for round in 1..=3 {
                let id = eventually(PATIENCE, "the letter", async || entries(&mut redis, DEAD).await.pop()).await.id;
                let letter = dead.get("orders", id).await.unwrap();
                assert_eq!(letter.fields, original, "{width} fields, replay {round}");
                assert_eq!((letter.head.replays, letter.head.field_count), (round - 1, width));
                let all = dead.select(Filter::new().event_type("order.created")).await.unwrap();
                let listed = all.letters().next().await.unwrap().unwrap();
                assert_eq!(listed, letter.head);
                assert_eq!(all.replay("test", None, |_| ()).await.unwrap().replayed, 1);
                let mut copy = heard.recv().await.unwrap();
                let replay = copy.split_off(width);
                assert_eq!(copy, original, "{width} fields, replay {round}");
                let said = [&b"replay.entry"[..], b"replay.count", b"replay.first_delivered", b"replay.by"];
                assert_eq!(replay.iter().map(|(name, _)| name).collect::<Vec<_>>(), said);
                let told = (replay.value("replay.entry"), replay.value("replay.count"));
                assert_eq!(told, (Some(entry.as_bytes()), Some(round.to_string().as_bytes())));
            }
            eventually(PATIENCE, "the copy to be settled", async || entries(&mut redis, AGAIN).await.is_empty()).await;
            worker.stop().await;
            assert!(entries(&mut redis, DEAD).await.is_empty());
        }
    }

    async fn two_replays_at_once_replay_each_letter_once(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 300).await;
        let (one, other) = (dead_letters(&server), dead_letters(&server));
        let (one, other) = (one.select(Filter::new()).await.unwrap(), other.select(Filter::new()).await.unwrap());
        // Small steps, so that they meet many times.
        let rate = NonZeroU32::new(1000);
        let (one, other) = tokio::join!(one.replay("one", rate, |_| ()), other.replay("other", rate, |_| ()));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.replayed + other.replayed, 300, "{one:?} {other:?}");
        let copies = numbers(&mut redis, AGAIN).await;
        assert_eq!((copies.len(), copies.iter().collect::<BTreeSet<_>>().len()), (300, 300));
        assert!(entries(&mut redis, DEAD).await.is_empty());
    }

    /// More than one page of letters, so that the run comes to look at what has died again.
    async fn what_dies_again_is_not_replayed_in_the_same_run(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 600).await;
        let registry = Registry::new().on_raw("order.created", |_, _| async { Err("no stock".into()) });
        let worker = Working::start(settings(&server, ONCE), registry);
        let all = dead_letters(&server).select(Filter::new()).await.unwrap();
        let run = all.replay("test", NonZeroU32::new(300), |_| ()).await.unwrap();
        assert_eq!((run.replayed, run.gone), (600, 0));
        eventually(PATIENCE, "all to die again", async || entries(&mut redis, DEAD).await.len() == 600).await;
        worker.stop().await;
        let mut letters = Vec::new();
        let selection = dead_letters(&server).select(Filter::new()).await.unwrap();
        let mut all = selection.letters();
        while let Some(letter) = all.next().await.unwrap() {
            assert_eq!(letter.replays, 1);
            letters.push(letter);
        }
        // Some had died again before the last was replayed: the run has met them.
        let last_copy = letters.iter().map(|letter| letter.entry.parse::<streamhand::EntryId>().unwrap()).max().unwrap();
        assert!(letters[0].id < last_copy);
    }

    async fn an_interrupted_replay_can_be_run_again(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 200).await;
        let dead = dead_letters(&server);
        for reached in [50, 120] {
            let all = dead.select(Filter::new()).await.unwrap();
            let before = entries(&mut redis, AGAIN).await.len() as u64;
            let (tell, mut told) = mpsc::unbounded_channel();
            let replaying = all.replay("test", NonZeroU32::new(200), |run| { let _ = tell.send(run.replayed); });
            tokio::select! {
                run = replaying => panic!("not interrupted: {run:?}"),
                () = async { while before + told.recv().await.unwrap() < reached {} } => {}
            }
            assert!(entries(&mut redis, DEAD).await.len() > 10);
        }
        let left = entries(&mut redis, DEAD).await.len() as u64;
        let run = dead.select(Filter::new()).await.unwrap().replay("test", None, |_| ()).await.unwrap();
        assert_eq!((run.replayed, run.gone), (left, 0));
        let expected: Vec<String> = (0..200).map(|n| format!("{{\"order_id\":\"o-{n}\"}}")).collect();
        assert_eq!(numbers(&mut redis, AGAIN).await, expected);
        assert!(entries(&mut redis, DEAD).await.is_empty());
    }

    /// After a failover an id can be another letter's: it is not the one that was looked at.
    async fn a_letter_that_has_become_another_is_not_replayed(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 10).await;
        let letters = entries(&mut redis, DEAD).await;
        let dead = dead_letters(&server);
        let all = dead.select(Filter::new()).await.unwrap();
        let (tell, mut told) = mpsc::unbounded_channel();
        let replaying = all.replay("test", NonZeroU32::new(10), |run| { let _ = tell.send(run.replayed); });
        let (run, ()) = tokio::join!(replaying, async {
            let done = told.recv().await.unwrap() as usize;
            let mut again = redis::pipe();
            again.atomic().cmd("DEL").arg(DEAD).ignore();
            for (n, letter) in letters.iter().enumerate().skip(done) {
                let content = if n == 9 { &letters[0].fields } else { &letter.fields };
                again.cmd("XADD").arg(DEAD).arg(letter.id.to_string());
                for (name, value) in content {
                    again.arg(&name[..]).arg(&value[..]);
                }
            }
            let _: Vec<String> = again.query_async(&mut redis).await.unwrap();
        });
        let run = run.unwrap();
        assert_eq!((run.replayed, run.gone), (9, 1));
        let left = entries(&mut redis, DEAD).await;
        assert_eq!((left.len(), left[0].id, &left[0].fields), (1, letters[9].id, &letters[0].fields));
    }

    async fn what_redis_refuses_to_replay_stays_a_dead_letter(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 5).await;
        let before = entries(&mut redis, DEAD).await;
        let dead = dead_letters(&server);
        let all = dead.select(Filter::new()).await.unwrap();
        let refused = async || all.replay("test", None, |run| assert_eq!(run.replayed, 0)).await.unwrap_err();

        let _: () = redis::cmd("SET").arg(AGAIN).arg("x").query_async(&mut redis).await.unwrap();
        let error = refused().await;
        assert!(error.kind() == ErrorKind::Redis && error.to_string().contains("WRONGTYPE"), "{error}");
        let _: () = redis::cmd("DEL").arg(AGAIN).query_async(&mut redis).await.unwrap();

        let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).query_async(&mut redis).await.unwrap();
        let error = refused().await;
        assert!(error.kind() == ErrorKind::Redis && error.to_string().contains("OOM"), "{error}");
        let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).query_async(&mut redis).await.unwrap();

        let _: () = redis::cmd("SET").arg(PROTOCOL).arg(99).query_async(&mut redis).await.unwrap();
        assert_eq!(refused().await.kind(), ErrorKind::Protocol);
        assert_eq!(all.purge(|_| ()).await.unwrap_err().kind(), ErrorKind::Protocol);
        let _: () = redis::cmd("DEL").arg(PROTOCOL).query_async(&mut redis).await.unwrap();

        assert_eq!(entries(&mut redis, DEAD).await, before);
        assert_eq!(all.replay("test", None, |_| ()).await.unwrap().replayed, 5);
    }

    async fn picked_letters_are_replayed_in_the_order_asked_for(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 4).await;
        bury(&mut redis, "orders", &fields(&[("type", "order.paid"), ("data", "paid")]), "failed", "x").await;
        let ids: Vec<_> = entries(&mut redis, DEAD).await.iter().map(|letter| letter.id).collect();
        let missing = "1-1".parse().unwrap();
        let picked = dead_letters(&server).pick("orders", vec![ids[4], missing, ids[0]]).unwrap();
        let mut letters = picked.letters();
        while letters.next().await.unwrap().is_some() {}
        assert_eq!(letters.missing(), [missing]);
        assert_eq!(picked.replay("test", None, |_| ()).await.unwrap().replayed, 2);
        assert_eq!(numbers(&mut redis, AGAIN).await, ["paid", "{\"order_id\":\"o-0\"}"]);
        assert_eq!(entries(&mut redis, DEAD).await.len(), 3);
    }
}
