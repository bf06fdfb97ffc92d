//! What a group knows of circuit breakers that are not closed: it outlives its workers, and all of them can share it.

use std::time::Duration;

use redis::Value;

use super::connection::Link;
use super::error::Trouble;
use super::keys::Keys;
use super::reply;
use super::script::script;
use crate::delay;

script!(BREAKER, "breaker");

/// What a breaker is for a worker that would send the group's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probing {
    /// It sends them; others wait for it so long.
    Granted(Duration),
    /// Another one does; it is asked again after that.
    Taken(Duration),
    /// It is open for so long.
    Open(Duration),
    Closed,
}

impl Link {
    /// The breakers of the group that are not closed, and for how long they are open; zero if they wait for probes.
    pub async fn open_breakers(
        &mut self,
        keys: &Keys,
    ) -> std::result::Result<Vec<(String, Duration)>, Trouble> {
        let doing = || format!("looking for open circuit breakers in {}", keys.breakers);
        let value: Value = BREAKER
            .key(&keys.breakers)
            .arg("look")
            .invoke_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(&doing(), error))?;
        let all = reply::array(value).ok_or_else(|| Trouble::garbled(&doing()))?;
        let one = |pair: &[Value]| {
            let name = reply::text(pair[0].clone())?;
            Some((name, Duration::from_millis(reply::int(&pair[1])? as u64)))
        };
        let open: Option<_> = all.chunks_exact(2).map(one).collect();
        open.ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// It has opened, for so long.
    pub async fn open_breaker(
        &mut self,
        keys: &Keys,
        breaker: &str,
        lasts: Duration,
    ) -> std::result::Result<(), Trouble> {
        self.breaker(keys, &["open", breaker], Some(lasts))
            .await
            .map(|_| ())
    }

    /// Its probes have succeeded.
    pub async fn close_breaker(
        &mut self,
        keys: &Keys,
        breaker: &str,
    ) -> std::result::Result<(), Trouble> {
        self.breaker(keys, &["close", breaker], None)
            .await
            .map(|_| ())
    }

    /// Asks for the right to send the group's probes, which others leave to this worker for so long.
    pub async fn probe_breaker(
        &mut self,
        keys: &Keys,
        breaker: &str,
        me: &str,
        lasts: Duration,
    ) -> std::result::Result<Probing, Trouble> {
        self.breaker(keys, &["probe", breaker, me], Some(lasts))
            .await
    }

    async fn breaker(
        &mut self,
        keys: &Keys,
        args: &[&str],
        lasts: Option<Duration>,
    ) -> std::result::Result<Probing, Trouble> {
        let doing = || format!("telling of a circuit breaker in {}", keys.breakers);
        let mut call = BREAKER.key(&keys.breakers);
        for arg in args {
            call.arg(*arg);
        }
        if let Some(lasts) = lasts {
            call.arg(delay::millis(lasts));
        }
        let value: Value = call
            .invoke_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(&doing(), error))?;
        let parse = |value| {
            let [what, ms] = reply::tuple(value)?;
            let ms = Duration::from_millis(reply::int(&ms)? as u64);
            Some(match &reply::bytes(what)?[..] {
                b"granted" => Probing::Granted(ms),
                b"taken" => Probing::Taken(ms),
                b"open" => Probing::Open(ms),
                b"closed" => Probing::Closed,
                _ => return None,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }
}
