//! The pages of a group on a private server, served inside the test, with something on them.

use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use streamhand::admin::Admin;
use streamhand::dead_letters::Filter;
use streamhand::web::Web;
use streamhand::{Envelope, Publisher, Registry, Settings};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::PAGES;
use crate::support::Server;
use crate::support::letters::{DEAD, bury, fields};

pub struct Site {
    pub address: String,
    pub settings: Settings,
    redis: MultiplexedConnection,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<streamhand::Result<()>>,
}

impl Site {
    /// The group `fulfilment` of the streams `orders` and `payments`, for whoever comes from this machine.
    pub async fn start(server: &Server) -> Site {
        Site::start_with(server, "").await
    }

    /// The same with further lines of `[web]`, or whole tables.
    pub async fn start_with(server: &Server, web: &str) -> Site {
        Site::start_knowing(server, web, &Registry::new()).await
    }

    /// The same of a program that has registered something.
    pub async fn start_knowing(server: &Server, web: &str, known: &Registry) -> Site {
        let toml = format!(
            "[redis]\nurl = \"{}\"\n[worker]\ngroup = \"fulfilment\"\nstreams = [\"orders\", \"payments\"]\n\
             [web]\nlisten = \"127.0.0.1:0\"\n{web}",
            server.url()
        );
        let settings = Settings::from_toml_str(&toml).expect("right settings");
        let pages = Web::new(&settings).expect("the pages");
        let pages = pages.knowing(known).expect("a right registry");
        let address = format!("http://{}", pages.address());
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(pages.run(async {
            let _ = stopped.await;
        }));
        Site {
            address,
            settings,
            redis: server.connect().await,
            stop: Some(stop),
            served,
        }
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn admin(&self) -> Admin {
        Admin::new(&self.settings).expect("an address")
    }

    /// Events that wait, and a pause.
    pub async fn fill(&self) {
        let mut redis = self.redis.clone();
        for stream in ["orders", "payments"] {
            for number in 0..20 {
                let data = format!("{{\"order_id\":\"o-{number}\"}}");
                publish(&mut redis, stream, &data).await;
            }
        }
        let spec = r#"{"schedule":["30 2 * * *"],"zone":"Europe/Berlin","type":"order.reminded","data":{}}"#;
        let cron = serde_json::json!({ "spec": spec, "release": "1.0.0", "declared": "1780000000000", "group": "fulfilment" });
        let log = "1780000000000 added 1780000000000 1780000000000-0 2026-05-28T02:30:00[Europe/Berlin]\n";
        let _: () = redis::cmd("HSET")
            .arg("{orders}:cron")
            .arg(&[
                ("nightly", cron.to_string()),
                ("nightly:log", log.to_owned()),
            ])
            .query_async(&mut redis)
            .await
            .expect("a cron");
        let admin = self.admin();
        admin.pause("payments", "alice").await.expect("a pause");
        let order = |id| {
            fields(&[
                ("type", "order.created"),
                ("id", id),
                ("subject", "o-21"),
                ("data", "{}"),
            ])
        };
        bury(
            &mut redis,
            "orders",
            &order("e-21"),
            "failed",
            "no stock for 17 of a-7",
        )
        .await;
        bury(
            &mut redis,
            "orders",
            &order("e-22"),
            "permanent",
            "no such thing",
        )
        .await;
        let publisher = Publisher::new(&self.settings.redis).expect("a publisher");
        let later = Envelope::new("order.reminded").with("subject", "o-3");
        let hour = std::time::Duration::from_secs(3600);
        publisher
            .publish_envelope_after("orders", later, hour)
            .await
            .expect("to schedule");
        admin
            .audit(
                "alice",
                "streamhand dlq purge 1-0",
                "tidying up",
                Some("there was none"),
            )
            .await
            .expect("an audit");
    }

    /// Every page with what is on it: those of [`PAGES`], and those of an entry and a letter that [`fill`](Self::fill)
    /// has made.
    pub async fn pages(&self) -> Vec<(String, &'static str)> {
        let mut redis = self.redis.clone();
        let ids = async |redis: &mut MultiplexedConnection, key: &str| {
            let first = redis::cmd("XRANGE")
                .arg(key)
                .arg(&["-", "+", "COUNT", "1"])
                .query_async(redis)
                .await;
            let first: StreamRangeReply = first.expect("entries");
            first.ids[0].id.clone()
        };
        let (entry, letter) = (ids(&mut redis, "orders").await, ids(&mut redis, DEAD).await);
        let dead = self.admin().dead_letters().expect("dead letters");
        let groups = dead.groups(Filter::new()).await.expect("groups").groups;
        let mut all: Vec<_> = PAGES
            .iter()
            .map(|(path, says)| ((*path).to_owned(), *says))
            .collect();
        all.extend([
            (format!("/entry?stream=orders&id={entry}"), "Its life"),
            (
                format!(
                    "/dead/group?stream=orders&fingerprint={}",
                    groups[0].fingerprint
                ),
                "Letters, the oldest first",
            ),
            (
                format!("/dead/letter?stream=orders&id={letter}"),
                "What became of it",
            ),
        ]);
        all
    }

    /// What stands in the audit.
    pub async fn audited(&self) -> Vec<String> {
        let notes = self.admin().audited(None, 100).await.expect("the audit");
        notes
            .iter()
            .map(|note| format!("{}: {}: {}", note.who, note.command, note.reason))
            .collect()
    }

    /// Stops it, and returns how it ended.
    pub async fn stop(mut self) -> streamhand::Result<()> {
        self.stop.take();
        self.served.await.expect("no panic")
    }
}

/// An event of the type `order.created`.
pub async fn publish(redis: &mut MultiplexedConnection, stream: &str, data: &str) {
    let mut command = redis::cmd("XADD");
    command.arg(stream).arg("*");
    command
        .arg("type")
        .arg("order.created")
        .arg("data")
        .arg(data);
    command.query_async::<String>(redis).await.expect("XADD");
}

/// Makes the user of Redis that the docs tell of, who may only read, and returns the settings of pages that use it.
pub async fn may_only_read(redis: &mut MultiplexedConnection) -> &'static str {
    let docs = include_str!("../../docs/dashboard.md");
    let rule = docs
        .lines()
        .find(|line| line.starts_with("ACL SETUSER pages "))
        .expect("the rule");
    let mut words = rule.split_whitespace();
    let mut rule = redis::cmd(words.next().expect("a command"));
    rule.arg(words.collect::<Vec<_>>())
        .arg("~payments")
        .arg("~{payments}:*");
    rule.query_async::<()>(redis).await.expect("a rule");
    "[web.redis]\nusername = \"pages\"\npassword = \"secret\"\n"
}
