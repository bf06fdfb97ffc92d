//! What an operator sees and does with dead letters, at a prompt and in scripts.

use std::time::Duration;

use crate::support::letters::{AGAIN, DEAD, bury, bury_many, fields};
use crate::support::{Cli, Server, entries, eventually, masked};

const PATIENCE: Duration = Duration::from_secs(30);

/// Two streams, so that commands have to tell them apart.
const TWO: &str = "[worker]\nstreams = [\"orders\", \"payments\"]";

/// Some letters of each kind.
async fn some_letters(server: &Server) {
    let mut redis = server.connect().await;
    for (stream, event_type, reason, error) in [
        (
            "orders",
            "order.created",
            "failed",
            "no stock\n\u{1b}[31mat all",
        ),
        ("orders", "order.created", "failed", "timed out after 5s"),
        (
            "orders",
            "order.lost",
            "unhandled",
            "no handler is registered for \"order.lost\"",
        ),
        ("payments", "payment.taken", "permanent", "no such card"),
    ] {
        let event = fields(&[("type", event_type), ("data", "{\"order_id\":\"o-1\"}")]);
        bury(&mut redis, stream, &event, reason, error).await;
    }
    bury(
        &mut redis,
        "orders",
        &fields(&[("kind", "none")]),
        "undecodable",
        "the entry has no field `type`",
    )
    .await;
}

/// What there is in Redis, all of it.
async fn everything(server: &Server) -> Vec<(String, redis::Value)> {
    let mut redis = server.connect().await;
    let mut keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(&mut redis)
        .await
        .unwrap();
    keys.sort();
    let mut all = Vec::new();
    for key in keys {
        let value = redis::cmd("DUMP")
            .arg(&key)
            .query_async(&mut redis)
            .await
            .unwrap();
        all.push((key, value));
    }
    all
}

