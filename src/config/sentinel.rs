//! Sentinel's settings, and what there may be at all.

use std::path::PathBuf;

use super::secret::Secret;
use super::setters::setters;

/// What is at `redis.url`, and how the server to ask is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisMode {
    /// Sentinel if `redis.sentinel` names any; else what the server says that it is: one server, or a node of a cluster.
    #[default]
    Auto,
    /// One server, or what looks like one: a proxy.
    Single,
    /// Sentinels are asked for the primary.
    Sentinel,
    /// A cluster, of which `redis.nodes` or `redis.url` names some nodes.
    Cluster,
}

impl RedisMode {
    /// What it is called in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            RedisMode::Auto => "auto",
            RedisMode::Single => "single",
            RedisMode::Sentinel => "sentinel",
            RedisMode::Cluster => "cluster",
        }
    }
}

/// `[redis.sentinel]`: who knows where the primary is.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct SentinelSettings {
    /// The name under which the sentinels know the primary and its replicas, as in `sentinel monitor NAME`.
    pub master: Option<String>,
    /// All the sentinels, as `host:port`; without a port 26379.
    pub nodes: Vec<String>,
    /// The user to log in to sentinels as. They have a login of their own; none is none.
    pub username: Option<String>,
    /// The password for sentinels. Where `password_file` is set, what was in the file.
    pub password: Option<Secret>,
    /// The file that holds that password.
    pub password_file: Option<PathBuf>,
    /// Whether sentinels speak TLS; as `redis.url` says where this is left out.
    pub tls: Option<bool>,
    /// A PEM file with the CA that issues the sentinels' certificates; `redis.tls_ca` where this is left out.
    pub tls_ca: Option<PathBuf>,
    /// A PEM file with the certificate that sentinels may ask us for; `redis.tls_cert` where this is left out.
    pub tls_cert: Option<PathBuf>,
    /// A PEM file with the key of `tls_cert`.
    pub tls_key: Option<PathBuf>,
}

setters!(SentinelSettings {
    some_into master: String,
    some_into username: String,
    some_into password: Secret,
    some_into password_file: PathBuf,
    some tls: bool,
    some_into tls_ca: PathBuf,
    some_into tls_cert: PathBuf,
    some_into tls_key: PathBuf,
});

impl SentinelSettings {
    /// The sentinels at these addresses, and the name `master` by which they know the primary.
    pub fn new<S: Into<String>>(
        master: impl Into<String>,
        nodes: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::default().master(master).nodes(nodes)
    }

    /// The same settings with `nodes`, in place of those that were there.
    pub fn nodes<S: Into<String>>(mut self, nodes: impl IntoIterator<Item = S>) -> Self {
        self.nodes = nodes.into_iter().map(Into::into).collect();
        self
    }

    /// Whether nothing of it is set.
    pub(crate) fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}
