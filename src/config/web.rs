//! `[web]`: the pages to watch and operate a group by: where they are served, to whom, and what is not shown.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::redis::RedisSettings;
use super::secret::{RedisUrl, Secret};
use super::setters::setters;
use super::value::{Given, Refusal, Setting, invalid, one_of, text};
use crate::error::{Error, ErrorKind};

/// `[web]`: the pages to watch and operate a group by.
///
/// Elsewhere than on loopback they are not served without authentication: a user with a password or a token, or a proxy
/// that says who it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct WebSettings {
    /// Where a worker serves them beside its work; unset, it does not. `streamhand web` has 127.0.0.1:9465 by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// What their paths begin with behind a proxy: "/streamhand".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The names that they are reached by. Without one, localhost and addresses are: so no other site's name can be
    /// pointed at them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The proxies that are believed in what they say of a prefix and of who somebody is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<Network>,
    /// The header in which a proxy says who somebody is; unset, none is believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_header: Option<String>,
    /// What those may do who are none of `users`: whoever reaches loopback if there is no authentication, which is
    /// `operate` unless it is set; and whoever a proxy names, who may do nothing unless it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Fields of events that nobody is shown, by their dotted paths: "data.card", "data.*.iban", "subject".
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
    /// `[web.redis]`: how the pages log in, if not as `[redis]` does.
    #[serde(skip_serializing_if = "WebRedisSettings::is_unset")]
    pub redis: WebRedisSettings,
    /// `[web.users.alice]`: who may do what.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, WebUser>,
}

/// `[web.users.alice]`: one of those who may see the pages.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct WebUser {
    /// What they may do; unset, nothing but what `streams` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// What they may do with single streams, in place of `role`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, Role>,
    /// Their password's Argon2 hash, as `streamhand web hash` makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<Secret>,
    /// Their token: as a bearer token, or as the password of a browser's question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// The file that holds their token. It is read when the pages begin to be served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// `[web.redis]`: how the pages log in, such as with a user that may only read. What is unset is that of `[redis]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct WebRedisSettings {
    /// Where it is. If it is set, no name and no password of `[redis]` are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<RedisUrl>,
    /// The user to log in as. If it is set, the password of `[redis]` is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// What somebody may do on the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// `"view"`: see how things are; not what events hold.
    View,
    /// `"operate"`: see what events hold; pause and resume, replay, quiet and drain workers.
    Operate,
    /// `"admin"`: what can't be undone as well: purge, edit, rebuild.
    Admin,
}

/// Addresses of proxies: `10.0.0.7`, or all that begin alike, `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl WebSettings {
    /// Whether whoever comes has to say who they are.
    pub fn authenticates(&self) -> bool {
        let known = |user: &WebUser| {
            user.password_hash.is_some() || user.token.is_some() || user.token_file.is_some()
        };
        self.users.values().any(known) || self.identity_header.is_some()
    }

    /// The same settings, with these for the user of that name.
    pub fn user(mut self, name: impl Into<String>, user: WebUser) -> Self {
        self.users.insert(name.into(), user);
        self
    }

    /// The same settings with `hosts`, in place of those that were there.
    pub fn hosts<S: Into<String>>(mut self, hosts: impl IntoIterator<Item = S>) -> Self {
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// The same settings with `redact`, in place of those that were there.
    pub fn redact<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.redact = paths.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == WebSettings::default()
    }
}

/// Why the pages are not served at an address beyond this machine; the end of a sentence about it.
pub(crate) fn refused_without(listen: SocketAddr) -> String {
    format!(
        "{listen} can be reached from other machines, and nobody would be asked who they are: give a user of [web.users] \
         a password_hash or a token_file, or set web.identity_header and web.proxies; 127.0.0.1 needs none of it"
    )
}

impl WebUser {
    /// One with this role on every stream.
    pub fn new(role: Role) -> Self {
        Self::default().role(role)
    }

    /// The same user, with this role for that stream.
    pub fn stream(mut self, stream: impl Into<String>, role: Role) -> Self {
        self.streams.insert(stream.into(), role);
        self
    }
}

/// Fewer characters can be guessed.
pub(crate) const SHORTEST_TOKEN: usize = 16;

pub(crate) fn too_short() -> String {
    format!(
        "is too short for a token; at least {SHORTEST_TOKEN} characters, as `openssl rand -hex 32` makes them"
    )
}

impl WebRedisSettings {
    fn is_unset(&self) -> bool {
        *self == Self::default()
    }

    /// The settings to connect with: these, and the rest from `redis`.
    pub(crate) fn over(&self, redis: &RedisSettings) -> RedisSettings {
        let mut redis = redis.clone();
        if let Some(url) = &self.url {
            redis.url = url.clone();
        }
        if self.url.is_some() || self.username.is_some() {
            (redis.username, redis.password, redis.password_file) = (None, None, None);
        }
        if self.username.is_some() {
            redis.username.clone_from(&self.username);
        }
        if self.password.is_some() || self.password_file.is_some() {
            redis.password.clone_from(&self.password);
            redis.password_file.clone_from(&self.password_file);
        }
        redis
    }
}