on_both_servers! {
    async fn list_shows_a_row_a_letter(server: Server) {
        some_letters(&server).await;
        let both = Cli::new(&server, TWO);
        let out = both.run(&["dlq", "list"]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(masked(&out), @r#"
        ID               STREAM    TYPE           REASON       TRIES  AT                    ERROR
        ID  orders    order.created  failed       5      TIME  no stock\n\u{1b}[31mat all
        ID  orders    order.created  failed       5      TIME  timed out after 5s
        ID  orders    order.lost     unhandled    5      TIME  no handler is registered for "order.lost"
        ID  orders    -              undecodable  5      TIME  the entry has no field `type`
        ID  payments  payment.taken  permanent    5      TIME  no such card
        "#) };
        let one = Cli::new(&server, "");
        let out = one.run(&["dlq", "list", "--reason", "failed", "--error", "^timed out", "--since", "1h"]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(masked(&out), @r#"
        ID               TYPE           REASON  TRIES  AT                    ERROR
        ID  order.created  failed  5      TIME  timed out after 5s
        "#) };
        let json = both.run(&["dlq", "list", "--stream", "payments", "--json"]).await.json();
        assert_eq!(json.as_array().unwrap().len(), 1);
        assert_eq!((&json[0]["stream"], &json[0]["type"]), (&"payments".into(), &"payment.taken".into()));
        assert_eq!((&json[0]["reason"], &json[0]["attempts"], &json[0]["replays"]), (&"permanent".into(), &5.into(), &0.into()));
        assert_eq!(both.run(&["dlq", "list", "--json"]).await.json().as_array().unwrap().len(), 5);
    }

    async fn a_long_list_is_cut_and_says_so(server: Server) {
        bury_many(&mut server.connect().await, 105).await;
        let cli = Cli::new(&server, "");
        let ran = cli.run(&["dlq", "list"]).await;
        assert_eq!((ran.out.lines().count(), ran.code), (101, 0));
        assert_eq!(ran.err, "these are the 100 oldest: see more by --limit, or count them by dlq stats\n");
        let ran = cli.run(&["dlq", "list", "--limit", "103"]).await;
        assert_eq!((ran.out.lines().count(), ran.err.as_str()), (104, ""));
        assert_eq!(cli.run(&["dlq", "list", "--json"]).await.json().as_array().unwrap().len(), 105);
    }

    async fn show_tells_all_of_a_letter(server: Server) {
        let mut redis = server.connect().await;
        let mut event = fields(&[("type", "order.created"), ("datacontenttype", "application/msgpack"), ("note", "a\u{7}b")]);
        event.push(("data".into(), b"\x82\xa2id\xa3o-1\xa3sum\xcb@(\x80\x00\x00\x00\x00\x00".to_vec().into()));
        event.push(("blob".into(), b"\x00\xff".to_vec().into()));
        bury(&mut redis, "orders", &event, "failed", "no stock").await;
        let cli = Cli::new(&server, "");
        let id = entries(&mut redis, DEAD).await[0].id.to_string();
        let out = masked(&cli.run(&["dlq", "show", &id]).await.ok());
        let ago = regex::Regex::new(r"\(\w+ ago\)").unwrap();
        insta::allow_duplicates! { insta::assert_snapshot!(ago.replace(&out, "(AGO)"), @r#"
        dead letter ID of orders in the group fulfilment

          reason           failed
          error            no stock
          attempts         5
          handler          order.created
          entry            ID
          consumer         sh1-30000-test-1-a
          first delivered  TIME
          buried           TIME (AGO)
          replays          0

        entry: 5 fields
          type             order.created
          datacontenttype  application/msgpack
          note             a\u{7}b
          data             MessagePack
            {
              "id": "o-1",
              "sum": 12.25
            }
          blob             not UTF-8, in hexadecimal
            00 ff
        "#) };
        let json = cli.run(&["dlq", "show", &id, "--json"]).await.json();
        assert_eq!(json["fields"][4], serde_json::json!(["blob", {"base64": "AP8="}]));
    }

    async fn show_finds_a_letter_by_the_entry_and_by_the_event_it_is_of(server: Server) {
        let mut redis = server.connect().await;
        // Entries and letters of the same millisecond have the same id, unless the stream's are ahead.
        let mut ahead = redis::cmd("XADD");
        let _: String = ahead.arg(&["orders", "9999999999999-0", "data", "{}"]).query_async(&mut redis).await.unwrap();
        let event = |id: &str| fields(&[("type", "order.created"), ("id", id), ("data", "{}")]);
        for id in ["e-1", "e-2", "e-2"] {
            bury(&mut redis, "orders", &event(id), "failed", "no stock").await;
        }
        let cli = Cli::new(&server, "");
        let all = cli.run(&["dlq", "list", "--json"]).await.json();
        let text = |at: usize, name: &str| all[at][name].as_str().unwrap().to_owned();
        let (letter, entry) = (text(0, "id"), text(0, "entry"));
        assert_ne!(letter, entry);
        for id in [&letter[..], &entry, "e-1"] {
            assert_eq!(cli.run(&["dlq", "show", id, "--json"]).await.json()["id"], letter, "{id}");
        }
        let err = cli.run(&["dlq", "show", "e-2"]).await.failed(1);
        assert_eq!(err, format!("error: 2 dead letters are of e-2: show one of {}, {}\n", text(1, "id"), text(2, "id")));
        // A replayed copy that dies again is of another entry, and of the first one as well.
        cli.run(&["dlq", "replay", &letter]).await.ok();
        let copy = entries(&mut redis, AGAIN).await.remove(0);
        bury(&mut redis, "orders", &copy.fields, "failed", "no stock").await;
        let mut redis = server.connect().await;
        let last = entries(&mut redis, DEAD).await.pop().unwrap();
        // The helper buries as if for the first time: the last value says how often it was replayed.
        let mut again = redis::cmd("XADD");
        again.arg(DEAD).arg("*");
        for (name, value) in &last.fields {
            again.arg(&name[..]).arg(if &name[..] == b"dead.replays" { &b"1"[..] } else { &value[..] });
        }
        let again: String = again.query_async(&mut redis).await.unwrap();
        let _: u64 = redis::cmd("XDEL").arg(DEAD).arg(last.id.to_string()).query_async(&mut redis).await.unwrap();
        assert_eq!(cli.run(&["dlq", "show", &entry, "--json"]).await.json()["id"], again);
        for none in ["failed", "e-9", "order.created"] {
            let err = cli.run(&["dlq", "show", none]).await.failed(1);
            assert!(err.contains("never buried"), "{err}");
        }
    }

    async fn stats_count_by_stream_type_and_reason(server: Server) {
        some_letters(&server).await;
        let cli = Cli::new(&server, TWO);
        let out = cli.run(&["dlq", "stats"]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(masked(&out), @r#"
        STREAM    TYPE           REASON       COUNT  OLDEST                NEWEST
        orders    -              undecodable  1      TIME  TIME
        orders    order.created  failed       2      TIME  TIME
        orders    order.lost     unhandled    1      TIME  TIME
        payments  payment.taken  permanent    1      TIME  TIME
        5 dead letters in all
        "#) };
        let json = cli.run(&["dlq", "stats", "--type", "order.created", "--json"]).await.json();
        assert_eq!((&json["total"], &json["group"]), (&2.into(), &"fulfilment".into()));
        assert_eq!((&json["kinds"][0]["count"], &json["kinds"][0]["reason"]), (&2.into(), &"failed".into()));
    }

    async fn without_letters_every_command_says_so_and_succeeds(server: Server) {
        let cli = Cli::new(&server, "");
        for command in [&["list"][..], &["stats"], &["replay", "--all"], &["purge", "--all"], &["list", "--group", "billing"]] {
            let ran = cli.run(&[&["dlq"], command].concat()).await;
            let group = if command.contains(&"billing") { "billing" } else { "fulfilment" };
            assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{command:?}");
            assert_eq!(ran.err, format!("no dead letters of orders in the group {group}\n"), "{command:?}");
        }
        assert_eq!(cli.run(&["dlq", "list", "--json"]).await.json(), serde_json::json!([]));
        assert_eq!(cli.run(&["dlq", "stats", "--json"]).await.json()["total"], 0);
        assert_eq!(cli.run(&["dlq", "replay", "--all", "--json"]).await.json()["replayed"], 0);
        assert!(everything(&server).await.is_empty());
    }

    async fn a_dry_run_changes_nothing(server: Server) {
        some_letters(&server).await;
        let before = everything(&server).await;
        let cli = Cli::new(&server, TWO);
        assert_eq!(cli.run(&["dlq", "replay", "--all", "--dry-run"]).await.ok(), "would replay 5 dead letters\n");
        assert_eq!(cli.run(&["dlq", "replay", "--type", "order.lost", "--dry-run"]).await.ok(), "would replay 1 dead letter\n");
        assert_eq!(cli.run(&["dlq", "purge", "--all", "--dry-run", "--export", "out.ndjson"]).await.ok(), "would delete 5 dead letters\n");
        assert!(everything(&server).await == before && !cli.file("out.ndjson").exists());
    }

    async fn replay_gives_back_what_is_asked_for(server: Server) {
        let mut redis = server.connect().await;
        some_letters(&server).await;
        let cli = Cli::new(&server, TWO);
        let ids: Vec<String> = entries(&mut redis, DEAD).await.iter().map(|letter| letter.id.to_string()).collect();
        let out = cli.run(&["dlq", "replay", &ids[0], &ids[2], "--stream", "orders", "--by", "alice"]).await.ok();
        assert_eq!(out, "replayed 2 dead letters\n");
        let copies = entries(&mut redis, AGAIN).await;
        assert_eq!(copies.len(), 2);
        assert_eq!(copies[1].fields.last().unwrap(), &fields(&[("replay.by", "alice")])[0]);

        // One of these is gone by now.
        let ran = cli.run(&["dlq", "replay", &ids[0], &ids[1], "--stream", "orders"]).await;
        assert_eq!((ran.code, ran.out.as_str()), (1, "replayed 1 dead letter\n"));
        insta::allow_duplicates! { insta::assert_snapshot!(masked(&ran.err), @"error: no dead letter of orders has the id ID: it was replayed or purged, or never was one (shop dlq show finds the letter of an entry's or an event's id)") };
        let by = entries(&mut redis, AGAIN).await.pop().unwrap().fields.pop().unwrap().1;
        assert!(str::from_utf8(&by).unwrap().contains('@'), "{by:?}");

        let json = cli.run(&["dlq", "replay", "--all", "--json"]).await.json();
        assert_eq!((&json["found"], &json["replayed"], &json["gone"]), (&2.into(), &2.into(), &0.into()));
        assert!(entries(&mut redis, DEAD).await.is_empty());
        assert_eq!(entries(&mut redis, "{payments}:fulfilment:again").await.len(), 1);
    }

    async fn many_are_replayed_or_any_deleted_only_when_that_is_confirmed(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 101).await;
        let before = everything(&server).await;
        let cli = Cli::new(&server, "");
        let mut said = String::new();
        for args in [&["replay", "--all"][..], &["purge", "--limit", "1"]] {
            said += &cli.run_with(&[&["dlq"], args].concat(), b"y\n").await.failed(2);
        }
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r#"
        error: 101 dead letters are more than 100, and there is no terminal to ask on: add --yes to replay them
        error: 1 dead letter would be deleted, and there is no terminal to ask on: add --yes to delete
        "#) };
        assert!(everything(&server).await == before);
        assert_eq!(cli.run(&["dlq", "replay", "--limit", "100"]).await.ok(), "replayed 100 dead letters\n");
        bury_many(&mut redis, 101).await;
        assert_eq!(cli.run(&["dlq", "replay", "--all", "--yes"]).await.ok(), "replayed 102 dead letters\n");
        assert_eq!(entries(&mut redis, AGAIN).await.len(), 202);
    }

    async fn a_replay_killed_half_way_can_be_run_again(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 60).await;
        let cli = Cli::new(&server, "");
        let mut child = cli.command(&["dlq", "replay", "--all", "--rate", "30"]).spawn().unwrap();
        eventually(PATIENCE, "some to be replayed", async || entries(&mut redis, AGAIN).await.len() >= 10).await;
        child.kill().await.unwrap();
        // What it had sent last may still come to be done.
        eventually(PATIENCE, "the server to notice", async || {
            let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
            clients.lines().count() == 1
        })
        .await;
        let there = entries(&mut redis, AGAIN).await.len();
        let left = entries(&mut redis, DEAD).await.len();
        assert!(left > 0 && there + left == 60, "{there} replayed, {left} left");
        let out = cli.run(&["dlq", "replay", "--all"]).await.ok();
        assert_eq!(out, format!("replayed {left} dead letters\n"));
        let data: Vec<_> = entries(&mut redis, AGAIN).await.into_iter().map(|copy| copy.fields[1].1.clone()).collect();
        let expected: Vec<_> = (0..60).map(|n| bytes::Bytes::from(format!("{{\"order_id\":\"o-{n}\"}}"))).collect();
        assert_eq!(data, expected);
    }

    async fn purge_exports_to_a_new_file_and_deletes_what_is_in_it(server: Server) {
        let mut redis = server.connect().await;
        some_letters(&server).await;
        let cli = Cli::new(&server, TWO);
        let export = ["dlq", "purge", "--reason", "failed", "--yes", "--export", "failed.ndjson"];
        assert_eq!(cli.run(&export).await.ok(), "deleted 2 dead letters; they are in failed.ndjson\n");
        let text = std::fs::read_to_string(cli.file("failed.ndjson")).unwrap();
        let errors: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["error"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(errors, ["no stock\n\u{1b}[31mat all", "timed out after 5s"]);
        let before = everything(&server).await;
        let err = cli.run(&["dlq", "purge", "--all", "--yes", "--export", "failed.ndjson"]).await.failed(2);
        assert_eq!(err, "error: failed.ndjson exists already: name a new file to export to\n");
        let err = cli.run(&["dlq", "purge", "--all", "--yes", "--export", "missing/all.ndjson"]).await.failed(1);
        assert!(err.contains("can't export to missing/all.ndjson"), "{err}");
        assert!(everything(&server).await == before && std::fs::read_to_string(cli.file("failed.ndjson")).unwrap() == text);
        assert_eq!(cli.run(&["dlq", "purge", "--all", "--yes"]).await.ok(), "deleted 3 dead letters\n");
        assert!(entries(&mut redis, DEAD).await.is_empty());
    }

    async fn what_cannot_be_meant_is_refused(server: Server) {
        some_letters(&server).await;
        let before = everything(&server).await;
        let cli = Cli::new(&server, TWO);
        let mut said = String::new();
        for (code, args) in [
            (2, &["show", "1-1"][..]),
            (1, &["show", "1-1", "--stream", "orders"]),
            (1, &["show", "17", "--stream", "orders"]),
            (2, &["replay"]),
            (2, &["replay", "1-1"]),
            (1, &["replay", "1-1", "2-2", "--stream", "orders"]),
            (2, &["replay", "1-1", "--type", "order.created"]),
            (2, &["replay", "--all", "--reason", "failed"]),
            (2, &["replay", "--all", "--rate", "0"]),
            (2, &["purge", "--yes"]),
            (2, &["list", "--stream", "ordres"]),
            (2, &["list", "--reason", "broken"]),
            (2, &["list", "--error", "("]),
            (2, &["list", "--since", "yesterday"]),
            (2, &["list", "--since", "2026-01-02", "--until", "2026-01-01"]),
            (2, &["list", "--limit", "0"]),
            (2, &["stats", "--group", "a:b"]),
        ] {
            let err = cli.run(&[&["dlq"], args].concat()).await.failed(code);
            said += &format!("$ dlq {}\n{}\n", args.join(" "), err.split("\n\n").next().unwrap().trim_end());
        }
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r#"
        $ dlq show 1-1
        error: ids are a stream's own, and the worker reads 2: add --stream orders or --stream payments
        $ dlq show 1-1 --stream orders
        error: no dead letter of orders in the group fulfilment has the id 1-1, and none is of an entry or an event that has it: it was replayed or purged, or never buried
        $ dlq show 17 --stream orders
        error: no dead letter of orders in the group fulfilment has the id 17, and none is of an entry or an event that has it: it was replayed or purged, or never buried
        $ dlq replay
        error: nothing to replay: name letters by their ids (shop dlq list), filter them (--type, --reason, --since …), or write --all
        $ dlq replay 1-1
        error: ids are a stream's own, and the worker reads 2: add --stream orders or --stream payments
        $ dlq replay 1-1 2-2 --stream orders
        error: no dead letter of orders has the id 1-1 or 2-2: it was replayed or purged, or never was one (shop dlq show finds the letter of an entry's or an event's id)
        $ dlq replay 1-1 --type order.created
        error: the argument '[ID]...' cannot be used with '--type <TYPE>'
        $ dlq replay --all --reason failed
        error: the argument '--all' cannot be used with '--reason <REASON>'
        $ dlq replay --all --rate 0
        error: invalid value '0' for '--rate <NUMBER>': 0 is not in 1..=4294967295
        $ dlq purge --yes
        error: nothing to purge: name letters by their ids (shop dlq list), filter them (--type, --reason, --since …), or write --all
        $ dlq list --stream ordres
        error: the stream "ordres" is none of those that the group "fulfilment" reads: "orders", "payments"
        $ dlq list --reason broken
        error: "broken" is no reason to be buried for; there are failed, permanent, crashed, undecodable, unhandled, too_large, expired
        $ dlq list --error (
        error: "(" is no regular expression: regex parse error:
            (
            ^
        error: unclosed group
        $ dlq list --since yesterday
        error: invalid value 'yesterday' for '--since <TIME>': write a time (2026-01-31T12:00:00Z), a day (2026-01-31) or a duration ago (90s, 2h, 7d)
        $ dlq list --since 2026-01-02 --until 2026-01-01
        error: nothing is since 2026-01-02T00:00:00Z and until 2026-01-01T00:00:00Z: the second is earlier
        $ dlq list --limit 0
        error: invalid value '0' for '--limit <NUMBER>': 0 is not in 1..18446744073709551615
        $ dlq stats --group a:b
        error: the group name "a:b" has a ':', which parts the names of its keys
        "#) };
        assert!(everything(&server).await == before);
    }
}
