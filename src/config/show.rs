//! Settings as TOML with the secrets hidden, for `config show` and `Debug`.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use toml::{Table, Value};

use super::secret::{HIDDEN, hide_credentials};
use super::{RedisSettings, Settings, duration, tls};
use crate::retry::Backoff;

/// All of `settings` as TOML, the secrets hidden.
pub(super) fn to_toml(settings: &Settings) -> String {
    // What cannot be printed (a number beyond TOML's) has not come from a file.
    toml::to_string(settings).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}

/// The user's own settings with what looks like a secret hidden: by the name of the key, or
/// because it is a URL with credentials.
pub(super) fn without_secrets(app: &Table) -> Table {
    app.iter()
        .map(|(key, value)| {
            let shown = if is_secret_key(key) {
                Value::String(HIDDEN.to_owned())
            } else {
                shown(value)
            };
            (key.clone(), shown)
        })
        .collect()
}

/// For `#[serde(serialize_with)]`.
pub(super) fn serialize_app<S: Serializer>(app: &Table, to: S) -> Result<S::Ok, S::Error> {
    without_secrets(app).serialize(to)
}

/// The password once: from a file it is shown as the file's name alone, so that what is printed
/// can be read back.
impl Serialize for RedisSettings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut redis = to.serialize_struct("redis", 8)?;
        redis.serialize_field("url", &self.url)?;
        if let Some(username) = &self.username {
            redis.serialize_field("username", username)?;
        }
        if let Some(path) = &self.password_file {
            redis.serialize_field("password_file", path)?;
        } else if let Some(password) = &self.password {
            redis.serialize_field("password", password)?;
        }
        for (key, path) in tls::settings(self) {
            if let Some(path) = path {
                redis.serialize_field(key, path)?;
            }
        }
        redis.serialize_field("pool_size", &self.pool_size)?;
        redis.end()
    }
}

impl Serialize for Backoff {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut backoff = to.serialize_struct("backoff", 4)?;
        backoff.serialize_field("initial", &duration::format(self.initial).to_string())?;
        backoff.serialize_field("factor", &self.factor)?;
        backoff.serialize_field("max", &duration::format(self.max).to_string())?;
        backoff.serialize_field("jitter", &self.jitter)?;
        backoff.end()
    }
}

fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(hide_credentials(text)),
        Value::Array(items) => Value::Array(items.iter().map(shown).collect()),
        Value::Table(table) => Value::Table(without_secrets(table)),
        other => other.clone(),
    }
}

fn is_secret_key(key: &str) -> bool {
    const PARTS: [&str; 10] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "credential",
        "apikey",
        "accesskey",
        "privatekey",
        "signingkey",
    ];
    let word: String = key
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    matches!(word.as_str(), "pass" | "pwd" | "key" | "auth")
        || PARTS.iter().any(|part| word.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_of_the_users_own_is_hidden() {
        let app: Table = r#"
            api_key = "hunter2"
            AccessKeyId = "hunter2"
            pin_token = 4711
            database = "postgres://shop:hunter2@db/orders"
            brokers = ["amqp://u:hunter2@a", "amqp://b"]
            greeting = "hello"
            smtp = { host = "mail", password = "hunter2", credentials = { user = "u", code = "hunter2" } }
        "#
        .parse()
        .expect("TOML");
        let shown = toml::to_string(&without_secrets(&app)).expect("printable");
        assert!(
            !shown.contains("hunter2") && !shown.contains("4711"),
            "{shown}"
        );
        insta::assert_snapshot!(shown, @r#"
        AccessKeyId = "***"
        api_key = "***"
        brokers = ["amqp://u:***@a", "amqp://b"]
        database = "postgres://shop:***@db/orders"
        greeting = "hello"
        pin_token = "***"

        [smtp]
        credentials = "***"
        host = "mail"
        password = "***"
        "#);
    }
}
