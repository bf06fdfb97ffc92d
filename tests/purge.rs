//! What is purged is gone for good: only what was meant, and only what has been exported where that was asked for.

use bytes::Bytes;
use streamhand::dead_letters::Filter;

use crate::support::letters::{DEAD, bury, bury_many, dead_letters, fields};
use crate::support::{Fields, Server, entries};

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
        let permanent = dead_letters(&server).select(Filter::new().reason("permanent")).await.unwrap();
        assert_eq!(permanent.purge(|so_far| told = so_far).await.unwrap(), 400);
        assert_eq!(told, 400);
        let left = dead_letters(&server).select(Filter::new()).await.unwrap().stats().await.unwrap();
        let counts: Vec<(&str, u64)> = left.kinds.iter().map(|tally| (&tally.reason[..], tally.count)).collect();
        assert_eq!(counts, [("failed", 800)]);
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
