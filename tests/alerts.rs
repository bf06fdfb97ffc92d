//! What is wrong with a group is told to a webhook and to an Alertmanager, once, and that it is over; whatever becomes of
//! who looks and of who is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::Value;
use streamhand::admin::Admin;
use streamhand::alerts::{Alerts, look_once};
use tokio::net::TcpListener;

use crate::support::letters::{bury, fields, settings};
use crate::support::{Cli, Server, Setup, eventually, jobs, settled};

const PATIENCE: Duration = Duration::from_secs(40);

/// Somebody who is told: keeps what came, and replies as the test says.
#[derive(Clone)]
struct Listener {
    address: SocketAddr,
    told: Arc<Mutex<Vec<(String, Value)>>>,
    /// What is replied next; 200 once there is nothing left.
    replies: Arc<Mutex<VecDeque<Reply>>>,
}

#[derive(Clone, Copy)]
enum Reply {
    Status(u16),
    Never,
}

impl Listener {
    async fn start(replies: &[Reply]) -> Listener {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = Listener {
            address: socket.local_addr().unwrap(),
            told: Arc::default(),
            replies: Arc::new(Mutex::new(replies.iter().copied().collect())),
        };
        let routes = Router::new()
            .route("/{*path}", axum::routing::post(hear))
            .with_state(listener.clone());
        tokio::spawn(async move { axum::serve(socket, routes).await.unwrap() });
        listener
    }

