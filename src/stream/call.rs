//! Calling a script with all its keys and arguments written into one buffer, the one that is sent. The client crate's
//! own way gives each of them memory of its own first, and copies it, which matters if there are many.

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisResult, Script, ServerErrorKind, ToRedisArgs, Value};

/// A call of a script.
pub(super) struct Call {
    script: &'static Script,
    command: Cmd,
}

impl Call {
    /// A call with so many keys, which are its first arguments, and room for so many arguments of so many bytes in all.
    pub fn of(script: &'static Script, keys: usize, room: (usize, usize)) -> Self {
        let mut command = Cmd::with_capacity(3 + room.0, 64 + room.1);
        command.arg("EVALSHA").arg(script.get_hash()).arg(keys);
        Call { script, command }
    }

    /// Adds a key or an argument.
    pub fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// The request, if the script is known to be loaded.
    pub fn into_command(self) -> Cmd {
        self.command
    }

    /// What the script answers; it is loaded where the server has not seen it yet.
    pub async fn invoke(&self, conn: &mut impl ConnectionLike) -> RedisResult<Value> {
        match self.command.query_async(conn).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                self.script.load_async(conn).await?;
                self.command.query_async(conn).await
            }
            answer => answer,
        }
    }
}
