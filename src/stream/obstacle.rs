//! What was in the way of a step that was refused: which key, and what is wrong with it or which right is missing. The
//! server's own words tell neither: a script's keys are looked at all at once before it runs, and of an error within one
//! it names a line. So what the step needs is gone through key by key, once it has been refused.
//!
//! A script whose writes belong together looks for its rights by itself, before the first of them: see
//! `scripts/common/rights.lua`.

use std::time::Instant;

use redis::{FromRedisValue, RedisError, RedisResult, Value};

use super::connection::Link;
use super::error::{Known, Trouble};
use super::reply;
use super::script::script;

script!(LACKS, "lacks", behind "common/rights");

/// A key of a step: its name, what it holds where it is there (or ""), and the commands on it.
pub(crate) type Need<'a> = (&'a [u8], &'static str, &'static str);

/// What a step needs of a key.
pub(crate) fn need<'a>(
    key: &'a (impl AsRef<[u8]> + ?Sized),
    kind: &'static str,
    commands: &'static str,
) -> Need<'a> {
    (key.as_ref(), kind, commands)
}

/// What is in the way of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Which of its needs it is.
    pub place: usize,
    /// In words: the key, what is wrong with it, and what would be right.
    pub words: String,
}

impl Link {
    /// The answer to a step, or what it means that there is none. A refusal says which of the step's needs it was for.
    pub(super) async fn answered<'n, T: FromRedisValue>(
        &mut self,
        doing: impl FnOnce() -> String,
        answer: RedisResult<T>,
        needs: impl FnOnce() -> Vec<Need<'n>>,
    ) -> Result<T, Trouble> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.refused(&doing(), error, &needs()).await),
        }
    }

    #[cold]
    async fn refused(&mut self, doing: &str, error: RedisError, needs: &[Need<'_>]) -> Trouble {
        let trouble = Trouble::of(doing, error);
        if !trouble.is_about_a_key() {
            return trouble;
        }
        let found = self.found.clone();
        let mut found = found.0.lock().await;
        if !found.iter().any(|known| known.is(doing)) {
            let words = self.obstacle(needs).await.map(|obstacle| obstacle.words);
            found.replace(Known {
                doing: doing.to_owned(),
                words,
                since: Instant::now(),
            });
        }
        match found.as_ref().and_then(|known| known.words.as_ref()) {
            Some(words) => trouble.because(doing, words),
            None => trouble,
        }
    }

    /// The first of these needs that is not met. None if all are, as far as can be told.
    pub async fn obstacle(&mut self, needs: &[Need<'_>]) -> Option<Obstacle> {
        if let Some(obstacle) = self.missing_right(needs).await {
            return Some(obstacle);
        }
        let mut pipe = redis::Pipeline::with_capacity(needs.len());
        pipe.ignore_errors();
        for (key, ..) in needs {
            pipe.cmd("TYPE").arg(*key);
        }
        let kinds: Vec<RedisResult<String>> = pipe.query_async(&mut self.conn).await.ok()?;
        for (place, ((key, kind, _), is)) in needs.iter().zip(kinds).enumerate() {
            match is {
                Ok(is) if !kind.is_empty() && is != "none" && is != **kind => {
                    let key = String::from_utf8_lossy(key);
                    let words =
                        format!("{key} is a {is} and should be a {kind}: rename or delete it");
                    return Some(Obstacle { place, words });
                }
                _ => {}
            }
        }
        None
    }

    /// The first right to one of these keys that this connection's user does not have.
    pub async fn missing_right(&mut self, needs: &[Need<'_>]) -> Option<Obstacle> {
        let mut call = LACKS.prepare_invoke();
        // Most steps have the worker's stream first, and without rights to that there would be no worker.
        call.arg(needs.first()?.0);
        for (key, _, commands) in needs {
            call.arg(*key).arg(*commands);
        }
        let value: Value = call.invoke_async(&mut self.conn).await.ok()?;
        let [place, command, what] = reply::tuple(value)?;
        let place = usize::try_from(reply::int(&place)?).ok()?.checked_sub(1)?;
        let command = reply::text(command)?;
        let key = String::from_utf8_lossy(needs.get(place)?.0).into_owned();
        let right = match &reply::text(what)?[..] {
            "key" => format!("~{key}"),
            _ => format!("+{}", command.to_lowercase().replace(' ', "|")),
        };
        let words = format!("this user may not {command} {key}: its ACL lacks {right}");
        Some(Obstacle { place, words })
    }
}
