//! Editing dead letters: what is kept stands beside the letter, was decoded by its own handler, and loses no byte.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use streamhand::admin::Admin;
use streamhand::dead_letters::Filter;
use streamhand::{Context, ErrorKind, Event, Failure, Registry, Validity};

use crate::support::letters::{AGAIN, DEAD, Working, bury, dead_letters, fields, settings};
use crate::support::{Cli, Fields, Server, entries, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const ORDER: &str = r#"{"order_id":"o-1","customer_id":"c-1","amount": 99999999,"items":[{"sku":"s-1","quantity":1}]}"#;

async fn bury_order(redis: &mut MultiplexedConnection, data: &str) -> String {
    let order = fields(&[("type", "order.created"), ("id", "e-1"), ("data", data)]);
    bury(redis, "orders", &order, "permanent", "no price").await;
    entries(redis, DEAD).await.pop().unwrap().id.to_string()
}

fn value<'a>(fields: &'a Fields, name: &str) -> &'a [u8] {
    let found = fields
        .iter()
        .find(|(known, _)| &known[..] == name.as_bytes());
    found.map_or(b"", |(_, value)| &value[..])
}

/// An order in its second version, which has a currency.
#[derive(Serialize, Deserialize)]
struct Paid {
    amount: u64,
    currency: String,
}

/// The same in its first version.
#[derive(Deserialize)]
struct First {
    amount: u64,
}

impl Event for Paid {
    const TYPE: &'static str = "order.paid";
    const VERSION: u32 = 2;
}

/// Handles what is paid, and notes it; amounts of nothing fail for good.
fn paid(seen: Arc<Mutex<Vec<(u64, String)>>>) -> Registry {
    Registry::new()
        .on(move |paid: Paid, _: Context| {
            seen.lock()
                .unwrap()
                .push((paid.amount, paid.currency.clone()));
            async move {
                match paid.amount {
                    0 => Err(Failure::permanent("an amount of nothing")),
                    _ => Ok(()),
                }
            }
        })
        .upcast::<Paid, First, Paid>(1, |First { amount }| {
            let currency = "EUR".to_owned();
            Ok(Paid { amount, currency })
        })
}

