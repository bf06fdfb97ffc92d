//! Where a server is, and what to log in with. Passwords and certificates in files are replaced while programs run: where
//! the server does not take what was in them, they are read anew.

use std::sync::{Arc, Mutex};

use redis::{
    Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError,
};
use tokio_rustls::TlsConnector;

use super::error::elsewhere;
use super::tls;
use crate::config::tls::Certificates;
use crate::config::{self, NodeAddress, RedisSettings, Secret, redact};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// How to reach one server.
pub(super) struct Access {
    settings: RedisSettings,
    /// The section of the settings.
    section: &'static str,
    current: Mutex<Arc<Login>>,
}

/// What a connection is made with.
pub(super) struct Login {
    pub client: Client,
    /// How sockets of ours speak TLS, where they do.
    pub tls: Option<TlsConnector>,
    /// What it was made of.
    password: Option<Secret>,
    certificates: Certificates,
}

impl Access {
    /// By the settings of `section`.
    pub fn new(settings: &RedisSettings, section: &'static str) -> Result<Self> {
        let certificates = match settings.url.is_tls() {
            true => certificates(settings, section)?,
            false => Certificates::default(),
        };
        let login = Login::new(settings, settings.password.clone(), certificates)?;
        Ok(Access {
            settings: settings.clone(),
            section,
            current: Mutex::new(Arc::new(login)),
        })
    }

    pub fn current(&self) -> Arc<Login> {
        lock(&self.current).clone()
    }

    /// What `redis.url` names.
    pub fn address(&self) -> ConnectionAddr {
        self.current().client.get_connection_info().addr().clone()
    }

    /// How a node is reached: with TLS where `redis.url` asks for it.
    pub fn address_of(&self, node: &NodeAddress) -> ConnectionAddr {
        let (host, port) = (node.host.clone(), node.port);
        match self.settings.url.is_tls() {
            true => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
            false => ConnectionAddr::Tcp(host, port),
        }
    }

    /// What to log in with in place of what was tried, where that may be why there was no connection and it has been
    /// replaced meanwhile.
    pub fn newer(&self, tried: &Arc<Login>, error: &RedisError) -> Option<Arc<Login>> {
        let is_login = error.kind() == redis::ErrorKind::AuthenticationFailed
            || elsewhere(error).is_some_and(|answer| answer.is_about_the_login());
        if !is_login && tried.tls.is_none() {
            return None;
        }
        let mut current = lock(&self.current);
        if !Arc::ptr_eq(&current, tried) {
            return Some(current.clone());
        }
        // What can't be read now may be on its way, and the old is as good as any.
        let password = match &self.settings.password_file {
            Some(file) => config::password_in(file).ok(),
            None => None,
        };
        let password = password.or_else(|| tried.password.clone());
        let certificates = match tried.tls {
            Some(_) => certificates(&self.settings, self.section).ok()?,
            None => Certificates::default(),
        };
        if password == tried.password && certificates == tried.certificates {
            return None;
        }
        let login = Login::new(&self.settings, password, certificates).ok()?;
        tracing::info!("what to log in to Redis with has been replaced, and is read anew");
        *current = Arc::new(login);
        Some(current.clone())
    }
}

impl Login {
    fn new(
        settings: &RedisSettings,
        password: Option<Secret>,
        certificates: Certificates,
    ) -> Result<Self> {
        let invalid = |error: RedisError| {
            Error::new(ErrorKind::Invalid, format!("redis.url: {error}")).with_source(error)
        };
        let mut info = settings
            .url
            .expose()
            .into_connection_info()
            .map_err(invalid)?;
        let mut login = info.redis_settings().clone();
        if let Some(username) = &settings.username {
            login = login.set_username(username);
        }
        if let Some(password) = &password {
            login = login.set_password(password.expose());
        }
        // All that parses answers here speaks RESP2, whatever the URL asks for.
        login = login.set_protocol(ProtocolVersion::RESP2);
        if let Some(password) = login.password() {
            redact::remember(password);
        }
        info = info.set_redis_settings(login);
        let client = if settings.url.is_tls() {
            tls::client(info, certificates.clone()).map(|(client, tls)| (client, Some(tls)))
        } else {
            Client::open(info).map(|client| (client, None))
        };
        let (client, tls) = client.map_err(invalid)?;
        Ok(Login {
            client,
            tls,
            password,
            certificates,
        })
    }

    /// What is said to the server first.
    pub fn says(&self) -> &RedisConnectionInfo {
        self.client.get_connection_info().redis_settings()
    }
}

fn certificates(settings: &RedisSettings, section: &str) -> Result<Certificates> {
    config::tls::read(settings).map_err(|unusable| {
        let wrong = unusable
            .iter()
            .map(|file| format!("{section}.{}: {}", file.key, file.message));
        Error::new(ErrorKind::Invalid, wrong.collect::<Vec<_>>().join("; "))
    })
}
