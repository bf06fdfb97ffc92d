//! Settings as TOML with the secrets hidden, for `config show` and `Debug`.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use toml::{Table, Value};

use super::secret::HIDDEN;
use super::{RedisSettings, Settings, duration, tls};
use crate::retry::Backoff;

/// All of `settings` as TOML, the secrets hidden.
pub(super) fn to_toml(settings: &Settings, shown: &[&str]) -> String {
    // Alone serde would hide all of the user's own.
    let app = Value::Table(without_secrets(&settings.app, shown));
    let app = Table::from_iter([("app".to_owned(), app)]);
    let rest = Settings {
        app: Table::new(),
        ..settings.clone()
    };
    let text =
        toml::to_string(&rest).and_then(|rest| Ok(format!("{rest}\n{}", toml::to_string(&app)?)));
    // What cannot be printed (a number beyond TOML's) has not come from a file.
    text.unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}

/// The user's own settings with all values hidden but those of the `shown` keys, which are dotted and below `app`: what
/// is a secret there, only the user knows. A table that is shown is shown whole.
pub(super) fn without_secrets(app: &Table, shown: &[&str]) -> Table {
    below(app, "", shown)
}

fn below(table: &Table, at: &str, shown: &[&str]) -> Table {
    let hidden = |(key, value): (&String, &Value)| {
        let path = match at {
            "" => key.clone(),
            at => format!("{at}.{key}"),
        };
        let value = match value {
            value if shown.contains(&&*path) => value.clone(),
            Value::Table(table) => Value::Table(below(table, &path, shown)),
            _ => Value::String(HIDDEN.to_owned()),
        };
        (key.clone(), value)
    };
    table.iter().map(hidden).collect()
}

/// For `#[serde(serialize_with)]`.
pub(super) fn serialize_app<S: Serializer>(app: &Table, to: S) -> Result<S::Ok, S::Error> {
    without_secrets(app, &[]).serialize(to)
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

/// Whether a setting's name says that it is a secret.
pub(super) fn is_secret_key(key: &str) -> bool {
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
    fn of_the_users_own_only_what_a_list_says_is_shown() {
        let app: Table = r#"
            api_key = "hunter2"
            authorization = "Bearer hunter2"
            conn = "Server=db;Password=hunter2"
            pin = 4711
            brokers = ["amqp://u:hunter2@a", "amqp://b"]
            greeting = "hello"
            smtp = { host = "mail", user = "hunter2", tls = { min = "1.2" } }
        "#
        .parse()
        .expect("TOML");
        let shown =
            |keys: &[&str]| toml::to_string(&without_secrets(&app, keys)).expect("printable");
        let none = shown(&[]);
        assert!(
            !none.contains("hunter2") && !none.contains("4711") && !none.contains("hello"),
            "{none}"
        );
        insta::assert_snapshot!(shown(&["greeting", "smtp.host", "smtp.tls", "host", "tls"]), @r#"
        api_key = "***"
        authorization = "***"
        brokers = "***"
        conn = "***"
        greeting = "hello"
        pin = "***"

        [smtp]
        host = "mail"
        user = "***"

        [smtp.tls]
        min = "1.2"
        "#);
    }
}
