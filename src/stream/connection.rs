//! Connections: how they are made, and what the server at the other end must be able to do.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, RedisResult};
use tokio::task::AbortHandle;

use super::access::{Access, Login};
use super::error::{Answer, Found, Trouble, Who, cause, hint};
use super::life::{Life, Lives, ServerIdentity};
use super::outage::Outage;
use super::reader::Reader;
use super::socket::{self, Greeting, Lent};
use super::tls;
use super::topology::Slot;
use super::wire::Wire;
use crate::config::RedisSettings;
use crate::config::redact::redacted;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;

/// How long making a connection may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The oldest servers this works on: Redis 7.0, and Valkey 7.2, which calls itself Redis 7.2.
pub(crate) const OLDEST: (u32, u32) = (7, 0);

/// How many servers are met in a row, each of them another, until that counts as being unreachable.
const SERVERS: usize = 3;

/// Makes connections to one server. Clones share what is known of it, and their connections end together.
#[derive(Clone)]
pub(crate) struct Connector {
    access: Arc<Access>,
    lives: Arc<Lives>,
    outage: Arc<Outage>,
    /// The address without its secrets, for messages.
    pub address: String,
}

/// One connection of a worker.
#[derive(Clone)]
pub(crate) struct Link {
    pub(super) conn: Wire,
    pub greeting: Greeting,
    pub(super) found: Found,
}

/// What a server says of itself.
struct Introduction {
    version: (u32, u32),
    greeting: Greeting,
    is_replica: bool,
}

impl Connector {
    pub fn new(settings: &RedisSettings) -> Result<Self> {
        let access = Access::new(settings)?;
        let address = access
            .current()
            .client
            .get_connection_info()
            .addr()
            .to_string();
        Ok(Connector {
            access: Arc::new(access),
            lives: Arc::new(Lives::at(&address)),
            outage: Arc::default(),
            address,
        })
    }

    /// The same, for what has to do with `key` and with other keys of its hash slot. Its connections lead to the slot's
    /// master, wherever that is by the time they are made, and end when the slot moves. On one server, and with Sentinel,
    /// that is the server that all keys are at.
    ///
    /// It is cheap, and asks nobody anything.
    #[allow(dead_code)]
    pub fn at(&self, _key: &str) -> Connector {
        self.clone()
    }

    /// Whether keys lie on several nodes by their hash slots. Where `redis.mode` leaves that to be found out it is false
    /// until [`learn`](Self::learn) or any connection has found it out.
    #[allow(dead_code)]
    pub fn is_cluster(&self) -> bool {
        false
    }

    /// Finds out whether it is a cluster, if that is not known yet, and answers it.
    #[allow(dead_code)]
    pub async fn learn(&self) -> Result<bool> {
        Ok(false)
    }

    /// The hash slot of a key, in a cluster.
    #[allow(dead_code)]
    pub fn slot_of(&self, key: &str) -> Option<Slot> {
        self.is_cluster().then(|| Slot::of(key))
    }

    /// One for each master, for what all of them are to be asked: SCAN and INFO. On one server it is that.
    #[allow(dead_code)]
    pub async fn masters(&self) -> Result<Vec<Connector>> {
        Ok(vec![self.clone()])
    }

    /// Whom the server knows us as.
    #[cfg(feature = "worker")]
    pub fn user(&self) -> String {
        let login = self.access.current();
        login.says().username().unwrap_or("default").to_owned()
    }

    /// Requests are counted there, on all connections there are and will be.
    pub fn counted_in(&self, metrics: &Metrics) {
        self.lives.counted_in(metrics);
    }

    /// A new connection to a primary, whose answers are waited for at most `response_timeout`.
    pub async fn connect(&self, name: &str, response_timeout: Duration) -> Result<Link> {
        self.meet(|life: Life| async move {
            let link = self.link(life, name, response_timeout).await?;
            self.needs_a_primary(link.conn.was_replica())?;
            Ok(link)
        })
        .await
    }

    /// The same to any server, for reading.
    pub async fn connect_to_any(&self, name: &str, response_timeout: Duration) -> Result<Link> {
        self.link(self.lives.current(), name, response_timeout)
            .await
    }

