//! A span, as it waits to be sent: what happened, when, in which trace, and what it has to do with other spans.

use std::time::SystemTime;

use super::context::TraceContext;

/// What happened, from its start to its end.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// The operation and what it was done to, as in `process orders`.
    pub name: String,
    pub kind: Kind,
    pub context: TraceContext,
    /// The span of the same trace that led to it; None of a root.
    pub parent: Option<[u8; 8]>,
    pub links: Vec<TraceContext>,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it did not end well.
    pub exception: Option<Exception>,
    /// Whether that makes it a failure.
    pub is_failed: bool,
}

/// What a span has to do with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message was handled.
    Consumer,
    /// A message was made that carries this span's context.
    Producer,
    /// A message was sent that carries another context.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
}

/// What went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Exception {
    /// One of a few words.
    pub kind: &'static str,
    pub message: String,
}

/// What all spans about messages have in common: the operation, and the stream.
pub(crate) fn attributes(operation: &'static str, stream: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("messaging.system", "redis".into()),
        ("messaging.operation.name", operation.into()),
        ("messaging.operation.type", operation.into()),
        ("messaging.destination.name", stream.into()),
    ]
}

/// Where the server is, by an address such as `127.0.0.1:6379` or a path.
pub(crate) fn server(address: &str) -> Vec<(&'static str, Value)> {
    let port = |(host, port): (&str, &str)| Some((host.to_owned(), port.parse().ok()?));
    match address.rsplit_once(':').and_then(port) {
        Some((host, port)) => vec![
            ("server.address", host.into()),
            ("server.port", Value::Number(port)),
        ],
        None => vec![("server.address", address.into())],
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Number(number.into())
    }
}
