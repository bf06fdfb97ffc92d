//! What is not shown of the settings that are the user's own.

use serde::{Serialize, Serializer};
use toml::{Table, Value};

use super::secret::HIDDEN;

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

/// A message of a parser without the texts it quotes, which may be secrets.
pub(super) fn without_texts(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}{HIDDEN}{}", &message[..first], &message[last + 1..])
        }
        _ => message.to_owned(),
    }
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