    async fn link(&self, life: Life, name: &str, response_timeout: Duration) -> Result<Link> {
        let explain = |error| self.explain(error, Who::Worker);
        let (mut conn, driver) = self.login(response_timeout).await.map_err(explain)?;
        life.takes_along(driver);
        let Introduction {
            greeting,
            is_replica,
            ..
        } = self.greet(&mut conn, name).await?;
        life.connected(name);
        Ok(Link {
            conn: Wire::new(conn, life, is_replica),
            greeting,
            found: Found::default(),
        })
    }

    /// A connection that is logged in, and what drives it.
    pub(super) async fn login(
        &self,
        response_timeout: Duration,
    ) -> RedisResult<(MultiplexedConnection, AbortHandle)> {
        let (conn, driver) = self
            .with_login(|login: Arc<Login>| async move {
                let address = login.client.get_connection_info().addr();
                let making = async {
                    let socket = socket::open(address, login.tls.as_ref()).await?;
                    let config = config(response_timeout);
                    let making =
                        MultiplexedConnection::new_with_config(login.says(), socket, config);
                    let (conn, driver) = making.await?;
                    Ok((conn, driver.boxed()))
                };
                in_time(making).await
            })
            .await?;
        Ok((conn, tokio::spawn(driver).abort_handle()))
    }

