//! Values that are never printed: a password, and a Redis URL that may carry one.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// What stands in the place of a secret.
pub(super) const HIDDEN: &str = "***";

/// A text that is not shown by `Debug`, `Display` or serde, only by [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `secret`.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(secret: T) -> Self {
        Secret::new(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(HIDDEN)
    }
}

/// Where Redis is: a URL that was checked, and whose password is not shown by `Debug`, `Display`
/// or serde, only by [`RedisUrl::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    text: String,
    shown: String,
    tls: bool,
    user: bool,
    password: bool,
}

impl RedisUrl {
    /// Checks `text`: `redis://[user:password@]host[:port][/database]`, the same with `rediss` for
    /// TLS, or `unix:///path/to/socket[?db=0&user=…&pass=…]` (also `redis+unix`). `valkey` may
    /// stand for `redis`. No port means 6379. `?protocol=` is accepted and has no effect: this speaks RESP2.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: what is wrong with the text, without quoting it, since any part may be a misplaced secret.
    pub fn parse(text: &str) -> Result<Self> {
        Self::checked(text)
            .map_err(|why| Error::new(ErrorKind::Invalid, format!("the address of Redis {why}")))
    }

    /// The same; the error is the end of a sentence about the text.
    pub(super) fn checked(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| {
            let error = match error {
                url::ParseError::RelativeUrlWithoutBase => "it has no scheme".to_owned(),
                error => error.to_string(),
            };
            format!(
                "is not a URL ({error}); write \"redis://host:6379\", with special characters of a \
                 password percent-encoded"
            )
        })?;
        let tls = matches!(url.scheme(), "rediss" | "valkeys");
        match url.scheme() {
            "redis" | "valkey" | "rediss" | "valkeys" => check_tcp(&url)?,
            "unix" | "redis+unix" | "valkey+unix" => check_socket(&url)?,
            _ => {
                return Err("has an unknown scheme; write \"redis://host:6379\", \
                            \"rediss://host:6379\" or \"unix:///path/to/socket\""
                    .to_owned());
            }
        }
        let parameter = |name| url.query_pairs().any(|(key, _)| key == name);
        Ok(Self {
            text: text.to_owned(),
            shown: without_secrets(text, &url),
            tls,
            user: !url.username().is_empty() || parameter("user"),
            password: url.password().is_some() || parameter("pass"),
        })
    }

    /// The whole URL, with the password.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The number of the database it names.
    pub(crate) fn database(&self) -> u64 {
        let Ok(url) = Url::parse(&self.text) else {
            return 0;
        };
        let named = url.query_pairs().find(|(key, _)| key == "db");
        let named = named.map(|(_, value)| value.into_owned());
        let named = named.unwrap_or_else(|| url.path().trim_matches('/').to_owned());
        named.parse().unwrap_or(0)
    }

    /// Whether it asks for TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether it names a user.
    pub fn has_user(&self) -> bool {
        self.user
    }

    /// Whether it carries a password.
    pub fn has_password(&self) -> bool {
        self.password
    }
}

/// As [`RedisUrl::parse`].
impl FromStr for RedisUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// As [`RedisUrl::parse`].
impl TryFrom<&str> for RedisUrl {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// As [`RedisUrl::parse`].
impl TryFrom<&String> for RedisUrl {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self> {
        Self::parse(text)
    }
}

/// As [`RedisUrl::parse`].
impl TryFrom<String> for RedisUrl {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl Default for RedisUrl {
    /// `redis://127.0.0.1:6379`.
    fn default() -> Self {
        let text = "redis://127.0.0.1:6379".to_owned();
        Self {
            shown: text.clone(),
            text,
            tls: false,
            user: false,
            password: false,
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, f)
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.shown)
    }
}

/// Whether something looks like a URL with a password, or a token in its place.
pub(super) fn has_credentials(text: &str) -> bool {
    hide_credentials(text) != text
}

/// Hides the password of anything that looks like a URL with one. A user name without a password
/// is hidden too: it is as likely a token in the wrong place.
pub(super) fn hide_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    // The last one: an `@` inside a password is often not percent-encoded.
    let Some((credentials, rest)) = rest.rsplit_once('@') else {
        return text.to_owned();
    };
    match credentials.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{HIDDEN}@{rest}"),
        None => format!("{scheme}://{HIDDEN}@{rest}"),
    }
}

fn without_secrets(text: &str, url: &Url) -> String {
    if !url.query_pairs().any(|(key, _)| key == "pass") {
        return hide_credentials(text);
    }
    let mut shown = url.clone();
    shown
        .query_pairs_mut()
        .clear()
        .extend_pairs(url.query_pairs().map(|(key, value)| {
            let hide = key == "pass";
            (key, if hide { HIDDEN.into() } else { value })
        }));
    shown.into()
}

fn check_tcp(url: &Url) -> Result<(), String> {
    match url.host_str() {
        None | Some("") => {
            return Err("has no host; write \"redis://host:6379\"".to_owned());
        }
        Some("0.0.0.0" | "[::]") => {
            return Err(
                "has a host that only a server can listen on; write 127.0.0.1 for this machine"
                    .to_owned(),
            );
        }
        Some(_) => {}
    }
    if url.port() == Some(0) {
        return Err("has port 0; leave it out for 6379".to_owned());
    }
    match url.fragment() {
        None => {}
        Some("insecure") => {
            return Err(
                "has #insecure, which would talk to whoever answers; name the CA to trust in redis.tls_ca"
                    .to_owned(),
            );
        }
        Some(_) => {
            return Err("has a '#'; inside a password write %23".to_owned());
        }
    }
    let database = url.path().trim_matches('/');
    if !database.is_empty() && !is_database(database) {
        return Err(
            "has a path that is not a database number; write \"redis://host:6379/0\", and inside \
             a password %2F for '/'"
                .to_owned(),
        );
    }
    check_parameters(url, &["protocol"])
}