    fn webhook(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Alerts that the webhook was told of, with what became of them: `dead firing`.
    fn heard(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let hooks = told.iter().filter(|(path, _)| path == "hook");
        hooks
            .flat_map(|(_, body)| body["alerts"].as_array().unwrap().clone())
            .map(|alert| {
                let word = |name| alert[name].as_str().unwrap().to_owned();
                format!("{} {}", word("alert"), word("status"))
            })
            .collect()
    }

    fn times(&self, said: &str) -> usize {
        self.heard().iter().filter(|heard| *heard == said).count()
    }
}

async fn hear(
    State(listener): State<Listener>,
    Path(path): Path<String>,
    body: Bytes,
) -> StatusCode {
    let reply = listener.replies.lock().unwrap().pop_front();
    match reply.unwrap_or(Reply::Status(200)) {
        Reply::Never => std::future::pending().await,
        Reply::Status(status) => {
            if status == 200 {
                let body = serde_json::from_slice(&body).unwrap();
                listener.told.lock().unwrap().push((path, body));
            }
            StatusCode::from_u16(status).unwrap()
        }
    }
}

/// `[alerts]` that tells this listener of everything but what test servers have wrong with them.
fn to(listener: &Listener) -> String {
    format!(
        "[alerts]\nwebhook = \"{}\"\nevery = \"1s\"\noff = [\"persistence\"]\n",
        listener.webhook()
    )
}

async fn letter(server: &Server, error: &str) {
    let event = fields(&[
        ("type", "order.created"),
        ("data", "{\"order_id\":\"o-1\"}"),
    ]);
    bury(
        &mut server.connect().await,
        "orders",
        &event,
        "failed",
        error,
    )
    .await;
}

async fn set(server: &Server, key: &str, value: &str) {
    let mut redis = server.connect().await;
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg(key).arg(value);
    set.exec_async(&mut redis).await.unwrap();
}

on_both_servers! {
    async fn what_is_wrong_is_told_once_and_that_it_is_over(server: Server) {
        let listener = Listener::start(&[]).await;
        let mut settings = settings(&server, &to(&listener));
        settings.alerts.alertmanager = Some(format!("http://{}/am/", listener.address));
        set(&server, "maxmemory-policy", "allkeys-lru").await;
        tokio::spawn(Alerts::new(&settings).unwrap().unwrap().run());
        eventually(PATIENCE, "it to be told", async || listener.times("eviction firing") == 1).await;
        // Some looks later it still was told once.
        let looks = || listener.told.lock().unwrap().iter().filter(|(path, _)| path.starts_with("am")).count();
        let before = looks();
        eventually(PATIENCE, "more looks", async || looks() >= before + 3).await;
        assert_eq!(listener.heard(), ["eviction firing"]);
        set(&server, "maxmemory-policy", "noeviction").await;
        eventually(PATIENCE, "it to be told that it is over", async || listener.times("eviction resolved") == 1).await;

        let told = listener.told.lock().unwrap().clone();
        let (_, first) = told.iter().find(|(path, _)| path == "hook").unwrap();
        assert_eq!((&first["group"], &first["version"]), (&"fulfilment".into(), &1.into()));
        let text = first["text"].as_str().unwrap();
        assert!(text.starts_with("critical: fulfilment allkeys-lru: Redis deletes keys"), "{text}");
        let (path, alerts) = told.iter().find(|(path, _)| path != "hook").unwrap();
        assert_eq!(path, "am/api/v2/alerts");
        let labels = &alerts[0]["labels"];
        assert_eq!(labels["alertname"], "StreamhandRedisEvicts");
        assert_eq!((&labels["group"], &labels["severity"]), (&"fulfilment".into(), &"critical".into()));
        assert!(alerts[0]["endsAt"].as_str() > alerts[0]["startsAt"].as_str(), "{alerts}");
    }

    async fn a_failure_is_new_once(server: Server) {
        letter(&server, "no stock for 17").await;
        let listener = Listener::start(&[]).await;
        let settings = settings(&server, &to(&listener));
        tokio::spawn(Alerts::new(&settings).unwrap().unwrap().run());
        let mut redis = server.connect().await;
        let kept = "streamhand:{fulfilment}:alerts";
        eventually(PATIENCE, "a look", async || redis::AsyncCommands::exists::<_, bool>(&mut redis.clone(), kept).await.unwrap()).await;
        letter(&server, "no stock for 18").await;
        letter(&server, "the card was declined").await;
        eventually(PATIENCE, "the first new failure to be told", async || listener.times("new_failure firing") == 1).await;
        letter(&server, "the card was declined").await;
        letter(&server, "no such customer").await;
        eventually(PATIENCE, "the second one to be told", async || listener.times("new_failure firing") == 2).await;
        let told = listener.told.lock().unwrap().clone();
        let summaries: Vec<&str> = told.iter().filter_map(|(_, body)| body["alerts"][0]["summary"].as_str()).collect();
        assert_eq!(summaries, ["a failure that is new: the card was declined", "a failure that is new: no such customer"]);
        let _: () = redis::cmd("PING").exec_async(&mut redis).await.unwrap();
    }

    async fn what_a_topic_has_grown_to_is_watched_as_well(server: Server) {
        let listener = Listener::start(&[]).await;
        let settings = settings(&server, &format!("[streams.orders]\npartitions = 1\n{}", to(&listener)));
        let mut redis = server.connect().await;
        let admin = Admin::new(&settings).unwrap();
        admin.growth("orders").await.unwrap();
        tokio::spawn(Alerts::new(&settings).unwrap().unwrap().run());
        let kept = "streamhand:{fulfilment}:alerts";
        eventually(PATIENCE, "a look", async || redis::AsyncCommands::exists::<_, bool>(&mut redis.clone(), kept).await.unwrap()).await;
        admin.grow("orders", 2).await.unwrap();
        let event = fields(&[("type", "order.created"), ("data", "{\"order_id\":\"o-1\"}")]);
        bury(&mut redis, "{orders:2.1}", &event, "failed", "no stock for 17").await;
        eventually(PATIENCE, "it to be told", async || listener.times("new_failure firing") == 1).await;
    }

    async fn what_could_not_be_told_is_told_by_who_looks_next(server: Server) {
        // The first process is never heard, and dies.
        let listener = Listener::start(&[Reply::Status(503); 3]).await;
        let cli = Cli::new(&server, &to(&listener));
        set(&server, "maxmemory-policy", "allkeys-lru").await;
        let mut first = cli.command(&["alerts", "watch"]).spawn().unwrap();
        eventually(PATIENCE, "the first process to try", async || listener.replies.lock().unwrap().len() < 3).await;
        listener.replies.lock().unwrap().push_back(Reply::Never);
        let mut second = cli.command(&["alerts", "watch"]).spawn().unwrap();
        first.start_kill().unwrap();
        first.wait().await.unwrap();
        listener.replies.lock().unwrap().clear();
        eventually(PATIENCE, "it to be told", async || listener.times("eviction firing") == 1).await;
        second.start_kill().unwrap();
        second.wait().await.unwrap();
        assert_eq!(listener.heard(), ["eviction firing"]);
    }

    async fn a_webhook_that_hangs_holds_up_no_entry_and_no_stop(server: Server) {
        let listener = Listener::start(&[Reply::Never; 100]).await;
        set(&server, "maxmemory-policy", "allkeys-lru").await;
        let mut worker = Setup::new(&server).more(&to(&listener)).process();
        let mut redis = server.connect().await;
        eventually(PATIENCE, "the webhook to hang", async || listener.replies.lock().unwrap().len() < 100).await;
        let many = jobs::many("job", 200, &jobs::Action::Succeed);
        jobs::publish(&mut redis, "jobs", &many).await;
        settled(&mut redis, "jobs", Duration::from_secs(10)).await;
        assert_eq!(jobs::handled(&mut redis).await.len(), 200);
        worker.terminate();
        assert!(worker.wait(Duration::from_secs(5)).await.success(), "{}", worker.log());
    }

    async fn a_look_tells_what_is_wrong_now(server: Server) {
        let cli = Cli::new(&server, "[alerts]\noff = [\"persistence\"]");
        let fine = cli.run(&["alerts", "check"]).await;
        assert_eq!((fine.code, &fine.out[..]), (0, "fulfilment: nothing is wrong\n"), "{}", fine.err);
        set(&server, "maxmemory-policy", "allkeys-lru").await;
        let wrong = cli.run(&["alerts", "check"]).await;
        assert_eq!(wrong.code, 1);
        assert!(wrong.out.starts_with("critical eviction allkeys-lru: Redis deletes keys"), "{}", wrong.out);
        assert!(wrong.err.contains("1 alert is critical"), "{}", wrong.err);
        let settings = settings(&server, "");
        let found = look_once(&Admin::new(&settings).unwrap(), &settings).await.unwrap();
        let names: Vec<&str> = found.iter().map(|found| found.alert).collect();
        assert_eq!(names, ["eviction", "persistence"]);
    }

    async fn who_is_to_be_told_can_be_tried(server: Server) {
        let listener = Listener::start(&[]).await;
        let told = Cli::new(&server, &to(&listener)).run(&["alerts", "test"]).await.ok();
        assert_eq!(told, "told\n");
        assert_eq!(listener.heard(), ["waiting firing"]);
        let nobody = Cli::new(&server, "").run(&["alerts", "test"]).await;
        assert_eq!(nobody.code, 2);
        assert!(nobody.err.contains("there is nobody to tell: set alerts.webhook"), "{}", nobody.err);
        let refusing = Listener::start(&[Reply::Status(403)]).await;
        let refused = Cli::new(&server, &to(&refusing)).run(&["alerts", "test"]).await;
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains("replied 403 Forbidden"), "{}", refused.err);
        assert!(!refused.err.contains("/hook"), "an address may be a secret: {}", refused.err);
    }
}
