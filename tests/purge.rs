//! What is purged is gone for good: only what was meant, and only what has been exported where that was asked for.

use bytes::Bytes;
use redis::AsyncCommands;
use std::time::Duration;
use streamhand::ErrorKind;
use streamhand::dead_letters::{Filter, PurgeRun, Reason};

use crate::support::letters::{DEAD, bury, bury_many, dead_letters, fields};
use crate::support::{Cli, Fields, Server, entries};

on_both_servers! {
    async fn an_export_holds_everything_byte_for_byte(server: Server) {
        let mut redis = server.connect().await;
        let mut awkward = fields(&[("type", "order.created"), ("note", "a"), ("note", "b\n\"ä\u{0}")]);
        awkward.push((Bytes::from_static(b"\xff"), Bytes::from((0..=255).collect::<Vec<u8>>())));
        let mut wide = fields(&[("type", "order.wide")]);
        wide.extend((0..4000).map(|n| (Bytes::from(format!("f{n}")), Bytes::from(vec![n as u8; 3]))));
        bury(&mut redis, "orders", &awkward, "failed", "no \"stock\"").await;
        bury(&mut redis, "orders", &wide, "permanent", "too wide").await;
        let mut file = Vec::new();
        let exported = dead_letters(&server).select(Filter::new()).await.unwrap().export(&mut file, |_| ()).await.unwrap();
        assert_eq!(exported.len(), 2);
        let lines: Vec<serde_json::Value> = file.split(|b| *b == b'\n').filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap()).collect();
        assert_eq!(lines.iter().map(|line| restored(&line["fields"])).collect::<Vec<_>>(), [awkward, wide]);
        assert_eq!((&lines[0]["reason"], &lines[0]["error"]), (&"failed".into(), &"no \"stock\"".into()));
        assert_eq!((&lines[1]["type"], &lines[1]["stream"]), (&"order.wide".into(), &"orders".into()));
        assert_eq!(entries(&mut redis, DEAD).await.len(), 2);
        assert_eq!(exported.purge(|_| ()).await.unwrap(), 2);
        assert!(entries(&mut redis, DEAD).await.is_empty());
    }

    async fn what_was_not_exported_is_not_deleted(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 3).await;
        let selection = dead_letters(&server).select(Filter::new()).await.unwrap();
        let exported = selection.export(&mut Vec::new(), |_| ()).await.unwrap();
        bury_many(&mut redis, 1).await;
        let letters = entries(&mut redis, DEAD).await;
        // After a failover an id can be another letter's.
        let mut again = redis::pipe();
        again.cmd("DEL").arg(DEAD).ignore();
        for (n, letter) in letters.iter().enumerate() {
            let content = if n == 1 { &letters[3].fields } else { &letter.fields };
            again.cmd("XADD").arg(DEAD).arg(letter.id.to_string());
            for (name, value) in content {
                again.arg(&name[..]).arg(&value[..]);
            }
        }
        let _: Vec<String> = again.query_async(&mut redis).await.unwrap();
        assert_eq!(exported.purge(|_| ()).await.unwrap(), 2);
        let left: Vec<_> = entries(&mut redis, DEAD).await.iter().map(|letter| letter.id).collect();
        assert_eq!(left, [letters[1].id, letters[3].id]);
        // A selection finds nothing younger than itself either.
        assert_eq!(selection.purge(|_| ()).await.unwrap(), 1);
        assert_eq!(entries(&mut redis, DEAD).await.len(), 1);
    }

    async fn an_export_that_fails_deletes_nothing(server: Server) {
        /// A disk that is full after the first lines.
        struct Full(usize);
        impl std::io::Write for Full {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut redis = server.connect().await;
        bury_many(&mut redis, 20).await;
        let selection = dead_letters(&server).select(Filter::new()).await.unwrap();
        let error = selection.export(&mut Full(2000), |_| ()).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("can't write the export"), "{error}");
        assert_eq!(entries(&mut redis, DEAD).await.len(), 20);
    }

    async fn filters_decide_what_is_purged(server: Server) {
        let mut redis = server.connect().await;
        for n in 0..1200 {
            let reason = if n % 3 == 0 { "permanent" } else { "failed" };
            bury(&mut redis, "orders", &fields(&[("type", "order.created")]), reason, "x").await;
        }
        let mut told = 0;
        let permanent = dead_letters(&server).select(Filter::new().reason(Reason::Permanent)).await.unwrap();
        assert_eq!(permanent.purge(|so_far| told = so_far).await.unwrap(), 400);
        assert_eq!(told, 400);
        let left = dead_letters(&server).select(Filter::new()).await.unwrap().stats().await.unwrap();
        let counts: Vec<(&str, u64)> = left.kinds.iter().map(|tally| (tally.reason.as_str(), tally.count)).collect();
        assert_eq!(counts, [("failed", 800)]);
    }

    async fn a_purge_can_be_undone_for_a_while_and_brings_back_every_byte(server: Server) {
        let mut redis = server.connect().await;
        let mut wide = fields(&[("type", "order.wide"), ("id", "w-1")]);
        wide.extend((0..3480).map(|n| (Bytes::from(format!("f{n}")), Bytes::from(vec![n as u8; 3]))));
        bury(&mut redis, "orders", &wide, "permanent", "too wide").await;
        bury_many(&mut redis, 250).await;
        let before = entries(&mut redis, DEAD).await;
        let dead = dead_letters(&server);
        let run = PurgeRun::begin("alice", Duration::from_secs(3600)).unwrap();
        let all = dead.select(Filter::new()).await.unwrap();
        assert_eq!(all.purge_undoably(&run, |_| ()).await.unwrap(), 251);
        assert!(entries(&mut redis, DEAD).await.is_empty());
        let known = dead.purges().await.unwrap();
        assert_eq!((known.len(), &known[0].name, &known[0].by[..], known[0].letters), (1, &run.name, "alice", 251));
        let purged = format!("{{orders}}:fulfilment:purges:{}", run.name);
        let left: i64 = redis.pttl(&purged).await.unwrap();
        assert!((3_500_000..=3_600_000).contains(&left), "{left}");
        bury_many(&mut redis, 1).await;
        assert_eq!(dead.undo_purge(&run.name, |_| ()).await.unwrap().restored, 251);
        let after = entries(&mut redis, DEAD).await;
        let fields_of = |all: &[crate::support::Entry]| all.iter().map(|entry| entry.fields.clone()).collect::<Vec<_>>();
        assert_eq!(fields_of(&after[1..]), fields_of(&before));
        let keys: Vec<String> = redis.keys("*purges*").await.unwrap();
        assert_eq!(keys, Vec::<String>::new());
        let again = dead.undo_purge(&run.name, |_| ()).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound, "{again}");

        // By the program; what is over is not offered.
        let cli = Cli::new(&server, "");
        let said = cli.run(&["dlq", "purge", "--type", "order.wide", "--undo-within", "1h", "--by", "bob", "--yes"]).await.ok();
        let name = said.split('`').nth(1).and_then(|command| command.rsplit(' ').next()).expect("the command").to_owned();
        assert_eq!(said, format!("deleted 1 dead letter; within 1h `shop dlq undo {name}` brings them back\n"));
        let listed = cli.run(&["dlq", "undo"]).await.ok();
        assert!(listed.contains(&name) && listed.contains("bob"), "{listed}");
        assert_eq!(cli.run(&["dlq", "undo", &name]).await.ok(), "brought back 1 dead letter\n");
        let said = cli.run(&["dlq", "undo", &name]).await.failed(1);
        assert!(said.contains("its time is over, or it was undone before"), "{said}");
        assert_eq!(entries(&mut redis, DEAD).await.len(), 252);
        cli.run(&["dlq", "purge", "--all", "--undo-within", "50ms", "--yes"]).await.ok();
        crate::support::eventually(Duration::from_secs(10), "it to be over", async || {
            dead.purges().await.unwrap().is_empty() && redis.keys::<_, Vec<String>>("*purges*").await.unwrap().is_empty()
        })
        .await;
        for wrong in ["0s", "31d", "soon"] {
            let said = cli.run(&["dlq", "purge", "--all", "--undo-within", wrong, "--yes"]).await;
            assert_ne!(said.code, 0, "{wrong}");
        }
    }

    async fn a_purge_that_the_server_has_no_room_for_takes_nothing(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 3).await;
        let dead = dead_letters(&server);
        let all = dead.select(Filter::new()).await.unwrap();
        let run = PurgeRun::begin("alice", Duration::from_secs(3600)).unwrap();
        let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1mb").query_async(&mut redis).await.unwrap();
        all.purge_undoably(&run, |_| ()).await.unwrap_err();
        let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("0").query_async(&mut redis).await.unwrap();
        assert_eq!(entries(&mut redis, DEAD).await.len(), 3);
        assert_eq!(dead.purges().await.unwrap(), []);
    }
}

/// The fields of an exported letter.
fn restored(list: &serde_json::Value) -> Fields {
    let string = |value: &serde_json::Value| match value.as_str() {
        Some(text) => Bytes::copy_from_slice(text.as_bytes()),
        None => from_base64(value["base64"].as_str().expect("base64")).into(),
    };
    let pairs = list.as_array().expect("a list").iter();
    pairs
        .map(|pair| (string(&pair[0]), string(&pair[1])))
        .collect()
}

/// RFC 4648, section 4.
fn from_base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("no digit of base64: {other}"),
    };
    let digits: Vec<u8> = text.trim_end_matches('=').bytes().map(digit).collect();
    digits
        .chunks(4)
        .flat_map(|four| {
            let bits = four
                .iter()
                .fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit))
                << (6 * (4 - four.len()));
            bits.to_be_bytes()[1..four.len()].to_vec()
        })
        .collect()
}
