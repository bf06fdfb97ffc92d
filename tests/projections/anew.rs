//! A public stream that is deleted, or renamed, and made anew: its ids may have run ahead of the clock.

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::EntryId;
use streamhand::eventstore::RedisEventStore;

use super::past::{ran, rebuilt};
use super::views::{
    PATIENCE, agrees, any_event, checkpoint, happens, lag, names, registry, setup, store,
};
use crate::eventstore::run;
use crate::eventstore::shelf::{order, stored};
use crate::support::{Server, Setup, eventually};

/// Sets the ids of the public stream so far ahead of the clock.
async fn runs_ahead(redis: &mut MultiplexedConnection, ms: u64) {
    let (seconds, _): (u64, u64) = redis::cmd("TIME").query_async(redis).await.unwrap();
    let ahead = format!("{}-7", seconds * 1000 + ms);
    run(redis, &["XSETID", "orders", &ahead]).await;
}

async fn last_position(store: &RedisEventStore, ids: &[String]) -> EntryId {
    let mut last = EntryId::default();
    for id in ids {
        for event in stored(store, &order(id), 1).await {
            last = last.max(event.position);
        }
    }
    last
}

/// The one projection that is listed, and what is said of it.
async fn listed(setup: &Setup) -> (serde_json::Value, String) {
    let (code, json) = ran(setup, "projection list --json", 1).await;
    let json = &json[json.find('{').expect("JSON")..=json.rfind('}').expect("JSON")];
    let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
    let (_, said) = ran(setup, "projection list", 1).await;
    assert_eq!(code, 0);
    (json["projections"][0].take(), said)
}

on_both_servers! {
    async fn a_public_stream_made_anew_begins_behind_all_that_was_ever_published(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(4));
        let setup = setup(&server);
        happens(&store, "o-0", [any_event()]).await;
        runs_ahead(&mut redis, 3_600_000).await;
        let mut worker = Some(setup.start_with(registry()));
        for (round, how) in ["gone", "renamed", "for a group", "by others", "by others, unseen", "gone, unseen"].into_iter().enumerate() {
            happens(&store, &ids[round % 4], [any_event(), any_event()]).await;
            agrees(&mut redis, &store, &ids, &[]).await;
            let before = last_position(&store, &ids).await;
            if how.ends_with("unseen") {
                worker.take().unwrap().stop().await;
                happens(&store, &ids[round % 4], [any_event(), any_event()]).await;
            }
            match how {
                "renamed" => run(&mut redis, &["RENAME", "orders", "old"]).await,
                _ => run(&mut redis, &["DEL", "orders"]).await,
            }
            match how {
                "for a group" => run(&mut redis, &["XGROUP", "CREATE", "orders", "others", "$", "MKSTREAM"]).await,
                how if how.starts_with("by others") => run(&mut redis, &["XADD", "orders", "*", "type", "order.seen"]).await,
                _ => {}
            }
            for _ in 0..5 {
                happens(&store, &ids[fastrand::usize(..4)], [any_event()]).await;
            }
            let after: redis::streams::StreamRangeReply = redis.xrange_count("orders", format!("({before}"), "+", 10).await.unwrap();
            assert_eq!(after.ids.len(), 5, "{how}: the new ones stand behind {before}");
            worker.get_or_insert_with(|| setup.start_with(registry()));
            agrees(&mut redis, &store, &ids, &[]).await;
            eventually(PATIENCE, format!("no lag ({how})"), async || lag(&mut redis, "orders").await == Some(0)).await;
        }
        let (json, said) = listed(&setup).await;
        assert_eq!((&json["state"], &json["lag"]), (&"running".into(), &0.into()), "{json} {said}");
        rebuilt(&setup, 1).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        worker.unwrap().stop().await;
    }

    async fn a_view_behind_which_nobody_knows_what_was_published_says_so_and_is_built_anew(server: Server) {
        let mut redis = server.connect().await;
        let (store, ids) = (store(&server, 1), names(4));
        let setup = setup(&server);
        happens(&store, "o-0", [any_event()]).await;
        runs_ahead(&mut redis, 3_600_000).await;
        happens(&store, "o-0", [any_event()]).await;
        let worker = setup.start_with(registry());
        agrees(&mut redis, &store, &ids, &[]).await;
        // What a careless hand deletes with it, for its name begins alike.
        run(&mut redis, &["DEL", "orders", "{orders}:reached"]).await;
        happens(&store, "o-1", [any_event()]).await;
        eventually(PATIENCE, "it to stop", async || checkpoint(&mut redis, "{orders}").await["state"] == "stopped").await;
        let (json, said) = listed(&setup).await;
        assert_eq!(&json["state"], &"stopped", "{json}");
        assert!(said.contains("the public stream was made anew") && said.contains("build the view anew"), "{said}");
        worker.stop().await;
        let worker = setup.start_with(registry());
        // Who may not set where the stream ends can't build it: the end is told, and nothing is served in its place.
        run(&mut redis, &["ACL", "SETUSER", "builder", "on", ">secret", "~*", "&*", "+@all", "-xsetid"]).await;
        let builder = Setup::at(server.url().replace("redis://", "redis://builder:secret@")).worker("lease = \"1s\"");
        let (code, said) = ran(&builder, "projection rebuild orders-by-status", 1).await;
        assert!(code == 1 && said.contains("error: "), "{code}: {said}");
        assert_eq!(checkpoint(&mut redis, "{orders}").await["generation"], "1");
        rebuilt(&setup, 1).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        happens(&store, "o-2", [any_event()]).await;
        agrees(&mut redis, &store, &ids, &[]).await;
        assert_eq!(listed(&setup).await.0["state"], "running");
        worker.stop().await;
    }
}
