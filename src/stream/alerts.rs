//! Whose turn it is to look for what is wrong with a group, and what is told of it by now.

use std::time::Duration;

use redis::Value;

use super::error::{Trouble, Who, refusal};
use super::keys::AlertKeys;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::error::Result;

script!(ALERTS, "alerts");

/// What is told of is kept for so long after the last look.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whether it is one's turn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AlertTurn {
    /// It is, and this is what was kept, if anything was.
    Mine(Option<String>),
    Anothers,
}

impl Pool {
    /// Takes the turn for `lasts`, or goes on with it, and keeps `standing` if any is given.
    pub async fn alerts_turn(
        &self,
        keys: &AlertKeys,
        who: &str,
        lasts: Duration,
        standing: Option<&str>,
    ) -> Result<AlertTurn> {
        let doing = format!("taking a turn at {}", keys.turn);
        let mut conn = self.at(&keys.turn).get().await?;
        let value: Value = ALERTS
            .key(&keys.turn)
            .key(&keys.standing)
            .arg(who)
            .arg(lasts.as_millis().to_string())
            .arg(standing.unwrap_or_default())
            .arg(KEPT.as_millis().to_string())
            .invoke_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        if value == Value::Nil {
            return Ok(AlertTurn::Anothers);
        }
        let [kept] = reply::tuple(value).ok_or_else(|| Trouble::garbled(&doing).into_error())?;
        Ok(AlertTurn::Mine(reply::text(kept)))
    }
}
