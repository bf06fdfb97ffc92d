//! What a visitor is shown of an event: no data to whoever may only look, and nothing that a rule hides.

use std::time::SystemTime;

use serde_json::Value;

use super::app::App;
use super::visit::Visit;
use crate::rfc3339;

/// In place of data that the visitor may not see.
const UNSEEN: &str = "*** (whoever may operate this stream is shown it)";

/// Takes away of an event as JSON what the visitor may not see.
pub(super) fn hide(app: &App, visit: &Visit, stream: &str, event: &mut Value) {
    if let Value::Object(fields) = event
        && !visit.sees_payload(stream)
        && let Some(data) = fields.get_mut("data")
    {
        *data = Value::String(UNSEEN.to_owned());
    }
    app.redaction().hide(event);
}

/// A time as it is read: `2026-01-31 12:00:00 UTC`.
pub(super) fn second(time: SystemTime) -> String {
    readable(&rfc3339::seconds(time))
}

/// The same to the millisecond.
pub(super) fn milli(time: SystemTime) -> String {
    readable(&rfc3339::millis(time))
}

fn readable(time: &str) -> String {
    format!("{} UTC", time.trim_end_matches('Z').replacen('T', " ", 1))
}

/// JSON to be read.
pub(super) fn laid_out(json: &Value) -> String {
    serde_json::to_string_pretty(json).unwrap_or_default()
}

/// A field that is text; nothing if there is none.
pub(super) fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_apart_from_ids() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_769_860_800_123);
        assert_eq!(second(time), "2026-01-31 12:00:00 UTC");
        assert_eq!(milli(time), "2026-01-31 12:00:00.123 UTC");
    }
}
