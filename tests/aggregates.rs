//! What an operator sees of aggregates and does with them, at a prompt and in scripts.

pub mod ledger;

use redis::aio::MultiplexedConnection;
use serde_json::json;
use streamhand::eventstore::{EventStore, Expected, RedisEventStore, Repository, Snapshot};
use streamhand::{Envelope, Format, Settings};

use self::ledger::{Account, Opened, PANICS};
use crate::support::{Cli, Server, entries, masked, run_program};

/// The program of these tests, once more as a process.
#[test]
#[ignore = "run by other tests"]
fn program() {
    run_program(streamhand::cli::Program::new(ledger::registry()));
}

/// With a name of its own.
#[test]
#[ignore = "run by other tests"]
fn program_called_ledger() {
    run_program(streamhand::cli::Program::new(ledger::registry()).name("ledger"));
}

#[test]
#[ignore = "run by other tests"]
fn program_without() {
    run_program(streamhand::cli::Program::new(streamhand::Registry::new()));
}

fn cli(server: &Server) -> Cli {
    Cli::new(server, "").of_test("aggregates::program")
}

fn store(server: &Server) -> RedisEventStore {
    let settings = Settings::from_toml_str(&format!("[redis]\nurl = \"{}\"", server.url()));
    RedisEventStore::of_kind::<Account>(&settings.unwrap().redis).unwrap()
}

/// An account with three events, of which the first is of an older release.
async fn some_account(store: &RedisEventStore, id: &str) {
    let id = format!("account:{id}").parse().unwrap();
    let event = |event_type: &str, name: &str| {
        Envelope::new(event_type)
            .with("id", name)
            .with("time", "2026-01-02T03:04:05.678Z")
    };
    let events = vec![
        event("account.opened", "e-1")
            .json(&json!({"name": "Ada \u{9b}2J"}))
            .unwrap(),
        event("account.deposited", "e-2")
            .msgpack(&json!({"cents": 500}))
            .unwrap(),
        event("account.deposited", "e-3")
            .msgpack(&json!({"cents": 25}))
            .unwrap()
            .with("source", "till"),
    ];
    store.append(&id, events, Expected::NoStream).await.unwrap();
}

async fn all_keys(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query_async(redis)
        .await
        .unwrap();
    keys.sort();
    keys
}

