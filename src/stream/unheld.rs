//! Entries that don't come through: which one is next, how large it is, and how much the server lets through.

use redis::Value;

use super::connection::Link;
use super::error::Trouble;
use super::keys::Keys;
use super::obstacle::need;
use super::reply;
use super::script::script;
use crate::event::EntryId;

script!(UNHELD, "unheld", behind "common/ids");

/// An entry that is pending with a consumer that does not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unheld {
    pub id: EntryId,
    /// How often it has been delivered.
    pub count: u32,
    /// About how many bytes an answer with it has; none if it is no longer in the stream.
    pub bytes: u64,
}

impl Link {
    /// The first entry that is pending with `consumer` and not among `held`: the one that adopting would bring first.
    pub async fn first_unheld(
        &mut self,
        keys: &Keys,
        group: &str,
        consumer: &str,
        held: &[EntryId],
    ) -> Result<Option<Unheld>, Trouble> {
        let doing = "looking for an entry that does not come through";
        let mut call = UNHELD.key(&keys.stream);
        call.arg(group).arg(consumer);
        for id in held {
            call.arg(id.to_string());
        }
        let answer = call.read_async(&mut self.conn).await;
        let needs = || vec![need(&keys.stream, "stream", "XPENDING XRANGE")];
        let value: Value = self.answered(|| doing.to_owned(), answer, needs).await?;
        if value == Value::Nil {
            return Ok(None);
        }
        let parse = |value| {
            let [id, count, bytes] = reply::tuple(value)?;
            Some(Unheld {
                id: reply::id(&id)?,
                count: reply::int(&count)? as u32,
                bytes: reply::int(&bytes)? as u64,
            })
        };
        parse(value)
            .map(Some)
            .ok_or_else(|| Trouble::garbled(doing))
    }

    /// How many bytes of answers the server keeps for a client before it cuts the connection; `u64::MAX` if it sets no
    /// limit. None if it does not tell this user.
    pub async fn output_limit(&mut self) -> Option<u64> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("client-output-buffer-limit");
        let answer: Value = command.query_async(&mut self.conn).await.ok()?;
        let [_, limits] = reply::tuple(answer)?;
        limit_of_clients(&reply::text(limits)?)
    }
}

/// Of `normal <hard> <soft> <seconds> slave …`.
fn limit_of_clients(limits: &str) -> Option<u64> {
    let mut words = limits
        .split(' ')
        .skip_while(|word| *word != "normal")
        .skip(1);
    let (hard, soft): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let seconds: u64 = words.next()?.parse().ok()?;
    // A soft limit is no more than that where it may be passed for a while.
    let soft = if seconds == 0 { soft } else { 0 };
    let limits = [hard, soft].into_iter().filter(|limit| *limit > 0);
    Some(limits.min().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_clients_is_the_least_that_is_set() {
        let rest = "slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        for (limits, is) in [
            ("normal 0 0 0", u64::MAX),
            ("normal 4194304 0 0", 4 << 20),
            ("normal 4194304 1048576 0", 1 << 20),
            ("normal 4194304 1048576 60", 4 << 20),
        ] {
            assert_eq!(limit_of_clients(&format!("{limits} {rest}")), Some(is));
        }
        assert_eq!(limit_of_clients(rest), None);
    }
}
