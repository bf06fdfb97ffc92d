//! A collector for OTLP over HTTP: takes what is sent, or does not, and has it decoded.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::eventually;

/// What it does with what comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Mood {
    Takes,
    /// Returns this status, and asks to come again after so many seconds, this often.
    Refuses(u16, Option<u64>, u32),
    /// Takes the request, and says that so many spans of it were no good.
    TakesAPart(i64),
    /// Never returns anything.
    Hangs,
}

/// A collector on a port of its own.
pub struct Collector {
    address: String,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    state: Mutex<Taken>,
}

struct Taken {
    mood: Mood,
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    headers: Vec<HeaderMap>,
    refused: u32,
}

impl Collector {
    pub async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Mutex::new(Taken {
            mood,
            traces: Vec::new(),
            metrics: Vec::new(),
            headers: Vec::new(),
            refused: 0,
        });
        let inner = Arc::new(Inner { state });
        let router = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/metrics", post(metrics))
            .with_state(inner.clone());
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("to serve");
        });
        Collector {
            address,
            inner,
            task,
        }
    }

    /// The settings that have everything sent here, all of it and soon, with lines of their own.
    pub fn settings(&self, telemetry: &str, otlp: &str) -> String {
        settings(&self.address, telemetry, otlp)
    }

    pub fn set(&self, mood: Mood) {
        self.inner.state.lock().unwrap().mood = mood;
    }

    /// How many requests it has refused.
    pub fn refused(&self) -> u32 {
        self.inner.state.lock().unwrap().refused
    }

    /// The headers of the requests that it took.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.inner.state.lock().unwrap().headers.clone()
    }

    pub fn traces(&self) -> Vec<ExportTraceServiceRequest> {
        self.inner.state.lock().unwrap().traces.clone()
    }

    /// What metrics came, request by request.
    pub fn metrics(&self) -> Vec<ExportMetricsServiceRequest> {
        self.inner.state.lock().unwrap().metrics.clone()
    }

    /// All spans that it has.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.traces().into_iter();
        let resources = requests.flat_map(|request| request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// Waits for so many spans, and returns them all.
    pub async fn wait_for_spans(&self, count: usize) -> Vec<Span> {
        eventually(
            Duration::from_secs(20),
            format!("{count} spans"),
            async || {
                let spans = self.spans();
                match spans.len() >= count {
                    true => Ok(()),
                    false => Err(spans
                        .iter()
                        .map(|span| span.name.clone())
                        .collect::<Vec<_>>()
                        .join(", ")),
                }
            },
        )
        .await;
        self.spans()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The settings that have everything sent to an address.
pub fn settings(address: &str, telemetry: &str, otlp: &str) -> String {
    format!(
        "[telemetry]\n{telemetry}\n[telemetry.otlp]\nendpoint = \"{address}\"\ninterval = \"200ms\"\nsample = 1.0\n{otlp}\n"
    )
}

/// An attribute as text.
pub fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == key);
    match found.and_then(|pair| pair.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

type Collecting = State<Arc<Inner>>;

async fn traces(State(inner): Collecting, headers: HeaderMap, body: Bytes) -> Response {
    let mood = inner.mood(&headers);
    let request = ExportTraceServiceRequest::decode(body).expect("spans");
    let reply = answer(mood).await;
    if reply.status().is_success() {
        inner.state.lock().unwrap().traces.push(request);
    }
    reply
}

async fn metrics(State(inner): Collecting, headers: HeaderMap, body: Bytes) -> Response {
    let mood = inner.mood(&headers);
    let request = ExportMetricsServiceRequest::decode(body).expect("metrics");
    let reply = answer(mood).await;
    if reply.status().is_success() {
        inner.state.lock().unwrap().metrics.push(request);
    }
    reply
}

impl Inner {
    /// What to do with the next request.
    fn mood(&self, headers: &HeaderMap) -> Mood {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let mut state = self.state.lock().unwrap();
        state.headers.push(headers.clone());
        let mood = state.mood.clone();
        if let Mood::Refuses(status, after, times) = mood {
            state.refused += 1;
            state.mood = match times {
                1 => Mood::Takes,
                more => Mood::Refuses(status, after, more - 1),
            };
        }
        mood
    }
}

async fn answer(mood: Mood) -> Response {
    match mood {
        Mood::Takes => StatusCode::OK.into_response(),
        Mood::Hangs => std::future::pending().await,
        Mood::TakesAPart(rejected_spans) => {
            let reply = ExportTraceServiceResponse {
                partial_success: Some(ExportTracePartialSuccess {
                    rejected_spans,
                    error_message: "too old".to_owned(),
                }),
            };
            reply.encode_to_vec().into_response()
        }
        Mood::Refuses(status, after, _) => {
            let status = StatusCode::from_u16(status).expect("a status");
            let after = after.map(|seconds| [("retry-after", seconds.to_string())]);
            match after {
                Some(headers) => (status, headers, "not now").into_response(),
                None => (status, "no").into_response(),
            }
        }
    }
}