on_both_servers! {
    async fn show_tells_the_state_and_its_version(server: Server) {
        let (store, cli) = (store(&server), cli(&server));
        some_account(&store, "a-1").await;
        let out = cli.run(&["aggregate", "show", "account:a-1"]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(out, @r#"
        {
          "aggregate": "account:a-1",
          "version": 3,
          "state": {
            "owner": "Ada \u009b2J",
            "currency": "EUR",
            "cents": 525,
            "closed": false
          }
        }
        "#) };
        let missing = cli.run(&["aggregate", "show", "account:a-2"]).await.failed(1);
        assert_eq!(missing, "error: account:a-2 does not exist: it has no events\n");

        let lost = Envelope::new("account.\u{1b}[31mlost");
        let mut redis = server.connect().await;
        let _: String = redis::cmd("XADD").arg(&["{accounts}:account:a-3", "1-0", "position", "1-0", "type", lost.event_type()])
            .query_async(&mut redis).await.unwrap();
        let said = cli.run(&["aggregate", "show", "account:a-3"]).await.failed(1);
        assert_eq!(said, "error: event 1 of account:a-3 (account.\\u{1b}[31mlost in version 1): account has no events of this type\n");
    }

    async fn history_lists_every_event_with_its_data(server: Server) {
        let (store, cli) = (store(&server), cli(&server));
        some_account(&store, "a-1").await;
        let out = cli.run(&["aggregate", "history", "account:a-1"]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(masked(&out), @r#"
        VERSION  TIME                      TYPE               ID   POSITION         DATA
        1        TIME  account.opened     e-1  ID  {"name":"Ada \u{9b}2J"}
        2        TIME  account.deposited  e-2  ID  {"cents":500}
        3        TIME  account.deposited  e-3  ID  {"cents":25}
        "#) };
        let out = cli.run(&["aggregate", "history", "account:a-1", "--json", "--from", "2"]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(masked(&out), @r#"
        [
        {"version":2,"time":"TIME","type":"account.deposited","schemaversion":1,"id":"e-2","position":"ID","data":{"cents":500}},
        {"version":3,"time":"TIME","type":"account.deposited","schemaversion":1,"id":"e-3","position":"ID","source":"till","data":{"cents":25}}
        ]
        "#) };
        let one = cli.run(&["aggregate", "history", "account:a-1", "--json", "--limit", "1"]).await.json();
        assert_eq!(one[0]["data"], json!({"name": "Ada \u{9b}2J"}));
        assert_eq!(one.as_array().unwrap().len(), 1);
        assert_eq!(cli.run(&["aggregate", "history", "account:a-1", "--json", "--from", "4"]).await.json(), json!([]));
        let missing = cli.run(&["aggregate", "history", "account:a-2", "--json"]).await.failed(1);
        assert_eq!(missing, "error: account:a-2 does not exist: it has no events\n");

        let mut redis = server.connect().await;
        let _: u64 = redis::cmd("XDEL").arg(&["{accounts}:account:a-1", "2-0"]).query_async(&mut redis).await.unwrap();
        let cut = cli.run(&["aggregate", "history", "account:a-1"]).await;
        assert_eq!((cut.code, cut.out.lines().count()), (1, 2), "{cut:?}");
        assert_eq!(cut.err, "error: account:a-1 lacks its events 2 to 2\n");
    }

    async fn append_stores_an_event_of_the_aggregate_and_publishes_it(server: Server) {
        let (store, cli) = (store(&server), cli(&server));
        let mut redis = server.connect().await;
        let append = async |args: &[&str]| cli.run(&[&["aggregate", "append", "account:a-1"], args].concat()).await;
        let opened = append(&["account.opened", r#"{"name":"Ada","currency":"EUR"}"#, "--expect", "0"]).await.ok();
        assert_eq!(opened, "account:a-1 is at version 1\n");
        let conflict = append(&["account.deposited", r#"{"cents":1}"#, "--expect", "0"]).await.failed(1);
        assert_eq!(conflict, "error: account:a-1 is at version 1, and was expected at 0\n");
        let ahead = append(&["account.deposited", r#"{"cents":1}"#, "--expect", "7"]).await.failed(1);
        assert_eq!(ahead, "error: account:a-1 is at version 1, and was expected at 7\n");

        let deposit = ["account.deposited", "-", "--json", "--event-id", "d-1", "--expect", "1"];
        for is_new in [true, false] {
            let args = [&["aggregate", "append", "account:a-1"], &deposit[..]].concat();
            let said = cli.run_with(&args, br#"{"cents":7,"sent":true}"#).await;
            assert_eq!(said.err, "account.deposited is stored without \"sent\", which it has no use for\n");
            let said = said.json();
            assert_eq!((&said["version"], &said["id"], &said["is_new"]), (&json!(2), &json!("d-1"), &json!(is_new)));
            let told = entries(&mut redis, "accounts").await;
            assert_eq!((told.len(), &said["position"]), (2, &json!(told[1].id.to_string())));
        }
        append(&["account.closed", "null"]).await.ok();
        let id = "account:a-1".parse().unwrap();
        let page = store.page(&id, 1, 10).await.unwrap();
        let types: Vec<_> = page.iter().map(|one| (one.envelope.event_type(), one.envelope.version())).collect();
        assert_eq!(types, [("account.opened", 2), ("account.deposited", 1), ("account.closed", 1)]);
        assert_eq!(page[0].envelope.content_type(), Format::MessagePack.content_type());
        let opened: Opened = page[0].envelope.decode_data().unwrap();
        assert_eq!(opened, Opened { name: "Ada".into(), currency: "EUR".into() });
    }

    async fn what_is_no_event_is_refused_and_nothing_is_stored(server: Server) {
        let cli = cli(&server);
        let said = async |args: &[&str]| cli.run(&[&["aggregate"], args].concat()).await.failed(2);
        let refused = async |args: &[&str]| said(&[&["append", "account:a-1"], args].concat()).await;
        for (error, expected) in [
            (refused(&["account.deposted", "{}"]).await, "\"account.deposted\" is no event of the aggregate account; did you mean account.deposited? there are: account.opened, account.deposited, account.closed, account.noted"),
            (refused(&["account.opened", r#"{"name":"Ada"}"#]).await, "DATA is no account.opened of today: the data does not decode as JSON: missing field `currency`"),
            (refused(&["account.deposited", "cents"]).await, "DATA is no JSON: expected value"),
            (refused(&["account.deposited", "-5"]).await, "DATA is no account.deposited of today"),
            (refused(&["account.deposited", "{}", "--expect", "-1"]).await, "invalid value '-1' for '--expect <VERSION>': a version is that of an aggregate's last event, from 1, or 0"),
            (refused(&["account.deposited", "{}", "--expect", "x"]).await, "invalid value 'x' for '--expect <VERSION>'"),
            (refused(&["account.deposited", r#"{"cents":1}"#, "--event-id", ""]).await, "an event with an empty id"),
            (said(&["show", "account:a b"]).await, "its id has ' '"),
            (said(&["show", "a-1"]).await, "\"a-1\" is no aggregate: write its kind and its id, like order:o-1"),
            (said(&["show", "acount:a-1"]).await, "no aggregates of the kind \"acount\" are registered in this program; did you mean account? there are: account"),
            (said(&["history", "order:a-1"]).await, "no aggregates of the kind \"order\" are registered in this program; there are: account"),
            (said(&["history", "account:a-1", "--from", "0"]).await, "invalid value '0' for '--from <VERSION>'"),
        ] {
            assert!(error.contains(expected), "{error}");
        }
        let large = format!(r#"{{"name":"{}","currency":"EUR"}}"#, "x".repeat(1 << 20));
        let args = ["aggregate", "append", "account:a-1", "account.opened", "-"];
        for (data, expected) in [
            (large.clone(), "DATA has more than 1048576 bytes, the most of one event"),
            (format!(r#"{{"name":"{}","currency":"EUR"}}"#, "x".repeat((1 << 20) - 40)), "bytes: at most 1048576"),
        ] {
            let error = cli.run_with(&args, data.as_bytes()).await.failed(2);
            assert!(error.contains(expected), "{error}");
        }
        let without = Cli::new(&server, "").of_test("aggregates::program_without");
        let error = without.run(&["aggregate", "show", "account:a-1"]).await.failed(2);
        assert_eq!(error, "error: this program knows no aggregates: register them, as in Registry::new().aggregate::<Order>()\n");
        let group = Cli::new(&server, "[worker]\ngroup = \"account\"\nstreams = [\"accounts\"]").of_test("aggregates::program");
        for command in [&["aggregate", "show", "account:a-1"][..], &["run"]] {
            let error = group.run(command).await.failed(2);
            assert!(error.contains("the aggregate account is called as the group that reads \"accounts\""), "{error}");
        }
        assert_eq!(all_keys(&mut server.connect().await).await, Vec::<String>::new());
    }

    async fn verify_finds_what_must_not_be(server: Server) {
        let (store, cli) = (store(&server), cli(&server));
        let mut redis = server.connect().await;
        for id in ["good", "gap", "end", "type", "data", "order", "subject", "snap", "other", "ahead", "garbage", "later"] {
            some_account(&store, id).await;
            let accounts = Repository::<Account>::new(store.clone()).upcasters_of(&ledger::registry()).snapshots(3);
            accounts.load(id).await.unwrap();
        }
        let good = ["aggregate", "verify", "account:good", "--json"];
        let said = cli.run(&good).await;
        assert_eq!(said.err, "1 aggregate with 3 events: nothing is wrong\n");
        assert_eq!(said.json(), json!([]));

        let key = |id: &str| format!("{{accounts}}:account:{id}");
        let snapshot = |id: &str| format!("{{accounts}}:account:{id}:snapshot");
        let entry = |id: &str, version: &str, fields: &[&str]| {
            [&["XADD", &key(id), version][..], fields].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let far = "9999999999999-1";
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for command in [
            words(&["XDEL", &key("gap"), "2-0"]),
            words(&["XDEL", &key("end"), "3-0"]),
            entry("type", "4-0", &["position", far, "subject", "account:type", "type", "account.\u{1b}lost"]),
            entry("data", "4-0", &["position", far, "subject", "account:data", "type", "account.deposited", "data", "no"]),
            entry("data", "4-5", &["more", "of it"]),
            entry("data", "5-0", &["no", "event"]),
            entry("order", "4-0", &["position", "1-0", "subject", "account:order", "type", "account.closed", "data", "null"]),
            entry("subject", "4-0", &["position", far, "subject", "account:x", "type", "account.closed", "data", "null"]),
            words(&["HSET", &snapshot("snap"), "state", "\u{4}"]),
            words(&["HSET", &snapshot("other"), "event", "e-x"]),
            words(&["HSET", &snapshot("ahead"), "version", "9"]),
            words(&["SET", &snapshot("garbage"), "no snapshot"]),
            words(&["HSET", &snapshot("later"), "schema", "2", "state", "unreadable here"]),
        ] {
            let _: redis::Value = redis::cmd(&command[0]).arg(&command[1..]).query_async(&mut redis).await.unwrap();
        }
        let wrong = Account { owner: "Bob".into(), ..Account::default() };
        let wrong = Envelope::new("state.of").msgpack(&wrong).unwrap();
        some_account(&store, "state").await;
        let kept = Snapshot { version: 2, event: "e-2".into(), schema: 1, state: wrong.data().to_vec() };
        assert!(store.keep_snapshot(&"account:state".parse().unwrap(), kept).await.unwrap());

        for which in [&[][..], &["account"]] {
            let said = cli.run(&[&["aggregate", "verify"], which].concat()).await;
            assert_eq!(said.code, 1);
            assert_eq!(said.err, "error: 13 problems in 10 of 13 aggregates with 43 events\n");
            let mut lines: Vec<_> = said.out.lines().collect();
            lines.sort_unstable();
            insta::allow_duplicates! { insta::assert_snapshot!(masked(&lines.join("\n")), @r#"
            account:ahead: its snapshot is of version 9, which it does not have
            account:data at 4: event 4 of account:data (account.deposited in version 1): the data does not decode as JSON: expected ident at line 1 column 2
            account:data at 5: entry 5-0 of account:data is none of its events: it has no position
            account:data: the entry 4-5 is at no version
            account:end at 3: it lacks its events 3 to 3
            account:end: its snapshot is of version 3, which it does not have
            account:gap at 2: it lacks its events 2 to 2
            account:order at 4: its position 1-0 is not behind ID, that of the event before it
            account:other: its snapshot at 3 is of another event, "e-x"
            account:snap: its snapshot at 3 does not decode
            account:state: its snapshot at 2 is {"owner":"Bob","currency":"","cents":0,"closed":false}, and its events come to {"owner":"Ada \u{9b}2J","currency":"EUR","cents":500,"closed":false}
            account:subject at 4: its subject is "account:x"
            account:type at 4: event 4 of account:type (account.\u{1b}lost in version 1): account has no events of this type
            "#) };
        }
        let said = cli.run(&["aggregate", "verify", "account:gap", "account:none", "--json"]).await;
        assert_eq!(said.code, 1);
        let all: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(all, json!([
            {"aggregate": "account:gap", "version": 2, "problem": "it lacks its events 2 to 2"},
            {"aggregate": "account:none", "version": null, "problem": "it does not exist: it has no events"},
        ]));
        let error = cli.run(&["aggregate", "verify", "acount"]).await.failed(2);
        assert!(error.contains("did you mean account?"), "{error}");
    }

    async fn an_event_that_could_not_be_applied_is_a_finding_and_is_not_stored(server: Server) {
        let (store, cli) = (store(&server), cli(&server));
        let mut redis = server.connect().await;
        for id in ["good", "bad", "gone", "list"] {
            some_account(&store, id).await;
        }
        let append = async |args: &[&str]| cli.run(&[&["aggregate", "append", "account:good"], args].concat()).await;
        let panics = json!({ "cents": PANICS }).to_string();
        for (args, expected) in [
            (&["account.deposited", &panics][..], "event 4 of account:good (account.deposited in version 1): applied, it panicked: asked to panic"),
            (&["account.deposited", &panics, "--expect", "3"], "event 4 of account:good (account.deposited in version 1): applied, it panicked: asked to panic"),
            (&["account.noted", r#"{"text":"lost"}"#], "event 4 of account:good (account.noted in version 1): the data does not decode"),
        ] {
            let ran = append(args).await;
            assert_eq!((ran.code, &ran.out[..]), (1, ""), "{ran:?}");
            assert!(ran.err.contains("nothing is stored") && ran.err.contains(expected), "{ran:?}");
        }
        assert_eq!(store.version(&"account:good".parse().unwrap()).await.unwrap(), 3);
        // What may be repeated still may.
        for _ in 0..2 {
            append(&["account.deposited", r#"{"cents":1}"#, "--event-id", "d-1"]).await.ok();
            append(&["account.deposited", r#"{"cents":1}"#, "--event-id", "d-1", "--expect", "3"]).await.ok();
        }

        // By a program of another release.
        let event = |cents| Envelope::new("account.deposited").msgpack(&json!({ "cents": cents })).unwrap();
        store.append(&"account:bad".parse().unwrap(), vec![event(PANICS), event(1)], Expected::Exact(3)).await.unwrap();
        let key = |id: &str| format!("{{accounts}}:account:{id}");
        for command in [vec!["SET".to_owned(), key("gone"), "x".to_owned()], vec!["DEL".to_owned(), key("list")], vec!["RPUSH".to_owned(), key("list"), "x".to_owned()]] {
            let _: redis::Value = redis::cmd(&command[0]).arg(&command[1..]).query_async(&mut redis).await.unwrap();
        }
        for which in [&[][..], &["account"], &["account:good", "account:gone", "account:bad", "account:list"]] {
            let said = cli.run(&[&["aggregate", "verify"], which].concat()).await;
            let mut lines: Vec<_> = said.out.lines().collect();
            lines.sort_unstable();
            insta::allow_duplicates! { insta::assert_snapshot!(lines.join("\n"), @r#"
            account:bad at 4: event 4 of account:bad (account.deposited in version 1): applied, it panicked: asked to panic
            account:gone: account:gone has been overwritten: its key {accounts}:account:gone holds a string, not its events; restore it, or delete the key if they are not to come back
            account:list: account:list has been overwritten: its key {accounts}:account:list holds a list, not its events; restore it, or delete the key if they are not to come back
            "#) };
            assert_eq!(said.code, 1);
            assert!(said.err.ends_with("error: 3 problems in 3 of 4 aggregates with 9 events\n"), "{}", said.err);
        }
        let ran = cli.run(&["aggregate", "show", "account:bad"]).await;
        assert!(ran.code == 1 && ran.err.contains("event 4 of account:bad"), "{ran:?}");

        // A program's own repository returns an error with the event's name, and saves nothing that panicked.
        let accounts = Repository::<Account>::new(store.clone()).upcasters_of(&ledger::registry());
        let error = accounts.load("bad").await.expect_err("an error");
        assert!(error.to_string().contains("event 4 of account:bad"), "{error}");
        let mut good = accounts.load("good").await.unwrap();
        let before = good.version();
        assert!(good.record(ledger::Deposited { cents: PANICS }).is_err());
        assert!(accounts.save(&mut good).await.is_err());
        assert_eq!(store.version(&"account:good".parse().unwrap()).await.unwrap(), before);
        let error = store.history(&["account"], 0).unwrap().next().await.unwrap_err();
        assert!(error.to_string().contains("has been overwritten"), "{error}");
    }

    async fn a_long_history_is_walked_and_listed_to_its_end(server: Server) {
        let (store, cli) = (store(&server), cli(&server));
        let id = "account:a-1".parse().unwrap();
        for _ in 0..100 {
            let events = (0..1_000).map(|_| Envelope::new("account.deposited").msgpack(&json!({"cents": 1})).unwrap());
            store.append(&id, events.collect(), Expected::Any).await.unwrap();
        }
        let said = cli.run(&["aggregate", "verify"]).await;
        assert_eq!((said.code, &said.err[..]), (0, "1 aggregate with 100000 events: nothing is wrong\n"));
        let out = cli.run(&["aggregate", "history", "account:a-1", "--json"]).await.ok();
        assert_eq!(out.lines().count(), 100_002);
    }
}
