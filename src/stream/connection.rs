//! Connections: how they are made, and what the server at the other end must be able to do.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use deadpool_redis::{Hook, HookError};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisError,
};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::error::{Answer, Found, Trouble, Who, cause, hint};
use super::reader::Reader;
use super::reply;
use super::socket::{Greeting, Lent, Socket};
use super::tls;
use crate::config::redact::{self, redacted};
use crate::config::{self, RedisSettings};
use crate::error::{Error, ErrorKind, Result};

/// A connection from the worker's pool, for a handler's own use.
pub type PooledConnection = deadpool_redis::Connection;

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The oldest servers this works on: Redis 7.0, and Valkey 7.2, which calls itself Redis 7.2.
const OLDEST: (u32, u32) = (7, 0);

/// Makes connections to one server.
#[derive(Clone)]
pub(crate) struct Connector {
    client: Client,
    /// The address without its secrets, for messages.
    pub address: String,
    /// How sockets of ours speak TLS, where they do.
    tls: Option<TlsConnector>,
}

/// One connection of a worker.
#[derive(Clone)]
pub(crate) struct Link {
    pub(super) conn: MultiplexedConnection,
    pub greeting: Greeting,
    pub(super) found: Found,
}

/// Connections that come and go: for the publisher, for commands and for handlers.
#[derive(Clone)]
pub(crate) struct Pool {
    pool: deadpool_redis::Pool,
    connector: Connector,
}

impl Connector {
    pub fn new(settings: &RedisSettings) -> Result<Self> {
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
        if let Some(password) = &settings.password {
            login = login.set_password(password.expose());
        }
        // All that parses answers here speaks RESP2, whatever the URL asks for.
        login = login.set_protocol(ProtocolVersion::RESP2);
        if let Some(password) = login.password() {
            redact::remember(password);
        }
        info = info.set_redis_settings(login);
        let address = info.addr().to_string();
        let client = if settings.url.is_tls() {
            let files = config::tls::read(settings).map_err(|unusable| {
                let wrong = unusable
                    .iter()
                    .map(|file| format!("redis.{}: {}", file.key, file.message));
                Error::new(ErrorKind::Invalid, wrong.collect::<Vec<_>>().join("; "))
            })?;
            tls::client(info, files).map(|(client, tls)| (client, Some(tls)))
        } else {
            Client::open(info).map(|client| (client, None))
        };
        let (client, tls) = client.map_err(invalid)?;
        Ok(Connector {
            client,
            address,
            tls,
        })
    }

    /// A new connection, whose answers are waited for at most `response_timeout`.
    pub async fn connect(&self, name: &str, response_timeout: Duration) -> Result<Link> {
        let mut conn = self
            .client
            .get_multiplexed_async_connection_with_config(&config(response_timeout))
            .await
            .map_err(|error| self.explain(error, Who::Worker))?;
        let greeting = self.greet(&mut conn, name).await?;
        Ok(Link {
            conn,
            greeting,
            found: Found::default(),
        })
    }

    /// A connection on a blocking socket, for measurements: no part of the runtime has one.
    pub fn connect_blocking(&self) -> Result<redis::Connection> {
        self.client
            .get_connection_with_timeout(CONNECT_TIMEOUT)
            .map_err(|error| self.explain(error, Who::Operator))
    }

