//! `exporter`: serves the gauges of a group, to Prometheus and to scalers. They are the group's, so one place tells them;
//! workers tell of themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use clap::Args;
use sd_notify::NotifyState;
use tokio::sync::Mutex;

use super::terminal::say;
use super::{CommandError, told_to_stop};
use crate::admin::{Admin, GroupLoad};
use crate::config::{Listen, Settings};
use crate::metrics::{Metrics, render};
use crate::telemetry::health::Verdict;
use crate::telemetry::routes::{behind, probes};
use crate::telemetry::server::{Bound, Limits};
use crate::telemetry::systemd::Systemd;

/// Where it listens if nothing else is said. Workers have 9464 by custom, and the pages 9465.
const LISTEN: &str = "127.0.0.1:9466";
/// For so long what was looked at is shown, so that many who scrape cost Redis what one does.
const FRESH: Duration = Duration::from_secs(1);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(8);

const EXAMPLES: &str = "Examples:
  streamhand exporter
  streamhand exporter --listen 0.0.0.0:9466    (needs telemetry.token or telemetry.token_file)
  curl http://127.0.0.1:9466/metrics
  curl http://127.0.0.1:9466/scale";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExporterArgs {
    /// Where to serve them [default: 127.0.0.1:9466]
    #[arg(long, value_name = "ADDRESS:PORT", default_value = LISTEN, hide_default_value = true)]
    listen: String,
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    pub(super) group: Option<String>,
}

impl ExporterArgs {
    /// What is set by them.
    pub fn settings(&self) -> Vec<(String, String)> {
        vec![("telemetry.listen".to_owned(), self.listen.clone())]
    }
}

/// What was last looked at, or why it could not be.
struct Looked {
    admin: Admin,
    last: Mutex<Option<Look>>,
}

/// When it was looked, and what came of it.
type Look = (Instant, Result<Arc<GroupLoad>, String>);

pub(super) async fn run(settings: Settings) -> Result<(), CommandError> {
    let listen: Listen = settings.telemetry.listen;
    let address = listen.address().ok_or_else(|| {
        CommandError::usage(
            "--listen is empty, so that nothing would be served: give it an address and a port",
        )
    })?;
    let bound = Bound::to(address, "telemetry.listen")?;
    let looked = Arc::new(Looked {
        admin: Admin::new(&settings)?,
        last: Mutex::default(),
    });
    let stop = told_to_stop("")?;
    let served: SocketAddr = bound.address;
    let shown = router(looked);
    // It holds nothing that a restart could mend, and serves whoever asks.
    let serves = || Verdict::of(Vec::new());
    let router = probes(Arc::new(serves), Arc::new(serves))
        .merge(behind(settings.telemetry.token.as_ref(), shown));
    let server = bound.serve(router, Limits::default(), "streamhand-exporter")?;
    say(format_args!("http://{served}/metrics"));
    let systemd = Systemd::from_env();
    if let Some(systemd) = &systemd {
        systemd.tell(&[NotifyState::Ready]);
    }
    stop.await;
    server.stop().await;
    Ok(())
}

fn router(looked: Arc<Looked>) -> Router {
    let counted = Metrics::new();
    let scraped = looked.clone();
    let metrics = get(async move |headers: HeaderMap| {
        let load = match scraped.load().await {
            Ok(load) => load,
            Err(why) => return away(why),
        };
        let mut snapshot = counted.snapshot();
        load.add_to(&mut snapshot);
        let accept = headers.get(header::ACCEPT);
        let accept = accept.and_then(|accept| accept.to_str().ok());
        let (content_type, body) = render(accept.unwrap_or_default(), &snapshot);
        ([(header::CONTENT_TYPE, content_type)], body).into_response()
    });
    let scale = get(async move || match looked.load().await {
        Ok(load) => axum::Json(scale(&load)).into_response(),
        Err(why) => away(why),
    });
    Router::new()
        .route("/metrics", metrics)
        .route("/scale", scale)
}

/// A scaler must not take a Redis that is away for nothing to do.
fn away(why: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

/// What a scaler wants: the number at the top, and streams by name, so that a path leads to each.
fn scale(load: &GroupLoad) -> serde_json::Value {
    let streams = load.streams.iter();
    let streams = streams.map(|of| (of.stream.clone(), serde_json::json!(of)));
    serde_json::json!({
        "group": load.group,
        "runnable": load.runnable,
        "streams": streams.collect::<serde_json::Map<_, _>>(),
        "in_trouble": load.in_trouble,
    })
}

impl Looked {
    /// What there is to do, as of a second ago at most. Who comes while it is looked waits for that look.
    async fn load(&self) -> Result<Arc<GroupLoad>, String> {
        let mut last = self.last.lock().await;
        if let Some((at, load)) = &*last
            && at.elapsed() < FRESH
        {
            return load.clone();
        }
        let looking =
            tokio::time::timeout(LOOK, async { self.admin.as_grown().await.load().await }).await;
        let load = match looking {
            Ok(Ok(load)) => Ok(Arc::new(load)),
            Ok(Err(error)) => Err(crate::error::chain(&error)),
            Err(_) => Err(format!("Redis has not answered within {}s", LOOK.as_secs())),
        };
        for trouble in load.iter().flat_map(|load| &load.in_trouble) {
            let stream = &trouble.stream;
            tracing::debug!(stream, "can't be looked at: {}", trouble.error);
        }
        *last = Some((Instant::now(), load.clone()));
        load
    }
}
