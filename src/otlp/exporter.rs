//! Sends what has been gathered, batch by batch. What is refused for now is tried again, a few times and for a minute at
//! most; what is refused for good, or finds no room meanwhile, is dropped, counted, and told of once a minute. A stop sends
//! once more what there is, and does not wait for long.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::resource::Resource;
use super::{metrics, spans};
use crate::config::OtlpSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::http_client::{HttpClient, Post, Reply, Tries};
use crate::metrics::snapshot::Snapshot;
use crate::retry::Backoff;
use crate::trace::{ENOUGH, Span, Tracer};

/// How long a stop waits for what is sent last.
const LAST: Duration = Duration::from_millis(500);
/// How often it is told that nothing reaches the collector.
const SILENCE: Duration = Duration::from_secs(60);
/// How long one request is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
const MOST_TRIES: u32 = 6;
/// Where collectors take OTLP by gRPC, which is not spoken here.
const GRPC: u16 = 4317;

/// What is sent.
pub(crate) struct Sources {
    pub tracer: Tracer,
    pub resource: Resource,
    /// What has been counted by now.
    pub snapshot: Option<Box<dyn Fn() -> Snapshot + Send + Sync>>,
}

/// Sends it, on a thread of its own, until it is dropped or stopped.
pub(crate) struct Exporter {
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

/// Refuses settings that nothing can be sent by.
pub(crate) fn check(settings: &OtlpSettings) -> Result<()> {
    posts(settings).map(drop)
}

/// How requests of one signal are sent.
struct Line {
    client: HttpClient,
    post: Post,
    settings: (Duration, Duration),
    what: &'static str,
    stop: CancellationToken,
    complaint: Complaint,
}

/// What did not get there, and when that was told last.
#[derive(Default)]
struct Complaint {
    told: Option<Instant>,
    lost: u64,
    is_wrong: bool,
}

/// A reply that says how much of a request was not taken, and why.
trait Partial: Message + Default {
    fn refused(self) -> Option<(i64, String)>;
}

impl Exporter {
    /// Begins to send. None if nothing is to be sent.
    ///
    /// # Errors
    /// If the settings are wrong, or no thread can be started.
    pub fn start(settings: &OtlpSettings, sources: Sources) -> Result<Option<Self>> {
        let Some((client, traces, metrics)) = posts(settings)? else {
            return Ok(None);
        };
        let stop = CancellationToken::new();
        let line = |what, post| Line {
            client: client.clone(),
            post,
            settings: (settings.interval, settings.timeout),
            what,
            stop: stop.clone(),
            complaint: Complaint::default(),
        };
        let (spans, metrics) = (line("spans", traces), line("metrics", metrics));
        let internal = |error: std::io::Error| {
            let message = format!("can't start the thread that sends telemetry: {error}");
            Error::new(ErrorKind::Internal, message)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(internal)?;
        let (end, ended) = oneshot::channel();
        let Sources {
            tracer,
            resource,
            snapshot,
        } = sources;
        std::thread::Builder::new()
            .name("streamhand-otlp".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let metrics = async {
                        if let Some(snapshot) = snapshot {
                            metrics.send_metrics(&resource, snapshot).await;
                        }
                    };
                    tokio::join!(spans.send_spans(&resource, &tracer), metrics);
                });
                // What its connections wait for is nobody's business any more.
                runtime.shutdown_background();
                let _ = end.send(());
            })
            .map_err(internal)?;
        Ok(Some(Exporter { stop, ended }))
    }

    /// Sends once more what there is, within half a second or so.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(LAST + Duration::from_millis(100), &mut self.ended).await;
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Line {
    async fn send_spans(mut self, resource: &Resource, tracer: &Tracer) {
        loop {
            let stop = self.stop.clone();
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = tracer.enough() => false,
                () = tokio::time::sleep(self.settings.0) => false,
            };
            let (waiting, no_room) = tracer.take();
            self.complaint.lost += no_room;
            if no_room > 0 && !self.complaint.is_wrong {
                self.complain("more came than could be sent");
            }
            let end = Instant::now() + LAST;
            for spans in waiting.chunks(ENOUGH) {
                let request = spans::request(resource, spans);
                let sent = self.send::<ExportTraceServiceResponse>(request.encode_to_vec(), end);
                self.settle(sent.await, spans);
            }
            if stopped {
                if self.complaint.lost > 0 {
                    self.complaint.told = None;
                    self.complain("the worker stops");
                }
                return;
            }
        }
    }

    async fn send_metrics(
        mut self,
        resource: &Resource,
        snapshot: Box<dyn Fn() -> Snapshot + Send + Sync>,
    ) {
        loop {
            let stop = self.stop.clone();
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(self.settings.0) => false,
            };
            let request = metrics::request(resource, &snapshot());
            let end = Instant::now() + LAST;
            let sent = self
                .send::<ExportMetricsServiceResponse>(request.encode_to_vec(), end)
                .await;
            // The next request has all that is in this one.
            self.settle(sent, &[]);
            if stopped {
                return;
            }
        }
    }

    /// Sends a request until it is taken or refused for good; if the worker stops, once more, until `end`. An error says
    /// why it was not taken; what was taken in part says how much was not.
    async fn send<R: Partial>(
        &self,
        body: Vec<u8>,
        end: Instant,
    ) -> Result<Option<(i64, String)>, String> {
        let post = self.post.with_body(body);
        let tries = Tries {
            most: MOST_TRIES,
            each: self.settings.1,
            all: PATIENCE,
            backoff: Backoff {
                initial: Duration::from_secs(1),
                ..Backoff::default()
            },
        };
        let sent = if self.stop.is_cancelled() {
            let left = end.saturating_duration_since(Instant::now());
            self.client.post(&post, left).await
        } else {
            tokio::select! {
                sent = self.client.post_until_heard(&post, tries) => sent,
                // It may be on its way: what is sent twice has the same ids.
                () = self.stop.cancelled() => self.client.post(&post, LAST / 2).await,
            }
        };
        let reply = sent.map_err(|failed| failed.to_string())?;
        match reply.status.is_success() {
            true => Ok(R::decode(reply.body).ok().and_then(Partial::refused)),
            false => Err(self.refusal(&reply)),
        }
    }

    fn refusal(&self, reply: &Reply) -> String {
        let (shown, status) = (self.post.shown(), reply.status);
        match reply.text() {
            _ if status.is_redirection() => {
                format!("{shown} returned {status}: name the address it leads to")
            }
            text if text.is_empty() => format!("{shown} returned {status}"),
            text => format!("{shown} returned {status}: {text}"),
        }
    }

    fn settle(&mut self, sent: Result<Option<(i64, String)>, String>, spans: &[Span]) {
        match sent {
            Ok(None) => self.all_is_well(),
            Ok(Some((refused, why))) => {
                self.complaint.lost += u64::try_from(refused).unwrap_or_default();
                self.complain(&format!("{} took a part: {why}", self.post.shown()));
            }
            Err(why) => {
                self.complaint.lost += spans.len() as u64;
                self.complain(&why);
            }
        }
    }

    fn complain(&mut self, why: &str) {
        self.complaint.is_wrong = true;
        if self
            .complaint
            .told
            .is_some_and(|told| told.elapsed() < SILENCE)
        {
            return;
        }
        self.complaint.told = Some(Instant::now());
        let hint = match self.post.port() {
            Some(GRPC) => "; 4317 is most often for gRPC, and HTTP is taken at 4318",
            _ => "",
        };
        let lost = std::mem::take(&mut self.complaint.lost);
        match self.what {
            "spans" => tracing::warn!(lost, "spans do not reach the collector: {why}{hint}"),
            _ => tracing::warn!("metrics do not reach the collector: {why}{hint}"),
        }
    }

    fn all_is_well(&mut self) {
        if std::mem::take(&mut self.complaint.is_wrong) {
            tracing::info!("{} reach the collector again", self.what);
        }
    }
}