    /// A connection for reading new entries. An answer may take `patience` longer than the read may block.
    pub async fn reader(&self, name: &str, patience: Duration) -> Result<Reader> {
        let unreachable = |error: RedisError| self.explain(error, Who::Worker);
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.socket());
        let socket = match connecting.await {
            Ok(socket) => socket.map_err(|error| unreachable(error.into()))?,
            Err(_) => return Err(unreachable(io::Error::from(io::ErrorKind::TimedOut).into())),
        };
        let lent = Lent::new(socket);
        let login = self.client.get_connection_info().redis_settings();
        let making = MultiplexedConnection::new_with_config(login, lent.clone(), config(patience));
        let (mut conn, driver) = tokio::time::timeout(CONNECT_TIMEOUT, making)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            .map_err(unreachable)?;
        let greeting = tokio::select! {
            greeting = self.greet(&mut conn, name) => greeting?,
            () = driver => return Err(unreachable(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
        };
        // Everything asked so far has been answered: nothing that belongs to the client is on its way.
        let socket = lent.take_back().expect("it is taken once");
        Ok(Reader::new(socket, greeting, patience))
    }

    async fn socket(&self) -> io::Result<Box<dyn Socket>> {
        let tcp = async |host: &str, port: u16| {
            let socket = TcpStream::connect((host, port)).await?;
            socket.set_nodelay(true)?;
            Ok::<_, io::Error>(socket)
        };
        match (self.client.get_connection_info().addr(), &self.tls) {
            (ConnectionAddr::Tcp(host, port), _) => Ok(Box::new(tcp(host, *port).await?)),
            (ConnectionAddr::TcpTls { host, port, .. }, Some(tls)) => {
                let socket = tcp(host, *port).await?;
                Ok(Box::new(tls::over(tls, host, socket).await?))
            }
            (ConnectionAddr::Unix(path), _) => Ok(Box::new(UnixStream::connect(path).await?)),
            (other, _) => Err(io::Error::other(format!("{other} can't be read from"))),
        }
    }

    /// Makes sure that the server is one this works on.
    async fn greet(&self, conn: &mut MultiplexedConnection, name: &str) -> Result<Greeting> {
        let (info, client): (String, i64) = redis::pipe()
            .cmd("INFO")
            .arg("server")
            .cmd("CLIENT")
            .arg("ID")
            .cmd("CLIENT")
            .arg("SETNAME")
            .arg(&*client_name(name))
            .ignore()
            .query_async(conn)
            .await
            .map_err(|error| self.explain(error, Who::Worker))?;
        let (version, server, is_cluster) = server_of(&info);
        if version < OLDEST {
            return Err(self.too_old(&format!("{}.{}", version.0, version.1)));
        }
        Ok(Greeting {
            server,
            client,
            is_cluster,
        })
    }

    fn too_old(&self, version: &str) -> Error {
        let message = format!(
            "the server at {} is Redis {version}; streamhand needs Redis 7.0 or Valkey 7.2, or later",
            self.address
        );
        Error::new(ErrorKind::Unsupported, message)
    }

    /// A pool of at most `size` connections.
    pub fn pool(&self, size: usize) -> Result<Pool> {
        let info = self.client.get_connection_info().clone();
        let config = config(Duration::from_secs(10));
        let manager = deadpool_redis::Manager::new_with_config(info, config).map_err(|error| {
            Error::new(ErrorKind::Invalid, error.to_string()).with_source(error)
        })?;
        let pool = deadpool_redis::Pool::builder(manager)
            .max_size(size)
            .wait_timeout(Some(Duration::from_secs(10)))
            .post_create(Hook::async_fn(|conn, _| Box::pin(is_let_in(conn))))
            // The client's own timeout comes first: it says more.
            .create_timeout(Some(2 * CONNECT_TIMEOUT))
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Internal, error.to_string()).with_source(error)
            })?;
        Ok(Pool {
            pool,
            connector: self.clone(),
        })
    }

    /// Why there is no connection.
    fn explain(&self, error: RedisError, who: Who) -> Error {
        let address = &self.address;
        let (kind, message) = match Answer::of(&error) {
            Some(answer) => {
                let hint = hint(&answer.code, who);
                let message = format!("Redis at {address} refuses us: {}{hint}", answer.text);
                (ErrorKind::Refused, message)
            }
            // The client keeps to itself what the server said.
            None if error.kind() == redis::ErrorKind::AuthenticationFailed => {
                let what = "it does not accept the user or the password";
                let hint = hint("WRONGPASS", who);
                let message = format!("Redis at {address} refuses us: {what}{hint}");
                (ErrorKind::Refused, message)
            }
            None => {
                let why = tls::explain(&error, self.tls.is_some());
                let why = redacted(&why);
                let message = format!("can't reach Redis at {address}: {why}");
                (ErrorKind::Unreachable, message)
            }
        };
        Error::new(kind, message).with_source(cause(error))
    }
}

impl Link {
    /// The client's connection, for what is none of this module's steps.
    pub fn into_inner(self) -> MultiplexedConnection {
        self.conn
    }