on_both_servers! {
    async fn an_edit_stands_beside_the_letter_and_a_replay_applies_it(server: Server) {
        let mut redis = server.connect().await;
        let id = bury_order(&mut redis, ORDER).await;
        let before = entries(&mut redis, DEAD).await;
        let cli = Cli::new(&server, "");
        let ran = cli.run(&["dlq", "edit", &id, "--set", "data.amount=0", "--set", "subject=o-1", "--by", "alice", "--yes"]).await;
        assert_eq!((ran.code, &ran.out[..]), (0, &format!("kept: `shop dlq replay {id}` replays {id} as it is edited\n")[..]), "{ran:?}");
        insta::allow_duplicates! { insta::assert_snapshot!(ran.err, @r#"
        data
          {
            "order_id": "o-1",
            "customer_id": "c-1",
        -   "amount": 99999999,
        +   "amount": 0,
            "items": [
              {
                "sku": "s-1",
                "quantity": 1
              }
            ]
          }
        subject
        + o-1
        "#) };
        assert_eq!(entries(&mut redis, DEAD).await, before);
        let shown = cli.run(&["dlq", "show", &id, "--json"]).await.json();
        assert_eq!((&shown["edit"]["by"], &shown["fields"][2][1]), (&"alice".into(), &ORDER.into()));
        // Another one upon it; a value that is as it was is not edited.
        cli.run(&["dlq", "edit", &id, "--set", "data.amount=7", "--set", "id=e-1", "--yes"]).await.ok();
        let shown = cli.run(&["dlq", "edit", &id, "--show", "--json"]).await.json();
        assert_eq!((shown["changes"].as_array().unwrap().len(), &shown["kept"]), (2, &false.into()));

        cli.run(&["dlq", "replay", &id, "--by", "bob"]).await.ok();
        let copy = entries(&mut redis, AGAIN).await.remove(0);
        let edited = ORDER.replace("99999999", "7");
        assert_eq!(value(&copy.fields, "data"), edited.as_bytes());
        assert_eq!(value(&copy.fields, "edited.was.data"), ORDER.as_bytes());
        assert_eq!((value(&copy.fields, "subject"), value(&copy.fields, "edited.added")), (&b"o-1"[..], &b"subject"[..]));
        assert!(!value(&copy.fields, "edited.at").is_empty() && !value(&copy.fields, "edited.by").is_empty());
        assert_eq!(value(&copy.fields, "replay.by"), b"bob");
        let left: u64 = redis::cmd("HLEN").arg("{orders}:fulfilment:dead:notes").query_async(&mut redis).await.unwrap();
        assert_eq!(left, 0);

        // It dies again, and is edited again: what it was at first stays.
        let again: Fields = copy.fields.clone();
        let mut dead = redis::cmd("XADD");
        dead.arg(DEAD).arg("*");
        for (name, value) in &again {
            dead.arg(&name[..]).arg(&value[..]);
        }
        for (name, value) in before[0].fields.iter().filter(|(name, _)| name.starts_with(b"dead.")) {
            dead.arg(&name[..]).arg(if &name[..] == b"dead.replays" { b"1" } else { &value[..] });
        }
        let id: String = dead.query_async(&mut redis).await.unwrap();
        cli.run(&["dlq", "edit", &id, "--set", "data.amount=8", "--set", "subject=o-2", "--yes", "--replay"]).await.ok();
        let copy = entries(&mut redis, AGAIN).await.remove(1);
        assert_eq!(value(&copy.fields, "data"), ORDER.replace("99999999", "8").as_bytes());
        assert_eq!(value(&copy.fields, "edited.was.data"), ORDER.as_bytes());
        assert_eq!(value(&copy.fields, "edited.was.subject"), b"o-1");
        assert_eq!(value(&copy.fields, "replay.count"), b"2");
    }

    async fn the_handlers_own_decoder_and_upcasters_say_whether_it_goes(server: Server) {
        let mut redis = server.connect().await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let registry = paid(seen.clone());
        // MessagePack of the first version, with a binary value that JSON can't hold: {"amount": 0, "sig": bin(ff 00)}
        let data = b"\x82\xa6amount\x00\xa3sig\xc4\x02\xff\x00";
        let mut event = fields(&[("type", "order.paid"), ("datacontenttype", "application/msgpack")]);
        event.push(("data".into(), Bytes::from_static(data)));
        bury(&mut redis, "orders", &event, "permanent", "an amount of nothing").await;
        let id = entries(&mut redis, DEAD).await[0].id.to_string().parse().unwrap();
        let settings = settings(&server, "");
        let admin = Admin::new(&settings).unwrap();
        let mut edit = admin.edit("orders", id).await.unwrap();
        assert_eq!(edit.validate(&registry).unwrap(), Validity::Decodes);
        edit.set("data.amount", "much").unwrap();
        let refused = edit.validate(&registry).unwrap_err().to_string();
        assert!(refused.contains("the upcaster of order.paid from version 1 to 2"), "{refused}");
        edit.set("schemaversion", "3").unwrap();
        assert!(edit.validate(&registry).unwrap_err().to_string().contains("knows 2"));
        edit.set("schemaversion", "x").unwrap();
        assert!(edit.validate(&registry).unwrap_err().to_string().contains("it is no event"));
        edit.set("type", "order.lost").unwrap();
        edit.undo();
        // As the whole document, which shows the binary value as text: what is left alone stays as it is.
        let text = edit.data_text().unwrap().replace("\"amount\":0", "\"amount\":5");
        edit.set_data_text(&text).unwrap();
        assert_eq!(edit.value("data").unwrap(), b"\x82\xa6amount\x05\xa3sig\xc4\x02\xff\x00");
        let error = edit.set_data_text(&text.replace("0xff00", "0xff01")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(edit.validate(&registry).unwrap(), Validity::Decodes);
        assert!(seen.lock().unwrap().is_empty(), "nothing was handled");
        admin.save_edit(&edit, "alice").await.unwrap();

        let worker = Working::start(settings, registry);
        admin.dead_letters().unwrap().select(Filter::new()).await.unwrap().replay("bob", None, |_| ()).await.unwrap();
        eventually(PATIENCE, "it to be handled", async || !seen.lock().unwrap().is_empty()).await;
        assert_eq!(*seen.lock().unwrap(), [(5, "EUR".to_owned())]);
        worker.stop().await;
    }

    async fn what_cannot_be_decoded_is_not_kept(server: Server) {
        let mut redis = server.connect().await;
        let id = bury_order(&mut redis, ORDER).await;
        let lost = fields(&[("type", "order.lost"), ("data", "{\"a\":1}")]);
        bury(&mut redis, "orders", &lost, "unhandled", "no handler").await;
        let lost = entries(&mut redis, DEAD).await[1].id.to_string();
        let cli = Cli::new(&server, "");
        let mut said = String::new();
        for (code, id, args) in [
            (1, &id, &["--set", "data.amount=much", "--yes"][..]),
            (1, &id, &["--set", "schemaversion=0", "--yes"]),
            (1, &lost, &["--set", "data.a=2", "--yes"]),
            (2, &id, &["--set", "data.amount=0"]),
            (2, &id, &["--set", "data.items.3.sku=s-2", "--yes"]),
            (2, &id, &["--set", "data.nothing.sku=s-2", "--yes"]),
            (2, &id, &["--set", "subject.x=1", "--yes"]),
            (2, &id, &["--set", "replay.by=me", "--yes"]),
            (2, &id, &["--set", "amount"]),
            (2, &id, &[]),
            (1, &"9-9".to_owned(), &["--set", "data.amount=0"]),
        ] {
            let ran = cli.run(&[&["dlq", "edit", id], args].concat()).await;
            assert_eq!((ran.code, &ran.out[..]), (code, ""), "{args:?}: {ran:?}");
            let err = ran.err.split("\n\n").next().unwrap().lines().filter(|line| line.starts_with("error")).collect::<Vec<_>>().join("\n");
            said += &format!("{}\n{err}\n", format!("$ dlq edit ID {}", args.join(" ")).trim_end());
        }
        let said = said.replace(&id, "ID").replace(&lost, "ID");
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r#"
        $ dlq edit ID --set data.amount=much --yes
        error: its handler could not decode it, and nothing was kept: the data does not decode as JSON: invalid type: string "much", expected u64 at line 1 column 54
        $ dlq edit ID --set schemaversion=0 --yes
        error: its handler could not decode it, and nothing was kept: it is no event: the field `schemaversion` is "0", not a whole number from 1
        $ dlq edit ID --set data.a=2 --yes
        error: no handler is registered for its type: nobody can say here whether its handler could decode it; add --unchecked to keep it all the same
        $ dlq edit ID --set data.amount=0
        error: the edit would be kept, and there is no terminal to ask on: add --yes to keep it
        $ dlq edit ID --set data.items.3.sku=s-2 --yes
        error: data.items.3.sku: data.items has 1 items, counted from 0
        $ dlq edit ID --set data.nothing.sku=s-2 --yes
        error: data.nothing.sku: there is no nothing in data
        $ dlq edit ID --set subject.x=1 --yes
        error: subject.x: only the data has values within; subject is a field of its own
        $ dlq edit ID --set replay.by=me --yes
        error: replay.by: only the data has values within; replay is a field of its own
        $ dlq edit ID --set amount
        error: invalid value 'amount' for '--set <PLACE=VALUE>': write a place and its value: data.amount=0
        $ dlq edit ID
        error: neither $VISUAL nor $EDITOR is set: name an editor, or use --set data.amount=0
        $ dlq edit ID --set data.amount=0
        error: no dead letter of orders in the group fulfilment has the id 9-9, and none is of an entry or an event that has it: it was replayed or purged, or never buried
        "#) };
        // A program without handlers can't say; it can be told to keep it.
        let without = Cli::new(&server, "").of_program(env!("CARGO_BIN_EXE_streamhand"));
        let err = without.run(&["dlq", "edit", &id, "--set", "data.amount=0", "--yes"]).await.failed(1);
        assert!(err.contains("this program has no handlers") && err.contains("add --unchecked"), "{err}");
        let notes = async |redis: &mut MultiplexedConnection| -> u64 {
            redis::cmd("HLEN").arg("{orders}:fulfilment:dead:notes").query_async(redis).await.unwrap()
        };
        assert_eq!(notes(&mut redis).await, 0);
        let json = without.run(&["dlq", "edit", &id, "--set", "data.amount=much", "--yes", "--unchecked", "--json"]).await.json();
        assert_eq!((&json["validity"], &json["kept"]), (&"unchecked".into(), &true.into()));
        // And taken back.
        cli.run(&["dlq", "edit", &id, "--undo", "--yes"]).await.ok();
        assert_eq!(cli.run(&["dlq", "edit", &id, "--show"]).await.ok(), format!("{id} is not edited\n"));
        assert_eq!(notes(&mut redis).await, 0);
    }

    async fn in_an_editor_what_was_written_is_not_lost(server: Server) {
        let mut redis = server.connect().await;
        let id = bury_order(&mut redis, ORDER).await;
        let tmp = Cli::new(&server, "");
        let temporary = tmp.file("config.toml").parent().unwrap().to_str().unwrap().to_owned();
        let editor = |editor: &str| tmp.with_env("TMPDIR", &temporary).with_env("VISUAL", "").with_env("EDITOR", editor);
        let drafts = || std::fs::read_dir(&temporary).unwrap().filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("letter-")).count();
        let args = ["dlq", "edit", &id, "--yes"];
        let ran = editor("true").run(&args).await;
        assert_eq!((ran.code, &ran.err[..], drafts()), (0, "nothing is changed\n", 0));
        let err = editor("sed -i s/99999999/much/").run(&args).await.failed(1);
        assert!(err.contains("the data is no JSON") && err.contains("what you wrote is in ") && drafts() == 1, "{err}");
        let err = editor("sed -i s/99999999/true/").run(&args).await.failed(1);
        assert!(err.contains("its handler could not decode it") && err.contains("what you wrote is in ") && drafts() == 2, "{err}");
        let err = editor("false").run(&args).await.failed(1);
        assert!(err.contains("the editor ended with exit status: 1") && drafts() == 2, "{err}");
        let err = editor("no-such-editor").run(&args).await.failed(1);
        assert!(err.contains("can't start the editor \"no-such-editor\""), "{err}");
        editor("sed -i s/99999999/7/").run(&args).await.ok();
        let err = editor("").run(&args).await.failed(2);
        assert!(err.contains("neither $VISUAL nor $EDITOR is set"), "{err}");
        assert_eq!(drafts(), 2);
        cli_replays(&tmp, &id, &mut redis, &ORDER.replace(" 99999999", "7")).await;
    }

    async fn an_edit_meets_what_others_do_meanwhile(server: Server) {
        let mut redis = server.connect().await;
        let id = bury_order(&mut redis, ORDER).await.parse().unwrap();
        let admin = Admin::new(&settings(&server, "")).unwrap();
        let edit = |amount: &'static str| {
            let admin = admin.clone();
            async move {
                let mut edit = admin.edit("orders", id).await.unwrap();
                edit.set("data.amount", amount).unwrap();
                edit
            }
        };
        let (alices, bobs) = (edit("1").await, edit("2").await);
        admin.save_edit(&alices, "alice").await.unwrap();
        let error = admin.save_edit(&bobs, "bob").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
        assert!(error.to_string().contains("was edited by somebody else meanwhile"), "{error}");
        let bobs = edit("2").await;
        dead_letters(&server).select(Filter::new()).await.unwrap().replay("carol", None, |_| ()).await.unwrap();
        let error = admin.save_edit(&bobs, "bob").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let copy = entries(&mut redis, AGAIN).await.remove(0);
        assert_eq!(value(&copy.fields, "data"), ORDER.replace("99999999", "1").as_bytes());
    }

    async fn an_entry_too_wide_for_a_script_is_edited_all_the_same(server: Server) {
        let mut redis = server.connect().await;
        let mut event = fields(&[("type", "order.created"), ("data", ORDER)]);
        event.extend((0..3600).map(|n| (Bytes::from(format!("f{n}")), Bytes::from_static(b"\xff"))));
        bury(&mut redis, "orders", &event, "failed", "no stock").await;
        let id = entries(&mut redis, DEAD).await[0].id.to_string();
        let cli = Cli::new(&server, "");
        cli.run(&["dlq", "edit", &id, "--set", "data.amount=3", "--set", "f7=x", "--yes", "--replay"]).await.ok();
        let seen = Arc::new(Mutex::new(None));
        let registry = {
            let seen = seen.clone();
            Registry::new().on_raw("order.created", move |envelope, _| {
                *seen.lock().unwrap() = Some(envelope.fields().clone());
                async { Ok(()) }
            })
        };
        let worker = Working::start(settings(&server, ""), registry);
        eventually(PATIENCE, "it to be handled", async || seen.lock().unwrap().is_some()).await;
        worker.stop().await;
        let got = seen.lock().unwrap().take().unwrap();
        assert_eq!(got.value("data").unwrap(), ORDER.replace("99999999", "3").as_bytes());
        assert_eq!((got.value("f7").unwrap(), got.value("f8").unwrap()), (&b"x"[..], &b"\xff"[..]));
        assert_eq!((got.value("edited.was.f7").unwrap(), got.value("edited.was.data").unwrap()), (&b"\xff"[..], ORDER.as_bytes()));
    }

    async fn letters_are_sent_elsewhere_as_new_events_and_once(server: Server) {
        let mut redis = server.connect().await;
        let id = bury_order(&mut redis, ORDER).await;
        let before = entries(&mut redis, DEAD).await.remove(0);
        let cli = Cli::new(&server, "");
        cli.run(&["dlq", "edit", &id, "--set", "data.amount=5", "--yes"]).await.ok();
        bury(&mut redis, "orders", &fields(&[("kind", "none")]), "undecodable", "no type").await;
        let held = bury_order(&mut redis, ORDER).await;
        cli.run(&["dlq", "hold", &held]).await.ok();
        let out = cli.run(&["dlq", "replay", "--all", "--to", "mended", "--by", "alice"]).await.ok();
        assert_eq!(out, "sent 1 dead letter to mended; 1 is held; 1 is no event\n");
        let sent = entries(&mut redis, "mended").await;
        let of = |name| String::from_utf8_lossy(value(&sent[0].fields, name)).into_owned();
        assert_eq!((&of("type")[..], &of("data")[..], &of("source")[..]), ("order.created", &ORDER.replace("99999999", "5")[..], "fulfilment"));
        assert_eq!((&of("causationid")[..], &of("correlationid")[..], &of("redirected.by")[..]), ("e-1", "e-1", "alice"));
        assert!(of("id") != "e-1" && of("redirected.from").starts_with("orders "));
        assert_eq!(entries(&mut redis, DEAD).await.len(), 2);
        assert!(entries(&mut redis, AGAIN).await.is_empty());
        // Stopped before the letter was gone, and done again: the same letter makes no second event.
        let mut back = redis::cmd("XADD");
        back.arg(DEAD).arg("*");
        for (name, value) in &before.fields {
            back.arg(&name[..]).arg(&value[..]);
        }
        let id: String = back.query_async(&mut redis).await.unwrap();
        cli.run(&["dlq", "edit", &id, "--set", "data.amount=5", "--yes"]).await.ok();
        assert_eq!(cli.run(&["dlq", "replay", &id, "--to", "mended", "--by", "alice"]).await.ok(), "sent 1 dead letter to mended\n");
        assert_eq!(entries(&mut redis, "mended").await.len(), 1);
        let err = cli.run(&["dlq", "replay", "--all", "--to", "mended", "--canary", "1"]).await.failed(2);
        assert!(err.contains("cannot be used with"), "{err}");
    }

    async fn diff_shows_in_what_errors_differ(server: Server) {
        let mut redis = server.connect().await;
        let id = bury_order(&mut redis, ORDER).await;
        let cli = Cli::new(&server, "");
        let one = cli.run(&["dlq", "diff", &id]).await.ok();
        assert!(one.starts_with("attempt 5  ") && one.ends_with("\n  no price\n"), "{one}");
        let mark = {
            let letter = entries(&mut redis, DEAD).await.remove(0).fields;
            format!("{} {}", String::from_utf8_lossy(value(&letter, "dead.entry")), String::from_utf8_lossy(value(&letter, "dead.at")))
        };
        let errors = "5 1769860800000 2 timed out after 7s\u{1e}3 1769860700000 1 timed out after 5s\u{1e}2 0 1 no connection";
        let _: () = redis::cmd("HSET").arg("{orders}:fulfilment:dead:notes").arg(format!("{id} of")).arg(mark).arg(format!("{id} errors")).arg(errors)
            .query_async(&mut redis).await.unwrap();
        let out = cli.run(&["dlq", "diff", &id]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(out, @r"
        an earlier attempt
          no connection
        attempt 3  2026-01-31T11:58:20.000Z
          timed out after 5s
        attempts 4 to 5  2026-01-31T12:00:00.000Z
          timed out after [-5s-]{+7s+}
        ") };
        let json = cli.run(&["dlq", "diff", &id, "--json"]).await.json();
        assert_eq!((&json[0]["times"], &json[2]["attempt"]), (&2.into(), &serde_json::Value::Null));
    }
}

async fn cli_replays(cli: &Cli, id: &str, redis: &mut MultiplexedConnection, data: &str) {
    cli.run(&["dlq", "replay", id]).await.ok();
    let copy = entries(redis, AGAIN).await.pop().unwrap();
    assert_eq!(String::from_utf8_lossy(value(&copy.fields, "data")), data);
}
