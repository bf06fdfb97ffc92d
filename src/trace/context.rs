//! Where in which trace something happens: the W3C's trace context. Source: <https://www.w3.org/TR/trace-context/>.

use std::fmt;

use crate::traceparent;

/// A trace, a span in it, and whether it is sampled. Written as text it is a W3C `traceparent`, to be sent along with a
/// call to another service.
///
/// ```
/// # use streamhand::{Context, Failure};
/// # struct Request; impl Request { fn header(self, _: &str, _: String) -> Self { self } }
/// # fn example(ctx: Context, mut request: Request) -> Request {
/// if let Some(trace) = ctx.trace() {
///     request = request.header("traceparent", trace.to_string());
/// }
/// # request }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
    pub(crate) flags: u8,
}

/// The flag that says that the trace is sampled.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// Reads a `traceparent`; None of what is none.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let text = traceparent.as_bytes();
        if !traceparent::is_valid(text) {
            return None;
        }
        let (mut trace, mut span, mut flags) = ([0; 16], [0; 8], [0; 1]);
        unhex(&text[3..35], &mut trace);
        unhex(&text[36..52], &mut span);
        unhex(&text[53..55], &mut flags);
        let [flags] = flags;
        Some(TraceContext { trace, span, flags })
    }

    pub(crate) fn new(trace: [u8; 16], span: [u8; 8], is_sampled: bool) -> Self {
        let flags = u8::from(is_sampled) * SAMPLED;
        TraceContext { trace, span, flags }
    }

    /// Another span of the same trace.
    pub(crate) fn with_span(self, span: [u8; 8]) -> Self {
        TraceContext { span, ..self }
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        Hex(&self.trace).to_string()
    }

    /// The span's id: 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        Hex(&self.span).to_string()
    }

    /// Whether spans of the trace are kept.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// As a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (Hex(&self.trace), Hex(&self.span));
        // The one flag that version 00 knows: others' may mean something else here.
        write!(f, "00-{trace}-{span}-{:02x}", self.flags & SAMPLED)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a `traceparent` that looks like one says that its trace is not sampled. Looked at of every entry, so it is not
/// read whole.
#[inline]
pub(crate) fn is_unsampled(traceparent: &[u8]) -> bool {
    let [_, _, b'-', .., b'-', _, low] = traceparent else {
        return false;
    };
    // The value of a hexadecimal digit is odd where its code is, but for a to f.
    traceparent.len() == 55 && matches!(low, b'0' | b'2' | b'4' | b'6' | b'8' | b'a' | b'c' | b'e')
}

/// Bytes as lower-case hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Reads digits that have been found to be hexadecimal.
fn unhex(digits: &[u8], into: &mut [u8]) {
    let value = |digit: u8| match digit {
        b'a'..=b'f' => digit - b'a' + 10,
        digit => digit.wrapping_sub(b'0'),
    };
    for (byte, pair) in into.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = TraceContext::parse(traceparent::EXAMPLE).expect("one");
        assert_eq!(context.to_string(), traceparent::EXAMPLE);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id(), "00f067aa0ba902b7");
        assert!(context.is_sampled());
        // Of a later version what is known is kept.
        let later = traceparent::EXAMPLE
            .replacen("00-", "cc-", 1)
            .replace("-01", "-03-more");
        assert_eq!(
            TraceContext::parse(&later).map(|c| c.to_string()),
            Some(context.to_string())
        );
        assert_eq!(TraceContext::parse("00-1-2-01"), None);
    }

    #[test]
    fn an_unsampled_one_is_told_at_a_glance() {
        for flags in 0..=255_u8 {
            let text = traceparent::EXAMPLE.replace("-01", &format!("-{flags:02x}"));
            let context = TraceContext::parse(&text).expect("one");
            assert_eq!(
                is_unsampled(text.as_bytes()),
                !context.is_sampled(),
                "{text}"
            );
        }
        for none in ["", "00", "-", "00-1-2-00"] {
            assert!(!is_unsampled(none.as_bytes()), "{none}");
        }
    }
}
