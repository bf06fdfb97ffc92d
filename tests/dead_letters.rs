//! What can't be handled stands in the dead letters, whole, once, and says why; and it can be looked through.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use streamhand::dead_letters::{DeadLetter, Filter, Reason};
use streamhand::{EntryId, ErrorKind, Failure, Registry};

use crate::support::letters::{
    DEAD, Working, bury, bury_many, dead_letters, deliver, fields, settings,
};
use crate::support::{Fields, Server, add, entries, eventually, scripts};

const PATIENCE: Duration = Duration::from_secs(30);

/// Fields that are easily damaged: names twice, no text, empty, and names that have a meaning here.
fn awkward() -> Fields {
    let mut awkward = fields(&[
        ("type", "order.created"),
        ("note", "first"),
        ("note", "second"),
        ("type", "order.other"),
        ("", ""),
        ("dead.reason", "mine"),
        ("dead.replays", "7"),
    ]);
    awkward.push((
        Bytes::from_static(b"\xff\x00\r\n"),
        Bytes::from((0..=255).collect::<Vec<u8>>()),
    ));
    awkward
}

/// The id behind another.
fn next(id: &str) -> String {
    let id: EntryId = id.parse().unwrap();
    let seq = id.seq + 1;
    EntryId { seq, ..id }.to_string()
}

/// All that a filter lets through.
async fn found(server: &Server, filter: Filter) -> Vec<DeadLetter> {
    let selection = dead_letters(server)
        .select(filter)
        .await
        .expect("a selection");
    let mut letters = selection.letters();
    let mut found = Vec::new();
    while let Some(letter) = letters.next().await.expect("a letter") {
        found.push(letter);
    }
    found
}

/// The errors of all that a filter lets through.
async fn errors(server: &Server, filter: Filter) -> Vec<String> {
    found(server, filter)
        .await
        .into_iter()
        .map(|letter| letter.error)
        .collect()
}

