//! An event as headers: CloudEvents' HTTP binding, and what else a handler knows.

use std::borrow::Cow;
use std::fmt::Write;

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::targets::request::Request;

/// The event itself is the body.
pub(super) fn structured(_: &Request, headers: &mut HeaderMap) {
    let content_type = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, content_type);
}

/// The body is the data, and headers say the rest.
pub(super) fn binary(request: &Request, headers: &mut HeaderMap) {
    match HeaderValue::from_str(&request.data.content_type) {
        Ok(content_type) if !request.data.bytes.is_empty() => {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        Err(_) if !request.data.bytes.is_empty() => {}
        _ => {
            headers.remove(header::CONTENT_TYPE);
        }
    }
    for (name, value) in request.attributes() {
        let Ok(name) = HeaderName::try_from(format!("ce-{name}")) else {
            continue;
        };
        headers.insert(name, encoded(&value));
    }
}

/// What is no part of the event.
pub(super) fn beside(request: &Request, headers: &mut HeaderMap) {
    let number = |number: u32| HeaderValue::from(number);
    let mut insert = |name: &'static str, value| {
        headers.insert(HeaderName::from_static(name), value);
    };
    insert("streamhand-attempt", number(request.attempt));
    insert("streamhand-max-attempts", number(request.max_attempts));
    insert("streamhand-group", encoded(&request.group));
    insert("streamhand-stream", encoded(&request.stream));
    insert("streamhand-deadline", encoded(&request.deadline_text()));
    insert("idempotency-key", encoded(&request.idempotency_key));
    if let Some(trace) = &request.traceparent {
        insert("traceparent", encoded(trace));
    }
}

/// A text as CloudEvents write it into a header: what is no printable ASCII, the space, `"` and `%` as bytes of UTF-8 in
/// hexadecimal.
fn encoded(text: &str) -> HeaderValue {
    let is_plain = |byte: u8| matches!(byte, 0x21 | 0x23 | 0x24 | 0x26..=0x7e);
    let text = match text.bytes().all(is_plain) {
        true => Cow::Borrowed(text),
        false => {
            let mut encoded = String::with_capacity(text.len() * 2);
            for byte in text.bytes() {
                match is_plain(byte) {
                    true => encoded.push(char::from(byte)),
                    false => write!(encoded, "%{byte:02X}").expect("a String takes it"),
                }
            }
            Cow::Owned(encoded)
        }
    };
    HeaderValue::from_str(&text).expect("printable ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_encoded_as_cloud_events_have_it() {
        // The example of CloudEvents' HTTP binding.
        assert_eq!(encoded("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encoded("100% \"a\"\r\n"), "100%25%20%22a%22%0D%0A");
        assert_eq!(encoded("orders/{o-1}~!#$&"), "orders/{o-1}~!#$&");
    }
}
