//! How projections stand: what is served, and what is told of them.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;

use super::error::{Trouble, Who, refusal};
use super::keys::{ProjectionKeys, StreamKeys};
use super::letters::newest;
use super::pool::Pool;
use super::reply;
use crate::error::Result;
use crate::event::EntryId;

impl Pool {
    /// Which generation of a view is served beside each of these public streams; None where there is none yet.
    pub async fn views_served(&self, all: &[ProjectionKeys]) -> Result<Vec<Option<u64>>> {
        let doing = "looking for a view";
        let mut served = vec![None; all.len()];
        for (pool, places) in self.by_slot(all, |keys| &keys.stream).await? {
            let mut conn = pool.get().await?;
            let mut pipe = redis::Pipeline::with_capacity(places.len());
            for place in &places {
                pipe.cmd("HGET")
                    .arg(&all[*place].checkpoint)
                    .arg("generation");
            }
            let answers: Vec<Option<u64>> = pipe
                .query_async(&mut conn)
                .await
                .map_err(|error| refusal(Who::Operator, doing, error))?;
            for (place, generation) in places.into_iter().zip(answers) {
                served[place] = generation;
            }
        }
        Ok(served)
    }

    /// How projections stand that are groups of a public stream; those of these names also where they are none yet.
    pub async fn projections(
        &self,
        of: &StreamKeys,
        names: &[&str],
    ) -> Result<Vec<ProjectionStatus>> {
        let doing = || format!("looking at projections of {:?}", of.stream);
        let failed = |error| refusal(Who::Operator, &doing(), error);
        let mut conn = self.at(&of.stream).get().await?;
        let mut groups = redis::cmd("XINFO");
        let groups: Value = match groups
            .arg("GROUPS")
            .arg(&of.stream)
            .query_async(&mut conn)
            .await
        {
            Ok(groups) => groups,
            Err(error) if error.to_string().contains("no such key") => Value::Array(Vec::new()),
            // The key holds something else: whoever asked has said so.
            Err(error) if error.code() == Some("WRONGTYPE") => Value::Array(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = groups_in(groups).ok_or_else(|| Trouble::garbled(&doing()).into_error())?;
        for name in names {
            if !found.iter().any(|(known, _)| known == name) {
                found.push(((*name).to_owned(), None));
            }
        }
        let mut pipe = redis::Pipeline::with_capacity(2 * found.len());
        for (name, _) in &found {
            let keys = of.projection(name);
            pipe.cmd("HGETALL").arg(&keys.checkpoint);
            pipe.cmd("HGETALL").arg(&keys.rebuild);
        }
        pipe.cmd("TIME");
        // A key of that name may be another's.
        pipe.ignore_errors();
        let answers: Vec<redis::RedisResult<Value>> =
            pipe.query_async(&mut conn).await.map_err(failed)?;
        let mut answers = answers
            .into_iter()
            .map(|answer| answer.unwrap_or(Value::Nil));
        let mut all = Vec::new();
        for (name, lag) in found {
            let checkpoint = answers.next().and_then(fields_of).unwrap_or_default();
            let rebuild = answers.next().and_then(fields_of).unwrap_or_default();
            if !checkpoint.is_empty() || names.contains(&&name[..]) {
                all.push(ProjectionStatus {
                    name,
                    lag,
                    checkpoint,
                    rebuild,
                    end: None,
                    now: 0,
                });
            }
        }
        let now = answers.next().and_then(ms).unwrap_or(0);
        let end = match all.is_empty() {
            true => None,
            // A key of that name may be another's.
            false => match newest(&mut conn, &of.stream).await {
                Err(error) if error.code() == Some("WRONGTYPE") => None,
                end => end.map_err(failed)?,
            },
        };
        for one in &mut all {
            (one.now, one.end) = (now, end);
        }
        Ok(all)
    }

    /// Has a projection go on that has stopped, whatever it stopped at. Answers where that was, None where it had not.
    pub async fn resume_projection(&self, keys: &ProjectionKeys) -> Result<Option<String>> {
        let doing = "resuming a projection";
        let mut conn = self.at(&keys.stream).get().await?;
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("HMGET").arg(&keys.checkpoint);
        pipe.arg(&["state", "stopped.at"]);
        pipe.cmd("HDEL").arg(&keys.checkpoint).ignore();
        pipe.arg(&["state", "stopped.at", "stopped.why", "stopped.held"]);
        pipe.arg(&["deaths", "danger", "suspect", "suspect.deaths"]);
        let ((state, at),): ((Option<String>, Option<String>),) = pipe
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, doing, error))?;
        Ok((state.as_deref() == Some("stopped")).then(|| at.unwrap_or_default()))
    }
}

