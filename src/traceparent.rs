//! The W3C trace context's `traceparent`: which texts are one. Source: <https://www.w3.org/TR/trace-context/>, section
//! 3.2.

/// How one is written, for messages.
pub(crate) const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Whether a text is a `traceparent`: a version, the ids of the trace and of the span, neither of them all zeros, and
/// flags, all in lower-case hexadecimal. Versions to come may add more behind that.
pub(crate) fn is_valid(text: &[u8]) -> bool {
    let mut parts = text.splitn(5, |byte| *byte == b'-');
    let mut hex = |length: usize| {
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts
            .next()
            .filter(|part| part.len() == length && part.iter().all(is_hex))
    };
    let (Some(version), Some(trace), Some(span), Some(_)) = (hex(2), hex(32), hex(16), hex(2))
    else {
        return false;
    };
    let is_set = |id: &[u8]| id.iter().any(|byte| *byte != b'0');
    version != b"ff"
        && is_set(trace)
        && is_set(span)
        && (version != b"00" || parts.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_told_from_what_looks_like_one() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        assert!(is_valid(EXAMPLE.as_bytes()));
        for right in [
            format!("00-{trace}-{span}-00"),
            format!("00-{trace}-{span}-ff"),
            format!("cc-{trace}-{span}-01-what-comes"),
        ] {
            assert!(is_valid(right.as_bytes()), "{right}");
        }
        for wrong in [
            String::new(),
            "00-1-2-01".to_owned(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{trace}-{span}-01-"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{span}-0g"),
            format!("00_{trace}_{span}_01"),
        ] {
            assert!(!is_valid(wrong.as_bytes()), "{wrong}");
        }
    }
}
