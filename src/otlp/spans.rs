//! Spans as messages.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Message, Status};

use super::messages::{nanos, number, text};
use super::resource::{Resource, scope};
use crate::trace::{Kind, Span, TraceContext, Value};

/// One request with all of them.
pub(super) fn request(resource: &Resource, spans: &[Span]) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.message()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans: spans.iter().map(message).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn message(span: &Span) -> Message {
    let kind = match span.kind {
        Kind::Consumer => SpanKind::Consumer,
        Kind::Producer => SpanKind::Producer,
        Kind::Client => SpanKind::Client,
    };
    let attribute = |(key, value): &(&str, Value)| match value {
        Value::Text(value) => text(key, value),
        Value::Number(value) => number(key, *value),
    };
    let exception = span.exception.as_ref();
    let event = exception.map(|exception| Event {
        time_unix_nano: nanos(span.end),
        name: "exception".to_owned(),
        attributes: vec![
            text("exception.type", exception.kind),
            text("exception.message", &exception.message),
        ],
        ..Event::default()
    });
    let status = exception
        .filter(|_| span.is_failed)
        .map(|exception| Status {
            message: exception.message.clone(),
            code: StatusCode::Error.into(),
        });
    Message {
        trace_id: span.context.trace.to_vec(),
        span_id: span.context.span.to_vec(),
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        flags: span.context.flags.into(),
        name: span.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: span.attributes.iter().map(attribute).collect(),
        events: event.into_iter().collect(),
        links: span.links.iter().map(link).collect(),
        status,
        ..Message::default()
    }
}

fn link(to: &TraceContext) -> Link {
    Link {
        trace_id: to.trace.to_vec(),
        span_id: to.span.to_vec(),
        flags: to.flags.into(),
        ..Link::default()
    }
}
