//! Settings as TOML with the secrets hidden, for `config show` and `Debug`.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use toml::{Table, Value};

use super::hidden::without_secrets;
use super::redis::RedisSettings;
use super::sentinel::SentinelSettings;
use super::settings::Settings;
use super::tls;
use crate::duration;
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

/// The password once: from a file it is shown as the file's name alone, so that what is printed
/// can be read back.
impl Serialize for RedisSettings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut redis = to.serialize_struct("redis", 13)?;
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
        redis.serialize_field("replicas", &self.replicas)?;
        let timeout = duration::format(self.replicas_timeout).to_string();
        redis.serialize_field("replicas_timeout", &timeout)?;
        redis.serialize_field("mode", self.mode.name())?;
        if !self.nodes.is_empty() {
            redis.serialize_field("nodes", &self.nodes)?;
        }
        if !self.sentinel.is_unset() {
            redis.serialize_field("sentinel", &self.sentinel)?;
        }
        redis.end()
    }
}

impl Serialize for SentinelSettings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut sentinel = to.serialize_struct("sentinel", 9)?;
        if let Some(master) = &self.master {
            sentinel.serialize_field("master", master)?;
        }
        sentinel.serialize_field("nodes", &self.nodes)?;
        if let Some(username) = &self.username {
            sentinel.serialize_field("username", username)?;
        }
        if let Some(path) = &self.password_file {
            sentinel.serialize_field("password_file", path)?;
        } else if let Some(password) = &self.password {
            sentinel.serialize_field("password", password)?;
        }
        if let Some(tls) = self.tls {
            sentinel.serialize_field("tls", &tls)?;
        }
        for (key, path) in [
            ("tls_ca", &self.tls_ca),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
        ] {
            if let Some(path) = path {
                sentinel.serialize_field(key, path)?;
            }
        }
        sentinel.end()
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
