//! The life of an entry is told as Redis knows it: where it stands with each group, what went wrong, what caused it and
//! what came of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use streamhand::admin::{Admin, Budget, EntryStanding, Place};
use streamhand::dead_letters::Filter;
use streamhand::{Context, EntryId, Envelope, Event, Failure, Publisher, Registry, Settings};

use crate::support::letters::{bury, deliver, fields};
use crate::support::{Cli, Server, Setup, add, calls, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct Ordered {
    order: String,
}

#[derive(Serialize, Deserialize)]
struct Reserved {
    order: String,
}

impl Event for Ordered {
    const TYPE: &'static str = "order.placed";
}

impl Event for Reserved {
    const TYPE: &'static str = "stock.reserved";
}

async fn reserve(Ordered { order }: Ordered, ctx: Context) -> Result<(), Failure> {
    if order == "o-late" && ctx.attempt() < 3 {
        return Err(format!("no stock in attempt {}", ctx.attempt()).into());
    }
    if order == "o-never" {
        return Err(Failure::permanent("sold out for good"));
    }
    ctx.emit("stock", Reserved { order });
    Ok(())
}

/// Ends where it is told to.
async fn ship(_: Reserved, ctx: Context) -> Result<(), Failure> {
    ctx.cancelled().await;
    Ok(())
}

fn admin(server: &Server) -> Admin {
    Admin::connect(&server.url(), "fulfilment", ["orders"]).expect("right names")
}

on_both_servers! {
    async fn what_an_event_has_caused_is_told_with_what_became_of_it(server: Server) {
        let setup = Setup::new(&server)
            .worker("streams = [\"jobs\", \"stock\"]")
            .retry("backoff = { initial = \"2s\", factor = 1.0, jitter = 0.0 }");
        let settings = Settings::from_toml_str(&setup.toml()).unwrap();
        let (admin, publisher) = (Admin::new(&settings).unwrap(), Publisher::new(&settings.redis).unwrap());
        let worker = setup.start_with(Registry::new().on(reserve).on(ship));
        let mut ids: Vec<EntryId> = Vec::new();
        for order in ["o-now", "o-late", "o-never"] {
            let event = Envelope::new("order.placed").with("id", format!("e-{order}"))
                .json(&serde_json::json!({ "order": order })).unwrap();
            ids.push(publisher.publish_envelope("jobs", event).await.unwrap());
        }
        let life = |id: EntryId| { let admin = admin.clone(); async move { admin.entry("jobs", id).await.unwrap() } };
        // While it waits for its next attempt.
        eventually(PATIENCE, "it to have failed twice", async || {
            let life = life(ids[1]).await;
            let own = &life.groups[0];
            matches!(own.standing, EntryStanding::Parked { due: Some(_), is_waiting: false })
                && own.attempts() == 2 && own.errors[0].error == "no stock in attempt 2" && own.first_delivered.is_some()
        })
        .await;
        let related = async |id: EntryId| {
            let life = life(id).await;
            let budget = Budget::default().entries(500);
            (admin.entry_relations(&life, &[], &budget).await.unwrap(), life)
        };
        eventually(PATIENCE, "what it has caused", async || {
            let (related, life) = related(ids[1]).await;
            let [caused] = &related.caused[..] else { return false };
            // It was looked at before what it has caused.
            if !matches!(life.groups[0].standing, EntryStanding::Settled { .. }) { return false; }
            assert_eq!((&caused.hit.stream[..], &caused.hit.event["data"]["order"]), ("stock", &"o-late".into()));
            matches!(caused.groups[0].standing, EntryStanding::Held { is_lapsed: false, .. })
        })
        .await;
        // And from there back to its cause.
        let (forth, _) = related(ids[0]).await;
        let caused: EntryId = forth.caused[0].hit.id.parse().unwrap();
        let of_stock = admin.entry("stock", caused).await.unwrap();
        let back = admin.entry_relations(&of_stock, &[], &Budget::default()).await.unwrap();
        let cause = back.cause.expect("its cause");
        assert_eq!((cause.id, &cause.event["id"]), (ids[0].to_string(), &"e-o-now".into()));
        assert!(!back.is_cut && back.letters.is_empty() && back.caused.is_empty());

        let (dead, life) = related(ids[2]).await;
        assert_eq!(dead.letters.len(), 1);
        assert_eq!(dead.letters[0].event["dead"]["error"], "sold out for good");
        let mut life = life;
        life.know(&dead);
        assert!(matches!(&life.groups[0].standing, EntryStanding::Dead { reason, .. } if reason == "permanent"), "{life:?}");
        worker.stop().await;

        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\", \"stock\"]\n");
        let said = cli.run(&["entry", "e-o-never"]).await.ok();
        assert!(said.contains(&format!("entry {} of jobs", ids[2])) && said.contains("permanent, sold out for good"), "{said}");
        let said = cli.run(&["entry", &ids[0].to_string()]).await.ok();
        assert!(said.contains("has caused") && said.contains("stock.reserved") && said.contains("\"order\": \"o-now\""), "{said}");
        let json = cli.run(&["entry", "e-o-late", "--json"]).await.json();
        assert_eq!(json["relations"]["caused"][0]["event"]["causationid"], "e-o-late");
        let said = cli.run(&["entry", "e-nobody"]).await.failed(1);
        assert!(said.contains("no entry is or has e-nobody: looked at all"), "{said}");
    }

    async fn where_an_entry_stands_is_told_for_each_group(server: Server) {
        let mut redis = server.connect().await;
        let order = fields(&[("type", "order.created"), ("data", "{\"n\":1}")]);
        let held = deliver(&mut redis, "orders", &order).await;
        let () = redis::cmd("XGROUP").arg("CREATE").arg("orders").arg("billing").arg("0").query_async(&mut redis).await.unwrap();
        let unread = add(&mut redis, "orders", &order).await;
        let admin = admin(&server);
        let of = async |id: &str| {
            let life = admin.entry("orders", id.parse().unwrap()).await.unwrap();
            life.groups.into_iter().map(|group| (group.group, group.standing)).collect::<Vec<_>>()
        };
        let standings = of(&held.id).await;
        assert!(matches!(&standings[..], [(own, EntryStanding::Held { by, is_lapsed: false, .. }), (other, EntryStanding::Unread)]
            if own == "fulfilment" && other == "billing" && *by == held.consumer), "{standings:?}");
        assert_eq!(of(&unread).await[0].1, EntryStanding::Unread);
        let () = redis::cmd("XACK").arg("orders").arg("fulfilment").arg(&held.id).query_async(&mut redis).await.unwrap();
        assert_eq!(of(&held.id).await[0].1, EntryStanding::Settled { after_failures: false });
        assert_eq!(of("1-1").await[0].1, EntryStanding::Gone);
        assert_eq!(of("9999999999999-1").await[0].1, EntryStanding::Gone);
        let trimmed = deliver(&mut redis, "orders", &order).await;
        let () = redis::cmd("XDEL").arg("orders").arg(&trimmed.id).query_async(&mut redis).await.unwrap();
        assert_eq!(of(&trimmed.id).await[0].1, EntryStanding::Lost);
        let empty = admin.entry("nothing", "1-1".parse().unwrap()).await.unwrap();
        assert_eq!(empty.groups.iter().map(|group| &group.standing).collect::<Vec<_>>(), [&EntryStanding::Gone]);
        assert!(admin.entry("a{b", "1-1".parse().unwrap()).await.is_err());
    }

    async fn a_replayed_event_is_followed_and_a_look_is_bounded(server: Server) {
        let mut redis = server.connect().await;
        let mut pipe = redis::pipe();
        for n in 0..3_000 {
            pipe.cmd("XADD").arg("orders").arg(format!("{}-0", 1_700_000_000_000_u64 + n)).arg("type").arg("order.created").ignore();
        }
        pipe.query_async::<()>(&mut redis).await.unwrap();
        let order = fields(&[("type", "order.created"), ("id", "e-1"), ("data", "{\"n\":1}")]);
        bury(&mut redis, "orders", &order, "failed", "no stock").await;
        let admin = admin(&server);
        let dead = admin.dead_letters().unwrap();
        dead.select(Filter::new().limit(1)).await.unwrap().replay("alice", None, |_| ()).await.unwrap();
        let mut newest: Vec<(String, Vec<(String, String)>)> = redis::cmd("XREVRANGE").arg("orders").arg("+").arg("-").arg("COUNT")
            .arg(1).query_async(&mut redis).await.unwrap();
        let id: EntryId = newest.remove(0).0.parse().unwrap();
        let before = calls(&mut redis).await;
        let life = admin.entry("orders", id).await.unwrap();
        let related = admin.entry_relations(&life, &[], &Budget::default().entries(100)).await.unwrap();
        let used = calls(&mut redis).await - before;
        assert!(used < 100, "{used} commands, those in scripts among them");
        let copies: Vec<_> = related.letters.iter().map(|hit| (hit.place, hit.event["replay.by"].clone())).collect();
        assert_eq!(copies, [(Place::Replayed, "alice".into())]);
        assert!(related.is_cut);
    }

    async fn the_server_tells_how_it_is(server: Server) {
        let mut redis = server.connect().await;
        let () = redis::cmd("CONFIG").arg("SET").arg("slowlog-log-slower-than").arg("0").query_async(&mut redis).await.unwrap();
        bury(&mut redis, "orders", &fields(&[("type", "order.created"), ("data", "hunter2")]), "failed", "x").await;
        let admin = admin(&server);
        admin.status().await.unwrap();
        // What comes later is not to take the place of that.
        let () = redis::cmd("CONFIG").arg("SET").arg("slowlog-log-slower-than").arg("10000000").query_async(&mut redis).await.unwrap();
        let status = admin.servers().await.unwrap().remove(0);
        assert!(status.software.starts_with("Redis 7") || status.software.starts_with("Valkey 9"), "{status:?}");
        assert!(status.used_memory.unwrap() > 100_000 && status.maxmemory_policy.as_deref() == Some("noeviction"));
        assert!(status.slow.iter().any(|slow| slow.what == "script status orders"), "{:?}", status.slow);
        assert!(!format!("{:?}", status.slow).contains("hunter2"));
        assert!(status.warnings.iter().any(|warning| warning.contains("append-only")), "{:?}", status.warnings);
        let cli = Cli::new(&server, "");
        let said = cli.run(&["redis"]).await.ok();
        assert!(said.contains("noeviction") && said.contains("script status orders"), "{said}");
        // Who may not look at what was slow is told so.
        let rule = "ACL SETUSER viewer on >secret ~* +@read +evalsha_ro +script|load +@connection -@dangerous +info +time +unwatch";
        let mut words = rule.split(' ');
        let () = redis::cmd(words.next().unwrap()).arg(words.collect::<Vec<_>>()).query_async(&mut redis).await.unwrap();
        let viewer = Cli::at(&format!("redis://viewer:secret@127.0.0.1:{}", server.port()), "");
        let said = viewer.run(&["redis"]).await;
        assert!(said.code == 0 && said.err.contains("it does not tell what was slow (NOPERM)"), "{}{}", said.out, said.err);
        let said = viewer.run(&["find", "order.created"]).await;
        assert_eq!(said.code, 0, "{}", said.err);
        viewer.run(&["entry", "order.created"]).await.ok();
    }
}