    /// What is made with what is known of logging in; with what is in the files by now, where that is not taken.
    async fn with_login<T, F>(&self, make: impl Fn(Arc<Login>) -> F) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut login = self.access.current();
        loop {
            match make(login.clone()).await {
                Ok(made) => return Ok(made),
                Err(error) => match self.access.newer(&login, &error) {
                    Some(newer) => login = newer,
                    None => return Err(error),
                },
            }
        }
    }

    /// Makes a connection under the present life, or under a new one where it leads to another server than before.
    async fn meet<T: Greeted, F>(&self, make: impl Fn(Life) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.outage.lets_try()?;
        for _ in 0..SERVERS {
            let life = self.lives.current();
            let made = self.outage.heard(make(life.clone()).await)?;
            if life.meets(&made.greeting().server) {
                return Ok(made);
            }
            life.end("another server is there now, or another run of it");
        }
        let message = format!("another server is at {} each time", self.address);
        Err(Error::new(ErrorKind::Unreachable, message))
    }

    pub(super) fn lives(&self) -> &Lives {
        &self.lives
    }

    /// A connection on a blocking socket, for measurements: no part of the runtime has one.
    pub fn connect_blocking(&self) -> Result<redis::Connection> {
        self.access
            .current()
            .client
            .get_connection_with_timeout(CONNECT_TIMEOUT)
            .map_err(|error| self.explain(error, Who::Operator))
    }

    /// A connection for reading new entries. An answer may take `patience` longer than the read may block.
    pub async fn reader(&self, name: &str, patience: Duration) -> Result<Reader> {
        self.meet(|life| self.make_reader(life, name, patience))
            .await
    }

    async fn make_reader(&self, life: Life, name: &str, patience: Duration) -> Result<Reader> {
        let unreachable = |error: RedisError| self.explain(error, Who::Worker);
        let (lent, mut conn, driver) = self
            .with_login(|login: Arc<Login>| async move {
                let address = login.client.get_connection_info().addr();
                let making = async {
                    let lent = Lent::new(socket::open(address, login.tls.as_ref()).await?);
                    let (login, config) = (login.says(), config(patience));
                    let making =
                        MultiplexedConnection::new_with_config(login, lent.clone(), config);
                    let (conn, driver) = making.await?;
                    Ok((lent, conn, driver.boxed()))
                };
                in_time(making).await
            })
            .await
            .map_err(unreachable)?;
        let Introduction {
            greeting,
            is_replica,
            ..
        } = tokio::select! {
            greeting = self.greet(&mut conn, name) => greeting?,
            () = driver => return Err(unreachable(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
        };
        self.needs_a_primary(is_replica)?;
        life.connected(name);
        // Everything asked so far has been answered: nothing that belongs to the client is on its way.
        let socket = lent.take_back().expect("it is taken once");
        Ok(Reader::new(socket, greeting, patience, life))
    }

    /// A worker has nothing to do at a replica: all it does changes something.
    fn needs_a_primary(&self, is_replica: bool) -> Result<()> {
        if !is_replica {
            return Ok(());
        }
        let message = format!(
            "Redis at {} is a read-only replica: redis.url must name the primary",
            self.address
        );
        Err(Error::new(ErrorKind::Refused, message))
    }

    /// Makes sure that the server is one this works on.
    async fn greet(&self, conn: &mut MultiplexedConnection, name: &str) -> Result<Introduction> {
        // One question for several sections: servers before 7.0 know no other way.
        let (info, client): (String, i64) = redis::pipe()
            .cmd("INFO")
            .cmd("CLIENT")
            .arg("ID")
            .cmd("CLIENT")
            .arg("SETNAME")
            .arg(&*client_name(name))
            .ignore()
            .query_async(conn)
            .await
            .map_err(|error| self.explain(error, Who::Worker))?;
        let introduction = Introduction::of(&info, client);
        if introduction.version < OLDEST {
            return Err(self.too_old(introduction.version));
        }
        Ok(introduction)
    }

    pub(super) fn too_old(&self, (major, minor): (u32, u32)) -> Error {
        let message = format!(
            "the server at {} is Redis {major}.{minor}; streamhand needs Redis 7.0 or Valkey 7.2, or later",
            self.address
        );
        Error::new(ErrorKind::Unsupported, message)
    }

    /// Why there is no connection.
    pub(super) fn explain(&self, error: RedisError, who: Who) -> Error {
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
                let why = tls::explain(&error, self.access.current().tls.is_some());
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
        self.conn.into_inner()
    }

    /// Whether nothing more can be had over it: what it belongs to has ended.
    pub fn is_over(&self) -> bool {
        self.conn.life().is_over()
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

/// What takes no longer than a connection may take to be made.
async fn in_time<T>(making: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    tokio::time::timeout(CONNECT_TIMEOUT, making)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// What has a greeting.
trait Greeted {
    fn greeting(&self) -> &Greeting;
}

impl Greeted for Link {
    fn greeting(&self) -> &Greeting {
        &self.greeting
    }
}

impl Greeted for Reader {
    fn greeting(&self) -> &Greeting {
        &self.greeting
    }
}

impl Introduction {
    /// What `INFO` tells.
    fn of(info: &str, client: i64) -> Self {
        let field = |name: &str| {
            let value = info
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or("").trim().to_owned()
        };
        let version = field("redis_version");
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        Introduction {
            version: (parts.next().unwrap_or(0), parts.next().unwrap_or(0)),
            greeting: Greeting {
                server: ServerIdentity {
                    run: field("run_id"),
                    replication: (field("master_replid"), field("master_replid2")),
                },
                client,
                // Valkey has its own word for it.
                is_cluster: ["redis_mode", "server_mode"]
                    .iter()
                    .any(|mode| field(mode) == "cluster"),
            },
            // One that can be written to is as good as a primary.
            is_replica: field("role") == "slave" && field("slave_read_only") != "0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_and_the_run_are_read_from_info() {
        let info = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nrun_id:abc\r\n";
        let replication =
            "role:slave\r\nslave_read_only:1\r\nmaster_replid:x\r\nmaster_replid2:y\r\n";
        let told = Introduction::of(&(info.to_owned() + replication), 7);
        let server = &told.greeting.server;
        assert_eq!((told.version, &server.run[..]), ((7, 2), "abc"));
        assert_eq!(server.replication, ("x".to_owned(), "y".to_owned()));
        assert!(told.is_replica && !told.greeting.is_cluster);
        assert!(!Introduction::of("role:slave\r\nslave_read_only:0\r\n", 1).is_replica);
        for mode in ["server_mode:cluster\r\n", "redis_mode:cluster\r\n"] {
            assert!(Introduction::of(mode, 1).greeting.is_cluster);
        }
        let silent = Introduction::of("", 1);
        assert!(silent.version == (0, 0) && !silent.greeting.server.is_known());
    }
}
