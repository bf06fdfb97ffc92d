//! Who reads a stream, of all its groups: scheduled events come to it by its workers alone.

use std::time::Duration;

use redis::Value;

use super::PARKED;
use super::connection::Link;
use super::error::{Trouble, Who, refusal};
use super::group::ConsumerInfo;
use super::keys::{Keys, StreamKeys};
use super::pool::Pool;
use super::reply;
use crate::error::Result;

/// How long it is remembered when the last worker of a group left.
const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Whether workers read a stream, whatever their group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// None ever has.
    Never,
    /// There is one.
    Now,
    /// There was one, so long ago.
    Ago(Duration),
    /// There was one, and nobody knows when.
    Once,
}

/// Who adds a stream's scheduled events to it, and how late the first of them is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Adding {
    pub readers: Readers,
    pub overdue: Duration,
}

impl Pool {
    /// Who adds scheduled events to a stream.
    pub async fn adding(&self, of: &StreamKeys) -> Result<Adding> {
        let doing = || format!("looking at who reads {:?}", of.stream);
        let failed = |error| refusal(Who::Operator, &doing(), error);
        let garbled = || Trouble::garbled(&doing()).into_error();
        let mut conn = self.at(&of.stream).get().await?;
        let groups = redis::cmd("XINFO")
            .arg("GROUPS")
            .arg(&of.stream)
            .query_async(&mut conn)
            .await;
        let groups = match groups {
            Ok(groups) => names(groups).ok_or_else(garbled)?,
            Err(error) if error.to_string().contains("no such key") => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut pipe = redis::Pipeline::with_capacity(2 + 3 * groups.len());
        pipe.cmd("TIME");
        pipe.cmd("ZRANGE")
            .arg(&of.scheduled)
            .arg(0)
            .arg(0)
            .arg("WITHSCORES");
        for group in &groups {
            let keys = Keys::new(&of.stream, group);
            pipe.cmd("XINFO")
                .arg("CONSUMERS")
                .arg(&of.stream)
                .arg(group);
            pipe.cmd("GET").arg(&keys.left);
            pipe.cmd("EXISTS").arg(&keys.protocol);
        }
        // A group may go meanwhile.
        pipe.ignore_errors();
        let answers: Vec<redis::RedisResult<Value>> =
            pipe.query_async(&mut conn).await.map_err(failed)?;
        let mut answers = answers.into_iter();
        let (Some(time), Some(first)) = (answers.next(), answers.next()) else {
            return Err(garbled());
        };
        let now = millis(time.map_err(failed)?).ok_or_else(garbled)?;
        let due = reply::array(first.map_err(failed)?)
            .and_then(|pair| reply::text(pair.into_iter().nth(1)?)?.parse::<f64>().ok());
        let mut readers = Readers::Never;
        while let (Some(consumers), Some(left), Some(protocol)) =
            (answers.next(), answers.next(), answers.next())
        {
            let consumers = consumers
                .ok()
                .and_then(ConsumerInfo::all)
                .unwrap_or_default();
            let left = left.ok().and_then(|left| reply::int(&left));
            let is_ours = protocol.is_ok_and(|there| reply::int(&there) == Some(1));
            let left = left.map(|left| Duration::from_millis(now.saturating_sub(left as u64)));
            readers = readers.or(of_group(&consumers, left, is_ours));
        }
        Ok(Adding {
            readers,
            overdue: Duration::from_millis(due.map_or(0, |due| now.saturating_sub(due as u64))),
        })
    }
}

impl Link {
    /// Notes that a worker has left the group, which forgets it.
    pub async fn note_leaving(&mut self, keys: &Keys) -> std::result::Result<(), Trouble> {
        let failed = |error| Trouble::of("noting that this worker has left", error);
        let time: Value = redis::cmd("TIME")
            .query_async(&mut self.conn)
            .await
            .map_err(failed)?;
        let now = millis(time).unwrap_or_default();
        let mut set = redis::cmd("SET");
        set.arg(&keys.left)
            .arg(now)
            .arg("EX")
            .arg(REMEMBERED.as_secs());
        set.query_async(&mut self.conn).await.map_err(failed)
    }
}

impl Readers {
    /// What is known of two groups.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Readers::Now, _) | (_, Readers::Now) => Readers::Now,
            (Readers::Ago(a), Readers::Ago(b)) => Readers::Ago(a.min(b)),
            (Readers::Ago(ago), _) | (_, Readers::Ago(ago)) => Readers::Ago(ago),
            (Readers::Once, _) | (_, Readers::Once) => Readers::Once,
            (Readers::Never, Readers::Never) => Readers::Never,
        }
    }
}

/// What is known of one group: its consumers, how long ago a worker left it, and whether its keys are there.
fn of_group(consumers: &[ConsumerInfo], left: Option<Duration>, is_ours: bool) -> Readers {
    let workers = consumers.iter().filter(|consumer| !consumer.is_alone());
    let seen = workers.filter_map(|worker| {
        let (lease, idle) = (worker.lease_ms()?, worker.idle_ms);
        Some((idle <= lease, Duration::from_millis(idle)))
    });
    let seen: Vec<_> = seen.collect();
    if seen.iter().any(|(is_there, _)| *is_there) {
        return Readers::Now;
    }
    match seen.into_iter().map(|(_, idle)| idle).chain(left).min() {
        Some(ago) => Readers::Ago(ago),
        None if is_ours || consumers.iter().any(|consumer| consumer.name == PARKED) => {
            Readers::Once
        }
        None => Readers::Never,
    }
}

/// The groups of a stream. One whose name is no text is not ours.
fn names(groups: Value) -> Option<Vec<String>> {
    let name = |group: Value| {
        let mut items = reply::array(group)?.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            if reply::bytes(key)? == b"name" {
                return Some(reply::text(value));
            }
        }
        None
    };
    let all: Option<Vec<_>> = reply::array(groups)?.into_iter().map(name).collect();
    Some(all?.into_iter().flatten().collect())
}

/// What TIME answers, in milliseconds since 1970.
fn millis(time: Value) -> Option<u64> {
    let [seconds, micros] = reply::tuple(time)?;
    Some(reply::int(&seconds)? as u64 * 1000 + reply::int(&micros)? as u64 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_there_counts_before_all_that_were() {
        let consumer = |name: &str, idle_ms| ConsumerInfo {
            name: name.to_owned(),
            pending: 0,
            idle_ms,
        };
        let minute = Duration::from_secs(60);
        let there = [
            consumer("sh2-2000-h-1-a", 1_500),
            consumer("sh2-2000-h-2-b", 60_000),
        ];
        assert_eq!(of_group(&there, None, true), Readers::Now);
        assert_eq!(of_group(&there[1..], None, true), Readers::Ago(minute));
        assert_eq!(
            of_group(&there[1..], Some(minute / 2), true),
            Readers::Ago(minute / 2)
        );
        assert_eq!(of_group(&[], Some(minute), false), Readers::Ago(minute));
        assert_eq!(of_group(&[consumer(PARKED, 1)], None, false), Readers::Once);
        assert_eq!(of_group(&[], None, true), Readers::Once);
        // Neither another program's consumer adds anything, nor where one entry ran alone.
        assert_eq!(
            of_group(
                &[consumer("py-1", 1), consumer("sh2-2000-h-1-a!", 1)],
                None,
                false
            ),
            Readers::Never
        );
        assert_eq!(
            Readers::Never.or(Readers::Ago(minute)),
            Readers::Ago(minute)
        );
        assert_eq!(Readers::Ago(minute).or(Readers::Now), Readers::Now);
    }
}
