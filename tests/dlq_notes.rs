//! What is noted of dead letters: it stands beside them, goes with them, and a hold keeps them.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::dead_letters::Filter;
use streamhand::{Context, ErrorKind, Failure, Registry};

use crate::support::jobs::{Action, Job};
use crate::support::letters::{DEAD, Working, bury_many, dead_letters, settings};
use crate::support::{Cli, Server, entries, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const NOTES: &str = "{orders}:fulfilment:dead:notes";

async fn ids(redis: &mut MultiplexedConnection) -> Vec<String> {
    let letters = entries(redis, DEAD).await;
    letters.iter().map(|letter| letter.id.to_string()).collect()
}

async fn noted(redis: &mut MultiplexedConnection) -> u64 {
    redis::cmd("HLEN")
        .arg(NOTES)
        .query_async(redis)
        .await
        .unwrap()
}

on_both_servers! {
    async fn notes_stand_beside_a_letter_and_go_with_it(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 3).await;
        let before = entries(&mut redis, DEAD).await;
        let cli = Cli::new(&server, "");
        let id = ids(&mut redis).await.remove(0);
        cli.run(&["dlq", "note", &id, "the old price\nagain", "--by", "alice"]).await.ok();
        assert_eq!(cli.run(&["dlq", "assign", &id, "bob", "--by", "alice"]).await.ok(), format!("{id} is assigned to bob\n"));
        cli.run(&["dlq", "hold", &id, "--why", "evidence", "--by", "carol"]).await.ok();
        let json = cli.run(&["dlq", "show", &id, "--json"]).await.json();
        assert_eq!((&json["note"]["text"], &json["note"]["by"]), (&"the old price\nagain".into(), &"alice".into()));
        assert_eq!((&json["assigned"]["text"], &json["held"]["text"], &json["held"]["by"]), (&"bob".into(), &"evidence".into(), &"carol".into()));
        let shown = cli.run(&["dlq", "show", &id]).await.ok();
        assert!(shown.contains("assigned to      bob (alice, ") && shown.contains("held             evidence (carol, "), "{shown}");
        assert_eq!(entries(&mut redis, DEAD).await, before);

        // It is not purged, whoever asks and however.
        let ran = cli.run(&["dlq", "purge", "--all", "--yes"]).await;
        assert_eq!((ran.code, &ran.out[..], &ran.err[..]), (0, "deleted 2 dead letters\n", "1 is held, and stay: dlq hold ID --release lets one go\n"));
        let json = cli.run(&["dlq", "purge", &id, "--yes", "--json", "--export", "held.ndjson"]).await.json();
        assert_eq!((&json["deleted"], &json["held"]), (&0.into(), &1.into()));
        let exported = std::fs::read_to_string(cli.file("held.ndjson")).unwrap();
        assert!(exported.contains("\"held\":{\"text\":\"evidence\""), "{exported}");

        cli.run(&["dlq", "note", &id, ""]).await.ok();
        cli.run(&["dlq", "hold", &id, "--release"]).await.ok();
        let json = cli.run(&["dlq", "show", &id, "--json"]).await.json();
        assert!(json["note"].is_null() && json["held"].is_null() && json["assigned"]["text"] == "bob", "{json}");
        cli.run(&["dlq", "purge", &id, "--yes"]).await.ok();
        assert_eq!(noted(&mut redis).await, 0);
    }

    async fn a_purge_that_is_undone_brings_notes_back_and_leaves_what_is_held(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 3).await;
        let cli = Cli::new(&server, "");
        let letters = ids(&mut redis).await;
        cli.run(&["dlq", "note", &letters[0], "seen", "--by", "alice"]).await.ok();
        cli.run(&["dlq", "hold", &letters[1]]).await.ok();
        let json = cli.run(&["dlq", "purge", "--all", "--yes", "--undo-within", "1h", "--json"]).await.json();
        assert_eq!((&json["deleted"], &json["held"]), (&2.into(), &1.into()));
        assert_eq!(ids(&mut redis).await, letters[1..2]);
        let groups = cli.run(&["dlq", "groups", "--json"]).await.json();
        assert_eq!(groups["total"], 1);
        cli.run(&["dlq", "undo", json["undo"].as_str().unwrap()]).await.ok();
        let back = ids(&mut redis).await;
        assert_eq!(back.len(), 3);
        let shown = cli.run(&["dlq", "show", &back[1], "--json"]).await.json();
        assert_eq!((&shown["note"]["text"], &shown["note"]["by"], &shown["fields"][0][1]), (&"seen".into(), &"alice".into(), &"order.created".into()));
        assert_eq!(cli.run(&["dlq", "groups", "--json"]).await.json()["total"], 3);
    }

    async fn notes_are_not_those_of_another_letter_of_the_same_id(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 1).await;
        let dead = dead_letters(&server);
        let id = ids(&mut redis).await.remove(0).parse().unwrap();
        dead.hold("orders", id, "alice", "").await.unwrap();
        // As after a failover that lost the letter, and its deletion.
        let mut other = entries(&mut redis, DEAD).await.remove(0);
        let _: () = redis::cmd("DEL").arg(DEAD).query_async(&mut redis).await.unwrap();
        let mut xadd = redis::cmd("XADD");
        xadd.arg(DEAD).arg(other.id.to_string());
        for (name, value) in &mut other.fields {
            xadd.arg(&name[..]).arg(if &name[..] == b"dead.entry" { b"7-7" } else { &value[..] });
        }
        let _: String = xadd.query_async(&mut redis).await.unwrap();
        assert!(dead.get("orders", id).await.unwrap().notes.is_empty());
        let purged = dead.select(Filter::new()).await.unwrap().purge_letters(|_| ()).await.unwrap();
        assert_eq!((purged.deleted, purged.held), (1, 0));
        let gone = dead.note("orders", id, "alice", "too late").await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }

    async fn a_held_letter_outlives_keep(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 6).await;
        let cli = Cli::new(&server, "");
        let letters = ids(&mut redis).await;
        for id in [&letters[0], &letters[2]] {
            cli.run(&["dlq", "hold", id]).await.ok();
        }
        let registry = || Registry::new().on(async |_: Job, _: Context| Ok::<_, Failure>(()));
        let keep_one = settings(&server, "[dead_letters]\nkeep = \"1\"");
        let worker = Working::start(keep_one.clone(), registry());
        eventually(PATIENCE, "the others to be dropped", async || {
            ids(&mut redis).await == [letters[0].clone(), letters[2].clone(), letters[5].clone()]
        })
        .await;
        worker.stop().await;
        // Let go of, it goes at the next turn: those that are held were passed over, and are looked at anew.
        cli.run(&["dlq", "hold", &letters[2], "--release"]).await.ok();
        let _: () = redis::cmd("HDEL").arg("{orders}:fulfilment:kept").arg("at").query_async(&mut redis).await.unwrap();
        let worker = Working::start(keep_one, registry());
        eventually(PATIENCE, "what was let go of to be dropped", async || {
            ids(&mut redis).await == [letters[0].clone(), letters[5].clone()]
        })
        .await;
        worker.stop().await;
    }

    async fn the_last_five_errors_of_a_letter_are_known(server: Server) {
        let mut redis = server.connect().await;
        let registry = Registry::new().on(async |_: Job, ctx: Context| {
            match ctx.attempt() {
                2 | 3 => Err(Failure::from("timed out")),
                n => Err(Failure::from(format!("no stock in {n}\u{1e} places"))),
            }
        });
        let retry = "[retry]\nmax_attempts = 8\nbackoff = { initial = \"1ms\", max = \"2ms\", factor = 1.0, jitter = 0.0 }";
        let worker = Working::start(settings(&server, retry), registry);
        let job = serde_json::to_string(&Job::new("j-1", Action::Succeed)).unwrap();
        let _: String = redis::cmd("XADD").arg(&["orders", "*", "type", "test.job", "data", &job]).query_async(&mut redis).await.unwrap();
        eventually(PATIENCE, "it to die", async || !ids(&mut redis).await.is_empty()).await;
        worker.stop().await;
        let dead = dead_letters(&server);
        let id = ids(&mut redis).await.remove(0);
        let letter = dead.get("orders", id.parse().unwrap()).await.unwrap();
        let known: Vec<_> = letter.notes.errors.iter().map(|error| (error.attempt, error.times, &error.error[..])).collect();
        assert_eq!(known, [
            (Some(8), 1, "no stock in 8  places"),
            (Some(7), 1, "no stock in 7  places"),
            (Some(6), 1, "no stock in 6  places"),
            (Some(5), 1, "no stock in 5  places"),
            (Some(4), 1, "no stock in 4  places"),
        ]);
        assert!(letter.notes.errors[0].at.unwrap() <= letter.head.at);
        // Nothing of it is left once the letter is gone.
        dead.select(Filter::new()).await.unwrap().purge(|_| ()).await.unwrap();
        assert_eq!(noted(&mut redis).await, 0);
    }

    async fn errors_that_repeat_are_told_once_and_records_of_an_earlier_release_are_read(server: Server) {
        let mut redis = server.connect().await;
        let registry = || Registry::new().on(async |_: Job, _: Context| Err::<(), _>(Failure::from("timed out")));
        let setting = "[retry]\nmax_attempts = 4\nbackoff = { initial = \"MS\", max = \"MS\", factor = 1.0, jitter = 0.0 }";
        let worker = Working::start(settings(&server, &setting.replace("MS", "1h")), registry());
        let job = serde_json::to_string(&Job::new("j-1", Action::Succeed)).unwrap();
        let entry: String = redis::cmd("XADD").arg(&["orders", "*", "type", "test.job", "data", &job]).query_async(&mut redis).await.unwrap();
        let record = async |redis: &mut MultiplexedConnection| -> Option<String> {
            redis::cmd("HGET").arg("{orders}:fulfilment:failures").arg(&entry).query_async(redis).await.unwrap()
        };
        eventually(PATIENCE, "it to be parked", async || record(&mut redis).await.is_some()).await;
        worker.stop().await;
        // As the last release wrote it, which knew of one error.
        let kept = record(&mut redis).await.unwrap();
        let (before, _) = kept.split_once('\u{1e}').unwrap();
        assert!(before.ends_with(" timed out"), "{kept}");
        let earlier = before.replace("timed out", "no connection: refused");
        let _: () = redis::cmd("HSET").arg("{orders}:fulfilment:failures").arg(&entry).arg(earlier).query_async(&mut redis).await.unwrap();
        let _: () = redis::cmd("ZADD").arg("{orders}:fulfilment:retry").arg(1).arg(&entry).query_async(&mut redis).await.unwrap();
        let worker = Working::start(settings(&server, &setting.replace("MS", "1ms")), registry());
        eventually(PATIENCE, "it to die", async || !ids(&mut redis).await.is_empty()).await;
        worker.stop().await;
        let id = ids(&mut redis).await.remove(0);
        let letter = dead_letters(&server).get("orders", id.parse().unwrap()).await.unwrap();
        let known: Vec<_> = letter.notes.errors.iter().map(|error| (error.attempt, error.times, &error.error[..])).collect();
        assert_eq!(known, [(Some(4), 3, "timed out"), (None, 1, "no connection: refused")]);
        assert_eq!((letter.head.attempts, &letter.head.error[..]), (4, "timed out"));
    }
}
