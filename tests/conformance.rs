//! What is published for publishers in other languages is true: entries become what the vectors say at a real worker, and
//! `conformance` says of a stream what a worker would make of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamhand::admin::{Admin, Level};
use streamhand::{Context, Event, Failure, Registry};

use crate::support::letters::{DEAD, Working, settings};
use crate::support::{Cli, Fields, Server, add, entries, eventually, masked};

const PATIENCE: Duration = Duration::from_secs(30);
/// A program without handlers.
const PLAIN: &str = env!("CARGO_BIN_EXE_streamhand");

#[derive(Deserialize)]
struct Vectors {
    entries: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    fields: Vec<(Value, Value)>,
    envelope: Option<Value>,
    dead: Option<Dead>,
}

#[derive(Deserialize)]
struct Dead {
    reason: String,
    error: String,
}

#[derive(Serialize, Deserialize)]
struct Created {
    order_id: String,
    amount: u64,
}

impl Event for Created {
    const TYPE: &'static str = "order.created";
}

#[derive(Serialize, Deserialize)]
struct Amended {
    order_id: String,
    amount: u64,
}

impl Event for Amended {
    const TYPE: &'static str = "order.amended";
    const VERSION: u32 = 3;
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Noted(Value);

impl Event for Noted {
    const TYPE: &'static str = "order.noted";
}

/// What handlers were given, by the ids of the entries.
type Seen = Arc<Mutex<BTreeMap<String, Value>>>;

fn vectors() -> Vec<Vector> {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../conformance/entries.json")).expect("vectors");
    vectors.entries
}

fn bytes(value: &Value) -> Vec<u8> {
    let hex = match value.as_str() {
        Some(text) => return text.as_bytes().to_vec(),
        None => value["hex"].as_str().expect("hexadecimal"),
    };
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn fields(vector: &Vector) -> Fields {
    let fields = vector.fields.iter();
    fields
        .map(|(name, value)| (bytes(name).into(), bytes(value).into()))
        .collect()
}

/// Handlers that note the envelope and the data that they are given.
fn registry(seen: &Seen) -> Registry {
    fn note(seen: &Seen, event: &impl Serialize, ctx: &Context) -> Result<(), Failure> {
        let envelope = ctx.envelope();
        let mut noted = json!({
            "type": envelope.event_type(),
            "id": envelope.id(),
            "version": envelope.version(),
            "time": humantime::format_rfc3339(envelope.time()).to_string(),
            "content_type": envelope.content_type(),
            "data": serde_json::to_value(event)?,
        });
        for (name, value) in [
            ("source", envelope.source()),
            ("subject", envelope.subject()),
            ("traceparent", envelope.traceparent()),
        ] {
            if let Some(value) = value {
                noted[name] = value.into();
            }
        }
        if let Some(expires) = envelope.expires() {
            noted["expires"] = humantime::format_rfc3339(expires).to_string().into();
        }
        if let Some(most) = envelope.max_attempts() {
            noted["max_attempts"] = most.into();
        }
        let entry = envelope.entry_id().to_string();
        seen.lock().expect("the notes").insert(entry, noted);
        Ok(())
    }
    Registry::new()
        .on_with(seen.clone(), async |seen, event: Created, ctx: Context| {
            note(&seen, &event, &ctx)
        })
        .on_with(seen.clone(), async |seen, event: Amended, ctx: Context| {
            note(&seen, &event, &ctx)
        })
        .on_with(seen.clone(), async |seen, event: Noted, ctx: Context| {
            note(&seen, &event, &ctx)
        })
}

async fn xadd(redis: &mut MultiplexedConnection, stream: &str, fields: &[(&str, &str)]) -> String {
    let fields: Fields = fields
        .iter()
        .map(|(name, value)| (name.to_string().into(), value.to_string().into()))
        .collect();
    add(redis, stream, &fields).await
}

async fn run(redis: &mut MultiplexedConnection, command: &[&str]) {
    let mut cmd = redis::cmd(command[0]);
    let _: redis::Value = cmd.arg(&command[1..]).query_async(redis).await.unwrap();
}

on_both_servers! {
    async fn every_vector_comes_to_what_it_says_at_a_worker_and_the_judge_says_the_same(server: Server) {
        let mut redis = server.connect().await;
        let settings = settings(&server, "[worker]\nunhandled_after = \"100ms\"");
        let seen = Seen::default();
        let working = Working::start(settings.clone(), registry(&seen));
        let mut added = Vec::new();
        for vector in vectors() {
            added.push((add(&mut redis, "orders", &fields(&vector)).await, vector));
        }
        eventually(PATIENCE, "every entry to be handled or buried", async || {
            let buried = entries(&mut redis, DEAD).await.len();
            let handled = seen.lock().unwrap().len();
            if handled + buried == added.len() { Ok(()) } else { Err(format!("{handled} and {buried} of {}", added.len())) }
        })
        .await;
        working.stop().await;
        let letters: BTreeMap<String, (String, String)> = entries(&mut redis, DEAD)
            .await
            .iter()
            .map(|letter| {
                let field = |name: &str| {
                    let found = letter.fields.iter().rfind(|(n, _)| n == name.as_bytes());
                    String::from_utf8_lossy(&found.unwrap().1).into_owned()
                };
                (field("dead.entry"), (field("dead.reason"), field("dead.error")))
            })
            .collect();
        let seen = seen.lock().unwrap().clone();
        for (entry, vector) in &added {
            let name = &vector.name;
            let handled = seen.get(entry);
            match (&vector.envelope, &vector.dead) {
                (Some(envelope), None) => {
                    let mut expected = envelope.clone();
                    let id: streamhand::EntryId = entry.parse().unwrap();
                    if expected.get("id").is_none() {
                        expected["id"] = entry.clone().into();
                    }
                    if expected.get("time").is_none() {
                        expected["time"] = humantime::format_rfc3339(id.time()).to_string().into();
                    }
                    let mut handled = handled.unwrap_or_else(|| panic!("{name}: {:?}", letters.get(entry))).clone();
                    for time in [&mut expected, &mut handled] {
                        let text = time["time"].as_str().unwrap();
                        let parsed = humantime::parse_rfc3339(text).unwrap();
                        time["time"] = humantime::format_rfc3339_nanos(parsed).to_string().into();
                    }
                    assert_eq!(handled, expected, "{name}");
                }
                (None, Some(dead)) => {
                    let (reason, error) = letters.get(entry).unwrap_or_else(|| panic!("{name}: {handled:?}"));
                    assert_eq!(reason, &dead.reason, "{name}: {error}");
                    assert!(error.starts_with(&dead.error), "{name}: {error}");
                }
                _ => panic!("{name}: an envelope, or what it dies of"),
            }
        }

        // With the handlers' decoders at hand the judge knows each of them.
        let admin = Admin::new(&settings).unwrap();
        let registry = registry(&Seen::default());
        let judged = admin.conformance("orders", u64::MAX, None, Some(&registry)).await.unwrap();
        // That a deadline has passed is nobody's fault.
        let wrong = letters.values().filter(|(reason, _)| reason != "expired").count();
        assert_eq!((judged.looked_at, judged.dead_letters), (added.len() as u64, wrong as u64));
        // Without it knows those that no handler could take, and says of the others nothing that is wrong.
        let judged = admin.conformance("orders", u64::MAX, None, None).await.unwrap();
        assert!(judged.is_bad() && judged.dead_letters < letters.len() as u64 && judged.dead_letters > 20, "{judged:?}");
        for it in judged.broken.iter().filter(|it| it.level == Level::DeadLetter) {
            let example = it.example.as_ref().unwrap();
            assert!(letters.contains_key(example), "{it:?}");
        }
        let before: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
        let cli = Cli::new(&server, "");
        let ran = cli.run(&["conformance", "--stream", "orders", "--json"]).await;
        let after: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
        assert_eq!((ran.code, after.len()), (1, before.len()), "{}", ran.err);
        let judged: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(judged["looked_at"], added.len());
    }

    async fn what_a_publisher_wrote_is_judged_rule_by_rule_with_an_example(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "").of_program(PLAIN);
        let ran = cli.run(&["conformance", "--stream", "orders"]).await;
        assert_eq!((ran.code, &ran.err[..]), (0, "there is nothing in orders\n"));
        let right = [("type", "order.created"), ("id", "1"), ("data", "{}")];
        for _ in 0..2 {
            xadd(&mut redis, "orders", &right).await;
        }
        let ran = cli.run(&["conformance", "--stream", "orders", "--strict"]).await;
        assert_eq!(ran.ok(), "2 entries looked at: 2 right, 0 with warnings, 0 that end as dead letters\n");

        xadd(&mut redis, "orders", &[("type", "order.created"), ("id", "1"), ("data", "{\"a\":1}")]).await;
        let ran = cli.run(&["conformance", "--stream", "orders"]).await;
        assert_eq!(ran.code, 0, "{}", ran.out);
        let ran = cli.run(&["conformance", "--stream", "orders", "--strict"]).await;
        assert_eq!((ran.code, &ran.err[..]), (1, "error: 1 warning\n"));

        for _ in 0..3 {
            xadd(&mut redis, "orders", &[("type", "order.created"), ("id", "2"), ("data", "{'a':1}")]).await;
        }
        xadd(&mut redis, "orders", &[("type", "\u{1b}[31m"), ("id", "\u{1b}[31m"), ("data", "1")]).await;
        let ran = cli.run(&["conformance", "--stream", "orders"]).await;
        assert_eq!(ran.code, 1);
        insta::allow_duplicates! { insta::assert_snapshot!(masked(&format!("{}{}", ran.out, ran.err)), @r#"
        RULE        COMES TO     ENTRIES  EXAMPLE          WRONG                                                                                                                 RIGHT
        type        dead letter  1        ID  the type "\u{1b}[31m" has '\u{1b}' at position 1; only a-z, 0-9, '_', '-' and the dots between the parts are allowed  a field `type`, dotted and lower-case, a noun and what happened to it: order.created
        data        dead letter  3        ID  the data does not decode as JSON: key must be a string at line 1 column 2; it looks like a dict that Python printed   one JSON value in UTF-8, without NaN and without a byte order mark, or MessagePack that `datacontenttype` says is that
        other-data  warning      2        ID  an event order.created with the id "1" is there with other data                                                       an id of its own for each event: a copy is acknowledged without running, whatever it says, if its handler deduplicates
        7 entries looked at: 1 right, 2 with warnings, 4 that end as dead letters
        error: 4 entries that end as dead letters
        "#); }
        // A program with handlers knows what they take: the shop's orders have a customer.
        let shop = Cli::new(&server, "").run(&["conformance", "--stream", "orders", "--json"]).await;
        let judged: Value = serde_json::from_str(&shop.out).unwrap();
        let handler = judged["broken"].as_array().unwrap().iter().find(|it| it["rule"] == "handler").unwrap();
        assert!(handler["count"] == 3 && handler["wrong"].as_str().unwrap().contains("missing field"), "{handler}");
        // The last ones alone.
        let ran = cli.run(&["conformance", "--stream", "orders", "--last", "1", "--json"]).await;
        let judged: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!((&judged["looked_at"], &judged["broken"][0]["rule"]), (&json!(1), &json!("type")));
        // Nothing else is a stream.
        run(&mut redis, &["SET", "text", "x"]).await;
        let error = cli.run(&["conformance", "--stream", "text"]).await.failed(1);
        assert!(error.contains("WRONGTYPE") || error.contains("text"), "{error}");
    }

    async fn what_was_trimmed_unread_and_what_nobody_reads_is_lost(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "").of_program(PLAIN);
        let judged = async |stream: &str, more: &[&str]| {
            let args = [&["conformance", "--stream", stream, "--json"], more].concat();
            let ran = cli.run(&args).await;
            let judged: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
            let broken = judged["broken"].as_array().unwrap().iter();
            let text = |it: &Value| format!("{} {} {}", it["rule"].as_str().unwrap(), it["count"], it["stream"].as_str().unwrap());
            (ran.code, broken.map(text).collect::<Vec<String>>())
        };
        for n in 0..10 {
            let id = n.to_string();
            xadd(&mut redis, "orders", &[("type", "order.created"), ("id", &id), ("data", "{}")]).await;
        }
        for group in ["fulfilment", "billing"] {
            run(&mut redis, &["XGROUP", "CREATE", "orders", group, "0"]).await;
        }
        for (group, read) in [("fulfilment", "1"), ("billing", "8")] {
            run(&mut redis, &["XREADGROUP", "GROUP", group, "c", "COUNT", read, "STREAMS", "orders", ">"]).await;
        }
        assert_eq!(judged("orders", &[]).await, (0, vec![]));
        run(&mut redis, &["XTRIM", "orders", "MAXLEN", "4"]).await;
        let all = vec!["unread 5 orders".to_owned(), "removed 6 orders".to_owned()];
        assert_eq!(judged("orders", &[]).await, (1, all));
        let of_billing = vec!["removed 6 orders".to_owned()];
        assert_eq!(judged("orders", &["--group", "billing"]).await, (0, of_billing));

        // A topic: its partitions, and what stands beside them.
        run(&mut redis, &["HSET", "{payments}:partitions", "1", "8"]).await;
        let paid = |subject| [("type", "payment.made"), ("id", "1"), ("subject", subject), ("data", "{}")];
        xadd(&mut redis, "{payments:2}", &paid("order:o-1")).await;
        xadd(&mut redis, "{payments:7}", &paid("order:o-2")).await;
        assert_eq!(judged("payments", &["--strict"]).await, (0, vec![]));
        xadd(&mut redis, "{payments:3}", &paid("order:o-1")).await;
        xadd(&mut redis, "payments", &paid("order:o-1")).await;
        let both = vec!["topic 1 payments".to_owned(), "partition 1 {payments:3}".to_owned()];
        assert_eq!(judged("payments", &[]).await, (1, both));
        let one = vec!["partition 1 {payments:3}".to_owned()];
        assert_eq!(judged("{payments:3}", &[]).await, (0, one));
    }

    async fn errors_are_masked_as_the_vectors_say(server: Server) {
        let mut redis = server.connect().await;
        let vectors: Value = serde_json::from_str(include_str!("../conformance/masks.json")).unwrap();
        let script = format!("{}\nreturn masked(ARGV[1])", include_str!("../src/stream/scripts/common/fingerprint.lua"));
        let masks = vectors["masks"].as_array().unwrap();
        assert!(masks.len() > 8);
        for mask in masks {
            let mut call = redis::cmd("EVAL");
            call.arg(&script).arg(0).arg(mask["error"].as_str().unwrap());
            let masked: String = call.query_async(&mut redis).await.unwrap();
            assert_eq!(mask["masked"], masked);
        }
    }
}
