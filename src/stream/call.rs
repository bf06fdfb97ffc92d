//! Calling a script with all its keys and arguments written into one buffer, the one that is sent. An [`Invocation`] gives
//! each of them memory of its own first, and copies it, which matters if there are many.
//!
//! [`Invocation`]: super::script::ScriptInvocation

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisResult, ServerErrorKind, ToRedisArgs, Value};

use super::script::{Script, never};

/// A call of a script.
pub(super) struct Call {
    script: &'static Script,
    command: Cmd,
}

impl Call {
    /// A call with these keys, and room for so many arguments of so many bytes in all.
    pub fn of<'a>(
        script: &'static Script,
        keys: impl Iterator<Item = &'a str> + Clone,
        room: (usize, usize),
    ) -> Self {
        let never = never(keys.clone().map(str::as_bytes));
        let lengths = keys
            .clone()
            .map(str::len)
            .chain(never.as_ref().map(Vec::len));
        let (count, bytes) = lengths.fold((0, 0), |all, one| (all.0 + 1, all.1 + one));
        let bytes = 64 + room.1 + bytes;
        let mut command = Cmd::with_capacity(3 + count + room.0, bytes);
        command.arg("EVALSHA").arg(script.get_hash()).arg(count);
        keys.for_each(|key| {
            command.arg(key);
        });
        command.arg(never);
        Call { script, command }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// The request, if the script is known to be loaded.
    pub fn into_command(self) -> Cmd {
        self.command
    }

    /// What the script answers; it is loaded if the server has not seen it yet.
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
