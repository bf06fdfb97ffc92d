//! The pages of a group on a private server, served inside the test, with something on them.

use redis::aio::MultiplexedConnection;
use streamhand::admin::Admin;
use streamhand::web::Web;
use streamhand::{Envelope, Publisher, Settings};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::Server;
use crate::support::letters::{bury, fields};

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
        let toml = format!(
            "[redis]\nurl = \"{}\"\n[worker]\ngroup = \"fulfilment\"\nstreams = [\"orders\", \"payments\"]\n\
             [web]\nlisten = \"127.0.0.1:0\"\n{web}",
            server.url()
        );
        let settings = Settings::from_toml_str(&toml).expect("right settings");
        let pages = Web::new(&settings).expect("the pages");
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