/// The groups of a stream, with their lag where it is known.
fn groups_in(groups: Value) -> Option<Vec<(String, Option<u64>)>> {
    let one = |group: Value| {
        let fields = reply::array(group)?;
        let value = |name: &str| {
            let mut pairs = fields.chunks_exact(2);
            let pair = pairs.find(|pair| reply::text(pair[0].clone()).as_deref() == Some(name))?;
            Some(pair[1].clone())
        };
        let name = String::from_utf8_lossy(&reply::bytes(value("name")?)?).into_owned();
        let lag = value("lag")
            .and_then(|lag| reply::int(&lag))
            .map(|lag| lag as u64);
        Some((name, lag))
    };
    reply::array(groups)?.into_iter().map(one).collect()
}

/// What TIME answers, in milliseconds.
fn ms(time: Value) -> Option<u64> {
    let [seconds, micros] = reply::tuple(time)?;
    let number = |value: &Value| reply::int(value).and_then(|number| u64::try_from(number).ok());
    Some(number(&seconds)? * 1000 + number(&micros)? / 1000)
}

fn fields_of(hash: Value) -> Option<BTreeMap<String, String>> {
    let fields = reply::array(hash)?;
    let pairs = fields.chunks_exact(2);
    Some(
        pairs
            .filter_map(|pair| Some((reply::text(pair[0].clone())?, reply::text(pair[1].clone())?)))
            .collect(),
    )
}

/// How a projection stands with one public stream.
#[derive(Debug)]
pub(crate) struct ProjectionStatus {
    pub name: String,
    /// Entries behind it, None where Redis does not know.
    pub lag: Option<u64>,
    checkpoint: BTreeMap<String, String>,
    rebuild: BTreeMap<String, String>,
    /// Where the public stream ends, None where there is none.
    end: Option<EntryId>,
    now: u64,
}

impl ProjectionStatus {
    pub fn generation(&self) -> Option<u64> {
        self.checkpoint.get("generation")?.parse().ok()
    }

    pub fn position(&self) -> Option<&str> {
        self.checkpoint.get("position").map(String::as_str)
    }

    /// Events that could not be applied.
    pub fn bad(&self) -> u64 {
        self.checkpoint
            .get("bad")
            .and_then(|bad| bad.parse().ok())
            .unwrap_or(0)
    }

    /// Who runs it, as far as is known: their lease is not over.
    pub fn runner(&self) -> Option<&str> {
        let until = self.checkpoint.get("until")?.parse::<u64>().ok()?;
        let runner = self.checkpoint.get("runner").map(String::as_str);
        runner.filter(|_| until >= self.now)
    }

    /// Where the public stream ends, where the view stands behind that: it is another stream by now. A projection that
    /// runs sees to it.
    pub fn is_behind_end(&self) -> Option<EntryId> {
        let position = EntryId::parse(self.position()?.as_bytes())?;
        let end = self.end.unwrap_or_default();
        (position > end).then_some(end)
    }

    /// How far it is behind the youngest event.
    pub fn behind(&self) -> Duration {
        let position = self.position().and_then(|at| EntryId::parse(at.as_bytes()));
        let (position, end) = (position.unwrap_or_default(), self.end.unwrap_or_default());
        match position {
            // Of one without a view yet nothing is known.
            EntryId { ms: 0, .. } => Duration::ZERO,
            position => Duration::from_millis(end.ms.saturating_sub(position.ms)),
        }
    }

    /// How many have died one after the other who ran it.
    pub fn deaths(&self) -> u64 {
        self.checkpoint
            .get("deaths")
            .and_then(|deaths| deaths.parse().ok())
            .unwrap_or(0)
    }

    /// It has stopped until it is resumed.
    pub fn is_held(&self) -> bool {
        self.checkpoint
            .get("stopped.held")
            .is_some_and(|held| held == "1")
    }

    /// Where it has stopped, and why.
    pub fn stopped(&self) -> Option<(&str, &str)> {
        let is_stopped = self
            .checkpoint
            .get("state")
            .is_some_and(|state| state == "stopped");
        let of = |name| self.checkpoint.get(name).map_or("", String::as_str);
        is_stopped.then(|| (of("stopped.at"), of("stopped.why")))
    }

    /// The generation that is built, and how far it is.
    pub fn rebuild(&self) -> Option<(u64, &str)> {
        let generation = self.rebuild.get("generation")?.parse().ok()?;
        Some((
            generation,
            self.rebuild.get("position").map_or("0-0", String::as_str),
        ))
    }
}
