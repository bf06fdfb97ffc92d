//! What an operator sees of aggregates and does with them, at a prompt and in scripts.

mod ledger;

use redis::aio::MultiplexedConnection;
use serde_json::json;
use streamhand::eventstore::{EventStore, Expected, RedisEventStore};
use streamhand::{Envelope, Format, Settings};

use self::ledger::{Account, Opened};
use crate::support::{Cli, Server, entries, masked, run_program};

/// The program of these tests, once more as a process.
#[test]
#[ignore = "run by other tests"]
fn program() {
    run_program(streamhand::cli::Program::new(ledger::registry()));
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
            (refused(&["account.deposted", "{}"]).await, "\"account.deposted\" is no event of the aggregate account; did you mean account.deposited? there are: account.opened, account.deposited, account.closed"),
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
}
