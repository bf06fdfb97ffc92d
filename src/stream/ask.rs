//! Any command put to a server, and what it said, refusals among it: for who looks at a server, and not at an entry's life.

use std::time::{Duration, Instant, SystemTime};

use redis::{RedisResult, Value};

use super::error::{Answer, Trouble, Who, refusal};
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;

script!(MAY, "may");

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Nothing,
    Number(i64),
    Text(String),
    Many(Vec<Said>),
    /// That it does not do this, in its own words.
    Refused(String),
}

impl Said {
    fn of(value: Value) -> Self {
        match value {
            Value::Nil => Said::Nothing,
            Value::Int(number) => Said::Number(number),
            Value::ServerError(error) => Said::Refused(format!(
                "{} {}",
                error.code(),
                error.details().unwrap_or_default()
            )),
            Value::VerbatimString { text, .. } => Said::Text(text),
            Value::Array(_) | Value::Map(_) => {
                let items = reply::array(value).unwrap_or_default();
                Said::Many(items.into_iter().map(Said::of).collect())
            }
            other => match reply::bytes(other) {
                Some(bytes) => Said::Text(String::from_utf8_lossy(&bytes).into_owned()),
                None => Said::Nothing,
            },
        }
    }

    fn of_answer(answer: RedisResult<Value>) -> Self {
        match answer {
            Ok(value) => Said::of(value),
            Err(error) => Said::Refused(
                Answer::of(&error).map_or_else(|| error.to_string(), |answer| answer.text),
            ),
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Said::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<i64> {
        match self {
            Said::Number(number) => Some(*number),
            Said::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub fn items(&self) -> &[Said] {
        match self {
            Said::Many(items) => items,
            _ => &[],
        }
    }

    /// Of names and values in turn the value of this name.
    pub fn get(&self, name: &str) -> Option<&Said> {
        let pairs = self.items().chunks_exact(2);
        pairs
            .into_iter()
            .find(|pair| pair[0].text() == Some(name))
            .map(|pair| &pair[1])
    }

    pub fn refusal(&self) -> Option<&str> {
        match self {
            Said::Refused(why) => Some(why),
            _ => None,
        }
    }
}

impl Pool {
    /// What the server says to each of these, which are sent at once.
    pub async fn ask_all(&self, commands: &[Vec<String>]) -> Result<Vec<Said>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = redis::Pipeline::with_capacity(commands.len());
        pipe.ignore_errors();
        for words in commands {
            pipe.add_command(command(words));
        }
        let mut conn = self.get().await?;
        let answers: Vec<RedisResult<Value>> = pipe
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, "asking the server", error))?;
        Ok(answers.into_iter().map(Said::of_answer).collect())
    }

    /// Whether this user may run each of these, which are not run. None if no script can be.
    pub async fn may(&self, commands: &[Vec<String>]) -> Result<Option<Vec<bool>>> {
        let doing = "asking what this user may do";
        let mut conn = self.get().await?;
        let mut call = MAY.prepare_invoke();
        for words in commands {
            call.arg(words.join("\0"));
        }
        // Who only looks may run scripts that only read.
        let mut answer: RedisResult<Value> = call.read_async(&mut conn).await;
        if matches!(&answer, Err(error) if Answer::of(error).is_some()) {
            answer = call.invoke_async(&mut conn).await;
        }
        match answer {
            Ok(value) => {
                let items = reply::array(value)
                    .ok_or_else(|| Trouble::garbled(doing).into_error())?
                    .into_iter();
                Ok(Some(
                    items.map(|item| reply::int(&item) == Some(1)).collect(),
                ))
            }
            Err(error) if Answer::of(&error).is_some() => Ok(None),
            Err(error) => Err(refusal(Who::Operator, doing, error)),
        }
    }

    /// Whether it is a cluster, as far as that is known.
    pub fn is_cluster(&self) -> bool {
        self.connector().is_cluster()
    }

    /// The hash slot of a key and the master that has it now; None if it is no cluster.
    pub async fn slot_and_master(&self, key: &str) -> Result<Option<(u16, String)>> {
        self.learn().await?;
        let Some(slot) = self.connector().slot_of(key) else {
            return Ok(None);
        };
        let (_, _, node) = self.at(key).place().await?;
        Ok(Some((slot.number(), node.at.to_string())))
    }

    /// Whom the server knows us as.
    pub fn user(&self) -> String {
        self.connector().user()
    }

    /// How long so many requests took that do nothing, one after the other.
    pub async fn pings(&self, count: usize) -> Result<Vec<Duration>> {
        let mut conn = self.get().await?;
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            let answer: RedisResult<Value> = redis::cmd("PING").query_async(&mut conn).await;
            match answer {
                // That it is refused is an answer, too.
                Err(error) if Answer::of(&error).is_none() => {
                    return Err(refusal(Who::Operator, "asking for an answer", error));
                }
                _ => took.push(begun.elapsed()),
            }
        }
        Ok(took)
    }

    /// By how many milliseconds the server's clock is ahead of ours, and how far that may be off.
    pub async fn clock_ahead(&self) -> Result<(i64, Duration)> {
        let mut best: Option<(i64, Duration)> = None;
        for _ in 0..5 {
            let (begun, ours) = (Instant::now(), SystemTime::now());
            let theirs = self.now().await?;
            let took = begun.elapsed();
            if best.is_none_or(|(_, least)| took / 2 < least) {
                let ours = ours + took / 2;
                let ahead = match theirs.duration_since(ours) {
                    Ok(ahead) => ahead.as_millis() as i64,
                    Err(behind) => -(behind.duration().as_millis() as i64),
                };
                best = Some((ahead, took / 2));
            }
        }
        Ok(best.unwrap_or_default())
    }
}

fn command(words: &[String]) -> redis::Cmd {
    let mut words = words.iter();
    let mut command = redis::cmd(words.next().map_or("", String::as_str));
    for word in words {
        command.arg(word);
    }
    command
}
