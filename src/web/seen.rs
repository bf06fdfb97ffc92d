//! What a visitor is shown of an event: no data to whoever may only look, and nothing that a rule hides.

use serde_json::Value;

use super::app::App;
use super::visit::Visit;

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

/// JSON to be read.
pub(super) fn laid_out(json: &Value) -> String {
    serde_json::to_string_pretty(json).unwrap_or_default()
}

/// A field that is text; nothing if there is none.
pub(super) fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}
