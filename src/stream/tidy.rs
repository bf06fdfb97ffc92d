//! What mends that other hands than ours have broken.

use std::time::Duration;

use redis::Value;

use super::connection::Link;
use super::error::Trouble;
use super::keys::Keys;
use super::obstacle::need;
use super::reply;
use super::script::script;

script!(MEND, "mend", behind "common/ids");
script!(CLOCK_SET, "clock_set", behind "common/ids", behind "common/clock");
script!(SWEEP, "sweep");
script!(UNLIST, "unlist");

impl Link {
    /// Whether it is this worker's turn to look thoroughly, in the name of the group; then nobody else's is for `rest`.
    pub async fn takes_turn(
        &mut self,
        keys: &Keys,
        consumer: &str,
        rest: Duration,
    ) -> Result<bool, Trouble> {
        let mut call = redis::cmd("SET");
        call.arg(&keys.tidied)
            .arg(consumer)
            .arg("NX")
            .arg("PX")
            .arg(rest.as_millis() as u64);
        let answer = call.query_async(&mut self.conn).await;
        let needs = || vec![need(&keys.tidied, "string", "SET")];
        let doing = || "taking turns in tidying".to_owned();
        let answer: Value = self.answered(doing, answer, needs).await?;
        Ok(answer != Value::Nil)
    }

    /// How far the thorough looks have come: what [`mend`](Self::mend) and [`sweep`](Self::sweep) go on at.
    pub async fn tidied_to(&mut self, keys: &Keys) -> Result<Option<(String, String)>, Trouble> {
        let doing = || "going on with tidying".to_owned();
        let answer = redis::cmd("GET")
            .arg(&keys.tidied_to)
            .query_async(&mut self.conn)
            .await;
        let needs = || vec![need(&keys.tidied_to, "string", "GET")];
        let at: Option<String> = self.answered(doing, answer, needs).await?;
        Ok(at.and_then(|at| {
            let (mend, sweep) = at.split_once(' ')?;
            Some((mend.to_owned(), sweep.to_owned()))
        }))
    }

    /// The next thorough look goes on there, if there is one within that time.
    pub async fn note_tidied(
        &mut self,
        keys: &Keys,
        (mend, sweep): (&str, &str),
        lasts: Duration,
    ) -> Result<(), Trouble> {
        let doing = || "going on with tidying".to_owned();
        let mut call = redis::cmd("SET");
        call.arg(&keys.tidied_to)
            .arg(format!("{mend} {sweep}"))
            .arg("PX")
            .arg(lasts.as_millis() as u64);
        let answer = call.query_async(&mut self.conn).await;
        let needs = || vec![need(&keys.tidied_to, "string", "SET")];
        let _: Value = self.answered(doing, answer, needs).await?;
        Ok(())
    }

    /// The server's clock was set, so many ms ahead, or back, within `since`: has what is parked wait as long as it was to,
    /// and what lies in the future now count from now on, a chunk at a time. Returns whether there is more.
    pub async fn clock_set(
        &mut self,
        keys: &Keys,
        group: &str,
        by: i64,
        since: Duration,
    ) -> Result<bool, Trouble> {
        let doing = || "following the server's clock, which was set".to_owned();
        let answer = CLOCK_SET
            .key(&keys.stream)
            .key(&keys.retry)
            .key(&keys.clock)
            .arg(group)
            .arg(by)
            .arg(since.as_millis() as u64)
            .arg(1000)
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(
                    &keys.stream,
                    "stream",
                    "XPENDING XCLAIM XRANGE XINFO|CONSUMERS",
                ),
                need(&keys.retry, "zset", "ZCARD ZSCORE ZADD"),
                need(&keys.clock, "string", "GET SET"),
            ]
        };
        let value: Value = self.answered(doing, answer, needs).await?;
        Ok(reply::int(&value) == Some(1))
    }

    /// Gives parked entries that no due time names one, a chunk at a time. Returns where to go on, and how many.
    /// Only a `thorough` look goes through all if nothing seems to be missing.
    pub async fn mend(
        &mut self,
        keys: &Keys,
        group: &str,
        from: &str,
        thorough: bool,
    ) -> Result<(Option<String>, u64), Trouble> {
        let doing = "mending due times";
        let answer = MEND
            .key(&keys.stream)
            .key(&keys.retry)
            .arg(group)
            .arg(from)
            .arg(1000)
            .arg(u8::from(thorough))
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING"),
                need(&keys.retry, "zset", "ZCARD ZADD"),
            ]
        };
        let value: Value = self.answered(|| doing.to_owned(), answer, needs).await?;
        reply::tuple(value)
            .and_then(|[next, mended]| Some((reply::text(next), reply::int(&mended)? as u64)))
            .ok_or_else(|| Trouble::garbled(doing))
    }

    /// Removes failure records that belong to nothing, a chunk at a time. Returns the next cursor, "0" at the end.
    /// Only a `thorough` look goes through all if there seem to be none too many.
    pub async fn sweep(
        &mut self,
        keys: &Keys,
        group: &str,
        cursor: &str,
        thorough: bool,
    ) -> Result<String, Trouble> {
        let doing = "sweeping failure records";
        let answer = SWEEP
            .key(&keys.stream)
            .key(&keys.retry)
            .key(&keys.failures)
            .arg(group)
            .arg(cursor)
            .arg(200)
            .arg(u8::from(thorough))
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING"),
                need(&keys.retry, "zset", "ZMSCORE"),
                need(&keys.failures, "hash", "HLEN HSCAN HDEL"),
            ]
        };
        let value: Value = self.answered(|| doing.to_owned(), answer, needs).await?;
        reply::tuple(value)
            .and_then(|[next, _]| reply::text(next))
            .ok_or_else(|| Trouble::garbled(doing))
    }

    /// Forgets what is said to wait for a worker that knows it and does not, a chunk at a time. Returns the next cursor,
    /// "0" at the end.
    pub async fn unlist(&mut self, keys: &Keys, cursor: &str) -> Result<String, Trouble> {
        let doing = "sweeping what waits for a worker that can handle it";
        let answer = UNLIST
            .key(&keys.failures)
            .key(&keys.waiting)
            .arg(cursor)
            .arg(200)
            .invoke_async(&mut self.conn)
            .await;
        let needs = || {
            vec![
                need(&keys.failures, "hash", "HGET"),
                need(&keys.waiting, "zset", "ZSCAN ZREM"),
            ]
        };
        let value: Value = self.answered(|| doing.to_owned(), answer, needs).await?;
        reply::text(value).ok_or_else(|| Trouble::garbled(doing))
    }
}
