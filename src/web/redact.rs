//! Fields of events that nobody is shown, by rule: `data.card`, `data.*.iban`, `subject`.

use serde_json::Value;

const HIDDEN: &str = "***";

/// The rules of `[web] redact`.
#[derive(Clone, Debug, Default)]
pub(super) struct Redaction(Vec<Vec<String>>);

impl Redaction {
    pub fn new(rules: &[String]) -> Self {
        let parts = |rule: &String| rule.split('.').map(str::to_owned).collect();
        Redaction(rules.iter().map(parts).collect())
    }

    /// Hides what the rules name in an event as JSON: an object with its envelope and, as `data`, what it holds. A list
    /// on the way is gone through item by item.
    pub fn hide(&self, event: &mut Value) {
        for rule in &self.0 {
            hide(event, rule);
        }
    }
}

fn hide(value: &mut Value, rule: &[String]) {
    let Some((key, rest)) = rule.split_first() else {
        *value = Value::String(HIDDEN.to_owned());
        return;
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, rule)),
        Value::Object(fields) if key == "*" => {
            fields.values_mut().for_each(|field| hide(field, rest));
        }
        Value::Object(fields) => {
            if let Some(field) = fields.get_mut(key) {
                hide(field, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_rule_names_is_hidden_wherever_it_is() {
        let rules = ["data.card", "data.payers.*.iban", "subject"].map(str::to_owned);
        let mut event = json!({
            "type": "order.created",
            "subject": "hunter2",
            "data": { "card": { "number": "hunter2" }, "total": 7,
                      "payers": [{ "a": { "iban": "hunter2" } }, { "b": { "iban": 7 }, "c": 1 }] },
        });
        Redaction::new(&rules).hide(&mut event);
        let expected = json!({
            "type": "order.created",
            "subject": "***",
            "data": { "card": "***", "total": 7,
                      "payers": [{ "a": { "iban": "***" } }, { "b": { "iban": "***" }, "c": 1 }] },
        });
        assert_eq!(event, expected);
    }
}
