//! Where the server is, and how to log in: all that a publisher needs to know.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ProblemKind;
use super::secret::{RedisUrl, Secret};
use super::sentinel::{RedisMode, SentinelSettings};
use super::setters::setters;

/// `[redis]`: the server, and how to log in.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct RedisSettings {
    /// Where it is; `redis://127.0.0.1:6379`. It may carry a user and a password; `username` and
    /// `password` win over them.
    pub url: RedisUrl,
    /// The user to log in as; none is Redis' `default`. Sent with a password only.
    pub username: Option<String>,
    /// The password. Where `password_file` is set, what was in the file.
    pub password: Option<Secret>,
    /// The file that holds the password, relative to where the process runs. A newline at its end
    /// is no part of the password.
    pub password_file: Option<PathBuf>,
    /// A PEM file with the certificate of the CA that the server's must be issued by (or several); none trusts those
    /// that the system does. This and the next two are for `rediss://`.
    pub tls_ca: Option<PathBuf>,
    /// A PEM file with the certificate that a server may ask us for, and with those between it and its CA.
    pub tls_cert: Option<PathBuf>,
    /// A PEM file with the key of `tls_cert`.
    pub tls_key: Option<PathBuf>,
    /// Connections that handlers can borrow at once; 4. In a cluster from each node.
    pub pool_size: usize,
    /// How many replicas must have what is published, scheduled or appended to aggregates until that is acknowledged; 0. If fewer
    /// have it in time that is an error, which says that it is stored. What handlers settle does not wait.
    pub replicas: u32,
    /// How long those are waited for; 1 s.
    pub replicas_timeout: Duration,
    /// What there is, and how the server to ask is found; [`RedisMode::Auto`].
    pub mode: RedisMode,
    /// Some nodes of a cluster, as `host:port`, any of which is asked for the others; without a port 6379. What `url` says of
    /// TLS and of logging in holds for all of them, and its host is not used then.
    pub nodes: Vec<String>,
    /// Sentinels, who are asked for the primary. What `url` says of TLS, of logging in and of the database holds for the
    /// primary, and its host is not used.
    pub sentinel: SentinelSettings,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: RedisUrl::default(),
            username: None,
            password: None,
            password_file: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            pool_size: 4,
            replicas: 0,
            replicas_timeout: Duration::from_secs(1),
            mode: RedisMode::Auto,
            nodes: Vec::new(),
            sentinel: SentinelSettings::default(),
        }
    }
}

impl RedisSettings {
    /// The server at `url`, with the defaults.
    pub fn new(url: RedisUrl) -> Self {
        Self::default().url(url)
    }

    /// The same settings with `nodes`, in place of those that were there.
    pub fn nodes<S: Into<String>>(mut self, nodes: impl IntoIterator<Item = S>) -> Self {
        self.nodes = nodes.into_iter().map(Into::into).collect();
        self
    }
}

setters!(RedisSettings {
    plain url: RedisUrl,
    some_into username: String,
    some_into password: Secret,
    some_into password_file: PathBuf,
    some_into tls_ca: PathBuf,
    some_into tls_cert: PathBuf,
    some_into tls_key: PathBuf,
    plain pool_size: usize,
    plain replicas: u32,
    plain replicas_timeout: Duration,
    plain mode: RedisMode,
    plain sentinel: SentinelSettings,
});

/// The password in a file, without the newline at its end.
pub(crate) fn password_in(path: &Path) -> Result<Secret, (ProblemKind, String)> {
    secret_in(path, "password")
}

/// The secret in a file, without the newline at its end; `what` it is.
pub(super) fn secret_in(path: &Path, what: &str) -> Result<Secret, (ProblemKind, String)> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot read {}: {error}", path.display());
        (ProblemKind::Unreadable, message)
    })?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        let message = format!("{} is empty; write the {what} into it", path.display());
        return Err((ProblemKind::Invalid, message));
    }
    Ok(Secret::new(secret))
}