    /// Wakes a blocked read of the connection `client`. Answers whether it was blocked.
    pub async fn unblock(&mut self, client: i64) -> Result<bool, Trouble> {
        let mut cmd = redis::cmd("CLIENT");
        cmd.arg("UNBLOCK").arg(client);
        cmd.query_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of("waking the reader", error))
    }
}

impl Pool {
    /// Makes connections to the same server.
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The server's address without its secrets, for messages.
    pub fn address(&self) -> &str {
        &self.connector.address
    }

    pub async fn get(&self) -> Result<PooledConnection> {
        use deadpool_redis::{PoolError, TimeoutType};
        self.pool.get().await.map_err(|error| {
            let address = &self.connector.address;
            let message = match error {
                PoolError::Backend(error)
                | PoolError::PostCreateHook(HookError::Backend(error)) => {
                    return self.connector.explain(error, Who::Publisher);
                }
                PoolError::PostCreateHook(HookError::Message(version)) => {
                    return self.connector.too_old(&version);
                }
                PoolError::Timeout(TimeoutType::Wait) => format!(
                    "all connections to Redis at {address} are in use: raise redis.pool_size"
                ),
                PoolError::Timeout(_) => format!(
                    "can't reach Redis at {address}: no connection within {} s",
                    2 * CONNECT_TIMEOUT.as_secs()
                ),
                _ => {
                    let why = error.to_string();
                    format!("no connection to Redis at {address}: {}", redacted(&why))
                }
            };
            Error::new(ErrorKind::Unreachable, message)
        })
    }
}

/// Whether a server that asks for a password has been told it. One that has not is deaf to all but short commands, and
/// closes the connection on a longer one, which says nothing of a password.
async fn is_let_in(conn: &mut MultiplexedConnection) -> Result<(), HookError> {
    match redis::cmd("PING").query_async::<()>(conn).await {
        Err(error) if Answer::of(&error).is_none_or(|answer| answer.code == "NOAUTH") => {
            Err(HookError::Backend(error))
        }
        // Who may not PING may do other things.
        _ => is_new_enough(conn).await,
    }
}

/// Whether the server is one this works on, as far as it says so: by HELLO, which every user may say who may log in.
async fn is_new_enough(conn: &mut MultiplexedConnection) -> Result<(), HookError> {
    let hello: redis::RedisResult<redis::Value> = redis::cmd("HELLO").query_async(conn).await;
    let mut items = hello.ok().and_then(reply::array).into_iter().flatten();
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        if reply::bytes(name).as_deref() != Some(b"version") {
            continue;
        }
        let version = reply::text(value).unwrap_or_default();
        let parts: Vec<u32> = version
            .split('.')
            .map_while(|part| part.parse().ok())
            .collect();
        if let [major, minor, ..] = parts[..]
            && (major, minor) < OLDEST
        {
            return Err(HookError::message(format!("{major}.{minor}")));
        }
    }
    Ok(())
}

/// The name of a connection as servers take it, who want printable ASCII without spaces: of a group called `lager-süd`
/// it is `lager-s%C3%BCd`.
fn client_name(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Cow::Borrowed(name);
    }
    let bytes = name.bytes().map(|byte| match byte {
        byte if byte.is_ascii_graphic() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    Cow::Owned(bytes.collect())
}

fn config(response_timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response_timeout))
}

/// Version, run id, and whether it is a cluster's, out of `INFO server`.
fn server_of(info: &str) -> ((u32, u32), String, bool) {
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or("")
    };
    let mut parts = field("redis_version")
        .split('.')
        .map(|part| part.parse().unwrap_or(0));
    (
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)),
        field("run_id").trim().to_owned(),
        // Valkey has its own word for it.
        [field("redis_mode"), field("server_mode")]
            .iter()
            .any(|mode| mode.trim() == "cluster"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_and_the_run_are_read_from_info() {
        let info = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nrun_id:abc\r\n";
        assert_eq!(server_of(info), ((7, 2), "abc".to_owned(), false));
        assert!(server_of("server_mode:cluster\r\n").2 && server_of("redis_mode:cluster\r\n").2);
        assert_eq!(server_of("").0, (0, 0));
    }
}
