//! Dead letters by what they have in common: counted as they come and go, by whoever takes them.

use redis::aio::MultiplexedConnection;
use streamhand::dead_letters::Filter;

use crate::support::letters::{DEAD, bury, dead_letters, fields};
use crate::support::{Cli, Server, entries, masked};

const INDEX: &str = "{orders}:fulfilment:dead:groups";

async fn bury_orders(redis: &mut MultiplexedConnection, errors: &[&str]) {
    for error in errors {
        let order = fields(&[("type", "order.created"), ("data", "{}")]);
        bury(redis, "orders", &order, "failed", error).await;
    }
}

/// Each group's count and masked error, as the filter lets it through.
async fn counts(server: &Server, filter: Filter) -> Vec<(u64, String)> {
    let groups = dead_letters(server).groups(filter).await.unwrap();
    let sum: u64 = groups.groups.iter().map(|group| group.count).sum();
    assert_eq!(groups.total, sum);
    groups
        .groups
        .into_iter()
        .map(|group| (group.count, group.error))
        .collect()
}

on_both_servers! {
    async fn letters_are_alike_but_for_numbers_ids_and_quotes(server: Server) {
        let mut redis = server.connect().await;
        let alike = [
            ["timed out after 5s", "timed out after 1.25s"],
            ["order o-17 is closed", "order 7f6a1c-2 is closed"],
            ["no handler for \"order.lost\" (it is 3)", "no handler for \"a b\" (it is -12)"],
            ["can't find 'apple' in 10.0.0.1:6379", "can't find 'pear tree' in 192.168.17.4:80"],
            ["missing: [1, 2, 3]", "missing: [14]"],
            ["user 6ba7b810-9dad-11d1-80b4-00c04fd430c8 is gone", "user 00000000-0000-0000-0000-000000000000 is gone"],
        ];
        for pair in alike {
            bury_orders(&mut redis, &pair).await;
        }
        bury_orders(&mut redis, &["no stock"]).await;
        let paid = fields(&[("type", "order.paid"), ("schemaversion", "3"), ("data", "{}")]);
        bury(&mut redis, "orders", &paid, "failed", "no stock").await;
        for _ in 0..2 {
            bury(&mut redis, "orders", &paid, "permanent", "no stock").await;
        }
        let found = counts(&server, Filter::new()).await;
        assert_eq!(found.iter().filter(|(count, _)| *count == 2).count(), alike.len() + 1, "{found:?}");
        assert_eq!(found.len(), alike.len() + 3, "{found:?}");

        let cli = Cli::new(&server, "");
        let out = masked(&cli.run(&["dlq", "groups", "--type", "order.paid"]).await.ok());
        let fingerprint = regex::Regex::new("(?m)^[0-9a-f]{12}").unwrap();
        insta::allow_duplicates! { insta::assert_snapshot!(fingerprint.replace_all(&out, "FINGERPRINT_"), @r"
        FINGERPRINT   COUNT  TYPE        REASON     V  FIRST                 LAST                  ERROR
        FINGERPRINT_  2      order.paid  permanent  3  TIME  TIME  no stock
        FINGERPRINT_  1      order.paid  failed     3  TIME  TIME  no stock
        3 dead letters in 2 groups
        ") };
        // What the groups say is what the filters mean.
        let json = cli.run(&["dlq", "groups", "--json"]).await.json();
        for group in json["groups"].as_array().unwrap() {
            let list = cli.run(&["dlq", "list", "--json", "--fingerprint", group["fingerprint"].as_str().unwrap()]).await.json();
            assert_eq!(list.as_array().unwrap().len() as u64, group["count"].as_u64().unwrap(), "{group}");
            assert_eq!(list[0]["fingerprint"], group["fingerprint"]);
        }
    }

    async fn what_comes_and_what_goes_is_counted_whoever_takes_it(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "");
        bury_orders(&mut redis, &["no stock", "timed out after 5s", "timed out after 7s", "no card"]).await;
        let now = || async { counts(&server, Filter::new()).await };
        assert_eq!(now().await.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [2, 1, 1]);
        let ids: Vec<String> = entries(&mut redis, DEAD).await.iter().map(|letter| letter.id.to_string()).collect();
        cli.run(&["dlq", "replay", &ids[1]]).await.ok();
        cli.run(&["dlq", "purge", &ids[0], "--yes"]).await.ok();
        bury_orders(&mut redis, &["no card", "no card"]).await;
        assert_eq!(now().await, [(3, "no card".to_owned()), (1, "timed out after #".to_owned())]);
        // It goes on from what was counted: these steps read none of the letters that were.
        let at: String = redis::cmd("HGET").arg(INDEX).arg("at").query_async(&mut redis).await.unwrap();
        assert_eq!(at, entries(&mut redis, DEAD).await.last().unwrap().id.to_string());
        // By other hands, or an earlier release.
        let _: u64 = redis::cmd("XDEL").arg(DEAD).arg(&ids[3]).query_async(&mut redis).await.unwrap();
        assert_eq!(now().await, [(2, "no card".to_owned()), (1, "timed out after #".to_owned())]);
        // The other way, a letter at a time, says the same.
        let gone_through = counts(&server, Filter::new().limit(100)).await;
        assert_eq!(gone_through, now().await);
        // By their retention: a worker drops them in the same way.
        let _: u64 = redis::cmd("DEL").arg(DEAD).query_async(&mut redis).await.unwrap();
        assert!(now().await.is_empty());
    }

    async fn more_than_a_thousand_groups_are_counted_together(server: Server) {
        let mut redis = server.connect().await;
        let word = |n: usize| -> String { n.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect() };
        bury_orders(&mut redis, &["no stock"]).await;
        let letter = entries(&mut redis, DEAD).await.remove(0);
        for chunk in (0..1200).collect::<Vec<_>>().chunks(300) {
            let mut pipe = redis::pipe();
            for n in chunk {
                let xadd = pipe.cmd("XADD").arg(DEAD).arg("*");
                for (name, value) in &letter.fields {
                    let error = format!("lost {}", word(*n));
                    xadd.arg(&name[..]).arg(if &name[..] == b"dead.error" { error.as_bytes() } else { &value[..] });
                }
                xadd.ignore();
            }
            let _: () = pipe.query_async(&mut redis).await.unwrap();
        }
        for filter in [Filter::new(), Filter::new().limit(5000)] {
            let groups = dead_letters(&server).groups(filter).await.unwrap();
            assert_eq!((groups.total, groups.groups.len()), (1201, 1001));
            assert_eq!((&groups.groups[0].fingerprint[..], groups.groups[0].count), ("other", 201));
        }
        let cli = Cli::new(&server, "");
        cli.run(&["dlq", "purge", "--all", "--yes"]).await.ok();
        assert!(counts(&server, Filter::new()).await.is_empty());
        let ran = cli.run(&["dlq", "groups"]).await;
        assert_eq!((ran.code, &ran.err[..]), (0, "no dead letters of orders in the group fulfilment\n"));
    }

    async fn who_may_not_write_sees_groups_all_the_same(server: Server) {
        let mut redis = server.connect().await;
        bury_orders(&mut redis, &["timed out after 5s", "timed out after 7s"]).await;
        let rule = "ACL SETUSER viewer on >secret ~orders ~{orders}:* +@read +evalsha_ro +script|load +@connection -@dangerous +info +time +unwatch";
        let mut words = rule.split(' ');
        let _: () = redis::cmd(words.next().unwrap()).arg(words.collect::<Vec<_>>()).query_async(&mut redis).await.unwrap();
        let viewer = Cli::at(&format!("redis://viewer:secret@127.0.0.1:{}", server.port()), "");
        let json = viewer.run(&["dlq", "groups", "--json"]).await.json();
        assert_eq!((&json["total"], &json["groups"][0]["error"]), (&2.into(), &"timed out after #".into()));
        assert_eq!(viewer.run(&["dlq", "runs", "--json"]).await.json(), serde_json::json!([]));
        let there: u64 = redis::cmd("EXISTS").arg(INDEX).query_async(&mut redis).await.unwrap();
        assert_eq!(there, 0);
    }

    async fn what_is_no_fingerprint_is_refused(server: Server) {
        let cli = Cli::new(&server, "");
        for wrong in ["1f0a", "other", "1f0a5c9b77ez"] {
            let err = cli.run(&["dlq", "list", "--fingerprint", wrong]).await.failed(2);
            assert_eq!(err, format!("error: {wrong:?} is no fingerprint: they have 12 hexadecimal digits, as dlq groups shows them\n"));
        }
    }
}