impl Partial for ExportTraceServiceResponse {
    fn refused(self) -> Option<(i64, String)> {
        let partial = self.partial_success?;
        (partial.rejected_spans > 0).then_some((partial.rejected_spans, partial.error_message))
    }
}

impl Partial for ExportMetricsServiceResponse {
    fn refused(self) -> Option<(i64, String)> {
        let partial = self.partial_success?;
        (partial.rejected_data_points > 0)
            .then_some((partial.rejected_data_points, partial.error_message))
    }
}

/// A client, and where spans and metrics go.
fn posts(settings: &OtlpSettings) -> Result<Option<(HttpClient, Post, Post)>> {
    let endpoint = &settings.endpoint;
    let Some((traces, metrics)) = endpoint.of("traces").zip(endpoint.of("metrics")) else {
        return Ok(None);
    };
    let ca = settings.tls_ca.as_ref().map(std::fs::read).transpose();
    let wrong = |error: &dyn std::fmt::Display| {
        let path = settings
            .tls_ca
            .as_ref()
            .map(|path| path.display().to_string());
        let message = format!(
            "telemetry.otlp.tls_ca: {} {error}",
            path.unwrap_or_default()
        );
        Error::new(ErrorKind::Invalid, message)
    };
    let ca = ca.map_err(|error| wrong(&format_args!("cannot be read: {error}")))?;
    let client = HttpClient::new(ca.as_deref()).map_err(|error| match &settings.tls_ca {
        Some(_) => wrong(&format_args!("holds {error}")),
        None => error,
    })?;
    let invalid =
        |why: String| Error::new(ErrorKind::Invalid, format!("telemetry.otlp.headers {why}"));
    let headers = settings.pairs().map_err(invalid)?;
    let post = |url: &Url| {
        let mut post = Post::new(url, "application/x-protobuf", Vec::new())?;
        for (name, value) in &headers {
            post = post.header(name, value)?;
        }
        Ok::<_, Error>(post)
    };
    Ok(Some((client, post(&traces)?, post(&metrics)?)))
}
