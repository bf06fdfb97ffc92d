//! Operating a group from a program's own runtime: what the commands do, as calls that return what they print, and that
//! can be dropped half-way.

use std::num::NonZeroU32;

use futures_util::{FutureExt, TryStreamExt};
use streamhand::admin::Admin;
use streamhand::dead_letters::Filter;
use streamhand::{EntryId, ErrorKind};
use tokio::sync::mpsc;

use crate::support::letters::{AGAIN, DEAD, bury, bury_many, fields};
use crate::support::{Server, entries};

/// The group `fulfilment` of the stream `orders`.
fn admin(server: &Server) -> Admin {
    Admin::connect(&server.url(), "fulfilment", ["orders"]).expect("right names")
}

on_both_servers! {
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
        let kinds: Vec<_> = stats.kinds.iter().map(|kind| (kind.event_type.as_deref(), &kind.reason[..], kind.count)).collect();
        assert_eq!(kinds, [(Some("order.created"), "failed", 3), (Some("order.paid"), "permanent", 1)]);
        assert_eq!((&stats.group[..], stats.total), ("fulfilment", 4));
    }

    /// Three pages, of which each is asked for by waits that are dropped before it is there.
    async fn a_list_that_nobody_waited_for_to_the_end_leaves_nothing_out_and_repeats_nothing(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 1100).await;
        let expected: Vec<EntryId> = entries(&mut redis, DEAD).await.iter().map(|letter| letter.id).collect();
        let dead = admin(&server).dead_letters().unwrap();
        let mut letters = dead.select(Filter::new()).await.unwrap().letters();
        let (mut seen, mut dropped) = (Vec::new(), 0);
        loop {
            match letters.next().now_or_never() {
                None => dropped += 1,
                Some(next) => match next.unwrap() {
                    Some(letter) => seen.push(letter.id),
                    None => break,
                },
            }
            tokio::task::yield_now().await;
        }
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