setters!(WebSettings {
    some listen: SocketAddr,
    some_into prefix: String,
    plain proxies: Vec<Network>,
    some_into identity_header: String,
    some role: Role,
    plain redis: WebRedisSettings,
});

setters!(WebUser {
    some role: Role,
    some_into password_hash: Secret,
    some_into token: Secret,
    some_into token_file: PathBuf,
});

setters!(WebRedisSettings {
    some url: RedisUrl,
    some_into username: String,
    some_into password: Secret,
    some_into password_file: PathBuf,
});

impl Network {
    /// Whether an address is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        let is_alike = |a: u128, b: u128, width: u32| {
            let differ = width - u32::from(self.bits);
            differ >= 128 || a >> differ == b >> differ
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                is_alike(u32::from(a).into(), u32::from(b).into(), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => is_alike(a.into(), b.into(), 128),
            _ => false,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "{text:?} is not an address; write \"10.0.0.7\", or \"10.0.0.0/8\" for all that begin alike"
            )
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| refused())?,
            None => most,
        };
        if bits > most {
            return Err(refused());
        }
        Ok(Network { address, bits })
    }
}

/// As the configuration has it.
impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(|why| Error::new(ErrorKind::Invalid, why))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::View => "view",
            Role::Operate => "operate",
            Role::Admin => "admin",
        })
    }
}

impl Setting for Role {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        let roles = [Role::View, Role::Operate, Role::Admin];
        one_of(
            given,
            &[
                ("view", roles[0]),
                ("operate", roles[1]),
                ("admin", roles[2]),
            ],
        )
    }
}

impl Setting for Vec<Network> {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        let texts = Vec::<String>::read(given)?;
        texts
            .iter()
            .map(|text| Network::parse(text).map_err(invalid))
            .collect()
    }
}

impl Setting for SocketAddr {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        const EXPECTED: &str = "an address and a port in quotes, as in \"127.0.0.1:9465\"";
        let text = text(given, EXPECTED)?;
        text.trim().parse().map_err(|_| {
            invalid(format!(
                "{text:?} is not an address to listen at; write {EXPECTED}"
            ))
        })
    }
}

/// A prefix as it is used: "/streamhand".
pub(crate) fn prefix_of(text: &str) -> Result<String, String> {
    let segments: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    let is_plain = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        part.chars().all(plain) && !matches!(part, "." | "..")
    };
    if !text.starts_with('/') || !segments.iter().all(|part| is_plain(part)) {
        return Err(format!(
            "{text:?} is no prefix of a path; write \"/streamhand\""
        ));
    }
    Ok(segments.iter().map(|part| format!("/{part}")).collect())
}

pub(super) fn is_host(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !text.is_empty() && text.chars().all(plain)
}

pub(super) fn is_header(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !text.is_empty() && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect(text)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn a_network_has_what_begins_alike() {
        assert!(network("10.0.0.0/8").contains(ip("10.200.3.4")));
        assert!(network("10.0.0.0/8").contains(ip("::ffff:10.1.1.1")));
        assert!(!network("10.0.0.0/8").contains(ip("11.0.0.1")));
        assert!(network("10.0.0.7").contains(ip("10.0.0.7")));
        assert!(!network("10.0.0.7").contains(ip("10.0.0.8")));
        assert!(network("0.0.0.0/0").contains(ip("1.2.3.4")));
        assert!(network("::/0").contains(ip("::1")));
        assert!(!network("::/0").contains(ip("1.2.3.4")));
        assert!(network("fd00::/8").contains(ip("fdab::1")));
        assert_eq!(network("10.0.0.7").to_string(), "10.0.0.7/32");
        for wrong in ["10.0.0.0/33", "10.0.0", "proxy", "10.0.0.0/x", "::/129"] {
            wrong.parse::<Network>().expect_err(wrong);
        }
    }

    #[test]
    fn a_prefix_is_a_plain_path() {
        assert_eq!(prefix_of("/a/b/").expect("a prefix"), "/a/b");
        assert_eq!(prefix_of("/").expect("a prefix"), "");
        for wrong in [
            "",
            "a",
            "//evil.example/../x",
            "/a b",
            "/a\"",
            "/../a",
            "https://a",
        ] {
            prefix_of(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn its_own_user_brings_its_own_password() {
        let redis = RedisSettings::default()
            .username("worker")
            .password("hunter2");
        let own = WebRedisSettings::default().username("pages");
        assert_eq!(own.over(&redis).password, None);
        let own = own.password("tr0ub4dor");
        assert_eq!(own.over(&redis).username.as_deref(), Some("pages"));
        assert_eq!(WebRedisSettings::default().over(&redis), redis);
    }
}
