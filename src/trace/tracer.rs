//! Who makes spans, and where they wait until they are sent. There is room for so many; what finds none is dropped and
//! counted: nobody waits for a collector.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::context::TraceContext;
use super::sampling::Sampling;
use super::span::Span;
use crate::sync::lock;

/// So many spans are worth a request of their own.
pub(crate) const ENOUGH: usize = 512;
/// Most spans that wait.
const MOST: usize = 8 * ENOUGH;

/// Makes spans. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tracer {
    inner: Arc<Inner>,
}

struct Inner {
    sampling: Sampling,
    is_child: bool,
    waiting: Mutex<Waiting>,
    enough: Notify,
}

#[derive(Default)]
struct Waiting {
    spans: Vec<Span>,
    dropped: u64,
}

impl Tracer {
    /// Keeps such a part of the traces that begin here, from 0 to 1. Runs of handlers are children of what published their
    /// event, or roots that are linked to it.
    pub fn new(part: f64, is_child: bool) -> Self {
        Tracer {
            inner: Arc::new(Inner {
                sampling: Sampling::new(part),
                is_child,
                waiting: Mutex::default(),
                enough: Notify::new(),
            }),
        }
    }

    /// A new trace, which is kept or not, and a span in it.
    pub fn root(&self) -> TraceContext {
        let is_kept = self.inner.sampling.keeps(fastrand::u64(..));
        TraceContext::new(fastrand::u128(1..).to_be_bytes(), self.new_span(), is_kept)
    }

    /// The id of a span.
    pub fn new_span(&self) -> [u8; 8] {
        fastrand::u64(1..).to_be_bytes()
    }

    pub(super) fn sampling(&self) -> Sampling {
        self.inner.sampling
    }

    pub(super) fn is_child(&self) -> bool {
        self.inner.is_child
    }

    /// Has a span wait to be sent, if there is room.
    pub fn add(&self, span: Span) {
        let mut waiting = lock(&self.inner.waiting);
        if waiting.spans.len() >= MOST {
            waiting.dropped += 1;
            return;
        }
        waiting.spans.push(span);
        if waiting.spans.len() == ENOUGH {
            self.inner.enough.notify_one();
        }
    }

    /// The spans that wait, and how many found no room since this was asked last.
    pub fn take(&self) -> (Vec<Span>, u64) {
        let waiting = std::mem::take(&mut *lock(&self.inner.waiting));
        (waiting.spans, waiting.dropped)
    }

    /// Waits until enough wait.
    pub fn enough(&self) -> Notified<'_> {
        self.inner.enough.notified()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::span::Kind;
    use super::*;

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let tracer = Tracer::new(1.0, false);
        for _ in 0..MOST + 3 {
            let now = SystemTime::now();
            tracer.add(Span {
                name: "process orders".to_owned(),
                kind: Kind::Consumer,
                context: tracer.root(),
                parent: None,
                links: Vec::new(),
                start: now,
                end: now,
                attributes: Vec::new(),
                exception: None,
                is_failed: false,
            });
        }
        let (spans, dropped) = tracer.take();
        assert_eq!((spans.len(), dropped), (MOST, 3));
        let (spans, dropped) = tracer.take();
        assert_eq!((spans.len(), dropped), (0, 0));
    }
}