fn check_socket(url: &Url) -> Result<(), String> {
    if url.host_str().is_some_and(|host| !host.is_empty())
        || url.path().trim_matches('/').is_empty()
    {
        return Err(
            "has no path to a socket; write \"unix:///path/to/socket\", with three slashes"
                .to_owned(),
        );
    }
    if url.fragment().is_some() {
        return Err("has a '#'; inside a path or a password write %23".to_owned());
    }
    check_parameters(url, &["db", "user", "pass", "protocol"])
}

fn check_parameters(url: &Url, known: &[&str]) -> Result<(), String> {
    for (key, value) in url.query_pairs() {
        if !known.contains(&&*key) {
            return Err(format!(
                "has an unknown parameter after the '?'; known here: {}",
                known.join(", ")
            ));
        }
        if key == "db" && !is_database(&value) {
            return Err("has a db that is not a number; write ?db=0".to_owned());
        }
        if key == "protocol" && !["2", "3", "resp2", "resp3"].contains(&&*value) {
            return Err("has an unknown protocol; write ?protocol=resp2 or resp3".to_owned());
        }
    }
    Ok(())
}

fn is_database(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u32>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_clients_understand_is_accepted() {
        for text in [
            "redis://127.0.0.1:6379",
            "redis://localhost",
            "redis://[::1]:6379/3",
            "redis://worker:pa%23ss@redis.internal:6380/1?protocol=resp3",
            "redis://:pass@redis.internal",
            "rediss://redis.internal:6379/1",
            "valkeys://localhost",
            "valkey://localhost",
            "unix:///run/redis.sock",
            "redis+unix:///run/redis.sock?db=2&user=worker&pass=x",
        ] {
            let url = RedisUrl::checked(text).expect(text);
            assert_eq!(url.expose(), text);
        }
    }

    #[test]
    fn passwords_are_hidden_wherever_a_url_can_carry_them() {
        let shown = [
            "redis://worker:hunter2@host:6379/1",
            "redis://:hunter2@host",
            "redis://hunter2@host",
            "redis://worker:hunter2%40:x@host",
            "unix:///run/redis.sock?user=worker&pass=hunter2&db=1",
            "unix:///run/redis.sock?p%61ss=hunter2",
            "redis://host:6379",
        ]
        .map(|text| {
            let url = RedisUrl::checked(text).expect(text);
            assert_eq!(format!("{url:?}"), format!("{:?}", url.to_string()));
            url.to_string()
        })
        .join("\n");
        assert!(!shown.contains("hunter2"), "{shown}");
        insta::assert_snapshot!(shown, @"
        redis://worker:***@host:6379/1
        redis://:***@host
        redis://***@host
        redis://worker:***@host
        unix:///run/redis.sock?user=worker&pass=***&db=1
        unix:///run/redis.sock?pass=***
        redis://host:6379
        ");
    }

    #[test]
    fn a_refused_url_is_explained_and_not_quoted() {
        let refusals = [
            "",
            "127.0.0.1:6379",
            "hunter2",
            "hunter2:6379",
            "http://hunter2@host",
            "redis:127.0.0.1:6379",
            "redis://",
            "redis://0.0.0.0:6379",
            "redis://host:port",
            "redis://host:0",
            "redis://:hunter#2@host:6379",
            "redis://u:12#hunter2@host",
            "rediss://u:hunter2@host/#insecure",
            "redis://u:12/hunter2@host",
            "redis://host/-1",
            "redis://host?password=hunter2",
            "redis://host?protocol=hunter2",
            "unix://run/redis.sock",
            "unix:///",
            "unix:///run/redis.sock?db=hunter2",
            "unix:///run/redis.sock#hunter2",
        ]
        .map(|text| RedisUrl::checked(text).expect_err(text))
        .join("\n");
        assert!(!refusals.contains("hunter2"), "{refusals}");
        insta::assert_snapshot!(refusals, @r#"
        is not a URL (it has no scheme); write "redis://host:6379", with special characters of a password percent-encoded
        is not a URL (it has no scheme); write "redis://host:6379", with special characters of a password percent-encoded
        is not a URL (it has no scheme); write "redis://host:6379", with special characters of a password percent-encoded
        has an unknown scheme; write "redis://host:6379", "rediss://host:6379" or "unix:///path/to/socket"
        has an unknown scheme; write "redis://host:6379", "rediss://host:6379" or "unix:///path/to/socket"
        has no host; write "redis://host:6379"
        has no host; write "redis://host:6379"
        has a host that only a server can listen on; write 127.0.0.1 for this machine
        is not a URL (invalid port number); write "redis://host:6379", with special characters of a password percent-encoded
        has port 0; leave it out for 6379
        is not a URL (empty host); write "redis://host:6379", with special characters of a password percent-encoded
        has a '#'; inside a password write %23
        has #insecure, which would talk to whoever answers; name the CA to trust in redis.tls_ca
        has a path that is not a database number; write "redis://host:6379/0", and inside a password %2F for '/'
        has a path that is not a database number; write "redis://host:6379/0", and inside a password %2F for '/'
        has an unknown parameter after the '?'; known here: protocol
        has an unknown protocol; write ?protocol=resp2 or resp3
        has no path to a socket; write "unix:///path/to/socket", with three slashes
        has no path to a socket; write "unix:///path/to/socket", with three slashes
        has a db that is not a number; write ?db=0
        has a '#'; inside a path or a password write %23
        "#);
    }

    #[test]
    fn a_secret_is_shown_to_who_asks_for_it_only() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }
}
