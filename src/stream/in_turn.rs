//! Calls of scripts that wait for replicas: over the connection for that, in turns.

use std::sync::Arc;

use redis::{Pipeline, RedisResult, ServerErrorKind, Value};

use super::call::Call;
use super::connection::Link;
use super::error::{Trouble, Who, elsewhere};
use super::pool::Pool;
use super::replicated::Replicas;
use crate::error::Result;

impl Pool {
    /// The answer to a call of what belongs to `key`, and why replicas are not known to have what it wrote, if so.
    pub(super) async fn call_in_turn(
        &self,
        doing: &str,
        key: &str,
        call: &Call,
        replicas: Replicas,
    ) -> Result<(Value, Option<Arc<str>>)> {
        let mut is_last = false;
        loop {
            let link = self.in_turn(key).await?;
            let asked = call.ask_in_turn(&link, replicas).await;
            let error = match asked {
                Ok((answer, waited)) => {
                    return Ok((answer, replicas.lacking(&waited.extract_error())));
                }
                Err(error) => error,
            };
            // The server is not the one to ask any more, and has done nothing.
            if elsewhere(&error).is_some() && !is_last {
                is_last = true;
                continue;
            }
            let trouble = Trouble::met_by(Who::Publisher, doing, error);
            if trouble.ends_the_link() {
                self.in_turn_broke(key, &link).await;
            }
            return Err(trouble.into_error());
        }
    }
}

impl Call {
    async fn ask_in_turn(&self, link: &Link, replicas: Replicas) -> RedisResult<(Value, Value)> {
        let mut pipe = Pipeline::new();
        pipe.add_command(self.command().clone());
        let (answer, waited) = last(link.conn.ask_in_turn(&link.turns, &pipe, replicas).await?)?;
        match answer.extract_error() {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {}
            answer => return Ok((answer?, waited)),
        }
        let mut pipe = Pipeline::new();
        pipe.load_script(self.script().text());
        pipe.add_command(self.command().clone());
        let (answer, waited) = last(link.conn.ask_in_turn(&link.turns, &pipe, replicas).await?)?;
        Ok((answer.extract_error()?, waited))
    }
}

/// The last of the answers, and the one to WAIT.
fn last((mut answers, waited): (Vec<Value>, Value)) -> RedisResult<(Value, Value)> {
    let none = (redis::ErrorKind::Parse, "no answer");
    Ok((answers.pop().ok_or(none)?, waited))
}
