//! Scripts, which are compiled in, and known by their names. Every call of one that may write declares one key more, which
//! never exists.
//!
//! While a slot of a cluster moves key by key, a key may leave in the middle of a script: the script ends there with an
//! error, and what it wrote before stays. A server refuses a call with TRYAGAIN, and does nothing of it, if some of its
//! keys are there and some are not. One that never exists makes sure of that, at the slot's old place and at its new one.
//! What only reads leaves nothing half done, so it goes without.

use std::collections::HashMap;
use std::sync::RwLock;

use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue, RedisResult, ServerErrorKind, ToRedisArgs};

use super::read_only::ReadOnly;
use crate::sync::{read, write};

/// A script by its file's name.
macro_rules! script {
    ($name:ident, $file:literal $(, behind $common:literal)*) => {
        static $name: std::sync::LazyLock<$crate::stream::script::Script> = std::sync::LazyLock::new(|| {
            $crate::stream::script::Script::new($file, concat!(
                $(include_str!(concat!("scripts/", $common, ".lua")),)*
                include_str!(concat!("scripts/", $file, ".lua")),
            ))
        });
    };
}
pub(super) use script;

/// A script that can be called.
#[derive(Debug)]
pub(super) struct Script {
    script: redis::Script,
    /// The same in a test's time.
    #[cfg(feature = "testing")]
    in_test_time: Option<redis::Script>,
}

/// A call of a script that is being put together.
pub(super) struct ScriptInvocation<'a> {
    script: &'a Script,
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
}

impl Script {
    /// The script with this text; its requests are to be told from others' by this name.
    pub fn new(name: &'static str, text: &str) -> Self {
        let script = redis::Script::new(text);
        let mut names = write(&NAMES);
        let names = names.get_or_insert_default();
        names.insert(script.get_hash().to_owned(), name);
        #[cfg(feature = "testing")]
        let in_test_time = super::test_time::script(text).map(|text| redis::Script::new(&text));
        #[cfg(feature = "testing")]
        if let Some(script) = &in_test_time {
            names.insert(script.get_hash().to_owned(), name);
        }
        Script {
            script,
            #[cfg(feature = "testing")]
            in_test_time,
        }
    }

    pub fn get_hash(&self) -> &str {
        self.text().get_hash()
    }

    /// What is loaded.
    pub fn text(&self) -> &redis::Script {
        #[cfg(feature = "testing")]
        if let Some(script) = &self.in_test_time
            && super::test_time::is_here()
        {
            return script;
        }
        &self.script
    }

    /// Makes it known to a server.
    pub async fn load_async(&self, conn: &mut impl ConnectionLike) -> RedisResult<()> {
        self.text().load_async(conn).await.map(drop)
    }

    pub fn key(&self, key: impl ToRedisArgs) -> ScriptInvocation<'_> {
        let mut call = self.prepare_invoke();
        call.key(key);
        call
    }

    /// A call without a key or an argument yet.
    pub fn prepare_invoke(&self) -> ScriptInvocation<'_> {
        ScriptInvocation {
            script: self,
            keys: Vec::new(),
            args: Vec::new(),
        }
    }
}

impl ScriptInvocation<'_> {
    /// Adds a key.
    pub fn key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        key.write_redis_args(&mut self.keys);
        self
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        arg.write_redis_args(&mut self.args);
        self
    }

    /// Has the arguments travel as one, for a script behind `common/packed`.
    pub fn pack(&mut self) -> &mut Self {
        let bytes = self.args.iter().map(|arg| 5 + arg.len()).sum::<usize>();
        let mut packed = Vec::with_capacity(5 + bytes);
        let count = self.args.len() as u32;
        // To a vector it can be written.
        let _ = rmp::encode::write_array_len(&mut packed, count);
        for arg in &self.args {
            let _ = rmp::encode::write_str_len(&mut packed, arg.len() as u32);
            packed.extend_from_slice(arg);
        }
        self.args = vec![packed];
        self
    }

    /// What the script answers; it is loaded if the server has not seen it yet.
    pub async fn invoke_async<T: FromRedisValue>(
        &self,
        conn: &mut impl ConnectionLike,
    ) -> RedisResult<T> {
        let never = never(self.keys.iter().map(Vec::as_slice));
        self.ask(conn, never.as_deref()).await
    }

    /// The same of a script that only reads: the server refuses every write of it.
    pub async fn read_async<T: FromRedisValue>(
        &self,
        conn: &mut (impl ConnectionLike + Send),
    ) -> RedisResult<T> {
        self.ask(&mut ReadOnly(conn), None).await
    }

    async fn ask<T: FromRedisValue>(
        &self,
        conn: &mut impl ConnectionLike,
        never: Option<&[u8]>,
    ) -> RedisResult<T> {
        let command = self.command(never);
        match command.query_async(conn).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                self.script.load_async(conn).await?;
                command.query_async(conn).await
            }
            answer => answer,
        }
    }

    fn command(&self, never: Option<&[u8]>) -> Cmd {
        let keys = self.keys.len() + usize::from(never.is_some());
        let all = self.keys.iter().chain(&self.args);
        let bytes = all.fold(64 + never.map_or(0, <[u8]>::len), |all, one| {
            all + one.len()
        });
        let mut command = Cmd::with_capacity(3 + keys + self.args.len(), bytes);
        command.arg("EVALSHA").arg(self.script.get_hash()).arg(keys);
        command.arg(&self.keys[..]);
        if let Some(never) = never {
            command.arg(never);
        }
        command.arg(&self.args[..]);
        command
    }
}

/// A key in the slot of these keys that never exists, named so that the rules for theirs allow it as well: after the first
/// that has a tag; else after the first, as the keys of a stream are, or behind it if it is one of ours. None without keys,
/// and of one whose braces would be taken for a tag.
pub(super) fn never<'a>(keys: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Vec<u8>> {
    if let Some(tagged) = keys.clone().find(|key| has_tag(key)) {
        return Some([tagged, b":never"].concat());
    }
    let first = keys.into_iter().next()?;
    if first.iter().any(|byte| matches!(byte, b'{' | b'}')) {
        return None;
    }
    let of_ours: [&[u8]; 2] = if first.starts_with(b"streamhand:") {
        [first, b":"]
    } else {
        [b"", b""]
    };
    Some([of_ours[0], of_ours[1], b"{", first, b"}:never"].concat())
}

/// Whether a cluster goes by a part of the key.
fn has_tag(key: &[u8]) -> bool {
    let mut parts = key.splitn(2, |byte| *byte == b'{');
    let behind = parts.nth(1).unwrap_or_default();
    behind.iter().position(|byte| *byte == b'}') > Some(0)
}

/// The names of those that have been called, by their hashes.
static NAMES: RwLock<Option<HashMap<String, &'static str>>> = RwLock::new(None);

/// The name of a script that has been called by its hash.
pub(super) fn named(hash: &[u8]) -> Option<&'static str> {
    let hash = std::str::from_utf8(hash).ok()?;
    read(&NAMES).as_ref()?.get(hash).copied()
}

#[cfg(test)]
mod tests;