on_both_servers! {
    async fn a_dead_letter_says_all_there_is_to_know(server: Server) {
        let mut redis = server.connect().await;
        let entry = add(&mut redis, "orders", &awkward()).await;
        let quick = "[retry]\nmax_attempts = 2\nbackoff = { initial = \"20ms\" }";
        let registry = Registry::new().on_raw("order.created", |_, _| async { Err("no stock".into()) });
        let worker = Working::start(settings(&server, quick), registry);
        let letter = eventually(PATIENCE, "the letter", async || entries(&mut redis, DEAD).await.pop()).await;
        worker.stop().await;

        let (original, death) = letter.fields.split_at(letter.fields.len() - 12);
        assert_eq!(original, awkward());
        let death: Vec<(&str, &str)> = death
            .iter()
            .map(|(name, value)| (str::from_utf8(name).unwrap(), str::from_utf8(value).unwrap()))
            .collect();
        let [.., (_, consumer), (_, first), (_, at), (_, _)] = death[..] else { panic!("{death:?}") };
        assert!(consumer.starts_with("sh2-30000-"), "{consumer}");
        let time = |text| humantime::parse_rfc3339(text).unwrap();
        let between = time(at).duration_since(time(first)).unwrap();
        assert!(between >= Duration::from_millis(10) && between < PATIENCE, "{between:?}");
        assert!(time(at).elapsed().unwrap_or_default() < PATIENCE);
        assert_eq!(death, [
            ("dead.reason", "failed"),
            ("dead.error", "no stock"),
            ("dead.attempts", "2"),
            ("dead.crash_checks", "0"),
            ("dead.handler", "order.created"),
            ("dead.stream", "orders"),
            ("dead.group", "fulfilment"),
            ("dead.entry", &entry),
            ("dead.consumer", consumer),
            ("dead.first_delivered", first),
            ("dead.at", at),
            ("dead.replays", "0"),
        ]);

        let whole = dead_letters(&server).get("orders", letter.id).await.unwrap();
        assert_eq!(whole.fields, awkward());
        assert!(whole.replay.is_empty());
        let head = &whole.head;
        assert_eq!((head.reason.as_str(), head.error.as_str(), head.attempts), ("failed", "no stock", 2));
        assert_eq!((head.event_type.as_deref(), head.handler.as_str()), (Some("order.created"), "order.created"));
        assert_eq!((head.stream.as_str(), head.group.as_str(), &head.entry), ("orders", "fulfilment", &entry));
        assert_eq!((head.at, head.first_delivered, head.replays), (time(at), time(first), 0));
        assert_eq!((head.field_count, head.id), (awkward().len(), letter.id));
        assert_eq!(found(&server, Filter::new()).await, std::slice::from_ref(head));
    }

    async fn each_way_to_fail_has_its_reason(server: Server) {
        let mut redis = server.connect().await;
        for order in [
            &[("type", "order.created"), ("data", "1")][..],
            &[("type", "order.paid"), ("data", "1")],
            &[("type", "order.lost"), ("data", "1")],
            &[("kind", "order.created")],
        ] {
            add(&mut redis, "orders", &fields(order)).await;
        }
        let quick = "[retry]\nmax_attempts = 1\n[worker]\nunhandled_after = \"0s\"";
        let registry = Registry::new()
            .on_raw("order.created", |_, _| async { Err("no stock".into()) })
            .on_raw("order.paid", |_, _| async { Err(Failure::permanent("no such card")) });
        let worker = Working::start(settings(&server, quick), registry);
        eventually(PATIENCE, "four letters", async || entries(&mut redis, DEAD).await.len() == 4).await;
        worker.stop().await;
        let mut reasons: Vec<(String, Option<String>)> = found(&server, Filter::new())
            .await
            .into_iter()
            .map(|letter| (letter.reason.to_string(), letter.event_type))
            .collect();
        reasons.sort();
        let expected = [
            ("failed", Some("order.created")),
            ("permanent", Some("order.paid")),
            ("undecodable", None),
            ("unhandled", Some("order.lost")),
        ];
        assert_eq!(reasons, expected.map(|(reason, name)| (reason.to_owned(), name.map(str::to_owned))));
    }

    /// One worker was slow, another took its entry over, and both come to the end of it at the same moment.
    async fn two_workers_that_fail_an_entry_at_once_make_one_dead_letter(server: Server) {
        let mut redis = server.connect().await;
        for round in 0..50 {
            let late = deliver(&mut redis, "orders", &awkward()).await;
            let mut owner = crate::support::letters::Delivery {
                consumer: "sh1-30000-test-2-b".to_owned(),
                count: 2,
                stream: late.stream.clone(),
                id: late.id.clone(),
            };
            // Every other round it comes back to the late one, so that the delivery count alone tells them apart.
            if round % 2 == 0 {
                owner.consumer.clone_from(&late.consumer);
            }
            let _: redis::Value = redis::cmd("XCLAIM")
                .arg("orders").arg("fulfilment").arg(&owner.consumer).arg(0).arg(&late.id)
                .query_async(&mut redis)
                .await
                .unwrap();
            let (mut one, mut other) = (server.connect().await, server.connect().await);
            let (late, owner) = tokio::join!(
                // Its lease has lapsed, or nobody could have taken the entry over.
                late.bury(&mut one, false, "failed", "late"),
                owner.bury(&mut other, true, "failed", "in time"),
            );
            assert_eq!(owner, "ok");
            assert!(late == "taken" || late == "nobody", "{late}");
            assert_eq!(entries(&mut redis, DEAD).await.len(), round + 1);
        }
        let pending: (u64, redis::Value, redis::Value, redis::Value) =
            redis::cmd("XPENDING").arg("orders").arg("fulfilment").query_async(&mut redis).await.unwrap();
        assert_eq!(pending.0, 0);
    }

    async fn filters_let_through_what_all_of_them_do(server: Server) {
        let mut redis = server.connect().await;
        for (event_type, reason, error) in [
            ("order.created", "failed", "timed out after 5s"),
            ("order.created", "permanent", "no such card"),
            ("order.paid", "failed", "no such card"),
            ("Order Shipped", "unhandled", "no handler"),
        ] {
            bury(&mut redis, "orders", &fields(&[("type", event_type)]), reason, error).await;
        }
        let all = errors(&server, Filter::new()).await;
        assert_eq!(all, ["timed out after 5s", "no such card", "no such card", "no handler"]);
        let of = async |filter: Filter| errors(&server, filter).await;
        assert_eq!(of(Filter::new().event_type("order.created")).await, all[..2]);
        assert_eq!(of(Filter::new().event_type("Order Shipped")).await, all[3..]);
        assert_eq!(of(Filter::new().reason(Reason::Failed)).await, ["timed out after 5s", "no such card"]);
        assert_eq!(of(Filter::new().error("^no (such|stock)").unwrap()).await, all[1..3]);
        assert_eq!(of(Filter::new().reason(Reason::Failed).error("card").unwrap()).await, ["no such card"]);
        assert_eq!(of(Filter::new().limit(3)).await, all[..3]);
        assert_eq!(of(Filter::new().error("card").unwrap().limit(1)).await, ["no such card"]);
        assert_eq!(of(Filter::new().event_type("order")).await, [""; 0]);

        let select = async |filter: Filter| dead_letters(&server).select(filter).await.map(|_| ()).unwrap_err();
        assert_eq!("broken".parse::<Reason>().unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(select(Filter::new().stream("payments")).await.kind(), ErrorKind::Invalid);
        assert_eq!(Filter::new().error("(").unwrap_err().kind(), ErrorKind::Invalid);
    }

    async fn since_and_until_go_by_the_time_of_burial(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 1).await;
        let middle: (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
        let middle = SystemTime::UNIX_EPOCH + Duration::from_millis(middle.0 * 1000 + middle.1 / 1000 + 1);
        eventually(PATIENCE, "the next millisecond", async || SystemTime::now() > middle + Duration::from_millis(1)).await;
        bury_many(&mut redis, 2).await;
        let count = async |filter: Filter| found(&server, filter).await.len();
        assert_eq!(count(Filter::new().since(middle)).await, 2);
        assert_eq!(count(Filter::new().until(middle)).await, 1);
        let far = Duration::from_secs(3600);
        assert_eq!(count(Filter::new().since(middle - far).until(middle + far)).await, 3);
        assert_eq!(count(Filter::new().since(middle + far)).await, 0);
        assert_eq!(count(Filter::new().until(middle - far)).await, 0);
        let selection = dead_letters(&server).select(Filter::new().until(middle + far)).await.unwrap();
        bury_many(&mut redis, 1).await;
        let stats = selection.stats().await.unwrap();
        assert_eq!((stats.total, stats.kinds.iter().map(|tally| tally.count).sum::<u64>()), (3, 3));
        let turned = dead_letters(&server).select(Filter::new().since(middle + far).until(middle)).await;
        assert_eq!(turned.map(|_| ()).unwrap_err().kind(), ErrorKind::Invalid);
    }

    /// More letters than one page has, and in the middle some so large that a page ends by its bytes.
    async fn pages_leave_nothing_out_and_repeat_nothing(server: Server) {
        let mut redis = server.connect().await;
        let large = "x".repeat(3 << 20);
        for n in 0..1100 {
            let data = if (700..704).contains(&n) { &large[..] } else { "{}" };
            let order = fields(&[("type", "order.created"), ("data", data), ("n", &n.to_string())]);
            bury(&mut redis, "orders", &order, "failed", &n.to_string()).await;
        }
        let numbers = errors(&server, Filter::new()).await;
        assert_eq!(numbers, (0..1100).map(|n| n.to_string()).collect::<Vec<_>>());
        let stats = dead_letters(&server).select(Filter::new()).await.unwrap().stats().await.unwrap();
        let ids: Vec<EntryId> = found(&server, Filter::new()).await.iter().map(|letter| letter.id).collect();
        let [kind] = &stats.kinds[..] else { panic!("{stats:?}") };
        assert_eq!((&kind.stream[..], kind.event_type.as_deref(), kind.reason.as_str()), ("orders", Some("order.created"), "failed"));
        assert_eq!((stats.total, kind.count), (1100, 1100));
        let near = |a: SystemTime, b: EntryId| a.duration_since(b.time()).unwrap_or_else(|e| e.duration()) < Duration::from_secs(1);
        assert!(near(kind.oldest, ids[0]) && near(kind.newest, ids[1099]));
    }

    /// The script that reads a page looks at one entry at a time, and stops behind the one that fills it.
    async fn a_page_holds_no_more_bytes_than_it_has_to(server: Server) {
        let mut redis = server.connect().await;
        for size in [10, 10, 70_000, 70_000, 10] {
            let order = fields(&[("type", "order.created"), ("data", &"x".repeat(size))]);
            bury(&mut redis, "orders", &order, "failed", "x").await;
        }
        let ids: Vec<String> = entries(&mut redis, DEAD).await.iter().map(|letter| letter.id.to_string()).collect();
        let browse = scripts::text("browse");
        let page: (Vec<redis::Value>, String, u64) = redis::cmd("EVAL")
            .arg(browse).arg(1).arg(DEAD).arg("-").arg("+").arg(500).arg(65_536).arg("").arg("")
            .query_async(&mut redis)
            .await
            .unwrap();
        assert_eq!((page.0.len(), page.1, page.2), (3, next(&ids[2]), 0));
        assert_eq!(found(&server, Filter::new()).await.len(), 5);
    }

    async fn what_no_worker_wrote_is_passed_over_and_left_alone(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 1).await;
        let stranger = add(&mut redis, DEAD, &fields(&[("hello", "world")])).await;
        let dead = dead_letters(&server);
        let selection = dead.select(Filter::new()).await.unwrap();
        let mut letters = selection.letters();
        assert!(letters.next().await.unwrap().is_some());
        assert!(letters.next().await.unwrap().is_none());
        assert_eq!(letters.strangers(), 1);
        let id: EntryId = stranger.parse().unwrap();
        assert_eq!(dead.get("orders", id).await.unwrap_err().kind(), ErrorKind::NotFound);
        let run = dead.pick("orders", vec![id]).unwrap().replay("test", None, |_| ()).await.unwrap();
        assert_eq!((run.replayed, run.gone), (0, 0));
        assert_eq!(selection.purge(|_| ()).await.unwrap(), 1);
        let left = entries(&mut redis, DEAD).await;
        assert_eq!((left.len(), left[0].id), (1, id));
    }
}
