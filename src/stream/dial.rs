//! Making a connection to one address, and logging in there.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, RedisConnectionInfo, RedisResult};
use tokio::task::AbortHandle;

use super::access::{Access, Login};
use super::socket::{self, Lent};

/// How long making a connection may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is logged in at `address`, and what drives it.
pub(super) async fn log_in(
    access: &Access,
    address: &ConnectionAddr,
    response_timeout: Duration,
) -> RedisResult<(MultiplexedConnection, AbortHandle)> {
    log_in_as(access, address, config(response_timeout), |login| {
        login.says().clone()
    })
    .await
}

/// The same, with what is to be said to the server first.
pub(super) async fn log_in_as(
    access: &Access,
    address: &ConnectionAddr,
    config: AsyncConnectionConfig,
    says: impl Fn(&Login) -> RedisConnectionInfo,
) -> RedisResult<(MultiplexedConnection, AbortHandle)> {
    let (says, config) = (&says, &config);
    let (conn, driver) = with_login(access, |login: Arc<Login>| async move {
        let making = async {
            let socket = socket::open(address, login.tls.as_ref()).await?;
            let says = says(&login);
            let making = MultiplexedConnection::new_with_config(&says, socket, config.clone());
            let (conn, driver) = making.await?;
            Ok((conn, driver.boxed()))
        };
        in_time(Box::pin(making)).await
    })
    .await?;
    Ok((conn, tokio::spawn(driver).abort_handle()))
}

/// A connection that is logged in, what drives it, and its socket, which can be had back.
pub(super) async fn log_in_lending(
    access: &Access,
    address: &ConnectionAddr,
    response_timeout: Duration,
) -> RedisResult<(Lent, MultiplexedConnection, BoxFuture<'static, ()>)> {
    with_login(access, |login: Arc<Login>| async move {
        let making = async {
            let lent = Lent::new(socket::open(address, login.tls.as_ref()).await?);
            let config = config(response_timeout);
            let making = MultiplexedConnection::new_with_config(login.says(), lent.clone(), config);
            let (conn, driver) = making.await?;
            Ok((lent, conn, driver.boxed()))
        };
        in_time(Box::pin(making)).await
    })
    .await
}

/// What is made with what is known of logging in; with what is in the files by now, where that is not taken.
async fn with_login<T, F>(access: &Access, make: impl Fn(Arc<Login>) -> F) -> RedisResult<T>
where
    F: Future<Output = RedisResult<T>>,
{
    let mut login = access.current();
    loop {
        match make(login.clone()).await {
            Ok(made) => return Ok(made),
            Err(error) => match access.newer(&login, &error) {
                Some(newer) => login = newer,
                None => return Err(error),
            },
        }
    }
}

pub(super) fn config(response_timeout: Duration) -> AsyncConnectionConfig {
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
