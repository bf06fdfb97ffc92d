//! Calling a script with all its keys and arguments written into one buffer, the one that is sent. An [`Invocation`] gives
//! each of them memory of its own first, and copies it, which matters if there are many.
//!
//! [`Invocation`]: super::script::ScriptInvocation

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisResult, ServerErrorKind, ToRedisArgs, Value};

use super::script::{Script, never};

/// Most arguments of one call, keys included: some services refuse more.
pub(crate) const ARGUMENTS: usize = 3_900;
/// How many of them do not belong to a single entry: the command, the script, keys and what holds for all.
const FOR_ALL: usize = 32;
/// Most entries in one script: it is not to hold up the server.
const ENTRIES: usize = 500;

/// How many entries go into one call if each takes so many arguments and keys.
pub(super) const fn at_once(each: usize) -> usize {
    let fit = (ARGUMENTS - FOR_ALL) / each;
    if fit < ENTRIES { fit } else { ENTRIES }
}

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

    /// The same, by whom it is looked at.
    pub fn command(&self) -> &Cmd {
        &self.command
    }

    pub fn script(&self) -> &'static Script {
        self.script
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_no_more_arguments_than_services_take() {
        assert_eq!(at_once(1), ENTRIES);
        for each in 1..100 {
            assert!(at_once(each) > 0 && at_once(each) * each + FOR_ALL <= ARGUMENTS);
        }
    }
}
